//! What values registers and variables can have: intervals over the whole program, whatever the order of steps.
//!
//! Each interval is the union over all assignments. What keeps growing is widened to what its type allows, to
//! which [`Calc::Wrap`] and the stores of the stepper cut it at run time.

use svm_policy::{BinOp, Prim, RmwOp, UnOp};

use crate::ast::Type;
use crate::decl::Program;
use crate::ir::{Calc, Class, Flow, Inst, Slot, V, Val};
use crate::machine;
use crate::{EXIT_NPF, VarKind};

/// Rounds after which growing intervals are widened.
const PATIENCE: u32 = 8;
/// Rounds after which everything is given up to be anything; never met.
const ROUNDS: u32 = 400;

/// A closed interval.
pub(crate) type Interval = (i64, i64);

const ALL: Interval = (i64::MIN, i64::MAX);

/// The intervals found; none where no value ever comes.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    pub(crate) vars: Vec<Interval>,
    /// By entry, by register.
    pub(crate) regs: Vec<Vec<Option<Interval>>>,
}

/// An entry, for the analysis.
pub(crate) struct Input<'e> {
    pub(crate) flow: &'e Flow,
    pub(crate) params: Vec<Type>,
    /// Its number among the callbacks.
    pub(crate) callback: Option<i64>,
}

struct Solver<'p, 'e> {
    program: &'p Program<'p>,
    entries: &'e [Input<'e>],
    found: Ranges,
    round: u32,
    changed: bool,
}

/// Finds the intervals of a whole program.
pub(crate) fn solve(program: &Program<'_>, entries: &[Input<'_>]) -> Ranges {
    let vars = program.vars.iter().map(|v| (v.init, v.init)).collect();
    let regs = entries
        .iter()
        .map(|e| {
            let mut regs: Vec<Option<Interval>> = e
                .flow
                .regs
                .iter()
                .map(|info| match info.class {
                    Class::Number => None,
                    Class::Mask { bits } => Some(mask_range(bits)),
                })
                .collect();
            if e.callback.is_none() {
                for (reg, ty) in regs.iter_mut().zip(&e.params) {
                    let (lo, hi) = program.range(ty);
                    // A context is never started with a null reference.
                    *reg = Some(if let Type::Ref(_) = ty { (0, hi.max(0)) } else { (lo, hi) });
                }
            }
            regs
        })
        .collect();
    let mut solver = Solver { program, entries, found: Ranges { vars, regs }, round: 0, changed: true };
    while solver.changed && solver.round < ROUNDS {
        solver.changed = false;
        solver.round += 1;
        for (e, entry) in entries.iter().enumerate() {
            for block in &entry.flow.blocks {
                for (inst, _) in &block.insts {
                    solver.inst(e, inst);
                }
            }
        }
    }
    if solver.changed {
        for reg in solver.found.regs.iter_mut().flatten().flatten() {
            *reg = ALL;
        }
    }
    solver.found
}

fn mask_range(bits: u8) -> Interval {
    if bits >= 63 { ALL } else { (0, (1 << bits) - 1) }
}

pub(crate) fn union(a: Interval, b: Interval) -> Interval {
    (a.0.min(b.0), a.1.max(b.1))
}

fn within(a: Interval, b: Interval) -> bool {
    b.0 <= a.0 && a.1 <= b.1
}

/// All bits up to the highest of a number that is not negative.
fn fill(n: i64) -> i64 {
    if n <= 0 { 0 } else { (i64::MAX.cast_unsigned() >> (n.leading_zeros() - 1)).cast_signed() }
}

fn index(v: V) -> usize {
    usize::try_from(v).unwrap_or(usize::MAX)
}

impl Solver<'_, '_> {
    fn val(&self, e: usize, v: Val) -> Option<Interval> {
        match v {
            Val::Const(n) => Some((n, n)),
            Val::Reg(r) => self.found.regs[e][index(r)],
        }
    }

    /// Adds to what a register can have; what still grows after some rounds gets `most` at once.
    fn reg(&mut self, e: usize, dst: V, found: Option<Interval>, most: Option<Interval>) {
        let Some(found) = found else { return };
        if let Class::Mask { .. } = self.entries[e].flow.regs[index(dst)].class {
            return;
        }
        let old = self.found.regs[e][index(dst)];
        let mut new = old.map_or(found, |old| union(old, found));
        if old != Some(new) {
            if self.round > PATIENCE
                && let Some(most) = most
            {
                new = union(new, most);
            }
            self.found.regs[e][index(dst)] = Some(new);
            self.changed = true;
        }
    }

