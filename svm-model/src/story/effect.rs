//! What a step did, in words: the variables it read or changed, the copies of lines, memory.

use std::cell::RefCell;

use cache_model::lattice::{Copy, Dram, Held, Lines as _, MoveKind, Past, Place};
use cache_model::shadow::Shadow;
use sim_core::state::{Class, Domain, Plain, SlotId, Store};
use svm_lang::VarKind;
use svm_lang::ast::{Object, Type};
use svm_policy::{Context, Lock, Op, Operand, Pc, Prim, RmwOp, VarId};

use crate::context::ContextSlots;
use crate::firmware::{Status, Use};
use crate::label::{Actor, What};
use crate::machine::{Machine, Owner};

/// A plain store that remembers which slots were touched, in order.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    pub(super) words: &'a mut [i64],
    pub(super) touched: RefCell<Vec<SlotId>>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(words: &'a mut [i64]) -> Watched<'a> {
        Watched { words, touched: RefCell::default() }
    }
}

impl Store for Watched<'_> {
    fn get(&self, slot: SlotId) -> i64 {
        self.touched.borrow_mut().push(slot);
        self.words[slot.0 as usize]
    }

    fn set(&mut self, slot: SlotId, value: i64) {
        self.touched.borrow_mut().push(slot);
        self.words[slot.0 as usize] = value;
    }
}

/// One step, as it is told.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) actor: Actor,
    pub(super) what: Option<What>,
    /// Every slot before and after it.
    pub(super) before: &'a [i64],
    pub(super) after: &'a [i64],
    /// What the firmware answered.
    pub(super) status: Option<Status>,
    /// Slots that it touched.
    pub(super) touched: &'a [SlotId],
}

/// A copy in words.
const fn held(copy: Copy) -> &'static str {
    match (copy.held, copy.old) {
        (Held::Clean, _) if copy.foreign => "clean, of a former guest",
        (Held::Dirty, _) if copy.foreign => "dirty, of a former guest",
        (Held::Absent, _) => "-",
        (Held::Clean, false) => "clean",
        (Held::Clean, true) => "clean but old",
        (Held::Dirty, false) => "dirty",
        (Held::Dirty, true) => "dirty and old",
    }
}

/// The name of a value without the end that it has in common with the value's next: `OUTSIDE` of `OUTSIDE_GUEST_MODE`
/// before `IN_GUEST_MODE`.
fn cut<'n>(was: &'n str, is: &str) -> &'n str {
    let constant = |end: &str| end.bytes().all(|c| c == b'_' || c.is_ascii_uppercase() || c.is_ascii_digit());
    let ends = was.match_indices('_').map(|(at, _)| was.split_at(at));
    let mut common = ends.filter(|(start, end)| {
        constant(end) && !start.is_empty() && is.len() > end.len() && is.ends_with(end)
    });
    common.next().map_or(was, |(start, _)| start)
}

/// A place in words.
pub(super) fn place_name(place: Place) -> String {
    match place {
        Place::Private(c) => format!("{c}"),
        Place::L3(x) => format!("L3 of {x}"),
        Place::Flight(x) => format!("leaving {x}"),
    }
}

impl Machine {
    /// What a step did.
    pub(super) fn effect(&self, seen: &Seen<'_>) -> String {
        let mut parts = Vec::new();
        let op = match seen.what {
            Some(What::Text { pc }) => Some((pc, self.code.ops[usize::from(pc)])),
            _ => None,
        };
        let mut told = None;
        if let Some((pc, op)) = op {
            told = self.accessed(seen, op);
            let late = if told.is_none() || op.is_plain_store() { self.buffered(seen, op) } else { None };
            match (late, told) {
                (Some(late), _) => parts.push(late),
                (None, Some(slot)) => parts.push(self.access(seen, pc, op, slot)),
                (None, None) => {}
            }
        }
        self.lines_changed(seen, &mut parts);
        self.slots_changed(seen, told, &mut parts);
        parts.extend(seen.status.filter(|s| s.code() != 0).map(|s| format!("refused: {}", s.name())));
        if parts.is_empty() {
            parts.extend(self.nothing_changed(seen, op.map(|o| o.1)));
        }
        self.handlers_ended(seen, &mut parts);
        parts.join("; ")
    }

