//! What slots and registers hold: numbers, or the names of things that a permutation renames.
//!
//! The texts' types say it of variables and parameters; the rest is found by following values through the operations.
//! Nothing that is proved rests on it: what is taken for a number and is a name only makes a permutation fail its
//! check ([`super::witness`]).

use svm_lang::ast::{Object, Type};
use svm_lang::{Code, VarKind};
use svm_policy::{BinOp, Expr, Op, Operand, Place, Prim, REGS, Reg, RmwOp, Scope, UnOp};

/// What a value names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    /// A number, or not known.
    Plain,
    Pcpu,
    Vcpu,
    Vm,
    Page,
    Asid,
    /// What `vmrun()` gives: from 2 on, a nested page fault of a page.
    Exit,
    /// A word of a mask of pCPUs.
    Mask,
    /// A task, or -1.
    Task,
    /// Who has a lock, from 1: a task, or the handler of a pCPU.
    Holder,
    /// The same below 0; a count of readers above.
    Writer,
    /// What a pCPU handles: 0, or 1 + 2 x sender + whether it waits.
    Handling,
    /// The owner of a page.
    Owner,
    /// The tag of a line's data in memory, and its past.
    Key,
}

/// What is known of a register: `None` before any value is known but constants.
type Known = Option<Kind>;

/// The kinds of everything that the texts name.
#[derive(Debug)]
pub(crate) struct Kinds {
    /// By variable.
    pub(crate) vars: Vec<Kind>,
    /// By operation and register: before the operation.
    before: Vec<Option<[Known; REGS]>>,
    /// By callback: what its argument is.
    pub(crate) infos: Vec<Kind>,
    /// By operation: whether a context can rest there, not only pass in one step with what comes before it.
    pub(crate) rests: Vec<bool>,
}

/// The kind of an object of the texts' types.
fn of_type(ty: &Type) -> Known {
    let Type::Ref(object) = ty else { return None };
    match object {
        Object::Vm => Some(Kind::Vm),
        Object::Vcpu => Some(Kind::Vcpu),
        Object::Page => Some(Kind::Page),
        Object::Pool(_) => None,
    }
}

/// What counts the instances of a variable.
pub(crate) fn of_scope(scope: Scope) -> Kind {
    match scope {
        Scope::PerVm => Kind::Vm,
        Scope::PerVcpu => Kind::Vcpu,
        Scope::PerCpu => Kind::Pcpu,
        Scope::PerPage => Kind::Page,
        Scope::PerAsid => Kind::Asid,
        Scope::Global | Scope::PerObject(_) => Kind::Plain,
    }
}

/// What the arguments of a primitive are.
pub(crate) fn of_args(prim: Prim) -> [Kind; 4] {
    const P: Kind = Kind::Plain;
    let args: &[Kind] = match prim {
        Prim::GuestRead
        | Prim::GuestWrite
        | Prim::GuestReadShared
        | Prim::GuestWriteShared
        | Prim::UserPtePresent
        | Prim::PageMapped
        | Prim::ZapUserPte
        | Prim::FreePage
        | Prim::HostRead
        | Prim::HostWrite
        | Prim::DmaRead
        | Prim::DmaWrite
        | Prim::ClflushPage
        | Prim::ClwbPage
        | Prim::UserReuse
        | Prim::RmpMakeShared
        | Prim::RmpAssigned
        | Prim::GuestEvict => &[Kind::Page],
        Prim::AllocPage | Prim::RmpMakePrivate | Prim::PspWrite | Prim::PspRead => &[Kind::Page, Kind::Vm],
        Prim::ZapSpte | Prim::InstallSpte | Prim::VmPageFlush => &[Kind::Vm, Kind::Page],
        Prim::VmRun | Prim::VcpuFlushTlb | Prim::SetLoaded | Prim::JoinVcpu | Prim::FreeVcpu => &[Kind::Vcpu],
        Prim::FaultPage => &[Kind::Exit],
        Prim::SendCall => &[Kind::Pcpu],
        Prim::FreeVm | Prim::OracleUpdate | Prim::GetAsid => &[Kind::Vm],
        Prim::SetAsid => &[Kind::Vm, Kind::Asid],
        Prim::MovePages => &[Kind::Vm, Kind::Vm],
        Prim::Firmware(_) => &[Kind::Vm, Kind::Asid, Kind::Pcpu],
        Prim::FlushBegin
        | Prim::FlushPrivate
        | Prim::FlushShared
        | Prim::FlushEnd
        | Prim::WaitCalls
        | Prim::SchedPark
        | Prim::ZallocMask
        | Prim::FreeMask
        | Prim::MaskAvailable
        | Prim::MightSleep
        | Prim::NonBlock
        | Prim::IrqsDisabled
        | Prim::InAtomic
        | Prim::InInterrupt
        | Prim::TraceWriteback
        | Prim::Fence
        | Prim::AllocObject
        | Prim::FreeObject
        | Prim::LockHeld
        | Prim::Warn
        | Prim::Invd => &[],
    };
    let mut all = [P; 4];
    all[..args.len()].copy_from_slice(args);
    all
}

