//! What the whole process takes while a search runs, beside what `--memory` allows: within 5 % of it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::program::{Folder, command};

/// A policy made to blow up: three counters that three vCPUs move for ever, each by what the others are, so that hardly any two
/// orders of steps come to the same values.
const POLICY: &str = "u32 a;\nu32 b;\nu32 c;\n
void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)
{
	for (;;) {
		if (cpu == 0)
			a = a * 1664525 + b * 22695477 + c + 1;
		else if (cpu == 1)
			b = b * 22695477 + c * 1103515245 + a + 1;
		else
			c = c * 1103515245 + a * 1664525 + b + 1;
	}
}
";

const LITMUS: &str = "+++
description = \"Three vCPUs enter, and each entry is counted for ever.\"
parts = [\"rome\"]
pcpus = 4
pages = [{ name = \"P\", mapped = true }]
vcpu = [{ guest = \"guest\", pcpus = [0] }, { guest = \"guest\", pcpus = [1] }, { guest = \"guest\", pcpus = [2] }]
task = [{ run = \"reclaim\", pcpus = [3] }]
expect = [{ verdict = \"holds\", policies = [\"*\"] }]
+++
void guest(void)
{
	guest_write(P);
}

void reclaim(void)
{
	madvise_dontneed(vm0, P);
}
";

const MIB: u64 = 1 << 20;

/// The most memory that a running process has had so far, in bytes; none once it has ended.
fn most_so_far(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// The most memory that a search takes until it meets this bound.
fn most_memory(folder: &Folder, bound: [&str; 2]) -> u64 {
    let mut search = command(&["check", "./blow-up.litmus", "--policy", "./blow-up.c", bound[0], bound[1]]);
    search.current_dir(&folder.path).env("RAYON_NUM_THREADS", "2").stdout(Stdio::null());
    let mut child = search.spawn().expect("the program starts");
    let mut most = 0;
    let code = loop {
        most = most_so_far(child.id()).unwrap_or(0).max(most);
        match child.try_wait().expect("the program can be waited for") {
            Some(status) => break status.code(),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    assert_eq!(code, Some(5), "it meets its bound");
    most
}

#[test]
fn a_search_that_blows_up_takes_the_memory_that_it_may_and_no_more() {
    let folder = Folder::new();
    folder.file("blow-up.c", POLICY);
    folder.file("blow-up.litmus", LITMUS);
    // A debug build takes more without a search than the 13 MiB that the program counts with. It is over so soon that the last look at
    // it may come too early: the most of some runs.
    let idle = (0..8).map(|_| most_memory(&folder, ["--states", "1"])).max().unwrap_or(0);
    let larger = idle.saturating_sub(13 * MIB);
    for (may, bound) in [(64 * MIB, "64MiB"), (160 * MIB, "160MiB")] {
        let taken = most_memory(&folder, ["--memory", bound]) - larger;
        assert!(taken.abs_diff(may) <= may / 20, "{} of {} KiB", taken >> 10, may >> 10);
    }
}
