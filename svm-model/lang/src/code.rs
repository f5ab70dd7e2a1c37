//! What compiling gives: operations, where they came from, variables and entries.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sim_state::Domain;
use svm_policy::{
    BinOp, Command, Expr, Lock, Op, Operand, Pc, Place, Prim, Reg, RmwOp, Scope, Shared, UnOp, Window,
};

use crate::Role;
use crate::ast::{Span, Type};
use crate::ir::At;

/// Where an operation came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SrcPos {
    /// Index into [`Code::files`].
    pub file: u16,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Index into [`Code::texts`]: the statement.
    pub text: u32,
    /// Index into [`Code::functions`]: the function it stands in, whichever entry it was inlined into.
    pub function: u32,
}

/// What a variable holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VarKind {
    /// A number.
    Int,
    /// 0 or 1.
    Bool,
    /// The number of a VM, vCPU or page; -1 is null.
    Ref(Type),
    /// A word of a mask.
    Mask,
    /// A mutex.
    Mutex,
    /// A spinlock.
    Spin,
    /// A read-write lock.
    Rwlock,
    /// A read-write semaphore.
    Rwsem,
    /// A completion.
    Completion,
}

/// The state of an allocated mask: never allocated, or the allocation failed.
pub const MASK_NULL: i64 = 0;
/// The state of an allocated mask: there.
pub const MASK_LIVE: i64 = 1;
/// The state of an allocated mask: freed, while the pointer still stands.
pub const MASK_FREED: i64 = 2;

/// What an operation of [`Prim::Warn`] reports if its first argument is not 0: its second argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Warning {
    /// The condition of a `WARN_ON` holds.
    Condition,
    /// A number is no pCPU's.
    NoCpu,
    /// A reference count is, or becomes, 0 or less.
    Count,
    /// Interrupts are not off, or not on, as asserted.
    Irqs,
    /// A local mask is used that is not there. The first argument is its state, less [`MASK_LIVE`]; the last of this and
    /// what follows is the mask's index in [`Code::masks`].
    MaskGone,
    /// A local mask is allocated that is there.
    MaskAllocatedTwice,
    /// A local mask is freed again.
    MaskFreedTwice,
    /// The scope of a local mask ends, and it is still there.
    MaskLeaked,
}

impl Warning {
    const ALL: [Warning; 8] = [
        Warning::Condition,
        Warning::NoCpu,
        Warning::Count,
        Warning::Irqs,
        Warning::MaskGone,
        Warning::MaskAllocatedTwice,
        Warning::MaskFreedTwice,
        Warning::MaskLeaked,
    ];

    /// The argument that stands for it.
    #[must_use]
    pub fn number(self) -> i64 {
        Self::ALL.iter().zip(0..).find(|(w, _)| **w == self).map_or(0, |(_, n)| n)
    }

    /// What an argument stands for.
    #[must_use]
    pub fn of(number: i64) -> Warning {
        usize::try_from(number).ok().and_then(|n| Self::ALL.get(n)).copied().unwrap_or(Warning::Condition)
    }
}

/// A declared variable; its index in [`Code::vars`] is its [`svm_policy::VarId`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Var {
    /// Its name; of a field without its structure.
    pub name: String,
    /// How many instances there are.
    pub scope: Scope,
    /// Words of a mask, elements of an array, else 1.
    pub words: u16,
    /// What each word can hold, over all orders of steps of the entries compiled. Of locks it is 0 to 127
    /// (read-write locks and completions: -127 to 127): the machine, which knows how many contexts there are, may narrow it.
    pub domain: Domain,
    /// What each word starts as; of a mask 0 for empty, -1 for every pCPU.
    pub init: i64,
    /// What it is.
    pub kind: VarKind,
    /// Of a mask that texts allocate or free: the variable that says whether it is there ([`MASK_NULL`] and
    /// its kin), with as many instances.
    pub state: Option<u16>,
    /// Of a field of what can be freed: the variable that says whether the object is there, with as many instances.
    pub object: Option<u16>,
    /// Whether it is a `void *`, which may refer to anything.
    pub is_opaque: bool,
    /// Of an enumeration, or a variable of one: the names of its values.
    pub names: Vec<(i64, String)>,
    /// Whether any operation touches it.
    pub used: bool,
    /// Index of the file that declares it.
    pub file: u16,
    /// Line of the declaration.
    pub line: u32,
    /// Column of the declaration.
    pub column: u32,
}

