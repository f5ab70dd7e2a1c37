//! What went wrong, where no pattern of reclaim fits: overwritten data, old data, a refusing firmware, broken bookkeeping.
//!
//! *Promise*: as in `cause`, each part of a sentence is a step of the story, or a state that the last step found.

use cache_model::event::{Event, EventKind};
use sev_arch::Tag;
use sim_core::state::SlotId;
use svm_policy::Prim;

use super::cause::Causes;
use super::effect::Seen;
use crate::firmware::{Status, Use};
use crate::label::{Actor, Broken, NewOwner, Notes, What};
use crate::machine::Machine;

/// A step's number in a sentence.
fn at(step: usize) -> String {
    format!("(step {})", step + 1)
}

/// A list in a sentence.
fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [firsts @ .., last] => format!("{} and {last}", firsts.join(", ")),
    }
}

impl Causes {
    /// Why the last step ended in an event, in general.
    pub(super) fn in_general(
        &self,
        machine: &Machine,
        event: Event,
        seen: &Seen<'_>,
        notes: &Notes,
    ) -> Option<String> {
        let end = self.moments.len().checked_sub(1)?;
        let place = event.line.zip(event.tag);
        match event.kind {
            EventKind::Latent => place.and_then(|(line, tag)| self.left_behind(machine, line, tag, end)),
            EventKind::Clobber | EventKind::HostDirty => {
                place.and_then(|(line, tag)| self.overwritten(machine, line, tag, end))
            }
            EventKind::Stale | EventKind::Leak => {
                place.and_then(|(line, tag)| self.old_data(machine, line, tag, end))
            }
            EventKind::Garbage => {
                place.and_then(|(line, tag)| self.wrong_key(machine, line, tag, seen, end))
            }
            EventKind::RmpFault => place.map(|(line, _)| {
                let page = machine.line_name(line);
                format!(
                    "{} accessed {page} {} while the RMP still assigned it to a guest: the access was refused, and \
                     nothing is lost",
                    self.who(machine, end),
                    at(end)
                )
            }),
            EventKind::Firmware => self.refused(machine, seen, notes.status?, end),
            EventKind::Tracking => self.broken(machine, notes.broken?.0, end),
            EventKind::Deadlock => Some(format!(
                "{} waits for a lock that it holds itself, or that is held by what it interrupted {}",
                self.who(machine, end),
                at(end)
            )),
            // It is of a whole schedule, not of a step.
            EventKind::HungTask => None,
            EventKind::SleepInAtomic => {
                let since = self.since(end, |m, after| {
                    let on = &machine.pcpus[usize::from(m)];
                    (after == on.irq_off).then_some("interrupts").or((after == on.preempt).then_some("preemption"))
                });
                let why = since.map_or_else(
                    || "in an IPI's handler".to_owned(),
                    |(step, what)| format!("with {what} off since step {}", step + 1),
                );
                Some(format!("{} may sleep there {}, {why}", self.who(machine, end), at(end)))
            }
            EventKind::SleepNonBlockable => {
                let Actor::Task(t) = self.moments[end].actor else { return None };
                let slot = machine.tasks[usize::from(t)].non_block;
                let began = self.changed(end, slot);
                let began = began.map_or_else(String::new, |step| format!(" by step {}", step + 1));
                Some(format!(
                    "{} had said{began} that it may not sleep, as the OOM reaper does, and takes a lock that sleeps {}",
                    self.who(machine, end),
                    at(end)
                ))
            }
        }
    }

    /// The last step before `end` that changed one of the slots of the pCPU of the last, as `of` names them.
    fn since<T>(&self, end: usize, of: impl Fn(u16, SlotId) -> Option<T>) -> Option<(usize, T)> {
        let pcpu = self.moments[end].pcpu?;
        (0..end).rev().find_map(|s| {
            let risen = self.moments[s].changed.iter().filter(|(_, was, is)| is > was);
            risen.filter_map(|(slot, ..)| of(pcpu, *slot)).next().map(|what| (s, what))
        })
    }

