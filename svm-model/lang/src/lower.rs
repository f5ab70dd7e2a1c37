//! Syntax tree to blocks of operations: every call is inlined, so that an entry is one flat program.

mod atomic;
mod call;
mod expr;
mod lock;
mod loops;
mod mask;
mod stmt;
mod vm;

use std::collections::{BTreeMap, BTreeSet};

use svm_policy::{BinOp, Prim, UnOp};

use crate::ast::{Function, LockType, Span, Type};
use crate::code::Places;
use crate::decl::Program;
use crate::diag::{Fault, nearest};
use crate::ir::{At, B, Block, Calc, Class, End, Flow, Inst, LocalMask, RegInfo, Slot, V, Val};
use crate::machine;
use crate::parse::Reported;

/// How deep calls, statements and expressions may nest, after inlining.
const DEPTH: u32 = 300;
/// Operations of one entry before optimisation, and calls in it: one that comes to nothing takes its time, too. The largest
/// entry of the built-in texts has some hundreds. What is allowed compiles within two seconds (`tests/limits.rs`).
const OPERATIONS: usize = 12_000;
/// The same of all entries together.
const ALL_OPERATIONS: usize = 48_000;
/// Errors of entries after which no similar names are looked for.
const SUGGESTED: usize = 200;

pub(crate) type Lowered<T> = Result<T, Reported>;

/// A mask, wherever it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MaskRef {
    Local(LocalMask),
    Shared(Slot),
    /// A local mask that is not to be written: what a call gave.
    Fixed(LocalMask),
    /// Every pCPU, always.
    Full,
}

impl MaskRef {
    /// A shared mask's variable and its instance; -1 of any other.
    fn variable(self) -> (Val, Val) {
        match self {
            MaskRef::Shared(slot) => (Val::Const(i64::from(slot.var)), slot.instance),
            MaskRef::Local(_) | MaskRef::Fixed(_) | MaskRef::Full => (Val::Const(-1), Val::Const(0)),
        }
    }
}

/// What an expression gives.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Num(Val, Type),
    /// The type tells `cpumask_t`, which cannot be passed on without `&`, from a pointer.
    Mask(MaskRef, Type),
    /// The lock, and whether this is a pointer to it.
    Lock(Slot, LockType, bool),
    /// A function; none if it is the parameter of a function that is checked by itself.
    Func(Option<usize>),
    Nothing,
}

/// What can stand on the left of `=`, and what else a name may mean.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Target {
    Reg(V, Type),
    Slot(Slot, Type),
    Array(Slot, Type, u16),
    Value(Value),
}

#[derive(Clone, Debug)]
struct Binding {
    target: Target,
    /// Whether a loop over pCPUs or vCPUs moves it, so that the text must not.
    held: bool,
}

struct Scope<'p> {
    /// Where the block begins, which names it; none for scopes that are not blocks of the text.
    id: Option<u32>,
    names: BTreeMap<&'p str, Binding>,
    /// Locks to give back at its end, and where they were taken.
    cleanups: Vec<(lock::Held, Span)>,
    /// Its local masks that the function allocates, which leak if they are there at its end.
    masks: Vec<LocalMask>,
    /// Flushes of lines that no fence has completed yet, and their pages.
    weak: Vec<(Prim, Val)>,
}

