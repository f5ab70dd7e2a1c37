//! A second reading of the language: an interpreter of the syntax tree that shares no code with lowering, the optimiser or
//! the stepper. Random programs end with the same values in every variable.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "it reads what the generator writes, and panics at the rest"
)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::generate::{Tape, program};
use super::mock::Mock;
use super::{config, litmus};
use crate::ast::{
    Ast, Block, Decl, Expr, ExprKind, Filter, Function, Infix, IntType, ItemKind, Prefix, Stmt, StmtKind,
    Type,
};
use crate::{compile, no_includes, parse};

/// The machine of the test: pCPUs, and the VM of each vCPU.
const PCPUS: i64 = 3;
const VCPU_VM: [i64; 3] = [0, 0, 1];

/// What a value is, as far as C's conversions care.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Bool,
    Int,
    Unsigned,
    Ref,
}

type Value = (i64, Kind);

/// A variable: its value, what reading it gives, and its range.
#[derive(Clone, Debug)]
struct Cell {
    n: i64,
    kind: Kind,
    range: (i64, i64),
}

enum Flow {
    On,
    Break,
    Continue,
    Goto(String),
    Return(Value),
}

struct Reader<'a> {
    functions: BTreeMap<&'a str, &'a Function>,
    /// Shared variables by name; of arrays and fields `list[1]`, `1.x`. Masks are numbers of as many bits as pCPUs.
    globals: BTreeMap<String, Cell>,
    /// The frames' scopes, the innermost last; `None` begins a function.
    scopes: Vec<Option<BTreeMap<String, Cell>>>,
    /// Masks handed over by name: parameter, variable.
    aliases: Vec<(String, String)>,
    choices: Vec<i64>,
}

fn cell(ty: &Type, bits: Option<i64>) -> Cell {
    let (kind, range) = match ty {
        Type::Bool => (Kind::Bool, (0, 1)),
        Type::Int(IntType::UInt) => (Kind::Unsigned, bits.map_or((0, 255), |b| (0, (1 << b) - 1))),
        Type::Int(IntType::U8) => (Kind::Int, (0, 255)),
        Type::Int(_) => (Kind::Int, (-128, 127)),
        Type::Ref(_) => (Kind::Ref, (-1, 127)),
        Type::Mask => (Kind::Int, (0, 7)),
        _ => panic!("no {ty} in these programs"),
    };
    Cell { n: if kind == Kind::Ref { -1 } else { 0 }, kind, range }
}

/// A value as a variable takes it.
fn fit((n, kind): Value, to: &Cell) -> i64 {
    match to.kind {
        Kind::Bool => i64::from(truth((n, kind))),
        Kind::Ref => n,
        Kind::Int | Kind::Unsigned => {
            let size = i128::from(to.range.1) - i128::from(to.range.0) + 1;
            let n = (i128::from(n) - i128::from(to.range.0)).rem_euclid(size) + i128::from(to.range.0);
            i64::try_from(n).expect("in range")
        }
    }
}

fn truth((n, kind): Value) -> bool {
    if kind == Kind::Ref { n != -1 } else { n != 0 }
}

fn infix(op: Infix, (a, ka): Value, (b, kb): Value) -> Value {
    let shift = matches!(op, Infix::Shl | Infix::Shr);
    let unsigned = ka == Kind::Unsigned || !shift && kb == Kind::Unsigned;
    let cut = |n: i64| if unsigned { n & 0xff } else { n };
    let (a, b) = (cut(a), if shift { b } else { cut(b) });
    let bool = |t: bool| (i64::from(t), Kind::Bool);
    let n = match op {
        Infix::Add => a.wrapping_add(b),
        Infix::Sub => a.wrapping_sub(b),
        Infix::Mul => a.wrapping_mul(b),
        Infix::BitAnd => a & b,
        Infix::BitOr => a | b,
        Infix::Shr => a >> b,
        Infix::Lt => return bool(a < b),
        Infix::Le => return bool(a <= b),
        Infix::Gt => return bool(a > b),
        Infix::Ge => return bool(a >= b),
        Infix::Eq => return bool(a == b),
        Infix::Ne => return bool(a != b),
        Infix::Div | Infix::Rem | Infix::Shl | Infix::BitXor | Infix::And | Infix::Or => {
            panic!("not in these programs")
        }
    };
    (cut(n), if unsigned { Kind::Unsigned } else { Kind::Int })
}

