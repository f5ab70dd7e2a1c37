//! The one place that prints: results on standard output, everything else on standard error.
//!
//! *Promise*: a closed pipe is no error and no panic; the exit code stays what the command found out. Colours are
//! taken out where they are not wanted (no terminal, `NO_COLOR`).

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use terminal_size::{Width, terminal_size};

use crate::exit::Exit;

/// Columns where standard output is no terminal.
const COLUMNS: usize = 100;

/// Standard output and standard error.
#[derive(Debug)]
pub(crate) struct Output {
    closed: bool,
    failed: Option<String>,
    width: usize,
}

impl Output {
    /// Takes them as they are.
    pub(crate) fn new() -> Output {
        let terminal = std::io::stdout().is_terminal().then(terminal_size).flatten();
        let width = terminal.map_or(COLUMNS, |(Width(w), _)| usize::from(w).clamp(40, 200));
        Output { closed: false, failed: None, width }
    }

    /// Columns to lay results out for.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Prints results as they are; a line's end is the caller's.
    pub(crate) fn print(&mut self, text: &str) {
        if self.closed || self.failed.is_some() {
            return;
        }
        let mut stream = anstream::stdout().lock();
        if let Err(error) = stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
            if error.kind() == ErrorKind::BrokenPipe {
                self.closed = true;
            } else {
                self.failed = Some(error.to_string());
            }
        }
    }

    /// Says something that is no result.
    pub(crate) fn log(&self, text: &str) {
        // There is nobody left to tell that standard error is gone.
        drop(writeln!(anstream::stderr().lock(), "{text}"));
    }

    /// How the program ends, if it was to end like `exit`.
    pub(crate) fn finish(&mut self, exit: Exit) -> Exit {
        let Some(error) = self.failed.take() else { return exit };
        self.log(&format!("error: the results cannot be written: {error}"));
        Exit::Internal
    }
}
