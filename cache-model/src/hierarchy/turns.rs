//! Whose turn it is: of all cores that wait, each until a cycle of its own, the earliest.
//!
//! A tree of eights: a node is one line of the host's cache, and each of its words is the earliest turn of the node
//! below it. To let a core wait lowers a word a level; to take one out looks a node a level through. Neither has a
//! branch that depends on the times.

/// Bits of a turn that are the core; the cycle is above them, so that turns are ordered by (cycle, core).
const CORE_BITS: u32 = 16;
const NEVER: u64 = u64::MAX;
/// Words of a node.
const EIGHT: usize = 8;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Node([u64; EIGHT]);

impl Node {
    #[inline(always)]
    fn earliest(&self) -> u64 {
        let [a, b, c, d, e, f, g, h] = self.0;
        a.min(b).min(c.min(d)).min(e.min(f).min(g.min(h)))
    }
}

/// The turns of the cores of a machine.
#[derive(Debug)]
pub(super) struct Turns {
    /// The root; below word `w` of node `n`, node `8 n + w + 1`. The last level is that of the cores.
    nodes: Vec<Node>,
    /// The first node of the cores' level.
    cores: usize,
    /// Of all turns.
    earliest: u64,
}

impl Turns {
    /// Cycles are counted from a start that the caller chooses; they are below this.
    pub(super) const LIMIT: u64 = 1 << (64 - CORE_BITS);

    /// No core waits.
    pub(super) fn new(cores: usize) -> Turns {
        let (mut first, mut width) = (0, 1);
        while width * EIGHT < cores {
            first += width;
            width *= EIGHT;
        }
        Turns { nodes: vec![Node([NEVER; EIGHT]); first + width], cores: first, earliest: NEVER }
    }

    /// A core that does not wait now waits until a cycle.
    ///
    /// # Panics
    /// A cycle from [`Turns::LIMIT`] on.
    #[inline(always)]
    pub(super) fn wait(&mut self, core: u16, until: u64) {
        assert!(until < Self::LIMIT, "core{core} waits for cycle {until}");
        let turn = until << CORE_BITS | u64::from(core);
        let (mut node, mut word) = (self.cores + usize::from(core) / EIGHT, usize::from(core) % EIGHT);
        loop {
            let slot = &mut self.nodes[node].0[word];
            *slot = turn.min(*slot);
            if node == 0 {
                self.earliest = turn.min(self.earliest);
                return;
            }
            (node, word) = ((node - 1) / EIGHT, (node - 1) % EIGHT);
        }
    }

    /// The earliest turn, whose core does not wait any more: its cycle, the core, and the cycle of the turn after it
    /// (the end of time if there is none).
    #[inline(always)]
    pub(super) fn take(&mut self) -> Option<(u64, u16, u64)> {
        let turn = self.earliest;
        if turn == NEVER {
            return None;
        }
        let core = turn as u16;
        let (mut node, mut word) = (self.cores + usize::from(core) / EIGHT, usize::from(core) % EIGHT);
        let mut earliest = NEVER;
        loop {
            self.nodes[node].0[word] = earliest;
            earliest = self.nodes[node].earliest();
            if node == 0 {
                break;
            }
            (node, word) = ((node - 1) / EIGHT, (node - 1) % EIGHT);
        }
        self.earliest = earliest;
        let after = if earliest == NEVER { u64::MAX } else { earliest >> CORE_BITS };
        Some((turn >> CORE_BITS, core, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns come out as from a sorted list, and each is told when the next one is, for as many cores as make trees
    /// of one to four levels.
    #[test]
    fn turns_come_in_the_order_of_cycle_and_core() {
        for cores in [1u16, 8, 9, 64, 65, 384, 513] {
            let mut turns = Turns::new(usize::from(cores));
            let mut list: Vec<(u64, u16)> = (0..cores).map(|core| (u64::from(core) % 3, core)).collect();
            for (until, core) in &list {
                turns.wait(*core, *until);
            }
            let mut x = 1u64;
            for _ in 0..4 * cores {
                list.sort_unstable();
                let (now, core) = list.remove(0);
                let after = list.first().map_or(u64::MAX, |turn| turn.0);
                assert_eq!(turns.take(), Some((now, core, after)), "{cores} cores");
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if x >> 40 & 7 != 0 {
                    let until = now + (x >> 33) % 50;
                    turns.wait(core, until);
                    list.push((until, core));
                }
                if list.is_empty() {
                    break;
                }
            }
            list.sort_unstable();
            for (now, core) in list {
                assert_eq!(turns.take().map(|turn| (turn.0, turn.1)), Some((now, core)));
            }
            assert_eq!(turns.take(), None);
        }
    }
}
