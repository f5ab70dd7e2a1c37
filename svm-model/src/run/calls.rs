//! Calls between pCPUs: the IPI, the handler, the wait.

use sim_core::choice::Chooser;
use sim_core::state::{SlotId, Store};
use svm_policy::{Answer, REGS};

use super::{Runner, Stepped, Who};
use crate::context::ContextSlots;
use crate::label::{Broken, What};
use crate::memory::Memory;

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    pub(super) fn call_slot(&self, sender: usize, pcpu: usize) -> (SlotId, SlotId) {
        let at = sender * self.machine.pcpus.len() + pcpu;
        (self.machine.calls[at], self.machine.infos[at])
    }

    pub(super) fn irq_step(&mut self, p: usize) -> Stepped {
        let machine = self.machine;
        let here = &machine.pcpus[p];
        self.pcpu = i64::try_from(p).unwrap_or(-1);
        self.who = Who::Handler;
        let handling = self.store.get(here.handling);
        if handling == 0 {
            if self.store.get(here.pending) == 0 {
                return Stepped::Blocked(here.pending);
            }
            if self.store.get(here.irq_off) != 0 {
                return Stepped::Blocked(here.irq_off);
            }
            if let Some(on) = self.unseen_here() {
                return Stepped::Blocked(on);
            }
            let senders: Vec<usize> =
                (0..machine.tasks.len()).filter(|s| self.store.get(self.call_slot(*s, p).0) != 0).collect();
            if senders.is_empty() {
                return Stepped::Blocked(here.pending);
            }
            let sender = senders[self.ask(senders.len())];
            self.task = sender;
            let (call, info) = self.call_slot(sender, p);
            let code = self.store.get(call);
            let callback = usize::try_from((code - 1) / 2).unwrap_or(0);
            let waited = (code - 1) % 2 == 1;
            let argument = self.store.get(info);
            let pending = self.store.get(here.pending);
            self.store.set(here.pending, pending - 1);
            let handling = 1 + 2 * i64::try_from(sender).unwrap_or(0) + i64::from(waited);
            self.store.set(here.handling, handling);
            if !waited {
                self.store.set(call, 0);
                self.store.set(info, 0);
            }
            self.notes.what = Some(What::Take {
                sender: u16::try_from(sender).unwrap_or(0),
                callback: u16::try_from(callback).unwrap_or(0),
            });
            let entry = &machine.code.entries[usize::from(machine.code.callbacks[callback])];
            let mut context = ContextSlots::start(entry, &[argument]);
            let done = self.advance(&here.handler, &mut context, true);
            self.finish_handler(p);
            return done;
        }
        self.task = usize::try_from((handling - 1) / 2).unwrap_or(0);
        let mut context = ContextSlots::blank();
        if !here.handler.load(self.store, &mut context) {
            return Stepped::Idle;
        }
        let done = self.advance(&here.handler, &mut context, false);
        if done == Stepped::Done {
            self.finish_handler(p);
        }
        done
    }

    /// If the handler has returned, its pCPU goes on, and a sender that waits is told.
    pub(super) fn finish_handler(&mut self, p: usize) {
        let here = &self.machine.pcpus[p];
        if here.handler.idle(self.store) && self.unseen_here().is_none() {
            let code = self.store.get(here.handling) - 1;
            self.store.set(here.handling, 0);
            if code % 2 == 1 {
                let (call, info) = self.call_slot(usize::try_from(code / 2).unwrap_or(0), p);
                self.store.set(call, 0);
                self.store.set(info, 0);
            }
        }
    }

    pub(super) fn send_call(&mut self, args: [i64; 4]) -> Answer {
        let [cpu, callback, info, wait] = args;
        let Some(p) = usize::try_from(cpu).ok().filter(|p| *p < self.machine.pcpus.len()) else {
            self.broke(Broken::NoPcpu);
            return Answer::Done(0);
        };
        let (call, info_slot) = self.call_slot(self.task, p);
        if self.store.get(call) != 0 {
            return Answer::Blocked(call);
        }
        self.twin_call(p, callback);
        self.store.set(call, 1 + 2 * callback + i64::from(wait != 0));
        self.store.set(info_slot, info);
        let pending = self.machine.pcpus[p].pending;
        self.store.set(pending, self.store.get(pending) + 1);
        Answer::Done(0)
    }

    pub(super) fn wait_calls(&self, base: i64, words: i64, regs: &[i64; REGS]) -> Answer {
        let bits = i64::from(self.machine.spec.assumptions.word_bits);
        for p in 0..self.machine.pcpus.len() {
            let cpu = i64::try_from(p).unwrap_or(0);
            let word = cpu / bits;
            let held = usize::try_from(base + word).ok().and_then(|r| regs.get(r)).copied().unwrap_or(0);
            if word < words && held >> (cpu % bits) & 1 == 1 {
                let call = self.call_slot(self.task, p).0;
                if self.store.get(call) != 0 {
                    return Answer::Blocked(call);
                }
            }
        }
        Answer::Done(0)
    }
}