impl<'a> Reader<'a> {
    fn new(tree: &'a Ast, choices: &[i64]) -> Reader<'a> {
        let mut r = Reader {
            functions: BTreeMap::new(),
            globals: BTreeMap::new(),
            scopes: Vec::new(),
            aliases: Vec::new(),
            choices: choices.iter().rev().copied().collect(),
        };
        for item in &tree.items {
            match &item.kind {
                ItemKind::Function(f) => {
                    r.functions.insert(&f.name.name, f);
                }
                ItemKind::Global { decl, .. } => {
                    let name = &decl.name.name;
                    let init = decl.init.as_ref().map(|e| r.value(e));
                    let mut start = cell(&decl.ty, None);
                    start.n = init.map_or(start.n, |v| fit(v, &start));
                    match decl.array.as_ref().map(|e| r.value(e).0) {
                        Some(n) => {
                            r.globals.extend((0..n).map(|i| (format!("{name}[{i}]"), start.clone())));
                        }
                        None => {
                            r.globals.insert(name.clone(), start);
                        }
                    }
                }
                ItemKind::Struct { fields, .. } => {
                    for field in fields {
                        let bits = field.bits.as_ref().map(|e| r.value(e).0);
                        for vm in 0..2 {
                            r.globals.insert(format!("{vm}.{}", field.name.name), cell(&field.ty, bits));
                        }
                    }
                }
                _ => {}
            }
        }
        r
    }

    /// The name of the variable that an expression stands for.
    fn place(&mut self, e: &Expr) -> String {
        match &e.kind {
            ExprKind::Name(name) => name.clone(),
            ExprKind::Field(of, field) => format!("{}.{}", self.value(of).0, field.name),
            ExprKind::Index(of, index) => format!("{}[{}]", self.place(of), self.value(index).0),
            ExprKind::Prefix(Prefix::AddressOf, of) => self.place(of),
            other => panic!("{other:?} is no variable"),
        }
    }

    fn cell(&mut self, name: &str) -> &mut Cell {
        let name = match self.aliases.iter().rev().find(|(alias, _)| alias == name) {
            Some((_, of)) => of.clone(),
            None => name.to_owned(),
        };
        // A mask that a function was handed may be a local of its caller.
        let frame = if name == "l" { 0 } else { self.scopes.iter().rposition(Option::is_none).unwrap_or(0) };
        let found = self.scopes[frame..].iter_mut().rev().flatten().find_map(|s| s.get_mut(&name));
        match found {
            Some(local) => local,
            None => self.globals.get_mut(&name).unwrap_or_else(|| panic!("no {name}")),
        }
    }

    fn read(&mut self, name: &str) -> Value {
        let c = self.cell(name);
        (c.n, c.kind)
    }

    fn write(&mut self, name: &str, v: Value) -> Value {
        let c = self.cell(name);
        c.n = fit(v, c);
        (c.n, c.kind)
    }

    fn value(&mut self, e: &Expr) -> Value {
        let bool = |t: bool| (i64::from(t), Kind::Bool);
        match &e.kind {
            ExprKind::Int(n) => (*n, Kind::Int),
            ExprKind::Bool(b) => bool(*b),
            ExprKind::Null => (-1, Kind::Ref),
            ExprKind::Name(name) => match name.as_str() {
                "vm0" => (0, Kind::Ref),
                "vm1" | "vcpu1" => (1, Kind::Ref),
                "nr_cpu_ids" => (PCPUS, Kind::Int),
                "cpu_possible_mask" => (7, Kind::Int),
                name => self.read(name),
            },
            ExprKind::Field(..) | ExprKind::Index(..) => {
                let name = self.place(e);
                self.read(&name)
            }
            ExprKind::Prefix(Prefix::AddressOf, of) => self.value(of),
            ExprKind::Prefix(Prefix::Not, of) => {
                let v = self.value(of);
                bool(!truth(v))
            }
            ExprKind::Prefix(..) | ExprKind::Cast(..) => panic!("not in these programs"),
            ExprKind::Infix(Infix::And, a, b) => {
                let a = self.value(a);
                bool(truth(a) && truth(self.value(b)))
            }
            ExprKind::Infix(Infix::Or, a, b) => {
                let a = self.value(a);
                bool(truth(a) || truth(self.value(b)))
            }
            ExprKind::Infix(op, a, b) => {
                let (a, b) = (self.value(a), self.value(b));
                infix(*op, a, b)
            }
            ExprKind::Cond(cond, a, b) => {
                let cond = self.value(cond);
                let (v, other) = if truth(cond) { (self.value(a), b) } else { (self.value(b), a) };
                // Both sides have one type: the other's is looked at without being evaluated.
                (v.0, if v.1 == self.kind(other) { v.1 } else { Kind::Int })
            }
            ExprKind::Assign(op, to, from) => {
                let name = self.place(to);
                let v = match op {
                    None => self.value(from),
                    Some(op) => {
                        let old = self.read(&name);
                        let right = self.value(from);
                        infix(*op, old, right)
                    }
                };
                self.write(&name, v)
            }
            ExprKind::Step { up, prefix, of } => {
                let name = self.place(of);
                let old = self.read(&name);
                let new = infix(if *up { Infix::Add } else { Infix::Sub }, old, (1, Kind::Int));
                let new = self.write(&name, new);
                if *prefix { new } else { old }
            }
            ExprKind::Call { name, args } => self.call(&name.name, args),
        }
    }

    /// What kind of value an expression has.
    fn kind(&mut self, e: &Expr) -> Kind {
        match &e.kind {
            ExprKind::Int(_) => Kind::Int,
            ExprKind::Bool(_) | ExprKind::Prefix(Prefix::Not, _) => Kind::Bool,
            ExprKind::Null => Kind::Ref,
            ExprKind::Name(_) | ExprKind::Field(..) | ExprKind::Index(..) => self.value(e).1,
            ExprKind::Infix(op, a, b) => match op {
                Infix::And
                | Infix::Or
                | Infix::Lt
                | Infix::Le
                | Infix::Gt
                | Infix::Ge
                | Infix::Eq
                | Infix::Ne => Kind::Bool,
                Infix::Shr if self.kind(a) == Kind::Unsigned => Kind::Unsigned,
                Infix::Shr => Kind::Int,
                _ if self.kind(a) == Kind::Unsigned || self.kind(b) == Kind::Unsigned => Kind::Unsigned,
                _ => Kind::Int,
            },
            ExprKind::Cond(_, a, b) => {
                let (a, b) = (self.kind(a), self.kind(b));
                if a == b { a } else { Kind::Int }
            }
            ExprKind::Call { name, .. } => match name.name.as_str() {
                "cpumask_test_cpu" | "cpumask_empty" | "cpumask_equal" => Kind::Bool,
                _ => Kind::Int,
            },
            other => panic!("{other:?} has no kind here"),
        }
    }

    fn call(&mut self, name: &str, args: &[Expr]) -> Value {
        if let Some(f) = self.functions.get(name).copied() {
            return self.function(f, args);
        }
        let int = |n: i64| (n, Kind::Int);
        let bool = |t: bool| (i64::from(t), Kind::Bool);
        let next = |mask: i64, from: i64| (from..PCPUS).find(|b| mask >> b & 1 == 1).unwrap_or(PCPUS);
        // Masks and addresses are named, numbers evaluated, from left to right.
        let mut names = vec![String::new(); args.len()];
        let mut n = vec![0; args.len()];
        for (i, arg) in args.iter().enumerate() {
            let alias = matches!(&arg.kind, ExprKind::Name(a) if self.aliases.iter().any(|(x, _)| x == a));
            if matches!(arg.kind, ExprKind::Prefix(Prefix::AddressOf, _)) || alias {
                names[i] = self.place(arg);
            } else {
                n[i] = self.value(arg).0;
            }
        }
        let get = |r: &mut Self, i: usize| r.read(&names[i]).0;
        match name {
            "any_of" => int(self.choices.pop().unwrap_or(0).clamp(0, n[0] - 1)),
            "smp_processor_id" => int(0),
            "cpumask_weight" => int(i64::from(get(self, 0).count_ones())),
            "cpumask_first" => int(next(get(self, 0), 0)),
            "cpumask_next" => int(next(get(self, 1), n[0] + 1)),
            "cpumask_empty" => bool(get(self, 0) == 0),
            "cpumask_equal" => bool(get(self, 0) == get(self, 1)),
            "cpumask_test_cpu" => bool(get(self, 1) >> n[0] & 1 == 1),
            "cpumask_set_cpu" | "__cpumask_set_cpu" => {
                let new = get(self, 1) | 1 << n[0];
                self.write(&names[1], int(new))
            }
            "cpumask_test_and_clear_cpu" => {
                let old = get(self, 1);
                self.write(&names[1], int(old & !(1 << n[0])));
                bool(old >> n[0] & 1 == 1)
            }
            "cpumask_clear" => self.write(&names[0], int(0)),
            "cpumask_copy" => {
                let from = get(self, 1);
                self.write(&names[0], int(from))
            }
            "cpumask_or" | "cpumask_andnot" => {
                let (a, b) = (get(self, 1), get(self, 2));
                self.write(&names[0], int(if name == "cpumask_or" { a | b } else { a & !b }))
            }
            "cpumask_xchg" => {
                let (old, new) = (get(self, 1), if names[2].is_empty() { 0 } else { get(self, 2) });
                self.write(&names[1], int(new));
                self.write(&names[0], int(old))
            }
            "xchg" => {
                let old = self.read(&names[0]);
                self.write(&names[0], int(n[1]));
                old
            }
            "cmpxchg" => {
                let old = self.read(&names[0]);
                let was = fit(int(n[1]), self.cell(&names[0]));
                if old.0 == was {
                    self.write(&names[0], int(n[2]));
                }
                old
            }
            "try_cmpxchg" => {
                let (old, was) = (self.read(&names[0]), self.read(&names[1]));
                if old.0 == was.0 {
                    self.write(&names[0], int(n[2]));
                }
                self.write(&names[1], old);
                bool(old.0 == was.0)
            }
            "atomic_fetch_or" => {
                let old = self.read(&names[1]);
                self.write(&names[1], int(old.0 | n[0]));
                old
            }
            "atomic_add_unless" => {
                let old = self.read(&names[0]);
                if old.0 != n[2] {
                    self.write(&names[0], int(old.0.wrapping_add(n[1])));
                }
                bool(old.0 != n[2])
            }
            "__clear_bit" => {
                let old = self.read(&names[1]);
                self.write(&names[1], int(old.0 & !(1 << n[0])))
            }
            other => panic!("no {other} in these programs"),
        }
    }

    fn function(&mut self, f: &Function, args: &[Expr]) -> Value {
        let (mut scope, mut aliases) = (BTreeMap::new(), 0);
        for (param, arg) in f.params.iter().zip(args) {
            if param.ty == Type::MaskPtr {
                let of = self.place(arg);
                self.aliases.push((param.name.name.clone(), of));
                aliases += 1;
            } else {
                let v = self.value(arg);
                let mut c = cell(&param.ty, None);
                c.n = fit(v, &c);
                scope.insert(param.name.name.clone(), c);
            }
        }
        let depth = self.scopes.len();
        self.scopes.push(None);
        self.scopes.push(Some(scope));
        let flow = f.body.as_ref().map_or(Flow::On, |b| self.block(b));
        self.scopes.truncate(depth);
        self.aliases.truncate(self.aliases.len() - aliases);
        match flow {
            Flow::Return(v) if f.result != Type::Void => {
                let to = cell(&f.result, None);
                (fit(v, &to), to.kind)
            }
            _ => (0, Kind::Int),
        }
    }

    fn declare(&mut self, decl: &Decl) {
        let mut c = cell(&decl.ty, None);
        if let Some(init) = &decl.init {
            let v = self.value(init);
            c.n = fit(v, &c);
        }
        let scope = self.scopes.last_mut().and_then(Option::as_mut).expect("a scope");
        scope.insert(decl.name.name.clone(), c);
    }

    fn block(&mut self, block: &Block) -> Flow {
        self.stmts(block, 0)
    }

    /// The statements from one on; a `goto` to a label among them goes on there.
    fn stmts(&mut self, block: &Block, from: usize) -> Flow {
        self.scopes.push(Some(BTreeMap::new()));
        let mut at = from;
        let mut flow = Flow::On;
        while let Some(stmt) = block.stmts.get(at) {
            at += 1;
            flow = self.stmt(stmt);
            if let Flow::Goto(label) = &flow {
                let here = |s: &Stmt| matches!(&s.kind, StmtKind::Label(l) if l.name == *label);
                if let Some(found) = block.stmts.iter().position(here) {
                    (at, flow) = (found, Flow::On);
                }
            }
            if !matches!(flow, Flow::On) {
                break;
            }
        }
        self.scopes.pop();
        flow
    }

    fn stmt(&mut self, stmt: &Stmt) -> Flow {
        match &stmt.kind {
            StmtKind::Decl(decl) => self.declare(decl),
            StmtKind::Expr(e) => drop(self.value(e)),
            StmtKind::Block(block) => return self.block(block),
            StmtKind::If { cond, then, otherwise } => {
                let cond = self.value(cond);
                match (truth(cond), otherwise) {
                    (true, _) => return self.block(then),
                    (false, Some(block)) => return self.block(block),
                    (false, None) => {}
                }
            }
            StmtKind::For { init, cond, step, body } => {
                self.scopes.push(Some(BTreeMap::new()));
                let flow = self.for_loop(init.as_deref(), cond.as_ref(), step.as_ref(), body);
                self.scopes.pop();
                return flow;
            }
            StmtKind::ForEachCpu { cpu, mask, filter, body } => {
                let cpu = self.place(cpu);
                let mut from = 0;
                loop {
                    let mut found = self.value(mask).0;
                    if let Some((how, other)) = filter {
                        let other = self.value(other).0;
                        found &= if *how == Filter::And { other } else { !other };
                    }
                    let Some(bit) = (from..PCPUS).find(|b| found >> b & 1 == 1) else { break };
                    self.write(&cpu, (bit, Kind::Int));
                    from = bit + 1;
                    match self.block(body) {
                        Flow::On | Flow::Continue => {}
                        Flow::Break => break,
                        out @ (Flow::Goto(_) | Flow::Return(_)) => return out,
                    }
                }
            }
            StmtKind::ForEachVcpu { index, vcpu, vm, body } => {
                let (index, vcpu, vm) = (self.place(index), self.place(vcpu), self.value(vm).0);
                let mine = (0..).zip(VCPU_VM).filter(|(_, of)| *of == vm).map(|(v, _)| v);
                for (i, v) in (0..).zip(mine) {
                    self.write(&index, (i, Kind::Int));
                    self.write(&vcpu, (v, Kind::Ref));
                    match self.block(body) {
                        Flow::On | Flow::Continue => {}
                        Flow::Break => break,
                        out @ (Flow::Goto(_) | Flow::Return(_)) => return out,
                    }
                }
            }
            StmtKind::Switch { on, body } => {
                let on = self.value(on).0;
                let mut at = None;
                for (i, s) in body.stmts.iter().enumerate() {
                    match &s.kind {
                        StmtKind::Case(e) if self.value(e).0 == on => {
                            at = Some(i);
                            break;
                        }
                        StmtKind::Default if at.is_none() => at = Some(i),
                        _ => {}
                    }
                }
                match at.map_or(Flow::On, |at| self.stmts(body, at)) {
                    Flow::Break => {}
                    out @ (Flow::On | Flow::Continue | Flow::Goto(_) | Flow::Return(_)) => return out,
                }
            }
            StmtKind::Break => return Flow::Break,
            StmtKind::Continue => return Flow::Continue,
            StmtKind::Goto(label) => return Flow::Goto(label.name.clone()),
            StmtKind::Return(v) => {
                let v = v.as_ref().map_or((0, Kind::Int), |e| self.value(e));
                return Flow::Return(v);
            }
            // Nobody else is there to be kept out.
            StmtKind::Guard { .. }
            | StmtKind::Empty
            | StmtKind::Label(_)
            | StmtKind::Case(_)
            | StmtKind::Default
            | StmtKind::Fallthrough => {}
            other => panic!("{other:?} is not in these programs"),
        }
        Flow::On
    }

    fn for_loop(
        &mut self,
        init: Option<&Stmt>,
        cond: Option<&Expr>,
        step: Option<&Expr>,
        body: &Block,
    ) -> Flow {
        if let Some(init) = init {
            self.stmt(init);
        }
        loop {
            if let Some(cond) = cond {
                let more = self.value(cond);
                if !truth(more) {
                    return Flow::On;
                }
            }
            match self.block(body) {
                Flow::On | Flow::Continue => {}
                Flow::Break => return Flow::On,
                out @ (Flow::Goto(_) | Flow::Return(_)) => return out,
            }
            if let Some(step) = step {
                self.value(step);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_do_what_the_tree_says(
        bytes in proptest::collection::vec(any::<u8>(), 0..160),
        choices in proptest::collection::vec(0..3i64, 6),
    ) {
        let text = program(&mut Tape::new(&bytes));
        let config = config(3, 2);
        let built = compile(&[litmus(&text)], &no_includes, &["test"], &config);
        let code = built.map_err(|d| TestCaseError::fail(format!("{text}\n{}", d[0])))?;
        let run = Mock::new(&code, &config).choices(&choices).run(&code.entries[0], &[]);
        if run.log.iter().any(|line| line == "blocked") {
            return Ok(());
        }
        let tree = parse(&litmus(&text)).expect("it compiles");
        let mut reader = Reader::new(&tree, &choices);
        let test = reader.functions["test"];
        reader.function(test, &[]);
        for (name, found) in &reader.globals {
            let (instance, plain) = match name.split_once('.') {
                Some((vm, field)) => (vm.parse::<usize>().expect("a VM"), field),
                None => (0, name.as_str()),
            };
            let (var, element) = match plain.split_once('[') {
                Some((var, rest)) => (var, rest.trim_end_matches(']').parse::<usize>().expect("an element")),
                None => (plain, 0),
            };
            let at = code.vars.iter().position(|v| v.name == var).expect("a variable");
            let value = if code.vars[at].kind == crate::VarKind::Mask {
                (0..).zip(&run.values[at]).map(|(w, word)| word << (2 * w)).sum()
            } else {
                run.values[at][instance + element]
            };
            prop_assert_eq!(value, found.n, "{} in\n{}\n{}", name, text, code.listing());
        }
    }
}
