//! From texts to a program: parse, collect, lower, optimise, find ranges, colour, emit.

use sim_state::Domain;
use svm_policy::{Expr, Op, Operand, Pc, Place, Prim, Reg, Scope, VarId};

use crate::ast::{Span, Type};
use crate::code::{Code, Entry, MASK_FREED, MASK_LIVE, MASK_NULL, Param, Places, SrcPos, Var};
use crate::decl::{Global, Program, collect};
use crate::diag::{Diag, Fault, NO_FUNCTION, nearest, resolve};
use crate::include::{self, Find, Texts};
use crate::ir::{Calc, Class, End, Flow, Inst, LocalMask, Slot, V, Val};
use crate::live;
use crate::lower::{self, Shared};
use crate::machine::Machine;
use crate::range::{Input, Interval, Ranges, solve, union};
use crate::{Config, Source, VarKind, opt, spin};

/// Operations after which functions that nothing calls are no longer looked at.
const CHECKED: usize = 500_000;

/// What may be left out, for tests that compare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) optimise: bool,
    pub(crate) share_registers: bool,
}

impl Effort {
    pub(crate) const FULL: Effort = Effort { optimise: true, share_registers: true };
}

/// An entry before it is emitted.
struct Unit {
    func: usize,
    flow: Flow,
    callback: Option<i64>,
}

pub(crate) fn compile_with(
    sources: &[Source<'_>],
    find: &Find<'_>,
    entries: &[&str],
    config: &Config,
    effort: Effort,
) -> Result<Code, Vec<Diag>> {
    let mut faults = Vec::new();
    let texts = include::read(sources, find, &mut faults);
    if faults.iter().all(|fault| fault.understood) {
        match Machine::new(config) {
            Ok(machine) => {
                let program = collect(&texts, config, machine, &mut faults);
                if let Some(code) = build(&program, &texts, entries, effort, &mut faults) {
                    return Ok(code);
                }
            }
            Err(fault) => faults.push(fault),
        }
    }
    Err(resolve(faults, &texts.named()))
}

fn build<'p>(
    program: &'p Program<'p>,
    texts: &'p Texts,
    entries: &[&str],
    effort: Effort,
    faults: &mut Vec<Fault>,
) -> Option<Code> {
    let begins = program.funcs.iter().map(|f| f.head.name.span);
    let mut places = Places::new(texts.list.iter().map(|t| t.text.as_str()).collect(), begins);
    let mut wanted: Vec<usize> = Vec::new();
    for name in entries {
        match program.globals.get(name) {
            Some(Global::Func(func)) => {
                if !wanted.contains(func) {
                    wanted.push(*func);
                }
            }
            Some(Global::Const { .. } | Global::Var(_)) | None => {
                let names = program.funcs.iter().map(|f| f.head.name.name.as_str());
                let fault = Fault::nowhere(format!("no function `{name}` in the texts"))
                    .help_if(nearest(name, names));
                faults.push(fault);
            }
        }
    }
    if program.differs {
        return None;
    }
    let mut callbacks: Vec<usize> = Vec::new();
    let mut reached = vec![false; program.funcs.len()];
    let mut build_bugs = Vec::new();
    let mut masks = Vec::new();
    let mut units: Vec<Unit> = Vec::new();
    let mut shared = Shared {
        program,
        faults,
        places: &mut places,
        callbacks: &mut callbacks,
        reached: &mut reached,
        build_bugs: &mut build_bugs,
        masks: &mut masks,
        work: 0,
    };
    let mut next = 0;
    loop {
        let Some(&func) = wanted.get(next) else {
            let further = shared.callbacks.iter().copied().find(|f| !wanted.contains(f));
            match further {
                Some(func) => wanted.push(func),
                None => break,
            }
            continue;
        };
        next += 1;
        let flow = lower::entry(&mut shared, func);
        units.push(Unit { func, flow, callback: None });
    }
    let in_program = shared.reached.to_vec();
    for func in 0..program.funcs.len() {
        if !shared.reached[func] && shared.work < CHECKED {
            lower::check(&mut shared, func);
        }
    }
    if !faults.is_empty() {
        return None;
    }
    // Before anything is left out: a mask is null at first even if what allocates it is never reached.
    let allocated = allocations(program, &units);
    for unit in &mut units {
        unit.callback = callbacks.iter().position(|f| *f == unit.func).and_then(|i| i64::try_from(i).ok());
        unit.flow.compact();
        spin::check(&unit.flow, faults);
        initialise(&mut unit.flow);
        if effort.optimise {
            opt::run(&mut unit.flow);
        }
    }
    let mut ranges = find_ranges(program, &units);
    for (unit, regs) in units.iter_mut().zip(&mut ranges.regs) {
        opt::resolve(&mut unit.flow, regs, effort.optimise);
        if effort.optimise {
            opt::run(&mut unit.flow);
            opt::join_copies(&mut unit.flow, regs);
        }
    }
    not_in_this_kernel(program, &units, &build_bugs, faults);
    let mut code = Code {
        files: texts.list.iter().map(|t| t.file.clone()).collect(),
        roles: texts.list.iter().map(|t| t.role).collect(),
        functions: program.funcs.iter().map(|f| f.head.name.name.clone()).collect(),
        reached: in_program,
        ..Code::default()
    };
    for (unit, regs) in units.iter().zip(&ranges.regs) {
        emit(program, &mut code, unit, regs, &places, effort, faults);
    }
    for func in &callbacks {
        let entry = units.iter().position(|u| u.func == *func).unwrap_or(0);
        code.callbacks.push(u16::try_from(entry).unwrap_or(u16::MAX));
    }
    code.vars = vars(program, &ranges, &units, allocated, &mut places);
    code.texts = places.into_texts();
    code.constants = program
        .globals
        .iter()
        .filter_map(|(name, global)| match global {
            Global::Const { value, .. } => Some(((*name).to_owned(), *value)),
            Global::Func(_) | Global::Var(_) => None,
        })
        .collect();
    code.masks = masks;
    code.pools = program.pools.iter().map(|p| (p.name.clone(), p.count)).collect();
    faults.is_empty().then_some(code)
}

