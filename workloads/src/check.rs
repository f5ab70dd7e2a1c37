//! Checks: a litmus test under a policy, a kernel and a part, explored; and what came out.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use cache_model::event::{EventKind, Victim};
use sev_arch::VmId;
use sim_explore::{Bound, Disk, Ends, Explored, Limits, Progress, Search};
use svm_model::explore::{Explorer, Reductions, ScheduledStep, goal_of, goal_of_twin};
use svm_model::lang::{Diag, Included, Role, Source};
use svm_model::machine::KERNEL_ENTRIES;
use svm_model::spec::{Guest, MemoryModel, ModelSpec, STORE_BUFFERS, TaskKind, VmKind};
use svm_model::story::StoryStep;
use svm_model::twin::Twin;
use svm_model::walk::{Cut, Walked, Walks};
use svm_model::{Machine, MemoryKind};

use crate::litmus::{Expectation, Litmus};
use crate::schedule::program_digest;

/// What is said of a kind of guest that the kernel is too old for.
const NO_GUESTS: &str = "has no guests of this kind";

/// The bound of a search in which a store found its pCPU's buffer full.
const FULL_BUFFER: Bound = Bound::Model("unseen stores of a pCPU");

/// What is said of a mirror in a kernel that is too old for any.
const NO_MIRRORS: &str = "has no mirror VMs";

/// What is said of SEV-SNP on a part that cannot have it.
const NO_RMP: &str = "has no RMP, and so no SEV-SNP guests";

/// How often a search on the disk writes a checkpoint.
const CHECKPOINT: Duration = Duration::from_secs(60);

/// A text that a check runs: a built-in one, or a user's file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedText {
    /// What the user calls it: a built-in name, or a path.
    pub name: String,
    /// The file shown in errors and stories.
    pub file: String,
    /// The text.
    pub text: String,
}

/// What a check is about.
#[derive(Clone, Debug)]
pub struct CheckCase<'a> {
    /// The test.
    pub litmus: &'a Litmus,
    /// The policy.
    pub policy: &'a NamedText,
    /// The kernel.
    pub kernel: &'a NamedText,
    /// Name of the part.
    pub part: &'a str,
    /// Whether the part is SME_COHERENT.
    pub sme_coherent: bool,
}

/// What an exploration came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// The whole space, and no event in it.
    Holds,
    /// The same, but what the property is about never happened, so that it says nothing.
    Vacuous,
    /// Only some orders of steps were tried (at random, or within few switches), and none led to an event.
    NotExhaustive,
    /// A bound was met first, and no event before it.
    Bounded,
    /// An event is reachable.
    Violated,
    /// The policy has no place in this kernel: there was nothing to search.
    Refused,
}

impl Verdict {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Vacuous => "vacuous",
            Verdict::NotExhaustive => "not-exhaustive",
            Verdict::Bounded => "bounded",
            Verdict::Violated => "violated",
            Verdict::Refused => "refused",
        }
    }
}

/// The shortest way to an event.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Which event.
    pub event: EventKind,
    /// Whose loss it is there.
    pub victim: Victim,
    /// Who did what, to be replayed.
    pub schedule: Vec<ScheduledStep>,
    /// The schedule told.
    pub story: Vec<StoryStep>,
}

/// The result of a check.
#[derive(Debug)]
pub struct CheckReport {
    /// The verdict.
    pub verdict: Verdict,
    /// Each event reachable, shortest story first found.
    pub events: Vec<Counterexample>,
    /// States stored.
    pub states: u32,
    /// Transitions made.
    pub transitions: u64,
    /// Levels.
    pub depth: u32,
    /// The bound that was met.
    pub bound: Option<Bound>,
    /// Bytes of a packed state.
    pub state_bytes: usize,
    /// States that differ by one of so many permutations of things treated alike count as one; 1: each counts.
    pub permutations: usize,
    /// Whether the search went to the end of the space; else it ended once each event asked about was met, or at a bound.
    pub whole: bool,
    /// Bytes of the states and of the lists of what a round finds, at the end of the search; 0 without one.
    pub memory: u64,
    /// Whether it was asked if a task can end up hung, which takes all states in memory, and no other event.
    pub asked_ends: bool,
    /// What should happen on some way, lest the verdict say nothing; and after how many steps it first did.
    pub sometimes: Vec<(Twin, Option<u32>)>,
    /// What was taken as given.
    pub assumptions: Vec<&'static str>,
    /// The order in which accesses were seen.
    pub memory_model: MemoryModel,
    /// Entries of each pCPU's store buffer; 0 where stores are seen at once.
    pub store_buffer: u8,
    /// The random walks that were made in the place of a search.
    pub walked: Option<Walked>,
    /// The limits of switches that the search was made within.
    pub switches: Option<Switches>,
}