impl<'p> Scope<'p> {
    fn new(id: Option<u32>, names: BTreeMap<&'p str, Binding>) -> Scope<'p> {
        Scope { id, names, cleanups: Vec::new(), masks: Vec::new(), weak: Vec::new() }
    }
}

/// What is kept of a local mask that its function allocates.
#[derive(Clone, Copy)]
struct Allocated {
    /// Whether it is there: [`crate::MASK_NULL`] and its kin.
    state: V,
    /// Its index among the names.
    name: i64,
}

/// A block of the text around a label, and what stands before the label in it: guards, and local masks that are allocated.
#[derive(Clone, Copy, Debug)]
struct Around {
    id: u32,
    guards: usize,
    masks: usize,
}

/// Where `break` and `continue` go.
#[derive(Clone, Copy)]
struct Loop {
    after: B,
    next: Option<B>,
    /// Scopes open outside of the loop.
    scopes: usize,
}

/// Where a label is: its block, and each block of the text around it.
#[derive(Clone, Debug)]
struct Label {
    block: B,
    path: Vec<Around>,
    span: Span,
    seen: bool,
}

struct Frame<'p> {
    func: usize,
    result: Option<(V, Type)>,
    exit: B,
    /// Scopes open outside of the function.
    scopes: usize,
    loops: Vec<Loop>,
    labels: BTreeMap<&'p str, Label>,
    /// The names of the local masks that it allocates.
    allocates: BTreeSet<&'p str>,
}

/// What all entries share.
pub(crate) struct Shared<'p, 'c> {
    pub(crate) program: &'p Program<'p>,
    pub(crate) faults: &'c mut Vec<Fault>,
    pub(crate) places: &'c mut Places<'p>,
    /// Functions that are passed to other pCPUs.
    pub(crate) callbacks: &'c mut Vec<usize>,
    /// Functions that have been lowered, in whatever place.
    pub(crate) reached: &'c mut [bool],
    /// Each `BUILD_BUG()`, and the function that it is in.
    pub(crate) build_bugs: &'c mut Vec<(usize, Span)>,
    /// The names of the local masks that functions allocate.
    pub(crate) masks: &'c mut Vec<String>,
    /// Operations made so far, over all functions.
    pub(crate) work: usize,
}

pub(crate) struct Lower<'p, 'c, 's> {
    s: &'s mut Shared<'p, 'c>,
    p: &'p Program<'p>,
    flow: Flow,
    cur: B,
    frames: Vec<Frame<'p>>,
    scopes: Vec<Scope<'p>>,
    /// The local masks that functions allocate, by their first registers.
    allocated: BTreeMap<V, Allocated>,
    depth: u32,
    /// The expression that is a statement by itself, if the statement at hand is one.
    alone: Option<Span>,
    count: usize,
    /// How far it may go.
    most: usize,
    /// Whether this is a guest's program; none if that is not known.
    guest: Option<bool>,
    /// The statement at hand, for the positions of operations.
    text: u32,
}

/// Lowers one function as an entry.
pub(crate) fn entry(shared: &mut Shared<'_, '_>, func: usize) -> Flow {
    let program = shared.program;
    let head = program.funcs[func].head;
    for param in &head.params {
        if matches!(param.ty, Type::MaskPtr | Type::MaskVar | Type::LockPtr(_) | Type::Func) {
            let fault = Fault::at(param.name.span, format!("`{}` starts a context", head.name.name))
                .expected(format!("its parameters cannot be a `{}`", param.ty));
            shared.faults.push(fault);
        }
    }
    let guests = shared.program.machine.guests.as_ref();
    let most = OPERATIONS.min(ALL_OPERATIONS.saturating_sub(shared.work));
    run(shared, func, most, guests.map(|names| names.contains(&head.name.name)))
}

/// Lowers a function that nothing calls, to find its errors.
pub(crate) fn check(shared: &mut Shared<'_, '_>, func: usize) {
    let before = shared.faults.len();
    let mut flow = run(shared, func, OPERATIONS, None);
    if shared.faults.len() == before {
        flow.compact();
        crate::spin::check(&flow, shared.faults);
    }
}

