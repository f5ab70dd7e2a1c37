//! The machine: texts compiled, slots laid out. Its one step function is in `run.rs` and below `run/`.

use cache_model::shadow::LineSlots;
use sev_arch::{PcpuId, Tag, VcpuId, VmId};
use sim_core::layout::Layout;
use sim_core::state::{Class, Domain, SlotId};
use svm_lang::ast::{Object, Type};
use svm_lang::{Code, Config, Diag, Entry, Features, Find, Source, VarKind, VmTables};
use svm_policy::{Command, Op, Prim, RmwOp, Scope, VarId};

use crate::buffer::Buffers;
use crate::context::{ContextSlots, Start};
use crate::firmware::{Firmware, Initial};
use crate::label::Actor;
use crate::memory::ShadowMemory;
use crate::objects::Objects;
use crate::spec::{Guest, ModelSpec, TaskKind, VmKind};
use crate::twin::TwinTables;

/// Who owns a page, as its slot holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A VM.
    Vm(VmId),
    /// Nobody: the allocator.
    Free,
    /// The host.
    Host,
    /// A device.
    Device,
    /// The VMM of a VM, which uses memory itself that was its guest's and was never freed.
    User(VmId),
}

/// Where the slots of one variable lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VarSlots {
    pub(crate) base: u32,
    pub(crate) words: u32,
    pub(crate) instances: u32,
    pub(crate) domain: Domain,
    pub(crate) scope: Scope,
    /// Of a mask that texts allocate: the variable of its state.
    pub(crate) state: Option<u16>,
    /// Of a field of what texts free: the variable that says whether the object is there.
    pub(crate) object: Option<u16>,
}

/// A task's slots.
#[derive(Clone, Debug)]
pub(crate) struct TaskSlots {
    pub(crate) main: ContextSlots,
    /// What it runs again and again, if it is a reclaimer.
    pub(crate) repeats: Option<Entry>,
    /// pCPU it is on, or -1.
    pub(crate) on: Option<SlotId>,
    /// Whether it is between `non_block_start()` and `non_block_end()`.
    pub(crate) non_block: SlotId,
    /// Whether the scheduler may take its pCPU away.
    pub(crate) preemptible: bool,
    pub(crate) vcpu: Option<VcpuSlots>,
}

impl TaskSlots {
    /// Whether it should come to an end by itself.
    pub(crate) fn comes_to_an_end(&self) -> bool {
        self.vcpu.is_none() && self.repeats.is_none()
    }
}

/// What a vCPU's thread has beside a task's slots.
#[derive(Clone, Debug)]
pub(crate) struct VcpuSlots {
    pub(crate) vcpu: VcpuId,
    pub(crate) vm: VmId,
    pub(crate) in_guest: SlotId,
    pub(crate) loaded: SlotId,
    /// Runs `vcpu_sched_out` and `vcpu_sched_in` over the thread, as preempt notifiers do.
    pub(crate) sched: ContextSlots,
    pub(crate) guest: Option<ContextSlots>,
}

/// A pCPU's slots.
#[derive(Clone, Debug)]
pub(crate) struct PcpuSlots {
    /// Task that runs here, or -1.
    pub(crate) current: SlotId,
    pub(crate) irq_off: SlotId,
    pub(crate) preempt: SlotId,
    /// 0 while no handler runs, else 1 + 2 x sender + whether the sender waits.
    pub(crate) handling: SlotId,
    /// Calls sent here and not taken.
    pub(crate) pending: SlotId,
    pub(crate) handler: ContextSlots,
}

/// Where a statement stands in the texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourcePlace<'m> {
    /// Name of the text.
    pub file: &'m str,
    /// What the text is for.
    pub role: svm_lang::Role,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The function, whichever entry it was inlined into.
    pub function: &'m str,
}

