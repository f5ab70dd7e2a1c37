//! The commands and their options, with an example each.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use sim_explore::Limits;
use svm_model::explore::Reductions;
use svm_model::spec::MemoryModel;
use svm_model::walk::{Strategy, Walks};

use crate::cases::Way;
use crate::names::Kind;

/// Checks and measures cache-flush policies for AMD SEV guests.
///
/// A policy is a small C text: which pCPUs does KVM flush when it takes memory back from an encrypted guest? `check`
/// tries every order of steps and tells the shortest story of what breaks; `compare` runs policies in time on a
/// modelled processor and puts their costs side by side. Without a command, `sevsim` compares the classic policies on
/// a traced run of sqlite3, and takes the options of `compare`.
#[derive(Parser, Debug)]
#[command(name = "sevsim", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  sevsim                                           what the classic policies cost
  sevsim check two-flushers --policy clear-remark  how one of them breaks
  sevsim list policies                             what there is

A NAME is a built-in name, or a path to a file of your own.
Exit codes: 0 done, holds, as expected; 1 internal error; 2 bad input; 3 violated or not as
expected; 5 inconclusive; 75 interrupted with results printed, 130 without.")]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Of `compare`, if no command is given.
    #[command(flatten)]
    pub(crate) compare: CompareOptions,
}

impl Cli {
    /// Reads the command line; ends the program if it is wrong, or asks for help.
    pub(crate) fn read() -> Cli {
        let command = Cli::described();
        let matches = command.get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
    }

    /// The command line's description; the options of `compare` are not shown twice.
    pub(crate) fn described() -> clap::Command {
        Cli::command().mut_args(|arg| {
            let shown = matches!(arg.get_id().as_str(), "help" | "version");
            arg.hide(!shown)
        })
    }
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run several policies in time and put their costs side by side
    Compare(CompareArgs),
    /// Run one policy in time
    Run(RunArgs),
    /// Try every order of steps: holds, or the shortest story of what breaks
    Check(CheckArgs),
    /// Check litmus tests against the verdicts that they expect
    Test(TestArgs),
    /// Take the guarantees of hardware and kernel away: which ones a policy leans on
    Assume(AssumeArgs),
    /// Drop, weaken and reorder each statement of a policy: what no litmus test notices
    Mutate(MutateArgs),
    /// Make a litmus test larger step by step: up to where a claim is exhaustive
    Scale(ScaleArgs),
    /// Write a litmus test's model for another checker: a second opinion
    Export(ExportArgs),
    /// Compare a calibration's held-out measurements with what the simulation predicts of them
    Validate(ValidateArgs),
    /// Follow a saved schedule step by step
    Replay(ReplayArgs),
    /// Say what this host offers for measuring, and why not more
    Probe(ProbeArgs),
    /// Measure this host and write a profile for --profile
    Calibrate(CalibrateArgs),
    /// Run policies for real: guests that move, write-backs by the program, through the helper module
    Native(NativeArgs),
    /// Write the sources of the kernel module that executes WBINVD and runs policies, to be built on the host
    Module(ModuleArgs),
    /// List what is built in
    List(ListArgs),
    /// Print a built-in text, to read it or to change a copy
    Show(ShowArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For reading.
    Table,
    /// One JSON object per line.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

/// `--format`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct FormatArg {
    /// How results are printed: table, json or csv
    #[arg(long, value_enum, default_value_t = Format::Table, hide_possible_values = true)]
    pub(crate) format: Format,
}

impl FormatArg {
    /// As on the command line, if it is not the default.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self.format {
            Format::Table => None,
            Format::Json => Some("json"),
            Format::Csv => Some("csv"),
        }
    }
}

