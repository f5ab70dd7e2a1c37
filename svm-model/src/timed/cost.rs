//! What each step of a timed run costs apart from what memory took, and the counters it moves.

use sev_arch::{CoreId, PcpuId};
use svm_policy::{Op, Prim};

use super::engine::Run;
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
                self.timing.vm_run_exit_sev / 2
            }
            What::Placed { .. } | What::Preempted => self.timing.context_switch / 2,
            What::Take { .. } => STEP,
        }
    }

    fn text_cost(&mut self, actor: Actor, op: Op, pcpu: Option<PcpuId>) -> u64 {
        let place = match op {
            Op::Load { place, .. } | Op::Store { place, .. } => Some((place, 0)),
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
                return if prim == Prim::VmRun { self.timing.vm_run_exit_sev / 2 } else { STEP };
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
        let core = pcpu.map_or(0, |p| self.topology.core_of(p).0);
        let last = &mut self.last_writer[var.base as usize];
        let far = if *last == u16::MAX || *last == core {
            0
        } else {
            let (a, b) = (self.topology.ccx_of(CoreId(*last)), self.topology.ccx_of(CoreId(core)));
            let latency = if a == b {
                self.timing.same_ccx
            } else if self.topology.socket_of(a) == self.topology.socket_of(b) {
                self.timing.other_ccx
            } else {
                self.timing.other_socket
            };
            u64::from(latency)
        };
        if !matches!(op, Op::Load { .. }) {
            *last = core;
        }
        STEP + far + locked
    }
}
