//! Makes programs smaller: copies and constants are carried on, jumps shortened, what nobody needs dropped.
//!
//! Nothing here changes a step: shared accesses, choices and windows stay, in their order, with their values.

use std::collections::BTreeMap;

use svm_policy::{BinOp, Prim, UnOp};

use crate::ir::{B, Calc, Class, End, Flow, Inst, RegInfo, V, Val};
use crate::live::{Set, interference, liveness, step_back};
use crate::lower::fold;
use crate::range::{Interval, union};

/// What registers are known to equal; [`THIS_CPU`] stands for the pCPU at hand.
type Known = BTreeMap<V, Val>;

/// Not a register: what `this cpu` would give.
const THIS_CPU: V = V::MAX;

/// Rounds after which the optimiser is content.
const ROUNDS: u32 = 24;

/// Optimises one entry.
pub(crate) fn run(flow: &mut Flow) {
    for _ in 0..ROUNDS {
        flow.compact();
        let outs = propagate(flow);
        let mut changed = branches(flow);
        changed |= thread(flow, &outs);
        flow.compact();
        changed |= merge(flow);
        changed |= coalesce(flow);
        changed |= dead(flow);
        if !changed {
            break;
        }
    }
    flow.compact();
}

/// Joins registers that are copies of each other and never differ while both matter, then optimises again.
pub(crate) fn join_copies(flow: &mut Flow, ranges: &mut [Option<Interval>]) {
    for _ in 0..ROUNDS {
        let into = joinable(flow);
        let mut joined = false;
        for (t, x) in (0..).zip(&into) {
            if t == *x {
                continue;
            }
            joined = true;
            ranges[index(*x)] = match (ranges[index(*x)], ranges[index(t)]) {
                (Some(a), Some(b)) => Some(union(a, b)),
                (a, b) => a.or(b),
            };
        }
        if !joined {
            break;
        }
        for block in &mut flow.blocks {
            for (inst, _) in &mut block.insts {
                inst.rename(&|v| into[index(v)]);
            }
            if let End::Branch { cond: Val::Reg(r), .. } = &mut block.end {
                *r = into[index(*r)];
            }
        }
        run(flow);
    }
}

/// For each register the one that it can be: itself, or the other side of a copy.
fn joinable(flow: &Flow) -> Vec<V> {
    let (live_out, live_in) = liveness(flow);
    let mut clash = interference(flow, &live_out, &live_in);
    let alone = |v: V| v >= flow.params && flow.regs[index(v)].group.is_none_or(|g| g.words == 1);
    let mut into: Vec<V> = (0..).take(flow.regs.len()).collect();
    let find = |into: &[V], mut v: V| {
        while into[index(v)] != v {
            v = into[index(v)];
        }
        v
    };
    for (inst, _) in flow.blocks.iter().flat_map(|b| &b.insts) {
        if let Inst::Set { dst, calc: Calc::Use(Val::Reg(from)) } = *inst {
            let (dst, from) = (find(&into, dst), find(&into, from));
            let (a, b) = (flow.regs[index(dst)], flow.regs[index(from)]);
            let same = a.class == b.class && a.group.is_some() == b.group.is_some();
            if same && dst != from && alone(dst) && alone(from) && !clash[index(dst)].has(from) {
                into[index(from)] = dst;
                let others = clash[index(from)].clone();
                for other in others.iter() {
                    clash[index(other)].insert(dst);
                    clash[index(dst)].insert(other);
                }
            }
        }
    }
    (0..).take(flow.regs.len()).map(|v| find(&into, v)).collect()
}

fn index(v: V) -> usize {
    usize::try_from(v).unwrap_or(usize::MAX)
}

/// What is known where a block begins or ends, and on the way through it.
#[derive(Default)]
struct Facts {
    known: Known,
    /// The registers that were found equal to each register; some may no longer be.
    equals: BTreeMap<V, Vec<V>>,
}

impl Facts {
    fn new(known: Known) -> Facts {
        let mut facts = Facts::default();
        for (v, to) in known {
            facts.learn(v, to);
        }
        facts
    }

    fn learn(&mut self, v: V, to: Val) {
        self.known.insert(v, to);
        if let Val::Reg(r) = to {
            self.equals.entry(r).or_default().push(v);
        }
    }

    fn lookup(&self, v: Val) -> Val {
        match v {
            Val::Const(_) => v,
            Val::Reg(r) => self.known.get(&r).copied().unwrap_or(v),
        }
    }

    fn kill(&mut self, v: V) {
        self.known.remove(&v);
        for other in self.equals.remove(&v).unwrap_or_default() {
            if self.known.get(&other) == Some(&Val::Reg(v)) {
                self.known.remove(&other);
            }
        }
    }

