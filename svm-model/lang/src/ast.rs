//! The syntax tree. It can be printed ([`std::fmt::Display`]) as text that parses to the same tree, so that
//! a policy can be mutated and exported.
//!
//! Bodies of `if` and of loops are always blocks here, and one declarator makes one declaration: what two
//! spellings say alike has one tree. Places ([`Span`]) do not count when trees are compared.

/// Where a node stands in its text: bytes `start..end` of file `file`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Index of the source.
    pub file: u16,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// From the beginning of `self` to the end of `other`.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span { file: self.file, start: self.start, end: other.end.max(self.end) }
    }
}

/// Where a node came from is not what it is: all places are equal.
impl PartialEq for Span {
    fn eq(&self, _: &Span) -> bool {
        true
    }
}

impl Eq for Span {}

/// A name and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ident {
    /// The name.
    pub name: String,
    /// Its place.
    pub span: Span,
}

/// The integer types.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "C's and the kernel's names")]
pub enum IntType {
    Int,
    UInt,
    Long,
    ULong,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
}

/// What a reference refers to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Object {
    /// `struct kvm`.
    Vm,
    /// `struct kvm_vcpu`.
    Vcpu,
    /// `struct page`.
    Page,
    /// A structure that a text declares objects of: `DEFINE_OBJECTS(struct enc_region, 2);`.
    Pool(String),
}

/// The types of locks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LockType {
    /// `struct mutex`.
    Mutex,
    /// `spinlock_t`.
    Spin,
    /// `rwlock_t`.
    Rwlock,
    /// `struct rw_semaphore`.
    Rwsem,
    /// `struct completion`.
    Completion,
}

/// A type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Type {
    /// `void`: no value.
    Void,
    /// `bool`.
    Bool,
    /// An integer.
    Int(IntType),
    /// `atomic_t`.
    Atomic,
    /// `enum name`.
    Enum(String),
    /// A pointer to one of the machine's objects, which is its number; null is -1.
    Ref(Object),
    /// `cpumask_t`, `struct cpumask`: passed on as `&mask`.
    Mask,
    /// `cpumask_var_t`: passed on as `mask`.
    MaskVar,
    /// `struct cpumask *`.
    MaskPtr,
    /// A lock.
    Lock(LockType),
    /// A pointer to a lock.
    LockPtr(LockType),
    /// `smp_call_func_t`, `void (*)(void *)`.
    Func,
    /// `void *`: carries a reference or a number.
    Opaque,
}

/// A variable, field or parameter with its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decl {
    /// Its type.
    pub ty: Type,
    /// Its name.
    pub name: Ident,
    /// Elements, if it is an array.
    pub array: Option<Expr>,
    /// Bits, if it is a bit-field.
    pub bits: Option<Expr>,
    /// What it starts as.
    pub init: Option<Expr>,
}

/// A text.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ast {
    /// What stands at top level, in order.
    pub items: Vec<Item>,
}

/// Something at top level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What.
    pub kind: ItemKind,
    /// Where.
    pub span: Span,
}

/// What may stand at top level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ItemKind {
    /// `#include "name"`: the text of that name stands here.
    Include(Ident),
    /// `#define NAME value`.
    Define {
        /// The constant.
        name: Ident,
        /// Its value.
        value: Expr,
    },
    /// `enum name { A, B = 3 };`.
    Enum {
        /// The type's name, if it has one.
        name: Option<Ident>,
        /// The constants and their values, if given.
        values: Vec<(Ident, Option<Expr>)>,
    },
    /// `struct name { ... };`: fields added to one of the machine's objects.
    Struct {
        /// The object.
        object: Object,
        /// The fields.
        fields: Vec<Decl>,
    },
    /// `DEFINE_PER_CPU(type, name);` or `DEFINE_PER_ASID(type, name);`.
    Per {
        /// What there is an instance of for each.
        each: Each,
        /// The variable.
        decl: Decl,
    },
    /// A global variable.
    Global {
        /// Whether it was declared `static`.
        is_static: bool,
        /// Whether it is a constant: `const int n = 3;`.
        is_const: bool,
        /// The variable.
        decl: Decl,
    },
    /// `DEFINE_MUTEX(name);` and its kin.
    Lock {
        /// Kind of lock.
        kind: LockType,
        /// Its name.
        name: Ident,
    },
    /// `DEFINE_OBJECTS(struct name, count);`.
    Objects {
        /// The structure's name.
        name: Ident,
        /// How many there can be at a time.
        count: Expr,
    },
    /// A function, or its prototype.
    Function(Function),
}

/// A function, or its prototype.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// Whether it was declared `static`.
    pub is_static: bool,
    /// Whether it was declared `inline`.
    pub is_inline: bool,
    /// What it returns.
    pub result: Type,
    /// Its name.
    pub name: Ident,
    /// Its parameters; a prototype's may be unnamed (empty).
    pub params: Vec<Decl>,
    /// What it does; none in a prototype.
    pub body: Option<Block>,
}