    /// The shared slot that an operation is about.
    fn accessed(&self, seen: &Seen<'_>, op: Op) -> Option<SlotId> {
        let (Op::Load { place, .. }
        | Op::Store { place, .. }
        | Op::Rmw { place, .. }
        | Op::Lock { place, .. }
        | Op::Unlock { place, .. }) = op
        else {
            return None;
        };
        let var = &self.vars[usize::from(place.var.0)];
        let slots = var.base..var.base + var.words * var.instances;
        seen.touched.iter().copied().find(|s| slots.contains(&s.0))
    }

    /// An access to a variable: what it was and what it became.
    fn access(&self, seen: &Seen<'_>, pc: Pc, op: Op, slot: SlotId) -> String {
        let at = slot.0 as usize;
        let name = &self.layout.slots()[at].name;
        let (old, new) = (seen.before[at], seen.after[at]);
        let (was, is) = (self.value_name(slot, old), self.value_name(slot, new));
        let changed = old != new;
        let plain = || format!("{name} stays {is}");
        match op {
            Op::Lock { kind: Lock::Read | Lock::DownRead, .. } => format!("{name}: taken to read"),
            Op::Unlock { kind: Lock::Downgrade, .. } => format!("{name}: kept to read"),
            Op::Lock { kind: Lock::Write | Lock::DownWrite, .. } if new > 0 => {
                format!("{name}: waits for its readers; new ones wait behind")
            }
            Op::Lock { kind: Lock::Write | Lock::DownWrite | Lock::Downgrade, .. } => {
                format!("{name}: taken to write")
            }
            Op::Lock { kind: Lock::Completion | Lock::CompleteAll, .. } => format!("{name}: done"),
            Op::Unlock { kind: Lock::Completion | Lock::CompleteAll, .. } => format!("{name}: completed"),
            Op::Lock { kind: Lock::Mutex | Lock::Spin, .. } if !changed => {
                format!("{name}: waited for in vain: {} holds it", self.holder_name(old))
            }
            Op::Lock { kind: Lock::Mutex | Lock::Spin, .. } => format!("{name}: taken"),
            Op::Unlock { kind: Lock::Read | Lock::DownRead, .. } if new > 0 => {
                format!("{name}: released; others still read")
            }
            Op::Unlock { .. } => format!("{name}: released"),
            Op::Store { .. } | Op::Rmw { .. } if changed => format!("{name}: {} -> {is}", cut(&was, &is)),
            Op::Rmw { op: RmwOp::AndNot, src, .. } => self
                .bit(seen, pc, slot, src)
                .map_or_else(plain, |bit| format!("{bit} was clear in {name} {is}")),
            Op::Rmw { op: RmwOp::Or, src, .. } => self
                .bit(seen, pc, slot, src)
                .map_or_else(plain, |bit| format!("{bit} was set in {name} {is}")),
            Op::Rmw { op: RmwOp::CmpXchg, expected, .. } => {
                match self.operand(seen, pc, expected).filter(|value| *value != old) {
                    // Names say enough, and are long.
                    Some(_) if is != old.to_string() && was == is => format!("{name} is {is}"),
                    Some(value) => format!("{name} is {is}, not {}", self.value_name(slot, value)),
                    None => plain(),
                }
            }
            Op::Rmw { op: RmwOp::TryLock(_), .. } => format!("{name}: not to be had"),
            Op::Store { .. } | Op::Rmw { .. } => plain(),
            Op::Load { .. }
            | Op::Set { .. }
            | Op::MaskPut { .. }
            | Op::Jump(_)
            | Op::Branch { .. }
            | Op::Window(_)
            | Op::Choose { .. }
            | Op::ChooseBit { .. }
            | Op::Prim { .. }
            | Op::Halt => format!("{name} is {is}"),
        }
    }

    /// Who holds an exclusive lock whose slot holds this.
    fn holder_name(&self, holder: i64) -> String {
        let holder = usize::try_from(holder - 1).unwrap_or(0);
        match self.spec.tasks.get(holder) {
            Some(task) => task.name.clone(),
            None => format!("the handler on CPU{}", holder - self.spec.tasks.len()),
        }
    }

