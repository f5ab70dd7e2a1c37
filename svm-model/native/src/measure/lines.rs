//! Flushes of lines: CLFLUSH and its kin over lines that are absent, clean and dirty.

use super::Bench;
use crate::buffer::{Buffer, LINE};
use crate::cpu::{self, LineOp};
use crate::profile::{Experiment, HeldOut, HeldOutWork, Reading, Unit};
use crate::stats::{Fit, Samples, Spread};

/// The state that lines are put into before a flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Absent,
    Clean,
    Dirty,
}

impl State {
    const ALL: [State; 3] = [State::Absent, State::Clean, State::Dirty];

    const fn name(self) -> &'static str {
        match self {
            State::Absent => "absent",
            State::Clean => "clean",
            State::Dirty => "dirty",
        }
    }
}

/// Puts `lines` lines of the buffer from line 0 on into a state, the rest being absent.
fn prepare(buffer: &mut Buffer, lines: usize, state: State) {
    let bytes = lines * LINE;
    cpu::flush_lines(LineOp::Clflush, &buffer.bytes()[..bytes]);
    cpu::fence();
    match state {
        State::Absent => {}
        State::Clean => buffer.read(bytes),
        State::Dirty => buffer.dirty(bytes, 3),
    }
}

/// Cycles of `op` over the first `lines` lines, with the fence that waits for them.
#[inline(always)]
pub(super) fn timed(op: LineOp, buffer: &Buffer, lines: usize) -> u64 {
    let bytes = &buffer.bytes()[..lines * LINE];
    let begin = cpu::begin();
    cpu::flush_lines(op, bytes);
    cpu::fence();
    cpu::end() - begin
}

/// Lines that the fits are made from.
const FITTED: [usize; 5] = [64, 512, 1024, 2048, 4096];

/// `flush.clflush_*`: CLFLUSH over lines that are absent, clean and dirty, fitted; its kin as `other`.
///
/// # Errors
/// No memory, or the thread cannot be pinned.
pub fn flush(bench: &mut Bench<'_>) -> Result<(), String> {
    let _pinned = bench.home()?;
    let mut buffer = Buffer::new(2 << 20).map_err(|e| e.to_string())?;
    let mut fixed = Vec::new();
    for (op, there) in [
        (LineOp::Clflush, true),
        (LineOp::Clflushopt, bench.cpuid.clflushopt()),
        (LineOp::Clwb, bench.cpuid.clwb()),
    ] {
        for state in State::ALL {
            let key = format!("{}_{}", op.name().to_lowercase(), state.name());
            let section = if op == LineOp::Clflush { "flush" } else { "other" };
            let name = format!("{section}.{key}");
            if !there {
                bench.miss(&name, format!("this CPU has no {}", op.name()));
                continue;
            }
            let what = format!("{} over {} lines and a fence", op.name(), state.name());
            let mut series = |bench: &Bench<'_>| {
                FITTED.map(|lines| {
                    let samples = bench.sample(60, 1, || {
                        prepare(&mut buffer, lines, state);
                        timed(op, &buffer, lines)
                    });
                    (lines as u64, samples)
                })
            };
            let experiment = settled(bench, &key, &what, &mut series);
            if let Some(reading) = per_line(&name, &experiment) {
                bench.readings.push(reading);
                fixed.extend(experiment.fit.filter(|_| op == LineOp::Clflush).map(|f| f.fixed));
            }
            bench.experiments.push(experiment);
        }
    }
    drain(bench, &mut buffer, &fixed);
    hold_out(bench, &mut buffer);
    Ok(())
}

/// Tries of a series whose slope is too uncertain.
const TRIES: usize = 3;
/// Thousandths of a slope beyond which its standard error is too large.
const UNCERTAIN_PERMILLE: u64 = 20;

/// The standard error in thousandths of the slope, rounded up; as large as can be if there is no slope.
fn uncertainty(fit: Option<Fit>) -> u64 {
    let slope = fit.map_or(0, |f| u64::try_from(f.slope_milli).unwrap_or(0));
    match (fit, slope) {
        (None, _) | (_, 0) => u64::MAX,
        (Some(f), slope) => (f.slope_error_milli.unsigned_abs().saturating_mul(1000)).div_ceil(slope),
    }
}