/// What is left of `BUILD_BUG()` when what no order of steps comes to has gone.
fn not_in_this_kernel(
    program: &Program<'_>,
    units: &[Unit],
    build_bugs: &[(usize, Span)],
    faults: &mut Vec<Fault>,
) {
    let name = |func: usize| &program.funcs[func].head.name.name;
    let mut told = Vec::new();
    for unit in units {
        for (inst, _) in unit.flow.blocks.iter().flat_map(|b| &b.insts) {
            let Inst::Prim { prim: Prim::Warn, args: [_, _, Val::Const(number @ 1..), _], .. } = inst else {
                continue;
            };
            let found = usize::try_from(*number - 1).ok().and_then(|i| build_bugs.get(i));
            if let Some((func, span)) = found.filter(|(_, span)| !told.contains(span)) {
                told.push(*span);
                let message = format!("{NO_FUNCTION}{}`, which `{}` calls", name(*func), name(unit.func));
                faults.push(
                    Fault::at(*span, message).expected("not to be reached").help("take another kernel"),
                );
            }
        }
    }
}

/// Registers that some path reads before any writes them start as 0.
fn initialise(flow: &mut Flow) {
    let (_, live_in) = live::liveness(flow);
    let at = flow.blocks[0].insts.first().map_or(flow.blocks[0].end_at, |(_, at)| *at);
    for reg in live_in[0].iter() {
        if reg >= flow.params {
            flow.blocks[0].insts.insert(0, (Inst::Set { dst: reg, calc: Calc::Use(Val::Const(0)) }, at));
        }
    }
}

fn find_ranges(program: &Program<'_>, units: &[Unit]) -> Ranges {
    let inputs: Vec<Input<'_>> = units
        .iter()
        .map(|u| Input {
            flow: &u.flow,
            params: program.funcs[u.func].head.params.iter().map(|p| p.ty.clone()).collect(),
            callback: u.callback,
        })
        .collect();
    solve(program, &inputs)
}