    /// The one bit of a mask that an operand has.
    pub(super) fn bit(&self, seen: &Seen<'_>, pc: Pc, slot: SlotId, operand: Operand) -> Option<u32> {
        let value = self.operand(seen, pc, operand)?.cast_unsigned();
        let (var, word) = self.var_of(slot)?;
        let is_mask = self.code.vars[usize::from(var.0)].kind == VarKind::Mask;
        let first = self.word_of_mask(word) * u32::from(self.spec.assumptions.word_bits);
        (is_mask && value.is_power_of_two()).then(|| first + value.trailing_zeros())
    }

    /// An operand's value, if the context rested at its operation, so that its registers are known.
    pub(super) fn operand(&self, seen: &Seen<'_>, pc: Pc, operand: Operand) -> Option<i64> {
        let reg = match operand {
            Operand::Const(value) => return Some(value),
            Operand::Reg(reg) => reg,
        };
        let context = self.context_at(seen)?;
        (context.pc == pc).then(|| context.regs[usize::from(reg)])
    }

    /// The context that made the step, as it was before it.
    fn context_at(&self, seen: &Seen<'_>) -> Option<Context> {
        let mut words = seen.before.to_vec();
        let store = Plain { words: &mut words };
        let mut context = ContextSlots::blank();
        let mut load = |slots: &ContextSlots| slots.load(&store, &mut context);
        let found = match seen.actor {
            Actor::Task(t) => {
                let task = &self.tasks[usize::from(t)];
                task.vcpu.as_ref().is_some_and(|v| load(&v.sched)) || load(&task.main)
            }
            Actor::Irq(p) => load(&self.pcpus[usize::from(p)].handler),
            Actor::Preempt(_) | Actor::Buffer(_) | Actor::Cache | Actor::World => false,
        };
        found.then_some(context)
    }

    /// Which word of its mask a word of a variable is: there are arrays of masks.
    fn word_of_mask(&self, word: u32) -> u32 {
        let pcpus = u32::from(self.spec.pcpus());
        word % pcpus.div_ceil(u32::from(self.spec.assumptions.word_bits).max(1)).max(1)
    }

    /// The variable that a slot is of, and which word of it.
    pub(super) fn var_of(&self, slot: SlotId) -> Option<(VarId, u32)> {
        let at = self.vars.iter().position(|v| (v.base..v.base + v.words * v.instances).contains(&slot.0))?;
        let var = &self.vars[at];
        Some((VarId(u16::try_from(at).ok()?), (slot.0 - var.base) % var.words.max(1)))
    }

    /// A slot's value in words.
    pub(super) fn value_name(&self, slot: SlotId, value: i64) -> String {
        let described = &self.layout.slots()[slot.0 as usize];
        let number = usize::try_from(value);
        if let Some((var, word)) = self.var_of(slot) {
            let names = &self.code.vars[usize::from(var.0)].names;
            if let Some((_, name)) = names.iter().find(|(n, _)| *n == value) {
                return name.clone();
            }
            let first = self.word_of_mask(word) * u32::from(self.spec.assumptions.word_bits);
            return match (&self.code.vars[usize::from(var.0)].kind, described.domain) {
                (VarKind::Ref(_), _) if value < 0 => "NULL".to_owned(),
                (VarKind::Ref(Type::Ref(Object::Vm)), _) => format!("vm{value}"),
                (VarKind::Ref(Type::Ref(Object::Vcpu)), _) => format!("vcpu{value}"),
                (VarKind::Ref(Type::Ref(Object::Pool(name))), _) => format!("{name}{value}"),
                (VarKind::Ref(Type::Ref(Object::Page)), _) => match number {
                    Ok(page) if page < self.spec.pages.len() => self.spec.pages[page].0.clone(),
                    Ok(_) | Err(_) => value.to_string(),
                },
                (VarKind::Mask, Domain::Mask { bits }) => {
                    let set = (0..u32::from(bits)).filter(|b| value >> b & 1 == 1);
                    let set: Vec<String> = set.map(|b| (first + b).to_string()).collect();
                    format!("{{{}}}", set.join(","))
                }
                (_, _) => value.to_string(),
            };
        }
        if described.name.ends_with(".rmp") {
            return if value == 0 { "shared".to_owned() } else { format!("assigned to ASID {value}") };
        }
        if self.firmware.as_ref().is_some_and(|f| f.is_use(slot)) {
            return Use::name(value).to_owned();
        }
        if described.name.ends_with(".owner") {
            return owner_name(self.owner_of_code(value));
        }
        if described.name.ends_with("pte") || described.name.contains(".spte.") {
            return if value == 0 { "none" } else { "present" }.to_owned();
        }
        value.to_string()
    }