    /// Who made a step, as in a sentence.
    fn who(&self, machine: &Machine, step: usize) -> String {
        if self.moments[step].prim == Some(Prim::PspWrite) {
            return format!("the firmware, for {},", machine.actor_name(self.moments[step].actor));
        }
        match (self.moments[step].actor, self.moments[step].what) {
            (Actor::World, Some(What::Reuse { by: NewOwner::Device, .. })) => "a device".to_owned(),
            (Actor::World, _) => "the page's next owner".to_owned(),
            (Actor::Irq(p), _) => format!("the handler on CPU{p}"),
            (actor, _) => machine.actor_name(actor),
        }
    }

    /// The last step before `end` that changed a slot.
    fn changed(&self, end: usize, slot: SlotId) -> Option<usize> {
        self.last(end, |m| m.changed.iter().any(|c| c.0 == slot))
    }

    /// The last step before `end` that changed a slot to a value.
    fn became(&self, end: usize, slot: SlotId, value: i64) -> Option<usize> {
        self.last(end, |m| m.changed.iter().any(|c| c.0 == slot && c.2 == value))
    }

    /// A dirty line stays behind when its page goes.
    fn left_behind(&self, machine: &Machine, line: u32, tag: Tag, end: usize) -> Option<String> {
        let page = machine.page_of(line);
        let name = &machine.spec.pages[page as usize].0;
        if self.moments[end].stores(line, tag) {
            let took = self.last(end, |m| {
                matches!(m.prim, Some(Prim::UserReuse | Prim::FreePage)) && m.page == Some(page)
            })?;
            return Some(format!(
                "the guest still had the page: {} dirtied {name} {} though {} had taken it away {}, and no flush that came \
                 before that helps",
                self.who(machine, end),
                at(end),
                self.who(machine, took),
                at(took)
            ));
        }
        let wrote = self.last(end, |m| m.stores(line, tag))?;
        let pcpu = self.moments[wrote].pcpu?;
        let writer = self.who(machine, wrote);
        let goer = self.who(machine, end);
        let went = match self.moments[end].prim {
            Some(Prim::UserReuse) => "took it for itself",
            Some(Prim::FreePage) => "freed it",
            _ => "gave it away",
        };
        let dirtied = format!("{writer} had dirtied {name} on CPU{pcpu} {}", at(wrote));
        let gone = format!("{goer} {went} {}", at(end));
        if let Some(tried) = self.tried(machine, line, tag, end) {
            let why = if self.moments[tried].prim == Some(Prim::ClflushPage) {
                "went through the host's mapping, which does not reach a guest's lines on this part"
                    .to_owned()
            } else {
                let unmapped = self.last(tried, |m| m.prim == Some(Prim::ZapUserPte) && m.page == Some(page));
                let unmapped = unmapped.map_or_else(String::new, at);
                format!("faulted, for the page was mapped no more {unmapped}, and nothing else was tried")
            };
            return Some(format!("the flush of the page {} {why}: {dirtied}, and {gone}", at(tried)));
        }
        if let Some(flush) = self.flush(pcpu, wrote, end) {
            return Some(format!(
                "CPU{pcpu} wrote caches back {}, but not the one that the line was in: {dirtied}, and {gone}",
                at(flush)
            ));
        }
        let mut reached: Vec<u16> =
            self.moments[wrote..end].iter().filter(|m| m.flushed).filter_map(|m| m.pcpu).collect();
        reached.sort_unstable();
        reached.dedup();
        let offline = self.last(end, |m| m.offline == Some(pcpu)).map_or_else(String::new, |step| {
            format!(", which had left the mask of those that are online {}", at(step))
        });
        if !reached.is_empty() {
            let reached: Vec<String> = reached.iter().map(|p| format!("CPU{p}")).collect();
            return Some(format!(
                "the write-back reached {} and not CPU{pcpu}{offline}: {dirtied}, and {gone}",
                list(&reached)
            ));
        }
        let early = self.last(wrote, |m| m.flushed && m.pcpu == Some(pcpu));
        if let Some(early) = early {
            return Some(format!(
                "the write-back came too early: CPU{pcpu} wrote its caches back {}, {writer} dirtied {name} there \
                 afterwards {}, and {gone}",
                at(early),
                at(wrote)
            ));
        }
        if !offline.is_empty() {
            return Some(format!("nobody asked CPU{pcpu}{offline}: {dirtied}, and {gone}"));
        }
        Some(format!(
            "nothing wrote the line back: {dirtied}, and {gone} with no flush of CPU{pcpu}'s caches, or of the page, in \
             between"
        ))
    }

