//! What went wrong in general, found in the steps of a story that end in a dirty line left behind.
//!
//! *Promise*: a sentence is only said if each of its parts is a step of the story; where no pattern fits, nothing is.

use cache_model::event::{Event, EventKind};
use sev_arch::{Access, PcpuId, Tag};
use sim_core::state::{Plain, SlotId};
use svm_lang::VarKind;
use svm_policy::{Op, Operand, Prim, RmwOp};

use super::effect::Seen;
use crate::label::{Actor, Notes, What};
use crate::machine::Machine;

/// A word of a mask that a step read or changed.
#[derive(Clone, Copy, Debug)]
struct MaskWord {
    slot: SlotId,
    /// The pCPU of its lowest bit.
    first: u32,
    before: i64,
    after: i64,
    /// The bits that the step looked at.
    looked: i64,
    /// The bits that it set, whether or not they were set before.
    set: i64,
}

/// Lines, each with the tag of a copy.
type Tagged = Vec<(u32, Tag)>;

/// What one step means for a cause.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) actor: Actor,
    pub(super) what: Option<What>,
    pub(super) pcpu: Option<u16>,
    pub(super) prim: Option<Prim>,
    /// The page that a built-in was given.
    pub(super) page: Option<u32>,
    /// Lines that somebody stored to, and under which tag.
    pub(super) stored: Tagged,
    /// Lines that became dirty, and that came into a cache.
    dirtied: Tagged,
    filled: Tagged,
    /// Slots that changed: before and after.
    pub(super) changed: Vec<(SlotId, i64, i64)>,
    /// Slots that the step touched.
    pub(super) touched: Vec<SlotId>,
    /// The pCPU that left the mask of those that are online.
    pub(super) offline: Option<u16>,
    wrote: Option<(u32, Tag)>,
    zapped: Option<u32>,
    mask: Option<MaskWord>,
    /// The pCPU that was asked to write its caches back.
    asked: Option<u16>,
    /// Whose IPI was taken.
    took: Option<u16>,
    /// Whether its pCPU wrote its caches back.
    pub(super) flushed: bool,
}

impl Moment {
    /// Whether it stored to a line under a tag, or made it dirty (as #VMEXIT does with a VMSA).
    pub(super) fn stores(&self, line: u32, tag: Tag) -> bool {
        self.stored.contains(&(line, tag)) || self.dirtied.contains(&(line, tag))
    }

    /// Whether a cache got a copy of a line under a tag, or one there became dirty.
    pub(super) fn gained(&self, line: u32, tag: Tag) -> bool {
        self.filled.contains(&(line, tag)) || self.dirtied.contains(&(line, tag))
    }
}

/// Whether a built-in writes caches back.
const fn is_flush(prim: Prim) -> bool {
    matches!(prim, Prim::FlushPrivate | Prim::FlushShared | Prim::FlushEnd)
}

/// The steps so far, as far as causes are made of them.
#[derive(Debug, Default)]
pub(super) struct Causes {
    pub(super) moments: Vec<Moment>,
}

impl Causes {
    /// The next step.
    pub(super) fn see(&mut self, machine: &Machine, seen: &Seen<'_>, pcpu: Option<PcpuId>) {
        let op = match seen.what {
            Some(What::Text { pc }) => Some((pc, machine.code.ops[usize::from(pc)])),
            _ => None,
        };
        let prim = match op {
            Some((_, Op::Prim { prim, .. })) => Some(prim),
            _ => None,
        };
        let wrote = match (seen.what, seen.actor) {
            (Some(What::Guest { line, access: Access::Write, .. }), Actor::Task(t)) => {
                let vm = machine.tasks[usize::from(t)].vcpu.as_ref().map(|v| v.vm);
                let store = Plain { words: &mut seen.before.to_vec() };
                vm.map(|vm| (line, machine.guest_tag(&store, vm, machine.page_of(line))))
            }
            _ => None,
        };
        let asked = match op {
            Some((pc, Op::Prim { prim: Prim::SendCall, args, .. })) => {
                let callback = machine.operand(seen, pc, args[1]).and_then(|c| usize::try_from(c).ok());
                let rose = |p: &crate::machine::PcpuSlots| {
                    seen.after[p.pending.0 as usize] > seen.before[p.pending.0 as usize]
                };
                let to = machine.pcpus.iter().position(rose).and_then(|p| u16::try_from(p).ok());
                to.filter(|_| callback.is_some_and(|c| machine.writes_back(c)))
            }
            _ => None,
        };
        let page = match op {
            Some((pc, Op::Prim { prim, args, .. })) => machine.page_given(seen, pc, prim, args),
            _ => None,
        };
        let (dirtied, filled) = machine.lines_gained(seen);
        let mask = op.and_then(|(pc, op)| machine.mask_word(seen, pc, op));
        let offline =
            mask.filter(|m| machine.layout.slots()[m.slot.0 as usize].name.contains("cpu_online_mask"));
        let offline = offline.map(|m| (m.first, m.before & !m.after)).filter(|(_, gone)| *gone > 0);
        let changed = (0u32..).zip(seen.before.iter().zip(seen.after)).filter(|(_, (was, is))| was != is);
        self.moments.push(Moment {
            actor: seen.actor,
            what: seen.what,
            pcpu: pcpu.map(|p| p.0),
            prim,
            page,
            stored: machine.lines_stored(seen, op, page),
            dirtied,
            filled,
            changed: changed.map(|(id, (was, is))| (SlotId(id), *was, *is)).collect(),
            touched: seen.touched.to_vec(),
            offline: offline.and_then(|(first, gone)| u16::try_from(first + gone.trailing_zeros()).ok()),
            wrote,
            zapped: (prim == Some(Prim::ZapSpte)).then(|| machine.page_of_spte(seen)).flatten(),
            mask,
            asked,
            took: match seen.what {
                Some(What::Take { sender, .. }) => Some(sender),
                _ => None,
            },
            flushed: prim.is_some_and(is_flush),
        });
    }