    fn var(&mut self, slot: Slot, found: Option<Interval>) {
        let Some(found) = found else { return };
        let def = &self.program.vars[usize::from(slot.var)];
        if !matches!(def.kind, VarKind::Int | VarKind::Bool | VarKind::Ref(_)) {
            return;
        }
        // Whatever does not fit is cut to the type's range.
        let found = if within(found, def.range) { found } else { def.range };
        let old = self.found.vars[usize::from(slot.var)];
        let mut new = union(old, found);
        if old != new {
            if self.round > PATIENCE {
                new = union(new, def.range);
            }
            self.found.vars[usize::from(slot.var)] = new;
            self.changed = true;
        }
    }

    fn load(&self, slot: Slot) -> Interval {
        let def = &self.program.vars[usize::from(slot.var)];
        match def.kind {
            VarKind::Mask => {
                let words = i64::from(self.program.machine.mask_words);
                let bits =
                    if let Val::Const(w) = slot.word { u8::try_from(w % words).unwrap_or(0) } else { 0 };
                mask_range(self.program.machine.bits_of_word(bits))
            }
            VarKind::Int | VarKind::Bool | VarKind::Ref(_) => self.found.vars[usize::from(slot.var)],
            VarKind::Mutex | VarKind::Spin | VarKind::Rwlock | VarKind::Rwsem | VarKind::Completion => {
                def.range
            }
        }
    }

    fn inst(&mut self, e: usize, inst: &Inst) {
        match *inst {
            Inst::Set { dst, calc } => {
                let most = match calc {
                    Calc::Wrap { lo, hi, .. } | Calc::Known { lo, hi, .. } => Some((lo, hi)),
                    Calc::Use(_)
                    | Calc::Un(..)
                    | Calc::Bin(..)
                    | Calc::ThisCpu
                    | Calc::VmOf(_)
                    | Calc::Siblings(..)
                    | Calc::MaskTest(..)
                    | Calc::MaskNext(..)
                    | Calc::MaskWeight(_) => None,
                };
                let found = self.calc(e, calc);
                self.reg(e, dst, found, most);
            }
            Inst::Choose { dst, options } => self.reg(e, dst, Some((0, i64::from(options.max(1)) - 1)), None),
            Inst::ChooseBit { dst, .. } => {
                let pcpus = self.program.machine.pcpus;
                self.reg(e, dst, Some((0, pcpus)), None);
            }
            Inst::Load { dst, slot } => self.reg(e, dst, Some(self.load(slot)), None),
            Inst::Store { slot, src } => {
                let found = self.val(e, src);
                self.var(slot, found);
            }
            Inst::Rmw { dst, slot, op, src, .. } => {
                let old = self.load(slot);
                let src = self.val(e, src);
                let new = src.and_then(|src| match op {
                    RmwOp::Or => bin(BinOp::Or, old, src),
                    RmwOp::AndNot => bin(BinOp::And, old, un(UnOp::Not, src)),
                    RmwOp::And => bin(BinOp::And, old, src),
                    RmwOp::Add | RmwOp::AddUnless => bin(BinOp::Add, old, src),
                    RmwOp::TryLock(_) => Some(old),
                    RmwOp::Xchg | RmwOp::CmpXchg => Some(src),
                });
                self.var(slot, new);
                self.reg(e, dst, Some(old), None);
            }
            Inst::Prim { prim, dst, args, .. } => {
                let found = self.prim(prim);
                self.reg(e, dst, Some(found), None);
                if prim == Prim::SendCall
                    && let Val::Const(callback) = args[1]
                    && let Some(to) = self.entries.iter().position(|t| t.callback == Some(callback))
                {
                    let info = self.val(e, args[2]);
                    let most = self.program.range(&Type::Opaque);
                    self.reg(to, 0, info, Some(most));
                }
            }
            Inst::MaskPut { .. } | Inst::Window(_) | Inst::Lock { .. } | Inst::Unlock { .. } => {}
        }
    }