    /// Rewrites one operation with what is known, and learns from it.
    fn transfer(&mut self, inst: &mut Inst) {
        inst.map(&mut |v| *v = self.lookup(*v));
        if let Inst::Set { calc, .. } = inst {
            *calc = match (*calc, self.known.get(&THIS_CPU)) {
                (Calc::ThisCpu, Some(cpu)) => Calc::Use(*cpu),
                (calc, _) => fold(calc),
            };
        }
        // The context may rest before it, and go on elsewhere.
        if inst.gives_way() || matches!(inst, Inst::Window(w) if w.closes()) {
            self.known.remove(&THIS_CPU);
        }
        inst.changes(&mut |v| self.kill(v));
        if let Inst::Set { dst, calc: Calc::Use(v) } = *inst
            && v != Val::Reg(dst)
        {
            self.learn(dst, v);
        }
        if let Inst::Set { dst, calc: Calc::ThisCpu } = *inst {
            self.learn(THIS_CPU, Val::Reg(dst));
        }
    }
}

/// Carries copies and constants forward through the whole entry; gives what is known where each block ends.
fn propagate(flow: &mut Flow) -> Vec<Known> {
    let count = flow.blocks.len();
    let mut before: Vec<Vec<B>> = vec![Vec::new(); count];
    for (i, block) in flow.blocks.iter().enumerate() {
        for next in block.end.targets() {
            before[next].push(i);
        }
    }
    // What nobody reads any more need not be known.
    let (live_out, _) = liveness(flow);
    let mut outs: Vec<Option<Known>> = vec![None; count];
    let meet = |b: B, outs: &[Option<Known>]| -> Facts {
        if b == 0 {
            return Facts::default();
        }
        let mut preds = before[b].iter().filter_map(|p| outs[*p].as_ref());
        let mut known = preds.next().cloned().unwrap_or_default();
        for other in preds {
            known.retain(|v, to| other.get(v) == Some(to));
        }
        Facts::new(known)
    };
    let mut changed = true;
    while changed {
        changed = false;
        for b in 0..count {
            let mut facts = meet(b, &outs);
            for (inst, _) in &flow.blocks[b].insts {
                facts.transfer(&mut inst.clone());
            }
            let mut known = facts.known;
            known.retain(|v, _| *v == THIS_CPU || live_out[b].has(*v));
            if outs[b].as_ref() != Some(&known) {
                outs[b] = Some(known);
                changed = true;
            }
        }
    }
    for b in 0..count {
        let mut facts = meet(b, &outs);
        let block = &mut flow.blocks[b];
        for (inst, _) in &mut block.insts {
            facts.transfer(inst);
        }
        if let End::Branch { cond, .. } = &mut block.end {
            *cond = facts.lookup(*cond);
        }
    }
    outs.into_iter().map(Option::unwrap_or_default).collect()
}

/// Decides branches on constants, and branches on what a negation was computed from.
fn branches(flow: &mut Flow) -> bool {
    let mut changed = false;
    for block in &mut flow.blocks {
        let End::Branch { cond, then, otherwise } = block.end else { continue };
        let new = match cond {
            _ if then == otherwise => End::Jump(then),
            Val::Const(0) => End::Jump(otherwise),
            Val::Const(_) => End::Jump(then),
            Val::Reg(r) => {
                let Some(made) = block.insts.iter().rposition(|(inst, _)| inst.def() == Some(r)) else {
                    continue;
                };
                let unchanged = |v: Val| {
                    let Val::Reg(a) = v else { return true };
                    let mut same = a != r;
                    for (inst, _) in &block.insts[made + 1..] {
                        inst.changes(&mut |c| same &= c != a);
                    }
                    same
                };
                let Inst::Set { calc, .. } = block.insts[made].0 else { continue };
                if let Calc::Un(UnOp::IsZero, a) = calc
                    && unchanged(a)
                {
                    End::Branch { cond: a, then: otherwise, otherwise: then }
                } else if let Calc::Bin(BinOp::Ne, a, Val::Const(0)) = calc
                    && unchanged(a)
                {
                    End::Branch { cond: a, then, otherwise }
                } else {
                    continue;
                }
            }
        };
        block.end = new;
        changed = true;
    }
    changed
}