    /// Why the last step ended in an event, if the steps show it.
    pub(super) fn of(
        &self,
        machine: &Machine,
        event: Event,
        seen: &Seen<'_>,
        notes: &Notes,
    ) -> Option<String> {
        self.of_reclaim(machine, event).or_else(|| self.in_general(machine, event, seen, notes))
    }

    /// The same, where a page was reclaimed too early.
    fn of_reclaim(&self, machine: &Machine, event: Event) -> Option<String> {
        let (EventKind::Latent, Some(line), Some(tag)) = (event.kind, event.line, event.tag) else {
            return None;
        };
        let end = self.moments.len().checked_sub(1)?;
        let freer = self.moments[end].actor;
        let wrote = self.last(end, |m| m.wrote == Some((line, tag)))?;
        let pcpu = self.moments[wrote].pcpu?;
        if self.tried(machine, line, tag, end).is_some() {
            return None;
        }
        let page = machine.page_of(line);
        let zap = self.last(end, |m| m.actor == freer && m.zapped == Some(page))?;
        if self.flush(pcpu, wrote, end).is_some() {
            return None;
        }
        let name = |step: usize| machine.actor_name(self.moments[step].actor);
        let (who, writer, page) = (name(end), name(wrote), &machine.spec.pages[page as usize].0);
        let freed = if self.moments[end].prim == Some(Prim::UserReuse) { "reused" } else { "freed" };
        let dirty = format!("the line of {page} that {writer} had dirtied on CPU{pcpu} (step {})", wrote + 1);
        let asked = self.last(end, |m| m.actor == freer && m.asked == Some(pcpu)).filter(|a| *a > zap);
        // Dirtied only after it had been asked: that it did not wait is not said.
        let unanswered = asked.filter(|asked| wrote < *asked);
        let looks = |s: &usize| self.moments[*s].actor == freer && self.looked(*s, pcpu).is_some();
        let found_clear = |s: &usize| looks(s) && self.looked(*s, pcpu) == Some(false);
        let own = (zap..end).any(|s| self.moments[s].actor == freer && self.moments[s].flushed);
        // Who asked nobody, though it saw the mark once, saw later that it was gone.
        let look = (zap..end).find(|s| if asked.is_none() { found_clear(s) } else { looks(s) });
        let Some(look) = look else {
            return match (asked, own) {
                (None, false) if !(zap..end).any(|s| looks(&s)) => Some(
                    self.too_early(machine, line, pcpu, (wrote, zap, end)).unwrap_or_else(|| {
                        format!(
                            "the page was {freed} without a write-back: {who} never asked CPU{pcpu}, where {writer} had \
                             dirtied {page} (step {})",
                            wrote + 1
                        )
                    }),
                ),
                (Some(_), _) => unanswered.map(|asked| self.not_waited(asked, pcpu, &who, &dirty)),
                (None, _) => None,
            };
        };
        let (mask, bit) = self.bit(look, pcpu)?;
        if mask.before & bit != 0 {
            return unanswered.map(|asked| self.not_waited(asked, pcpu, &who, &dirty));
        }
        let mask_name = &machine.layout.slots()[mask.slot.0 as usize].name;
        let mark = format!("CPU{pcpu} in {mask_name}");
        let found =
            format!("{who} found {mark} not marked (step {}) and {freed} {page} over {dirty}", look + 1);
        let same = |m: &MaskWord| m.slot == mask.slot;
        let change = |s: usize| self.bit(s, pcpu).filter(|(m, _)| same(m));
        let cleared = (0..look)
            .rev()
            .find(|s| change(*s).is_some_and(|(m, bit)| m.before & bit != 0 && m.after & bit == 0));
        let Some(cleared) = cleared else { return Some(format!("the CPU was never marked: {found}")) };
        let by = name(cleared);
        let clear = format!("{by} had cleared that mark (step {})", cleared + 1);
        let by_other = self.moments[cleared].actor != freer;
        let last_look = self.last(cleared, |m| {
            m.actor == self.moments[cleared].actor
                && m.mask.is_some_and(|w| same(&w) && w.bit(pcpu).is_some_and(|bit| w.looked & bit != 0))
        });
        // Set after the clearer looked, so that it cleared what it had not seen.
        let unseen =
            last_look.filter(|l| change(*l).is_some_and(|(m, bit)| m.after & bit == 0)).and_then(|l| {
                (l + 1..cleared)
                    .find(|s| change(*s).is_some_and(|(m, bit)| m.set & bit != 0))
                    .map(|set| (l, set))
            });
        if let Some((l, set)) = unseen {
            return Some(format!(
                "a mark was lost: {by} read the mask (step {}), {} marked CPU{pcpu} (step {}), and {by} then \
                 cleared the mark that it had not seen (step {}); {found}",
                l + 1,
                name(set),
                set + 1,
                cleared + 1
            ));
        }
        if wrote > cleared {
            let flushed = self.flush(pcpu, cleared, wrote).map_or_else(String::new, |flush| {
                format!(", CPU{pcpu} wrote its caches back (step {})", flush + 1)
            });
            let set = (0..cleared).rev().find(|s| change(*s).is_some_and(|(m, bit)| m.set & bit != 0));
            let set = set
                .map_or_else(String::new, |set| format!(" that {} had made (step {})", name(set), set + 1));
            return Some(format!(
                "a vCPU ran on a CPU that was no longer marked: {by} cleared (step {}) the mark of {mark}{set}{flushed}, \
                 {writer} dirtied {page} there afterwards (step {}), and nothing had marked it again when {who} looked \
                 (step {})",
                cleared + 1,
                wrote + 1,
                look + 1
            ));
        }
        let before = self.last(wrote, |m| m.flushed && m.pcpu == Some(pcpu)).filter(|f| {
            // By the same flusher, for the same reclaim.
            self.sender(*f) == Some(self.moments[cleared].actor)
                && self
                    .last(cleared, |m| m.actor == self.moments[cleared].actor && m.zapped.is_some())
                    .is_some_and(|z| z < *f)
        });
        if let Some(flush) = before {
            return Some(format!(
                "a mark was cleared after its flush: CPU{pcpu} wrote its caches back for {by} (step {}), {writer} dirtied \
                 {page} there (step {}), and {by} only then cleared the mark (step {}); {who} found it gone (step {}) and {freed} {page}",
                flush + 1,
                wrote + 1,
                cleared + 1,
                look + 1
            ));
        }
        if let Actor::Irq(_) = self.moments[cleared].actor {
            return Some(format!(
                "the mark was gone before the write-back was done: the handler on CPU{pcpu} cleared it (step {}) and had \
                 not written the caches back yet; {who} found it clear (step {}) and {freed} {page} over {dirty}",
                cleared + 1,
                look + 1
            ));
        }
        // Another flusher, not whoever else clears a mark.
        let flusher = self.last(cleared, |m| m.actor == self.moments[cleared].actor && m.zapped.is_some());
        if !by_other || flusher.is_none() {
            return None;
        }
        let sent = (cleared..look).find(|s| {
            self.moments[*s].actor == self.moments[cleared].actor && self.moments[*s].asked == Some(pcpu)
        });
        let state = match sent {
            Some(sent) => format!("its IPI to CPU{pcpu} was sent (step {}) but not yet answered", sent + 1),
            None => format!("had not yet asked CPU{pcpu} to write back"),
        };
        Some(format!(
            "the second flusher found the mask empty while the first one's write-back was still outstanding: {clear} and \
             {state}; {who} found it clear (step {}) and {freed} {page} over {dirty}",
            look + 1
        ))
    }