/// What a primitive gives.
fn of_result(prim: Prim) -> Kind {
    if prim == Prim::VmRun {
        Kind::Exit
    } else if prim == Prim::FaultPage {
        Kind::Page
    } else if prim == Prim::GetAsid {
        Kind::Asid
    } else {
        Kind::Plain
    }
}

fn join(a: Known, b: Known) -> Known {
    match (a, b) {
        (None, other) | (other, None) => other,
        (Some(a), Some(b)) if a == b => Some(a),
        (Some(_), Some(_)) => Some(Kind::Plain),
    }
}

impl Kinds {
    pub(crate) fn of(code: &Code) -> Kinds {
        let var = |v: &svm_lang::Var| match &v.kind {
            VarKind::Ref(ty) => of_type(ty),
            VarKind::Mask => Some(Kind::Mask),
            VarKind::Mutex | VarKind::Spin => Some(Kind::Holder),
            VarKind::Rwlock | VarKind::Rwsem => Some(Kind::Writer),
            VarKind::Bool | VarKind::Completion => Some(Kind::Plain),
            VarKind::Int => None,
        };
        let mut flow = Flow {
            code,
            vars: code.vars.iter().map(var).collect(),
            before: vec![None; code.ops.len()],
            infos: vec![None; code.callbacks.len()],
            changed: true,
        };
        // What variables and arguments hold is found on the way: until nothing is new.
        while std::mem::take(&mut flow.changed) {
            for (e, entry) in code.entries.iter().enumerate() {
                let mut regs: [Known; REGS] = [None; REGS];
                let called = code.callbacks.iter().position(|c| usize::from(*c) == e);
                for (at, param) in entry.params.iter().enumerate() {
                    let info = called.filter(|_| at == 0).and_then(|c| flow.infos[c]);
                    regs[usize::from(param.reg)] = join(of_type(&param.ty), info);
                }
                flow.enter(usize::from(entry.start), &regs);
            }
        }
        let plain = |known: &Known| known.unwrap_or(Kind::Plain);
        Kinds {
            vars: flow.vars.iter().map(plain).collect(),
            infos: flow.infos.iter().map(plain).collect(),
            rests: rests(code),
            before: flow.before,
        }
    }

    /// What a register holds before an operation.
    pub(crate) fn reg(&self, pc: usize, reg: Reg) -> Kind {
        let before = self.before.get(pc).and_then(Option::as_ref);
        before.and_then(|regs| regs[usize::from(reg)]).unwrap_or(Kind::Plain)
    }
}

/// Where contexts rest: where they start, and where they come to after an access.
fn rests(code: &Code) -> Vec<bool> {
    let mut rests = vec![false; code.ops.len()];
    let mut passed = vec![false; code.ops.len()];
    let next = |at: usize| match code.ops[at] {
        Op::Jump(to) => [Some(usize::from(to)), None],
        Op::Branch { then, otherwise, .. } => [Some(usize::from(then)), Some(usize::from(otherwise))],
        Op::Halt => [None, None],
        Op::Set { .. }
        | Op::MaskPut { .. }
        | Op::Window(_)
        | Op::Choose { .. }
        | Op::ChooseBit { .. }
        | Op::Load { .. }
        | Op::Store { .. }
        | Op::Rmw { .. }
        | Op::Lock { .. }
        | Op::Unlock { .. }
        | Op::Prim { .. } => [Some(at + 1), None],
    };
    for entry in &code.entries {
        rests[usize::from(entry.start)] = true;
    }
    // Who waits behind a closed window rests there.
    let closes = |op: Op| matches!(op, Op::Window(window) if window.closes());
    let accesses = (0..code.ops.len()).filter(|at| code.ops[*at].is_shared() || closes(code.ops[*at]));
    let starts = code.entries.iter().map(|e| usize::from(e.start));
    let mut open: Vec<usize> = accesses.flat_map(next).flatten().chain(starts).collect();
    while let Some(at) = open.pop() {
        if at >= rests.len() || std::mem::replace(&mut passed[at], true) {
            continue;
        }
        rests[at] |= code.ops[at].is_rest();
        if !code.ops[at].is_rest() {
            open.extend(next(at).into_iter().flatten());
        }
    }
    rests
}

/// The kinds in the making.
struct Flow<'c> {
    code: &'c Code,
    vars: Vec<Known>,
    before: Vec<Option<[Known; REGS]>>,
    infos: Vec<Known>,
    changed: bool,
}