/// `{ ... }`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Block {
    /// The statements.
    pub stmts: Vec<Stmt>,
    /// From brace to brace.
    pub span: Span,
}

/// A statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stmt {
    /// What it does.
    pub kind: StmtKind,
    /// Where it stands; of a compound statement its head only.
    pub span: Span,
}

/// What `guard(kind)(...)` holds until the end of the scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuardKind {
    /// `guard(mutex)(&m)`.
    Mutex,
    /// `guard(spinlock)(&s)`.
    Spin,
    /// `guard(spinlock_irq)(&s)`.
    SpinIrq,
    /// `guard(spinlock_irqsave)(&s)`.
    SpinIrqSave,
    /// `guard(read_lock)(&r)`.
    Read,
    /// `guard(write_lock)(&r)`.
    Write,
    /// `guard(rwsem_read)(&s)`.
    DownRead,
    /// `guard(rwsem_write)(&s)`.
    DownWrite,
}

/// What a variable at top level has an instance for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Each {
    /// `DEFINE_PER_CPU`.
    Cpu,
    /// `DEFINE_PER_ASID`.
    Asid,
}

impl Each {
    /// Each with what declares one.
    pub(crate) const DEFINED: [(&'static str, Each); 2] =
        [("DEFINE_PER_CPU", Each::Cpu), ("DEFINE_PER_ASID", Each::Asid)];
}

/// What a second mask does to a loop over a first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filter {
    /// `for_each_cpu_and`: only the pCPUs in both.
    And,
    /// `for_each_cpu_andnot`: only those not in the second.
    AndNot,
}

impl Filter {
    /// Each with the loop's word.
    pub(crate) const LOOPS: [(&'static str, Filter); 2] =
        [("for_each_cpu_and", Filter::And), ("for_each_cpu_andnot", Filter::AndNot)];
}

impl GuardKind {
    /// Each with the word in its parentheses.
    pub(crate) const ALL: [(&'static str, GuardKind); 8] = [
        ("mutex", GuardKind::Mutex),
        ("spinlock", GuardKind::Spin),
        ("spinlock_irq", GuardKind::SpinIrq),
        ("spinlock_irqsave", GuardKind::SpinIrqSave),
        ("read_lock", GuardKind::Read),
        ("write_lock", GuardKind::Write),
        ("rwsem_read", GuardKind::DownRead),
        ("rwsem_write", GuardKind::DownWrite),
    ];
}

impl LockType {
    /// Each with what declares one at top level.
    pub(crate) const DEFINED: [(&'static str, LockType); 5] = [
        ("DEFINE_MUTEX", LockType::Mutex),
        ("DEFINE_SPINLOCK", LockType::Spin),
        ("DEFINE_RWLOCK", LockType::Rwlock),
        ("DECLARE_RWSEM", LockType::Rwsem),
        ("DECLARE_COMPLETION", LockType::Completion),
    ];
}

/// The statements.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "C's names")]
pub enum StmtKind {
    Empty,
    Block(Block),
    Decl(Decl),
    Expr(Expr),
    If { cond: Expr, then: Block, otherwise: Option<Block> },
    While { cond: Expr, body: Block },
    DoWhile { body: Block, cond: Expr },
    For { init: Option<Box<Stmt>>, cond: Option<Expr>, step: Option<Expr>, body: Block },
    Switch { on: Expr, body: Block },
    Case(Expr),
    Default,
    Break,
    Continue,
    Fallthrough,
    Goto(Ident),
    Label(Ident),
    Return(Option<Expr>),
    Guard { kind: GuardKind, lock: Expr },
    ForEachCpu { cpu: Expr, mask: Expr, filter: Option<(Filter, Expr)>, body: Block },
    ForEachPossibleCpu { cpu: Expr, body: Block },
    ForEachOnlineCpu { cpu: Expr, body: Block },
    ForEachVcpu { index: Expr, vcpu: Expr, vm: Expr, body: Block },
}

/// An expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expr {
    /// What it computes.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// Prefix operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "C's operators")]
pub enum Prefix {
    Neg,
    BitNot,
    Not,
    AddressOf,
}

/// Infix operators, but assignment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "C's operators")]
pub enum Infix {
    Mul,
    Div,
    Rem,
    Add,
    Sub,
    Shl,
    Shr,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    BitAnd,
    BitXor,
    BitOr,
    And,
    Or,
}

/// The expressions.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "C's names")]
pub enum ExprKind {
    Int(i64),
    Bool(bool),
    Null,
    Name(String),
    Prefix(Prefix, Box<Expr>),
    Infix(Infix, Box<Expr>, Box<Expr>),
    Cond(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `lhs = rhs`, or `lhs op= rhs`.
    Assign(Option<Infix>, Box<Expr>, Box<Expr>),
    /// `++x`, `x++`, `--x`, `x--`.
    Step {
        up: bool,
        prefix: bool,
        of: Box<Expr>,
    },
    Call {
        name: Ident,
        args: Vec<Expr>,
    },
    Field(Box<Expr>, Ident),
    Index(Box<Expr>, Box<Expr>),
    Cast(Type, Box<Expr>),
}

impl Block {
    /// Calls `f` with each call in it, the innermost of nested ones last.
    pub(crate) fn each_call<'a>(&'a self, f: &mut dyn FnMut(&'a Ident, &'a [Expr])) {
        for stmt in &self.stmts {
            stmt.kind.each_call(f);
        }
    }
}

impl StmtKind {
    /// The blocks right below a statement, in the order of the text.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        let (first, second) = match self {
            StmtKind::Block(body)
            | StmtKind::While { body, .. }
            | StmtKind::DoWhile { body, .. }
            | StmtKind::For { body, .. }
            | StmtKind::Switch { body, .. }
            | StmtKind::ForEachCpu { body, .. }
            | StmtKind::ForEachPossibleCpu { body, .. }
            | StmtKind::ForEachOnlineCpu { body, .. }
            | StmtKind::ForEachVcpu { body, .. } => (Some(body), None),
            StmtKind::If { then, otherwise, .. } => (Some(then), otherwise.as_ref()),
            StmtKind::Empty
            | StmtKind::Decl(_)
            | StmtKind::Expr(_)
            | StmtKind::Case(_)
            | StmtKind::Default
            | StmtKind::Break
            | StmtKind::Continue
            | StmtKind::Fallthrough
            | StmtKind::Goto(_)
            | StmtKind::Label(_)
            | StmtKind::Return(_)
            | StmtKind::Guard { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }

    fn each_call<'a>(&'a self, f: &mut dyn FnMut(&'a Ident, &'a [Expr])) {
        match self {
            StmtKind::Block(block) => block.each_call(f),
            StmtKind::Decl(decl) => decl.init.iter().for_each(|e| e.each_call(f)),
            StmtKind::Expr(e)
            | StmtKind::Case(e)
            | StmtKind::Return(Some(e))
            | StmtKind::Guard { lock: e, .. } => {
                e.each_call(f);
            }
            StmtKind::If { cond, then, otherwise } => {
                cond.each_call(f);
                then.each_call(f);
                otherwise.iter().for_each(|b| b.each_call(f));
            }
            StmtKind::While { cond: e, body }
            | StmtKind::DoWhile { cond: e, body }
            | StmtKind::Switch { on: e, body }
            | StmtKind::ForEachCpu { mask: e, filter: None, body, .. }
            | StmtKind::ForEachVcpu { vm: e, body, .. } => {
                e.each_call(f);
                body.each_call(f);
            }
            StmtKind::ForEachCpu { mask, filter: Some((_, other)), body, .. } => {
                mask.each_call(f);
                other.each_call(f);
                body.each_call(f);
            }
            StmtKind::For { init, cond, step, body } => {
                init.iter().for_each(|s| s.kind.each_call(f));
                cond.iter().chain(step).for_each(|e| e.each_call(f));
                body.each_call(f);
            }
            StmtKind::ForEachPossibleCpu { body, .. } | StmtKind::ForEachOnlineCpu { body, .. } => {
                body.each_call(f)
            }
            StmtKind::Empty
            | StmtKind::Default
            | StmtKind::Break
            | StmtKind::Continue
            | StmtKind::Fallthrough
            | StmtKind::Goto(_)
            | StmtKind::Label(_)
            | StmtKind::Return(None) => {}
        }
    }
}

impl Expr {
    fn each_call<'a>(&'a self, f: &mut dyn FnMut(&'a Ident, &'a [Expr])) {
        match &self.kind {
            ExprKind::Call { name, args } => {
                f(name, args);
                args.iter().for_each(|e| e.each_call(f));
            }
            ExprKind::Prefix(_, a)
            | ExprKind::Step { of: a, .. }
            | ExprKind::Field(a, _)
            | ExprKind::Cast(_, a) => {
                a.each_call(f);
            }
            ExprKind::Infix(_, a, b) | ExprKind::Assign(_, a, b) | ExprKind::Index(a, b) => {
                a.each_call(f);
                b.each_call(f);
            }
            ExprKind::Cond(a, b, c) => {
                a.each_call(f);
                b.each_call(f);
                c.each_call(f);
            }
            ExprKind::Int(_) | ExprKind::Bool(_) | ExprKind::Null | ExprKind::Name(_) => {}
        }
    }
}