impl Var {
    /// What a word starts as: a mask that starts full has a bit for each pCPU.
    #[must_use]
    pub fn init_of(&self, word: u16, pcpus: u16, word_bits: u8) -> i64 {
        if self.kind != VarKind::Mask || self.init == 0 {
            return self.init;
        }
        let left = u32::from(pcpus).saturating_sub(u32::from(word) * u32::from(word_bits));
        let bits = left.min(u32::from(word_bits));
        if bits >= 64 { -1 } else { (1 << bits) - 1 }
    }
}

/// A parameter of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// The register it is handed over in. No other value is ever there if it is not `assigned`.
    pub reg: Reg,
    /// Its type.
    pub ty: Type,
    /// Whether the program changes it.
    pub assigned: bool,
}

/// A function that contexts start with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where it starts.
    pub start: Pc,
    /// Its parameters, in registers 0, 1, ...
    pub params: Vec<Param>,
    /// What each register can hold where a context rests; 0 is always in, but for parameters that are not
    /// assigned. Between rests a register may hold anything.
    pub regs: Vec<Domain>,
    /// Where a context can rest, in ascending order.
    pub rests: Vec<Pc>,
    /// The registers whose values matter at each rest, bit n for register n; parallel to `rests`.
    pub live: Vec<u64>,
}

/// A compiled program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Code {
    /// All operations; each entry's are together.
    pub ops: Vec<Op>,
    /// Where each operation came from.
    pub places: Vec<SrcPos>,
    /// Names of the sources.
    pub files: Vec<String>,
    /// What each source is for, parallel to `files`.
    pub roles: Vec<Role>,
    /// Statements, on one line each.
    pub texts: Vec<String>,
    /// Names of the functions.
    pub functions: Vec<String>,
    /// Which of them are in the program, as an entry or inlined; parallel to `functions`.
    pub reached: Vec<bool>,
    /// The variables that the texts declare.
    pub vars: Vec<Var>,
    /// The entries asked for, in that order, and then the further callbacks.
    pub entries: Vec<Entry>,
    /// The entry of each function that is sent to a pCPU; `SendCall`'s second argument is an index here.
    pub callbacks: Vec<u16>,
    /// Names and values of the texts' `#define`s and other constants, in the order of the names.
    pub constants: Vec<(String, i64)>,
    /// The structures that texts allocate objects of, and how many there can be; [`Scope::PerObject`] counts here.
    pub pools: Vec<(String, u16)>,
    /// The names of the local masks that texts allocate.
    pub masks: Vec<String>,
}

/// The table of source positions in the making.
#[derive(Debug)]
pub(crate) struct Places<'p> {
    sources: Vec<&'p str>,
    lines: Vec<Vec<u32>>,
    /// Where each function begins, and its number; in order.
    functions: Vec<((u16, u32), u32)>,
    texts: Vec<String>,
    known_texts: BTreeMap<String, u32>,
    places: Vec<SrcPos>,
    known: BTreeMap<(u16, u32, u32), At>,
}

