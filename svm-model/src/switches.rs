//! Context bounding: only those orders of steps in which an actor that could go on is passed over few times.
//!
//! Most bugs need few such switches (Musuvathi and Qadeer, PLDI 2007), and the orders with few of them are few. A
//! switch is counted where an actor makes a step while the one that stepped last still could. Steps of the
//! surroundings (caches, store buffers, what becomes of freed pages) are free: they neither count nor change who
//! stepped last.
//!
//! The last actor and the number of switches so far lie in a word of the state that the machine does not use.

use sim_explore::Model;

use crate::explore::GroundModel;
use crate::label::Actor;

/// A machine's transitions within a number of switches.
pub(crate) struct Switching<'s, const W: usize> {
    pub(crate) inner: GroundModel<'s, W>,
    /// Word of the state that holds the count.
    pub(crate) word: usize,
    pub(crate) rule: Rule,
    /// Whether a transition was left out.
    pub(crate) cut: bool,
    found: Vec<(Actor, [u64; W], u64)>,
}

/// How switches are counted.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    actors: Vec<Actor>,
    most: u16,
}

impl Rule {
    pub(crate) fn new(actors: Vec<Actor>, most: u16) -> Rule {
        Rule { actors, most }
    }

    /// For each transition of a state, by its actor: the word after it, or `None` if it takes a switch too many.
    pub(crate) fn after<'r>(
        &'r self,
        word: u64,
        by: impl Iterator<Item = Actor> + Clone + 'r,
    ) -> impl Iterator<Item = Option<u64>> + 'r {
        let (last, used) = (word & 0xffff, word >> 16);
        let number = |actor: Actor| {
            let at = self.actors.iter().position(|a| *a == actor);
            at.and_then(|at| u64::try_from(at + 1).ok()).unwrap_or(0)
        };
        let goes_on = last != 0 && by.clone().any(|actor| number(actor) == last);
        by.map(move |actor| {
            if matches!(actor, Actor::Cache | Actor::World | Actor::Buffer(_)) {
                return Some(word);
            }
            let own = number(actor);
            let used = used + u64::from(goes_on && own != last);
            (used <= u64::from(self.most)).then_some(used << 16 | own)
        })
    }
}

impl<'s, const W: usize> Switching<'s, W> {
    pub(crate) fn new(inner: GroundModel<'s, W>, word: usize, rule: Rule) -> Self {
        Switching { inner, word, rule, cut: false, found: Vec::new() }
    }
}

impl<const W: usize> Model<W> for Switching<'_, W> {
    fn initial(&self) -> [u64; W] {
        self.inner.initial()
    }

    fn expand(&mut self, state: &[u64; W], mut emit: impl FnMut(&[u64; W], u64)) -> u64 {
        let Switching { inner, word, rule, cut, found } = self;
        found.clear();
        let own = inner.each(state, |actor, next, goals| found.push((actor, *next, goals)));
        let after = rule.after(state[*word], found.iter().map(|f| f.0));
        for ((_, next, goals), after) in found.iter().zip(after) {
            match after {
                Some(count) => {
                    let mut next = *next;
                    next[*word] = count;
                    emit(&next, *goals);
                }
                None => *cut = true,
            }
        }
        own
    }

    fn is_end(&self, state: &[u64; W]) -> bool {
        self.inner.is_end(state)
    }

    fn keep_within(&mut self, bytes: u64) {
        self.inner.keep_within(bytes);
    }
}
