//! What flushing costs those whom it meets: the cycles that each VM's vCPUs, and the host's tasks, lose on each pCPU,
//! by cause.
//!
//! A vCPU that an IPI takes out of its guest loses the time from the #VMEXIT to the end of the VMRUN that brings it
//! back: an *episode*. Its time is cut at the instants where something else begins, so that the parts add up to it.
//! A handler that comes while the vCPU's thread is in the host anyway costs its own time only, and nothing if the
//! thread waits for a lock: that time is lost to the lock.

use std::collections::BTreeMap;

use sev_arch::{PcpuId, VmId};
use sim_core::histogram::Histogram;
use sim_core::state::Store as _;
use svm_policy::{Op, Prim};

use super::engine::Run;
use super::plan::GuestStream;
use crate::label::{Actor, What};
use crate::spec::TaskKind;

/// Why cycles were lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// An IPI that asked for a flush: the #VMEXIT that it forced, the handler without the flush, the way back into
    /// the guest.
    IpiEntry,
    /// WBINVD or WBNOINVD in such a handler.
    Flush,
    /// Of a vCPU: from the end of the forced #VMEXIT until the host's text turned interrupts on and the handler began.
    /// Of the host, who asked: what its IPI waited at this pCPU because interrupts were off there, which a flush keeps
    /// them; a #VMEXIT that it had to force is not counted.
    IrqsOffWait,
    /// Waiting for lines that a flush had taken out of the caches; what other misses hid is not counted.
    Refill,
    /// Waiting for a lock, its hand-over included.
    LockWait,
    /// An IPI that asked for no flush, from #VMEXIT to VMRUN: a remote TLB flush. The same under every policy, but
    /// for timing.
    Kick,
}

impl Cause {
    /// Every cause, in the order of reports.
    pub const ALL: [Cause; 6] =
        [Cause::IpiEntry, Cause::Flush, Cause::IrqsOffWait, Cause::Refill, Cause::LockWait, Cause::Kick];

    /// Its name in JSON and CSV.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::IpiEntry => "ipi_entry",
            Cause::Flush => "flush",
            Cause::IrqsOffWait => "irqs_off_wait",
            Cause::Refill => "refill",
            Cause::LockWait => "lock_wait",
            Cause::Kick => "kick",
        }
    }
}

/// Whose cycles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Victim {
    /// A VM's vCPUs.
    Vm(VmId),
    /// The host's own tasks: who reclaims.
    Host,
}

/// Cycles lost, by cause: one entry a time that something was lost. Of [`Cause::Refill`] there is one entry for all
/// that a vCPU waited from one flush call to the next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    by: [Histogram; 6],
}

impl Lost {
    /// What was lost to a cause.
    #[must_use]
    pub fn to(&self, cause: Cause) -> &Histogram {
        &self.by[cause as usize]
    }

    /// Cycles lost to all causes.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.by.iter().map(Histogram::sum).sum()
    }

    /// Adds what another victim lost.
    pub fn merge(&mut self, other: &Lost) {
        for (mine, theirs) in self.by.iter_mut().zip(&other.by) {
            mine.merge(theirs);
        }
    }

    fn add(&mut self, cause: Cause, cycles: u64) {
        self.by[cause as usize].add(cycles);
    }
}

/// A whole-cache flush by a pCPU, for a VM: how long before it the pCPU last ran the VM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ran {
    /// A vCPU of the VM's is there now.
    Now,
    /// Less than 100 us before.
    Within100Us,
    /// Less than 1 ms before.
    Within1Ms,
    /// Less than 10 ms before.
    Within10Ms,
    /// Longer ago.
    Longer,
    /// It never did.
    Never,
}

impl Ran {
    /// Every age, in order.
    pub const ALL: [Ran; 6] =
        [Ran::Now, Ran::Within100Us, Ran::Within1Ms, Ran::Within10Ms, Ran::Longer, Ran::Never];

    /// Its name in JSON and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Ran::Now => "now",
            Ran::Within100Us => "< 100us",
            Ran::Within1Ms => "< 1ms",
            Ran::Within10Ms => "< 10ms",
            Ran::Longer => ">= 10ms",
            Ran::Never => "never",
        }
    }
}

/// Flushes by pCPUs, and what they met of the VM that they were made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Met {
    /// Flushes.
    pub flushes: u64,
    /// Those that wrote back a line of the VM's from the core's private caches.
    pub private: u64,
    /// Those that wrote back one from the CCX's L3 only.
    pub shared: u64,
}