/// What timed runs have in common.
#[derive(Args, Clone, Debug)]
pub(crate) struct TimedArgs {
    /// Kernel text
    #[arg(long, value_name = "KERNEL", default_value = svm_model::text::DEFAULT_KERNEL)]
    pub(crate) kernel: String,
    /// Processor; the scenario's own by default
    #[arg(long, value_name = "PART")]
    pub(crate) part: Option<String>,
    /// Measured numbers, from `sevsim calibrate`, in the place of the part's own
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<String>,
    /// Runs of each policy, with consecutive seeds; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) runs: u32,
    /// First seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Let every guest play this memory trace: text of valgrind's lackey, plain, gzip or zstd; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) guest_trace: Option<PathBuf>,
    /// pCPUs of the machine
    #[arg(long, value_name = "N")]
    pub(crate) pcpus: Option<u16>,
    /// Accesses that each vCPU makes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) accesses: Option<u64>,
    /// Also say who pays: cycles lost by pCPU and VM and cause, DRAM traffic by cause, flushes that met nothing
    #[arg(long)]
    pub(crate) costs: bool,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// `compare`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim compare
  sevsim compare numa-churn --policy all-wbinvd --policy ./mine.c --runs 5
  sevsim compare --guest-trace trace.lackey.zst --part rome --format json")]
pub(crate) struct CompareArgs {
    /// Scenario [default: numa-churn]
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: Option<String>,
    #[command(flatten)]
    pub(crate) options: CompareOptions,
}

/// The options of `compare`, and of `sevsim` alone.
#[derive(Args, Debug)]
pub(crate) struct CompareOptions {
    /// Policy; may be given several times [default: those of the built-in experiment]
    #[arg(long = "policy", value_name = "POLICY")]
    pub(crate) policies: Vec<String>,
    #[command(flatten)]
    pub(crate) timed: TimedArgs,
}

/// `run`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  sevsim run numa-churn --policy sticky-wbnoinvd --seed 7 --format json")]
pub(crate) struct RunArgs {
    /// Scenario
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: String,
    /// Policy
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: String,
    #[command(flatten)]
    pub(crate) timed: TimedArgs,
}

/// What checks have in common.
#[derive(Args, Clone, Debug)]
pub(crate) struct CaseArgs {
    /// Policy; may be given several times [default: every built-in one that a kernel could have]
    #[arg(long = "policy", value_name = "POLICY")]
    pub(crate) policies: Vec<String>,
    #[command(flatten)]
    pub(crate) search: SearchArgs,
}

/// Where a check looks, and how far, and how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    pub(crate) about: AboutArgs,
    /// Give up each check after this time, with its unit [default: no bound]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) time: Option<Duration>,
}

/// Where a check looks, and how far.
#[derive(Args, Clone, Debug)]
pub(crate) struct AboutArgs {
    /// Kernel text [default: those that the test names]
    #[arg(long, value_name = "KERNEL")]
    pub(crate) kernel: Option<String>,
    /// Processor; may be given several times [default: those that the test names]
    #[arg(long = "part", value_name = "PART")]
    pub(crate) parts: Vec<String>,
    /// sc, or tso: x86's store buffers [default: what the test says, else sc]
    #[arg(long, value_name = "MODEL", hide_possible_values = true)]
    pub(crate) memory_model: Option<MemoryModelArg>,
    /// Value of a `#define` of the kernel or the test, such as FLUSH_ON_RELEASE=0; may be given several times
    #[arg(short = 'D', long = "define", value_name = "NAME=NUMBER", value_parser = define)]
    pub(crate) defines: Vec<(String, i64)>,
    /// Give up after this many states (k, M and G are understood)
    #[arg(long, value_name = "N", default_value = "100M", value_parser = states)]
    pub(crate) states: u32,
    /// Give up beyond this many steps [default: no bound]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) depth: Option<u32>,
    /// Give up beyond this much memory for each check, with its unit
    #[arg(long, value_name = "SIZE", default_value = "8GiB", value_parser = bytes)]
    pub(crate) memory: u64,
    /// Whether states that differ only in the names of what is treated alike count as one
    #[arg(long, value_name = "on|off", default_value = "off", hide_possible_values = true)]
    pub(crate) symmetry: Switch,
    /// Whether a task whose step commutes with all that others can do goes alone; where something is violated, the
    /// search is made again without
    #[arg(long, value_name = "on|off", default_value = "off", hide_possible_values = true)]
    pub(crate) partial_order: Switch,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// Whether to do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Switch {
    /// Do it.
    On,
    /// Do not.
    Off,
}