    /// Whoever gave the page away flushed it, or the caches of the pCPU, before the line was dirtied there.
    fn too_early(
        &self,
        machine: &Machine,
        line: u32,
        pcpu: u16,
        (wrote, zap, end): (usize, usize, usize),
    ) -> Option<String> {
        let freer = self.moments[end].actor;
        let page = machine.page_of(line);
        let name = |step: usize| machine.actor_name(self.moments[step].actor);
        let of_page = |m: &Moment| {
            m.actor == freer
                && m.page == Some(page)
                && matches!(m.prim, Some(Prim::ClflushPage | Prim::ClwbPage | Prim::VmPageFlush))
        };
        let by_page = self.last(wrote, of_page).map(|s| (s, format!("{} flushed the page", name(s))));
        let of_caches = |m: &Moment| m.flushed && m.pcpu == Some(pcpu);
        let by_caches = self.last(wrote, of_caches).filter(|s| self.sender(*s) == Some(freer));
        let by_caches = by_caches.map(|s| (s, format!("CPU{pcpu} wrote its caches back for {}", name(end))));
        let (flush, flushed) = by_page.max(by_caches)?;
        let taken = if zap > flush {
            format!("{} took the page from its guest only after that flush (step {})", name(end), zap + 1)
        } else {
            format!("though {} had taken the page from its guest before (step {})", name(end), zap + 1)
        };
        Some(format!(
            "the flush came too early: {flushed} (step {}), {} dirtied {} on CPU{pcpu} afterwards (step {}), {taken}",
            flush + 1,
            name(wrote),
            machine.spec.pages[page as usize].0,
            wrote + 1
        ))
    }

