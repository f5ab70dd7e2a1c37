//! Standard input as a file, for a trace that several guests read: standard input can be read only once.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::exit::Failure;
use crate::interrupt;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;
/// How long nothing may come before somebody looks whether the user gave up.
const PATIENCE: Duration = Duration::from_millis(100);

/// A copy of standard input, deleted at the end.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
}

impl Spool {
    /// Copies standard input to the end.
    pub(crate) fn standard_input() -> Result<Spool, Failure> {
        let path = std::env::temp_dir().join(format!("sevsim-stdin-{}", std::process::id()));
        let wrong = |e: io::Error| {
            Failure::internal(format!("standard input cannot be kept in {}: {e}", path.display()))
        };
        let mut file: File = OpenOptions::new().write(true).create_new(true).open(&path).map_err(wrong)?;
        interrupt::delete_when_leaving(&path);
        let spool = Spool { path: path.clone() };
        // A read that waits for ever cannot be interrupted, so that it waits in a thread of its own.
        let (sender, chunks) = sync_channel(4);
        std::thread::spawn(move || {
            let mut input = io::stdin().lock();
            loop {
                let mut chunk = vec![0; CHUNK];
                let read = input.read(&mut chunk).map(|n| {
                    chunk.truncate(n);
                    chunk
                });
                let last = !matches!(&read, Ok(chunk) if !chunk.is_empty());
                if sender.send(read).is_err() || last {
                    return;
                }
            }
        });
        loop {
            match chunks.recv_timeout(PATIENCE) {
                Ok(Ok(chunk)) if chunk.is_empty() => return Ok(spool),
                Ok(read) => file.write_all(&read.map_err(wrong)?).map_err(wrong)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(spool),
            }
            if interrupt::asked() {
                return Err(Failure::interrupted());
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // If it cannot be deleted, the system's temporary folder keeps it: nothing is lost.
        drop(std::fs::remove_file(&self.path));
    }
}