    /// Copies of lines, and memory.
    fn lines_changed(&self, seen: &Seen<'_>, parts: &mut Vec<String>) {
        let Some(lines) = &self.lines else { return };
        if let Some(What::Move(m)) = seen.what {
            let (from, to) = self.ends(m.kind);
            let copy = Copy::from_code(seen.before[lines.cell(m.line, from, m.tag).0 as usize]);
            let to = to.map_or_else(|| "gone".to_owned(), |to| to.map_or("memory".to_owned(), place_name));
            let (name, from) = (self.line_name(m.line), place_name(from));
            parts.push(format!("{name}/{} {}: {from} -> {to}", self.tag_name(m.tag), held(copy)));
            return;
        }
        for line in 0..lines.lines() {
            let name = self.line_name(line);
            for tag in self.spec.shape.all_tags() {
                for place in self.spec.shape.places() {
                    let slot = lines.cell(line, place, tag).0 as usize;
                    let (old, new) = (Copy::from_code(seen.before[slot]), Copy::from_code(seen.after[slot]));
                    if old != new {
                        let place = place_name(place);
                        let tag = self.tag_name(tag);
                        parts.push(format!("{name}/{tag} {place}: {} -> {}", held(old), held(new)));
                    }
                }
            }
            let (old, new) = (self.dram(line, seen.before), self.dram(line, seen.after));
            if new.is_some_and(|new| new.old && old.is_some_and(|old| old.key != new.key)) {
                parts.push(format!("{name} in memory: older than the truth"));
            }
            if let (Some(old), Some(new)) = (old, new)
                && old.past != new.past
            {
                match new.past {
                    Past::No => {}
                    Past::Lost => parts.push(format!("{name} in memory: under a key that is gone")),
                    Past::Foreign => {
                        parts.push(format!("{name} in memory: a former guest's data under the new key"));
                    }
                }
            }
        }
    }

    /// From where a copy moves, and where to: a place, memory, or nowhere.
    fn ends(&self, kind: MoveKind) -> (Place, Option<Option<Place>>) {
        match kind {
            MoveKind::PrivateToL3(c) => {
                (Place::Private(c), Some(Some(Place::L3(self.spec.shape.ccx_of_core[c.index()]))))
            }
            MoveKind::PrivateToDram(c) => (Place::Private(c), Some(None)),
            MoveKind::PrivateDrop(c) => (Place::Private(c), None),
            MoveKind::L3ToFlight(x) => (Place::L3(x), Some(Some(Place::Flight(x)))),
            MoveKind::L3Drop(x) => (Place::L3(x), None),
            MoveKind::FlightToDram(x) => (Place::Flight(x), Some(None)),
        }
    }

    pub(super) fn dram(&self, line: u32, words: &[i64]) -> Option<Dram> {
        let mut words = words.to_vec();
        let slots = self.lines.as_ref()?;
        Some(Shadow { slots, store: &mut Plain { words: &mut words } }.dram(line))
    }

    /// Shared slots that changed, but for the one that was told already.
    fn slots_changed(&self, seen: &Seen<'_>, told: Option<SlotId>, parts: &mut Vec<String>) {
        for (id, slot) in (0u32..).zip(self.layout.slots()) {
            let (old, new) = (seen.before[id as usize], seen.after[id as usize]);
            let hidden = slot.name.contains(".call") || slot.name.ends_with(".read_back");
            if old == new || slot.class != Class::Shared || hidden || told == Some(SlotId(id)) {
                continue;
            }
            let (old, new) = (self.value_name(SlotId(id), old), self.value_name(SlotId(id), new));
            parts.push(format!("{}: {} -> {new}", slot.name, cut(&old, &new)));
        }
    }

    /// What a step turned off behind which its context waits, and for what.
    fn shut(&self, seen: &Seen<'_>) -> String {
        let turned = |id: SlotId| seen.before[id.0 as usize] == 0 && seen.after[id.0 as usize] > 0;
        let windows = self.pcpus.iter().flat_map(|p| [(p.irq_off, "interrupts"), (p.preempt, "preemption")]);
        let off: Vec<&str> = windows.filter(|(id, _)| turned(*id)).map(|(_, word)| word).collect();
        let shared = |id: &&SlotId| self.layout.slots()[id.0 as usize].class == Class::Shared;
        let waits = seen.touched.iter().rfind(shared);
        let waits = waits.map(|id| format!(", waits for {}", self.layout.slots()[id.0 as usize].name));
        format!("{} off{}", off.join(" and "), waits.unwrap_or_default())
    }