impl Met {
    /// Those that wrote back nothing of the VM's: false flushes.
    #[must_use]
    pub fn nothing(self) -> u64 {
        self.flushes - self.private - self.shared
    }
}

/// A vCPU that an IPI has taken out of its guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Episode {
    pcpu: u16,
    since: u64,
    /// When the #VMEXIT was over.
    out: u64,
    /// Up to here its time has been given to causes.
    mark: u64,
    handlers: u32,
    flushed: bool,
    by: [u64; 6],
    /// Lost to a lock meanwhile, which is counted where the lock was taken.
    elsewhere: u64,
}

impl Episode {
    /// The time from the mark up to this instant was lost to a cause. An instant before the mark takes back what was
    /// given for a step that something else cut short.
    fn give(&mut self, cause: Cause, until: u64) {
        match until.checked_sub(self.mark) {
            Some(cycles) => self.by[cause as usize] += cycles,
            None => {
                let entry = &mut self.by[Cause::IpiEntry as usize];
                *entry = entry.saturating_sub(self.mark - until);
            }
        }
        self.mark = until;
    }
}

/// A handler that runs on a pCPU, or a flush by the task there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Running {
    /// Whose time it takes, and whether from within an episode.
    victim: Option<(u16, bool)>,
    /// Who asked for it.
    from: Option<u16>,
    since: u64,
    flush: u64,
    flushed: bool,
    met: bool,
}

/// In the place of an IPI's arrival: its handler runs.
const TAKEN: u64 = u64::MAX - 1;

/// The books of a run.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) lost: BTreeMap<(u16, Victim), Lost>,
    pub(super) met: BTreeMap<Ran, Met>,
    /// Cycles of flushes on pCPUs that had nothing else to do.
    pub(super) idle_flush_cycles: u64,
    /// Cycles that vCPUs lost to IPIs, from first to last instant: must equal the sum of their parts.
    pub(super) stolen: u64,
    running: Vec<Running>,
    /// By pCPU, then VM: when a vCPU of the VM's last was in its guest there.
    last_ran: Vec<Option<u64>>,
    vms: usize,
    /// By sender, then pCPU: when an IPI arrived or will; [`TAKEN`] while its handler runs, the largest number else.
    arrives: Vec<u64>,
}

impl Books {
    pub(super) fn new(pcpus: usize, vms: usize, tasks: usize) -> Books {
        Books {
            arrives: vec![u64::MAX; pcpus * tasks],
            running: vec![Running::default(); pcpus],
            last_ran: vec![None; pcpus * vms],
            vms,
            ..Books::default()
        }
    }

    pub(super) fn add(&mut self, pcpu: u16, victim: Victim, cause: Cause, cycles: u64) {
        if cycles != 0 {
            self.lost.entry((pcpu, victim)).or_default().add(cause, cycles);
        }
    }

    /// What the vCPUs of VMs lost to a cause, on all pCPUs.
    pub(super) fn of_vms(&self, cause: Cause) -> u64 {
        let vms = self.lost.iter().filter(|((_, victim), _)| *victim != Victim::Host);
        vms.map(|(_, lost)| lost.to(cause).sum()).sum()
    }
}