    /// The last flush of the page itself after its line was dirtied.
    pub(super) fn tried(&self, machine: &Machine, line: u32, tag: Tag, end: usize) -> Option<usize> {
        let wrote = self.last(end, |m| m.stores(line, tag))?;
        let page = Some(machine.page_of(line));
        self.last(end, |m| {
            matches!(m.prim, Some(Prim::ClflushPage | Prim::ClwbPage | Prim::VmPageFlush)) && m.page == page
        })
        .filter(|tried| *tried > wrote)
    }

    /// A dirty line reaches memory after newer data has.
    fn overwritten(&self, machine: &Machine, line: u32, tag: Tag, end: usize) -> Option<String> {
        let name = machine.line_name(line);
        let newer = self.last(end, |m| m.stored.iter().any(|s| s.0 == line && s.1 != tag))?;
        let owner = if tag == Tag::HOST { "the host's mapping" } else { "its guest's key" };
        let Some(wrote) = self.last(newer, |m| m.stores(line, tag)) else {
            let wrote = self.last(end, |m| m.stores(line, tag))?;
            return Some(format!(
                "{} stored to {name} under {owner} {}, though the page was another's: what {} had written {} is lost",
                self.who(machine, wrote),
                at(wrote),
                self.who(machine, newer),
                at(newer)
            ));
        };
        Some(format!(
            "no flush came between two writers of {name}: {} dirtied it under {owner} {}, {} stored newer data past that \
             line {}, and the line was written back over it afterwards {}",
            self.who(machine, wrote),
            at(wrote),
            self.who(machine, newer),
            at(newer),
            at(end)
        ))
    }

    /// A reader hits a copy, or finds memory, older than the truth.
    fn old_data(&self, machine: &Machine, line: u32, tag: Tag, end: usize) -> Option<String> {
        let name = machine.line_name(line);
        let reader = self.who(machine, end);
        let wrote = self.last(end, |m| m.stored.iter().any(|s| s.0 == line));
        if let Some(dropped) = self.last(end, |m| m.prim == Some(Prim::Invd)) {
            let wrote = self.last(dropped, |m| m.stores(line, tag))?;
            return Some(format!(
                "INVD {} dropped what {} had written to {name} {}: {reader} read what memory held before {}",
                at(dropped),
                self.who(machine, wrote),
                at(wrote),
                at(end)
            ));
        }
        let wrote = wrote?;
        let Some(copy) = self.last(end, |m| m.gained(line, tag)) else {
            return Some(format!(
                "{reader} read {name} from memory {} while what {} had written {} was still in a cache under another tag",
                at(end),
                self.who(machine, wrote),
                at(wrote)
            ));
        };
        let kept = self
            .last(end, |m| m.flushed)
            .filter(|s| *s > copy)
            .map_or_else(String::new, |s| format!(", was written back but not invalidated {}", at(s)));
        if wrote > copy {
            return Some(format!(
                "a copy outlived its data: {name} came into a cache under the reader's tag {}{kept}, {} wrote the page past \
                 that copy {}, and {reader} hit it {}",
                at(copy),
                self.who(machine, wrote),
                at(wrote),
                at(end)
            ));
        }
        Some(format!(
            "a copy outlived its owner: {} wrote {name} {}, the line stayed in a cache under that tag{kept}, and {reader} \
             hit it {}",
            self.who(machine, copy),
            at(copy),
            at(end)
        ))
    }