fn run<'p>(shared: &mut Shared<'p, '_>, func: usize, most: usize, guest: Option<bool>) -> Flow {
    let program = shared.program;
    let head: &'p Function = program.funcs[func].head;
    let flow = Flow { blocks: Vec::new(), regs: Vec::new(), params: 0, loops: Vec::new() };
    let mut lower = Lower {
        s: shared,
        p: program,
        flow,
        cur: 0,
        frames: Vec::new(),
        scopes: Vec::new(),
        allocated: BTreeMap::new(),
        depth: 0,
        alone: None,
        count: 0,
        most,
        guest,
        text: 0,
    };
    lower.new_block();
    let mut args = Vec::new();
    for param in &head.params {
        let value = if let Type::Bool | Type::Int(_) | Type::Enum(_) | Type::Ref(_) | Type::Opaque = param.ty
        {
            let reg = lower.new_reg();
            lower.flow.params += 1;
            Value::Num(Val::Reg(reg), param.ty.clone())
        } else {
            Value::Nothing
        };
        args.push(value);
    }
    for (value, param) in args.iter_mut().zip(&head.params) {
        let nowhere = Slot { var: 0, instance: Val::Const(0), word: Val::Const(0) };
        match &param.ty {
            Type::MaskPtr | Type::MaskVar => {
                *value = Value::Mask(MaskRef::Local(lower.new_mask()), Type::MaskPtr);
            }
            Type::LockPtr(kind) => *value = Value::Lock(nowhere, *kind, true),
            Type::Func => *value = Value::Func(None),
            Type::Void
            | Type::Bool
            | Type::Int(_)
            | Type::Atomic
            | Type::Enum(_)
            | Type::Ref(_)
            | Type::Mask
            | Type::Lock(_)
            | Type::Opaque => {}
        }
    }
    let _: Lowered<Value> = lower.inline(func, args, head.name.span, true);
    lower.s.work += lower.count.min(OPERATIONS);
    let end =
        head.body.as_ref().map_or(head.name.span, |b| Span { start: b.span.end.saturating_sub(1), ..b.span });
    lower.text = lower.s.places.text(end);
    let at = lower.at(end);
    let cur = lower.cur;
    lower.flow.blocks[cur].end = End::Halt;
    lower.flow.blocks[cur].end_at = at;
    lower.flow
}

impl<'p> Lower<'p, '_, '_> {
    fn fail<T>(&mut self, fault: Fault) -> Lowered<T> {
        self.s.faults.push(fault);
        Err(Reported)
    }

    /// The name most like one that is unknown, while errors are few enough to be shown.
    fn nearest<S: AsRef<str>>(&self, name: &str, among: impl IntoIterator<Item = S>) -> Option<String> {
        if self.s.faults.len() < SUGGESTED { nearest(name, among) } else { None }
    }

    /// Refuses what a guest cannot do, or what only a guest can.
    fn by_actor(&mut self, name: &str, of_guests: bool, of_others: bool, span: Span) -> Lowered<()> {
        let actor = self.frames.first().map_or("", |f| self.p.funcs[f.func].head.name.name.as_str());
        let fault = match self.guest {
            Some(true) if !of_guests => Fault::at(span, format!("a guest cannot call `{name}`"))
                .expected(format!("`{actor}` is a guest's program: it accesses its VM's pages")),
            Some(false) if !of_others => Fault::at(span, format!("only a guest can call `{name}`"))
                .expected(format!("`{actor}` is not the `guest` of a vCPU")),
            Some(_) | None => return Ok(()),
        };
        self.fail(fault)
    }

    fn at(&mut self, span: Span) -> At {
        self.s.places.at(span, self.text)
    }

    /// A call that must be a statement by itself, so that whoever gets to the end of the block has made it.
    fn stands_alone(&mut self, span: Span) -> Lowered<()> {
        if self.alone == Some(span) {
            return Ok(());
        }
        self.fail(Fault::at(span, "this call must be a statement of its own"))
    }

    fn new_reg(&mut self) -> V {
        self.flow.regs.push(RegInfo { class: Class::Number, group: None });
        V::try_from(self.flow.regs.len() - 1).unwrap_or(V::MAX)
    }

    /// A register for a word of a mask.
    fn new_word(&mut self, word: u8) -> V {
        let reg = self.new_reg();
        let bits = self.p.machine.bits_of_word(word);
        if let Some(info) = self.flow.regs.last_mut() {
            info.class = Class::Mask { bits };
        }
        reg
    }

