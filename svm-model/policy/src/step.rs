//! The stepper: runs a context up to and including one access to shared state, and on to where it rests.

use sim_state::SlotId;

use crate::op::{BinOp, Expr, Lock, Op, Operand, Pc, Place, Prim, Reg, RmwOp, Shared, UnOp, Window};

/// Registers a context can have.
pub const REGS: usize = 64;

/// Own operations that one step may run before it is called a runaway loop.
const FUEL: u32 = 1 << 20;

/// A running program's own state.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The operation that comes next.
    pub pc: Pc,
    /// Registers.
    pub regs: [i64; REGS],
}

/// What a primitive answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done, with its result.
    Done(i64),
    /// Done, with its result, and it touched nothing that others can see or change: it costs no step.
    Own(i64),
    /// Something was done, and the context stays at this operation (a guest runs).
    Stay,
    /// Nothing was done; try again when the slot has changed.
    Blocked(SlotId),
}

/// What one call of [`step()`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The step was made; `at` is the operation that used it up, or that the context ended at.
    Ran {
        /// Where.
        at: Pc,
    },
    /// The access at `at` cannot be made before the slot changes; nothing was done.
    Blocked {
        /// Where.
        at: Pc,
        /// What must change.
        on: SlotId,
    },
    /// More than a million own operations without an access: the text may loop forever.
    Runaway {
        /// Where it was when it was stopped.
        at: Pc,
    },
}

/// What happened to a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockEvent {
    /// It was taken by a context that would have waited for it.
    Taken,
    /// It was given back by a context that does not hold it; nothing was done.
    NotHeld,
    /// It was asked for by a context that waits in vain, which goes on as if it had it.
    Vain,
}

/// What a program runs on: the simulated machine, or a real one.
pub trait Platform {
    /// The value of a shared variable. The kind of access is the operation's at hand.
    fn load(&mut self, place: Place, instance: i64, word: i64) -> i64;
    /// Writes a shared variable, wrapping the value into its domain.
    fn store(&mut self, place: Place, instance: i64, word: i64, value: i64);
    /// Second half of an indivisible access: writes `new` where `old` was loaded, unless something else is there by now;
    /// whether it did. Where nothing can come between the two halves, it always does.
    fn replace(&mut self, place: Place, instance: i64, word: i64, old: i64, new: i64) -> bool {
        let _ = old;
        self.store(place, instance, word, new);
        true
    }
    /// A plain load. Where stores are buffered, the pCPU's own unseen ones come first.
    fn load_plain(&mut self, place: Place, instance: i64, word: i64) -> i64 {
        self.load(place, instance, word)
    }
    /// A plain store, which others may see later; the slot to wait for if it cannot be made yet.
    fn store_plain(&mut self, place: Place, instance: i64, word: i64, value: i64) -> Option<SlotId> {
        self.store(place, instance, word, value);
        None
    }
    /// What a locked operation waits for: the pCPU's oldest store that others do not see. None where stores are seen
    /// at once.
    fn unseen(&self) -> Option<SlotId> {
        None
    }
    /// The slot that a blocked access waits for.
    fn slot(&self, place: Place, instance: i64, word: i64) -> SlotId;
    /// Who runs: what an exclusive lock's slot holds, from 1.
    fn holder(&self) -> i64;
    /// Whether this is a handler of an interrupt.
    fn in_handler(&self) -> bool {
        false
    }
    /// Something happened to a lock that may be against the rules.
    fn lock_event(&mut self, kind: Lock, event: LockEvent);
    /// Whether this context would wait for ever for what that holder has: it is the holder itself, or a handler
    /// over it.
    fn waits_in_vain(&self, holder: i64) -> bool;
    /// `smp_processor_id()`.
    fn this_cpu(&self) -> i64;
    /// The VM of a vCPU.
    fn vm_of(&self, vcpu: i64) -> i64;
    /// A word of the mask of the pCPUs that share something with a pCPU, itself included.
    fn siblings(&self, shared: Shared, cpu: i64, word: i64) -> i64;
    /// pCPUs in the machine.
    fn pcpus(&self) -> i64;
    /// Bits of a mask that share a word, 1 to 64.
    fn word_bits(&self) -> i64;
    /// The operation that comes next, before those that may be against the rules.
    fn reach(&mut self, pc: Pc) {
        let _ = pc;
    }
    /// Interrupts or preemption on or off on this context's pCPU.
    fn window(&mut self, window: Window);
    /// Whether interrupts or preemption are off that were on when the step began: whoever waits now, waits so, which
    /// is another state than waiting with them on.
    fn shut(&self) -> bool {
        false
    }
    /// Something may go `options` ways (at least 1): which?
    fn choose(&mut self, options: i64) -> i64;
    /// Carries a primitive out.
    fn primitive(&mut self, prim: Prim, args: [i64; 4], regs: &[i64; REGS]) -> Answer;
}