/// The order in which a pCPU's accesses are seen by others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum MemoryModelArg {
    /// Sequential consistency.
    Sc,
    /// x86's store buffers.
    Tso,
}

impl MemoryModelArg {
    /// As the model has it.
    pub(crate) const fn model(self) -> MemoryModel {
        match self {
            MemoryModelArg::Sc => MemoryModel::Sc,
            MemoryModelArg::Tso => MemoryModel::Tso,
        }
    }
}

impl SearchArgs {
    /// The bounds of a search.
    pub(crate) fn limits(&self) -> Limits {
        self.about.limits(self.time)
    }
}

/// Bytes that the program takes without a search: measured, 13 to 14 MiB.
const PROCESS: u64 = 13 << 20;

impl AboutArgs {
    /// What a search leaves out.
    pub(crate) fn reductions(&self) -> Reductions {
        Reductions { symmetry: self.symmetry == Switch::On, partial_order: self.partial_order == Switch::On }
    }

    /// The bounds of a search, with that of its time.
    pub(crate) fn limits(&self, time: Option<Duration>) -> Limits {
        let (states, depth) = (self.states, self.depth.unwrap_or(u32::MAX));
        Limits { states, depth, memory: self.memory, beside: PROCESS, time }
    }
}

/// Which stories are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Stories {
    /// Of each event.
    All,
    /// Of the event that is reached in the fewest steps.
    First,
    /// None.
    None,
}

/// A verdict that one can ask `check` to expect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ExpectArg {
    /// Nothing can break.
    Holds,
    /// Something can.
    Violated,
}

/// `check`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim check two-flushers --policy clear-remark
  sevsim check reclaim-while-running --policy ./mine.c --part genoa --stories all
  sevsim check two-flushers --policy clear-remark --save-schedule race.sched
  sevsim replay race.sched
  sevsim check large.litmus --policy ./mine.c --memory 16GiB --states 4G --disk states --resume

Exit codes: 0 holds, 3 violated, 5 a bound ended the search first, 2 bad input; of several
cases the worst (2, 3, 5, 0).")]
pub(crate) struct CheckArgs {
    /// Litmus tests
    #[arg(required = true, value_name = "LITMUS")]
    pub(crate) litmus: Vec<String>,
    #[command(flatten)]
    pub(crate) cases: CaseArgs,
    /// holds, or violated, which swaps the exit codes 0 and 3
    #[arg(long, value_name = "VERDICT", default_value = "holds", hide_possible_values = true)]
    pub(crate) expect: ExpectArg,
    /// Which stories are told: all, first or none [default: first; none if there are more than four cases]
    #[arg(long, value_name = "WHICH", hide_possible_values = true)]
    pub(crate) stories: Option<Stories>,
    /// Write the first violation's schedule, for `sevsim replay`
    #[arg(long, value_name = "FILE")]
    pub(crate) save_schedule: Option<PathBuf>,
    /// Put states into this folder when memory ends, and a checkpoint every minute and when the search is stopped
    #[arg(long, value_name = "DIR", conflicts_with_all = ["random", "switches", "symmetry", "partial_order"])]
    pub(crate) disk: Option<PathBuf>,
    /// Go on where the checkpoints of --disk were written
    #[arg(long, requires = "disk")]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) tried: TryArgs,
}