impl<'p> Places<'p> {
    /// Of sources whose functions begin at `functions`, by their numbers.
    pub(crate) fn new(sources: Vec<&'p str>, functions: impl Iterator<Item = Span>) -> Places<'p> {
        let starts = |text: &str| {
            let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
            std::iter::once(0).chain(ends).map(|i| u32::try_from(i).unwrap_or(u32::MAX)).collect()
        };
        let lines = sources.iter().map(|text| starts(text)).collect();
        let mut functions: Vec<_> = functions.map(|span| (span.file, span.start)).zip(0..).collect();
        functions.sort_unstable();
        Places {
            sources,
            lines,
            functions,
            texts: Vec::new(),
            known_texts: BTreeMap::new(),
            places: Vec::new(),
            known: BTreeMap::new(),
        }
    }

    /// The index of a statement's text.
    pub(crate) fn text(&mut self, span: Span) -> u32 {
        let source = self.sources.get(usize::from(span.file)).copied().unwrap_or("");
        let range = usize::try_from(span.start).unwrap_or(0)..usize::try_from(span.end).unwrap_or(0);
        let text = source.get(range).unwrap_or("").split_whitespace().collect::<Vec<_>>().join(" ");
        let next = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        *self.known_texts.entry(text).or_insert_with_key(|text| {
            self.texts.push(text.clone());
            next
        })
    }

    /// The index of a position.
    pub(crate) fn at(&mut self, span: Span, text: u32) -> At {
        let key = (span.file, span.start, text);
        if let Some(at) = self.known.get(&key) {
            return *at;
        }
        let file = usize::from(span.file);
        let starts = self.lines.get(file).map_or(&[][..], Vec::as_slice);
        let line = starts.partition_point(|s| *s <= span.start);
        let begin = starts.get(line.wrapping_sub(1)).copied().unwrap_or(0);
        let range = usize::try_from(begin).unwrap_or(0)..usize::try_from(span.start).unwrap_or(0);
        let before = self.sources.get(file).and_then(|s| s.get(range)).map_or(0, |s| s.chars().count());
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let from = self.functions.partition_point(|(begin, _)| *begin <= (span.file, span.start));
        let function = from.checked_sub(1).and_then(|at| self.functions.get(at)).map_or(0, |f| f.1);
        let (line, column) = (number(line), number(before + 1));
        self.places.push(SrcPos { file: span.file, line, column, text, function });
        let at = number(self.places.len() - 1);
        self.known.insert(key, at);
        at
    }

    pub(crate) fn get(&self, at: At) -> SrcPos {
        let nowhere = SrcPos { file: 0, line: 0, column: 0, text: 0, function: 0 };
        usize::try_from(at).ok().and_then(|at| self.places.get(at)).copied().unwrap_or(nowhere)
    }

    pub(crate) fn into_texts(self) -> Vec<String> {
        self.texts
    }
}

impl Code {
    /// The value of a constant of the texts.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<i64> {
        self.constants.iter().find(|c| c.0 == name).map(|c| c.1)
    }

    /// The entry of this name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }

    /// The program as text, one operation a line; `*` marks where a context can rest.
    #[must_use]
    pub fn listing(&self) -> String {
        let mut out = String::new();
        for (i, var) in self.vars.iter().enumerate() {
            let words = if var.words > 1 { format!("[{}]", var.words) } else { String::new() };
            let _ = writeln!(
                out,
                "var {i}: {} {}{words}: {} = {}",
                scope(var.scope),
                var.name,
                domain(var.domain),
                var.init
            );
        }
        let mut order: Vec<&Entry> = self.entries.iter().collect();
        order.sort_by_key(|e| e.start);
        for (i, entry) in order.iter().enumerate() {
            let end = order.get(i + 1).map_or(self.ops.len(), |next| usize::from(next.start));
            let params: Vec<_> = entry
                .params
                .iter()
                .map(|p| format!("r{} {}{}", p.reg, p.name, if p.assigned { " (assigned)" } else { "" }))
                .collect();
            let _ = writeln!(out, "\n{}({})", entry.name, params.join(", "));
            let regs: Vec<_> =
                entry.regs.iter().enumerate().map(|(r, d)| format!("r{r}: {}", domain(*d))).collect();
            if !regs.is_empty() {
                let _ = writeln!(out, "    {}", regs.join(", "));
            }
            for pc in usize::from(entry.start)..end {
                let rest = entry.rests.iter().position(|r| usize::from(*r) == pc);
                let mark = if rest.is_some() { '*' } else { ' ' };
                let live = rest.map_or(String::new(), |r| {
                    let live: Vec<_> =
                        (0..64).filter(|b| entry.live[r] >> b & 1 == 1).map(|b| format!("r{b}")).collect();
                    format!("    live {}", if live.is_empty() { "-".to_owned() } else { live.join(" ") })
                });
                let _ = writeln!(out, "{mark}{pc:4}  {}{live}", self.show(self.ops[pc]));
            }
        }
        out
    }