fn value(regs: &[i64; REGS], operand: Operand) -> i64 {
    match operand {
        Operand::Const(c) => c,
        Operand::Reg(r) => regs[usize::from(r)],
    }
}

fn bin(op: BinOp, a: i64, b: i64) -> i64 {
    match op {
        BinOp::Add => a.wrapping_add(b),
        BinOp::Sub => a.wrapping_sub(b),
        BinOp::Mul => a.wrapping_mul(b),
        BinOp::Div => a.checked_div(b).unwrap_or(0),
        BinOp::Rem => a.checked_rem(b).unwrap_or(0),
        BinOp::And => a & b,
        BinOp::Or => a | b,
        BinOp::Xor => a ^ b,
        BinOp::Shl => u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0),
        BinOp::Shr => {
            u32::try_from(b).ok().and_then(|b| a.cast_unsigned().checked_shr(b)).unwrap_or(0).cast_signed()
        }
        BinOp::Eq => i64::from(a == b),
        BinOp::Ne => i64::from(a != b),
        BinOp::Lt => i64::from(a < b),
        BinOp::Le => i64::from(a <= b),
        BinOp::Gt => i64::from(a > b),
        BinOp::Ge => i64::from(a >= b),
    }
}

fn un(op: UnOp, a: i64) -> i64 {
    match op {
        UnOp::Neg => a.wrapping_neg(),
        UnOp::Not => !a,
        UnOp::IsZero => i64::from(a == 0),
        UnOp::Weight => i64::from(a.count_ones()),
        UnOp::LowestBit => i64::from(a.trailing_zeros()),
    }
}

/// Register and bit of a pCPU in a local mask.
fn mask_place(base: Reg, bit: i64, word_bits: i64) -> (usize, i64) {
    let word = usize::try_from(bit / word_bits).unwrap_or(0);
    (usize::from(base) + word, 1i64.wrapping_shl(u32::try_from(bit % word_bits).unwrap_or(0)))
}

fn mask_test(regs: &[i64; REGS], base: Reg, words: u8, bit: i64, word_bits: i64) -> bool {
    if bit < 0 || bit >= i64::from(words) * word_bits {
        return false;
    }
    let (reg, bit) = mask_place(base, bit, word_bits);
    regs[reg] & bit != 0
}

/// The first pCPU of a local mask after `after` and before `end`; `end`, or what comes after `after` if that is beyond.
fn mask_next(regs: &[i64; REGS], base: Reg, words: u8, after: i64, end: i64, word_bits: i64) -> i64 {
    let first = after.saturating_add(1);
    let used = u64::MAX >> (64 - word_bits.clamp(1, 64));
    let (mut word, mut from) = (first.max(0) / word_bits, first.max(0) % word_bits);
    while word < i64::from(words) {
        let (reg, _) = mask_place(base, word * word_bits, word_bits);
        let left = regs[reg].cast_unsigned() & used & (u64::MAX << from);
        if left != 0 {
            return (word * word_bits + i64::from(left.trailing_zeros())).min(end.max(first));
        }
        (word, from) = (word + 1, 0);
    }
    end.max(first)
}

fn mask_weight(regs: &[i64; REGS], base: Reg, words: u8) -> i64 {
    (0..words).map(|w| i64::from(regs[usize::from(base + w)].count_ones())).sum()
}