/// Leads jumps past blocks that do nothing, and past branches whose outcome is known.
fn thread(flow: &mut Flow, outs: &[Known]) -> bool {
    let mut changed = false;
    for (p, out) in outs.iter().enumerate() {
        let end = flow.blocks[p].end;
        let follow = |to: B, side: Option<(V, bool)>| {
            let mut to = to;
            for _ in 0..flow.blocks.len() {
                let block = &flow.blocks[to];
                if !block.insts.is_empty() {
                    break;
                }
                let next = match block.end {
                    End::Jump(next) => next,
                    End::Branch { cond: Val::Reg(c), then, otherwise } => {
                        let truth = match (out.get(&c), side) {
                            (Some(Val::Const(n)), _) => *n != 0,
                            (_, Some((r, truth))) if r == c => truth,
                            _ => break,
                        };
                        if truth { then } else { otherwise }
                    }
                    End::Branch { .. } | End::Halt => break,
                };
                if next == to {
                    break;
                }
                to = next;
            }
            to
        };
        let new = match end {
            End::Jump(to) => End::Jump(follow(to, None)),
            End::Branch { cond, then, otherwise } => {
                let side = |truth| if let Val::Reg(r) = cond { Some((r, truth)) } else { None };
                End::Branch {
                    cond,
                    then: follow(then, side(true)),
                    otherwise: follow(otherwise, side(false)),
                }
            }
            End::Halt => End::Halt,
        };
        if new != end {
            flow.blocks[p].end = new;
            changed = true;
        }
    }
    changed
}

/// Joins blocks with the only one that follows them, if nothing else leads there.
fn merge(flow: &mut Flow) -> bool {
    let mut preds = vec![0u32; flow.blocks.len()];
    preds[0] += 1;
    for block in &flow.blocks {
        for next in block.end.targets() {
            preds[next] += 1;
        }
    }
    let mut changed = false;
    for b in 0..flow.blocks.len() {
        while let End::Jump(next) = flow.blocks[b].end {
            if next == b || preds[next] != 1 {
                break;
            }
            let insts = std::mem::take(&mut flow.blocks[next].insts);
            let (end, at) = (flow.blocks[next].end, flow.blocks[next].end_at);
            let block = &mut flow.blocks[b];
            block.insts.extend(insts);
            (block.end, block.end_at) = (end, at);
            // Nothing leads there any more.
            flow.blocks[next].end = End::Halt;
            preds[next] = 0;
            changed = true;
        }
    }
    flow.compact();
    changed
}

/// `t = ...; x = t` becomes `x = ...` where `t` has no other use.
fn coalesce(flow: &mut Flow) -> bool {
    let mut uses = vec![0u32; flow.regs.len()];
    let mut defs = vec![0u32; flow.regs.len()];
    for block in &flow.blocks {
        for (inst, _) in &block.insts {
            inst.uses(&mut |v| uses[index(v)] += 1);
            inst.changes(&mut |v| defs[index(v)] += 1);
        }
        if let End::Branch { cond: Val::Reg(r), .. } = block.end {
            uses[index(r)] += 1;
        }
    }
    let mut changed = false;
    for block in &mut flow.blocks {
        let mut k = 0;
        while k < block.insts.len() {
            if let Inst::Set { dst: x, calc: Calc::Use(Val::Reg(t)) } = block.insts[k].0
                && t >= flow.params
                && x != t
                && uses[index(t)] == 1
                && defs[index(t)] == 1
                && flow.regs[index(t)].group.is_none()
                && let Some(j) = block.insts[..k].iter().rposition(|(inst, _)| inst.def() == Some(t))
            {
                let mut free = true;
                for (inst, _) in &block.insts[j + 1..k] {
                    inst.uses(&mut |v| free &= v != x);
                    inst.changes(&mut |v| free &= v != x);
                }
                if free {
                    block.insts[j].0.set_def(x);
                    block.insts.remove(k);
                    changed = true;
                    continue;
                }
            }
            k += 1;
        }
    }
    changed
}

/// Drops own operations whose results nobody needs.
fn dead(flow: &mut Flow) -> bool {
    // What is needed for more than itself.
    let mut needed = Set::new(flow.regs.len());
    let mut grows = true;
    while grows {
        grows = false;
        for block in flow.blocks.iter().rev() {
            if let End::Branch { cond: Val::Reg(r), .. } = block.end {
                grows |= needed.insert(r);
            }
            for (inst, _) in block.insts.iter().rev() {
                let mut wanted = !inst.is_pure();
                inst.changes(&mut |v| wanted |= needed.has(v));
                if wanted {
                    inst.uses(&mut |v| grows |= needed.insert(v));
                }
            }
        }
    }
    let (live_out, _) = liveness(flow);
    let mut changed = false;
    for (block, out) in flow.blocks.iter_mut().zip(live_out) {
        let mut live = out;
        let mut kept = Vec::with_capacity(block.insts.len());
        for (inst, at) in block.insts.drain(..).rev() {
            let mut wanted = !inst.is_pure();
            inst.changes(&mut |v| wanted |= live.has(v) && needed.has(v));
            if let Inst::Set { dst, calc: Calc::Use(Val::Reg(r)) } = inst {
                wanted &= dst != r;
            }
            if wanted {
                step_back(&inst, &mut live);
                kept.push((inst, at));
            } else {
                changed = true;
            }
        }
        kept.reverse();
        block.insts = kept;
    }
    changed
}