fn vars(
    program: &Program<'_>,
    ranges: &Ranges,
    units: &[Unit],
    allocated: Vec<Option<i64>>,
    places: &mut Places<'_>,
) -> Vec<Var> {
    let mut used = vec![false; program.vars.len()];
    for unit in units {
        for (inst, _) in unit.flow.blocks.iter().flat_map(|b| &b.insts) {
            if let Inst::Load { slot, .. }
            | Inst::Store { slot, .. }
            | Inst::Rmw { slot, .. }
            | Inst::Lock { slot, .. }
            | Inst::Unlock { slot, .. } = inst
            {
                used[usize::from(slot.var)] = true;
            }
        }
    }
    let mut states = Vec::new();
    let mut list = Vec::new();
    for ((def, (lo, hi)), used) in program.vars.iter().zip(&ranges.vars).zip(used) {
        let domain = match def.kind {
            VarKind::Int if program.pools.iter().any(|p| usize::from(p.state) == list.len()) => {
                Domain::Range { lo: MASK_NULL, hi: MASK_FREED }
            }
            VarKind::Mask => Domain::Mask { bits: program.machine.bits_of_word(0) },
            VarKind::Int | VarKind::Bool | VarKind::Ref(_) => Domain::Range { lo: *lo, hi: *hi },
            VarKind::Mutex | VarKind::Spin | VarKind::Rwlock | VarKind::Rwsem | VarKind::Completion => {
                Domain::Range { lo: def.range.0, hi: def.range.1 }
            }
        };
        let at = places.at(def.span, 0);
        let SrcPos { file, line, column, .. } = places.get(at);
        list.push(Var {
            name: def.name.clone(),
            scope: def.scope,
            words: def.words,
            domain,
            init: def.init,
            kind: def.kind.clone(),
            is_opaque: def.ty == Type::Opaque,
            state: None,
            object: program.pool_of(def.scope).map(|p| p.state).filter(|s| usize::from(*s) != list.len()),
            names: if matches!(&domain, Domain::Range { .. })
                && program.pools.iter().any(|p| usize::from(p.state) == list.len())
            {
                state_names()
            } else {
                program.names_of(&def.ty)
            },
            used,
            file,
            line,
            column,
        });
    }
    for (at, init) in allocated.into_iter().enumerate() {
        let (Some(init), Some(mask)) = (init, list.get(at).cloned()) else { continue };
        states.push(Var {
            name: format!("{}.state", mask.name),
            words: 1,
            domain: Domain::Range { lo: MASK_NULL, hi: MASK_FREED },
            init,
            kind: VarKind::Int,
            names: state_names(),
            used: true,
            ..mask
        });
        list[at].state = u16::try_from(program.vars.len() + states.len() - 1).ok();
    }
    list.extend(states);
    for (scope, name, prims) in [
        (Scope::PerVm, "kvm", &[Prim::FreeVm][..]),
        (Scope::PerVcpu, "kvm_vcpu", &[Prim::FreeVm, Prim::FreeVcpu][..]),
    ] {
        let insts = units.iter().flat_map(|u| &u.flow.blocks).flat_map(|b| &b.insts);
        let freed = insts.clone().any(|(i, _)| matches!(i, Inst::Prim { prim, .. } if prims.contains(prim)));
        let Some(first) = list.iter().find(|v| v.scope == scope).filter(|_| freed).cloned() else { continue };
        let Ok(state) = u16::try_from(list.len()) else { continue };
        for var in list.iter_mut().filter(|v| v.scope == scope) {
            var.object = Some(state);
        }
        list.push(Var {
            name: name.to_owned(),
            words: 1,
            domain: Domain::Range { lo: MASK_LIVE, hi: MASK_FREED },
            init: MASK_LIVE,
            kind: VarKind::Int,
            state: None,
            object: None,
            names: state_names(),
            used: true,
            ..first
        });
    }
    list
}

/// What the states of masks, objects and structures are called.
fn state_names() -> Vec<(i64, String)> {
    [(MASK_NULL, "NULL"), (MASK_LIVE, "allocated"), (MASK_FREED, "freed")]
        .map(|(n, name)| (n, name.to_owned()))
        .to_vec()
}

/// The masks that the entries allocate or free, and what each starts as: null if it is ever allocated.
fn allocations(program: &Program<'_>, units: &[Unit]) -> Vec<Option<i64>> {
    let mut found = vec![None; program.vars.len()];
    for (inst, _) in units.iter().flat_map(|u| &u.flow.blocks).flat_map(|b| &b.insts) {
        if let Inst::Prim { prim, args: [Val::Const(var), ..], .. } = inst
            && matches!(prim, Prim::ZallocMask | Prim::FreeMask)
            && let Some(state) = usize::try_from(*var).ok().and_then(|var| found.get_mut(var))
        {
            let allocates = *prim == Prim::ZallocMask || *state == Some(MASK_NULL);
            *state = Some(if allocates { MASK_NULL } else { MASK_LIVE });
        }
    }
    found
}