fn eval<P: Platform>(platform: &P, regs: &[i64; REGS], rhs: Expr) -> i64 {
    match rhs {
        Expr::Use(a) => value(regs, a),
        Expr::Un(op, a) => un(op, value(regs, a)),
        Expr::Bin(op, a, b) => bin(op, value(regs, a), value(regs, b)),
        Expr::ThisCpu => platform.this_cpu(),
        Expr::VmOf(v) => platform.vm_of(value(regs, v)),
        Expr::Siblings { shared, cpu, word } => platform.siblings(shared, value(regs, cpu), i64::from(word)),
        Expr::MaskTest { base, words, bit } => {
            i64::from(mask_test(regs, base, words, value(regs, bit), platform.word_bits()))
        }
        Expr::MaskNext { base, words, after } => {
            mask_next(regs, base, words, value(regs, after), platform.pcpus(), platform.word_bits())
        }
        Expr::MaskWeight { base, words } => mask_weight(regs, base, words),
    }
}

/// Whether a lock can be taken, and what its slot then holds. That of a lock for readers and writers is -`me` while a writer has
/// it, else twice the number of its readers, and one more once a writer waits for these: then no further reader gets it, but a
/// handler of an interrupt, which overtakes (`queued_read_lock_slowpath()`, `rwsem_down_read_slowpath()`).
fn take(kind: Lock, held: i64, me: i64, overtakes: bool) -> Option<i64> {
    match kind {
        Lock::Mutex | Lock::Spin => (held == 0).then_some(me),
        Lock::Read | Lock::DownRead => (held >= 0 && (held % 2 == 0 || overtakes)).then_some(held + 2),
        Lock::Write | Lock::DownWrite | Lock::Downgrade => (held == 0).then_some(-me),
        Lock::Completion | Lock::CompleteAll => match held {
            0 => None,
            1.. => Some(held - 1),
            _ => Some(held),
        },
    }
}

/// What a lock's slot holds once a writer waits for its readers, if that is news.
fn queue(kind: Lock, held: i64) -> Option<i64> {
    (matches!(kind, Lock::Write | Lock::DownWrite) && held > 0 && held % 2 == 0).then_some(held + 1)
}

/// Who has a lock that cannot be taken; 0 if that is not known.
fn holder(kind: Lock, held: i64) -> i64 {
    match kind {
        Lock::Mutex | Lock::Spin => held,
        Lock::Read | Lock::DownRead | Lock::Write | Lock::DownWrite | Lock::Downgrade => (-held).max(0),
        Lock::Completion | Lock::CompleteAll => 0,
    }
}

/// What a lock's slot holds after one hold is given back; `None` if it was not held so.
fn give(kind: Lock, held: i64, me: i64) -> Option<i64> {
    match kind {
        Lock::Mutex | Lock::Spin => (held == me).then_some(0),
        // Once no reader is left, whoever comes first may have it.
        Lock::Read | Lock::DownRead => (held > 0).then(|| if held < 4 { 0 } else { held - 2 }),
        Lock::Write | Lock::DownWrite => (held == -me).then_some(0),
        Lock::Downgrade => (held == -me).then_some(2),
        Lock::Completion => Some(if held < 0 { held } else { held + 1 }),
        Lock::CompleteAll => Some(-1),
    }
}

