//! Symmetry: states that differ only in the names of things that are treated alike are one state.
//!
//! A permutation renames pCPUs, tasks (and with them vCPUs), VMs and pages, and everything that points at them. Those
//! that leave the litmus test and its texts as they are (`group`) are candidates; what each does to a packed state
//! is laid out once (`plan`). The search stores, for each state that it finds, the least of its images.
//!
//! *Promise*: that is sound, for it is checked, not assumed: each entry of the ground tables that a search uses was
//! compared, under every permutation, with what the one step function does to the images (`witness`). If a comparison
//! fails, the search begins anew with fewer permutations.

mod group;
mod kinds;
mod plan;
mod tree;
pub(crate) mod witness;

use sim_core::state::Position;

use crate::label::Actor;
use crate::machine::Machine;
use group::Permutation;
use kinds::Kinds;
use plan::Plan;
pub(crate) use tree::Scratch;
use tree::{Sights, Tree};

/// The permutations that a search works with.
#[derive(Clone, Debug)]
pub struct Symmetry {
    /// All but the identity.
    elements: Vec<Element>,
    sights: Sights,
    tree: Tree,
}

/// One permutation.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    permutation: Permutation,
    plan: Plan,
    /// Index of the permutation that takes it back.
    inverse: usize,
}

impl Symmetry {
    /// The candidates for a machine whose slots lie so.
    pub(crate) fn of(machine: &Machine, positions: &[Position]) -> Symmetry {
        let kinds = Kinds::of(machine.code());
        let found = group::alike(machine, &kinds);
        let mut planned: Vec<(Permutation, Plan)> = Vec::new();
        for permutation in found.iter().filter(|p| !p.is_identity()) {
            let plan = plan::plan(machine, positions, &kinds, permutation, &found);
            planned.extend(plan.map(|plan| (permutation.clone(), plan)));
        }
        let sights = Sights::of(machine, positions);
        let mut symmetry = Symmetry { elements: Vec::new(), sights, tree: Tree::default() };
        symmetry.choose(planned);
        symmetry
    }

    /// Works with those of some permutations that are a group with the identity.
    fn choose(&mut self, mut planned: Vec<(Permutation, Plan)>) {
        loop {
            let has = |p: &Permutation| p.is_identity() || planned.iter().any(|(q, _)| q == p);
            let open = planned.iter().position(|(p, _)| planned.iter().any(|(q, _)| !has(&p.after(q))));
            match open {
                Some(at) => planned.remove(at),
                None => break,
            };
        }
        let inverses: Vec<usize> = planned
            .iter()
            .map(|(p, _)| planned.iter().position(|(q, _)| p.after(q).is_identity()).unwrap_or(0))
            .collect();
        let element = |((permutation, plan), inverse)| Element { permutation, plan, inverse };
        self.elements = planned.into_iter().zip(inverses).map(element).collect();
        let permutations: Vec<&Permutation> = self.elements.iter().map(|e| &e.permutation).collect();
        self.tree = Tree::of(&permutations, &self.sights);
    }

    /// Those that leave the pCPUs alone, or that leave all else alone: what is tried when a group fails its check.
    pub(crate) fn part(&self, pcpus: bool) -> Symmetry {
        let moves = |of: &[usize]| of.iter().enumerate().any(|(i, to)| i != *to);
        let kept = |p: &Permutation| {
            let others = [&p.tasks, &p.vms, &p.pages].into_iter().any(|of| moves(of));
            if pcpus { !others } else { !moves(&p.pcpus) }
        };
        let kept = self.elements.iter().filter(|e| kept(&e.permutation));
        let kept = kept.map(|e| (e.permutation.clone(), e.plan.clone())).collect();
        let mut part = Symmetry { elements: Vec::new(), sights: self.sights.clone(), tree: Tree::default() };
        part.choose(kept);
        part
    }

    /// How many permutations there are, the identity included.
    #[must_use]
    pub fn order(&self) -> usize {
        self.elements.len() + 1
    }

    /// The least image of a state: of those whose objects look least, in the order of the objects, the least in words.
    #[inline]
    pub(crate) fn canonical<const W: usize>(&self, state: &[u64; W], scratch: &mut Scratch) -> [u64; W] {
        let mut least: Option<[u64; W]> = None;
        self.sights.see(state, scratch);
        for element in self.tree.least(scratch) {
            // The first is the identity.
            let image = match element.checked_sub(1) {
                Some(at) => self.elements[at as usize].plan.apply(state),
                None => *state,
            };
            if least.is_none_or(|least| image < least) {
                least = Some(image);
            }
        }
        least.unwrap_or(*state)
    }

    /// The same of a state as a list of words; none if it has more words than there can be.
    pub(crate) fn canonical_words(&self, state: &[u64]) -> Option<Vec<u64>> {
        let mut padded = [0u64; 64];
        padded.get_mut(..state.len())?.copy_from_slice(state);
        Some(self.canonical(&padded, &mut Scratch::default())[..state.len()].to_vec())
    }

    /// The images of a state under each permutation but the identity.
    pub(crate) fn images(&self, state: &[u64]) -> Vec<Vec<u64>> {
        let mut padded = [0u64; 64];
        match padded.get_mut(..state.len()) {
            Some(words) => words.copy_from_slice(state),
            None => return Vec::new(),
        }
        self.elements.iter().map(|e| e.plan.apply(&padded)[..state.len()].to_vec()).collect()
    }

    /// Where an actor's table is under an element: the line of the caches and the page of the world go along.
    fn image_of(
        &self,
        element: &Element,
        machine: &Machine,
        of: (Actor, Option<u32>),
    ) -> (Actor, Option<u32>) {
        let (actor, within) = of;
        let page = |p: u32| {
            let to = element.permutation.pages.get(p as usize);
            to.and_then(|to| u32::try_from(*to).ok()).unwrap_or(p)
        };
        let per_page = machine.spec().lines_per_page;
        let within = match actor {
            Actor::Cache => within.map(|l| page(l / per_page) * per_page + l % per_page),
            Actor::World => within.map(page),
            Actor::Task(_) | Actor::Preempt(_) | Actor::Irq(_) | Actor::Buffer(_) => within,
        };
        (element.permutation.actor(actor), within)
    }
}