impl Flow<'_> {
    /// Follows the operations from one on, as far as anything is new.
    fn enter(&mut self, from: usize, regs: &[Known; REGS]) {
        let mut open = vec![(from, *regs)];
        while let Some((at, regs)) = open.pop() {
            let Some(op) = self.code.ops.get(at) else { continue };
            let merged = match &self.before[at] {
                None => regs,
                Some(have) => std::array::from_fn(|r| join(have[r], regs[r])),
            };
            if self.before[at] == Some(merged) {
                continue;
            }
            self.before[at] = Some(merged);
            self.changed = true;
            let mut after = merged;
            self.apply(op, &mut after);
            match op {
                Op::Jump(to) => open.push((usize::from(*to), after)),
                Op::Branch { then, otherwise, .. } => {
                    open.push((usize::from(*then), after));
                    open.push((usize::from(*otherwise), after));
                }
                Op::Halt => {}
                Op::Set { .. }
                | Op::MaskPut { .. }
                | Op::Window(_)
                | Op::Choose { .. }
                | Op::ChooseBit { .. }
                | Op::Load { .. }
                | Op::Store { .. }
                | Op::Rmw { .. }
                | Op::Lock { .. }
                | Op::Unlock { .. }
                | Op::Prim { .. } => open.push((at + 1, after)),
            }
        }
    }

    fn apply(&mut self, op: &Op, regs: &mut [Known; REGS]) {
        let value = |regs: &[Known; REGS], operand: Operand| match operand {
            Operand::Const(_) => None,
            Operand::Reg(r) => regs[usize::from(r)],
        };
        match *op {
            Op::Set { dst, rhs } => regs[usize::from(dst)] = result(rhs, &|o| value(regs, o)),
            Op::MaskPut { base, words, .. } => {
                for r in base..base + words {
                    regs[usize::from(r)] = Some(Kind::Mask);
                }
            }
            Op::ChooseBit { dst, .. } => regs[usize::from(dst)] = Some(Kind::Pcpu),
            Op::Choose { dst, .. } => regs[usize::from(dst)] = Some(Kind::Plain),
            Op::Load { dst, place } => regs[usize::from(dst)] = self.var(place),
            Op::Store { place, src } => self.store(place, value(regs, src)),
            Op::Rmw { dst, place, op, src, .. } => {
                if op == RmwOp::Xchg || op == RmwOp::CmpXchg {
                    self.store(place, value(regs, src));
                }
                regs[usize::from(dst)] = self.var(place);
            }
            Op::Prim { prim, dst, args } => {
                if let (Prim::SendCall, Operand::Const(callback)) = (prim, args[1]) {
                    let info = usize::try_from(callback).ok().and_then(|c| self.infos.get_mut(c));
                    if let Some(info) = info {
                        let joined = join(*info, value(regs, args[2]));
                        self.changed |= joined != *info;
                        *info = joined;
                    }
                }
                regs[usize::from(dst)] = Some(of_result(prim));
            }
            Op::Jump(_)
            | Op::Branch { .. }
            | Op::Window(_)
            | Op::Lock { .. }
            | Op::Unlock { .. }
            | Op::Halt => {}
        }
    }

    fn var(&self, place: Place) -> Known {
        self.vars.get(usize::from(place.var.0)).copied().flatten()
    }

    fn store(&mut self, place: Place, kind: Known) {
        if let Some(have) = self.vars.get_mut(usize::from(place.var.0)) {
            let joined = join(*have, kind);
            // What a type says stays.
            if have.is_none() {
                self.changed |= joined != *have;
                *have = joined;
            }
        }
    }
}

/// The kind of an own computation's value.
fn result(rhs: Expr, value: &dyn Fn(Operand) -> Known) -> Known {
    match rhs {
        Expr::Use(a) => value(a),
        Expr::Un(UnOp::Not, a) => value(a),
        Expr::Un(UnOp::LowestBit, _) => Some(Kind::Pcpu),
        Expr::Un(UnOp::Neg | UnOp::IsZero | UnOp::Weight, _) => Some(Kind::Plain),
        Expr::Bin(BinOp::And | BinOp::Or | BinOp::Xor, a, b) => join(value(a), value(b)),
        Expr::Bin(BinOp::Shl, _, b) if value(b) == Some(Kind::Pcpu) => Some(Kind::Mask),
        Expr::Bin(..) | Expr::MaskTest { .. } | Expr::MaskWeight { .. } => Some(Kind::Plain),
        Expr::ThisCpu | Expr::MaskNext { .. } => Some(Kind::Pcpu),
        Expr::VmOf(_) => Some(Kind::Vm),
        Expr::Siblings { .. } => Some(Kind::Mask),
    }
}