/// What is tried in the place of every order of steps.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct TryArgs {
    /// Make this many random walks, of --depth steps [default: 500], in the place of a search: for models that are too
    /// large; not exhaustive
    #[arg(long, value_name = "WALKS", value_parser = walks, conflicts_with_all = ["states", "memory", "symmetry", "partial_order"])]
    pub(crate) random: Option<u64>,
    /// Seed of the walks
    #[arg(long, value_name = "N", default_value_t = 1, requires = "random")]
    pub(crate) seed: u64,
    /// Draw steps by priorities that change at D - 1 places (PCT), not evenly
    #[arg(long, value_name = "D", requires = "random", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pct: Option<u32>,
    /// Try only the orders of steps in which at most N times somebody is passed over who could go on: for models that
    /// are too large; the bound goes up from 0 to N
    #[arg(long, value_name = "N", conflicts_with_all = ["random", "symmetry", "partial_order"])]
    pub(crate) switches: Option<u16>,
}

impl TryArgs {
    /// How orders of steps are tried.
    pub(crate) fn way(&self, search: &SearchArgs) -> Way {
        let Some(count) = self.random else { return self.switches.map_or(Way::Search, Way::Switches) };
        Way::Walks(Walks {
            count,
            steps: search.about.depth.unwrap_or(WALK),
            seed: self.seed,
            strategy: self.pct.map_or(Strategy::Uniform, |depth| Strategy::Pct { depth }),
            time: search.time,
        })
    }
}

/// Steps of a walk at most, if nothing else is said: a guest that faults on a page that is gone does so for ever.
const WALK: u32 = 500;

/// `test`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim test
  sevsim test two-flushers reclaim-one-vcpu --policy ./mine.c --expect-as sticky-wbnoinvd
  sevsim test --kernel ./linux-6.17.c --expect-as linux-6.17
  sevsim test --sites --kernel ./linux-6.17.c

Exit codes: 0 as expected, 3 not, 5 a bound ended a search first, 2 bad input; of several
cases the worst (2, 3, 5, 0).")]
pub(crate) struct TestArgs {
    /// Litmus tests [default: all built-in ones]
    #[arg(value_name = "LITMUS", conflicts_with = "all")]
    pub(crate) litmus: Vec<String>,
    /// All built-in litmus tests
    #[arg(long)]
    pub(crate) all: bool,
    /// Hold what --kernel or --policy names to what the tests expect of this built-in one; may be given twice, for both
    #[arg(long, value_name = "NAME")]
    pub(crate) expect_as: Vec<String>,
    /// May a site drop its flush? Which tests object to the kernel without each of its switches and calls that flush
    #[arg(long, conflicts_with = "expect_as")]
    pub(crate) sites: bool,
    #[command(flatten)]
    pub(crate) cases: CaseArgs,
}

/// `assume`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim assume sticky-wbnoinvd reclaim-one-vcpu two-vcpus-first-entry --part rome
  sevsim assume ./mine.c two-flushers --stories none --format json

Exit codes: 0 the guarantees were sorted out, 3 the policy is violated with all of them, 5 a bound
ended a search first, 2 bad input.")]
pub(crate) struct AssumeArgs {
    /// Policy
    #[arg(value_name = "POLICY")]
    pub(crate) policy: String,
    /// Litmus tests; the policy must hold in all of them together
    #[arg(required = true, value_name = "LITMUS")]
    pub(crate) litmus: Vec<String>,
    #[command(flatten)]
    pub(crate) search: SearchArgs,
    /// Stories of what breaks without each guarantee that is necessary: all, first or none
    #[arg(long, value_name = "WHICH", default_value = "all", hide_possible_values = true)]
    pub(crate) stories: Stories,
}

/// `mutate`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim mutate clear-in-handler
  sevsim mutate ./mine.c two-flushers reclaim-one-vcpu --part rome --all

Exit codes: 0 every mutant's fate is known, 3 the policy holds nowhere, 5 a bound ended a search
first, 2 bad input.")]
pub(crate) struct MutateArgs {
    /// Policy
    #[arg(value_name = "POLICY")]
    pub(crate) policy: String,
    /// Litmus tests [default: all built-in ones that are about the policy]
    #[arg(value_name = "LITMUS")]
    pub(crate) litmus: Vec<String>,
    /// List the mutants that are killed, too, and by what
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) search: SearchArgs,
}