    fn prim(&self, prim: Prim) -> Interval {
        match prim {
            Prim::VmRun => (
                -i64::from(self.program.machine.features.firmware),
                (EXIT_NPF + self.program.machine.pages - 1).max(0),
            ),
            Prim::FaultPage => (0, (self.program.machine.pages - 1).max(0)),
            Prim::GetAsid => (0, (self.program.machine.asids - 1).max(0)),
            Prim::ZapSpte
            | Prim::UserPtePresent
            | Prim::PageMapped
            | Prim::IrqsDisabled
            | Prim::InAtomic
            | Prim::InInterrupt
            | Prim::ZallocMask
            | Prim::MaskAvailable
            | Prim::RmpAssigned => (0, 1),
            Prim::VmPageFlush | Prim::RmpMakePrivate | Prim::RmpMakeShared => (-22, 0),
            Prim::Firmware(_) => (0, crate::SEV_RET_LAST),
            Prim::GuestRead
            | Prim::GuestWrite
            | Prim::GuestReadShared
            | Prim::GuestWriteShared
            | Prim::VcpuFlushTlb
            | Prim::InstallSpte
            | Prim::ZapUserPte
            | Prim::FreePage
            | Prim::HostRead
            | Prim::HostWrite
            | Prim::DmaRead
            | Prim::DmaWrite
            | Prim::AllocPage
            | Prim::FlushBegin
            | Prim::FlushPrivate
            | Prim::FlushShared
            | Prim::FlushEnd
            | Prim::ClflushPage
            | Prim::ClwbPage
            | Prim::SendCall
            | Prim::WaitCalls
            | Prim::SchedPark
            | Prim::SetLoaded
            | Prim::MightSleep
            | Prim::NonBlock
            | Prim::FreeMask
            | Prim::FreeVm
            | Prim::TraceWriteback
            | Prim::OracleUpdate
            | Prim::SetAsid
            | Prim::MovePages
            | Prim::UserReuse
            | Prim::JoinVcpu
            | Prim::Fence
            | Prim::Warn
            | Prim::FreeObject
            | Prim::FreeVcpu
            | Prim::LockHeld
            | Prim::PspWrite
            | Prim::PspRead
            | Prim::Invd
            | Prim::GuestEvict => (0, 0),
            Prim::AllocObject => {
                (-1, self.program.pools.iter().map(|p| i64::from(p.count) - 1).max().unwrap_or(0))
            }
        }
    }

    fn calc(&self, e: usize, calc: Calc) -> Option<Interval> {
        let machine = &self.program.machine;
        match calc {
            Calc::Use(v) => self.val(e, v),
            Calc::Un(op, v) => self.val(e, v).map(|a| un(op, a)),
            Calc::Bin(op, a, b) => {
                let (a, b) = (self.val(e, a)?, self.val(e, b)?);
                bin(op, a, b)
            }
            Calc::ThisCpu => Some((0, machine.pcpus - 1)),
            Calc::VmOf(_) => Some(machine.vms_of_vcpus()),
            Calc::Siblings(_, _, word) => Some(mask_range(machine.bits_of_word(word))),
            Calc::MaskTest(..) => Some((0, 1)),
            Calc::MaskNext(_, after) => {
                let (lo, hi) = self.val(e, after)?;
                Some((lo.saturating_add(1).clamp(0, machine.pcpus), hi.saturating_add(1).max(machine.pcpus)))
            }
            Calc::MaskWeight(_) => Some((0, machine.pcpus)),
            Calc::Wrap { of, lo, hi } => {
                let found = self.val(e, of)?;
                Some(if within(found, (lo, hi)) { found } else { (lo, hi) })
            }
            Calc::Known { of, lo, hi } => {
                let (a, b) = self.val(e, of)?;
                Some((a.clamp(lo, hi), b.clamp(lo, hi)))
            }
        }
    }
}

pub(crate) fn un(op: UnOp, (lo, hi): Interval) -> Interval {
    if lo == hi {
        let v = machine::un(op, lo);
        return (v, v);
    }
    match op {
        UnOp::Neg if lo == i64::MIN => ALL,
        UnOp::Neg => (-hi, -lo),
        UnOp::Not => (!hi, !lo),
        UnOp::IsZero if lo > 0 || hi < 0 => (0, 0),
        UnOp::IsZero => (0, 1),
        UnOp::Weight if lo >= 0 => (0, i64::from(64 - hi.leading_zeros())),
        UnOp::Weight | UnOp::LowestBit => (0, 64),
    }
}

