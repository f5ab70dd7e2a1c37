//! Where a context's own state lies among the slots: its program counter and its registers.

use sim_core::layout::Layout;
use sim_core::state::{Class, Domain, SlotId, Store};
use svm_lang::Entry;
use svm_policy::{Context, Pc, REGS};

/// The slots of one context that runs one of several entries.
///
/// The program counter's slot holds 0 while the context is idle or has ended, else 1 + the number of the rest
/// point. A register that is dead at a rest point holds its resting value, so that equal states are equal words.
#[derive(Clone, Debug)]
pub(crate) struct ContextSlots {
    pub(crate) pc: SlotId,
    pub(crate) regs: Vec<SlotId>,
    pub(crate) resting: Vec<i64>,
    pub(crate) constants: u64,
    pub(crate) rests: Vec<(Pc, u64)>,
}

/// What a context starts with: an entry and the values of its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Start<'a> {
    pub(crate) entry: &'a Entry,
    /// Values known when the model is built; `None` if they come with each start.
    pub(crate) arguments: Option<Vec<i64>>,
}

/// The least domain that holds what both do.
pub(crate) fn union(a: Domain, b: Domain) -> Domain {
    match (a, b) {
        (Domain::Range { lo: a, hi: b }, Domain::Range { lo: c, hi: d }) => {
            Domain::Range { lo: a.min(c), hi: b.max(d) }
        }
        (Domain::Mask { bits: a }, Domain::Mask { bits: b }) => Domain::Mask { bits: a.max(b) },
        (Domain::Mask { bits }, Domain::Range { lo, hi })
        | (Domain::Range { lo, hi }, Domain::Mask { bits }) => {
            let top = if bits >= 63 { i64::MAX } else { (1 << bits) - 1 };
            if lo >= 0 && hi <= top {
                Domain::Mask { bits }
            } else if bits >= 63 {
                Domain::Range { lo: i64::MIN, hi: i64::MAX }
            } else {
                Domain::Range { lo: lo.min(0), hi: hi.max(top) }
            }
        }
    }
}

impl ContextSlots {
    pub(crate) fn declare(
        layout: &mut Layout,
        name: &str,
        starts: &[Start<'_>],
        running: bool,
    ) -> ContextSlots {
        let mut domains: Vec<Domain> = Vec::new();
        for start in starts {
            for (i, d) in start.entry.regs.iter().enumerate() {
                match domains.get_mut(i) {
                    Some(have) => *have = union(*have, *d),
                    None => domains.push(*d),
                }
            }
        }
        let mut constants = 0u64;
        let mut arguments = Vec::new();
        if let [Start { entry, arguments: Some(values) }] = starts {
            for (param, value) in entry.params.iter().zip(values) {
                arguments.push((param.reg, *value));
                if !param.assigned {
                    domains[usize::from(param.reg)] = Domain::Range { lo: *value, hi: *value };
                    constants |= 1 << param.reg;
                }
            }
        }
        let resting: Vec<i64> = domains.iter().map(|d| if d.holds(0) { 0 } else { d.low() }).collect();
        let mut rests: Vec<(Pc, u64)> = Vec::new();
        for start in starts {
            rests.extend(start.entry.rests.iter().copied().zip(start.entry.live.iter().copied()));
        }
        rests.sort_unstable();
        rests.dedup();
        let hi = i64::try_from(rests.len()).unwrap_or(i64::MAX);
        let first = starts.first().map_or(0, |s| s.entry.start);
        let at = rests.iter().position(|r| r.0 == first).map_or(0, |i| i + 1);
        let at = if running { i64::try_from(at).unwrap_or(0) } else { 0 };
        let pc = layout.slot(format!("{name}.pc"), Domain::Range { lo: 0, hi }, Class::Own, at);
        let mut regs = Vec::new();
        for (i, d) in domains.iter().enumerate() {
            let argument = arguments.iter().find(|a| usize::from(a.0) == i).map(|a| a.1);
            let init = argument.filter(|_| running || constants >> i & 1 == 1).unwrap_or(resting[i]);
            regs.push(layout.slot(format!("{name}.r{i}"), *d, Class::Own, init));
        }
        ContextSlots { pc, regs, resting, constants, rests }
    }

    /// A context to load into.
    #[inline]
    pub(crate) fn blank() -> Context {
        Context { pc: 0, regs: [0; REGS] }
    }

    /// Whether the context is idle or has ended.
    pub(crate) fn idle<S: Store>(&self, store: &S) -> bool {
        store.get(self.pc) == 0
    }

    /// Where the context rests; `None` if it is idle.
    pub(crate) fn at<S: Store>(&self, store: &S) -> Option<Pc> {
        let index = usize::try_from(store.get(self.pc)).ok()?.checked_sub(1)?;
        self.rests.get(index).map(|r| r.0)
    }

    fn live(&self, index: i64) -> u64 {
        usize::try_from(index - 1).ok().and_then(|i| self.rests.get(i)).map_or(0, |r| r.1)
    }

    /// Reads the context; `false` if it is idle.
    #[inline]
    pub(crate) fn load<S: Store>(&self, store: &S, context: &mut Context) -> bool {
        let Some(index) = usize::try_from(store.get(self.pc)).ok().and_then(|i| i.checked_sub(1)) else {
            return false;
        };
        let (pc, live) = self.rests[index];
        context.pc = pc;
        let mut wanted = (live | self.constants) & self.all();
        while wanted != 0 {
            let r = wanted.trailing_zeros() as usize;
            context.regs[r] = store.get(self.regs[r]);
            wanted &= wanted - 1;
        }
        true
    }

    fn all(&self) -> u64 {
        if self.regs.len() >= 64 { u64::MAX } else { (1 << self.regs.len()) - 1 }
    }

    /// Writes the context back at its new rest point; `None` ends it.
    pub(crate) fn save<S: Store>(&self, store: &mut S, context: Option<&Context>) {
        let before = self.live(store.get(self.pc));
        let index = context
            .and_then(|c| self.rests.binary_search_by_key(&c.pc, |r| r.0).ok())
            .map_or(0, |i| i64::try_from(i + 1).unwrap_or(0));
        store.set(self.pc, index);
        let after = self.live(index);
        let mut touched = (before | after) & !self.constants & self.all();
        while touched != 0 {
            let r = touched.trailing_zeros() as usize;
            let value = match context {
                Some(c) if after >> r & 1 == 1 => c.regs[r],
                _ => self.resting[r],
            };
            store.set(self.regs[r], value);
            touched &= touched - 1;
        }
    }

    /// A context at the start of an entry with these arguments.
    pub(crate) fn start(entry: &Entry, arguments: &[i64]) -> Context {
        let mut context = Context { pc: entry.start, regs: [0; REGS] };
        for (param, value) in entry.params.iter().zip(arguments) {
            context.regs[usize::from(param.reg)] = *value;
        }
        context
    }
}