/// Ways that one step may go: the explorer tries each.
const WAYS: u64 = 1 << 16;

/// The first operation of an entry, whose first is number `first` of all, that a step can come to in too many ways. Choices
/// multiply from one access to shared state to the next; one that is come back to begins a step of its own.
#[expect(clippy::wildcard_enum_match_arm, reason = "most operations go on with the next, and choose nothing")]
fn too_many_ways(ops: &[Op], first: usize, pcpus: i64) -> Option<usize> {
    // An explorer has 16 pCPUs at most; where there are more, nobody tries every way.
    let pcpus = u64::try_from(pcpus.min(16)).unwrap_or(1);
    let mut ways = vec![1u64; ops.len()];
    for (at, op) in ops.iter().enumerate() {
        let after = match *op {
            Op::Choose { options, .. } => ways[at].saturating_mul(u64::from(options)),
            Op::ChooseBit { .. } => ways[at].saturating_mul(pcpus),
            op if op.is_shared() => 1,
            _ => ways[at],
        };
        if after > WAYS {
            return Some(at);
        }
        let next = match *op {
            Op::Jump(to) => [usize::from(to) - first; 2],
            Op::Branch { then, otherwise, .. } => [usize::from(then) - first, usize::from(otherwise) - first],
            Op::Halt => [at; 2],
            _ => [at + 1; 2],
        };
        for to in next.into_iter().filter(|to| *to > at) {
            if let Some(ways) = ways.get_mut(to) {
                *ways = after.max(*ways);
            }
        }
    }
    None
}

/// Names registers and blocks as the stepper does.
struct Names<'c> {
    colours: &'c [u8],
    starts: Vec<usize>,
}

impl Names<'_> {
    fn reg(&self, v: V) -> Reg {
        usize::try_from(v).ok().and_then(|v| self.colours.get(v)).copied().unwrap_or(0)
    }

    fn val(&self, v: Val) -> Operand {
        match v {
            Val::Const(n) => Operand::Const(n),
            Val::Reg(r) => Operand::Reg(self.reg(r)),
        }
    }

    fn place(&self, slot: Slot) -> Place {
        Place { var: VarId(slot.var), instance: self.val(slot.instance), word: self.val(slot.word) }
    }

    fn mask(&self, m: LocalMask) -> (Reg, u8) {
        (self.reg(m.base), m.words)
    }

    fn pc(&self, block: usize) -> Pc {
        Pc::try_from(self.starts[block]).unwrap_or(Pc::MAX)
    }

    fn expr(&self, calc: Calc) -> Expr {
        match calc {
            Calc::Use(v) | Calc::Wrap { of: v, .. } | Calc::Known { of: v, .. } => Expr::Use(self.val(v)),
            Calc::Un(op, v) => Expr::Un(op, self.val(v)),
            Calc::Bin(op, a, b) => Expr::Bin(op, self.val(a), self.val(b)),
            Calc::ThisCpu => Expr::ThisCpu,
            Calc::VmOf(v) => Expr::VmOf(self.val(v)),
            Calc::Siblings(shared, cpu, word) => Expr::Siblings { shared, cpu: self.val(cpu), word },
            Calc::MaskTest(m, bit) => {
                let (base, words) = self.mask(m);
                Expr::MaskTest { base, words, bit: self.val(bit) }
            }
            Calc::MaskNext(m, after) => {
                let (base, words) = self.mask(m);
                Expr::MaskNext { base, words, after: self.val(after) }
            }
            Calc::MaskWeight(m) => {
                let (base, words) = self.mask(m);
                Expr::MaskWeight { base, words }
            }
        }
    }

    fn op(&self, inst: &Inst) -> Op {
        match *inst {
            Inst::Set { dst, calc } => Op::Set { dst: self.reg(dst), rhs: self.expr(calc) },
            Inst::MaskPut { mask, bit, on } => {
                let (base, words) = self.mask(mask);
                Op::MaskPut { base, words, bit: self.val(bit), on: self.val(on) }
            }
            Inst::Window(window) => Op::Window(window),
            Inst::Choose { dst, options } => Op::Choose { dst: self.reg(dst), options },
            Inst::ChooseBit { dst, mask } => {
                let (base, words) = self.mask(mask);
                Op::ChooseBit { dst: self.reg(dst), base, words }
            }
            Inst::Load { dst, slot } => Op::Load { dst: self.reg(dst), place: self.place(slot) },
            Inst::Store { slot, src } => Op::Store { place: self.place(slot), src: self.val(src) },
            Inst::Rmw { dst, slot, op, src, expected } => Op::Rmw {
                dst: self.reg(dst),
                place: self.place(slot),
                op,
                src: self.val(src),
                expected: self.val(expected),
            },
            Inst::Lock { kind, slot } => Op::Lock { kind, place: self.place(slot) },
            Inst::Unlock { kind, slot } => Op::Unlock { kind, place: self.place(slot) },
            Inst::Prim { prim, dst, args, mask } => {
                let mut args = args.map(|a| self.val(a));
                if let Some(mask) = mask {
                    let (base, words) = self.mask(mask);
                    args[0] = Operand::Const(i64::from(base));
                    args[1] = Operand::Const(i64::from(words));
                }
                Op::Prim { prim, dst: self.reg(dst), args }
            }
        }
    }
}