impl<G: GuestStream> Run<'_, G> {
    fn victim(&self, task: u16) -> Victim {
        match &self.machine.tasks[usize::from(task)].vcpu {
            Some(vcpu) => Victim::Vm(vcpu.vm),
            None => Victim::Host,
        }
    }

    /// A guest left guest mode at `now`, the exit being over at `out`.
    pub(super) fn left_guest(&mut self, t: u16, (now, out): (u64, u64), forced: bool) {
        let Some(pcpu) = self.machine.pcpu_of(&self.store, Actor::Task(t)) else { return };
        let Some(slots) = &self.machine.tasks[usize::from(t)].vcpu else { return };
        self.books.last_ran[pcpu.index() * self.books.vms + slots.vm.index()] = Some(now);
        let Some(vcpu) = self.vcpus[usize::from(t)].as_mut().filter(|_| forced) else { return };
        let mut episode = Episode {
            pcpu: pcpu.0,
            since: now,
            out,
            mark: now,
            handlers: 0,
            flushed: false,
            by: [0; 6],
            elsewhere: 0,
        };
        episode.give(Cause::IpiEntry, out);
        vcpu.episode = Some(episode);
    }

    /// The vCPU is back in its guest, or has lost its pCPU: its episode is over.
    pub(super) fn close_episode(&mut self, t: u16, now: u64) {
        let Some(mut episode) = self.vcpus[usize::from(t)].as_mut().and_then(|v| v.episode.take()) else {
            return;
        };
        episode.give(Cause::IpiEntry, now);
        self.books.stolen += now.saturating_sub(episode.since) - episode.elsewhere;
        let victim = self.victim(t);
        if episode.flushed {
            for cause in Cause::ALL {
                self.books.add(episode.pcpu, victim, cause, episode.by[cause as usize]);
            }
        } else {
            self.books.add(episode.pcpu, victim, Cause::Kick, episode.by.iter().sum());
        }
    }

    /// A task got a lock for which it had waited since then.
    pub(super) fn lost_to_lock(&mut self, t: u16, since: u64, until: u64) {
        let victim = self.victim(t);
        let pcpu = self.machine.pcpu_of(&self.store, Actor::Task(t)).map_or(0, |p| p.0);
        if let Some(episode) = self.vcpus[usize::from(t)].as_mut().and_then(|v| v.episode.as_mut()) {
            episode.give(Cause::IpiEntry, since);
            let waited = until.saturating_sub(episode.mark);
            episode.elsewhere += waited;
            episode.mark += waited;
        }
        self.books.add(pcpu, victim, Cause::LockWait, until - since);
    }

    /// A vCPU waited for a line that a flush had taken.
    pub(super) fn lost_to_refill(&mut self, t: u16, pcpu: PcpuId, cycles: u64) {
        let calls = self.out.cost.flush_calls;
        let Some(vcpu) = self.vcpus[usize::from(t)].as_mut() else { return };
        let key = (calls, pcpu.0);
        if vcpu.refilling == key {
            vcpu.refilled += cycles;
            return;
        }
        let (before, waited) = (vcpu.refilling.1, std::mem::replace(&mut vcpu.refilled, cycles));
        vcpu.refilling = key;
        let victim = self.victim(t);
        self.books.add(before, victim, Cause::Refill, waited);
    }

    /// Books what vCPUs waited for refills since the last flush call.
    pub(super) fn close_refills(&mut self) {
        for t in (0u16..).take(self.vcpus.len()) {
            let Some(vcpu) = self.vcpus[usize::from(t)].as_mut() else { continue };
            let (pcpu, waited) = (vcpu.refilling.1, std::mem::take(&mut vcpu.refilled));
            let victim = self.victim(t);
            self.books.add(pcpu, victim, Cause::Refill, waited);
        }
    }

    /// A task sent an IPI at `now`: it will arrive where a call of its is new.
    pub(super) fn sent(&mut self, t: u16, now: u64) {
        let pcpus = self.machine.pcpus.len();
        let from = usize::from(t) * pcpus;
        let Some(pcpu) = self.machine.pcpu_of(&self.store, Actor::Task(t)) else { return };
        for p in 0..pcpus {
            let call = self.machine.calls[from + p];
            if self.books.arrives[from + p] == u64::MAX && self.store.get(call) != 0 {
                let to = PcpuId(u16::try_from(p).unwrap_or(0));
                self.books.arrives[from + p] = now + self.ipi_flight(pcpu, to);
            }
        }
    }

    /// A handler begins on a pCPU.
    pub(super) fn handler_begins(&mut self, p: u16, now: u64) {
        let task = self.machine.current(&self.store, PcpuId(p));
        let waits = |t: u16| self.waits[usize::from(t)].is_some();
        let (mut ready, mut from) = (0, None);
        let mut victim = task.filter(|t| !waits(*t)).map(|t| (t, false));
        if let Some(t) = task
            && let Some(episode) = self.vcpus[usize::from(t)].as_mut().and_then(|v| v.episode.as_mut())
        {
            let cause = if episode.handlers == 0 { Cause::IrqsOffWait } else { Cause::IpiEntry };
            episode.give(cause, now);
            episode.handlers += 1;
            victim = Some((t, true));
            if episode.handlers == 1 {
                ready = episode.out;
            }
        }
        if let Some(What::Take { sender, .. }) = self.notes.what {
            let at = usize::from(sender) * self.machine.pcpus.len() + usize::from(p);
            let arrived = std::mem::replace(&mut self.books.arrives[at], TAKEN);
            from = Some(sender);
            let waited = now.saturating_sub(arrived.max(ready));
            if self.victim(sender) == Victim::Host {
                self.books.add(p, Victim::Host, Cause::IrqsOffWait, waited);
            }
        }
        self.books.running[usize::from(p)] = Running { victim, from, since: now, ..Running::default() };
    }

    /// A handler made a step of so many cycles, or a task one of a flush.
    pub(super) fn flushes(&mut self, actor: Actor, p: u16, (now, cycles): (u64, u64)) {
        if matches!(self.notes.what, Some(What::Take { .. })) && self.notes.cycles != 0 {
            // The begin of a flush that comes first in the handler is part of this step.
            let running = &mut self.books.running[usize::from(p)];
            running.flush += self.notes.cycles;
            running.flushed = true;
        }
        let Some(What::Text { pc }) = self.notes.what else { return };
        let Op::Prim { prim, .. } = self.machine.code().ops[usize::from(pc)] else { return };
        if !matches!(prim, Prim::FlushBegin | Prim::FlushPrivate | Prim::FlushShared | Prim::FlushEnd) {
            return;
        }
        let sender = match actor {
            Actor::Task(t) => Some(t),
            Actor::Preempt(_) | Actor::Irq(_) | Actor::Buffer(_) | Actor::Cache | Actor::World => {
                let handling = self.store.get(self.machine.pcpus[usize::from(p)].handling);
                u16::try_from((handling - 1) / 2).ok().filter(|_| handling > 0)
            }
        };
        let vm = sender.and_then(|t| match self.machine.spec().tasks[usize::from(t)].kind {
            TaskKind::Reclaimer { vm, .. } => Some(vm),
            TaskKind::Vcpu { .. } | TaskKind::Host { .. } | TaskKind::Device { .. } => None,
        });
        let running = &mut self.books.running[usize::from(p)];
        running.flush += cycles;
        running.flushed = true;
        let Some(vm) = vm else { return };
        let tag = self.machine.tag_of_vm(&self.store, vm);
        let met = self.memory.flushed_tags >> tag.0 & 1 != 0;
        if prim == Prim::FlushBegin {
            running.met = false;
        } else if prim == Prim::FlushPrivate {
            running.met = met;
        } else if prim == Prim::FlushShared {
            let private = running.met;
            let ran = self.ran(p, vm, now);
            let sum = self.books.met.entry(ran).or_default();
            sum.flushes += 1;
            sum.private += u64::from(private);
            sum.shared += u64::from(met && !private);
        }
    }

    /// The end of a flush on a pCPU waits.
    pub(super) fn flush_waits(&mut self, p: u16, cycles: u64) {
        let running = &mut self.books.running[usize::from(p)];
        running.flush += cycles;
        running.flushed = true;
    }

    /// How long ago a pCPU ran a VM.
    fn ran(&self, p: u16, vm: VmId, now: u64) -> Ran {
        let there = self.machine.current(&self.store, PcpuId(p));
        if there.is_some_and(|t| self.victim(t) == Victim::Vm(vm)) {
            return Ran::Now;
        }
        let Some(last) = self.books.last_ran[usize::from(p) * self.books.vms + vm.index()] else {
            return Ran::Never;
        };
        match self.timing.ns_of_cycles(now.saturating_sub(last)) {
            0..100_000 => Ran::Within100Us,
            100_000..1_000_000 => Ran::Within1Ms,
            1_000_000..10_000_000 => Ran::Within10Ms,
            _ => Ran::Longer,
        }
    }

    /// The handler on a pCPU has ended.
    pub(super) fn handler_ends(&mut self, p: u16, now: u64) {
        let running = std::mem::take(&mut self.books.running[usize::from(p)]);
        if let Some(sender) = running.from {
            let at = usize::from(sender) * self.machine.pcpus.len() + usize::from(p);
            self.books.arrives[at] = u64::MAX;
        }
        let span = now.saturating_sub(running.since);
        let Some((t, in_episode)) = running.victim else {
            self.books.idle_flush_cycles += running.flush;
            return;
        };
        let rest = span.saturating_sub(running.flush);
        if in_episode
            && let Some(episode) = self.vcpus[usize::from(t)].as_mut().and_then(|v| v.episode.as_mut())
        {
            episode.by[Cause::Flush as usize] += running.flush;
            episode.mark += running.flush;
            episode.give(Cause::IpiEntry, now);
            episode.flushed |= running.flushed;
            return;
        }
        let victim = self.victim(t);
        if victim != Victim::Host {
            self.books.stolen += span;
        }
        if running.flushed {
            self.books.add(p, victim, Cause::Flush, running.flush);
            self.books.add(p, victim, Cause::IpiEntry, rest);
        } else {
            self.books.add(p, victim, Cause::Kick, span);
        }
    }
}
