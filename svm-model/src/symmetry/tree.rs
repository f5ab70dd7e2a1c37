//! Which permutations can give the least image of a state, found without making every image.
//!
//! Each task, pCPU and page has a *sight*: a number made of what is its own in a state, in a way that does not depend on
//! names. The image of a state under a permutation shows at each object the sight of what became it; the permutations
//! whose row of sights is least are found by walking down a tree, object by object. Objects that look the same leave
//! several, and their images are compared whole.

use cache_model::lattice::Place;
use sim_core::state::{Position, SlotId};

use super::group::Permutation;
use crate::machine::Machine;

/// One slot that a sight counts.
#[derive(Clone, Copy, Debug)]
struct Seen {
    word: u16,
    shift: u8,
    mask: u64,
    /// What it is multiplied with: alike for slots that a permutation may put in each other's place.
    weight: u64,
    /// Whether only the value 0 and others are told apart: the value is a name.
    named: bool,
}

/// What objects look like.
#[derive(Clone, Debug)]
pub(crate) struct Sights {
    objects: Vec<Vec<Seen>>,
    /// Tasks, pCPUs, pages.
    counts: [usize; 3],
}

/// What making an image needs beside the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    sights: Vec<u64>,
    open: Vec<u32>,
    next: Vec<u32>,
}

impl Sights {
    pub(crate) fn of(machine: &Machine, positions: &[Position]) -> Sights {
        let seen = |slot: SlotId, which: u64, named: bool| {
            let p = positions[slot.0 as usize];
            let weight = (which + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            (p.width > 0).then(|| Seen {
                word: u16::try_from(p.word).unwrap_or(u16::MAX),
                shift: p.shift,
                mask: p.mask(),
                weight,
                named,
            })
        };
        let mut objects: Vec<Vec<Seen>> = Vec::new();
        for task in &machine.tasks {
            let mut own = vec![seen(task.main.pc, 0, false), seen(task.non_block, 1, false)];
            own.extend(task.on.map(|on| seen(on, 2, true)));
            if let Some(vcpu) = &task.vcpu {
                own.push(seen(vcpu.in_guest, 3, false));
                own.push(seen(vcpu.loaded, 4, false));
                own.push(seen(vcpu.sched.pc, 5, false));
                own.extend(vcpu.guest.as_ref().map(|guest| seen(guest.pc, 6, false)));
            }
            objects.push(own.into_iter().flatten().collect());
        }
        for (p, pcpu) in machine.pcpus.iter().enumerate() {
            let mut own = vec![
                seen(pcpu.current, 0, true),
                seen(pcpu.irq_off, 1, false),
                seen(pcpu.preempt, 2, false),
                seen(pcpu.handling, 3, true),
                seen(pcpu.pending, 4, false),
                seen(pcpu.handler.pc, 5, false),
            ];
            if let Some(lines) = &machine.lines {
                let place = Place::Private(machine.spec.core_of[p]);
                for line in 0..lines.lines() {
                    let cells = machine.spec.shape.all_tags().map(|tag| lines.cell(line, place, tag));
                    own.extend(cells.map(|cell| seen(cell, 6, false)));
                }
            }
            objects.push(own.into_iter().flatten().collect());
        }
        for page in 0..machine.owners.len() {
            let mut own = vec![seen(machine.user_ptes[page], 0, false), seen(machine.used[page], 1, false)];
            if let Some(lines) = &machine.lines {
                let per_page = machine.spec.lines_per_page;
                let first = u32::try_from(page).unwrap_or(0) * per_page;
                for line in first..first + per_page {
                    let [_, old, truth] = lines.memory(line);
                    own.extend([seen(old, 2, false), seen(truth, 3, false)]);
                }
            }
            objects.push(own.into_iter().flatten().collect());
        }
        Sights { objects, counts: [machine.tasks.len(), machine.pcpus.len(), machine.owners.len()] }
    }

    /// Looks at every object of a state.
    #[inline]
    pub(crate) fn see<const W: usize>(&self, state: &[u64; W], scratch: &mut Scratch) {
        scratch.sights.clear();
        for object in &self.objects {
            let mut sight = 0u64;
            for s in object {
                let value = state[usize::from(s.word)] >> s.shift & s.mask;
                let value = if s.named { u64::from(value != 0) } else { value };
                // A sum, so that the order of the slots is nothing; not of the values, so that 1 + 1 is not 2 + 0.
                sight = sight.wrapping_add((value ^ s.weight).wrapping_mul(value.wrapping_add(s.weight)));
            }
            scratch.sights.push(sight);
        }
    }
}

/// What may become one object, and where the tree goes on for each.
#[derive(Clone, Debug)]
struct Node {
    /// The object that becomes it, and the node below.
    ways: Vec<(u16, u32)>,
}

/// Permutations by what becomes of each object in turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    levels: usize,
}

impl Tree {
    /// Of permutations; number 0 is the identity, which is not among them.
    pub(crate) fn of(permutations: &[&Permutation], sights: &Sights) -> Tree {
        let [tasks, pcpus, pages] = sights.counts;
        let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        // Of each permutation the object that becomes each object.
        let mut rows: Vec<Vec<u16>> = vec![(0..number(tasks + pcpus + pages)).collect()];
        for p in permutations {
            let mut row = vec![0; tasks + pcpus + pages];
            let parts = [(&p.tasks, 0), (&p.pcpus, tasks), (&p.pages, tasks + pcpus)];
            for (of, first) in parts {
                for (from, to) in of.iter().enumerate() {
                    row[first + to] = number(first + from);
                }
            }
            rows.push(row);
        }
        // Objects that never move tell nothing.
        let moving: Vec<usize> =
            (0..tasks + pcpus + pages).filter(|o| rows.iter().any(|r| usize::from(r[*o]) != *o)).collect();
        let mut tree = Tree { nodes: vec![Node { ways: Vec::new() }], levels: moving.len() };
        for (n, row) in rows.iter().enumerate() {
            let mut at = 0usize;
            for (level, object) in moving.iter().enumerate() {
                let of = row[*object];
                let last = level + 1 == moving.len();
                let known = tree.nodes[at].ways.iter().find(|w| w.0 == of && !last).map(|w| w.1);
                let next = known.unwrap_or_else(|| {
                    let next = if last { n } else { tree.nodes.len() };
                    let next = u32::try_from(next).unwrap_or(u32::MAX);
                    tree.nodes[at].ways.push((of, next));
                    if !last {
                        tree.nodes.push(Node { ways: Vec::new() });
                    }
                    next
                });
                at = next as usize;
            }
        }
        tree
    }

    /// The numbers of the permutations whose rows of sights are least.
    #[inline]
    pub(crate) fn least<'s>(&self, scratch: &'s mut Scratch) -> &'s [u32] {
        let Scratch { sights, open, next } = scratch;
        open.clear();
        open.push(0);
        for _ in 0..self.levels {
            next.clear();
            let mut least = u64::MAX;
            for node in &*open {
                for (object, below) in &self.nodes[*node as usize].ways {
                    let sight = sights[usize::from(*object)];
                    if sight < least {
                        least = sight;
                        next.clear();
                    }
                    if sight == least {
                        next.push(*below);
                    }
                }
            }
            std::mem::swap(open, next);
        }
        open
    }
}
