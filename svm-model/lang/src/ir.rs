//! What lowering makes and the optimiser works on: blocks of operations over any number of registers.
//!
//! The operations are those of [`svm_policy::Op`], but for two: [`Calc::Wrap`] and [`Calc::Known`] stand for
//! what the declared types say about a value until the ranges of all registers are known.

use svm_policy::{BinOp, Lock, Prim, RmwOp, Shared, UnOp, Window};

use crate::ast::Span;

/// A register, before colouring.
pub(crate) type V = u32;

/// A value that needs no access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Val {
    Const(i64),
    Reg(V),
}

/// A local mask: registers `base..base + words`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LocalMask {
    pub(crate) base: V,
    pub(crate) words: u8,
}

impl LocalMask {
    pub(crate) fn regs(self) -> impl Iterator<Item = V> {
        self.base..self.base + u32::from(self.words)
    }
}

/// A shared slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) var: u16,
    pub(crate) instance: Val,
    pub(crate) word: Val,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Calc {
    Use(Val),
    Un(UnOp, Val),
    Bin(BinOp, Val, Val),
    ThisCpu,
    VmOf(Val),
    /// A word of the mask of the pCPUs that share something with a pCPU.
    Siblings(Shared, Val, u8),
    MaskTest(LocalMask, Val),
    MaskNext(LocalMask, Val),
    MaskWeight(LocalMask),
    /// The value cut to an integer type's range, as C's conversion does.
    Wrap {
        of: Val,
        lo: i64,
        hi: i64,
    },
    /// The value, which is in the range by construction.
    Known {
        of: Val,
        lo: i64,
        hi: i64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inst {
    Set { dst: V, calc: Calc },
    MaskPut { mask: LocalMask, bit: Val, on: Val },
    Window(Window),
    Choose { dst: V, options: u8 },
    ChooseBit { dst: V, mask: LocalMask },
    Load { dst: V, slot: Slot },
    Store { slot: Slot, src: Val },
    Rmw { dst: V, slot: Slot, op: RmwOp, src: Val, expected: Val },
    Lock { kind: Lock, slot: Slot },
    Unlock { kind: Lock, slot: Slot },
    Prim { prim: Prim, dst: V, args: [Val; 4], mask: Option<LocalMask> },
}

/// Index of a block.
pub(crate) type B = usize;

/// Index into the table of source positions.
pub(crate) type At = u32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Jump(B),
    Branch { cond: Val, then: B, otherwise: B },
    Halt,
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) insts: Vec<(Inst, At)>,
    pub(crate) end: End,
    pub(crate) end_at: At,
}

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Number,
    Mask { bits: u8 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RegInfo {
    pub(crate) class: Class,
    /// The local mask it is a word of.
    pub(crate) group: Option<LocalMask>,
}

/// One entry's program. Block 0 is where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) blocks: Vec<Block>,
    pub(crate) regs: Vec<RegInfo>,
    /// The parameters' registers are `0..params`.
    pub(crate) params: u32,
    /// Heads of loops and where the loops stand.
    pub(crate) loops: Vec<(B, Span)>,
}

impl Calc {
    pub(crate) fn map(&mut self, f: &mut dyn FnMut(&mut Val)) {
        match self {
            Calc::Use(a)
            | Calc::Un(_, a)
            | Calc::VmOf(a)
            | Calc::Siblings(_, a, _)
            | Calc::MaskTest(_, a)
            | Calc::MaskNext(_, a)
            | Calc::Wrap { of: a, .. }
            | Calc::Known { of: a, .. } => f(a),
            Calc::Bin(_, a, b) => {
                f(a);
                f(b);
            }
            Calc::ThisCpu | Calc::MaskWeight(_) => {}
        }
    }

