//! Standard input as a file, for a trace that several guests read: standard input can be read only once.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

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
        let spool = Spool { path: path.clone() };
        io::copy(&mut io::stdin().lock(), &mut file).map_err(wrong)?;
        Ok(spool)
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
