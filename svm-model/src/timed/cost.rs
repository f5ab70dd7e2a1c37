//! What each step of a timed run costs apart from what memory took, and the counters it moves.

use sev_arch::{CoreId, PcpuId};
use svm_policy::{Op, Prim};

use super::engine::{Agent, Run};
use super::plan::GuestStream;
use crate::label::{Actor, What};

/// Cycles of a statement's own work and of a hit; the policy's instructions are few beside what they wait for.
const STEP: u64 = 6;

impl<G: GuestStream> Run<'_, G> {
    /// Cycles of a step apart from what memory took, and the counters it moves.
    pub(super) fn cost(&mut self, actor: Actor, what: What, pcpu: Option<PcpuId>) -> u64 {
        match what {
            What::Text { pc } => {
                let op = self.machine.code().ops[usize::from(pc)];
                self.text_cost(actor, op, pcpu)
            }
            What::Drained { .. }
            | What::Guest { .. }
            | What::Reuse { .. }
            | What::Move(_)
            | What::Started { .. } => 0,
            What::Fault { .. } | What::Exit | What::Halted => {
                self.out.cost.guest_exits += 1;
                self.run_exit_of(actor) / 2
            }
            What::Placed { .. } | What::Preempted => self.timing.context_switch / 2,
            What::Take { .. } => STEP,
        }
    }

    /// VMRUN and #VMEXIT together of a task's VM.
    fn run_exit_of(&self, actor: Actor) -> u64 {
        let Actor::Task(t) = actor else { return 0 };
        let vm = self.machine.tasks[usize::from(t)].vcpu.as_ref().map(|v| v.vm);
        vm.map_or(0, |vm| self.run_exit[vm.index()])
    }

    /// Cycles of a line's way from one core to another.
    pub(super) fn distance(&self, from: CoreId, to: CoreId) -> u64 {
        if from == to {
            return 0;
        }
        let (a, b) = (self.topology.ccx_of(from), self.topology.ccx_of(to));
        u64::from(if a == b {
            self.timing.same_ccx
        } else if self.topology.socket_of(a) == self.topology.socket_of(b) {
            self.timing.other_ccx
        } else {
            self.timing.other_socket
        })
    }

    /// Cycles of an IPI from its send to the handler's begin, if nothing holds it up there.
    pub(super) fn ipi_flight(&self, from: PcpuId, to: PcpuId) -> u64 {
        let socket = |p| self.topology.socket_of(self.topology.ccx_of(self.topology.core_of(p)));
        if socket(from) == socket(to) { self.timing.ipi_same_socket } else { self.timing.ipi_other_socket }
    }

    /// Cycles until a waiting sender sees that a pCPU has done what it was called for: the line that says so comes
    /// from there.
    pub(super) fn acknowledges(&self, p: u16, waiting: usize) -> u64 {
        let Agent::Task(t) = self.agents[waiting] else { return 0 };
        let Some(pcpu) = self.machine.pcpu_of(&self.store, Actor::Task(t)) else { return 0 };
        self.distance(self.topology.core_of(PcpuId(p)), self.topology.core_of(pcpu))
    }

    fn text_cost(&mut self, actor: Actor, op: Op, pcpu: Option<PcpuId>) -> u64 {
        let place = match op {
            Op::Load { place, .. } | Op::Store { place, .. } => Some((place, 0)),
            // Half of what it takes to take and give back a lock for which a task may have to sleep.
            Op::Lock { kind, place, .. } | Op::Unlock { kind, place, .. } if kind.sleeps() => {
                Some((place, self.timing.mutex_uncontended / 2))
            }
            Op::Rmw { place, .. } | Op::Lock { place, .. } | Op::Unlock { place, .. } => {
                Some((place, u64::from(self.timing.atomic_rmw)))
            }
            Op::Prim { prim, .. } => {
                if prim == Prim::SendCall {
                    self.out.cost.ipis += 1;
                    if let Actor::Task(t) = actor {
                        self.sender = Some(t);
                    }
                    return self.timing.ipi_per_pcpu;
                }
                if prim == Prim::FlushPrivate {
                    self.out.cost.pcpus_flushed += 1;
                }
                if prim == Prim::VmRun {
                    return self.run_exit_of(actor).div_ceil(2);
                }
                // The fence after the last line.
                let fenced = matches!(prim, Prim::ClflushPage | Prim::ClwbPage | Prim::VmPageFlush);
                return STEP + if fenced { self.timing.clflush_drain } else { 0 };
            }
            Op::Set { .. }
            | Op::MaskPut { .. }
            | Op::Jump(_)
            | Op::Branch { .. }
            | Op::Window(_)
            | Op::Choose { .. }
            | Op::ChooseBit { .. }
            | Op::Halt => None,
        };
        let Some((place, locked)) = place else { return STEP };
        // Where the variable's line was last written decides how far it comes.
        let var = &self.machine.vars[usize::from(place.var.0)];
        let core = pcpu.map_or(CoreId(0), |p| self.topology.core_of(p));
        let last = self.last_writer[var.base as usize];
        let far = if last == u16::MAX { 0 } else { self.distance(CoreId(last), core) };
        if !matches!(op, Op::Load { .. }) {
            self.last_writer[var.base as usize] = core.0;
        }
        STEP + far + locked
    }
}