    fn not_waited(&self, asked: usize, pcpu: u16, who: &str, dirty: &str) -> String {
        format!(
            "{who} asked CPU{pcpu} to write its caches back (step {}) and did not wait for it: the write-back of \
             {dirty} was still to come",
            asked + 1
        )
    }

    /// The last step before `end` that is so.
    pub(super) fn last(&self, end: usize, is: impl Fn(&Moment) -> bool) -> Option<usize> {
        self.moments[..end].iter().rposition(is)
    }

    /// The last write-back of a pCPU between two steps.
    pub(super) fn flush(&self, pcpu: u16, from: usize, to: usize) -> Option<usize> {
        self.last(to, |m| m.flushed && m.pcpu == Some(pcpu)).filter(|s| *s > from)
    }

    /// Who asked for what a handler did in a step.
    fn sender(&self, step: usize) -> Option<Actor> {
        let actor = self.moments[step].actor;
        if !matches!(actor, Actor::Irq(_)) {
            return Some(actor);
        }
        self.last(step, |m| m.actor == actor && m.took.is_some())
            .and_then(|s| self.moments[s].took)
            .map(Actor::Task)
    }

    /// Whether a step that looked at a pCPU's bit of a mask found it set.
    fn looked(&self, step: usize, pcpu: u16) -> Option<bool> {
        self.bit(step, pcpu).filter(|(m, bit)| m.looked & bit != 0).map(|(m, bit)| m.before & bit != 0)
    }

    /// The word of a mask that a step was about, and a pCPU's bit in it.
    fn bit(&self, step: usize, pcpu: u16) -> Option<(MaskWord, i64)> {
        let word = self.moments[step].mask?;
        Some((word, word.bit(pcpu)?))
    }
}

impl MaskWord {
    /// A pCPU's bit, if it is in this word.
    fn bit(&self, pcpu: u16) -> Option<i64> {
        let at = u32::from(pcpu).checked_sub(self.first).filter(|at| *at < 63)?;
        Some(1 << at)
    }
}

impl Machine {
    /// Whether a callback writes the caches of its pCPU back.
    fn writes_back(&self, callback: usize) -> bool {
        let Some(entry) = self.code.callbacks.get(callback) else { return false };
        let start = self.code.entries[usize::from(*entry)].start;
        let end =
            self.code.entries.iter().map(|e| usize::from(e.start)).filter(|s| *s > usize::from(start)).min();
        self.code.ops[usize::from(start)..end.unwrap_or(self.code.ops.len())]
            .iter()
            .any(|op| matches!(op, Op::Prim { prim, .. } if is_flush(*prim)))
    }

    /// The page that a built-in was given.
    fn page_given(&self, seen: &Seen<'_>, pc: svm_policy::Pc, prim: Prim, args: [Operand; 4]) -> Option<u32> {
        let second = matches!(prim, Prim::VmPageFlush | Prim::ZapSpte | Prim::InstallSpte);
        let first = matches!(
            prim,
            Prim::ClflushPage
                | Prim::ClwbPage
                | Prim::HostWrite
                | Prim::DmaWrite
                | Prim::PspWrite
                | Prim::FreePage
                | Prim::UserReuse
                | Prim::ZapUserPte
        );
        if !first && !second {
            return None;
        }
        let at = usize::from(second);
        let page = u32::try_from(self.operand(seen, pc, args[at])?).ok()?;
        ((page as usize) < self.spec.pages.len()).then_some(page)
    }