/// Whether a block needs an operation to go on to where it goes.
fn falls_through(flow: &Flow, block: usize) -> bool {
    matches!(flow.blocks[block].end, End::Jump(to) if to == block + 1)
}

fn emit(
    program: &Program<'_>,
    code: &mut Code,
    unit: &Unit,
    ranges: &[Option<Interval>],
    places: &Places<'_>,
    effort: Effort,
    faults: &mut Vec<Fault>,
) {
    let mut flow = unit.flow.clone();
    flow.compact();
    let head = program.funcs[unit.func].head;
    let colours = match live::colour(&flow, effort.share_registers) {
        Ok(colours) => colours,
        Err(needed) => {
            let fault = Fault::at(
                head.name.span,
                format!("`{}` needs {needed} registers; a context has {}", head.name.name, svm_policy::REGS),
            );
            faults.push(fault.help("use fewer local masks and variables at a time, or wider mask words"));
            return;
        }
    };
    let mut starts = Vec::new();
    let mut pc = code.ops.len();
    for (i, block) in flow.blocks.iter().enumerate() {
        starts.push(pc);
        pc += block.insts.len() + usize::from(!falls_through(&flow, i));
    }
    if Pc::try_from(pc).is_err() {
        let fault = Fault::at(head.name.span, format!("the program is too large at `{}`", head.name.name));
        faults.push(fault.expected(format!("more than {} operations", Pc::MAX)));
        return;
    }
    let names = Names { colours: &colours, starts };
    let mut resting = Resting::new(&names, &flow);
    let (live_out, live_in) = live::liveness(&flow);
    let live = resting.bits(&live_in[0]);
    resting.add(names.pc(0), live);
    for (i, block) in flow.blocks.iter().enumerate() {
        let mut ops = Vec::new();
        let mut live = live_out[i].clone();
        for (inst, at) in block.insts.iter().rev() {
            live::step_back(inst, &mut live);
            let op = names.op(inst);
            ops.push((op, *at, op.is_rest().then(|| resting.bits(&live))));
        }
        for (op, at, live) in ops.into_iter().rev() {
            if let Some(live) = live {
                resting.add(Pc::try_from(code.ops.len()).unwrap_or(Pc::MAX), live);
            }
            code.ops.push(op);
            code.places.push(places.get(at));
        }
        let end = match block.end {
            End::Jump(_) if falls_through(&flow, i) => continue,
            End::Jump(to) => Op::Jump(names.pc(to)),
            End::Branch { cond, then, otherwise } => {
                Op::Branch { cond: names.val(cond), then: names.pc(then), otherwise: names.pc(otherwise) }
            }
            End::Halt => Op::Halt,
        };
        if end.is_rest() {
            let live = resting.bits(&live_out[i]);
            resting.add(Pc::try_from(code.ops.len()).unwrap_or(Pc::MAX), live);
        }
        code.ops.push(end);
        code.places.push(places.get(block.end_at));
    }
    let first = usize::from(names.pc(0));
    if let Some(at) = too_many_ways(&code.ops[first..], first, program.machine.pcpus) {
        let fault =
            Fault::at(head.name.span, format!("`{}` makes too many choices in one step", head.name.name));
        let line = code.places[first + at].line;
        let fault =
            fault.expected(format!("more than {WAYS} ways to come to line {line} from the access before"));
        faults.push(fault.help("read a shared variable between them (`READ_ONCE`), or choose less"));
    }
    let assigned = live::assigned(&flow);
    let params = head
        .params
        .iter()
        .zip(&assigned)
        .enumerate()
        .map(|(i, (p, assigned))| Param {
            name: p.name.name.clone(),
            reg: Reg::try_from(i).unwrap_or(Reg::MAX),
            ty: p.ty.clone(),
            assigned: *assigned,
        })
        .collect();
    code.entries.push(Entry {
        name: head.name.name.clone(),
        start: names.pc(0),
        params,
        regs: domains(&flow, &colours, ranges, &resting.any),
        rests: resting.rests,
        live: resting.live,
    });
}