    /// Written under one key, read under another.
    fn wrong_key(
        &self,
        machine: &Machine,
        line: u32,
        tag: Tag,
        seen: &Seen<'_>,
        end: usize,
    ) -> Option<String> {
        let name = machine.line_name(line);
        let key = machine.dram(line, seen.after)?.key;
        let own = |t: Tag| {
            if t == Tag::HOST {
                "without a key of a guest's".to_owned()
            } else {
                format!("under {}'s key", machine.tag_name(t))
            }
        };
        let wrote = self.last(end, |m| m.stores(line, key));
        let by = wrote.map_or_else(
            || format!("memory holds {name} {} from the start", own(key)),
            |w| format!("{} wrote {name} {} {}", self.who(machine, w), own(key), at(w)),
        );
        Some(format!(
            "writer and reader disagree about the key, which no flush mends: {by}, and {} read it {} {}",
            self.who(machine, end),
            own(tag),
            at(end)
        ))
    }

    /// The firmware refused.
    fn refused(&self, machine: &Machine, seen: &Seen<'_>, status: Status, end: usize) -> Option<String> {
        let slots = machine.layout.slots();
        let named = |start: &str| {
            let start = start.to_owned();
            (0u32..)
                .zip(slots)
                .filter(move |(_, s)| s.name.starts_with(&start))
                .map(|(id, s)| (SlotId(id), s.name.as_str()))
        };
        let who = self.who(machine, end);
        match status {
            Status::WbinvdRequired => {
                let missing = |(slot, _): &(SlotId, &str)| seen.before[slot.0 as usize] == 0;
                let (slot, name) = named("fw.wbinvd_done.pcpu").find(missing)?;
                let pcpu: u16 = name.rsplit("pcpu").next()?.parse().ok()?;
                let taken = self.became(end, slot, 0);
                let since = taken.map_or_else(
                    || "since the firmware was started".to_owned(),
                    |s| format!("since {} took its flag away {}", self.who(machine, s), at(s)),
                );
                let kept = self
                    .last(end, |m| m.prim == Some(Prim::FlushEnd) && m.pcpu == Some(pcpu))
                    .filter(|s| taken.is_none_or(|t| *s > t))
                    .map_or_else(String::new, |s| format!("; the WBNOINVD there {} does not count", at(s)));
                Some(format!(
                    "DF_FLUSH wants WBINVD on every thread first: CPU{pcpu} has executed none {since}{kept}"
                ))
            }
            Status::DfFlushRequired => {
                let dirty = |(slot, _): &(SlotId, &str)| seen.before[slot.0 as usize] == Use::Dirty as i64;
                let (slot, name) = named("fw.asid").find(dirty)?;
                let asid = name.trim_start_matches("fw.asid").split('.').next()?;
                let since = self.became(end, slot, Use::Dirty as i64).map_or_else(
                    || "from the start".to_owned(),
                    |s| format!("since {} gave it up {}", self.who(machine, s), at(s)),
                );
                Some(format!(
                    "{who} wants an ASID to be clean {} that is not: lines of ASID {asid} may be cached {since}, and no \
                     DF_FLUSH has succeeded after it",
                    at(end)
                ))
            }
            Status::Success
            | Status::InvalidPlatformState
            | Status::InvalidGuestState
            | Status::Inactive
            | Status::AsidOwned
            | Status::InvalidAsid
            | Status::InvalidGuest
            | Status::Active
            | Status::InvalidParam => {
                Some(format!("the firmware answered {} to {who} {}", status.name(), at(end)))
            }
        }
    }