    /// The lines that a step stored to, and under which tag.
    fn lines_stored(
        &self,
        seen: &Seen<'_>,
        op: Option<(svm_policy::Pc, Op)>,
        page: Option<u32>,
    ) -> Vec<(u32, Tag)> {
        let store = Plain { words: &mut seen.before.to_vec() };
        let lines = |page: u32| page * self.spec.lines_per_page..(page + 1) * self.spec.lines_per_page;
        let by = match (seen.what, seen.actor, op) {
            (Some(What::Guest { line, access: Access::Write, plain, .. }), Actor::Task(t), _) => {
                let vm = self.tasks[usize::from(t)].vcpu.as_ref().map(|v| v.vm);
                let tag = vm.map(|vm| self.guest_tag(&store, vm, self.page_of(line)));
                return tag.map(|tag| (line, if plain { Tag::HOST } else { tag })).into_iter().collect();
            }
            (Some(What::Reuse { page, access: Access::Write, .. }), ..) => (page, Tag::HOST),
            (_, _, Some((_, Op::Prim { prim: Prim::HostWrite | Prim::DmaWrite, .. }))) => {
                let Some(page) = page else { return Vec::new() };
                (page, Tag::HOST)
            }
            (_, _, Some((pc, Op::Prim { prim: Prim::PspWrite, args, .. }))) => {
                let vm = self.operand(seen, pc, args[1]).and_then(|vm| u16::try_from(vm).ok());
                let Some((page, vm)) = page.zip(vm) else { return Vec::new() };
                (page, self.tag_of_vm(&store, sev_arch::VmId(vm)))
            }
            _ => return Vec::new(),
        };
        lines(by.0).map(|line| (line, by.1)).collect()
    }

    /// The lines that a step made dirty in some cache, and those that it brought into one, with their tags.
    fn lines_gained(&self, seen: &Seen<'_>) -> (Tagged, Tagged) {
        let lines = u32::try_from(self.spec.pages.len()).unwrap_or(0) * self.spec.lines_per_page;
        let (mut dirtied, mut filled) = (Vec::new(), Vec::new());
        for line in 0..lines {
            for tag in self.spec.shape.all_tags() {
                let dirty = |words: &[i64]| !self.dirty_places(line, tag, words).is_empty();
                if dirty(seen.after) && !dirty(seen.before) {
                    dirtied.push((line, tag));
                }
                if self.is_cached(line, tag, seen.after) && !self.is_cached(line, tag, seen.before) {
                    filled.push((line, tag));
                }
            }
        }
        (dirtied, filled)
    }

    /// The page whose nested translation a step touched.
    fn page_of_spte(&self, seen: &Seen<'_>) -> Option<u32> {
        let at = self.sptes.iter().position(|s| seen.touched.contains(s))?;
        u32::try_from(at % self.spec.pages.len().max(1)).ok()
    }

    /// The word of a mask of the texts that a step was about.
    fn mask_word(&self, seen: &Seen<'_>, pc: svm_policy::Pc, op: Op) -> Option<MaskWord> {
        let (Op::Load { place, .. } | Op::Store { place, .. } | Op::Rmw { place, .. }) = op else {
            return None;
        };
        if self.code.vars[usize::from(place.var.0)].kind != VarKind::Mask {
            return None;
        }
        let slot = seen
            .touched
            .iter()
            .copied()
            .find(|s| self.var_of(*s).is_some_and(|(var, _)| var == place.var))?;
        let (_, word) = self.var_of(slot)?;
        let (before, after) = (seen.before[slot.0 as usize], seen.after[slot.0 as usize]);
        let rose = after & !before;
        let (looked, set) = if let Op::Rmw { op, src, .. } = op {
            let operand = self.operand(seen, pc, src);
            match op {
                RmwOp::Or => (0, operand.unwrap_or(rose)),
                RmwOp::Xchg => (-1, rose),
                // A bit that is tested and cleared.
                RmwOp::AndNot => (operand.unwrap_or(before & !after), rose),
                RmwOp::And | RmwOp::Add | RmwOp::CmpXchg | RmwOp::AddUnless | RmwOp::TryLock(_) => (0, rose),
            }
        } else {
            (if matches!(op, Op::Load { .. }) { -1 } else { 0 }, rose)
        };
        let first = word * u32::from(self.spec.assumptions.word_bits);
        Some(MaskWord { slot, first, before, after, looked, set })
    }
}