/// Where a context rests, and what is live there.
struct Resting<'n> {
    names: &'n Names<'n>,
    rests: Vec<Pc>,
    live: Vec<u64>,
    /// What is live at any of them.
    any: live::Set,
}

impl<'n> Resting<'n> {
    fn new(names: &'n Names<'n>, flow: &Flow) -> Resting<'n> {
        Resting { names, rests: Vec::new(), live: Vec::new(), any: live::Set::new(flow.regs.len()) }
    }

    /// The registers of the machine that are live, which now count as live at a rest.
    fn bits(&mut self, live: &live::Set) -> u64 {
        live.iter().fold(0, |bits, v| {
            self.any.insert(v);
            bits | 1 << self.names.reg(v)
        })
    }

    fn add(&mut self, pc: Pc, live: u64) {
        if self.rests.last() != Some(&pc) {
            self.rests.push(pc);
            self.live.push(live);
        }
    }
}

/// What each machine register can hold where a context rests: what the registers that share it can that are
/// live there, and 0, which dead ones hold.
fn domains(flow: &Flow, colours: &[u8], ranges: &[Option<Interval>], resting: &live::Set) -> Vec<Domain> {
    let assigned = live::assigned(flow);
    let mut found: Vec<Option<Domain>> = Vec::new();
    let mut add = |v: V, matters: bool| {
        let i = usize::try_from(v).unwrap_or(0);
        let reg = usize::from(colours[i]);
        if found.len() <= reg {
            found.resize(reg + 1, None);
        }
        if !matters {
            return;
        }
        let new = match flow.regs[i].class {
            Class::Mask { bits } => Domain::Mask { bits },
            Class::Number => {
                let (lo, hi) = ranges.get(i).copied().flatten().unwrap_or((0, 0));
                let fixed = assigned.get(i).is_some_and(|a| !a);
                if fixed { Domain::Range { lo, hi } } else { Domain::Range { lo: lo.min(0), hi: hi.max(0) } }
            }
        };
        found[reg] = Some(match found[reg] {
            None => new,
            Some(old) => join(old, new),
        });
    };
    for param in 0..flow.params {
        add(param, true);
    }
    for block in &flow.blocks {
        for (inst, _) in &block.insts {
            inst.changes(&mut |v| add(v, resting.has(v)));
            inst.uses(&mut |v| add(v, resting.has(v)));
        }
    }
    found.into_iter().map(|d| d.unwrap_or(Domain::Range { lo: 0, hi: 0 })).collect()
}

fn join(a: Domain, b: Domain) -> Domain {
    let range = |d| match d {
        Domain::Range { lo, hi } => (lo, hi),
        Domain::Mask { bits: 63.. } => (i64::MIN, i64::MAX),
        Domain::Mask { bits } => (0, (1 << bits) - 1),
    };
    match (a, b) {
        (Domain::Mask { bits: a }, Domain::Mask { bits: b }) => Domain::Mask { bits: a.max(b) },
        (a, b) => {
            let (lo, hi) = union(range(a), range(b));
            Domain::Range { lo, hi }
        }
    }
}
