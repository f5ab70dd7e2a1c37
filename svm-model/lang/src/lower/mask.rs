//! Operations on masks of pCPUs: word by word on shared ones, for nothing on local ones.

use std::collections::BTreeSet;

use svm_policy::{BinOp, Prim, RmwOp, Shared, UnOp};

use super::{Allocated, Lower, MaskRef};
use crate::ast::{Block, ExprKind, Filter, Ident, Prefix, Span};
use crate::builtin::{self, Act, Bit, Combine, Compare};
use crate::ir::{Calc, Inst, LocalMask, Slot, V, Val};
use crate::{MASK_FREED, MASK_LIVE, MASK_NULL, Warning};

/// The names of the masks whose addresses a function's body gives to an allocation.
pub(super) fn allocated_in(body: &Block) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    body.each_call(&mut |name, args| {
        if let Some(Act::Zalloc(_)) = builtin::find(&name.name).map(|b| b.act)
            && let Some(ExprKind::Prefix(Prefix::AddressOf, of)) = args.first().map(|a| &a.kind)
            && let ExprKind::Name(mask) = &of.kind
        {
            found.insert(mask.as_str());
        }
    });
    found
}

impl Lower<'_, '_, '_> {
    fn words(&self) -> u8 {
        self.p.machine.mask_words
    }

    /// The word of a mask.
    fn word_slot(&mut self, slot: Slot, word: u8, span: Span) -> Slot {
        // The first word of an element of an array is not 0.
        let word = self.bin(BinOp::Add, slot.word, Val::Const(i64::from(word)), span);
        Slot { word, ..slot }
    }

    /// Begins to keep whether a local mask is there: not yet.
    pub(super) fn track(&mut self, mask: LocalMask, name: &Ident) {
        let names = &mut *self.s.masks;
        let at = names.iter().position(|n| *n == name.name).unwrap_or_else(|| {
            names.push(name.name.clone());
            names.len() - 1
        });
        let state = self.new_reg();
        self.set(state, Val::Const(MASK_NULL), name.span);
        self.allocated.insert(mask.base, Allocated { state, name: i64::try_from(at).unwrap_or(i64::MAX) });
        if let Some(scope) = self.scopes.last_mut() {
            scope.masks.push(mask);
        }
    }

    /// Reports something about a local mask that its function allocates, if the value is not 0.
    fn warn(&mut self, what: Warning, cond: Val, mask: Allocated, span: Span) {
        let args = [cond, Val::Const(what.number()), Val::Const(0), Val::Const(mask.name)];
        self.prim(Prim::Warn, args, None, span);
    }

    /// Reports the use of a local mask that is not there. It has no bits.
    pub(super) fn use_local(&mut self, mask: LocalMask, span: Span) {
        if let Some(kept) = self.allocated.get(&mask.base).copied() {
            let gone = self.bin(BinOp::Sub, Val::Reg(kept.state), Val::Const(MASK_LIVE), span);
            self.warn(Warning::MaskGone, gone, kept, span);
        }
    }

    /// What a write of the value to a local mask leaves: nothing where the mask is not there.
    fn kept(&mut self, mask: LocalMask, v: Val, span: Span) -> Val {
        let Some(kept) = self.allocated.get(&mask.base).copied() else { return v };
        let there = self.bin(BinOp::Eq, Val::Reg(kept.state), Val::Const(MASK_LIVE), span);
        self.bin(BinOp::Mul, v, there, span)
    }

    /// Sets what a local mask's words hold, whether or not it is there.
    fn fill_local(&mut self, mask: LocalMask, full: bool, span: Span) {
        for (word, reg) in (0..).zip(mask.regs()) {
            let bits = if full { self.p.machine.full_word(word) } else { 0 };
            self.set(reg, Val::Const(bits), span);
        }
    }

    /// Allocates a local mask, empty or with whatever it holds; gives whether there was memory.
    pub(super) fn allocate_local(&mut self, mask: LocalMask, junk: bool, gfp: Val, span: Span) -> Val {
        let kept = self.allocated.get(&mask.base).copied();
        if let Some(kept) = kept {
            let twice = self.bin(BinOp::Eq, Val::Reg(kept.state), Val::Const(MASK_LIVE), span);
            self.warn(Warning::MaskAllocatedTwice, twice, kept, span);
        }
        let got =
            self.prim(Prim::ZallocMask, [Val::Const(-1), Val::Const(0), gfp, Val::Const(0)], None, span);
        if let Some(kept) = kept {
            // Whether it was got is whether it is there.
            self.set(kept.state, got, span);
        }
        self.fill_local(mask, false, span);
        if junk {
            let (choose, full, after) = (self.new_block(), self.new_block(), self.new_block());
            self.branch(got, choose, after, choose, span);
            let is_full = self.option(2, span);
            self.branch(is_full, full, after, full, span);
            self.fill_local(mask, true, span);
            self.jump(after, after, span);
        }
        got
    }

    /// Frees a local mask, or asks whether it is there.
    pub(super) fn of_local(&mut self, prim: Prim, mask: LocalMask, span: Span) -> Val {
        // One that nobody allocates is there, and gone with its function.
        let Some(kept) = self.allocated.get(&mask.base).copied() else { return Val::Const(1) };
        let state = Val::Reg(kept.state);
        let not_null = self.bin(BinOp::Ne, state, Val::Const(MASK_NULL), span);
        if prim == Prim::FreeMask {
            let twice = self.bin(BinOp::Eq, state, Val::Const(MASK_FREED), span);
            self.warn(Warning::MaskFreedTwice, twice, kept, span);
            self.fill_local(mask, false, span);
            let freed = self.bin(BinOp::Mul, not_null, Val::Const(MASK_FREED), span);
            self.set(kept.state, freed, span);
        }
        not_null
    }

    /// The scope of a local mask ends: it leaks if it is there.
    pub(super) fn leak(&mut self, mask: LocalMask, span: Span) {
        if let Some(kept) = self.allocated.get(&mask.base).copied() {
            let there = self.bin(BinOp::Eq, Val::Reg(kept.state), Val::Const(MASK_LIVE), span);
            self.warn(Warning::MaskLeaked, there, kept, span);
        }
    }

    /// Reads a word; a shared one by a load.
    fn word(&mut self, mask: MaskRef, word: u8, span: Span) -> Val {
        match mask {
            MaskRef::Local(m) | MaskRef::Fixed(m) => {
                if word == 0 {
                    self.use_local(m, span);
                }
                Val::Reg(m.base + V::from(word))
            }
            MaskRef::Full => Val::Const(self.p.machine.full_word(word)),
            MaskRef::Shared(slot) => {
                let slot = self.word_slot(slot, word, span);
                let dst = self.new_word(word);
                self.push(Inst::Load { dst, slot }, span);
                Val::Reg(dst)
            }
        }
    }

    /// Writes a word; a shared one by a store.
    fn put_word(&mut self, mask: MaskRef, word: u8, v: Val, span: Span) {
        match mask {
            MaskRef::Local(m) => {
                if word == 0 {
                    self.use_local(m, span);
                }
                let v = self.kept(m, v, span);
                self.set(m.base + V::from(word), v, span);
            }
            MaskRef::Shared(slot) => {
                let slot = self.word_slot(slot, word, span);
                self.push(Inst::Store { slot, src: v }, span);
            }
            MaskRef::Fixed(_) | MaskRef::Full => {}
        }
    }

    /// The word of a pCPU's bit, and the bit's number in it.
    fn bit_place(&mut self, slot: Slot, cpu: Val, span: Span) -> (Slot, Val) {
        if self.words() == 1 {
            return (slot, cpu);
        }
        let bits = Val::Const(self.p.machine.word_bits);
        let word = self.bin(BinOp::Div, cpu, bits, span);
        let bit = self.bin(BinOp::Rem, cpu, bits, span);
        let word = self.bin(BinOp::Add, slot.word, word, span);
        (Slot { word, ..slot }, bit)
    }

    /// `word >> bit & 1`.
    fn bit_of(&mut self, word: Val, bit: Val, span: Span) -> Val {
        let shifted = self.bin(BinOp::Shr, word, bit, span);
        self.bin(BinOp::And, shifted, Val::Const(1), span)
    }

    /// A register for a word of any place of a mask.
    fn any_word(&mut self) -> V {
        self.new_word(0)
    }

    /// Reports a number that is no pCPU's, where it may be one: what `cpumask_check()` warns of.
    fn check_cpu(&mut self, cpu: Val, span: Span) {
        let below = self.bin(BinOp::Lt, cpu, Val::Const(0), span);
        let above = self.bin(BinOp::Ge, cpu, Val::Const(self.p.machine.pcpus), span);
        let wrong = self.bin(BinOp::Or, below, above, span);
        let args = [wrong, Val::Const(Warning::NoCpu.number()), Val::Const(0), Val::Const(0)];
        self.prim(Prim::Warn, args, None, span);
    }

    pub(super) fn mask_test(&mut self, mask: MaskRef, cpu: Val, span: Span) -> Val {
        self.check_cpu(cpu, span);
        match mask {
            MaskRef::Local(m) | MaskRef::Fixed(m) => {
                self.use_local(m, span);
                self.calc(Calc::MaskTest(m, cpu), span)
            }
            MaskRef::Full => Val::Const(1),
            MaskRef::Shared(slot) => {
                let (slot, bit) = self.bit_place(slot, cpu, span);
                let dst = self.any_word();
                self.push(Inst::Load { dst, slot }, span);
                self.bit_of(Val::Reg(dst), bit, span)
            }
        }
    }

    /// Sets or clears a bit, atomically or by a load and a store; gives what it was if that is asked for.
    pub(super) fn mask_bit(
        &mut self,
        mask: MaskRef,
        cpu: Val,
        bit: Bit,
        atomic: bool,
        old: bool,
        span: Span,
    ) -> Val {
        self.check_cpu(cpu, span);
        let slot = match mask {
            MaskRef::Fixed(_) | MaskRef::Full => return Val::Const(1),
            MaskRef::Local(m) => {
                self.use_local(m, span);
                let was = if old { self.calc(Calc::MaskTest(m, cpu), span) } else { Val::Const(0) };
                let on = self.kept(m, Val::Const(i64::from(bit == Bit::Set)), span);
                self.push(Inst::MaskPut { mask: m, bit: cpu, on }, span);
                return was;
            }
            MaskRef::Shared(slot) => slot,
        };
        let (slot, nr) = self.bit_place(slot, cpu, span);
        let src = self.bin(BinOp::Shl, Val::Const(1), nr, span);
        let dst = self.any_word();
        if atomic {
            let op = if bit == Bit::Set { RmwOp::Or } else { RmwOp::AndNot };
            self.push(Inst::Rmw { dst, slot, op, src, expected: Val::Const(0) }, span);
        } else {
            let slot = self.keep_slot(slot, span);
            self.push(Inst::Load { dst, slot }, span);
            let new = if bit == Bit::Set {
                self.bin(BinOp::Or, Val::Reg(dst), src, span)
            } else {
                let others = self.un(UnOp::Not, src, span);
                self.bin(BinOp::And, Val::Reg(dst), others, span)
            };
            self.push(Inst::Store { slot, src: new }, span);
        }
        if old { self.bit_of(Val::Reg(dst), nr, span) } else { Val::Const(0) }
    }

    pub(super) fn mask_copy(&mut self, to: MaskRef, from: MaskRef, span: Span) {
        for w in 0..self.words() {
            let v = self.word(from, w, span);
            self.put_word(to, w, v, span);
        }
    }

    pub(super) fn mask_fill(&mut self, to: MaskRef, full: bool, span: Span) {
        for w in 0..self.words() {
            let v = Val::Const(if full { self.p.machine.full_word(w) } else { 0 });
            self.put_word(to, w, v, span);
        }
    }

    /// `to = a op b`; gives whether a bit is set in it.
    pub(super) fn mask_combine(
        &mut self,
        op: Combine,
        to: MaskRef,
        a: MaskRef,
        b: MaskRef,
        span: Span,
    ) -> Val {
        let mut any = Val::Const(0);
        for w in 0..self.words() {
            let x = self.word(a, w, span);
            let y = self.word(b, w, span);
            let y = if op == Combine::AndNot { self.un(UnOp::Not, y, span) } else { y };
            let op = if op == Combine::Or { BinOp::Or } else { BinOp::And };
            let v = self.bin(op, x, y, span);
            let v = self.keep_word(v, w, span);
            any = self.bin(BinOp::Or, any, v, span);
            self.put_word(to, w, v, span);
        }
        self.bin(BinOp::Ne, any, Val::Const(0), span)
    }

    /// A computed word, in a register that is known to hold one.
    fn keep_word(&mut self, v: Val, word: u8, span: Span) -> Val {
        match v {
            Val::Const(_) => v,
            Val::Reg(_) => {
                let dst = self.new_word(word);
                self.set(dst, v, span);
                Val::Reg(dst)
            }
        }
    }

    /// Compares word by word; stops at the first word that decides.
    pub(super) fn mask_compare(&mut self, how: Compare, a: MaskRef, b: MaskRef, span: Span) -> Val {
        let result = self.new_reg();
        let decided = Val::Const(i64::from(how == Compare::Intersects));
        let (early, after) = (self.new_block(), self.new_block());
        for w in 0..self.words() {
            let x = self.word(a, w, span);
            let y = self.word(b, w, span);
            let differs = match how {
                Compare::Equal => self.bin(BinOp::Ne, x, y, span),
                Compare::Intersects => self.bin(BinOp::And, x, y, span),
                Compare::Subset => {
                    let y = self.un(UnOp::Not, y, span);
                    self.bin(BinOp::And, x, y, span)
                }
            };
            let next = self.new_block();
            self.branch(differs, early, next, next, span);
        }
        self.set(result, Val::Const(i64::from(how != Compare::Intersects)), span);
        self.jump(after, early, span);
        self.set(result, decided, span);
        self.jump(after, after, span);
        Val::Reg(result)
    }

    pub(super) fn mask_empty(&mut self, mask: MaskRef, span: Span) -> Val {
        match mask {
            MaskRef::Full => Val::Const(0),
            MaskRef::Local(m) | MaskRef::Fixed(m) => {
                self.use_local(m, span);
                let weight = self.calc(Calc::MaskWeight(m), span);
                self.un(UnOp::IsZero, weight, span)
            }
            MaskRef::Shared(_) => {
                let other = self.mask_compare(Compare::Intersects, mask, MaskRef::Full, span);
                self.un(UnOp::IsZero, other, span)
            }
        }
    }

    pub(super) fn mask_weight(&mut self, mask: MaskRef, span: Span) -> Val {
        match mask {
            MaskRef::Full => Val::Const(self.p.machine.pcpus),
            MaskRef::Local(m) | MaskRef::Fixed(m) => {
                self.use_local(m, span);
                self.calc(Calc::MaskWeight(m), span)
            }
            MaskRef::Shared(_) => {
                let mut sum = Val::Const(0);
                for w in 0..self.words() {
                    let word = self.word(mask, w, span);
                    let weight = self.un(UnOp::Weight, word, span);
                    sum = self.bin(BinOp::Add, sum, weight, span);
                }
                sum
            }
        }
    }

    /// The lowest bit set that is at least `from`, the number of pCPUs if none. `from` is from 0 to that number.
    pub(super) fn next_from(&mut self, mask: MaskRef, from: Val, span: Span) -> Val {
        let pcpus = self.p.machine.pcpus;
        let known = |l: &mut Self, v| l.calc(Calc::Known { of: v, lo: 0, hi: pcpus }, span);
        match mask {
            MaskRef::Local(m) | MaskRef::Fixed(m) => {
                self.use_local(m, span);
                let after = self.bin(BinOp::Sub, from, Val::Const(1), span);
                let found = self.calc(Calc::MaskNext(m, after), span);
                known(self, found)
            }
            MaskRef::Full => from,
            MaskRef::Shared(slot) => {
                let result = self.new_reg();
                let (test, found, none, after) =
                    (self.new_block(), self.new_block(), self.new_block(), self.new_block());
                let word_bits = Val::Const(self.p.machine.word_bits);
                let (word, bit) = (self.new_reg(), self.new_reg());
                let last = i64::from(self.words());
                let start = self.bin(BinOp::Div, from, word_bits, span);
                let first = self.bin(BinOp::Rem, from, word_bits, span);
                self.set(word, start, span);
                self.set(bit, first, span);
                let inside = self.bin(BinOp::Lt, from, Val::Const(pcpus), span);
                self.branch(inside, test, none, test, span);
                // The word at hand, without the bits below `bit`.
                let read = self.any_word();
                let one = self.words() == 1;
                let at = if one { Val::Const(0) } else { Val::Reg(word) };
                let at = self.bin(BinOp::Add, slot.word, at, span);
                self.push(Inst::Load { dst: read, slot: Slot { word: at, ..slot } }, span);
                let down = self.bin(BinOp::Shr, Val::Reg(read), Val::Reg(bit), span);
                let left = self.bin(BinOp::Shl, down, Val::Reg(bit), span);
                let further = if one { none } else { self.new_block() };
                self.branch(left, found, further, further, span);
                if !one {
                    self.set(bit, Val::Const(0), span);
                    let next = self.bin(BinOp::Add, Val::Reg(word), Val::Const(1), span);
                    self.push(Inst::Set { dst: word, calc: Calc::Known { of: next, lo: 0, hi: last } }, span);
                    let more = self.bin(BinOp::Lt, Val::Reg(word), Val::Const(last), span);
                    self.branch(more, test, none, none, span);
                }
                self.set(result, Val::Const(pcpus), span);
                self.jump(after, found, span);
                let base =
                    if one { Val::Const(0) } else { self.bin(BinOp::Mul, Val::Reg(word), word_bits, span) };
                let lowest = self.un(UnOp::LowestBit, left, span);
                let cpu = self.bin(BinOp::Add, base, lowest, span);
                let cpu = known(self, cpu);
                self.set(result, cpu, span);
                self.jump(after, after, span);
                Val::Reg(result)
            }
        }
    }

    /// As [`Lower::next_from`], of the bits of one mask that are, or are not, in another: both are read up to the
    /// word that has one.
    pub(super) fn next_of(
        &mut self,
        filter: Filter,
        mask: MaskRef,
        other: MaskRef,
        from: Val,
        span: Span,
    ) -> Val {
        let (pcpus, bits) = (self.p.machine.pcpus, self.p.machine.word_bits);
        let (result, after) = (self.new_reg(), self.new_block());
        for w in 0..self.words() {
            let start = i64::from(w) * bits;
            let (look, hit, next) = (self.new_block(), self.new_block(), self.new_block());
            let here = self.bin(BinOp::Lt, from, Val::Const((start + bits).min(pcpus)), span);
            self.branch(here, look, next, look, span);
            let x = self.word(mask, w, span);
            let y = self.word(other, w, span);
            let y = if filter == Filter::AndNot { self.un(UnOp::Not, y, span) } else { y };
            let both = self.bin(BinOp::And, x, y, span);
            // Without the bits below `from`, if it is in this word.
            let above = self.bin(BinOp::Sub, from, Val::Const(start), span);
            let inside = self.bin(BinOp::Ge, above, Val::Const(0), span);
            let skip = self.bin(BinOp::Mul, above, inside, span);
            let down = self.bin(BinOp::Shr, both, skip, span);
            let left = self.bin(BinOp::Shl, down, skip, span);
            self.branch(left, hit, next, hit, span);
            let lowest = self.un(UnOp::LowestBit, left, span);
            let cpu = self.bin(BinOp::Add, lowest, Val::Const(start), span);
            let cpu = self.calc(Calc::Known { of: cpu, lo: 0, hi: pcpus }, span);
            self.set(result, cpu, span);
            self.jump(after, next, span);
        }
        self.set(result, Val::Const(pcpus), span);
        self.jump(after, after, span);
        Val::Reg(result)
    }

    /// A number of the text as [`Lower::next_from`] takes it.
    pub(super) fn clamp(&mut self, v: Val, span: Span) -> Val {
        let bound = self.p.machine.pcpus;
        if let Val::Const(n) = v {
            return Val::Const(n.clamp(0, bound));
        }
        let result = self.new_reg();
        let (low, other, high, inside, after) =
            (self.new_block(), self.new_block(), self.new_block(), self.new_block(), self.new_block());
        let below = self.bin(BinOp::Lt, v, Val::Const(0), span);
        self.branch(below, low, other, low, span);
        self.set(result, Val::Const(0), span);
        self.jump(after, other, span);
        let above = self.bin(BinOp::Gt, v, Val::Const(bound), span);
        self.branch(above, high, inside, high, span);
        self.set(result, Val::Const(bound), span);
        self.jump(after, inside, span);
        self.push(Inst::Set { dst: result, calc: Calc::Known { of: v, lo: 0, hi: bound } }, span);
        self.jump(after, after, span);
        Val::Reg(result)
    }

    /// `local = shared`, `shared = new`, each word by one exchange.
    pub(super) fn mask_xchg(
        &mut self,
        local: LocalMask,
        shared: MaskRef,
        new: Option<LocalMask>,
        span: Span,
    ) {
        for mask in new.iter().chain([&local]) {
            self.use_local(*mask, span);
        }
        if let MaskRef::Local(m) = shared {
            self.use_local(m, span);
        }
        for w in 0..self.words() {
            let src = new.map_or(Val::Const(0), |m| Val::Reg(m.base + V::from(w)));
            let dst = local.base + V::from(w);
            match shared {
                MaskRef::Shared(slot) => {
                    let slot = self.word_slot(slot, w, span);
                    self.push(Inst::Rmw { dst, slot, op: RmwOp::Xchg, src, expected: Val::Const(0) }, span);
                    let got = self.kept(local, Val::Reg(dst), span);
                    self.set(dst, got, span);
                }
                MaskRef::Local(m) => {
                    let old = self.keep(Val::Reg(m.base + V::from(w)), span);
                    let new = self.kept(m, src, span);
                    self.set(m.base + V::from(w), new, span);
                    let got = self.kept(local, old, span);
                    self.set(dst, got, span);
                }
                MaskRef::Fixed(_) | MaskRef::Full => {}
            }
        }
    }

    /// The pCPUs that share something with one, or only itself.
    pub(super) fn mask_of(&mut self, cpu: Val, shared: Option<Shared>, span: Span) -> MaskRef {
        let mask = self.new_mask();
        for (word, reg) in (0..).zip(mask.regs()) {
            let calc = shared.map_or(Calc::Use(Val::Const(0)), |shared| Calc::Siblings(shared, cpu, word));
            self.push(Inst::Set { dst: reg, calc }, span);
        }
        if shared.is_none() {
            self.check_cpu(cpu, span);
            self.push(Inst::MaskPut { mask, bit: cpu, on: Val::Const(1) }, span);
        }
        MaskRef::Fixed(mask)
    }
}