    /// Whether a vCPU's thread asked for a page that user space maps, but not for this VM.
    fn mapped_by_another(&self, seen: &Seen<'_>) -> bool {
        let Actor::Task(task) = seen.actor else { return false };
        let Some(vcpu) = &self.tasks[usize::from(task)].vcpu else { return false };
        let page = seen.touched.iter().find_map(|slot| self.user_ptes.iter().position(|pte| pte == slot));
        let Some(page) = page.and_then(|p| u32::try_from(p).ok()) else { return false };
        let mut words = seen.after.to_vec();
        let store = Plain { words: &mut words };
        store.get(self.user_ptes[page as usize]) != 0 && !self.user_maps(&store, vcpu.vm, page)
    }

    /// What is worth saying of a step that changed nothing that others share.
    fn nothing_changed(&self, seen: &Seen<'_>, op: Option<Op>) -> Option<String> {
        let prim = match (seen.what, op) {
            (Some(What::Guest { line, plain, .. }), _) => return self.hit(seen, line, plain),
            (_, Some(Op::Prim { prim, .. })) => prim,
            (_, Some(Op::Window(_))) => return Some(self.shut(seen)),
            (_, _) => return None,
        };
        let read = |slots: &[SlotId]| {
            let slot = seen.touched.iter().copied().find(|s| slots.contains(s))?;
            let value = self.value_name(slot, seen.after[slot.0 as usize]);
            Some(format!("{} is {value}", self.layout.slots()[slot.0 as usize].name))
        };
        match prim {
            Prim::VmRun => Some("enters the guest".to_owned()),
            Prim::UserPtePresent if self.mapped_by_another(seen) => {
                Some("the page is another VM's by now".to_owned())
            }
            Prim::UserPtePresent | Prim::PageMapped | Prim::ZapUserPte => read(&self.user_ptes),
            Prim::ZapSpte | Prim::InstallSpte => read(&self.sptes),
            Prim::SendCall => {
                let sent = |p: &&crate::machine::PcpuSlots| {
                    seen.after[p.pending.0 as usize] > seen.before[p.pending.0 as usize]
                };
                let to = self.pcpus.iter().find(sent)?;
                let name = &self.layout.slots()[to.pending.0 as usize].name;
                Some(format!("IPI to {}", name.strip_suffix(".pending").unwrap_or(name)))
            }
            Prim::GetAsid => read(&self.asids),
            Prim::RmpMakePrivate | Prim::RmpMakeShared | Prim::RmpAssigned => {
                read(&self.rmp.iter().copied().flatten().collect::<Vec<SlotId>>())
            }
            Prim::VmPageFlush => read(&self.user_ptes).or_else(|| Some("nothing to write back".to_owned())),
            Prim::Invd => Some("nothing is lost".to_owned()),
            Prim::JoinVcpu => Some("the thread has ended".to_owned()),
            Prim::WaitCalls => Some("all have answered".to_owned()),
            Prim::VcpuFlushTlb => {
                let count = self.spec.pages.len();
                let gone = |(vcpu, page): &(usize, usize)| {
                    let (tlb, bit) = self.tlb(*vcpu, *page);
                    (seen.before[tlb.0 as usize] & bit) != (seen.after[tlb.0 as usize] & bit)
                };
                let all = (0..self.spec.vcpu_vm.len()).flat_map(|v| (0..count).map(move |p| (v, p)));
                let pages: Vec<&str> = all.filter(gone).map(|(_, p)| self.spec.pages[p].0.as_str()).collect();
                let what = if pages.is_empty() { "nothing".to_owned() } else { pages.join(", ") };
                Some(format!("translations forgotten: {what}"))
            }
            Prim::FlushPrivate => Some("nothing to write back".to_owned()),
            Prim::FlushShared => Some("nothing to write back in the L3".to_owned()),
            Prim::FlushEnd => Some("nothing left in flight".to_owned()),
            Prim::GuestRead
            | Prim::GuestWrite
            | Prim::GuestReadShared
            | Prim::GuestWriteShared
            | Prim::FaultPage
            | Prim::FreePage
            | Prim::HostRead
            | Prim::HostWrite
            | Prim::DmaRead
            | Prim::DmaWrite
            | Prim::AllocPage
            | Prim::FlushBegin
            | Prim::ClflushPage
            | Prim::ClwbPage
            | Prim::SchedPark
            | Prim::SetLoaded
            | Prim::ZallocMask
            | Prim::FreeMask
            | Prim::MaskAvailable
            | Prim::FreeVm
            | Prim::MightSleep
            | Prim::NonBlock
            | Prim::IrqsDisabled
            | Prim::InAtomic
            | Prim::InInterrupt
            | Prim::TraceWriteback
            | Prim::OracleUpdate
            | Prim::SetAsid
            | Prim::PspWrite
            | Prim::PspRead
            | Prim::GuestEvict
            | Prim::Firmware(_)
            | Prim::MovePages
            | Prim::UserReuse
            | Prim::Fence
            | Prim::Warn
            | Prim::AllocObject
            | Prim::FreeObject
            | Prim::FreeVcpu
            | Prim::LockHeld => None,
        }
    }