/// The series, again if its slope is too uncertain; of all tries the one with the smallest error.
fn settled(
    bench: &Bench<'_>,
    key: &str,
    what: &str,
    series: &mut dyn FnMut(&Bench<'_>) -> [(u64, Samples); FITTED.len()],
) -> Experiment {
    let mut best: Option<Experiment> = None;
    let mut errors = Vec::new();
    while errors.len() < TRIES && !bench.stopped() {
        let found = Experiment::of(key, what.to_owned(), "lines", &series(bench));
        let error = uncertainty(found.fit);
        errors.push(error);
        if best.as_ref().is_none_or(|b| error < uncertainty(b.fit)) {
            best = Some(found);
        }
        if error <= UNCERTAIN_PERMILLE {
            break;
        }
    }
    let mut best = best.unwrap_or_else(|| Experiment::of(key, what.to_owned(), "lines", &[]));
    if errors.len() > 1 {
        let said = |e: &u64| match *e {
            u64::MAX => "no slope".to_owned(),
            e => format!("{}.{} %", e / 10, e % 10),
        };
        let all: Vec<String> = errors.iter().map(said).collect();
        best.method.push_str(&format!(
            ", the best of {} tries (errors of the slope: {})",
            errors.len(),
            all.join(", ")
        ));
    }
    best
}

/// What each line adds. Low and high: the percentiles of a line at the largest number of them.
pub fn per_line(name: &str, experiment: &Experiment) -> Option<Reading> {
    let fit = experiment.fit?;
    let (lines, spread, ..) = *experiment.points.last()?;
    let slope = u64::try_from(fit.slope_milli / 1000).unwrap_or(0);
    let error = 2 * u64::try_from(fit.slope_error_milli / 1000).unwrap_or(0);
    let spread = spread.map(|ps| ps / lines);
    let residual = experiment.points.iter().map(|p| fit.residual(p.0, p.1.p50).abs()).max().unwrap_or(0);
    let method = format!(
        "{}, medians fitted: {slope} ps each (standard error {}), fixed {} ns (standard error {}), largest residual {} ns; \
         low and high are percentiles at {lines} {x}, and two standard errors if those are wider",
        experiment.method,
        fit.slope_error_milli / 1000,
        fit.fixed / 1000,
        fit.fixed_error / 1000,
        residual / 1000,
        x = experiment.x
    );
    Some(Reading {
        name: name.to_owned(),
        unit: Unit::Ns,
        spread: Spread {
            p10: spread.p10.min(slope.saturating_sub(error)),
            p50: slope,
            p90: spread.p90.max(slope + error),
            p99: spread.p99.max(slope + error),
        },
        samples: experiment.points.iter().map(|p| p.2).sum(),
        tagged: experiment.points.iter().map(|p| p.3).sum(),
        method,
        derived: false,
    })
}

/// `flush.clflush_drain`: one dirty line and the fence, without what a line costs anyway.
fn drain(bench: &mut Bench<'_>, buffer: &mut Buffer, fixed: &[i64]) {
    let dirty = bench.readings.iter().find(|r| r.name == "flush.clflush_dirty").map_or(0, |r| r.spread.p50);
    let one = bench.sample(300, 1, || {
        prepare(buffer, 1, State::Dirty);
        timed(LineOp::Clflush, buffer, 1)
    });
    let fixed: Vec<String> = fixed.iter().map(|ps| (ps / 1000).to_string()).collect();
    let method = format!(
        "CLFLUSH of one dirty line and MFENCE, a line's slope subtracted (fixed parts of the fits: {} ns)",
        fixed.join(", ")
    );
    bench.keep("flush.clflush_drain", Unit::Ns, &one.map(|ps| ps.saturating_sub(dirty)), method);
}

/// Mixtures and sizes that nothing was fitted to.
fn hold_out(bench: &mut Bench<'_>, buffer: &mut Buffer) {
    for (dirty, clean, absent) in
        [(768, 0, 0), (3072, 0, 0), (0, 3072, 0), (0, 0, 3072), (1024, 3072, 0), (1024, 1024, 1024)]
    {
        let lines = dirty + clean + absent;
        let samples = bench.sample(60, 1, || {
            prepare(buffer, lines, State::Absent);
            // Dirty and clean ones take turns as long as both last, so that the order is no help.
            for (n, line) in order(dirty, clean, absent).into_iter().enumerate() {
                buffer.touch(n, line == State::Dirty, line != State::Absent);
            }
            cpu::fence();
            timed(LineOp::Clflush, buffer, lines)
        });
        let Some(spread) = samples.spread() else { return };
        let (dirty, clean, absent) = (dirty as u64, clean as u64, absent as u64);
        let work = HeldOutWork::Clflush { dirty, clean, absent };
        bench.held_out.push(HeldOut { work, spread, samples: samples.len() });
    }
}

fn order(dirty: usize, clean: usize, absent: usize) -> Vec<State> {
    let mut left = [(State::Dirty, dirty), (State::Clean, clean), (State::Absent, absent)];
    let mut order = Vec::with_capacity(dirty + clean + absent);
    while left.iter().any(|(_, n)| *n > 0) {
        for (state, n) in &mut left {
            if *n > 0 {
                *n -= 1;
                order.push(*state);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_uncertain_beyond_two_percent_exactly() {
        let fit = |slope_milli, slope_error_milli| {
            Some(Fit { fixed: 0, fixed_error: 0, slope_milli, slope_error_milli })
        };
        assert_eq!(uncertainty(fit(1_000_000, 20_000)), UNCERTAIN_PERMILLE);
        assert!(uncertainty(fit(1_000_000, 20_001)) > UNCERTAIN_PERMILLE);
        assert!(uncertainty(fit(1_000_000, 29_900)) > UNCERTAIN_PERMILLE);
        assert_eq!([uncertainty(None), uncertainty(fit(0, 5)), uncertainty(fit(-7, 5))], [u64::MAX; 3]);
    }
}