/// Searches within more and more switches ([`Explorer::limit_switches`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Switches {
    /// The most that was allowed.
    pub asked: u16,
    /// States of each search, from no switch on; the last one is the one that the report is about.
    pub states: Vec<u32>,
    /// Whether the last search left no order of steps out, so that more switches change nothing.
    pub all: bool,
}

impl CheckReport {
    /// What a policy without a place in the kernel comes to.
    #[must_use]
    pub fn refused(model: MemoryModel) -> CheckReport {
        CheckReport {
            verdict: Verdict::Refused,
            events: Vec::new(),
            states: 0,
            transitions: 0,
            depth: 0,
            bound: None,
            state_bytes: 0,
            permutations: 1,
            whole: false,
            memory: 0,
            asked_ends: false,
            sometimes: Vec::new(),
            assumptions: Vec::new(),
            memory_model: model,
            store_buffer: 0,
            walked: None,
            switches: None,
        }
    }
}

/// Why a check could not be run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The texts are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Text(Vec<Diag>),
    /// A text loops without an access to shared state.
    #[error(
        "{file}:{line}: this runs a million operations without an access to shared state, and may never end: `{text}`\n\
         numbers are small in these texts, and wrap (an `int` has 8 bits): docs/LANGUAGE.md"
    )]
    Runaway {
        /// The file.
        file: String,
        /// The line.
        line: u32,
        /// The statement.
        text: String,
    },
    /// The model's states are wider than the explorer can take.
    #[error(
        "{file}: a state of this model takes {words} words of 64 bits, 64 are the most: give it fewer `pcpus`, `pages`, \
         `[[vcpu]]` or `[[task]]`, or its texts fewer and smaller variables (`bool`, `u8`, bit-fields)"
    )]
    TooWide {
        /// The litmus test's file.
        file: String,
        /// Words of a state.
        words: usize,
    },
    /// The disk that the search was on failed, or what it was to go on from is of another search.
    #[error("{}: {error}", .dir.display())]
    Disk {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The story of a violation could not be told: an error of this program.
    #[error("internal error: step {0} of the counterexample does not replay: {1}")]
    Story(usize, String),
}

impl CheckError {
    /// Whether it says only that the policy has no place in the kernel.
    #[must_use]
    pub fn refuses_policy(&self) -> bool {
        matches!(self, CheckError::Text(diags) if diags.iter().all(Diag::refuses_policy))
    }
}

/// What a check is made without: changes to the model and to the kernel's texts, included ones too.
pub(crate) struct Changes<'c> {
    pub(crate) spec: &'c dyn Fn(&mut ModelSpec),
    pub(crate) kernel: &'c dyn Fn(&str) -> String,
}

impl Changes<'_> {
    /// None.
    pub(crate) const NONE: Changes<'static> = Changes { spec: &|_| {}, kernel: &str::to_owned };
}