    fn new_mask(&mut self) -> LocalMask {
        let words = self.p.machine.mask_words;
        let base = V::try_from(self.flow.regs.len()).unwrap_or(V::MAX);
        let mask = LocalMask { base, words };
        for word in 0..words {
            self.new_word(word);
            if let Some(info) = self.flow.regs.last_mut() {
                info.group = Some(mask);
            }
        }
        mask
    }

    fn new_block(&mut self) -> B {
        self.flow.blocks.push(Block { insts: Vec::new(), end: End::Halt, end_at: 0 });
        self.flow.blocks.len() - 1
    }

    fn push(&mut self, inst: Inst, span: Span) {
        self.count = self.count.saturating_add(1);
        if self.count > self.most {
            return;
        }
        let at = self.at(span);
        self.flow.blocks[self.cur].insts.push((inst, at));
    }

    /// Ends the block at hand; what follows goes into `next`.
    fn end(&mut self, end: End, next: B, span: Span) {
        let at = self.at(span);
        let block = &mut self.flow.blocks[self.cur];
        block.end = end;
        block.end_at = at;
        self.cur = next;
    }

    fn jump(&mut self, to: B, next: B, span: Span) {
        self.end(End::Jump(to), next, span);
    }

    /// Goes to `then` if the value is not 0.
    fn branch(&mut self, cond: Val, then: B, otherwise: B, next: B, span: Span) {
        let end = match cond {
            Val::Const(0) => End::Jump(otherwise),
            Val::Const(_) => End::Jump(then),
            Val::Reg(_) => End::Branch { cond, then, otherwise },
        };
        self.end(end, next, span);
    }

    /// Computes into a new register, or at once if it is constant.
    fn calc(&mut self, calc: Calc, span: Span) -> Val {
        let calc = fold(calc);
        if let Calc::Use(v) = calc {
            return v;
        }
        let dst = self.new_reg();
        self.push(Inst::Set { dst, calc }, span);
        Val::Reg(dst)
    }

    fn bin(&mut self, op: BinOp, a: Val, b: Val, span: Span) -> Val {
        self.calc(Calc::Bin(op, a, b), span)
    }

    fn un(&mut self, op: UnOp, a: Val, span: Span) -> Val {
        self.calc(Calc::Un(op, a), span)
    }

    fn set(&mut self, dst: V, v: Val, span: Span) {
        self.push(Inst::Set { dst, calc: Calc::Use(v) }, span);
    }

    /// The value as it is now, whatever happens to the variable it came from.
    fn keep(&mut self, v: Val, span: Span) -> Val {
        match v {
            Val::Const(_) => v,
            Val::Reg(_) => {
                let reg = self.new_reg();
                self.set(reg, v, span);
                Val::Reg(reg)
            }
        }
    }

    fn keep_slot(&mut self, slot: Slot, span: Span) -> Slot {
        Slot { instance: self.keep(slot.instance, span), word: self.keep(slot.word, span), ..slot }
    }

    fn load(&mut self, slot: Slot, span: Span) -> Val {
        let dst = self.new_reg();
        self.push(Inst::Load { dst, slot }, span);
        Val::Reg(dst)
    }