    /// The bookkeeping broke.
    fn broken(&self, machine: &Machine, how: Broken, end: usize) -> Option<String> {
        let who = self.who(machine, end);
        let name = |slot: SlotId| machine.owner_of_state(slot);
        let by = |step: usize| format!("{} {}", self.who(machine, step), at(step));
        Some(match how {
            Broken::MaskNull(slot) => {
                let touched =
                    self.last(end, |m| m.prim == Some(Prim::ZallocMask) && m.touched.contains(&slot));
                let never = touched.map_or_else(
                    || "nothing had allocated it".to_owned(),
                    |s| format!("{} had found no memory for it {}", self.who(machine, s), at(s)),
                );
                format!("{who} used {} {}, which was NULL: {never}", name(slot), at(end))
            }
            Broken::MaskFreed(slot) => {
                let freed = self.changed(end, slot).map_or_else(String::new, |s| format!(": by {}", by(s)));
                format!("{who} used {} {} after it was freed{freed}", name(slot), at(end))
            }
            Broken::MaskLeaked(slot) => {
                let allocated = self.changed(end, slot);
                let allocated = allocated.map_or_else(String::new, |s| format!(", allocated by {},", by(s)));
                format!(
                    "the mask leaked: {who} freed the structure that {} is in {}, and nobody had freed the mask{}",
                    name(slot),
                    at(end),
                    allocated.trim_end_matches(',')
                )
            }
            Broken::MaskAllocatedTwice(slot) => {
                let first = self.changed(end, slot).map_or_else(String::new, |s| format!(" by {}", by(s)));
                format!(
                    "{who} allocated {} {} though it was there{first}: that one leaked",
                    name(slot),
                    at(end)
                )
            }
            Broken::MaskFreedTwice(slot) | Broken::ObjectFreedTwice(slot) => {
                let first =
                    self.changed(end, slot).map_or_else(String::new, |s| format!(": first by {}", by(s)));
                format!("{} was freed twice, now by {}{first}", name(slot), by(end))
            }
            Broken::LocalMaskNull(mask) => {
                let mask = machine.local_mask(mask);
                format!(
                    "{who} used its mask {mask} {}, which is NULL: not allocated, or there was no memory",
                    at(end)
                )
            }
            Broken::LocalMaskFreed(mask) => {
                format!("{who} used its mask {} {} after it had freed it", machine.local_mask(mask), at(end))
            }
            Broken::LocalMaskLeaked(mask) => format!(
                "the mask leaked: {who} left the block of its mask {} {} and had not freed it",
                machine.local_mask(mask),
                at(end)
            ),
            Broken::LocalMaskAllocatedTwice(mask) => format!(
                "{who} allocated its mask {} {} though it was there: that one leaked",
                machine.local_mask(mask),
                at(end)
            ),
            Broken::LocalMaskFreedTwice(mask) => {
                format!("{who} freed its mask {} twice, now {}", machine.local_mask(mask), at(end))
            }
            Broken::ObjectGone(slot) => match self.changed(end, slot) {
                Some(freed) => format!(
                    "use after free: {} freed {}, and {who} used it afterwards {}",
                    by(freed),
                    name(slot),
                    at(end)
                ),
                None => format!("{who} used {} {}, which nobody had allocated", name(slot), at(end)),
            },
            Broken::ObjectLeaked(slot) => {
                let allocated = self.changed(end, slot);
                let allocated = allocated.map_or_else(String::new, |s| format!(", allocated by {},", by(s)));
                format!(
                    "{}{allocated} leaked: nothing refers to it any more where {who} ends {}, and nobody has freed it",
                    name(slot),
                    at(end)
                )
            }
            Broken::NoSuch => {
                format!(
                    "{who} went by a reference that is NULL, or to an element that is not there {}",
                    at(end)
                )
            }
            Broken::NoPcpu => format!("{who} called a CPU that does not exist {}", at(end)),
            Broken::NoBit => format!("{who} took a number for a CPU's that is none's {}", at(end)),
            Broken::NoAsid => format!("{who} gave a VM an ASID that does not exist {}", at(end)),
            Broken::PageFreedTwice(page) => {
                let page = &machine.spec.pages[page as usize].0;
                format!("{who} freed {page} {}, which was free already", at(end))
            }
            Broken::PageNotVms(page) => {
                let page = &machine.spec.pages[page as usize].0;
                format!("{who} took {page} for itself {}, which none of its VMs had", at(end))
            }
            Broken::PageTaken(page) => {
                let page = &machine.spec.pages[page as usize].0;
                format!("{who} allocated {page} {}, which a VM has", at(end))
            }
            Broken::NotOff => format!("{who} turned preemption on {}, which was not off", at(end)),
            Broken::LeftOff => format!("{who} ended {} with interrupts or preemption off", at(end)),
            Broken::LeftHeld(slot) => {
                let lock = &machine.layout.slots()[slot.0 as usize].name;
                format!("{who} ended {} and has not given {lock} back", at(end))
            }
            Broken::NotHeld => format!("{who} gave back a lock that it did not hold {}", at(end)),
            Broken::LockAssertion => format!("a lock is not held as {who} asserts {}", at(end)),
            Broken::Warned => {
                format!(
                    "what the text takes for impossible is so: the condition holds that {who} warns of {}",
                    at(end)
                )
            }
            Broken::Irqs => format!("interrupts are not off or on as {who} asserts {}", at(end)),
            Broken::Count => {
                format!("{who} counted references {} where none is left: the count is not above 0", at(end))
            }
        })
    }
}

