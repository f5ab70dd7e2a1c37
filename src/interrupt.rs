//! Ctrl-C: the first asks everything to stop cleanly, the second leaves at once.

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Begins to listen. Without a handler, if the system refuses one, Ctrl-C simply ends the program.
pub(crate) fn install() {
    let handler = || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            leave();
        }
    };
    drop(ctrlc::set_handler(handler));
}

#[expect(clippy::exit, reason = "whoever asks twice does not want to wait for anything")]
fn leave() -> ! {
    std::process::exit(130)
}

/// What long work looks at.
pub(crate) fn flag() -> &'static AtomicBool {
    &INTERRUPTED
}

/// Whether somebody has asked to stop.
pub(crate) fn asked() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