/// Carries out an access to shared state; `Some` if it must wait.
fn shared<P: Platform>(op: Op, regs: &mut [i64; REGS], platform: &mut P) -> Answer {
    match op {
        Op::Load { dst, place } => {
            let (i, w) = (value(regs, place.instance), value(regs, place.word));
            regs[usize::from(dst)] = platform.load_plain(place, i, w);
        }
        Op::Store { place, src } => {
            let (i, w) = (value(regs, place.instance), value(regs, place.word));
            if let Some(on) = platform.store_plain(place, i, w, value(regs, src)) {
                return Answer::Blocked(on);
            }
        }
        Op::Rmw { dst, place, op, src, expected } => {
            let (i, w, s) = (value(regs, place.instance), value(regs, place.word), value(regs, src));
            if let Some(on) = platform.unseen() {
                // These look first, and are no locked operations if they do not get it.
                let old = platform.load_plain(place, i, w);
                let refused = match op {
                    RmwOp::TryLock(kind) => {
                        take(kind, old, platform.holder(), platform.in_handler()).is_none()
                    }
                    RmwOp::AddUnless => old == value(regs, expected),
                    RmwOp::Or | RmwOp::AndNot | RmwOp::And | RmwOp::Add | RmwOp::Xchg | RmwOp::CmpXchg => {
                        false
                    }
                };
                if !refused {
                    return Answer::Blocked(on);
                }
                regs[usize::from(dst)] = old;
                return Answer::Done(0);
            }
            regs[usize::from(dst)] = loop {
                let old = platform.load(place, i, w);
                let new = match op {
                    RmwOp::Or => old | s,
                    RmwOp::AndNot => old & !s,
                    RmwOp::And => old & s,
                    RmwOp::Add => old.wrapping_add(s),
                    RmwOp::Xchg => s,
                    RmwOp::CmpXchg => {
                        if old == value(regs, expected) {
                            s
                        } else {
                            old
                        }
                    }
                    RmwOp::AddUnless if old == value(regs, expected) => old,
                    RmwOp::AddUnless => old.wrapping_add(s),
                    RmwOp::TryLock(kind) => {
                        take(kind, old, platform.holder(), platform.in_handler()).unwrap_or(old)
                    }
                };
                if platform.replace(place, i, w, old, new) {
                    break old;
                }
            };
        }
        Op::Lock { kind, place } => {
            if let Some(on) = platform.unseen() {
                return Answer::Blocked(on);
            }
            let (i, w) = (value(regs, place.instance), value(regs, place.word));
            loop {
                let held = platform.load(place, i, w);
                match take(kind, held, platform.holder(), platform.in_handler()) {
                    Some(new) => {
                        if platform.replace(place, i, w, held, new) {
                            platform.lock_event(kind, LockEvent::Taken);
                            break;
                        }
                    }
                    None if platform.waits_in_vain(holder(kind, held)) => {
                        platform.lock_event(kind, LockEvent::Vain);
                        break;
                    }
                    None => match queue(kind, held) {
                        Some(new) => {
                            if platform.replace(place, i, w, held, new) {
                                return Answer::Stay;
                            }
                        }
                        None => return Answer::Blocked(platform.slot(place, i, w)),
                    },
                }
            }
        }
        Op::Unlock { kind, place } => {
            let (i, w) = (value(regs, place.instance), value(regs, place.word));
            if kind.given_plainly() {
                let held = platform.load_plain(place, i, w);
                return match give(kind, held, platform.holder()) {
                    Some(new) => match platform.store_plain(place, i, w, new) {
                        Some(on) => Answer::Blocked(on),
                        None => Answer::Done(0),
                    },
                    None => {
                        platform.lock_event(kind, LockEvent::NotHeld);
                        Answer::Done(0)
                    }
                };
            }
            if let Some(on) = platform.unseen() {
                return Answer::Blocked(on);
            }
            loop {
                let held = platform.load(place, i, w);
                match give(kind, held, platform.holder()) {
                    Some(new) => {
                        if platform.replace(place, i, w, held, new) {
                            break;
                        }
                    }
                    None => {
                        platform.lock_event(kind, LockEvent::NotHeld);
                        break;
                    }
                }
            }
        }
        Op::Prim { prim, dst, args } => {
            let args = args.map(|a| value(regs, a));
            let answer = platform.primitive(prim, args, regs);
            if let Answer::Done(result) | Answer::Own(result) = answer {
                regs[usize::from(dst)] = result;
            }
            return answer;
        }
        Op::Set { .. }
        | Op::MaskPut { .. }
        | Op::Jump(_)
        | Op::Branch { .. }
        | Op::Window(_)
        | Op::Choose { .. }
        | Op::ChooseBit { .. }
        | Op::Halt => {}
    }
    Answer::Done(0)
}

/// Makes one step of a context.
///
/// Runs own operations, one access to shared state, and own operations again until the context rests. If the
/// access must wait, nothing has happened and the context is as before; but if interrupts or preemption were turned off
/// on the way to it, that is the step, and the context waits at the access.
pub fn step<P: Platform>(ops: &[Op], context: &mut Context, platform: &mut P) -> Outcome {
    run(ops, context, platform, None)
}

/// Runs own operations only, until the context rests: what follows an access that the platform made itself
/// (an interrupt taken, a task scheduled in).
pub fn settle<P: Platform>(ops: &[Op], context: &mut Context, platform: &mut P) -> Outcome {
    run(ops, context, platform, Some(context.pc))
}