    /// A guest's access that changed no copy: what it found.
    fn hit(&self, seen: &Seen<'_>, line: u32, plain: bool) -> Option<String> {
        let Actor::Task(t) = seen.actor else { return None };
        let vm = self.tasks[usize::from(t)].vcpu.as_ref()?.vm;
        let mut words = seen.after.to_vec();
        let tag = match plain {
            true => sev_arch::Tag::HOST,
            false => self.guest_tag(&Plain { words: &mut words }, vm, self.page_of(line)),
        };
        let lines = self.lines.as_ref()?;
        let copy = |p: Place| Copy::from_code(seen.after[lines.cell(line, p, tag).0 as usize]);
        let place = self.spec.shape.places().find(|p| copy(*p).held != Held::Absent)?;
        let copy = copy(place);
        let tag = self.tag_name(tag);
        Some(format!("{}/{tag} {} stays {}", self.line_name(line), place_name(place), held(copy)))
    }

    /// IPI handlers that returned with the step.
    fn handlers_ended(&self, seen: &Seen<'_>, parts: &mut Vec<String>) {
        let ended = |slot: SlotId| seen.before[slot.0 as usize] != 0 && seen.after[slot.0 as usize] == 0;
        if self.pcpus.iter().any(|p| ended(p.handling)) {
            parts.push("the handler returns".to_owned());
        }
    }

    /// The places that hold a dirty copy of a line under a tag.
    pub(super) fn dirty_places(&self, line: u32, tag: sev_arch::Tag, words: &[i64]) -> Vec<Place> {
        let Some(lines) = &self.lines else { return Vec::new() };
        let dirty =
            |p: &Place| Copy::from_code(words[lines.cell(line, *p, tag).0 as usize]).held == Held::Dirty;
        self.spec.shape.places().filter(dirty).collect()
    }
}

impl Machine {
    /// Whether a cache holds a copy of a line under a tag.
    pub(super) fn is_cached(&self, line: u32, tag: sev_arch::Tag, words: &[i64]) -> bool {
        let Some(lines) = &self.lines else { return false };
        let here =
            |p: Place| Copy::from_code(words[lines.cell(line, p, tag).0 as usize]).held != Held::Absent;
        self.spec.shape.places().any(here)
    }
}

/// An owner in words.
pub(super) fn owner_name(owner: Owner) -> String {
    match owner {
        Owner::Vm(vm) => vm.to_string(),
        Owner::Free => "free".to_owned(),
        Owner::Host => "host".to_owned(),
        Owner::Device => "device".to_owned(),
        Owner::User(vm) => format!("{vm}'s VMM"),
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn names_lose_the_end_that_the_next_has_too() {
        assert_eq!(cut("OUTSIDE_GUEST_MODE", "IN_GUEST_MODE"), "OUTSIDE");
        assert_eq!(cut("IN_GUEST_MODE", "EXITING_GUEST_MODE"), "IN");
        for (was, is) in [
            ("0", "1"),
            ("{0}", "{}"),
            ("A_B", "C_D"),
            ("_B", "A_B"),
            ("A_B", "_B"),
            ("my_page", "your_page"),
        ] {
            assert_eq!(cut(was, is), was);
        }
    }
}
