//! What disturbs a measurement: time that the hypervisor took, other programs, interrupts.

use std::fs;
use std::time::{Duration, Instant};

/// Percent of the pCPUs' time that other programs may use on a host that counts as quiet.
pub const OTHERS_PERCENT: u64 = 5;

/// Percent of the pCPUs' time that a hypervisor may take from one that counts as quiet.
pub const STEAL_PERCENT: u64 = 1;

/// Percent by which the core's clock may change on a host that counts as quiet.
pub const CLOCK_PERCENT: u64 = 5;

/// What disturbed a step.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Noise {
    /// Its name.
    pub step: String,
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
    /// pCPUs of the host that were online.
    pub pcpus: u64,
    /// Milliseconds that the hypervisor took from the pCPUs, all together.
    pub steal_ms: u64,
    /// Milliseconds of pCPUs that other programs and the kernel used.
    pub others_ms: u64,
    /// Interrupts on all pCPUs, the timer's too.
    pub interrupts: u64,
    /// Samples that were tagged as disturbed.
    pub tagged: usize,
    /// Load average at the end, as the kernel prints it.
    pub load: String,
    /// The core's clock at the end, in MHz: lowest and highest of several steps.
    pub clock_mhz: Option<(u64, u64)>,
}

/// All steps as one.
#[must_use]
pub fn sum(steps: &[Noise]) -> Noise {
    let mut all = Noise::default();
    for step in steps {
        all.wall_ms += step.wall_ms;
        all.steal_ms += step.steal_ms;
        all.others_ms += step.others_ms;
        all.interrupts += step.interrupts;
        all.tagged += step.tagged;
        all.pcpus = step.pcpus;
        all.load.clone_from(&step.load);
        all.clock_mhz = match (all.clock_mhz, step.clock_mhz) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }
    all
}

impl Noise {
    /// The part of the pCPUs' time that this is, in thousandths.
    fn permille(&self, ms: u64) -> u64 {
        ms * 1000 / self.time().max(1)
    }

    /// The pCPUs' time, all together, in milliseconds.
    fn time(&self) -> u64 {
        self.wall_ms * self.pcpus
    }

    /// Whether the host was quiet.
    ///
    /// # Errors
    /// Why not.
    pub fn quiet(&self) -> Result<(), String> {
        let more = |ms: u64, percent: u64| ms * 100 > percent * self.time().max(1);
        if more(self.steal_ms, STEAL_PERCENT) {
            let steal = percent(self.permille(self.steal_ms));
            return Err(format!("the hypervisor took {steal} % of the pCPUs' time"));
        }
        if more(self.others_ms, OTHERS_PERCENT) {
            let others = percent(self.permille(self.others_ms));
            return Err(format!("other programs used {others} % of the pCPUs' time"));
        }
        if let Some((low, high)) = self.clock_mhz
            && (high - low) * 100 > high * CLOCK_PERCENT
        {
            return Err(format!("the core's clock went from {low} to {high} MHz"));
        }
        Ok(())
    }

    /// How quiet it was, in words.
    #[must_use]
    pub fn said(&self) -> String {
        let [steal, others] = [self.steal_ms, self.others_ms].map(|ms| percent(self.permille(ms)));
        let clock =
            self.clock_mhz.map_or(String::new(), |(low, high)| format!(", clock {low} to {high} MHz"));
        let word = match self.quiet() {
            Ok(()) => "quiet".to_owned(),
            Err(why) => format!("NOT QUIET, {why}"),
        };
        format!(
            "{word}: in {} ms other programs used {others} % of {} pCPUs, the hypervisor took {steal} %, interrupts {}, \
             load {}{clock}",
            self.wall_ms, self.pcpus, self.interrupts, self.load
        )
    }
}

/// Thousandths as percent.
fn percent(permille: u64) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

/// What the kernel has counted so far.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    at: Instant,
    pcpus: u64,
    steal: Duration,
    busy: Duration,
    own: Duration,
    interrupts: u64,
}

/// `/proc/stat`: pCPUs, steal, busy, interrupts.
fn stat(text: &str) -> (u64, Duration, Duration, u64) {
    // The kernel's tick for user space is a hundredth of a second.
    let ticks = |n: u64| Duration::from_millis(10 * n);
    let words =
        |line: &str| line.split_whitespace().skip(1).filter_map(|w| w.parse().ok()).collect::<Vec<u64>>();
    let all = text.lines().next().map(words).unwrap_or_default();
    let at = |n: usize| all.get(n).copied().unwrap_or(0);
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = at(0) + at(1) + at(2) + at(5) + at(6);
    let pcpu =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|l| l.starts_with(|c: char| c.is_ascii_digit()));
    let pcpus = text.lines().filter(pcpu).count();
    let interrupts = text.lines().find(|l| l.starts_with("intr ")).map(words).unwrap_or_default();
    (pcpus as u64, ticks(at(7)), ticks(busy), interrupts.first().copied().unwrap_or(0))
}

impl Counts {
    /// Now; `own` is the time that this process has used.
    #[must_use]
    pub fn now(own: Duration) -> Counts {
        let (pcpus, steal, busy, interrupts) = stat(&fs::read_to_string("/proc/stat").unwrap_or_default());
        Counts { at: Instant::now(), pcpus, steal, busy, own, interrupts }
    }

    /// What has come since.
    #[must_use]
    pub fn until(&self, later: &Counts, step: &str, tagged: usize, clock_mhz: u64) -> Noise {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let busy = later.busy.saturating_sub(self.busy);
        Noise {
            step: step.to_owned(),
            wall_ms: ms(later.at - self.at),
            pcpus: later.pcpus,
            steal_ms: ms(later.steal.saturating_sub(self.steal)),
            others_ms: ms(busy.saturating_sub(later.own.saturating_sub(self.own))),
            interrupts: later.interrupts.saturating_sub(self.interrupts),
            tagged,
            clock_mhz: Some((clock_mhz, clock_mhz)),
            load: fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counts_are_read() {
        let text = "cpu  100 10 20 5000 7 1 2 30 0 0\ncpu0 1 2\ncpu1 3 4\nintr 777 1 2\nctxt 5\n";
        assert_eq!(stat(text), (2, Duration::from_millis(300), Duration::from_millis(1330), 777));
        assert_eq!(stat(""), (0, Duration::ZERO, Duration::ZERO, 0));
    }

    #[test]
    fn quiet_is_what_the_bounds_say() {
        let step =
            |steal_ms, others_ms| Noise { wall_ms: 500, pcpus: 2, steal_ms, others_ms, ..Noise::default() };
        assert_eq!(step(10, 50).quiet(), Ok(()));
        assert!(step(11, 0).quiet().unwrap_err().contains("took 1.1 %"));
        assert!(step(0, 51).quiet().unwrap_err().contains("used 5.1 %"));
        let clocks = |low, high| Noise { clock_mhz: Some((low, high)), ..step(0, 0) };
        assert!(sum(&[clocks(3000, 3000), clocks(3100, 3100)]).quiet().is_ok());
        assert!(sum(&[clocks(3000, 3000), clocks(3700, 3700)]).quiet().unwrap_err().contains("3000 to 3700"));
        let both = sum(&[step(19, 0), step(0, 0)]);
        assert_eq!((both.wall_ms, both.quiet()), (1000, Ok(())));
        assert!(both.said().starts_with("quiet:") && step(90, 0).said().starts_with("NOT QUIET"));
    }
}
