//! Loading the helper module, and unloading what was loaded.
#![allow(unsafe_code, reason = "two system calls; each block says why it is sound")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::module_file::loaded;
use crate::probe::HELPER_DEVICE;
use crate::safety::{Undo, change};

/// The module, if this program loaded it; unloaded at the end of this value, and by [`crate::safety::undo_all`].
#[derive(Debug)]
pub struct Loaded {
    ours: Option<Undo>,
}

impl Loaded {
    /// Loads a file as the module, unless it is loaded already: then that one is used, and stays.
    ///
    /// # Errors
    /// The kernel's, with what it may mean.
    pub fn load(path: &Path) -> Result<Loaded, String> {
        if loaded() {
            return Ok(Loaded { ours: None });
        }
        let said = |e: io::Error| {
            let hint = match e.raw_os_error() {
                Some(libc::EPERM) => ": only root (CAP_SYS_MODULE) may, and not under lockdown",
                Some(libc::ENOEXEC) => {
                    ": it was built for another kernel; build it again against this one's headers"
                }
                Some(libc::ENOKEY | libc::EKEYREJECTED) => {
                    ": this kernel wants modules signed with a key it knows"
                }
                Some(libc::ENOSYS) => ": this kernel loads no modules",
                _ => "",
            };
            format!("--load-module {}: {e}{hint}", path.display())
        };
        let file = File::open(path).map_err(said)?;
        let what = "the module sevsim_flush stays loaded (rmmod sevsim_flush)";
        let load = || {
            // SAFETY: the descriptor is open, the parameters are an empty C string that lives through the call, no flags.
            let done = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
            if done == 0 { Ok(()) } else { Err(said(io::Error::last_os_error())) }
        };
        let loaded = Loaded { ours: Some(change((what.to_owned(), unload), load)?.1) };
        // The device appears when devtmpfs, or udev, comes to it.
        let begin = Instant::now();
        while !Path::new("/").join(HELPER_DEVICE).exists() && begin.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(loaded)
    }

    /// Whether this program loaded it.
    #[must_use]
    pub fn ours(&self) -> bool {
        self.ours.is_some()
    }
}

fn unload() -> Result<(), String> {
    // SAFETY: a C string that lives through the call, and a flag: the kernel refuses while the module is in use.
    let done = unsafe { libc::syscall(libc::SYS_delete_module, c"sevsim_flush".as_ptr(), libc::O_NONBLOCK) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error().to_string()) }
}
