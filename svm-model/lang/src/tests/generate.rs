//! Random texts and trees, from a tape of bytes: a shorter tape, or one of smaller bytes, gives a simpler one.

use std::fmt::Write as _;

use crate::ast::{
    Ast, Block, Decl, Each, Expr, ExprKind, Filter, Function, GuardKind, Ident, Infix, IntType, Item,
    ItemKind, LockType, Object, Prefix, Span, Stmt, StmtKind, Type,
};

/// Choices to make.
pub(crate) struct Tape<'t> {
    bytes: std::slice::Iter<'t, u8>,
}

impl<'t> Tape<'t> {
    pub(crate) fn new(bytes: &'t [u8]) -> Tape<'t> {
        Tape { bytes: bytes.iter() }
    }

    /// A number below `n`; 0 when the tape is at its end.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % n
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

const AT: Span = Span { file: 0, start: 0, end: 0 };

fn ident(t: &mut Tape<'_>) -> Ident {
    Ident { name: t.pick(&["a", "kvm", "page_", "x1", "_y"]).to_owned(), span: AT }
}

fn ty(t: &mut Tape<'_>) -> Type {
    t.pick(&[
        Type::Int(IntType::Int),
        Type::Bool,
        Type::Int(IntType::UInt),
        Type::Int(IntType::U8),
        Type::Int(IntType::S64),
        Type::Int(IntType::ULong),
        Type::Enum("e".to_owned()),
        Type::Ref(Object::Vm),
        Type::Ref(Object::Vcpu),
        Type::MaskPtr,
        Type::MaskVar,
        Type::Func,
        Type::Opaque,
        Type::LockPtr(LockType::Mutex),
    ])
}

fn node(kind: ExprKind) -> Expr {
    Expr { kind, span: AT }
}

fn boxed(t: &mut Tape<'_>, depth: usize) -> Box<Expr> {
    Box::new(expr(t, depth))
}

/// Any expression that can be spelt.
pub(crate) fn expr(t: &mut Tape<'_>, depth: usize) -> Expr {
    let leaf = t.below(4);
    if depth == 0 || leaf == 0 {
        return node(match t.below(5) {
            0 => ExprKind::Int(i64::try_from(t.below(300)).unwrap_or(0)),
            1 => ExprKind::Bool(t.below(2) == 1),
            2 => ExprKind::Null,
            _ => ExprKind::Name(ident(t).name),
        });
    }
    let d = depth - 1;
    let ops = [
        Infix::Mul,
        Infix::Div,
        Infix::Rem,
        Infix::Add,
        Infix::Sub,
        Infix::Shl,
        Infix::Shr,
        Infix::Lt,
        Infix::Ge,
        Infix::Eq,
        Infix::Ne,
        Infix::BitAnd,
        Infix::BitXor,
        Infix::BitOr,
        Infix::And,
        Infix::Or,
    ];
    node(match t.below(9) {
        0 => ExprKind::Prefix(
            t.pick(&[Prefix::Neg, Prefix::BitNot, Prefix::Not, Prefix::AddressOf]),
            boxed(t, d),
        ),
        1 | 2 => ExprKind::Infix(t.pick(&ops), boxed(t, d), boxed(t, d)),
        3 => ExprKind::Cond(boxed(t, d), boxed(t, d), boxed(t, d)),
        4 => ExprKind::Assign(
            t.pick(&[None, Some(Infix::Add), Some(Infix::Shl), Some(Infix::BitXor)]),
            boxed(t, d),
            boxed(t, d),
        ),
        5 => ExprKind::Step { up: t.below(2) == 0, prefix: t.below(2) == 0, of: boxed(t, d) },
        6 => ExprKind::Call { name: ident(t), args: (0..t.below(3)).map(|_| expr(t, d)).collect() },
        7 => ExprKind::Field(boxed(t, d), ident(t)),
        _ => {
            if t.below(2) == 0 {
                ExprKind::Index(boxed(t, d), boxed(t, d))
            } else {
                ExprKind::Cast(ty(t), boxed(t, d))
            }
        }
    })
}

fn block(t: &mut Tape<'_>, depth: usize) -> Block {
    let count = if depth == 0 { 0 } else { t.below(3) };
    Block { stmts: (0..count).map(|_| stmt(t, depth - 1)).collect(), span: AT }
}

fn decl(t: &mut Tape<'_>, depth: usize) -> Decl {
    let init = if t.below(2) == 0 { None } else { Some(expr(t, depth)) };
    Decl { ty: ty(t), name: ident(t), array: None, bits: None, init }
}

fn stmt(t: &mut Tape<'_>, depth: usize) -> Stmt {
    let (e, d) = (2, depth);
    let kind = match t.below(22) {
        0 => StmtKind::Empty,
        1 => StmtKind::Block(block(t, d)),
        2 => StmtKind::Decl(decl(t, e)),
        3 => StmtKind::Expr(expr(t, e)),
        4 => {
            let otherwise = if t.below(2) == 0 { None } else { Some(block(t, d)) };
            StmtKind::If { cond: expr(t, e), then: block(t, d), otherwise }
        }
        5 => StmtKind::While { cond: expr(t, e), body: block(t, d) },
        6 => StmtKind::DoWhile { body: block(t, d), cond: expr(t, e) },
        7 => {
            let init = match t.below(3) {
                0 => None,
                1 => Some(StmtKind::Expr(expr(t, e))),
                _ => Some(StmtKind::Decl(Decl { init: Some(expr(t, e)), ..decl(t, e) })),
            };
            StmtKind::For {
                init: init.map(|kind| Box::new(Stmt { kind, span: AT })),
                cond: if t.below(2) == 0 { None } else { Some(expr(t, e)) },
                step: if t.below(2) == 0 { None } else { Some(expr(t, e)) },
                body: block(t, d),
            }
        }
        8 => StmtKind::Switch { on: expr(t, e), body: block(t, d) },
        9 => StmtKind::Case(expr(t, e)),
        10 => StmtKind::Default,
        11 => StmtKind::Break,
        12 => StmtKind::Continue,
        13 => StmtKind::Fallthrough,
        14 => StmtKind::Goto(ident(t)),
        15 => StmtKind::Label(ident(t)),
        16 => StmtKind::Return(if t.below(2) == 0 { None } else { Some(expr(t, e)) }),
        17 => StmtKind::Guard { kind: t.pick(&GuardKind::ALL).1, lock: expr(t, e) },
        18 => StmtKind::ForEachCpu {
            cpu: expr(t, e),
            mask: expr(t, e),
            filter: if t.below(2) == 0 { None } else { Some((t.pick(&Filter::LOOPS).1, expr(t, e))) },
            body: block(t, d),
        },
        19 => StmtKind::ForEachPossibleCpu { cpu: expr(t, e), body: block(t, d) },
        20 => StmtKind::ForEachOnlineCpu { cpu: expr(t, e), body: block(t, d) },
        _ => StmtKind::ForEachVcpu { index: expr(t, e), vcpu: expr(t, e), vm: expr(t, e), body: block(t, d) },
    };
    Stmt { kind, span: AT }
}

fn item(t: &mut Tape<'_>) -> Item {
    let kind = match t.below(9) {
        7 => ItemKind::Include(ident(t)),
        0 => ItemKind::Define { name: ident(t), value: expr(t, 2) },
        1 => ItemKind::Enum {
            name: if t.below(2) == 0 { None } else { Some(ident(t)) },
            values: (0..=t.below(3))
                .map(|_| (ident(t), if t.below(2) == 0 { None } else { Some(expr(t, 2)) }))
                .collect(),
        },
        2 => ItemKind::Struct {
            object: t.pick(&[Object::Vm, Object::Vcpu, Object::Page, Object::Pool("region".to_owned())]),
            fields: (0..t.below(4))
                .map(|_| Decl {
                    bits: if t.below(2) == 0 { None } else { Some(expr(t, 1)) },
                    array: if t.below(2) == 0 { None } else { Some(expr(t, 1)) },
                    ..decl(t, 1)
                })
                // A width is no assignment and no `?:`; in parentheses it can be anything.
                .collect(),
        },
        3 => ItemKind::Per { each: t.pick(&Each::DEFINED).1, decl: decl(t, 2) },
        4 => {
            let (is_static, decl) = (t.below(2) == 0, decl(t, 2));
            let number = matches!(decl.ty, Type::Bool | Type::Int(_) | Type::Enum(_));
            ItemKind::Global { is_static, is_const: number && t.below(3) == 0, decl }
        }
        5 if t.below(3) == 0 => ItemKind::Objects { name: ident(t), count: expr(t, 1) },
        5 => ItemKind::Lock { kind: t.pick(&LockType::DEFINED).1, name: ident(t) },
        _ => ItemKind::Function(Function {
            is_static: t.below(2) == 0,
            is_inline: t.below(2) == 0,
            result: t.pick(&[Type::Void, Type::Int(IntType::Int), Type::Ref(Object::Vcpu)]),
            name: ident(t),
            params: (0..t.below(3)).map(|_| Decl { init: None, ..decl(t, 0) }).collect(),
            body: if t.below(4) == 0 { None } else { Some(block(t, 4)) },
        }),
    };
    Item { kind, span: AT }
}

/// Any tree that can be spelt; few of them mean anything.
pub(crate) fn ast(t: &mut Tape<'_>) -> Ast {
    Ast { items: (0..=t.below(5)).map(|_| item(t)).collect() }
}

/// A text that means something: `test` ends, and touches shared variables in many ways.
pub(crate) fn program(t: &mut Tape<'_>) -> String {
    let mut p = Writer { tape: t, text: String::new(), loops: 0, labels: 0 };
    p.text.push_str(
        "int g; int h = 3; unsigned int u; u8 small; bool flag; int list[3]; cpumask_t m; cpumask_t n;\n\
         struct kvm { int x; unsigned int seq : 3; struct kvm_vcpu *last; };\nDEFINE_MUTEX(lock);\n\
         static int mix(int p, int q) { if (p > q) return p - q; p += g; return p; }\n\
         static void note(struct cpumask *to, int cpu) { if (cpu >= 0 && cpu < nr_cpu_ids) cpumask_set_cpu(cpu, to); }\n\
         void test(void)\n{\nint a; int b = 2; unsigned int c = 1; bool d; struct kvm *v = vm0; cpumask_t l;\n",
    );
    p.stmts(5, 3);
    p.text.push_str("g = a; h = b; u = c; flag = d; cpumask_copy(&n, &l); v->x = 1;\n}\n");
    p.text
}

struct Writer<'a, 't> {
    tape: &'a mut Tape<'t>,
    text: String,
    loops: usize,
    labels: usize,
}

impl Writer<'_, '_> {
    fn number(&mut self, depth: usize) -> String {
        if depth == 0 || self.tape.below(3) == 0 {
            // A plain `3` would be refused for a `bool`.
            return self
                .tape
                .pick(&[
                    "a", "b", "c", "d", "g", "h", "u", "1", "0", "(2 + 1)", "small", "list[1]", "v->x",
                    "v->seq",
                ])
                .to_owned();
        }
        let d = depth - 1;
        match self.tape.below(12) {
            0 => format!("({} + {})", self.number(d), self.number(d)),
            1 => format!("({} - {})", self.number(d), self.number(d)),
            2 => format!("({} & {})", self.number(d), self.number(d)),
            3 => format!("({} && {})", self.number(d), self.number(d)),
            4 => format!("({} || {})", self.number(d), self.number(d)),
            5 => format!("({} < {})", self.number(d), self.number(d)),
            6 => format!("({} ? {} : {})", self.number(d), self.number(d), self.number(d)),
            7 => format!("!{}", self.number(d)),
            8 => format!("({} >> {})", self.number(d), self.tape.below(3)),
            9 => format!("mix({}, {})", self.number(d), self.number(d)),
            10 => self
                .tape
                .pick(&[
                    "cpumask_weight(&l)",
                    "cpumask_weight(&m)",
                    "cpumask_test_cpu(1, &l)",
                    "cpumask_first(&m)",
                    "cpumask_empty(&l)",
                    "any_of(3)",
                    "smp_processor_id()",
                    "(v == vm1)",
                    "cpumask_next(0, &l)",
                    "cpumask_equal(&l, &m)",
                ])
                .to_owned(),
            _ => format!("({} * {})", self.number(d), self.number(d)),
        }
    }

    fn stmts(&mut self, most: usize, depth: usize) {
        for _ in 0..=self.tape.below(most) {
            self.stmt(depth);
        }
    }

    fn block(&mut self, depth: usize) {
        self.text.push_str("{\n");
        self.stmts(3, depth);
        self.text.push_str("}\n");
    }

    fn stmt(&mut self, depth: usize) {
        let choice = if depth == 0 { self.tape.below(8) } else { self.tape.below(17) };
        match choice {
            0..=2 => {
                let to = self
                    .tape
                    .pick(&["a", "b", "c", "d", "g", "u", "small", "flag", "v->x", "v->seq", "list[2]"]);
                let op = self.tape.pick(&["=", "=", "+=", "-=", "|="]);
                let from = self.number(2);
                let _ = writeln!(self.text, "{to} {op} {from};");
            }
            3 => self.fixed(&[
                "a++;",
                "--b;",
                "g++;",
                "c--;",
                "v->seq++;",
                "v = vm1;",
                "d = !d;",
                "list[0]--;",
            ]),
            4 => self.fixed(&[
                "cpumask_copy(&l, &m);",
                "cpumask_copy(&m, &l);",
                "cpumask_clear(&m);",
                "cpumask_or(&l, &l, &m);",
                "cpumask_andnot(&m, &m, &l);",
                "cpumask_xchg(&l, &m, NULL);",
                "cpumask_xchg(&l, &m, &l);",
            ]),
            5 => {
                let cpu = self.number(1);
                let _ = writeln!(self.text, "note(&m, {cpu});");
            }
            6 => self.fixed(&[
                "__cpumask_set_cpu(1, &l);",
                "a = cpumask_test_and_clear_cpu(1, &m);",
                "a = xchg(&g, b);",
                "b = cmpxchg(&h, a, 2);",
                "d = try_cmpxchg(&h, &a, 3);",
                "a = atomic_fetch_or(b & 3, &h);",
                "d = atomic_add_unless(&h, a, b);",
                "__clear_bit(1, &small);",
            ]),
            7 => self.fixed(&[
                "c = v->seq;",
                "v->last = vcpu1;",
                "if (v->last) v->last = NULL;",
                "d = v->last == vcpu1;",
            ]),
            8 | 9 => {
                let cond = self.number(2);
                let _ = write!(self.text, "if ({cond}) ");
                self.block(depth - 1);
                if self.tape.below(2) == 1 {
                    self.text.push_str("else ");
                    self.block(depth - 1);
                }
            }
            10 => {
                let i = self.loops;
                self.loops += 1;
                let _ = write!(self.text, "for (int i{i} = 0; i{i} < {}; i{i}++) ", self.tape.below(4));
                self.text.push_str("{\n");
                self.stmts(3, depth - 1);
                let leave = self.tape.pick(&["", "if (a) break;\n", "if (b) continue;\n"]);
                let _ = writeln!(self.text, "{leave}a += i{i}; }}");
            }
            11 => {
                let i = self.loops;
                self.loops += 1;
                let mask = self.tape.pick(&["&l", "&m", "cpu_possible_mask"]);
                let other = self.tape.pick(&["", "_and", "_andnot"]);
                let second = if other.is_empty() { "" } else { ", &n" };
                let _ = writeln!(
                    self.text,
                    "{{ int k{i}; for_each_cpu{other}(k{i}, {mask}{second}) {{ b += k{i};"
                );
                self.stmts(2, depth - 1);
                self.text.push_str("} }\n");
            }
            12 => {
                let on = self.number(1);
                let _ = writeln!(
                    self.text,
                    "switch ({on}) {{ case 0: a = 1; break; case 1: a += 2; fallthrough;"
                );
                self.text.push_str("default: ");
                self.stmts(2, depth - 1);
                self.text.push_str("}\n");
            }
            13 => {
                self.text.push_str("{ guard(mutex)(&lock);\n");
                self.stmts(2, depth - 1);
                self.text.push_str("}\n");
            }
            14 => {
                let l = self.labels;
                self.labels += 1;
                let cond = self.number(1);
                let _ = writeln!(self.text, "if ({cond}) goto out{l};");
                self.stmts(2, depth - 1);
                let _ = writeln!(self.text, "out{l}: ;");
            }
            15 => {
                let i = self.loops;
                self.loops += 1;
                let vm = self.tape.pick(&["v", "vm0", "vm1"]);
                let _ = writeln!(
                    self.text,
                    "{{ int i{i}; struct kvm_vcpu *w{i}; kvm_for_each_vcpu(i{i}, w{i}, {vm}) {{ v->last = w{i};"
                );
                self.stmts(2, depth - 1);
                let _ = writeln!(self.text, "a += i{i}; }} }}");
            }
            _ => self.block(depth - 1),
        }
    }

    fn fixed(&mut self, of: &[&str]) {
        let text = self.tape.pick(of);
        self.text.push_str(text);
        self.text.push('\n');
    }
}