/// A model: its description, its program and its slots.
#[derive(Debug)]
pub struct Machine {
    pub(crate) spec: ModelSpec,
    pub(crate) code: Code,
    pub(crate) layout: Layout,
    pub(crate) vars: Vec<VarSlots>,
    pub(crate) tasks: Vec<TaskSlots>,
    pub(crate) pcpus: Vec<PcpuSlots>,
    /// Call from a task to a pCPU: 0 none, else 1 + 2 x callback + wait; by task, then pCPU.
    pub(crate) calls: Vec<SlotId>,
    pub(crate) infos: Vec<SlotId>,
    /// ASID of each VM, 0 for none.
    pub(crate) asids: Vec<SlotId>,
    /// Whether some actor sets ASIDs.
    pub(crate) sets_asids: bool,
    /// Every lock that some text takes, and whether it can be held for reading.
    pub(crate) lock_slots: Vec<(SlotId, bool)>,
    /// What texts allocate.
    pub(crate) objects: Objects,
    /// `cpu_online_mask`, if a text declares it.
    pub(crate) online: Option<VarId>,
    pub(crate) owners: Vec<SlotId>,
    pub(crate) used: Vec<SlotId>,
    pub(crate) user_ptes: Vec<SlotId>,
    /// The ASID that each page is assigned to, 0 for none; only where there is an SNP VM.
    pub(crate) rmp: Vec<Option<SlotId>>,
    /// Only where an actor gives commands to it.
    pub(crate) firmware: Option<Firmware>,
    /// By VM, then page.
    pub(crate) sptes: Vec<SlotId>,
    /// By vCPU, then page.
    pub(crate) tlbs: Vec<SlotId>,
    /// Pages whose translations share a slot.
    pub(crate) tlb_pages: usize,
    /// Pages first owned by each VM.
    pub(crate) vm_pages: Vec<Vec<u32>>,
    pub(crate) lines: Option<LineSlots>,
    pub(crate) buffers: Buffers,
    pub(crate) sched_out: Entry,
    pub(crate) sched_in: Entry,
    /// Whether a page can come back to a VM.
    pub(crate) returns: bool,
    /// Whether the private part of a flush that finds nothing is an own step.
    pub(crate) own_flushes: bool,
    pub(crate) twin_tables: TwinTables,
}

/// What memory the machine is built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryKind {
    /// Line copies in slots.
    Shadow,
    /// Line copies kept elsewhere, by the timed caches.
    Timed,
}

/// Pages up to which each vCPU's translation of each has a slot of its own.
const TLB_SLOTS: usize = 64;
/// Translations that share a slot beyond; below 64, so that a word is never negative.
const TLB_WORD: usize = 62;

/// Entries that every kernel text must define.
pub const KERNEL_ENTRIES: [&str; 3] = ["vcpu_thread", "vcpu_sched_out", "vcpu_sched_in"];