/// `scale`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim scale sticky-wbnoinvd reclaim-one-vcpu --part rome
  sevsim scale clear-remark-mutex two-flushers --part rome --time 10min

Exit codes: 0 holds up to the sizes that are printed, 3 violated at some size, 5 not even the
test itself could be searched to its end, 2 bad input.")]
pub(crate) struct ScaleArgs {
    /// Policy
    #[arg(value_name = "POLICY")]
    pub(crate) policy: String,
    /// Litmus test, whose first flusher, page and vCPU are copied
    #[arg(value_name = "LITMUS")]
    pub(crate) litmus: String,
    /// How long to go on with larger sizes, for each kernel and part, with its unit
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = time)]
    pub(crate) time: Duration,
    #[command(flatten)]
    pub(crate) about: AboutArgs,
}

/// `export`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim export reclaim-one-vcpu --policy no-flush --part rome --to promela > m.pml
  spin -a m.pml && gcc -O2 -DSAFETY -DNOREDUCE -o pan pan.c && ./pan -m1000000
  sevsim export reclaim-one-vcpu --policy no-flush --part rome --to murphi > m.m
  rumur --deadlock-detection off --output m.c m.m && gcc -std=c11 -O3 -march=native m.c -o m -lpthread

Exit codes: 0 written, 5 the model is too large, 2 bad input.")]
pub(crate) struct ExportArgs {
    /// Litmus test
    #[arg(value_name = "LITMUS")]
    pub(crate) litmus: String,
    /// Policy [default: the test's, if it names only one]
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Option<String>,
    /// Kernel text [default: the test's, if it names only one]
    #[arg(long, value_name = "KERNEL")]
    pub(crate) kernel: Option<String>,
    /// Processor [default: the test's, if it names only one]
    #[arg(long, value_name = "PART")]
    pub(crate) part: Option<String>,
    /// sc, or tso: x86's store buffers [default: what the test says, else sc]
    #[arg(long, value_name = "MODEL", hide_possible_values = true)]
    pub(crate) memory_model: Option<MemoryModelArg>,
    /// Value of a `#define` of the kernel or the test, such as FLUSH_ON_RELEASE=0; may be given several times
    #[arg(short = 'D', long = "define", value_name = "NAME=NUMBER", value_parser = define)]
    pub(crate) defines: Vec<(String, i64)>,
    /// Language: murphi (for Rumur) or promela (for SPIN)
    #[arg(long, value_enum, value_name = "LANGUAGE", hide_possible_values = true)]
    pub(crate) to: Language,
}

/// A language of other checkers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Language {
    /// Rumur's, and CMurphi's.
    Murphi,
    /// SPIN's.
    Promela,
}

/// `validate`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim calibrate --quick --out p.toml
  sevsim validate p.toml --part genoa
  sevsim validate p.toml --against q.toml

