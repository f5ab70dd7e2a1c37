//! The policy core's stepper on real memory: each slot is an atomic word, and contexts run on threads of their own.
//!
//! *Promise*: no `unsafe`, nothing simulated: there are no caches here. A write-back is told to the caller, who may
//! have it executed by the helper module; a call to another pCPU is either made at once by the caller's own thread
//! ([`Delivery::Inline`], to work out what a program asks for), or handed to the thread that stands for that pCPU.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sim_state::{Domain, SlotId, Store};
use svm_policy::{
    Answer, Context, Lock, LockEvent, Op, Outcome, Place, Platform, Prim, REGS, Shared, Window, step,
};

use crate::primitive::{Does, does};
use crate::program::{Entry, Program, Shape};

/// How a call reaches another pCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The caller runs the function in the pCPU's place, at once.
    Inline,
    /// The thread that stands for the pCPU runs it, when it next looks ([`Actor::serve`]).
    Threads,
}

/// A write-back that a program asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Flush {
    /// Where.
    pub pcpu: usize,
    /// Whether lines stay valid: WBNOINVD.
    pub keeps: bool,
}

/// What a program did that it must not do, or cannot do for real.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wrong {
    /// It used an object, a mask or an element that is not there.
    Tracking,
    /// It waits for what it has itself.
    Deadlock,
    /// It did what is not of a real host; [`crate::admit`] refuses such programs.
    NotReal,
    /// It never ends.
    Runaway,
}

/// A function that is to run on another pCPU.
#[derive(Clone, Copy, Debug)]
struct Call {
    callback: i64,
    info: i64,
}

/// Calls that were sent to a pCPU, each with what tells its sender that it is done.
#[derive(Debug, Default)]
struct Mailbox {
    any: AtomicBool,
    calls: Mutex<VecDeque<(Call, Arc<AtomicBool>)>>,
}

/// A store over atomics. Each access is sequentially consistent, as the texts have it.
#[derive(Clone, Copy, Debug)]
pub struct Atomics<'a>(pub &'a [AtomicI64]);

impl Store for Atomics<'_> {
    #[inline]
    fn get(&self, slot: SlotId) -> i64 {
        self.0[slot.0 as usize].load(Ordering::SeqCst)
    }

    #[inline]
    fn set(&mut self, slot: SlotId, value: i64) {
        self.0[slot.0 as usize].store(value, Ordering::SeqCst);
    }

    fn rmw(&mut self, slot: SlotId, f: &mut dyn FnMut(i64) -> i64) -> i64 {
        let word = &self.0[slot.0 as usize];
        let mut old = word.load(Ordering::SeqCst);
        loop {
            match word.compare_exchange_weak(old, f(old), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(old) => return old,
                Err(now) => old = now,
            }
        }
    }
}

/// A program's variables on a host, shared by all of its pCPUs.
#[derive(Debug)]
pub struct Host<'p> {
    program: &'p Program,
    shape: &'p Shape,
    delivery: Delivery,
    words: Vec<AtomicI64>,
    /// First slot of each variable, words of an instance, instances.
    places: Vec<(u32, i64, i64)>,
    boxes: Vec<Mailbox>,
}