    fn mask(&self) -> Option<LocalMask> {
        match self {
            Calc::MaskTest(m, _) | Calc::MaskNext(m, _) | Calc::MaskWeight(m) => Some(*m),
            Calc::Use(_)
            | Calc::Un(..)
            | Calc::Bin(..)
            | Calc::ThisCpu
            | Calc::VmOf(_)
            | Calc::Siblings(..)
            | Calc::Wrap { .. }
            | Calc::Known { .. } => None,
        }
    }
}

impl Inst {
    /// Applies `f` to every value that is read, but for the words of masks.
    pub(crate) fn map(&mut self, f: &mut dyn FnMut(&mut Val)) {
        match self {
            Inst::Set { calc, .. } => calc.map(f),
            Inst::MaskPut { bit, on, .. } => {
                f(bit);
                f(on);
            }
            Inst::Window(_) | Inst::Choose { .. } | Inst::ChooseBit { .. } => {}
            Inst::Load { slot, .. } | Inst::Lock { slot, .. } | Inst::Unlock { slot, .. } => {
                f(&mut slot.instance);
                f(&mut slot.word);
            }
            Inst::Store { slot, src } => {
                f(&mut slot.instance);
                f(&mut slot.word);
                f(src);
            }
            Inst::Rmw { slot, src, expected, .. } => {
                f(&mut slot.instance);
                f(&mut slot.word);
                f(src);
                f(expected);
            }
            Inst::Prim { args, .. } => args.iter_mut().for_each(f),
        }
    }

    /// The local mask that is read or changed as a whole.
    pub(crate) fn mask(&self) -> Option<LocalMask> {
        match self {
            Inst::Set { calc, .. } => calc.mask(),
            Inst::MaskPut { mask, .. } | Inst::ChooseBit { mask, .. } => Some(*mask),
            Inst::Prim { mask, .. } => *mask,
            Inst::Window(_)
            | Inst::Choose { .. }
            | Inst::Load { .. }
            | Inst::Store { .. }
            | Inst::Rmw { .. }
            | Inst::Lock { .. }
            | Inst::Unlock { .. } => None,
        }
    }

    /// Every register that is read.
    pub(crate) fn uses(&self, f: &mut dyn FnMut(V)) {
        let mut copy = *self;
        copy.map(&mut |v| {
            if let Val::Reg(r) = *v {
                f(r);
            }
        });
        if let Some(mask) = self.mask() {
            mask.regs().for_each(f);
        }
    }

    /// The register that is wholly overwritten.
    pub(crate) fn def(&self) -> Option<V> {
        match self {
            Inst::Set { dst, .. }
            | Inst::Choose { dst, .. }
            | Inst::ChooseBit { dst, .. }
            | Inst::Load { dst, .. }
            | Inst::Rmw { dst, .. }
            | Inst::Prim { dst, .. } => Some(*dst),
            Inst::MaskPut { .. }
            | Inst::Window(_)
            | Inst::Store { .. }
            | Inst::Lock { .. }
            | Inst::Unlock { .. } => None,
        }
    }

    pub(crate) fn set_def(&mut self, to: V) {
        match self {
            Inst::Set { dst, .. }
            | Inst::Choose { dst, .. }
            | Inst::ChooseBit { dst, .. }
            | Inst::Load { dst, .. }
            | Inst::Rmw { dst, .. }
            | Inst::Prim { dst, .. } => *dst = to,
            Inst::MaskPut { .. }
            | Inst::Window(_)
            | Inst::Store { .. }
            | Inst::Lock { .. }
            | Inst::Unlock { .. } => {}
        }
    }

    /// Puts other registers in the places of its own.
    pub(crate) fn rename(&mut self, to: &dyn Fn(V) -> V) {
        self.map(&mut |v| {
            if let Val::Reg(r) = v {
                *r = to(*r);
            }
        });
        if let Some(dst) = self.def() {
            self.set_def(to(dst));
        }
        let mask = match self {
            Inst::Set { calc: Calc::MaskTest(m, _) | Calc::MaskNext(m, _) | Calc::MaskWeight(m), .. } => {
                Some(m)
            }
            Inst::MaskPut { mask, .. } | Inst::ChooseBit { mask, .. } => Some(mask),
            Inst::Prim { mask, .. } => mask.as_mut(),
            Inst::Set { .. }
            | Inst::Window(_)
            | Inst::Choose { .. }
            | Inst::Load { .. }
            | Inst::Store { .. }
            | Inst::Rmw { .. }
            | Inst::Lock { .. }
            | Inst::Unlock { .. } => None,
        };
        if let Some(mask) = mask {
            mask.base = to(mask.base);
        }
    }

