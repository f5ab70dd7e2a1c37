//! The timed run's store: plain words that tell which awaited slots were written.

use sim_core::state::{SlotId, Store};

/// One word a slot, and who waits for it.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The values, by slot number.
    pub words: Vec<i64>,
    waiting: Vec<Vec<u32>>,
    waiters: usize,
    woken: Vec<(SlotId, u32)>,
}

impl Watched {
    /// A store with these first values.
    #[must_use]
    pub fn new(words: Vec<i64>) -> Watched {
        let waiting = vec![Vec::new(); words.len()];
        Watched { words, waiting, waiters: 0, woken: Vec::new() }
    }

    /// The agent waits until the slot is written.
    pub fn wait(&mut self, slot: SlotId, agent: u32) {
        let list = &mut self.waiting[slot.0 as usize];
        if !list.contains(&agent) {
            list.push(agent);
            self.waiters += 1;
        }
    }

    /// Takes the agents woken by writes since the last call, in the order of the writes.
    pub fn take_woken(&mut self, into: &mut Vec<(SlotId, u32)>) {
        into.clear();
        into.append(&mut self.woken);
    }
}

impl Store for Watched {
    #[inline]
    fn get(&self, slot: SlotId) -> i64 {
        self.words[slot.0 as usize]
    }

    #[inline]
    fn set(&mut self, slot: SlotId, value: i64) {
        let at = slot.0 as usize;
        let old = std::mem::replace(&mut self.words[at], value);
        if old != value && self.waiters != 0 && !self.waiting[at].is_empty() {
            for agent in std::mem::take(&mut self.waiting[at]) {
                self.waiters -= 1;
                self.woken.push((slot, agent));
            }
        }
    }
}
