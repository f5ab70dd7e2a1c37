//! What a permutation does to a packed state: bits that move together, values that are looked up.

use std::collections::BTreeMap;

use cache_model::lattice::Place;
use sev_arch::{CcxId, CoreId, Tag};
use sim_core::state::{Position, SlotId};

use super::group::Permutation;
use super::kinds::{Kind, Kinds, of_scope};
use crate::context::ContextSlots;
use crate::machine::Machine;

/// Bits that move together.
#[derive(Clone, Copy, Debug)]
struct Move {
    from: u16,
    to: u16,
    left: u32,
    mask: u64,
}

/// A value that is looked up.
#[derive(Clone, Copy, Debug)]
struct Look {
    from: u16,
    shift: u8,
    to: u16,
    mask: u64,
    /// Where its table begins: for each value the bits that it becomes, in their place.
    table: u32,
}

/// What depends on the value of a slot, such as a program counter.
#[derive(Clone, Copy, Debug)]
struct Keyed {
    from: u16,
    shift: u8,
    mask: u64,
    /// Where the ranges of looks begin, one a value.
    ranges: u32,
}

/// What a permutation does to a packed state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    moves: Vec<Move>,
    looks: Vec<Look>,
    keyed: Vec<Keyed>,
    ranges: Vec<(u32, u32)>,
    later: Vec<Look>,
    tables: Vec<u64>,
    /// Where the bits of each slot go, whatever they become.
    whole: Vec<Move>,
}

impl Plan {
    /// The permuted state.
    #[inline]
    pub(crate) fn apply<const W: usize>(&self, state: &[u64; W]) -> [u64; W] {
        let mut out = [0u64; W];
        for m in &self.moves {
            out[usize::from(m.to)] |= (state[usize::from(m.from)] & m.mask).rotate_left(m.left);
        }
        for l in &self.looks {
            self.look(l, state, &mut out);
        }
        for k in &self.keyed {
            let key = state[usize::from(k.from)] >> k.shift & k.mask;
            let (from, to) = self.ranges[k.ranges as usize + index(key)];
            for l in &self.later[from as usize..to as usize] {
                self.look(l, state, &mut out);
            }
        }
        out
    }

    #[inline]
    fn look<const W: usize>(&self, l: &Look, state: &[u64; W], out: &mut [u64; W]) {
        let value = state[usize::from(l.from)] >> l.shift & l.mask;
        out[usize::from(l.to)] |= self.tables[l.table as usize + index(value)];
    }

    /// Where the slots whose bits these are have gone.
    pub(crate) fn slots<const W: usize>(&self, bits: &[u64; W]) -> [u64; W] {
        let mut out = [0u64; W];
        for m in &self.whole {
            out[usize::from(m.to)] |= (bits[usize::from(m.from)] & m.mask).rotate_left(m.left);
        }
        out
    }
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Values of a slot up to which they are looked up one by one.
const WIDEST: u8 = 12;

/// A plan in the making.
struct Draft<'m> {
    machine: &'m Machine,
    positions: &'m [Position],
    permutation: &'m Permutation,
    /// The group that it is of.
    all: &'m [Permutation],
    plan: Plan,
    /// By words and rotation.
    moves: BTreeMap<(u16, u16, u32), u64>,
    whole: BTreeMap<(u16, u16, u32), u64>,
    /// Tables, and where each is.
    known: BTreeMap<Vec<u64>, u32>,
    /// Whether each slot has been told where it goes, and each was gone to.
    gone: Vec<bool>,
    filled: Vec<bool>,
}