    /// One operation as text.
    #[must_use]
    pub fn show(&self, op: Op) -> String {
        match op {
            Op::Set { dst, rhs } => format!("r{dst} = {}", show_expr(rhs)),
            Op::MaskPut { base, words, bit, on } => {
                format!("put {} bit {} = {}", mask(base, words), operand(bit), operand(on))
            }
            Op::Jump(pc) => format!("jump {pc}"),
            Op::Branch { cond, then, otherwise } => format!("if {} {then} else {otherwise}", operand(cond)),
            Op::Window(window) => match window {
                Window::IrqDisable => "irq off",
                Window::IrqEnable => "irq on",
                Window::PreemptDisable => "preempt off",
                Window::PreemptEnable => "preempt on",
            }
            .to_owned(),
            Op::Choose { dst, options } => format!("r{dst} = choose {options}"),
            Op::ChooseBit { dst, base, words } => format!("r{dst} = choose bit of {}", mask(base, words)),
            Op::Load { dst, place } => format!("r{dst} = load {}", self.place(place)),
            Op::Store { place, src } => format!("store {} = {}", self.place(place), operand(src)),
            Op::Rmw { dst, place, op, src, expected } => {
                let (place, src) = (self.place(place), operand(src));
                let what = match op {
                    RmwOp::Or => format!("{place} |= {src}"),
                    RmwOp::AndNot => format!("{place} &= ~{src}"),
                    RmwOp::And => format!("{place} &= {src}"),
                    RmwOp::Add => format!("{place} += {src}"),
                    RmwOp::Xchg => format!("{place} <-> {src}"),
                    RmwOp::CmpXchg => format!("{place} <-> {src} if {}", operand(expected)),
                    RmwOp::AddUnless => format!("{place} += {src} unless {}", operand(expected)),
                    RmwOp::TryLock(kind) => format!("try {} {place}", lock(kind, true)),
                };
                format!("r{dst} = rmw {what}")
            }
            Op::Lock { kind, place } => format!("{} {}", lock(kind, true), self.place(place)),
            Op::Unlock { kind, place } => format!("{} {}", lock(kind, false), self.place(place)),
            Op::Prim { prim, dst, args } => {
                let args: Vec<_> = args[..arity(prim)].iter().map(|a| operand(*a)).collect();
                format!("r{dst} = {prim:?}({})", args.join(", "))
            }
            Op::Halt => "halt".to_owned(),
        }
    }

    fn place(&self, place: Place) -> String {
        let var = &self.vars[usize::from(place.var.0)];
        let instance = match var.scope {
            Scope::Global => String::new(),
            Scope::PerVm
            | Scope::PerVcpu
            | Scope::PerCpu
            | Scope::PerPage
            | Scope::PerAsid
            | Scope::PerObject(_) => {
                format!("@{}", operand(place.instance))
            }
        };
        let word = if var.words > 1 { format!("[{}]", operand(place.word)) } else { String::new() };
        format!("{}{instance}{word}", var.name)
    }
}

/// How many arguments a primitive uses.
fn arity(prim: Prim) -> usize {
    match prim {
        Prim::Invd
        | Prim::SchedPark
        | Prim::MightSleep
        | Prim::IrqsDisabled
        | Prim::InAtomic
        | Prim::InInterrupt
        | Prim::Fence => 0,
        Prim::VmRun
        | Prim::GuestRead
        | Prim::GuestWrite
        | Prim::GuestReadShared
        | Prim::GuestWriteShared
        | Prim::VcpuFlushTlb
        | Prim::FaultPage
        | Prim::UserPtePresent
        | Prim::PageMapped
        | Prim::ZapUserPte
        | Prim::FreePage
        | Prim::HostRead
        | Prim::HostWrite
        | Prim::DmaRead
        | Prim::DmaWrite
        | Prim::FlushBegin
        | Prim::FlushPrivate
        | Prim::FlushShared
        | Prim::FlushEnd
        | Prim::ClflushPage
        | Prim::ClwbPage
        | Prim::NonBlock
        | Prim::FreeVm
        | Prim::TraceWriteback
        | Prim::OracleUpdate
        | Prim::GetAsid
        | Prim::UserReuse
        | Prim::JoinVcpu
        | Prim::Warn
        | Prim::FreeVcpu
        | Prim::RmpMakeShared
        | Prim::RmpAssigned
        | Prim::GuestEvict => 1,
        Prim::ZapSpte
        | Prim::InstallSpte
        | Prim::AllocPage
        | Prim::WaitCalls
        | Prim::SetLoaded
        | Prim::FreeMask
        | Prim::MaskAvailable
        | Prim::SetAsid
        | Prim::MovePages
        | Prim::FreeObject
        | Prim::RmpMakePrivate
        | Prim::PspWrite
        | Prim::PspRead
        | Prim::VmPageFlush => 2,
        Prim::Firmware(command) => match command {
            Command::SevInit | Command::SnpInit | Command::SnpShutdown | Command::DfFlush => 0,
            Command::LaunchFinish
            | Command::Deactivate
            | Command::Decommission
            | Command::SnpDecommission => 1,
            Command::Activate => 2,
            Command::ActivateEx => 3,
        },
        Prim::AllocObject => 3,
        Prim::SendCall | Prim::LockHeld | Prim::ZallocMask => 4,
    }
}

