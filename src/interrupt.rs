//! Ctrl-C: the first asks everything to stop cleanly, a second one leaves at once.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::output::Output;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// What a second signal deletes before it ends the program.
static LEFT: Mutex<Option<PathBuf>> = Mutex::new(None);
static FIRST: Mutex<Option<Instant>> = Mutex::new(None);

/// Within this time a second signal is the same wish: `timeout` sends two, to the program and to its group.
const SAME: Duration = Duration::from_millis(300);

/// Begins to listen. Without a handler, if the system refuses one, Ctrl-C simply ends the program.
pub(crate) fn install() {
    let handler = || {
        INTERRUPTED.store(true, Ordering::Relaxed);
        let Ok(mut first) = FIRST.lock() else { leave() };
        if first.get_or_insert_with(Instant::now).elapsed() > SAME {
            leave();
        }
    };
    drop(ctrlc::set_handler(handler));
}

#[expect(clippy::exit, reason = "whoever asks twice does not want to wait for anything")]
fn leave() -> ! {
    // What a calibration has changed on the host. Nothing is changed any more as long as this lives.
    let left = svm_native::safety::undo_all();
    for left in &left.said {
        Output::new().log(&format!("could not be put back: {left}"));
    }
    if let Ok(left) = LEFT.lock()
        && let Some(path) = left.as_ref()
    {
        drop(std::fs::remove_file(path));
    }
    std::process::exit(130)
}

/// A temporary file that must not stay behind.
pub(crate) fn delete_when_leaving(path: &Path) {
    if let Ok(mut left) = LEFT.lock() {
        *left = Some(path.to_owned());
    }
}

/// What long work looks at.
pub(crate) fn flag() -> &'static AtomicBool {
    &INTERRUPTED
}

/// Whether somebody has asked to stop.
pub(crate) fn asked() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
