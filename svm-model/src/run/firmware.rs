//! Commands to the firmware, and what it takes for VMRUN.

use cache_model::event::EventKind;
use sev_arch::{Asid, CBit, Tag, VmId};
use sim_core::choice::Chooser;
use sim_core::state::Store;
use svm_policy::{Answer, Command};

use super::Runner;
use crate::machine::VcpuSlots;
use crate::memory::{Effects, Memory};
use crate::spec::VmKind;

/// What `vmrun()` gives if it fails: `SVM_EXIT_ERR`.
pub(super) const EXIT_ERR: i64 = -1;

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    pub(super) fn firmware(&mut self, command: Command, args: [i64; 4]) -> Answer {
        let machine = self.machine;
        let Some(firmware) = &machine.firmware else { return Answer::Done(0) };
        let vm = u16::try_from(args[0]).ok().filter(|vm| *vm < machine.spec.vms);
        let snp = vm.is_some_and(|vm| machine.spec.vm(VmId(vm)).kind == VmKind::SevSnp);
        let assigned = |store: &S, asid: u16| {
            machine.rmp.iter().flatten().any(|slot| store.get(*slot) == i64::from(asid))
        };
        let given = (args[0], args[1], args[2]);
        let outcome = firmware.command(self.store, command, given, snp, &assigned);
        let mut fx = Effects::default();
        if outcome.fabric {
            self.memory.fabric_flush(self.store, &mut fx);
        }
        if let Some(asid) = outcome.installed {
            self.memory.new_key(self.store, Tag::select(Asid(asid), CBit::Set));
        }
        self.take_effects(fx);
        self.notes.status = Some(outcome.status);
        if command.guards() && outcome.status.code() != 0 {
            self.report(EventKind::Firmware);
        }
        Answer::Done(outcome.status.code())
    }

    /// A WBINVD of this pCPU is complete.
    pub(super) fn wbinvd_done(&mut self) {
        if let (Some(firmware), Ok(thread)) = (&self.machine.firmware, usize::try_from(self.pcpu)) {
            firmware.wbinvd_done(self.store, thread);
        }
    }

    /// Whether the firmware lets VMRUN of the vCPU work here.
    pub(super) fn may_run(&self, vcpu: &VcpuSlots) -> bool {
        let (Some(firmware), Ok(thread)) = (&self.machine.firmware, usize::try_from(self.pcpu)) else {
            return true;
        };
        let tag = self.machine.tag_of_vm(self.store, vcpu.vm);
        self.machine.spec.vm(vcpu.vm).kind == VmKind::Normal
            || firmware.runnable(self.store, u16::from(tag.0), thread)
    }
}