    /// Every register that may change: [`Inst::def`], and the words that [`Inst::MaskPut`] changes in part.
    pub(crate) fn changes(&self, f: &mut dyn FnMut(V)) {
        if let Some(dst) = self.def() {
            f(dst);
        }
        if let Inst::MaskPut { mask, .. } = self {
            mask.regs().for_each(f);
        }
    }

    /// Whether it does nothing but change the registers it names.
    pub(crate) fn is_pure(&self) -> bool {
        matches!(self, Inst::Set { .. } | Inst::MaskPut { .. })
    }

    /// Whether executing it uses up a step, or is a choice.
    pub(crate) fn gives_way(&self) -> bool {
        match self {
            Inst::Load { .. }
            | Inst::Store { .. }
            | Inst::Rmw { .. }
            | Inst::Lock { .. }
            | Inst::Unlock { .. }
            | Inst::Choose { .. }
            | Inst::ChooseBit { .. } => true,
            // A fence that has nothing to wait for is an own step.
            Inst::Prim { prim, .. } => !prim.is_own() && *prim != Prim::Fence,
            Inst::Set { .. } | Inst::MaskPut { .. } | Inst::Window(_) => false,
        }
    }
}

impl End {
    pub(crate) fn targets(&self) -> impl Iterator<Item = B> + use<> {
        let (a, b) = match *self {
            End::Jump(b) => (Some(b), None),
            End::Branch { then, otherwise, .. } => (Some(then), Some(otherwise)),
            End::Halt => (None, None),
        };
        a.into_iter().chain(b)
    }

    pub(crate) fn map_targets(&mut self, f: &mut dyn FnMut(B) -> B) {
        match self {
            End::Jump(b) => *b = f(*b),
            End::Branch { then, otherwise, .. } => {
                *then = f(*then);
                *otherwise = f(*otherwise);
            }
            End::Halt => {}
        }
    }
}

impl Flow {
    /// The blocks that can be reached, each before its successors where there is no loop.
    pub(crate) fn order(&self) -> Vec<B> {
        let mut seen = vec![false; self.blocks.len()];
        let mut done = Vec::new();
        let mut stack: Vec<(B, Vec<B>)> = Vec::new();
        seen[0] = true;
        // The `then` side is walked last, so that it comes first in the order.
        let succ = |b: B| self.blocks[b].end.targets().collect::<Vec<_>>();
        stack.push((0, succ(0)));
        while let Some((b, rest)) = stack.last_mut() {
            match rest.pop() {
                Some(next) => {
                    if !seen[next] {
                        seen[next] = true;
                        let after = succ(next);
                        stack.push((next, after));
                    }
                }
                None => {
                    done.push(*b);
                    stack.pop();
                }
            }
        }
        done.reverse();
        done
    }

    /// Drops the blocks that cannot be reached and numbers the others in [`Flow::order`].
    pub(crate) fn compact(&mut self) {
        let order = self.order();
        let mut number = vec![usize::MAX; self.blocks.len()];
        for (new, &old) in order.iter().enumerate() {
            number[old] = new;
        }
        let mut blocks = Vec::with_capacity(order.len());
        for &old in &order {
            let mut block = self.blocks[old].clone();
            block.end.map_targets(&mut |b| number[b]);
            blocks.push(block);
        }
        self.blocks = blocks;
        self.loops.retain_mut(|(head, _)| {
            *head = number[*head];
            *head != usize::MAX
        });
    }
}