fn run<P: Platform>(ops: &[Op], context: &mut Context, platform: &mut P, mut spent: Option<Pc>) -> Outcome {
    let mut chosen: Option<Pc> = None;
    let mut closed: Option<Pc> = None;
    for _ in 0..FUEL {
        let at = context.pc;
        let op = ops[usize::from(at)];
        if let Some(done) = spent
            && op.is_rest()
        {
            return Outcome::Ran { at: done };
        }
        if let Op::Choose { .. } | Op::ChooseBit { .. } = op {
            // Round a loop with nothing but choices in it: a step of its own, else one step has as many outcomes as there are
            // ways to go round.
            if let Some(last) = chosen.filter(|last| at <= *last) {
                return Outcome::Ran { at: last };
            }
            chosen = Some(at);
        }
        let regs = &mut context.regs;
        context.pc = at + 1;
        match op {
            Op::Halt => {
                context.pc = at;
                return Outcome::Ran { at: spent.unwrap_or(at) };
            }
            Op::Set { dst, rhs } => regs[usize::from(dst)] = eval(platform, regs, rhs),
            Op::MaskPut { base, words, bit, on } => {
                let (bit, on) = (value(regs, bit), value(regs, on));
                if bit >= 0 && bit < i64::from(words) * platform.word_bits() {
                    let (reg, bit) = mask_place(base, bit, platform.word_bits());
                    regs[reg] = if on == 0 { regs[reg] & !bit } else { regs[reg] | bit };
                }
            }
            Op::Jump(pc) => context.pc = pc,
            Op::Branch { cond, then, otherwise } => {
                context.pc = if value(regs, cond) == 0 { otherwise } else { then };
            }
            Op::Window(window) => {
                closed = if window.closes() { Some(at) } else { closed };
                platform.reach(at);
                platform.window(window);
            }
            Op::Choose { dst, options } => regs[usize::from(dst)] = platform.choose(i64::from(options)),
            Op::ChooseBit { dst, base, words } => {
                let mut nth = platform.choose(mask_weight(regs, base, words).max(1));
                let mut bit = -1;
                loop {
                    bit = eval(platform, regs, Expr::MaskNext { base, words, after: Operand::Const(bit) });
                    if nth == 0 || bit >= platform.pcpus() {
                        break;
                    }
                    nth -= 1;
                }
                regs[usize::from(dst)] = bit;
            }
            Op::Load { .. }
            | Op::Store { .. }
            | Op::Rmw { .. }
            | Op::Lock { .. }
            | Op::Unlock { .. }
            | Op::Prim { .. } => {
                platform.reach(at);
                match shared(op, regs, platform) {
                    Answer::Done(_) => {
                        if op.is_shared() {
                            spent = Some(at);
                        }
                    }
                    Answer::Own(_) => {}
                    Answer::Stay => {
                        context.pc = at;
                        return Outcome::Ran { at };
                    }
                    Answer::Blocked(on) => {
                        context.pc = at;
                        return match closed.filter(|_| platform.shut()) {
                            Some(closed) => Outcome::Ran { at: closed },
                            None => Outcome::Blocked { at, on },
                        };
                    }
                }
            }
        }
    }
    Outcome::Runaway { at: context.pc }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel's cpumask_next() says it: bit by bit.
    fn next(regs: &[i64; REGS], words: u8, after: i64, end: i64, word_bits: i64) -> i64 {
        let mut bit = after + 1;
        while bit < end && !mask_test(regs, 2, words, bit, word_bits) {
            bit += 1;
        }
        bit
    }

    #[test]
    fn the_next_pcpu_of_a_mask_is_what_a_walk_over_its_bits_finds() {
        let mut regs = [0; REGS];
        let mut random = 1_u64;
        for word_bits in [1, 3, 64] {
            for words in [1, 2, 3] {
                for fill in 0..40 {
                    for reg in &mut regs {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        // From full to nearly empty, with bits above the used ones.
                        *reg =
                            (0..fill / 8).fold(-1, |word, n| word & random.rotate_left(13 * n).cast_signed());
                    }
                    let bits = i64::from(words) * word_bits;
                    for end in [bits - word_bits, bits - 1, bits, bits + 2] {
                        for after in -1..bits + 4 {
                            assert_eq!(
                                mask_next(&regs, 2, words, after, end, word_bits),
                                next(&regs, words, after, end, word_bits),
                                "after {after} of {end} by {word_bits}, {words} words"
                            );
                        }
                    }
                }
            }
        }
    }
}