fn hi(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Machine {
    /// Compiles the texts, which may include built-in ones, and lays the slots out.
    ///
    /// # Errors
    ///
    /// What the compiler says of the texts: file, line, column, and what was expected.
    pub fn build(spec: ModelSpec, sources: &[Source<'_>], memory: MemoryKind) -> Result<Machine, Vec<Diag>> {
        Machine::build_with(spec, sources, &crate::text::find, memory)
    }

    /// As [`Machine::build`], and `find` gives the texts that the texts include.
    ///
    /// # Errors
    ///
    /// What the compiler says of the texts.
    pub fn build_with(
        spec: ModelSpec,
        sources: &[Source<'_>],
        find: &Find<'_>,
        memory: MemoryKind,
    ) -> Result<Machine, Vec<Diag>> {
        let mut wanted: Vec<&str> = KERNEL_ENTRIES.to_vec();
        for task in &spec.tasks {
            match &task.kind {
                TaskKind::Vcpu { thread, guest, .. } => {
                    wanted.push(thread);
                    if let Guest::Program(name) = guest {
                        wanted.push(name);
                    }
                }
                TaskKind::Host { entry } | TaskKind::Device { entry } | TaskKind::Reclaimer { entry, .. } => {
                    wanted.push(entry)
                }
            }
        }
        wanted.extend(spec.initial.as_deref());
        let mut unique = wanted.clone();
        unique.sort_unstable();
        unique.dedup();
        let mut config = config_of(&spec);
        let mut code = svm_lang::compile(sources, find, &unique, &config)?;
        if code.ops.iter().any(|op| matches!(op, Op::Prim { prim: Prim::SetAsid, .. })) {
            config.tables.asids_change = true;
        }
        if code.ops.iter().any(|op| matches!(op, Op::Prim { prim: Prim::Firmware(_), .. })) {
            config.features.firmware = true;
        }
        if config.tables.asids_change || config.features.firmware {
            code = svm_lang::compile(sources, find, &unique, &config)?;
        }
        let mut machine = Machine::lay_out(spec, code, memory);
        machine.initialise()?;
        Ok(machine)
    }

    /// The same machine with store buffers of `entries`, which has some, over shadow caches.
    ///
    /// # Errors
    ///
    /// What the litmus test sets at the start does not fit; it did before.
    pub fn with_store_buffer(&self, entries: u8) -> Result<Machine, Vec<Diag>> {
        let mut spec = self.spec.clone();
        spec.assumptions.store_buffer = entries;
        let mut machine = Machine::lay_out(spec, self.code.clone(), MemoryKind::Shadow);
        machine.initialise()?;
        Ok(machine)
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one declaration after another, in the order of the packed state"
    )]
    fn lay_out(mut spec: ModelSpec, code: Code, memory: MemoryKind) -> Machine {
        let allocates = |op: &Op| matches!(op, Op::Prim { prim: Prim::AllocPage, .. });
        let returns = spec.reuse.vm || code.ops.iter().any(allocates);
        let sets_asids = code.ops.iter().any(|op| matches!(op, Op::Prim { prim: Prim::SetAsid, .. }));
        let has =
            |wanted: Prim| code.ops.iter().any(|op| matches!(op, Op::Prim { prim, .. } if *prim == wanted));
        let commands = code.ops.iter().any(|op| matches!(op, Op::Prim { prim: Prim::Firmware(_), .. }));
        spec.shape.psp = spec.assumptions.psp;
        spec.shape.guest_must_evict = spec.assumptions.guest_must_evict;
        spec.shape.flat = spec.assumptions.flat_caches;
        spec.shape.keys_change =
            has(Prim::Firmware(Command::Activate)) || has(Prim::Firmware(Command::ActivateEx));
        // A VM whose ASID changes can come back to a tag, too; so can one whose page the PSP writes.
        let past = has(Prim::PspWrite) || spec.shape.keys_change;
        // And who reads a guest's page through the host's tag can hit a line from before the guest wrote it.
        let aliased = [Prim::HostRead, Prim::GuestReadShared, Prim::DmaRead].into_iter().any(has);
        spec.shape.keep_clean &= returns || sets_asids || past || aliased || !spec.shape.dma_snoops;
        spec.shape.drops = has(Prim::Invd);
        let non_block = has(Prim::NonBlock);
        let mut layout = Layout::default();
        let entry = |name: &str| {
            let found = code.entries.iter().find(|e| e.name == name);
            found.cloned().unwrap_or_else(|| code.entries[0].clone())
        };
        let (sched_out, sched_in) = (entry("vcpu_sched_out"), entry("vcpu_sched_in"));
        let pcpu_count = spec.core_of.len();
        let holders = hi(spec.tasks.len() + pcpu_count);
        let vars = declare_vars(&mut layout, &spec, &code, holders);
        let lock_slots = lock_slots_of(&code, &vars);
        let mut tasks = Vec::new();
        for (t, task) in spec.tasks.iter().enumerate() {
            let contended = spec
                .tasks
                .iter()
                .enumerate()
                .any(|(o, other)| o != t && other.pcpus.iter().any(|p| task.pcpus.contains(p)));
            let may_move = contended || task.pcpus.len() > 1;
            let first = if may_move { -1 } else { task.pcpus.first().map_or(-1, |p| i64::from(p.0)) };
            let name = &task.name;
            let (main, arguments) = match &task.kind {
                TaskKind::Vcpu { vcpu, thread, .. } => (entry(thread), vec![i64::from(vcpu.0)]),
                TaskKind::Host { entry: e } | TaskKind::Device { entry: e } => (entry(e), Vec::new()),
                TaskKind::Reclaimer { entry: e, .. } => (entry(e), Vec::new()),
            };
            let again = matches!(task.kind, TaskKind::Reclaimer { .. });
            let repeats = again.then(|| main.clone());
            let start = Start { entry: &main, arguments: (!again).then_some(arguments) };
            let main = ContextSlots::declare(&mut layout, name, &[start], !again);
            let place = Domain::Range { lo: -1, hi: hi(pcpu_count) - 1 };
            let on =
                (!task.pcpus.is_empty()).then(|| layout.slot(format!("{name}.on"), place, Class::Own, first));
            // A constant where no text asks for it.
            let marks = Domain::Range { lo: 0, hi: i64::from(non_block) };
            let non_block = layout.slot(format!("{name}.non_block"), marks, Class::Own, 0);
            let vcpu = match &task.kind {
                TaskKind::Vcpu { vcpu, guest, .. } => {
                    let in_guest = layout.slot(format!("{name}.in_guest"), Domain::BOOL, Class::Own, 0);
                    let loaded = layout.slot(format!("{name}.loaded"), Domain::BOOL, Class::Own, 0);
                    let arguments = Some(vec![i64::from(vcpu.0)]);
                    let starts =
                        [Start { entry: &sched_out, arguments: None }, Start { entry: &sched_in, arguments }];
                    let sched = ContextSlots::declare(&mut layout, &format!("{name}.sched"), &starts, false);
                    let guest = match guest {
                        Guest::Program(g) => {
                            let program = entry(g);
                            let start = Start { entry: &program, arguments: Some(Vec::new()) };
                            let name = format!("{name}.guest");
                            Some(ContextSlots::declare(&mut layout, &name, &[start], true))
                        }
                        Guest::Any => None,
                    };
                    let vm = spec.vcpu_vm[vcpu.index()];
                    Some(VcpuSlots { vcpu: *vcpu, vm, in_guest, loaded, sched, guest })
                }
                TaskKind::Host { .. } | TaskKind::Device { .. } | TaskKind::Reclaimer { .. } => None,
            };
            let preemptible = may_move || vcpu.is_some();
            tasks.push(TaskSlots { main, repeats, on, non_block, preemptible, vcpu });
        }
        let callbacks: Vec<Entry> =
            code.callbacks.iter().map(|e| code.entries[usize::from(*e)].clone()).collect();
        let mut pcpus = Vec::new();
        for p in 0..pcpu_count {
            let here = (0..spec.tasks.len()).find(|t| {
                let on = tasks[*t].on;
                on.is_some_and(|on| layout.slots()[on.0 as usize].init == hi(p))
            });
            let who = Domain::Range { lo: -1, hi: hi(spec.tasks.len()) - 1 };
            let name = format!("pcpu{p}");
            let starts: Vec<Start<'_>> =
                callbacks.iter().map(|entry| Start { entry, arguments: None }).collect();
            pcpus.push(PcpuSlots {
                current: layout.slot(format!("{name}.current"), who, Class::Own, here.map_or(-1, hi)),
                irq_off: layout.slot(format!("{name}.irq_off"), Domain::BOOL, Class::Own, 0),
                preempt: layout.slot(
                    format!("{name}.preempt_count"),
                    Domain::Range { lo: 0, hi: 7 },
                    Class::Own,
                    0,
                ),
                handling: layout.slot(
                    format!("{name}.handling"),
                    Domain::Range { lo: 0, hi: 2 * hi(spec.tasks.len()) },
                    Class::Hardware,
                    0,
                ),
                pending: layout.slot(
                    format!("{name}.pending"),
                    Domain::Range { lo: 0, hi: hi(spec.tasks.len()) },
                    Class::Hardware,
                    0,
                ),
                handler: ContextSlots::declare(&mut layout, &format!("{name}.handler"), &starts, false),
            });
        }
        let info = info_domain(&callbacks);
        let (mut calls, mut infos) = (Vec::new(), Vec::new());
        for task in &spec.tasks {
            // Devices send no IPIs; their slots are constants.
            let sends = !task.pcpus.is_empty();
            let call = Domain::Range { lo: 0, hi: if sends { 2 * hi(callbacks.len()) } else { 0 } };
            for p in 0..pcpu_count {
                let name = format!("{}.call{p}", task.name);
                calls.push(layout.slot(name.clone(), call, Class::Shared, 0));
                infos.push(layout.slot(format!("{name}.info"), info, Class::Shared, 0));
            }
        }
        let reuses = has(Prim::UserReuse);
        let mut asids = Vec::new();
        for vm in (0..spec.vms).map(VmId) {
            let first = i64::from(spec.vm(vm).asid);
            let (lo, hi) = if sets_asids { (0, i64::from(spec.asids()) - 1) } else { (first, first) };
            asids.push(layout.slot(format!("{vm}.asid"), Domain::Range { lo, hi }, Class::Shared, first));
        }
        let is_online = |v: &svm_lang::Var| v.name == "cpu_online_mask" && v.kind == VarKind::Mask;
        let online = code.vars.iter().position(is_online);
        let online = online.and_then(|at| u16::try_from(at).ok()).map(VarId);
        let last_owner = i64::from(spec.vms) * if reuses { 2 } else { 1 } + 2;
        let (mut owners, mut used, mut user_ptes) = (Vec::new(), Vec::new(), Vec::new());
        for (page, (name, vm)) in (0u32..).zip(&spec.pages) {
            let owner = Domain::Range { lo: 0, hi: last_owner };
            owners.push(layout.slot(format!("{name}.owner"), owner, Class::Shared, i64::from(vm.0)));
            let uses = Domain::Range { lo: 0, hi: if reuses { crate::run::UNWRITTEN } else { 1 } };
            used.push(layout.slot(format!("{name}.read_back"), uses, Class::Shared, 0));
            // A VMSA is the kernel's own memory: no VMM maps it.
            let mapped = i64::from(!spec.is_vmsa(page));
            user_ptes.push(layout.slot(format!("{name}.user_pte"), Domain::BOOL, Class::Shared, mapped));
        }
        let firmware = commands.then(|| firmware_of(&spec, &mut layout));
        let rmp = rmp_of(&spec, &mut layout, has(Prim::RmpMakePrivate) || has(Prim::RmpMakeShared));
        let mut sptes = Vec::new();
        for vm in 0..spec.vms {
            for (page, (name, owner)) in (0u32..).zip(&spec.pages) {
                let mapped = i64::from(owner.0 == vm && spec.mapped.contains(&page));
                sptes.push(layout.slot(format!("vm{vm}.spte.{name}"), Domain::BOOL, Class::Shared, mapped));
            }
        }
        // A slot of its own for each page lets the explorer's tables tell pages apart; thousands of pages of hundreds
        // of vCPUs, as timed runs have them, share words.
        let tlb_pages = if spec.pages.len() <= TLB_SLOTS { 1 } else { TLB_WORD };
        let mut tlbs = Vec::new();
        for (v, _) in spec.vcpu_vm.iter().enumerate() {
            for (i, pages) in spec.pages.chunks(tlb_pages).enumerate() {
                let (name, domain) = match pages {
                    [(name, _)] => (format!("vcpu{v}.tlb.{name}"), Domain::BOOL),
                    _ => {
                        let bits = u8::try_from(pages.len()).unwrap_or(64);
                        (format!("vcpu{v}.tlb[{i}]"), Domain::Mask { bits })
                    }
                };
                tlbs.push(layout.slot(name, domain, Class::Hardware, 0));
            }
        }
        let vm_pages = (0..spec.vms)
            .map(|vm| {
                let own = (0u32..).zip(&spec.pages).filter(|(i, p)| p.1.0 == vm && !spec.is_vmsa(*i));
                own.map(|(i, _)| i).collect()
            })
            .collect();
        let per_page = spec.lines_per_page;
        let lines = (memory == MemoryKind::Shadow).then(|| {
            let count = u32::try_from(spec.pages.len()).unwrap_or(0) * per_page;
            let name = |line: u32| {
                let page = &spec.pages[(line / per_page) as usize].0;
                if per_page == 1 { page.clone() } else { format!("{page}+{}", line % per_page) }
            };
            let slots = LineSlots::declare(&mut layout, &spec.shape, count, &name);
            if spec.assumptions.pages_written {
                for line in 0..count {
                    let page = line / per_page;
                    let shared = spec.is_shared(page);
                    let tag = if shared { 0 } else { spec.vm(spec.pages[page as usize].1).asid };
                    slots.start_written(&mut layout, line, Tag(u8::try_from(tag).unwrap_or(0)));
                }
            }
            slots
        });
        let buffers = Buffers::declare(&mut layout, &code, &vars, pcpu_count, spec.assumptions.store_buffer);
        let objects = if code.pools.is_empty() { Objects::default() } else { Objects::of(&code, &tasks) };
        let twin_tables = TwinTables::of(&code.ops, &code.entries, &code.callbacks);
        Machine {
            spec,
            code,
            layout,
            vars,
            tasks,
            pcpus,
            calls,
            infos,
            asids,
            sets_asids,
            lock_slots,
            objects,
            online,
            owners,
            used,
            user_ptes,
            rmp,
            firmware,
            sptes,
            tlbs,
            tlb_pages,
            vm_pages,
            lines,
            buffers,
            sched_out,
            sched_in,
            returns,
            own_flushes: !returns && !past,
            twin_tables,
        }
    }

    /// The slots of a vCPU's translations.
    pub(crate) fn tlb_of(&self, vcpu: usize) -> &[SlotId] {
        let each = self.owners.len().div_ceil(self.tlb_pages);
        self.tlbs.get(vcpu * each..(vcpu + 1) * each).unwrap_or(&[])
    }

    /// The slot and the bit of a vCPU's translation of a page.
    pub(crate) fn tlb(&self, vcpu: usize, page: usize) -> (SlotId, i64) {
        let each = self.owners.len().div_ceil(self.tlb_pages);
        (self.tlbs[vcpu * each + page / self.tlb_pages], 1 << (page % self.tlb_pages))
    }

    /// The description it was built from.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The compiled texts.
    #[must_use]
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// The slots.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The memory of the explorer, if the machine was built for it.
    #[must_use]
    pub fn shadow(&self) -> Option<ShadowMemory> {
        self.lines.as_ref().map(|slots| ShadowMemory {
            shape: self.spec.shape.clone(),
            slots: slots.clone(),
            handing_on: false,
        })
    }

    /// Every actor, in the order in which the explorer tries them.
    #[must_use]
    pub fn actors(&self) -> Vec<Actor> {
        let tasks = u16::try_from(self.tasks.len()).unwrap_or(u16::MAX);
        let mut actors: Vec<Actor> = (0..tasks).map(Actor::Task).collect();
        actors.extend((0..self.spec.pcpus()).map(Actor::Irq));
        actors.extend((0..tasks).filter(|t| self.tasks[usize::from(*t)].preemptible).map(Actor::Preempt));
        actors.extend((0u16..).take(self.buffers.of_pcpu.len()).map(Actor::Buffer));
        actors.push(Actor::Cache);
        actors.push(Actor::World);
        actors
    }

    /// The slot that holds an actor's program counter, if it runs a text.
    pub(crate) fn counter(&self, actor: Actor) -> Option<SlotId> {
        match actor {
            Actor::Task(t) => Some(self.tasks[usize::from(t)].main.pc),
            Actor::Irq(p) => Some(self.pcpus[usize::from(p)].handler.pc),
            Actor::Buffer(p) => {
                self.buffers.of_pcpu.get(usize::from(p)).and_then(|b| b.first()).map(|e| e.target)
            }
            Actor::Preempt(_) | Actor::Cache | Actor::World => None,
        }
    }

    /// The name of an actor in schedules and stories.
    #[must_use]
    pub fn actor_name(&self, actor: Actor) -> String {
        match actor {
            Actor::Task(t) => self.spec.tasks[usize::from(t)].name.clone(),
            Actor::Preempt(t) => format!("preempt:{}", self.spec.tasks[usize::from(t)].name),
            Actor::Irq(p) => format!("irq:{}", PcpuId(p)),
            Actor::Buffer(p) => format!("buffer:{}", PcpuId(p)),
            Actor::Cache => "cache".to_owned(),
            Actor::World => "world".to_owned(),
        }
    }

    /// The actor of a name.
    #[must_use]
    pub fn actor_named(&self, name: &str) -> Option<Actor> {
        self.actors().into_iter().find(|a| self.actor_name(*a) == name)
    }

    /// The page of a line.
    #[must_use]
    pub fn page_of(&self, line: u32) -> u32 {
        line / self.spec.lines_per_page
    }

    /// The name of a line: its page's, with the line's number where a page has several.
    #[must_use]
    pub fn line_name(&self, line: u32) -> String {
        let per_page = self.spec.lines_per_page;
        let page = &self.spec.pages[(line / per_page) as usize].0;
        if per_page == 1 { page.clone() } else { format!("{page}+{}", line % per_page) }
    }

    /// The slot of a variable's instance and word, if there is such an instance.
    #[must_use]
    pub(crate) fn var_slot(&self, var: VarId, instance: i64, word: i64) -> Option<SlotId> {
        let v = &self.vars[usize::from(var.0)];
        let (i, w) = (u32::try_from(instance).ok()?, u32::try_from(word).ok()?);
        (i < v.instances && w < v.words).then(|| SlotId(v.base + i * v.words + w))
    }

    /// The slot that says whether an instance of a mask is there, of a mask that texts allocate.
    pub(crate) fn mask_state(&self, var: VarId, instance: i64) -> Option<SlotId> {
        self.var_slot(VarId(self.vars[usize::from(var.0)].state?), instance, 0)
    }

    /// The statement of an operation, on one line.
    #[must_use]
    pub fn statement(&self, pc: svm_policy::Pc) -> &str {
        let text = self.code.places[usize::from(pc)].text as usize;
        self.code.texts.get(text).map_or("", String::as_str)
    }

    /// File and line of an operation's statement.
    #[must_use]
    pub fn place(&self, pc: svm_policy::Pc) -> (&str, u32) {
        let place = &self.code.places[usize::from(pc)];
        (&self.code.files[usize::from(place.file)], place.line)
    }

    /// Where an operation's statement stands.
    #[must_use]
    pub fn source(&self, pc: svm_policy::Pc) -> SourcePlace<'_> {
        let place = &self.code.places[usize::from(pc)];
        let file = usize::from(place.file);
        SourcePlace {
            file: &self.code.files[file],
            role: self.code.roles[file],
            line: place.line,
            column: place.column,
            function: self.code.functions.get(place.function as usize).map_or("", String::as_str),
        }
    }

    /// The slot of a variable by its name in the texts.
    #[must_use]
    pub fn variable(&self, name: &str, instance: i64, word: i64) -> Option<SlotId> {
        let at = self.code.vars.iter().position(|v| v.name == name)?;
        self.var_slot(VarId(u16::try_from(at).ok()?), instance, word)
    }

    pub(crate) fn owner_code(&self, owner: Owner) -> i64 {
        let vms = i64::from(self.spec.vms);
        match owner {
            Owner::Vm(vm) => i64::from(vm.0),
            Owner::Free => vms,
            Owner::Host => vms + 1,
            Owner::Device => vms + 2,
            Owner::User(vm) => vms + 3 + i64::from(vm.0),
        }
    }

    pub(crate) fn owner_of_code(&self, code: i64) -> Owner {
        let vms = i64::from(self.spec.vms);
        match code - vms {
            0 => Owner::Free,
            1 => Owner::Host,
            2 => Owner::Device,
            user @ 3.. => Owner::User(VmId(u16::try_from(user - 3).unwrap_or(0))),
            _ => Owner::Vm(VmId(u16::try_from(code).unwrap_or(0))),
        }
    }
}

fn firmware_of(spec: &ModelSpec, layout: &mut Layout) -> Firmware {
    let vm_asids: Vec<u16> = (0..spec.vms).map(|vm| spec.vm(VmId(vm)).asid).collect();
    let shape = crate::firmware::Shape {
        ccx_of: spec.core_of.iter().map(|core| spec.shape.ccx_of_core[core.index()].0).collect(),
        core_of: spec.core_of.iter().map(|core| core.0).collect(),
        ccxs: spec.shape.ccxs,
        asids: spec.asids(),
        vm_asids: &vm_asids,
        initial: spec.assumptions.firmware,
        partial_ccx: spec.assumptions.fw_partial_ccx,
    };
    Firmware::declare(layout, shape)
}

/// The RMP's slots: none without an SNP VM; constants if no actor changes it. Pages of SNP VMs that have an ASID
/// start assigned, but for those that are shared, and where no VM runs yet.
fn rmp_of(spec: &ModelSpec, layout: &mut Layout, changes: bool) -> Vec<Option<SlotId>> {
    let snp = |vm: VmId| spec.vm(vm).kind == VmKind::SevSnp;
    if !(0..spec.vms).any(|vm| snp(VmId(vm))) {
        return Vec::new();
    }
    let mut slots = Vec::new();
    for (page, (name, vm)) in (0u32..).zip(&spec.pages) {
        let assigned = snp(*vm) && !spec.is_shared(page) && spec.assumptions.firmware == Initial::Running;
        let first = if assigned { i64::from(spec.vm(*vm).asid) } else { 0 };
        let (lo, hi) = if changes { (0, i64::from(spec.asids()) - 1) } else { (first, first) };
        slots.push(Some(layout.slot(format!("{name}.rmp"), Domain::Range { lo, hi }, Class::Shared, first)));
    }
    slots
}

/// The functions that are guests' programs, and nobody else's.
fn guests_of(spec: &ModelSpec) -> Vec<String> {
    let others = |name: &str| {
        spec.tasks.iter().any(|task| match &task.kind {
            TaskKind::Vcpu { thread: entry, .. }
            | TaskKind::Host { entry }
            | TaskKind::Device { entry }
            | TaskKind::Reclaimer { entry, .. } => entry == name,
        })
    };
    let guests = spec.tasks.iter().filter_map(|task| match &task.kind {
        TaskKind::Vcpu { guest: Guest::Program(name), .. } if !others(name) => Some(name.clone()),
        TaskKind::Vcpu { .. }
        | TaskKind::Host { .. }
        | TaskKind::Device { .. }
        | TaskKind::Reclaimer { .. } => None,
    });
    guests.collect()
}

fn config_of(spec: &ModelSpec) -> Config {
    let mut constants = Vec::new();
    for (i, (name, _)) in spec.pages.iter().enumerate() {
        constants.push((name.clone(), Type::Ref(Object::Page), hi(i)));
    }
    for vm in 0..spec.vms {
        constants.push((VmId(vm).to_string(), Type::Ref(Object::Vm), i64::from(vm)));
    }
    for v in 0..spec.vcpu_vm.len() {
        constants.push((format!("vcpu{v}"), Type::Ref(Object::Vcpu), hi(v)));
    }
    Config {
        pcpus: spec.pcpus(),
        vms: spec.vms,
        asids: spec.asids(),
        tables: VmTables {
            types: (0..spec.vms).map(|vm| spec.vm(VmId(vm)).kind.number()).collect(),
            asids: (0..spec.vms).map(|vm| spec.vm(VmId(vm)).asid).collect(),
            asids_change: false,
            vmsa: (0..spec.vcpu_vm.len())
                .map(|v| spec.vmsa_of(VcpuId(u16::try_from(v).unwrap_or(u16::MAX))))
                .map(|page| page.and_then(|page| u16::try_from(page).ok()))
                .collect(),
        },
        features: Features {
            sme_coherent: spec.shape.sme_coherent,
            wbnoinvd: !spec.assumptions.no_wbnoinvd,
            firmware: false,
            flat_caches: spec.assumptions.flat_caches,
        },
        vcpu_vm: spec.vcpu_vm.iter().map(|v| v.0).collect(),
        pages: u32::try_from(spec.pages.len()).unwrap_or(u32::MAX),
        word_bits: spec.assumptions.word_bits,
        store_buffers: spec.assumptions.store_buffer > 0,
        guests: Some(guests_of(spec)),
        constants,
        defines: spec.defines.clone(),
    }
}

fn declare_vars(layout: &mut Layout, spec: &ModelSpec, code: &Code, holders: i64) -> Vec<VarSlots> {
    let (pcpus, word_bits) = (spec.pcpus(), spec.assumptions.word_bits);
    let mut vars = Vec::new();
    for var in &code.vars {
        let number = if let Scope::PerObject(pool) = var.scope { Some(usize::from(pool)) } else { None };
        let pool = number.and_then(|n| code.pools.get(n));
        let pool_name = pool.map_or("", |p| p.0.as_str());
        let of_pool = |i: usize| format!("{pool_name}{i}.");
        let (instances, owner): (usize, &dyn Fn(usize) -> String) = match var.scope {
            Scope::PerObject(_) => (pool.map_or(0, |p| usize::from(p.1)), &of_pool),
            Scope::Global => (1, &|_| String::new()),
            Scope::PerVm => (usize::from(spec.vms), &|i| format!("vm{i}.")),
            Scope::PerVcpu => (spec.vcpu_vm.len(), &|i| format!("vcpu{i}.")),
            Scope::PerCpu => (spec.core_of.len(), &|i| format!("pcpu{i}.")),
            Scope::PerAsid => (usize::from(spec.asids()), &|i| format!("asid{i}.")),
            Scope::PerPage => (spec.pages.len(), &|i| format!("{}.", spec.pages[i].0)),
        };
        let domain = match var.kind {
            VarKind::Mutex | VarKind::Spin => Domain::Range { lo: 0, hi: holders },
            VarKind::Rwlock | VarKind::Rwsem => Domain::Range { lo: -holders, hi: 2 * holders + 1 },
            VarKind::Completion => Domain::Range { lo: -1, hi: holders },
            VarKind::Int | VarKind::Bool | VarKind::Ref(_) | VarKind::Mask => var.domain,
        };
        let mut base = None;
        for i in 0..instances {
            for w in 0..var.words {
                let name = match var.words {
                    1 => format!("{}{}", owner(i), var.name),
                    _ => format!("{}{}[{w}]", owner(i), var.name),
                };
                let id = layout.slot(name, domain, Class::Shared, var.init_of(w, pcpus, word_bits));
                base.get_or_insert(id.0);
            }
        }
        vars.push(VarSlots {
            base: base.unwrap_or(0),
            words: u32::from(var.words),
            instances: u32::try_from(instances).unwrap_or(0),
            domain,
            scope: var.scope,
            state: var.state,
            object: var.object,
        });
    }
    vars
}

/// The locks that some text takes, completions apart; and whether each can be held for reading.
fn lock_slots_of(code: &Code, vars: &[VarSlots]) -> Vec<(SlotId, bool)> {
    let taken = |at: usize| {
        code.ops.iter().any(|op| {
            matches!(op, Op::Lock { place, .. } | Op::Rmw { place, op: RmwOp::TryLock(_), .. }
                if usize::from(place.var.0) == at)
        })
    };
    let mut slots = Vec::new();
    for (at, (var, lies)) in code.vars.iter().zip(vars).enumerate() {
        let shared = match var.kind {
            VarKind::Mutex | VarKind::Spin => false,
            VarKind::Rwlock | VarKind::Rwsem => true,
            VarKind::Completion | VarKind::Int | VarKind::Bool | VarKind::Ref(_) | VarKind::Mask => continue,
        };
        if taken(at) {
            slots.extend(
                (lies.base..lies.base + lies.words * lies.instances).map(|slot| (SlotId(slot), shared)),
            );
        }
    }
    slots
}

/// What the `info` argument of an IPI's function can be: the union over the functions.
fn info_domain(callbacks: &[Entry]) -> Domain {
    let mut range: Option<(i64, i64)> = None;
    for entry in callbacks {
        if let Some(param) = entry.params.first()
            && let Some(Domain::Range { lo, hi }) = entry.regs.get(usize::from(param.reg))
        {
            let (a, b) = range.unwrap_or((*lo, *hi));
            range = Some((a.min(*lo), b.max(*hi)));
        }
    }
    let (lo, hi) = range.unwrap_or((0, 0));
    Domain::Range { lo: lo.min(0), hi: hi.max(0) }
}