impl<'p> Host<'p> {
    /// With every variable as it starts.
    #[must_use]
    pub fn new(program: &'p Program, shape: &'p Shape, delivery: Delivery) -> Host<'p> {
        let (mut words, mut places) = (Vec::new(), Vec::new());
        for var in &program.vars {
            let base = u32::try_from(words.len()).unwrap_or(u32::MAX);
            let instances = shape.instances(var.scope);
            for _ in 0..instances {
                words.extend(var.init.iter().map(|v| AtomicI64::new(*v)));
            }
            let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            places.push((base, number(var.init.len()), number(instances)));
        }
        let boxes = (0..shape.pcpus()).map(|_| Mailbox::default()).collect();
        Host { program, shape, delivery, words, places, boxes }
    }

    fn slot_of(&self, place: Place, instance: i64, word: i64) -> Option<SlotId> {
        let (base, words, instances) = *self.places.get(usize::from(place.var.0))?;
        let there = (0..words).contains(&word) && (0..instances).contains(&instance);
        there.then(|| SlotId(base + u32::try_from(instance * words + word).unwrap_or(0)))
    }

    /// The words of a variable, instance by instance; for tests and reports.
    #[must_use]
    pub fn words(&self, var: usize) -> Vec<i64> {
        let Some((base, words, instances)) = self.places.get(var).copied() else { return Vec::new() };
        let count = usize::try_from(words * instances).unwrap_or(0);
        (0..count).map(|n| self.words[base as usize + n].load(Ordering::SeqCst)).collect()
    }

    /// Somebody who runs programs on a pCPU. `name` tells contexts apart that may hold locks: no two at a time share one.
    #[must_use]
    pub fn actor(&self, pcpu: usize, name: u16) -> Actor<'_, 'p> {
        let name = i64::from(name) + 1;
        Actor {
            host: self,
            at: At { pcpu, name, handler: false, irq_off: false, preempt: 0 },
            sent: Vec::new(),
            flushes: Vec::new(),
            wrong: Vec::new(),
        }
    }
}

/// Where a context runs, and how.
#[derive(Clone, Copy, Debug)]
struct At {
    pcpu: usize,
    name: i64,
    handler: bool,
    irq_off: bool,
    preempt: u32,
}

/// A context that runs programs on one pCPU.
#[derive(Debug)]
pub struct Actor<'h, 'p> {
    host: &'h Host<'p>,
    at: At,
    sent: Vec<(usize, Arc<AtomicBool>)>,
    flushes: Vec<Flush>,
    wrong: Vec<Wrong>,
}

/// Contexts of handlers are told apart from those of tasks by this much.
const HANDLERS: i64 = 1 << 20;

impl Actor<'_, '_> {
    /// Runs a function to its end, serving calls to this pCPU meanwhile where interrupts are on.
    pub fn call(&mut self, entry: &Entry, args: &[i64]) {
        let mut context = Context { pc: entry.start, regs: [0; REGS] };
        for (reg, value) in entry.params.iter().zip(args) {
            context.regs[usize::from(*reg)] = *value;
        }
        let ops = &self.host.program.ops;
        loop {
            if !self.at.handler && !self.at.irq_off {
                self.serve();
            }
            match step(ops, &mut context, self) {
                Outcome::Ran { .. } if ops[usize::from(context.pc)] == Op::Halt => return,
                Outcome::Ran { .. } => {}
                Outcome::Blocked { .. } if self.host.delivery == Delivery::Inline => {
                    // Nobody else runs who could end the wait.
                    self.wrong.push(Wrong::Deadlock);
                    return;
                }
                Outcome::Blocked { .. } => std::thread::yield_now(),
                Outcome::Runaway { .. } => {
                    self.wrong.push(Wrong::Runaway);
                    return;
                }
            }
        }
    }

    /// Runs what other pCPUs have sent here.
    pub fn serve(&mut self) {
        let inbox = &self.host.boxes[self.at.pcpu];
        if !inbox.any.load(Ordering::Acquire) {
            return;
        }
        loop {
            let next = {
                let mut calls = inbox.calls.lock().unwrap_or_else(PoisonError::into_inner);
                let next = calls.pop_front();
                if next.is_none() {
                    inbox.any.store(false, Ordering::Release);
                }
                next
            };
            let Some((call, done)) = next else { return };
            self.handle(self.at.pcpu, call);
            done.store(true, Ordering::Release);
        }
    }

    /// Interrupts itself by the handler of a call, on this pCPU or in another's place.
    fn handle(&mut self, pcpu: usize, call: Call) {
        let Some(entry) = self.host.program.callback(call.callback) else {
            self.wrong.push(Wrong::NotReal);
            return;
        };
        let name = HANDLERS + i64::try_from(pcpu).unwrap_or(0);
        let handler = At { pcpu, name, handler: true, irq_off: false, preempt: 0 };
        let task = (std::mem::replace(&mut self.at, handler), std::mem::take(&mut self.sent));
        self.call(entry, &[call.info]);
        (self.at, self.sent) = task;
    }