impl CheckCase<'_> {
    /// Compiles the texts into a machine.
    ///
    /// # Errors
    ///
    /// What the compiler says.
    pub fn machine(&self, memory: MemoryKind) -> Result<Machine, CheckError> {
        self.machine_with(memory, &Changes::NONE)
    }

    /// The same, changed.
    /// The machine in which each schedule of the case can be followed: with the largest store buffers, if it has some.
    ///
    /// # Errors
    ///
    /// What the compiler says.
    pub fn machine_to_replay(&self) -> Result<Machine, CheckError> {
        let machine = self.machine(MemoryKind::Shadow)?;
        match (machine.spec().assumptions.memory_model(), STORE_BUFFERS.last()) {
            (MemoryModel::Tso, Some(most)) => machine.with_store_buffer(*most).map_err(CheckError::Text),
            _ => Ok(machine),
        }
    }

    pub(crate) fn machine_with(
        &self,
        memory: MemoryKind,
        changes: &Changes<'_>,
    ) -> Result<Machine, CheckError> {
        let kernel = (changes.kernel)(&self.kernel.text);
        let find = |name: &str, from: &str| {
            let found = crate::include::find(name, from)?;
            Ok(Included { text: (changes.kernel)(&found.text), ..found })
        };
        let sources = [
            Source { file: &self.kernel.file, text: &kernel, role: Role::Kernel },
            Source { file: &self.policy.file, text: &self.policy.text, role: Role::Policy },
            Source { file: &self.litmus.file, text: &self.litmus.body, role: Role::Litmus },
        ];
        let mut spec = self.litmus.spec(self.sme_coherent);
        (changes.spec)(&mut spec);
        let built = Machine::build_with(spec, &sources, &find, memory);
        let placed = |diags: Vec<Diag>| {
            CheckError::Text(diags.into_iter().map(|d| self.litmus.in_front(self.placed(d))).collect())
        };
        let machine = built.map_err(placed)?;
        if let Some(refusal) = self.no_such_guest(&machine).or_else(|| self.no_such_mirror(&machine)) {
            return Err(CheckError::Text(vec![refusal]));
        }
        for task in &machine.spec().tasks {
            let entry_of = |name: &str| machine.code().entries.iter().find(|e| e.name == *name);
            if let TaskKind::Vcpu { thread, .. } = &task.kind
                && entry_of(thread).is_some_and(|e| e.params.len() != 1)
            {
                let message = format!("`{thread}` is a vCPU's thread, and does not take the vCPU");
                return Err(placed(vec![self.at_actor(
                    thread,
                    message,
                    "`void thread(struct kvm_vcpu *vcpu)`",
                )]));
            }
            let function = match &task.kind {
                TaskKind::Vcpu { guest: Guest::Program(function), .. }
                | TaskKind::Host { entry: function }
                | TaskKind::Device { entry: function } => function,
                TaskKind::Vcpu { guest: Guest::Any, .. } | TaskKind::Reclaimer { .. } => continue,
            };
            if entry_of(function).is_some_and(|e| !e.params.is_empty()) {
                let message = format!("`{function}` has parameters, and an actor has nothing to give it");
                let expected = "a function of the body that takes nothing";
                return Err(placed(vec![self.at_actor(function, message, expected)]));
            }
        }
        Ok(machine)
    }

    /// Why the kernel or the part cannot have a kind of guest that the test has.
    fn no_such_guest(&self, machine: &Machine) -> Option<Diag> {
        let spec = machine.spec();
        let kind = (0..spec.vms).map(|vm| spec.vm(VmId(vm)).kind).max_by_key(|k| k.number())?;
        let last = machine.code().constant("KVM_LAST_VM_TYPE").unwrap_or(i64::MAX);
        let (message, help) = if i64::from(kind.number()) > last {
            let help = "name another kernel with `--kernel`, or in the file's `kernels`";
            (format!("{} {NO_GUESTS}", self.kernel.name), help)
        } else if kind == VmKind::SevSnp && !self.sme_coherent && !spec.assumptions.snp_on_any_part {
            let help = "for a thought experiment, `assume = [\"snp-on-any-part\"]`";
            (format!("{} {NO_RMP}: parts that have one are SME_COHERENT", self.part), help)
        } else {
            return None;
        };
        let (line, column, text) = self.litmus.kind_at(kind.name()).unwrap_or((0, 0, ""));
        Some(Diag {
            file: self.litmus.file.clone(),
            line,
            column,
            len: u32::try_from(kind.name().len() + 2).unwrap_or(1),
            message,
            source_line: text.to_owned(),
            expected: None,
            help: Some(help.to_owned()),
        })
    }

    /// Why a VM cannot be a mirror from the start: the kernel has none; or the texts ask for its owner, and its reference, which
    /// only a copy of the context in the texts notes down.
    fn no_such_mirror(&self, machine: &Machine) -> Option<Diag> {
        let asked = |v: &svm_lang::Var| v.used && v.name == "enc_context_owner";
        let (message, help) = if machine.code().constant("KVM_CAP_VM_COPY_ENC_CONTEXT_FROM") == Some(0) {
            let help = "name another kernel with `--kernel`, or in the file's `kernels`";
            (format!("{} {NO_MIRRORS}", self.kernel.name), help)
        } else if machine.code().vars.iter().any(asked) {
            let message = "an actor's calls ask for a mirror's owner, which one from the start does not know";
            let help = "give the VM `asid = 0`, and let the body call `sev_vm_copy_enc_context_from()`";
            (message.to_owned(), help)
        } else {
            return None;
        };
        let (line, column, text) = self.litmus.mirror_at()?;
        Some(Diag {
            file: self.litmus.file.clone(),
            line,
            column,
            len: u32::try_from("mirror_of".len()).unwrap_or(1),
            message,
            source_line: text.to_owned(),
            expected: None,
            help: Some(help.to_owned()),
        })
    }

    /// What is wrong with a function that the front matter names.
    fn at_actor(&self, function: &str, message: String, expected: &str) -> Diag {
        Diag {
            file: self.litmus.file.clone(),
            line: 0,
            column: 0,
            len: u32::try_from(function.len() + 2).unwrap_or(1),
            message,
            source_line: String::new(),
            expected: Some(expected.to_owned()),
            help: None,
        }
    }

    /// An error without a place in the texts is about a function that the litmus test's front matter names.
    fn placed(&self, diag: Diag) -> Diag {
        let named = || diag.message.split('`').nth(1).and_then(|function| self.litmus.names(function));
        let found = if diag.line == 0 { named() } else { None };
        match found {
            Some((line, column, text)) => {
                let (file, source_line) = (self.litmus.file.clone(), text.to_owned());
                Diag { file, line, column, source_line, ..diag }
            }
            None if diag.lacks_define().is_some_and(|name| self.given(name)) => {
                Diag { message: format!("--define: {}", diag.message), ..diag }
            }
            None if diag.line == 0 => {
                let kernels = KERNEL_ENTRIES.iter().any(|f| diag.message.contains(&format!("`{f}`")));
                let (file, help) = if kernels {
                    (&self.kernel.file, Some("each kernel's text has to define it".to_owned()))
                } else {
                    (&self.litmus.file, None)
                };
                Diag { message: format!("{file}: {}", diag.message), help: diag.help.or(help), ..diag }
            }
            None => diag,
        }
    }

    /// Whether an error says only that this test, policy, kernel and part do not belong together, and not that a text is
    /// wrong: the kernel does not ask the policy, does not have what the actors call, it or the part has no such guests, or the test sets a `#define` of
    /// another policy than this.
    #[must_use]
    pub fn refused_by(&self, error: &CheckError) -> bool {
        let CheckError::Text(diags) = error else { return false };
        let other = self.litmus.policies().is_some_and(|p| p.iter().all(|p| *p != self.policy.name));
        diags.iter().all(|d| {
            d.refuses_policy()
                || d.message.contains(NO_GUESTS)
                || d.message.contains(NO_MIRRORS)
                || d.message.contains(NO_RMP)
                || d.lacks_function()
                || other && d.lacks_define().is_some_and(|name| !self.given(name))
        })
    }

    /// Whether a `#define`'s value was given beside the file.
    fn given(&self, define: &str) -> bool {
        self.litmus.defined().iter().any(|(name, _)| name == define)
    }

    /// What the file expects of the case.
    #[must_use]
    pub fn expected(&self) -> Option<Expectation> {
        self.litmus.expected(&self.policy.name, &self.kernel.name, self.part)
    }

    /// Whether the test asks about lines that outlive their owner, and none was ever in danger to.
    fn vacuous(&self, sometimes: &[(Twin, Option<u32>)]) -> bool {
        let about = [EventKind::Latent, EventKind::Clobber];
        self.litmus.events().iter().any(|e| about.contains(e))
            && sometimes.contains(&(Twin::DirtyReclaimed, None))
    }

    /// Explores every interleaving.
    ///
    /// # Errors
    ///
    /// Errors in the texts.
    pub fn run<'p>(
        &self,
        limits: Limits,
        interrupted: Option<&'p AtomicBool>,
        progress: Option<&'p mut (dyn FnMut(Progress) + 'p)>,
    ) -> Result<CheckReport, CheckError> {
        let machine = self.machine(MemoryKind::Shadow)?;
        self.explore(&machine, Search { limits, interrupted, progress, ..Search::default() }, false)
    }

    /// Explores every interleaving, with a folder for states that have no room in memory and for a checkpoint every
    /// minute. With `resume` the search goes on where the checkpoint in the folder was written.
    ///
    /// # Errors
    ///
    /// Errors in the texts, and what the disk says.
    pub fn run_on_disk<'p>(
        &self,
        limits: Limits,
        (dir, resume): (PathBuf, bool),
        interrupted: Option<&'p AtomicBool>,
        progress: Option<&'p mut (dyn FnMut(Progress) + 'p)>,
    ) -> Result<CheckReport, CheckError> {
        let machine = self.machine(MemoryKind::Shadow)?;
        // The same program over another model is another search.
        let model = format!("{:?} {:?}", machine.spec(), self.asked());
        let fingerprint = model.bytes().fold(program_digest(&machine), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let disk = Some(Disk { dir, every: CHECKPOINT, fingerprint, resume });
        self.explore(&machine, Search { limits, interrupted, progress, disk, ..Search::default() }, false)
    }

    /// Explores a machine of this case; until any event is met, or until each was that is asked about.
    pub(crate) fn explore(
        &self,
        machine: &Machine,
        search: Search<'_>,
        any: bool,
    ) -> Result<CheckReport, CheckError> {
        let mut search = search;
        let (limits, begun, on_disk) = (search.limits, Instant::now(), search.disk.is_some());
        let mut report = self.explore_in(machine, again(&mut search), any)?;
        // What did not fit into the store buffers is tried with larger ones; a search on disk is of one size.
        let larger = STORE_BUFFERS.iter().filter(|n| **n > machine.spec().assumptions.store_buffer);
        for entries in larger {
            if on_disk || report.bound != Some(FULL_BUFFER) {
                break;
            }
            let machine = machine.with_store_buffer(*entries).map_err(CheckError::Text)?;
            search.limits.time = limits.time.map(|time| time.saturating_sub(begun.elapsed()));
            report = self.explore_in(&machine, again(&mut search), any)?;
            report.bound = report.bound.map(|bound| match (bound, limits.time) {
                (Bound::Time(_), Some(time)) => Bound::Time(time),
                _ => bound,
            });
        }
        Ok(report)
    }

    fn explore_in(
        &self,
        machine: &Machine,
        search: Search<'_>,
        any: bool,
    ) -> Result<CheckReport, CheckError> {
        let Some(mut explorer) = Explorer::new(machine) else {
            return Err(CheckError::Story(0, "no shadow caches".to_owned()));
        };
        self.explore_with(machine, &mut explorer, search, any)
    }

    /// Explores with no switch, then with one, and so on up to `most`, until an event is met, a bound is, or no order
    /// of steps is left out. The verdict is [`Verdict::Holds`] only in the last case.
    ///
    /// # Errors
    ///
    /// Errors in the texts.
    pub fn run_within_switches(
        &self,
        limits: Limits,
        most: u16,
        interrupted: Option<&AtomicBool>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<CheckReport, CheckError> {
        let machine = self.machine(MemoryKind::Shadow)?;
        let mut explorer =
            Explorer::new(&machine).ok_or_else(|| CheckError::Story(0, "no shadow caches".to_owned()))?;
        let until = limits.time.map(|time| Instant::now() + time);
        let mut states = Vec::new();
        loop {
            let allowed = u16::try_from(states.len()).unwrap_or(u16::MAX);
            explorer.limit_switches(allowed);
            let time = until.map(|until| until.saturating_duration_since(Instant::now()));
            let search = Search {
                limits: Limits { time, ..limits },
                interrupted,
                progress: Some(&mut *progress),
                ..Search::default()
            };
            let mut report = self.explore_with(&machine, &mut explorer, search, false)?;
            states.push(report.states);
            let all = !explorer.left_out() && report.bound.is_none();
            if let Some(Bound::Time(_)) = report.bound {
                report.bound = limits.time.map(Bound::Time);
            }
            if report.verdict == Verdict::Violated || report.bound.is_some() || all || allowed >= most {
                if !all && matches!(report.verdict, Verdict::Holds | Verdict::Vacuous) {
                    report.verdict = Verdict::NotExhaustive;
                }
                report.switches = Some(Switches { asked: most, states, all });
                return Ok(report);
            }
        }
    }

    fn explore_with(
        &self,
        machine: &Machine,
        explorer: &mut Explorer<'_>,
        search: Search<'_>,
        any: bool,
    ) -> Result<CheckReport, CheckError> {
        let stop_at = self.asked();
        let every = EventKind::ALL.iter().fold(0u64, |goals, e| goals | 1 << goal_of(*e));
        let stop_at_any = if any { every } else { 0 };
        let dir = search.disk.as_ref().map(|disk| disk.dir.clone());
        // What a limit of switches leaves out may be the way to an end.
        let ends = Some(Ends { goal: goal_of(EventKind::HungTask), unless: every });
        let ends = ends.filter(|_| !explorer.limits_switches());
        let mut search = Search { stop_at, stop_at_any, ends, ..search };
        let reductions = self.litmus.reductions();
        explorer.reduce(reductions);
        let mut explored = explorer.run(again(&mut search)).map_err(|words| self.too_wide(words))?;
        let unmet = |explored: &Explored| {
            let met = |twin: &Twin| explored.reached.iter().any(|r| r.goal == goal_of_twin(*twin));
            !machine.twins().iter().all(met)
        };
        let events = explored.reached.iter().any(|r| (r.goal as usize) < EventKind::ALL.len());
        if reductions.partial_order && (events || explored.bound.is_none() && unmet(&explored)) {
            // Stories are shortest ones, and what is said never to happen does not: that takes the whole search.
            explorer.reduce(Reductions { partial_order: false, ..reductions });
            explored = explorer.run(search).map_err(|words| self.too_wide(words))?;
        }
        if let Some(error) = explored.error.take() {
            return Err(CheckError::Disk { dir: dir.unwrap_or_default(), error });
        }
        self.no_runaway(machine, explorer)?;
        let mut events = Vec::new();
        for reached in &explored.reached {
            let Some(event) = EventKind::ALL.get(reached.goal as usize) else { continue };
            let schedule = explorer.path(&explored, reached).ok_or_else(|| {
                CheckError::Story(0, "no run of the machine is alike to what the search followed".to_owned())
            })?;
            events.push(Self::counterexample(machine, explorer, *event, schedule)?);
        }
        let first =
            |twin: &Twin| explored.reached.iter().find(|r| r.goal == goal_of_twin(*twin)).map(|r| r.depth);
        let sometimes: Vec<_> = machine.twins().into_iter().map(|twin| (twin, first(&twin))).collect();
        let bound = explored.bound.or((events.is_empty() && explorer.full_buffer()).then_some(FULL_BUFFER));
        let verdict = match (events.is_empty(), bound) {
            (false, _) => Verdict::Violated,
            (true, Some(_)) => Verdict::Bounded,
            (true, None) if self.vacuous(&sometimes) => Verdict::Vacuous,
            (true, None) => Verdict::Holds,
        };
        Ok(CheckReport {
            verdict,
            events,
            states: explored.states(),
            transitions: explored.transitions,
            depth: explored.depth,
            bound,
            state_bytes: explorer.state_bytes(),
            permutations: explorer.permutations(),
            whole: explored.whole,
            memory: explored.memory,
            asked_ends: explored.asked_ends,
            sometimes,
            assumptions: machine.spec().assumptions.names(),
            memory_model: machine.spec().assumptions.memory_model(),
            store_buffer: machine.spec().assumptions.store_buffer,
            walked: None,
            switches: None,
        })
    }

    /// Walks at random in the place of a search: finds events, proves nothing. What no event was met in is
    /// [`Verdict::NotExhaustive`].
    ///
    /// # Errors
    ///
    /// Errors in the texts.
    pub fn walk(&self, walks: &Walks, interrupted: Option<&AtomicBool>) -> Result<CheckReport, CheckError> {
        let machine = self.machine(MemoryKind::Shadow)?;
        let internal = |message: &str| CheckError::Story(0, message.to_owned());
        let mut explorer = Explorer::new(&machine).ok_or_else(|| internal("no shadow caches"))?;
        let asked = self.asked();
        let walked = explorer.walk(walks, asked, interrupted).map_err(|words| self.too_wide(words))?;
        self.no_runaway(&machine, &explorer)?;
        let mut events = Vec::new();
        for met in &walked.met {
            let Some(event) = EventKind::ALL.get(met.goal as usize) else { continue };
            let steps =
                explorer.steps_of(&met.numbers).ok_or_else(|| internal("a walk cannot be walked again"))?;
            // A deadlock is a state, not a step.
            let shorten = *event != EventKind::Deadlock;
            let steps = if shorten { explorer.shorten(steps, met.goal) } else { steps };
            events.push(Self::counterexample(&machine, &mut explorer, *event, steps)?);
        }
        events.sort_by_key(|e| e.schedule.len());
        let first = |twin: &Twin| {
            let met = walked.met.iter().find(|m| m.goal == goal_of_twin(*twin));
            met.map(|m| u32::try_from(m.numbers.len()).unwrap_or(u32::MAX))
        };
        Ok(CheckReport {
            verdict: if events.is_empty() { Verdict::NotExhaustive } else { Verdict::Violated },
            events,
            states: 0,
            transitions: walked.steps,
            depth: walked.longest,
            bound: walked.cut.map(|cut| match cut {
                Cut::Time => Bound::Time(walks.time.unwrap_or_default()),
                Cut::Interrupted => Bound::Interrupted,
            }),
            state_bytes: explorer.state_bytes(),
            permutations: 1,
            whole: false,
            memory: 0,
            asked_ends: false,
            sometimes: machine.twins().into_iter().map(|twin| (twin, first(&twin))).collect(),
            assumptions: machine.spec().assumptions.names(),
            memory_model: machine.spec().assumptions.memory_model(),
            store_buffer: machine.spec().assumptions.store_buffer,
            walked: Some(walked),
            switches: None,
        })
    }

    /// The goals of the events that the test asks about, or expects.
    fn asked(&self) -> u64 {
        let mut asked = self.litmus.events();
        asked.extend(self.expected().map_or(Vec::new(), |e| e.events));
        asked.iter().fold(0u64, |goals, e| goals | 1 << goal_of(*e))
    }

    fn too_wide(&self, words: usize) -> CheckError {
        CheckError::TooWide { file: self.litmus.file.clone(), words }
    }

    fn no_runaway(&self, machine: &Machine, explorer: &Explorer<'_>) -> Result<(), CheckError> {
        let Some(pc) = explorer.runaway() else { return Ok(()) };
        let (file, line) = machine.place(pc);
        let text = machine.statement(pc).to_owned();
        Err(CheckError::Runaway { file: file.to_owned(), line, text })
    }

    fn counterexample(
        machine: &Machine,
        explorer: &mut Explorer<'_>,
        event: EventKind,
        steps: Vec<ScheduledStep>,
    ) -> Result<Counterexample, CheckError> {
        let schedule = explorer.calm(steps);
        let story = machine.tell_of(event, &schedule).map_err(|e| CheckError::Story(e.step, e.message))?;
        if event == EventKind::HungTask && story.len() == schedule.len() {
            let message = "a task that can never end does end";
            return Err(CheckError::Story(schedule.len(), message.to_owned()));
        }
        let mut last_events = story.iter().rev().flat_map(|step| &step.events);
        let victim = last_events.find(|(e, _)| e.kind == event).map_or(Victim::Host, |(e, _)| e.victim);
        Ok(Counterexample { event, victim, schedule, story })
    }
}

/// The same search, to be run before this one.
fn again<'s>(search: &'s mut Search<'_>) -> Search<'s> {
    let progress = search.progress.as_mut().map(|told| &mut **told as &mut dyn FnMut(Progress));
    Search { progress, disk: search.disk.clone(), ..*search }
}