fn operand(v: Operand) -> String {
    match v {
        Operand::Const(n) => n.to_string(),
        Operand::Reg(r) => format!("r{r}"),
    }
}

fn mask(base: Reg, words: u8) -> String {
    if words == 1 { format!("m{base}") } else { format!("m{base}..{}", base + words) }
}

fn lock(kind: Lock, take: bool) -> String {
    let kind = match kind {
        Lock::Mutex => "mutex",
        Lock::Spin => "spin",
        Lock::Read => "read",
        Lock::Write => "write",
        Lock::DownRead => "rwsem read",
        Lock::DownWrite => "rwsem write",
        Lock::Completion => "completion",
        Lock::CompleteAll => "completion (all)",
        Lock::Downgrade => "rwsem write to read",
    };
    format!("{kind} {}", if take { "lock" } else { "unlock" })
}

fn show_expr(e: Expr) -> String {
    match e {
        Expr::Use(v) => operand(v),
        Expr::Un(op, v) => {
            let v = operand(v);
            match op {
                UnOp::Neg => format!("-{v}"),
                UnOp::Not => format!("~{v}"),
                UnOp::IsZero => format!("!{v}"),
                UnOp::Weight => format!("weight {v}"),
                UnOp::LowestBit => format!("lowest bit of {v}"),
            }
        }
        Expr::Bin(op, a, b) => {
            let text = match op {
                BinOp::Add => "+",
                BinOp::Sub => "-",
                BinOp::Mul => "*",
                BinOp::Div => "/",
                BinOp::Rem => "%",
                BinOp::And => "&",
                BinOp::Or => "|",
                BinOp::Xor => "^",
                BinOp::Shl => "<<",
                BinOp::Shr => ">>",
                BinOp::Eq => "==",
                BinOp::Ne => "!=",
                BinOp::Lt => "<",
                BinOp::Le => "<=",
                BinOp::Gt => ">",
                BinOp::Ge => ">=",
            };
            format!("{} {text} {}", operand(a), operand(b))
        }
        Expr::ThisCpu => "this cpu".to_owned(),
        Expr::VmOf(v) => format!("vm of {}", operand(v)),
        Expr::Siblings { shared, cpu, word } => {
            let shared = if shared == Shared::Core { "core" } else { "LLC" };
            format!("{shared} siblings of {} word {word}", operand(cpu))
        }
        Expr::MaskTest { base, words, bit } => format!("{} bit {}", mask(base, words), operand(bit)),
        Expr::MaskNext { base, words, after } => {
            format!("next in {} after {}", mask(base, words), operand(after))
        }
        Expr::MaskWeight { base, words } => format!("weight of {}", mask(base, words)),
    }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Global => "global",
        Scope::PerVm => "per VM",
        Scope::PerVcpu => "per vCPU",
        Scope::PerCpu => "per pCPU",
        Scope::PerAsid => "per ASID",
        Scope::PerPage => "per page",
        Scope::PerObject(_) => "per object",
    }
}

fn domain(d: Domain) -> String {
    match d {
        Domain::Range { lo, hi } => format!("{lo}..{hi}"),
        Domain::Mask { bits } => format!("{bits} bits"),
    }
}
