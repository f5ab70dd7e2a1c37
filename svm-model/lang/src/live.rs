//! Liveness and colouring: which values matter where, and which register each gets.

use crate::ir::{Block, Class, Flow, Inst, V, Val};

/// A set of registers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Set {
    words: Vec<u64>,
}

impl Set {
    pub(crate) fn new(len: usize) -> Set {
        Set { words: vec![0; len.div_ceil(64)] }
    }

    fn place(v: V) -> (usize, u64) {
        (usize::try_from(v / 64).unwrap_or(usize::MAX), 1 << (v % 64))
    }

    pub(crate) fn insert(&mut self, v: V) -> bool {
        let (word, bit) = Self::place(v);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    pub(crate) fn remove(&mut self, v: V) -> bool {
        let (word, bit) = Self::place(v);
        let old = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        old
    }

    pub(crate) fn has(&self, v: V) -> bool {
        let (word, bit) = Self::place(v);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    fn union(&mut self, other: &Set) {
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a |= b;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = V> {
        self.words.iter().zip(0..).flat_map(|(&word, i)| {
            let mut left = word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros();
                left &= left - 1;
                Some(i * 64 + bit)
            })
        })
    }
}

/// Takes the set of live registers from behind an operation to before it.
pub(crate) fn step_back(inst: &Inst, live: &mut Set) {
    if let Some(dst) = inst.def() {
        live.remove(dst);
    }
    inst.uses(&mut |v| {
        live.insert(v);
    });
}

fn end_live(block: &Block, live_in: &[Set], regs: usize) -> Set {
    let mut live = Set::new(regs);
    for next in block.end.targets() {
        live.union(&live_in[next]);
    }
    if let crate::ir::End::Branch { cond: Val::Reg(r), .. } = block.end {
        live.insert(r);
    }
    live
}

/// The registers that are live where each block ends (its branch's condition among them), and where it begins.
pub(crate) fn liveness(flow: &Flow) -> (Vec<Set>, Vec<Set>) {
    let regs = flow.regs.len();
    let mut live_in = vec![Set::new(regs); flow.blocks.len()];
    let mut live_out = live_in.clone();
    let mut changed = true;
    while changed {
        changed = false;
        for (i, block) in flow.blocks.iter().enumerate().rev() {
            let out = end_live(block, &live_in, regs);
            let mut live = out.clone();
            for (inst, _) in block.insts.iter().rev() {
                step_back(inst, &mut live);
            }
            live_out[i] = out;
            if live != live_in[i] {
                live_in[i] = live;
                changed = true;
            }
        }
    }
    (live_out, live_in)
}

/// Registers that cannot share a place, by register.
pub(crate) fn interference(flow: &Flow, live_out: &[Set], live_in: &[Set]) -> Vec<Set> {
    let regs = flow.regs.len();
    let mut clash = vec![Set::new(regs); regs];
    let mut add = |a: V, b: V| {
        if a != b {
            clash[usize::try_from(a).unwrap_or(0)].insert(b);
            clash[usize::try_from(b).unwrap_or(0)].insert(a);
        }
    };
    for (block, out) in flow.blocks.iter().zip(live_out) {
        let mut live = out.clone();
        for (inst, _) in block.insts.iter().rev() {
            // A copy's two sides may share a place while the source is not changed.
            let copy = if let Inst::Set { calc: crate::ir::Calc::Use(Val::Reg(from)), .. } = inst {
                Some(*from)
            } else {
                None
            };
            inst.changes(&mut |dst| {
                for other in live.iter() {
                    if Some(other) != copy {
                        add(dst, other);
                    }
                }
            });
            step_back(inst, &mut live);
        }
    }
    // Parameters are all there at the start, with whatever is read before it is written.
    for a in 0..flow.params {
        for b in 0..flow.params {
            add(a, b);
        }
        for b in live_in[0].iter() {
            add(a, b);
        }
    }
    clash
}

/// The most registers that are live at a time: no fewer will do.
fn most_live(flow: &Flow, live_out: &[Set]) -> usize {
    let mut most = 0;
    for (block, out) in flow.blocks.iter().zip(live_out) {
        let mut live = out.clone();
        let mut count = live.iter().count();
        most = most.max(count);
        for (inst, _) in block.insts.iter().rev() {
            if let Some(dst) = inst.def() {
                count -= usize::from(live.remove(dst));
            }
            inst.uses(&mut |v| count += usize::from(live.insert(v)));
            most = most.max(count);
        }
    }
    most
}

/// Whether each parameter is changed by the program.
pub(crate) fn assigned(flow: &Flow) -> Vec<bool> {
    let mut assigned = vec![false; usize::try_from(flow.params).unwrap_or(0)];
    for block in &flow.blocks {
        for (inst, _) in &block.insts {
            inst.changes(&mut |v| {
                if let Some(a) = usize::try_from(v).ok().and_then(|v| assigned.get_mut(v)) {
                    *a = true;
                }
            });
        }
    }
    assigned
}

/// A machine register for each register that occurs, or how many would be needed.
pub(crate) fn colour(flow: &Flow, share: bool) -> Result<Vec<u8>, usize> {
    let (live_out, live_in) = liveness(flow);
    let needed = if share { most_live(flow, &live_out) } else { 0 };
    if needed > svm_policy::REGS {
        return Err(needed);
    }
    let clash = interference(flow, &live_out, &live_in);
    let mut occurs = Set::new(flow.regs.len());
    for block in &flow.blocks {
        for (inst, _) in &block.insts {
            inst.uses(&mut |v| {
                occurs.insert(v);
            });
            inst.changes(&mut |v| {
                occurs.insert(v);
            });
        }
        if let crate::ir::End::Branch { cond: Val::Reg(r), .. } = block.end {
            occurs.insert(r);
        }
    }
    // Words of a mask stand together, whether or not each occurs.
    for info in &flow.regs {
        if let Some(group) = info.group
            && group.regs().any(|v| occurs.has(v))
        {
            for v in group.regs() {
                occurs.insert(v);
            }
        }
    }
    let mut place: Vec<Option<usize>> = vec![None; flow.regs.len()];
    let mut class_of: Vec<Option<bool>> = Vec::new();
    let params = usize::try_from(flow.params).unwrap_or(usize::MAX);
    let assigned = assigned(flow);
    for (p, place) in place.iter_mut().enumerate().take(params) {
        *place = Some(p);
        class_of.push(Some(false));
    }
    // Masks first, since they need neighbours; then what clashes most.
    let mut nodes: Vec<V> = occurs
        .iter()
        .filter(|v| usize::try_from(*v).is_ok_and(|i| i >= params))
        .filter(|v| {
            let info = flow.regs[usize::try_from(*v).unwrap_or(0)];
            info.group.is_none_or(|g| g.base == *v)
        })
        .collect();
    let weight = |v: V| {
        let i = usize::try_from(v).unwrap_or(0);
        let words = flow.regs[i].group.map_or(1, |g| usize::from(g.words));
        (words, clash[i].iter().count())
    };
    nodes.sort_by_cached_key(|v| (std::cmp::Reverse(weight(*v)), *v));
    for v in nodes {
        let first = usize::try_from(v).unwrap_or(0);
        let words = flow.regs[first].group.map_or(1, |g| usize::from(g.words));
        let is_mask = matches!(flow.regs[first].class, Class::Mask { .. });
        let free = |at: usize, place: &[Option<usize>]| {
            (0..words).all(|w| {
                let own = at + w < params && !assigned[at + w];
                !own && clash[first + w]
                    .iter()
                    .all(|o| place[usize::try_from(o).unwrap_or(0)] != Some(at + w))
            })
        };
        let used = class_of.len();
        let start = if share { 0 } else { used };
        let fits = |class: bool| {
            (start..used.saturating_sub(words - 1)).find(|&at| {
                (0..words).all(|w| !class || class_of[at + w] == Some(is_mask)) && free(at, &place)
            })
        };
        let at = fits(true)
            .or_else(|| fits(false))
            .or_else(|| (start..=used).find(|&at| free(at, &place)))
            .unwrap_or(used);
        for w in 0..words {
            place[first + w] = Some(at + w);
            if at + w >= class_of.len() {
                class_of.push(Some(is_mask));
            }
        }
    }
    if class_of.len() > svm_policy::REGS {
        return Err(class_of.len());
    }
    Ok(place.into_iter().map(|p| p.and_then(|p| u8::try_from(p).ok()).unwrap_or(0)).collect())
}