/// The plan of a permutation; none if some slot cannot hold what it would get.
pub(crate) fn plan(
    machine: &Machine,
    positions: &[Position],
    kinds: &Kinds,
    permutation: &Permutation,
    all: &[Permutation],
) -> Option<Plan> {
    let mut draft = Draft {
        machine,
        positions,
        permutation,
        all,
        plan: Plan::default(),
        moves: BTreeMap::new(),
        whole: BTreeMap::new(),
        known: BTreeMap::new(),
        gone: vec![false; positions.len()],
        filled: vec![false; positions.len()],
    };
    draft.variables(kinds)?;
    draft.tasks(kinds)?;
    draft.pcpus(kinds)?;
    draft.pages()?;
    draft.lines()?;
    draft.buffers(kinds)?;
    // What nobody has spoken of is about nothing that is renamed.
    for slot in (0u32..).map(SlotId).take(positions.len()) {
        if !draft.gone[slot.0 as usize] {
            draft.slot(slot, slot, Kind::Plain)?;
        }
    }
    if draft.filled.contains(&false) {
        return None;
    }
    let list = |moves: &BTreeMap<(u16, u16, u32), u64>| {
        moves.iter().map(|(&(from, to, left), &mask)| Move { from, to, left, mask }).collect()
    };
    draft.plan.moves = list(&draft.moves);
    draft.plan.whole = list(&draft.whole);
    Some(draft.plan)
}

fn word(p: Position) -> u16 {
    u16::try_from(p.word).unwrap_or(u16::MAX)
}