fn within(range: Option<Interval>, lo: i64, hi: i64) -> bool {
    range.is_some_and(|(a, b)| lo <= a && b <= hi)
}

/// Turns what the types say into operations of the stepper, where the ranges do not make it unnecessary.
pub(crate) fn resolve(flow: &mut Flow, ranges: &mut Vec<Option<Interval>>, optimise: bool) {
    for b in 0..flow.blocks.len() {
        let insts = std::mem::take(&mut flow.blocks[b].insts);
        let mut new = Vec::with_capacity(insts.len());
        for (mut inst, at) in insts {
            if optimise {
                inst.map(&mut |v| *v = single(*v, ranges));
            }
            let range = |v: Val| match v {
                Val::Const(n) => Some((n, n)),
                Val::Reg(r) => ranges.get(index(r)).copied().flatten(),
            };
            if let Inst::Prim { prim: Prim::Warn, args: [Val::Const(0), ..], .. } = inst
                && optimise
            {
                continue;
            }
            if let Inst::Set { dst, calc } = &mut inst {
                match *calc {
                    Calc::Known { of, .. } => *calc = Calc::Use(of),
                    Calc::Wrap { of, lo, hi } if within(range(of), lo, hi) => *calc = Calc::Use(of),
                    Calc::Wrap { of, lo, hi } if lo >= 0 => {
                        *calc = Calc::Bin(BinOp::And, of, Val::Const(hi));
                    }
                    Calc::Wrap { of, lo, hi } => {
                        // ((x & mask) ^ half) - half carries the sign bit up.
                        let (mask, half) = (Val::Const(hi.wrapping_sub(lo)), Val::Const(lo.wrapping_neg()));
                        let most = Some((0, hi.wrapping_sub(lo)));
                        let mut temp = |calc| {
                            flow.regs.push(RegInfo { class: Class::Number, group: None });
                            ranges.push(most);
                            let dst = V::try_from(flow.regs.len() - 1).unwrap_or(V::MAX);
                            new.push((Inst::Set { dst, calc }, at));
                            Val::Reg(dst)
                        };
                        let cut = temp(Calc::Bin(BinOp::And, of, mask));
                        let flipped = temp(Calc::Bin(BinOp::Xor, cut, half));
                        *calc = Calc::Bin(BinOp::Sub, flipped, half);
                    }
                    Calc::Bin(BinOp::Ne, a, Val::Const(0)) if optimise && within(range(a), 0, 1) => {
                        *calc = Calc::Use(a);
                    }
                    Calc::Bin(BinOp::And, a, Val::Const(m))
                        if optimise && m >= 0 && m & m.wrapping_add(1) == 0 && within(range(a), 0, m) =>
                    {
                        *calc = Calc::Use(a);
                    }
                    Calc::Use(_)
                    | Calc::Un(..)
                    | Calc::Bin(..)
                    | Calc::ThisCpu
                    | Calc::VmOf(_)
                    | Calc::Siblings(..)
                    | Calc::MaskTest(..)
                    | Calc::MaskNext(..)
                    | Calc::MaskWeight(_) => {}
                }
                let is_number = flow.regs[index(*dst)].class == Class::Number;
                if optimise
                    && is_number
                    && let Val::Const(n) = single(Val::Reg(*dst), ranges)
                {
                    *calc = Calc::Use(Val::Const(n));
                }
            }
            new.push((inst, at));
        }
        let block = &mut flow.blocks[b];
        block.insts = new;
        if optimise && let End::Branch { cond, .. } = &mut block.end {
            *cond = single(*cond, ranges);
        }
    }
}

/// The value itself, if there is only one.
fn single(v: Val, ranges: &[Option<Interval>]) -> Val {
    match v {
        Val::Const(_) => v,
        Val::Reg(r) => match usize::try_from(r).ok().and_then(|r| ranges.get(r)).copied().flatten() {
            Some((lo, hi)) if lo == hi => Val::Const(lo),
            Some(_) | None => v,
        },
    }
}