pub(crate) fn bin(op: BinOp, a: Interval, b: Interval) -> Option<Interval> {
    if a.0 == a.1 && b.0 == b.1 {
        let v = machine::bin(op, a.0, b.0);
        return Some((v, v));
    }
    let corners = |f: fn(i128, i128) -> i128| {
        let (a0, a1, b0, b1) = (i128::from(a.0), i128::from(a.1), i128::from(b.0), i128::from(b.1));
        let all = [f(a0, b0), f(a0, b1), f(a1, b0), f(a1, b1)];
        let lo = all.iter().min().copied().and_then(|n| i64::try_from(n).ok());
        let hi = all.iter().max().copied().and_then(|n| i64::try_from(n).ok());
        // Past 64 bits it wraps: anything can come out.
        match (lo, hi) {
            (Some(lo), Some(hi)) => (lo, hi),
            _ => ALL,
        }
    };
    let truth = |never: bool, always: bool| match (never, always) {
        (true, _) => (0, 0),
        (_, true) => (1, 1),
        _ => (0, 1),
    };
    let positive = a.0 >= 0 && b.0 >= 0;
    Some(match op {
        BinOp::Add => corners(|x, y| x + y),
        BinOp::Sub => corners(|x, y| x - y),
        BinOp::Mul => corners(|x, y| x * y),
        BinOp::Div if b.0 > 0 => {
            (a.0 / if a.0 >= 0 { b.1 } else { b.0 }, a.1 / if a.1 >= 0 { b.0 } else { b.1 })
        }
        BinOp::Div => {
            let most = a.0.saturating_abs().max(a.1.saturating_abs());
            if a.0 == i64::MIN { ALL } else { (-most, most) }
        }
        BinOp::Rem => {
            let most = b.0.saturating_abs().max(b.1.saturating_abs()).saturating_sub(1).max(0);
            (if a.0 < 0 { -most } else { 0 }.max(a.0.min(0)), if a.1 > 0 { most.min(a.1) } else { 0 })
        }
        BinOp::And if positive => (0, a.1.min(b.1)),
        BinOp::And if a.0 >= 0 => (0, a.1),
        BinOp::And if b.0 >= 0 => (0, b.1),
        BinOp::Or | BinOp::Xor if positive => (0, fill(a.1.max(b.1))),
        BinOp::And | BinOp::Or | BinOp::Xor => {
            let most = fill(a.1.max(b.1).max(!a.0).max(!b.0));
            (!most, most)
        }
        BinOp::Shl => {
            let by = u32::try_from(b.1.clamp(0, 64)).unwrap_or(64);
            let high = i128::from(a.1.max(0)) << by;
            if positive && by < 63 && high <= i128::from(i64::MAX) {
                (0, i64::try_from(high).unwrap_or(i64::MAX))
            } else {
                ALL
            }
        }
        BinOp::Shr if a.0 >= 0 => (0, a.1 >> b.0.clamp(0, 63)),
        BinOp::Shr => ALL,
        BinOp::Eq => truth(a.1 < b.0 || b.1 < a.0, false),
        BinOp::Ne => truth(false, a.1 < b.0 || b.1 < a.0),
        BinOp::Lt => truth(a.0 >= b.1, a.1 < b.0),
        BinOp::Le => truth(a.0 > b.1, a.1 <= b.0),
        BinOp::Gt => truth(a.1 <= b.0, a.0 > b.1),
        BinOp::Ge => truth(a.1 < b.0, a.0 >= b.1),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BINARY: [BinOp; 16] = [
        BinOp::Add,
        BinOp::Sub,
        BinOp::Mul,
        BinOp::Div,
        BinOp::Rem,
        BinOp::And,
        BinOp::Or,
        BinOp::Xor,
        BinOp::Shl,
        BinOp::Shr,
        BinOp::Eq,
        BinOp::Ne,
        BinOp::Lt,
        BinOp::Le,
        BinOp::Gt,
        BinOp::Ge,
    ];

    /// An interval and a value in it: small ones, and ones at the ends of 64 bits.
    fn point() -> impl Strategy<Value = (Interval, i64)> {
        let number = prop_oneof![-9..9i64, -300..300i64, any::<i64>(), Just(i64::MIN), Just(i64::MAX)];
        (number.clone(), number, any::<u64>()).prop_map(|(a, b, at)| {
            let (lo, hi) = (a.min(b), a.max(b));
            let size = u128::try_from(i128::from(hi) - i128::from(lo) + 1).expect("positive");
            let value = i128::from(lo) + i128::try_from(u128::from(at) % size).expect("small");
            ((lo, hi), i64::try_from(value).expect("inside"))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn results_lie_in_the_interval_of_results((a, x) in point(), (b, y) in point()) {
            for op in BINARY {
                let (lo, hi) = bin(op, a, b).expect("an interval");
                let v = machine::bin(op, x, y);
                prop_assert!(lo <= v && v <= hi, "{:?} {:?} {:?}: {} {} = {} not in {}..{}", op, a, b, x, y, v, lo, hi);
            }
            for op in [UnOp::Neg, UnOp::Not, UnOp::IsZero, UnOp::Weight, UnOp::LowestBit] {
                let (lo, hi) = un(op, a);
                let v = machine::un(op, x);
                prop_assert!(lo <= v && v <= hi, "{:?} {:?}: {} = {} not in {}..{}", op, a, x, v, lo, hi);
            }
        }
    }
}