impl Machine {
    /// What it is whose state a slot keeps: a mask, an object or a structure.
    fn owner_of_state(&self, slot: SlotId) -> String {
        let name = &self.layout.slots()[slot.0 as usize].name;
        name.strip_suffix(".state").unwrap_or(name).to_owned()
    }

    /// The name of a local mask.
    fn local_mask(&self, mask: u16) -> &str {
        self.code.masks.get(usize::from(mask)).map_or("", String::as_str)
    }

    /// How the bookkeeping broke, in one sentence.
    pub(super) fn how_broken(&self, how: Broken) -> String {
        match how {
            Broken::MaskNull(slot) => format!("{} is NULL, and was used", self.owner_of_state(slot)),
            Broken::MaskFreed(slot) => format!("{} was used after it was freed", self.owner_of_state(slot)),
            Broken::MaskLeaked(slot) => {
                format!("{} leaked: what it is in was freed, and it was not", self.owner_of_state(slot))
            }
            Broken::MaskAllocatedTwice(slot) => {
                format!("{} was allocated again, and what it was leaked", self.owner_of_state(slot))
            }
            Broken::MaskFreedTwice(slot) | Broken::ObjectFreedTwice(slot) => {
                format!("{} was freed twice", self.owner_of_state(slot))
            }
            Broken::ObjectGone(slot) => {
                format!("{} was used, and is not allocated", self.owner_of_state(slot))
            }
            Broken::ObjectLeaked(slot) => {
                format!("{} leaked: nothing refers to it, and it is there", self.owner_of_state(slot))
            }
            Broken::NoSuch => {
                "a reference that is NULL, or an element that is not there, was used".to_owned()
            }
            Broken::NoPcpu => "a CPU that does not exist was called".to_owned(),
            Broken::NoBit => "a number was taken for a CPU's that is none's".to_owned(),
            Broken::NoAsid => "a VM got an ASID that does not exist".to_owned(),
            Broken::PageFreedTwice(page) => {
                format!("page {} was freed twice", self.spec.pages[page as usize].0)
            }
            Broken::PageNotVms(page) => {
                format!("page {} was reused, and no VM of the VMM had it", self.spec.pages[page as usize].0)
            }
            Broken::PageTaken(page) => {
                format!("page {} was allocated, and a VM has it", self.spec.pages[page as usize].0)
            }
            Broken::NotOff => "preemption was turned on where it was not off".to_owned(),
            Broken::LeftOff => "a context ended with interrupts or preemption off".to_owned(),
            Broken::LeftHeld(slot) => {
                format!("{} is held by a context that has ended", self.layout.slots()[slot.0 as usize].name)
            }
            Broken::NotHeld => "a lock was given back by who does not hold it".to_owned(),
            Broken::LockAssertion => "a lock is not held as asserted".to_owned(),
            Broken::Warned => "the condition of a WARN_ON holds".to_owned(),
            Broken::Irqs => "interrupts are not off or on as asserted".to_owned(),
            Broken::Count => "a reference count is not above 0".to_owned(),
            Broken::LocalMaskNull(mask) => {
                format!("the local mask {} is NULL, and was used", self.local_mask(mask))
            }
            Broken::LocalMaskFreed(mask) => {
                format!("the local mask {} was used after it was freed", self.local_mask(mask))
            }
            Broken::LocalMaskLeaked(mask) => {
                format!(
                    "the local mask {} leaked: its block ended, and it was not freed",
                    self.local_mask(mask)
                )
            }
            Broken::LocalMaskAllocatedTwice(mask) => {
                format!(
                    "the local mask {} was allocated again, and what it was leaked",
                    self.local_mask(mask)
                )
            }
            Broken::LocalMaskFreedTwice(mask) => {
                format!("the local mask {} was freed twice", self.local_mask(mask))
            }
        }
    }

