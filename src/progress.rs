//! What is shown on a terminal while one waits: nothing for a second, then a bar and how far the work has come.
//!
//! *Not here*: results. Progress goes to standard error, and only if that is a terminal.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long nothing is shown.
const QUIET: Duration = Duration::from_secs(1);

/// A bar over pieces of work done in parallel.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    /// When it begins to be shown; `None` once it is.
    since: Mutex<Option<Instant>>,
    unit: &'static str,
    /// Units counted in pieces that are finished.
    finished: AtomicU64,
    /// Units counted in pieces at work, one cell each.
    working: Vec<AtomicU64>,
}

impl Progress {
    /// For `pieces` of work that count `unit`s.
    pub(crate) fn new(pieces: usize, unit: &'static str) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(
                Some(u64::try_from(pieces).unwrap_or(u64::MAX)),
                ProgressDrawTarget::hidden(),
            );
            let style = ProgressStyle::with_template("{elapsed:>4} [{bar:24}] {pos}/{len}  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar
        });
        Progress {
            bar,
            since: Mutex::new(Some(Instant::now())),
            unit,
            finished: AtomicU64::new(0),
            working: (0..pieces).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Piece `piece` has counted `units` so far; `note` is what else is worth saying of it.
    pub(crate) fn tell(&self, piece: usize, units: u64, note: &str) {
        if let Some(cell) = self.working.get(piece) {
            cell.store(units, Ordering::Relaxed);
        }
        let Some(bar) = &self.bar else { return };
        self.begin(bar);
        let total = self.finished.load(Ordering::Relaxed)
            + self.working.iter().map(|w| w.load(Ordering::Relaxed)).sum::<u64>();
        bar.set_message(format!("{} {}{note}", crate::report::number::short(total), self.unit));
    }

    fn begin(&self, bar: &ProgressBar) {
        let Ok(mut since) = self.since.lock() else { return };
        if since.is_some_and(|s| s.elapsed() >= QUIET) {
            *since = None;
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(4));
            bar.enable_steady_tick(Duration::from_millis(250));
        }
    }

    /// Piece `piece` is done.
    pub(crate) fn done(&self, piece: usize) {
        if let Some(cell) = self.working.get(piece) {
            self.finished.fetch_add(cell.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Runs `print` with the bar out of the way.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