    /// The write-backs asked for since this was last called, in order.
    pub fn take_flushes(&mut self) -> Vec<Flush> {
        std::mem::take(&mut self.flushes)
    }

    /// What went wrong since this was last called.
    pub fn take_wrong(&mut self) -> Vec<Wrong> {
        std::mem::take(&mut self.wrong)
    }

    fn send(&mut self, args: [i64; 4]) {
        let Some(target) = usize::try_from(args[0]).ok().filter(|p| *p < self.host.boxes.len()) else {
            self.wrong.push(Wrong::Tracking);
            return;
        };
        let call = Call { callback: args[1], info: args[2] };
        match self.host.delivery {
            Delivery::Inline => self.handle(target, call),
            Delivery::Threads => {
                let done = Arc::new(AtomicBool::new(false));
                if args[3] != 0 {
                    self.sent.push((target, Arc::clone(&done)));
                }
                let inbox = &self.host.boxes[target];
                let mut calls = inbox.calls.lock().unwrap_or_else(PoisonError::into_inner);
                calls.push_back((call, done));
                inbox.any.store(true, Ordering::Release);
            }
        }
    }

    /// A value cut to what the variable holds, as assignment does.
    fn cut(&self, place: Place, value: i64) -> i64 {
        match self.host.program.vars[usize::from(place.var.0)].domain {
            Domain::Mask { bits } if bits >= 64 => value,
            Domain::Mask { bits } => value & ((1 << bits) - 1),
            Domain::Range { lo, hi } if lo <= value && value <= hi => value,
            Domain::Range { lo, hi } => {
                let size = i128::from(hi) - i128::from(lo) + 1;
                let over = (i128::from(value) - i128::from(lo)).rem_euclid(size);
                i64::try_from(i128::from(lo) + over).unwrap_or(lo)
            }
        }
    }
}

impl Platform for Actor<'_, '_> {
    fn load(&mut self, place: Place, instance: i64, word: i64) -> i64 {
        match self.host.slot_of(place, instance, word) {
            Some(slot) => Atomics(&self.host.words).get(slot),
            None => {
                self.wrong.push(Wrong::Tracking);
                0
            }
        }
    }

    fn store(&mut self, place: Place, instance: i64, word: i64, value: i64) {
        match self.host.slot_of(place, instance, word) {
            Some(slot) => Atomics(&self.host.words).set(slot, self.cut(place, value)),
            None => self.wrong.push(Wrong::Tracking),
        }
    }

