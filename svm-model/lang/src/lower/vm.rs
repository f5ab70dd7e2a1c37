//! What is constant of VMs and vCPUs: kinds, ASIDs, VMSA pages.

use svm_policy::{BinOp, Prim};

use super::Lower;
use crate::ast::Span;
use crate::ir::{Calc, Val};

/// `KVM_X86_SEV_VM`.
const SEV: i64 = 2;

impl Lower<'_, '_, '_> {
    /// `sev_get_asid(kvm)`: a constant, unless an actor sets ASIDs.
    pub(super) fn asid_of(&mut self, vm: Val, span: Span) -> Val {
        let machine = &self.p.machine;
        if machine.tables.asids_change {
            return self.prim(Prim::GetAsid, [vm, Val::Const(0), Val::Const(0), Val::Const(0)], None, span);
        }
        let vms = usize::try_from(machine.vms).unwrap_or(0);
        let own = |vm: usize| i64::try_from(vm + 1).unwrap_or(0);
        let asid = |vm: usize| machine.tables.asids.get(vm).map_or_else(|| own(vm), |asid| i64::from(*asid));
        if (0..vms).all(|vm| asid(vm) == own(vm)) {
            let hi = machine.asids - 1;
            let asid = self.bin(BinOp::Add, vm, Val::Const(1), span);
            return self.calc(Calc::Known { of: asid, lo: 0, hi }, span);
        }
        let asids: Vec<i64> = (0..vms).map(asid).collect();
        self.entry_of(vm, &asids, 0, span)
    }

    /// `kvm_vm_type(kvm)`.
    pub(super) fn vm_type(&mut self, vm: Val, span: Span) -> Val {
        let machine = &self.p.machine;
        let vms = usize::try_from(machine.vms).unwrap_or(0);
        let types: Vec<i64> =
            (0..vms).map(|vm| machine.tables.types.get(vm).map_or(SEV, |t| i64::from(*t))).collect();
        self.entry_of(vm, &types, 0, span)
    }

    /// `vcpu_vmsa(vcpu)`.
    pub(super) fn vmsa_of(&mut self, vcpu: Val, span: Span) -> Val {
        let machine = &self.p.machine;
        let vcpus = usize::try_from(machine.vcpus()).unwrap_or(0);
        let page = |vcpu: usize| machine.tables.vmsa.get(vcpu).copied().flatten().map_or(-1, i64::from);
        let pages: Vec<i64> = (0..vcpus).map(page).collect();
        self.entry_of(vcpu, &pages, -1, span)
    }

    /// The entry of a constant table, by own operations; `none` beyond its ends. One value is a constant.
    fn entry_of(&mut self, at: Val, table: &[i64], none: i64, span: Span) -> Val {
        if let Val::Const(at) = at {
            return Val::Const(
                usize::try_from(at).ok().and_then(|at| table.get(at)).copied().unwrap_or(none),
            );
        }
        let (Some(first), Some(lo), Some(hi)) = (table.first(), table.iter().min(), table.iter().max())
        else {
            return Val::Const(none);
        };
        if lo == hi {
            return Val::Const(*first);
        }
        let (lo, hi) = ((*lo).min(none), (*hi).max(none));
        let mut sum = Val::Const(none);
        for (i, entry) in (0i64..).zip(table).filter(|(_, entry)| **entry != none) {
            let here = self.bin(BinOp::Eq, at, Val::Const(i), span);
            let more = self.bin(BinOp::Mul, here, Val::Const(entry - none), span);
            sum = self.bin(BinOp::Add, sum, more, span);
        }
        self.calc(Calc::Known { of: sum, lo, hi }, span)
    }
}