Exit codes: 0 no prediction misses its measurement by more than 15 %, 3 one does, 5 all are too noisy to say,
2 bad input. With --against: 0 the median number differs by 5 % at most, 3 by more, 5 by more on hosts that were not quiet.")]
pub(crate) struct ValidateArgs {
    /// Profile of `sevsim calibrate`
    #[arg(value_name = "PROFILE")]
    pub(crate) profile: String,
    /// Processor of the host that was measured
    #[arg(long, value_name = "PART", default_value = "genoa")]
    pub(crate) part: String,
    /// Instead of predicting: how far the numbers of this other calibration agree
    #[arg(long, value_name = "PROFILE", conflicts_with = "part")]
    pub(crate) against: Option<String>,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// `replay`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim replay race.sched
  sevsim check two-flushers --policy clear-remark --format json | sevsim replay -

Exit codes: 0 the schedule can be followed and shows its event, 3 it does not, 2 bad input.")]
pub(crate) struct ReplayArgs {
    /// A token that `check` printed, a schedule from `check --save-schedule`, or a line of `check --format json`; - is
    /// standard input
    #[arg(value_name = "TOKEN|FILE")]
    pub(crate) file: String,
    /// sc or tso [default: the schedule's]
    #[arg(long, value_name = "MODEL", hide_possible_values = true)]
    pub(crate) memory_model: Option<MemoryModelArg>,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// `probe`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  sevsim probe --format json")]
pub(crate) struct ProbeArgs {
    /// Look into a tree of files instead of this host: sys, proc, dev, and CPUID's leaves in `cpuid`
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) root: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// `calibrate`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sevsim calibrate --dry-run
  sevsim calibrate --quick --out p.toml
  sevsim compare --part genoa --profile p.toml

Exit codes: 0 done, 2 bad input, 6 this host cannot, 75 interrupted with what was measured kept.")]
pub(crate) struct CalibrateArgs {
    /// Under a minute; fewer samples
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write the profile here, again after each step; a file that is there stays until all is measured (FILE.partial till then)
    /// [default: standard output, at the end]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Say what would be done, what is refused and why, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Load this file as the helper module (`sevsim module`), and unload it at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) load_module: Option<PathBuf>,
    /// Flush whole caches (L2, L3) although VMs of others run on this host, or may
    #[arg(long)]
    pub(crate) yes_flush_this_host: bool,
    /// Set this governor on the measured pCPUs, and give back what was set before
    #[arg(long, value_name = "NAME")]
    pub(crate) governor: Option<String>,
    /// Write what was asked of the kernel about encrypted guests, and its answers
    #[arg(long, value_name = "FILE")]
    pub(crate) record_sev: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// What there is to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum What {
    /// Flush policies.
    Policies,
    /// Kernel texts.
    Kernels,
    /// Processors.
    Parts,
    /// Litmus tests.
    Litmus,
    /// Scenarios of timed runs.
    Scenarios,
}

impl What {
    /// Of which kind that is.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            What::Policies => Kind::Policy,
            What::Kernels => Kind::Kernel,
            What::Parts => Kind::Part,
            What::Litmus => Kind::Litmus,
            What::Scenarios => Kind::Scenario,
        }
    }
}

/// `native`.
#[derive(Args, Debug)]
#[command(after_help = "Example, as root on a host of one's own:
  sevsim module flush --policy sticky-wbnoinvd && sh flush/build.sh
  sevsim native --policy sticky-wbnoinvd --load-module flush/sevsim_flush.ko

Exit codes: 0 done, 3 a pCPU where a VM was entered was not written back, 6 this host cannot, 2 bad input,
1 the module did not do what the program asks for, 75 interrupted; what was done is printed.")]
pub(crate) struct NativeArgs {
    /// Policy; may be given several times [default: those that the module has]
    #[arg(long = "policy", value_name = "POLICY")]
    pub(crate) policies: Vec<String>,
    /// Load this file as the helper module, and unload it at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) load_module: Option<PathBuf>,
    /// VMs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) vms: u16,
    /// vCPUs of each VM
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4))]
    pub(crate) vcpus: u16,
    /// Reclaims while all vCPUs stand still, each compared with where its VM ran
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) held: u32,
    /// Moves of a vCPU between two of them
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) moves: u32,
    /// Reclaims while all vCPUs run and move
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) moving: u32,
    /// Threads that reclaim then
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) flushers: u16,
    /// Lines that a guest dirties in each run
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) lines: u32,
    /// Of where vCPUs move
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Flush whole caches although VMs of others run on this host
    #[arg(long)]
    pub(crate) yes_flush_this_host: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// `module`.
#[derive(Args, Debug)]
#[command(after_help = "Example, as root on a host of one's own:
  sevsim module flush --policy sticky-wbnoinvd --policy ./mine.c && sh flush/build.sh")]
pub(crate) struct ModuleArgs {
    /// Folder to write to
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Policy to compile into it; may be given several times [default: every built-in one that can run for real]
    #[arg(long = "policy", value_name = "POLICY")]
    pub(crate) policies: Vec<String>,
}

