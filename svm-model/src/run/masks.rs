//! Masks that texts allocate: null, there, freed.

use sim_core::choice::Chooser;
use sim_core::state::Store;
use svm_lang::{MASK_FREED, MASK_LIVE, MASK_NULL};
use svm_policy::{Answer, Place, VarId};

use super::Runner;
use crate::label::Broken;
use crate::memory::Memory;

impl<S: Store, M: Memory<S>, C: Chooser> Runner<'_, S, M, C> {
    /// Reports the use of a mask that is null or freed; what is read of it is empty, what is written is lost.
    pub(super) fn mask_is_gone(&mut self, place: Place, instance: i64) -> bool {
        if self.object_is_gone(place.var, instance) {
            return true;
        }
        let Some(state) = self.machine.mask_state(place.var, instance) else { return false };
        match self.store.get(state) {
            MASK_LIVE => return false,
            MASK_FREED => self.broke(Broken::MaskFreed(state)),
            _ => self.broke(Broken::MaskNull(state)),
        }
        true
    }

    /// The slot of a mask's state; a mask that does not exist (of the null reference) is reported.
    fn state_of(&mut self, var: i64, instance: i64) -> Option<sim_core::state::SlotId> {
        let state = u16::try_from(var).ok().and_then(|var| self.machine.mask_state(VarId(var), instance));
        if state.is_none() {
            self.broke(Broken::NoSuch);
        }
        state
    }

    pub(super) fn zalloc_mask(&mut self, [var, instance, may_sleep, junk]: [i64; 4]) -> Answer {
        if may_sleep != 0 {
            self.may_sleep();
        }
        let fails = !self.machine.spec.assumptions.no_alloc_failure && self.ask(2) == 0;
        if var < 0 {
            return Answer::Done(i64::from(!fails));
        }
        let Some(state) = self.state_of(var, instance) else { return Answer::Done(0) };
        if self.store.get(state) == MASK_LIVE {
            self.broke(Broken::MaskAllocatedTwice(state));
        }
        self.store.set(state, if fails { MASK_NULL } else { MASK_LIVE });
        self.empty_mask(var, instance);
        if junk != 0 && !fails && self.ask(2) == 1 {
            self.fill_mask(var, instance);
        }
        Answer::Done(i64::from(!fails))
    }

    pub(super) fn free_mask(&mut self, var: i64, instance: i64) -> Answer {
        if let Some(state) = self.state_of(var, instance) {
            match self.store.get(state) {
                MASK_LIVE => {
                    self.store.set(state, MASK_FREED);
                    self.empty_mask(var, instance);
                }
                MASK_FREED => self.broke(Broken::MaskFreedTwice(state)),
                _ => {}
            }
        }
        Answer::Done(0)
    }

    pub(super) fn mask_available(&self, var: i64, instance: i64) -> Answer {
        let known = u16::try_from(var).ok().and_then(|var| self.machine.mask_state(VarId(var), instance));
        Answer::Done(i64::from(known.is_none_or(|state| self.store.get(state) != MASK_NULL)))
    }

    /// A mask that is not there has no bits: equal states are equal words.
    pub(super) fn empty_mask(&mut self, var: i64, instance: i64) {
        let Ok(var) = u16::try_from(var) else { return };
        let words = self.machine.vars[usize::from(var)].words;
        for word in 0..i64::from(words) {
            if let Some(slot) = self.machine.var_slot(VarId(var), instance, word) {
                self.store.set(slot, 0);
            }
        }
    }

    /// What is found in memory that nobody has cleared.
    fn fill_mask(&mut self, var: i64, instance: i64) {
        let Ok(var) = u16::try_from(var) else { return };
        let spec = &self.machine.spec;
        let described = &self.machine.code.vars[usize::from(var)];
        for word in 0..described.words {
            let full = svm_lang::Var { init: -1, ..described.clone() };
            let bits = full.init_of(word, spec.pcpus(), spec.assumptions.word_bits);
            if let Some(slot) = self.machine.var_slot(VarId(var), instance, i64::from(word)) {
                self.store.set(slot, bits);
            }
        }
    }
}