    /// Which tasks do not end, where the last steps came back to a state that was passed before.
    pub(super) fn hung(&self, passed: &[Vec<i64>], words: &[i64]) -> Option<String> {
        let from = passed.iter().position(|before| before == words).filter(|from| *from < passed.len())?;
        let store = sim_core::state::Plain { words: &mut words.to_vec() };
        let tasks: Vec<String> =
            self.hanging(&store).map(|task| self.actor_name(Actor::Task(task))).collect();
        let round = if from + 1 == passed.len() {
            format!("step {} changes nothing, and may come again and again", passed.len())
        } else {
            format!("steps {} to {} lead back to where they began", from + 1, passed.len())
        };
        (!tasks.is_empty())
            .then(|| format!("{} can never end: {round}, and nothing else helps", list(&tasks)))
    }

    /// Who waits for what, where nobody can go on: each task that has not ended, and what keeps pCPUs from handlers.
    pub(super) fn stuck(&self, causes: &Causes, words: &[i64]) -> Option<String> {
        use sim_core::choice::Scripted;
        let (mut waits, mut shut) = (Vec::new(), Vec::new());
        for actor in self.actors() {
            let (mut words, mut notes) = (words.to_vec(), Notes::default());
            let mut memory = self.shadow()?;
            let mut store = sim_core::state::Plain { words: &mut words };
            match self.step(&mut store, &mut memory, actor, &mut Scripted::new(&[]), &mut notes) {
                crate::run::Stepped::Done if matches!(actor, Actor::Cache | Actor::World) => {}
                crate::run::Stepped::Done => return None,
                // No IPI is on its way: nothing to wait for.
                crate::run::Stepped::Blocked(slot) if self.pcpus.iter().any(|p| p.pending == slot) => {}
                crate::run::Stepped::Blocked(slot) => match actor {
                    Actor::Irq(p) if self.pcpus[usize::from(p)].irq_off == slot => {
                        let since = causes.last(causes.moments.len(), |m| {
                            m.changed.iter().any(|(changed, was, is)| *changed == slot && is > was)
                        });
                        let since = since.map_or_else(String::new, |s| {
                            format!(" since {} turned them off {}", causes.who(self, s), at(s))
                        });
                        shut.push(format!("CPU{p} has interrupts off{since}"));
                    }
                    Actor::Task(_) | Actor::Irq(_) => {
                        let who = self.actor_name(actor);
                        waits.push(format!("{who} waits for {}", self.waited_for(slot)));
                    }
                    Actor::Preempt(_) | Actor::Buffer(_) | Actor::Cache | Actor::World => {}
                },
                crate::run::Stepped::Idle => {}
            }
        }
        let shut = if shut.is_empty() { String::new() } else { format!("; {}", list(&shut)) };
        (!waits.is_empty()).then(|| format!("nobody can go on: {}{shut}", list(&waits)))
    }

    /// What somebody waits for whose slot this is.
    fn waited_for(&self, slot: SlotId) -> String {
        let calls = self.calls.iter().position(|call| *call == slot);
        match calls.map(|at| at % self.pcpus.len().max(1)) {
            Some(pcpu) => format!("the handler on CPU{pcpu}"),
            None => self.layout.slots()[slot.0 as usize].name.clone(),
        }
    }
}