/// `list`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  sevsim list policies")]
pub(crate) struct ListArgs {
    /// What to list: policies, kernels, parts, litmus or scenarios
    #[arg(value_name = "WHAT", hide_possible_values = true)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) format: FormatArg,
}

/// What there is to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ShowWhat {
    /// A policy's text.
    Policy,
    /// A kernel's text.
    Kernel,
    /// A part's numbers.
    Part,
    /// A litmus test.
    Litmus,
    /// A scenario.
    Scenario,
    /// A policy's syntax tree, printed as text again.
    Ast,
}

/// `show`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  sevsim show policy sticky-wbnoinvd > mine.c; edit mine.c; sevsim test --policy ./mine.c --expect-as sticky-wbnoinvd
  sevsim show part genoa:1s,4x; sevsim show part genoa --text > mine.toml; sevsim compare --part ./mine.toml")]
pub(crate) struct ShowArgs {
    /// What to show: policy, kernel, part, litmus, scenario, or ast (a policy's syntax tree, printed as text)
    #[arg(value_name = "WHAT", hide_possible_values = true)]
    pub(crate) what: ShowWhat,
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// A part's file as it is, to be edited, instead of a sheet for reading
    #[arg(long)]
    pub(crate) text: bool,
    /// Of a part: with the measured numbers of this file, from `sevsim calibrate`
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) profile: Option<String>,
    /// table prints the text as it is (of a part a sheet), json puts it into one object; a text has no csv
    #[arg(long, value_enum, default_value_t = Format::Table, hide_possible_values = true, value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// `completions`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  sevsim completions bash > ~/.local/share/bash-completion/completions/sevsim")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// A number with its scale, if it has one of `scales`.
fn scaled(text: &str, scales: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = scales.iter().find(|(name, _)| *name == unit.trim())?.1;
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// A number of states.
fn states(text: &str) -> Result<u32, String> {
    let n = scaled(text, &[("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)]);
    let most = u32::MAX - 1;
    let n = n.and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=most).contains(n));
    n.ok_or_else(|| format!("expected a number of states from 1 to {most}, such as 5000000 or 5M"))
}

/// A number of walks.
fn walks(text: &str) -> Result<u64, String> {
    let n = scaled(text, &[("", 1), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)]);
    n.filter(|n| *n > 0).ok_or_else(|| "expected a number of walks, such as 10000 or 1M".to_owned())
}

/// A name and its value.
fn define(text: &str) -> Result<(String, i64), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let value = value.parse().ok().filter(|_| is_name);
    value.map(|value| (name.to_owned(), value)).ok_or_else(|| {
        "expected the name of a `#define` and a whole number, such as FLUSH_ON_RELEASE=0".to_owned()
    })
}

/// A time, with its unit.
fn time(text: &str) -> Result<Duration, String> {
    let n = scaled(text, &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000)]).filter(|n| *n > 0);
    n.map(Duration::from_millis)
        .ok_or_else(|| "expected a time with its unit (ms, s, min, h), such as 90s or 10min".to_owned())
}

/// A number of bytes, with its unit.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("B", 1),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let n = scaled(text, &units).filter(|n| *n > 0);
    n.ok_or_else(|| {
        "expected a size with its unit (B, kB, MB, GB, KiB, MiB, GiB, TiB), such as 512MiB".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_sound() {
        Cli::described().debug_assert();
    }

    #[test]
    fn sizes_need_their_unit_and_states_their_range() {
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("2 GB"), Ok(2_000_000_000));
        for wrong in ["", "12", "0B", "GiB", "1.5GiB", "99999999999999TiB", "-1B"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("2 min"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "0s", "1.5s", "s", "-1s", "5 days"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(states("5M"), Ok(5_000_000));
        for wrong in ["", "0", "5G", "x", "1e6"] {
            assert!(states(wrong).is_err(), "{wrong}");
        }
    }
}