    /// One level deeper, or refused.
    fn deeper<T>(&mut self, span: Span, f: impl FnOnce(&mut Self) -> Lowered<T>) -> Lowered<T> {
        if self.depth >= DEPTH {
            let fault = Fault::at(span, "nested too deeply once the calls are inlined");
            return self.fail(fault.expected(format!("more than {DEPTH} levels deep here")));
        }
        if self.count > self.most {
            if self.count < usize::MAX {
                self.count = usize::MAX;
                let name = self.frames.first().map_or("", |f| self.p.funcs[f.func].head.name.name.as_str());
                let fault = Fault::at(span, format!("`{name}` is too large once its calls are inlined"));
                let limit = if self.most < OPERATIONS {
                    format!("more than {ALL_OPERATIONS} operations and calls of all actors up to here")
                } else {
                    format!("more than {OPERATIONS} operations and calls up to here")
                };
                return self.fail(fault.expected(limit));
            }
            return Err(Reported);
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn push_scope(&mut self, id: Option<Span>) {
        let id = id.map(|span| span.start);
        self.scopes.push(Scope::new(id, BTreeMap::new()));
    }

    /// Closes the innermost scope; its guards give their locks back, and its allocated masks leak.
    fn pop_scope(&mut self, span: Span) {
        let depth = self.scopes.len() - 1;
        self.unwind(depth, span);
        self.scopes.pop();
    }

    fn bind(&mut self, name: &'p str, target: Target) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name, Binding { target, held: false });
        }
    }

    /// The local of this name that is seen here.
    fn local(&mut self, name: &str) -> Option<&mut Binding> {
        let base = self.frames.last().map_or(0, |f| f.scopes);
        self.scopes[base..].iter_mut().rev().find_map(|scope| scope.names.get_mut(name))
    }

    /// The value that an empty hook returns.
    fn nothing_of(ty: &Type) -> Value {
        match ty {
            Type::Void => Value::Nothing,
            Type::Ref(_) | Type::Opaque => Value::Num(Val::Const(-1), ty.clone()),
            Type::Bool
            | Type::Int(_)
            | Type::Atomic
            | Type::Enum(_)
            | Type::Mask
            | Type::MaskVar
            | Type::MaskPtr
            | Type::Lock(_)
            | Type::LockPtr(_)
            | Type::Func => Value::Num(Val::Const(0), ty.clone()),
        }
    }

    /// Lowers a function's body here. The arguments fit its parameters.
    fn inline(&mut self, func: usize, args: Vec<Value>, span: Span, outermost: bool) -> Lowered<Value> {
        let f = self.p.funcs[func];
        let head: &'p Function = f.head;
        if let Some(first) = self.frames.iter().position(|frame| frame.func == func) {
            let cycle: Vec<_> = self.frames[first..]
                .iter()
                .map(|frame| self.p.funcs[frame.func].head.name.name.as_str())
                .chain([head.name.name.as_str()])
                .collect();
            // It calls what it is given: a handler, which comes back to it.
            let sends = head.params.iter().any(|param| param.ty == Type::Func);
            let (message, help) = if sends {
                let message = format!("a handler sends IPIs by `{}`", head.name.name);
                (message, "only tasks do: let it set a variable that its task looks at")
            } else {
                (format!("`{}` calls itself", head.name.name), "calls are inlined: write a loop")
            };
            return self.fail(Fault::at(span, message).expected(cycle.join(" -> ")).help(help));
        }
        self.s.reached[func] = true;
        let Some(body) = head.body.as_ref().filter(|_| f.has_body) else {
            return Ok(Self::nothing_of(&head.result));
        };
        self.count = self.count.saturating_add(1);
        self.deeper(span, |l| {
            let result = if head.result == Type::Void {
                None
            } else {
                let reg = l.new_reg();
                let Value::Num(zero, _) = Self::nothing_of(&head.result) else { return Err(Reported) };
                l.set(reg, zero, span);
                Some((reg, head.result.clone()))
            };
            let exit = l.new_block();
            let text = l.text;
            let mut names = BTreeMap::new();
            for (param, arg) in head.params.iter().zip(args) {
                let target = match arg {
                    Value::Num(v, ty) => match (v, outermost) {
                        (Val::Reg(reg), true) => Target::Reg(reg, ty),
                        (Val::Reg(_) | Val::Const(_), _) => {
                            let reg = l.new_reg();
                            l.set(reg, v, span);
                            Target::Reg(reg, ty)
                        }
                    },
                    Value::Mask(MaskRef::Shared(slot), ty) => {
                        Target::Value(Value::Mask(MaskRef::Shared(l.keep_slot(slot, span)), ty))
                    }
                    Value::Lock(slot, kind, ptr) => {
                        Target::Value(Value::Lock(l.keep_slot(slot, span), kind, ptr))
                    }
                    other @ (Value::Mask(..) | Value::Func(_) | Value::Nothing) => Target::Value(other),
                };
                names.insert(param.name.name.as_str(), Binding { target, held: false });
            }
            let scopes = l.scopes.len();
            l.frames.push(Frame {
                func,
                result: result.clone(),
                exit,
                scopes,
                loops: Vec::new(),
                labels: BTreeMap::new(),
                allocates: mask::allocated_in(body),
            });
            l.scopes.push(Scope::new(None, names));
            l.find_labels(body);
            l.block(body);
            l.pop_scope(span);
            l.jump(exit, exit, span);
            l.frames.pop();
            l.text = text;
            Ok(result.map_or(Value::Nothing, |(reg, ty)| Value::Num(Val::Reg(reg), ty)))
        })
    }
}

/// Computes what is known.
pub(crate) fn fold(calc: Calc) -> Calc {
    let known = match calc {
        Calc::Un(op, Val::Const(a)) => machine::un(op, a),
        Calc::Bin(op, Val::Const(a), Val::Const(b)) => machine::bin(op, a, b),
        Calc::Wrap { of: Val::Const(v), lo, hi } => machine::wrap(v, lo, hi),
        Calc::Known { of: Val::Const(v), .. } => v,
        Calc::Wrap { of, lo: i64::MIN, hi: i64::MAX } => return Calc::Use(of),
        Calc::Bin(op, a, Val::Const(b)) => return fold_right(op, a, b).unwrap_or(calc),
        Calc::Bin(BinOp::Add | BinOp::Or | BinOp::Xor, Val::Const(0), b) => return Calc::Use(b),
        Calc::Bin(BinOp::Mul | BinOp::And, Val::Const(0), _) => 0,
        Calc::Bin(BinOp::Mul, Val::Const(1), b) => return Calc::Use(b),
        Calc::Bin(op, Val::Reg(a), Val::Reg(b)) if a == b => match op {
            BinOp::Eq | BinOp::Le | BinOp::Ge => 1,
            BinOp::Ne | BinOp::Lt | BinOp::Gt | BinOp::Sub | BinOp::Xor => 0,
            BinOp::And | BinOp::Or => return Calc::Use(Val::Reg(a)),
            BinOp::Add | BinOp::Mul | BinOp::Div | BinOp::Rem | BinOp::Shl | BinOp::Shr => return calc,
        },
        Calc::Use(_)
        | Calc::Un(..)
        | Calc::Bin(..)
        | Calc::ThisCpu
        | Calc::VmOf(_)
        | Calc::Siblings(..)
        | Calc::MaskTest(..)
        | Calc::MaskNext(..)
        | Calc::MaskWeight(_)
        | Calc::Wrap { .. }
        | Calc::Known { .. } => return calc,
    };
    Calc::Use(Val::Const(known))
}

fn fold_right(op: BinOp, a: Val, b: i64) -> Option<Calc> {
    match (op, b) {
        (BinOp::Add | BinOp::Sub | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::Shr, 0)
        | (BinOp::Mul | BinOp::Div, 1)
        | (BinOp::And, -1) => Some(Calc::Use(a)),
        (BinOp::Mul | BinOp::And, 0) | (BinOp::Rem, 1) => Some(Calc::Use(Val::Const(0))),
        (BinOp::Eq, 0) => Some(Calc::Un(UnOp::IsZero, a)),
        (
            BinOp::Add
            | BinOp::Sub
            | BinOp::Mul
            | BinOp::Div
            | BinOp::Rem
            | BinOp::And
            | BinOp::Or
            | BinOp::Xor
            | BinOp::Shl
            | BinOp::Shr
            | BinOp::Eq
            | BinOp::Ne
            | BinOp::Lt
            | BinOp::Le
            | BinOp::Gt
            | BinOp::Ge,
            _,
        ) => None,
    }
}