    fn replace(&mut self, place: Place, instance: i64, word: i64, old: i64, new: i64) -> bool {
        let Some(slot) = self.host.slot_of(place, instance, word) else {
            self.wrong.push(Wrong::Tracking);
            return true;
        };
        let word = &self.host.words[slot.0 as usize];
        word.compare_exchange(old, self.cut(place, new), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn slot(&self, place: Place, instance: i64, word: i64) -> SlotId {
        self.host.slot_of(place, instance, word).unwrap_or(SlotId(0))
    }

    fn holder(&self) -> i64 {
        self.at.name
    }

    fn lock_event(&mut self, _kind: Lock, event: LockEvent) {
        match event {
            LockEvent::Taken => {}
            LockEvent::NotHeld => self.wrong.push(Wrong::Tracking),
            LockEvent::Vain => self.wrong.push(Wrong::Deadlock),
        }
    }

    fn waits_in_vain(&self, holder: i64) -> bool {
        holder == self.at.name
    }

    fn this_cpu(&self) -> i64 {
        i64::try_from(self.at.pcpu).unwrap_or(-1)
    }

    fn vm_of(&self, vcpu: i64) -> i64 {
        let vm = usize::try_from(vcpu).ok().and_then(|v| self.host.shape.vcpu_vm.get(v));
        vm.map_or(-1, |vm| i64::from(*vm))
    }

    fn siblings(&self, shared: Shared, cpu: i64, word: i64) -> i64 {
        let groups = match shared {
            Shared::Core => &self.host.shape.core,
            Shared::Llc => &self.host.shape.llc,
        };
        let mine = usize::try_from(cpu).ok().and_then(|p| groups.get(p));
        let first = usize::try_from(word).unwrap_or(usize::MAX).saturating_mul(64);
        let here = groups.iter().skip(first).take(64).enumerate();
        here.filter(|(_, group)| Some(*group) == mine).fold(0, |mask, (bit, _)| mask | 1i64 << bit)
    }

    fn pcpus(&self) -> i64 {
        i64::try_from(self.host.shape.pcpus()).unwrap_or(0)
    }

    fn word_bits(&self) -> i64 {
        64
    }

    fn window(&mut self, window: Window) {
        match window {
            Window::IrqDisable => self.at.irq_off = true,
            Window::IrqEnable => self.at.irq_off = false,
            Window::PreemptDisable => self.at.preempt += 1,
            Window::PreemptEnable => self.at.preempt = self.at.preempt.saturating_sub(1),
        }
    }

    fn choose(&mut self, _options: i64) -> i64 {
        // Of the orders that the kernel may take, the ascending one.
        0
    }

    fn primitive(&mut self, prim: Prim, args: [i64; 4], regs: &[i64; REGS]) -> Answer {
        let flag = |b: bool| Answer::Own(i64::from(b));
        let Ok(does) = does(prim) else {
            self.wrong.push(Wrong::NotReal);
            return Answer::Done(0);
        };
        match does {
            Does::WriteBack => {
                self.flushes.push(Flush { pcpu: self.at.pcpu, keeps: args[0] == 1 });
                Answer::Own(0)
            }
            Does::Call => {
                self.send(args);
                Answer::Done(0)
            }
            Does::Wait => {
                let (first, words) = (usize::try_from(args[0]).unwrap_or(0), args[1]);
                let asked = |pcpu: usize| {
                    let word = pcpu / 64;
                    i64::try_from(word).is_ok_and(|w| w < words)
                        && regs.get(first + word).is_some_and(|w| w >> (pcpu % 64) & 1 == 1)
                };
                let pending =
                    |(pcpu, done): &(usize, Arc<AtomicBool>)| asked(*pcpu) && !done.load(Ordering::Acquire);
                if self.sent.iter().any(pending) {
                    return Answer::Blocked(SlotId(0));
                }
                self.sent.retain(|(pcpu, _)| !asked(*pcpu));
                Answer::Done(0)
            }
            Does::AllocMask => {
                self.empty_mask(args[0], args[1]);
                Answer::Done(1)
            }
            Does::MaskAvailable => Answer::Done(1),
            Does::Nothing => Answer::Done(0),
            Does::IrqsDisabled => flag(self.at.irq_off || self.at.handler),
            Does::InAtomic => flag(self.at.preempt > 0 || self.at.handler),
            Does::InInterrupt => flag(self.at.handler),
            Does::Note | Does::KernelsNote(_) => Answer::Own(0),
            Does::Fence => {
                std::sync::atomic::fence(Ordering::SeqCst);
                Answer::Own(0)
            }
            Does::Warn => {
                if args[0] != 0 {
                    self.wrong.push(Wrong::Tracking);
                }
                Answer::Own(0)
            }
        }
    }
}

impl Actor<'_, '_> {
    /// An allocated mask is an empty one; -1 is a mask of a function's own, which starts empty by itself.
    fn empty_mask(&self, var: i64, instance: i64) {
        let Some((base, words, instances)) =
            usize::try_from(var).ok().and_then(|v| self.host.places.get(v)).copied()
        else {
            return;
        };
        if (0..instances).contains(&instance) {
            for word in 0..words {
                let slot = base as usize + usize::try_from(instance * words + word).unwrap_or(0);
                self.host.words[slot].store(0, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests;
