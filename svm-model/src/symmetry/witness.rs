//! The check that a symmetry is one: steps of images are images of steps.
//!
//! When a table learns what an actor's step does at a state, the step of the actor's image is run at the state's image
//! under every permutation, and must do the same, renamed, with the same goals. The bits that any of these runs reads
//! become part of the entry's key, so that what was compared holds for every state that the entry is used for.
//!
//! *Why that suffices*: a search that stores least images expands some states, each by entries that were compared so.
//! For each such state `s`, actor `a` and permutation `g`, the steps of `g(a)` at `g(s)` are the images of those of `a`
//! at `s`. So every path from the initial state has, step by step, an image among the paths that the search followed,
//! with the same goals, and the other way round.

use std::collections::BTreeSet;

use sim_explore::Outcome;

use super::Symmetry;
use crate::ground::Read;
use crate::label::Actor;
use crate::machine::Machine;

/// Who steps: an actor, and its line or page.
pub(crate) type Who = (Actor, Option<u32>);

/// What was compared.
#[derive(Debug)]
pub(crate) struct Witness<const W: usize> {
    /// By element, then table: the image's table.
    images: Vec<Vec<usize>>,
    tables: Vec<Who>,
    /// By table: sets of bits, and their values at which the step was compared.
    compared: Vec<Vec<Compared<W>>>,
    /// Whether some comparison failed.
    pub(crate) refuted: bool,
}

/// The bits that decide a step, and values of theirs.
#[derive(Debug)]
struct Compared<const W: usize> {
    bits: [u64; W],
    values: BTreeSet<[u64; W]>,
}

fn and<const W: usize>(a: &[u64; W], b: &[u64; W]) -> [u64; W] {
    std::array::from_fn(|w| a[w] & b[w])
}

fn or<const W: usize>(a: &[u64; W], b: &[u64; W]) -> [u64; W] {
    std::array::from_fn(|w| a[w] | b[w])
}

fn written<const W: usize>(outcomes: &[(&Outcome<W>, [u64; W])]) -> Vec<[u64; W]> {
    outcomes.iter().map(|(o, _)| o.keep.map(|w| !w)).collect()
}

impl<const W: usize> Witness<W> {
    pub(crate) fn new(symmetry: &Symmetry, machine: &Machine, tables: Vec<Who>) -> Self {
        let image = |e, who: &Who| {
            let image = symmetry.image_of(e, machine, *who);
            tables.iter().position(|t| *t == image).unwrap_or(usize::MAX)
        };
        let images: Vec<Vec<usize>> =
            symmetry.elements.iter().map(|e| tables.iter().map(|t| image(e, t)).collect()).collect();
        let refuted = images.iter().flatten().any(|i| *i == usize::MAX);
        let compared = tables.iter().map(|_| Vec::new()).collect();
        Witness { images, tables, compared, refuted }
    }

    /// Compares what the step of a table does at a state with what it does at the state's images; `run` runs a step.
    pub(crate) fn compare(
        &mut self,
        symmetry: &Symmetry,
        table: usize,
        state: &[u64; W],
        read: &mut [u64; W],
        outcomes: &[Outcome<W>],
        mut run: impl FnMut(Who, &[u64; W]) -> (Vec<Outcome<W>>, Read<W>),
    ) {
        if self.refuted {
            return;
        }
        let known = self.compared[table]
            .iter()
            .find(|c| and(&c.bits, read) == *read && c.values.contains(&and(state, &c.bits)));
        if let Some(known) = known {
            *read = known.bits;
            return;
        }
        let mut bits = *read;
        for (at, element) in symmetry.elements.iter().enumerate() {
            let image = element.plan.apply(state);
            let (theirs, seen) = run(self.tables[self.images[at][table]], &image);
            let back = &symmetry.elements[element.inverse].plan;
            bits = or(&bits, &back.slots(&seen.bits));
            let mut ours: Vec<_> = outcomes.iter().map(|o| (o, element.plan.apply(&o.of(state)))).collect();
            let mut theirs: Vec<_> = theirs.iter().map(|o| (o, o.of(&image))).collect();
            ours.sort_by_key(|(o, next)| (*next, o.goals));
            theirs.sort_by_key(|(o, next)| (*next, o.goals));
            let alike = ours
                .iter()
                .map(|(o, next)| (next, o.goals))
                .eq(theirs.iter().map(|(o, next)| (next, o.goals)));
            if !alike {
                self.refuted = true;
                return;
            }
            // What only one of the two writes, it writes as it was: that is so for these values only.
            for (a, b) in written(&ours).iter().zip(written(&theirs)) {
                let b = back.slots(&b);
                bits = std::array::from_fn(|w| bits[w] | a[w] ^ b[w]);
            }
        }
        self.note(table, &bits, state);
        for (at, element) in symmetry.elements.iter().enumerate() {
            let (bits, image) = (element.plan.slots(&bits), element.plan.apply(state));
            self.note(self.images[at][table], &bits, &image);
        }
        *read = bits;
    }

    fn note(&mut self, table: usize, bits: &[u64; W], state: &[u64; W]) {
        let values = and(state, bits);
        let sets = &mut self.compared[table];
        match sets.iter_mut().find(|c| c.bits == *bits) {
            Some(found) => {
                found.values.insert(values);
            }
            None => sets.push(Compared { bits: *bits, values: BTreeSet::from([values]) }),
        }
    }
}