impl Draft<'_> {
    fn at(&self, slot: SlotId) -> Position {
        self.positions[slot.0 as usize]
    }

    /// A slot's bits go to another's; says whether both are of one size, and neither was spoken of before.
    fn goes(&mut self, from: SlotId, to: SlotId) -> Option<()> {
        let twice = std::mem::replace(self.gone.get_mut(from.0 as usize)?, true)
            | std::mem::replace(self.filled.get_mut(to.0 as usize)?, true);
        let (a, b) = (self.at(from), self.at(to));
        if twice || a.width != b.width {
            return None;
        }
        Self::bits(&mut self.whole, a, b);
        Some(())
    }

    fn bits(moves: &mut BTreeMap<(u16, u16, u32), u64>, a: Position, b: Position) {
        if a.width > 0 {
            let left = (u32::from(b.shift) + 64 - u32::from(a.shift)) % 64;
            *moves.entry((word(a), word(b), left)).or_insert(0) |= a.mask() << a.shift;
        }
    }

    /// A slot's value goes to another slot, renamed.
    fn slot(&mut self, from: SlotId, to: SlotId, kind: Kind) -> Option<()> {
        self.goes(from, to)?;
        if let Some(look) = self.value(from, to, kind)? {
            self.plan.looks.push(look);
        } else {
            let (a, b) = (self.at(from), self.at(to));
            Self::bits(&mut self.moves, a, b);
        }
        Some(())
    }

    /// How a value is looked up; `Some(None)` if its bits just move, `None` if it does not fit.
    #[expect(clippy::option_option, reason = "not to be had at all, or not to be looked up")]
    fn value(&mut self, from: SlotId, to: SlotId, kind: Kind) -> Option<Option<Look>> {
        let (a, b) = (self.at(from), self.at(to));
        let slots = self.machine.layout.slots();
        let (of, into) = (slots.get(from.0 as usize)?.domain, slots.get(to.0 as usize)?.domain);
        if a.width == 0 {
            return (self.permutation.value(kind, a.low) == b.low).then_some(None);
        }
        if of != into {
            return None;
        }
        if a.width > WIDEST {
            let stays = kind == Kind::Plain || self.permutation.is_identity();
            return stays.then_some(None);
        }
        let mut table = Vec::new();
        let mut plain = true;
        for raw in 0..=a.mask() {
            let value = raw.cast_signed().wrapping_add(a.low);
            // A value that some permutation would take out of the slot's domain is never held, or this is no symmetry,
            // which the check finds: every permutation leaves it as it is, so that they stay a group.
            let renamed = self.all.iter().all(|p| of.holds(p.value(kind, value)));
            let new = if renamed { self.permutation.value(kind, value) } else { value };
            let bits = new.wrapping_sub(b.low).cast_unsigned();
            plain &= bits == raw;
            table.push(bits << b.shift);
        }
        if plain {
            return Some(None);
        }
        let at = match self.known.get(&table) {
            Some(at) => *at,
            None => {
                let at = u32::try_from(self.plan.tables.len()).unwrap_or(u32::MAX);
                self.plan.tables.extend(&table);
                self.known.insert(table, at);
                at
            }
        };
        Some(Some(Look { from: word(a), shift: a.shift, to: word(b), mask: a.mask(), table: at }))
    }

    fn variables(&mut self, kinds: &Kinds) -> Option<()> {
        let machine = self.machine;
        for (v, var) in machine.vars.iter().enumerate() {
            for i in 0..var.instances {
                let instance = self.permutation.value(of_scope(var.scope), i64::from(i));
                for w in 0..var.words {
                    let from = SlotId(var.base + i * var.words + w);
                    let to = SlotId(var.base + u32::try_from(instance).ok()? * var.words + w);
                    self.slot(from, to, kinds.vars[v])?;
                }
            }
        }
        Some(())
    }

    /// A context: its registers by where it rests.
    fn context(&mut self, kinds: &Kinds, from: &ContextSlots, to: &ContextSlots) -> Option<()> {
        if from.rests.len() != to.rests.len() || from.regs.len() != to.regs.len() {
            return None;
        }
        let start = |c: &ContextSlots| c.rests.first().map_or(0, |r| usize::from(r.0));
        let (a, b) = (start(from), start(to));
        let fits =
            |(x, y): (&(u16, u64), &(u16, u64))| usize::from(x.0) - a == usize::from(y.0) - b && x.1 == y.1;
        if !from.rests.iter().zip(&to.rests).all(fits) {
            return None;
        }
        self.slot(from.pc, to.pc, Kind::Plain)?;
        let mut by_rest: Vec<Vec<Look>> = vec![Vec::new(); index(self.at(from.pc).mask()) + 1];
        let mut any = false;
        for (r, (x, y)) in from.regs.iter().zip(&to.regs).enumerate() {
            let constant = from.constants >> r & 1 == 1;
            let rests = constant || from.resting[r] == to.resting[r];
            if constant != (to.constants >> r & 1 == 1) || !rests {
                return None;
            }
            let reg = u8::try_from(r).ok()?;
            // A register whose value matters at a rest has a kind there; one whose value does not rests.
            let mut looks: Vec<Option<Look>> = Vec::new();
            for (pc, live) in &from.rests {
                let matters = constant || live >> r & 1 == 1;
                let kind = if matters { kinds.reg(usize::from(*pc), reg) } else { Kind::Plain };
                looks.push(self.value(*x, *y, kind)?);
            }
            self.goes(*x, *y)?;
            if looks.iter().all(Option::is_none) {
                let (a, b) = (self.at(*x), self.at(*y));
                Self::bits(&mut self.moves, a, b);
                continue;
            }
            any = true;
            let idle = self.moved(*x, *y)?;
            by_rest[0].push(idle);
            for (at, look) in looks.into_iter().enumerate() {
                by_rest.get_mut(at + 1)?.push(look.unwrap_or(idle));
            }
        }
        if any {
            self.keyed(from.pc, by_rest);
        }
        Some(())
    }

    /// A value that stays, as a look.
    fn moved(&mut self, from: SlotId, to: SlotId) -> Option<Look> {
        let (a, b) = (self.at(from), self.at(to));
        if a.width > WIDEST {
            return None;
        }
        let at = u32::try_from(self.plan.tables.len()).ok()?;
        self.plan.tables.extend((0..=a.mask()).map(|raw| raw << b.shift));
        Some(Look { from: word(a), shift: a.shift, to: word(b), mask: a.mask(), table: at })
    }

    fn keyed(&mut self, by: SlotId, lists: Vec<Vec<Look>>) {
        let p = self.at(by);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let ranges = number(self.plan.ranges.len());
        for list in lists {
            let from = number(self.plan.later.len());
            self.plan.later.extend(list);
            self.plan.ranges.push((from, number(self.plan.later.len())));
        }
        self.plan.keyed.push(Keyed { from: word(p), shift: p.shift, mask: p.mask(), ranges });
    }

    fn tasks(&mut self, kinds: &Kinds) -> Option<()> {
        let machine = self.machine;
        for (task, to) in machine.tasks.iter().zip(&self.permutation.tasks) {
            let other = &machine.tasks[*to];
            self.context(kinds, &task.main, &other.main)?;
            match (task.on, other.on) {
                (Some(a), Some(b)) => self.slot(a, b, Kind::Pcpu)?,
                (None, None) => {}
                _ => return None,
            }
            self.slot(task.non_block, other.non_block, Kind::Plain)?;
            match (&task.vcpu, &other.vcpu) {
                (Some(a), Some(b)) => {
                    self.slot(a.in_guest, b.in_guest, Kind::Plain)?;
                    self.slot(a.loaded, b.loaded, Kind::Plain)?;
                    self.context(kinds, &a.sched, &b.sched)?;
                    match (&a.guest, &b.guest) {
                        (Some(a), Some(b)) => self.context(kinds, a, b)?,
                        (None, None) => {}
                        _ => return None,
                    }
                }
                (None, None) => {}
                _ => return None,
            }
        }
        Some(())
    }

    fn pcpus(&mut self, kinds: &Kinds) -> Option<()> {
        let machine = self.machine;
        for (pcpu, to) in machine.pcpus.iter().zip(&self.permutation.pcpus) {
            let other = &machine.pcpus[*to];
            self.slot(pcpu.current, other.current, Kind::Task)?;
            self.slot(pcpu.irq_off, other.irq_off, Kind::Plain)?;
            self.slot(pcpu.preempt, other.preempt, Kind::Plain)?;
            self.slot(pcpu.handling, other.handling, Kind::Handling)?;
            self.slot(pcpu.pending, other.pending, Kind::Plain)?;
            self.context(kinds, &pcpu.handler, &other.handler)?;
        }
        let count = machine.pcpus.len();
        for (t, task) in self.permutation.tasks.iter().enumerate() {
            for (p, pcpu) in self.permutation.pcpus.iter().enumerate() {
                let (from, to) = (t * count + p, task * count + pcpu);
                let (call, info) = (machine.calls[from], machine.infos[from]);
                self.slot(call, machine.calls[to], Kind::Plain)?;
                self.info(kinds, call, info, machine.infos[to])?;
            }
        }
        Some(())
    }

    /// The argument of a call: what it is depends on the function.
    fn info(&mut self, kinds: &Kinds, call: SlotId, from: SlotId, to: SlotId) -> Option<()> {
        let mut looks = Vec::new();
        for kind in &kinds.infos {
            looks.push(self.value(from, to, *kind)?);
        }
        if self.at(call).width == 0 || looks.iter().all(Option::is_none) {
            return self.slot(from, to, Kind::Plain);
        }
        self.goes(from, to)?;
        let idle = self.moved(from, to)?;
        let mut by_call = vec![vec![idle]; index(self.at(call).mask()) + 1];
        for (callback, look) in looks.into_iter().enumerate() {
            for code in [1 + 2 * callback, 2 + 2 * callback] {
                *by_call.get_mut(code)? = vec![look.unwrap_or(idle)];
            }
        }
        self.keyed(call, by_call);
        Some(())
    }

    fn pages(&mut self) -> Option<()> {
        let (machine, permutation) = (self.machine, self.permutation);
        for (vm, to) in permutation.vms.iter().enumerate() {
            self.slot(machine.asids[vm], machine.asids[*to], Kind::Asid)?;
        }
        let pages = machine.owners.len();
        for (page, to) in permutation.pages.iter().enumerate() {
            self.slot(machine.owners[page], machine.owners[*to], Kind::Owner)?;
            self.slot(machine.used[page], machine.used[*to], Kind::Plain)?;
            self.slot(machine.user_ptes[page], machine.user_ptes[*to], Kind::Plain)?;
            if let (Some(Some(a)), Some(Some(b))) = (machine.rmp.get(page), machine.rmp.get(*to)) {
                self.slot(*a, *b, Kind::Asid)?;
            }
            for (vm, other) in permutation.vms.iter().enumerate() {
                let (from, to) = (machine.sptes[vm * pages + page], machine.sptes[other * pages + to]);
                self.slot(from, to, Kind::Plain)?;
            }
            if machine.tlb_pages == 1 {
                for (vcpu, other) in permutation.vcpus.iter().enumerate() {
                    let (from, to) = (machine.tlb(vcpu, page).0, machine.tlb(*other, *to).0);
                    self.slot(from, to, Kind::Plain)?;
                }
            }
        }
        Some(())
    }

    fn lines(&mut self) -> Option<()> {
        let (machine, permutation) = (self.machine, self.permutation);
        let Some(lines) = &machine.lines else { return Some(()) };
        let per_page = machine.spec.lines_per_page;
        let number = |of: &[usize], i: usize| u16::try_from(*of.get(i)?).ok();
        for line in 0..lines.lines() {
            let page = *permutation.pages.get((line / per_page) as usize)?;
            let other = u32::try_from(page).ok()? * per_page + line % per_page;
            for place in machine.spec.shape.places() {
                let to = match place {
                    Place::Private(c) => Place::Private(CoreId(number(&permutation.cores, c.index())?)),
                    Place::L3(x) => Place::L3(CcxId(number(&permutation.ccxs, x.index())?)),
                    Place::Flight(x) => Place::Flight(CcxId(number(&permutation.ccxs, x.index())?)),
                };
                for tag in machine.spec.shape.all_tags() {
                    let image = number(&permutation.asids, usize::from(tag.0))?;
                    let image = Tag(u8::try_from(image).ok()?);
                    self.slot(lines.cell(line, place, tag), lines.cell(other, to, image), Kind::Plain)?;
                }
            }
            let (from, to) = (lines.memory(line), lines.memory(other));
            self.slot(from[0], to[0], Kind::Key)?;
            self.slot(from[1], to[1], Kind::Plain)?;
            self.slot(from[2], to[2], Kind::Plain)?;
        }
        Some(())
    }

    /// Store buffers: the slot that is written goes where that slot goes, and its value with it.
    fn buffers(&mut self, kinds: &Kinds) -> Option<()> {
        let machine = self.machine;
        let buffers = &machine.buffers;
        for (p, entries) in buffers.of_pcpu.iter().enumerate() {
            let others = &buffers.of_pcpu[self.permutation.pcpus[p]];
            for (from, to) in entries.iter().zip(others) {
                let (a, b) = (self.at(from.target), self.at(to.target));
                if a.width > WIDEST || self.permutation.is_identity() {
                    if !self.permutation.is_identity() {
                        return None;
                    }
                    self.slot(from.target, to.target, Kind::Plain)?;
                    self.slot(from.value, to.value, Kind::Plain)?;
                    continue;
                }
                self.goes(from.target, to.target)?;
                self.goes(from.value, to.value)?;
                let idle = self.moved(from.value, to.value)?;
                let (mut table, mut by_target) = (vec![0u64], vec![vec![idle]]);
                for (code, slot) in (1i64..).zip(&buffers.targets) {
                    let (image, kind) = self.variable(kinds, *slot)?;
                    table.push(u64::try_from(buffers.code(image)?).ok()? << b.shift);
                    let look = self.value(from.value, to.value, kind)?;
                    by_target.push(vec![look.unwrap_or(idle)]);
                    debug_assert!(usize::try_from(code).is_ok_and(|c| c + 1 == table.len()));
                }
                table.resize(index(a.mask()) + 1, 0);
                by_target.resize(index(a.mask()) + 1, Vec::new());
                let at = u32::try_from(self.plan.tables.len()).ok()?;
                self.plan.tables.extend(table);
                self.plan.looks.push(Look {
                    from: word(a),
                    shift: a.shift,
                    to: word(b),
                    mask: a.mask(),
                    table: at,
                });
                self.keyed(from.target, by_target);
            }
        }
        Some(())
    }

    /// Where a variable's slot goes, and what it holds.
    fn variable(&self, kinds: &Kinds, slot: SlotId) -> Option<(SlotId, Kind)> {
        let within =
            |v: &crate::machine::VarSlots| (v.base..v.base + v.words * v.instances).contains(&slot.0);
        let v = self.machine.vars.iter().position(within)?;
        let var = &self.machine.vars[v];
        let (i, w) = ((slot.0 - var.base) / var.words, (slot.0 - var.base) % var.words);
        let instance = self.permutation.value(of_scope(var.scope), i64::from(i));
        Some((SlotId(var.base + u32::try_from(instance).ok()? * var.words + w), kinds.vars[v]))
    }
}
