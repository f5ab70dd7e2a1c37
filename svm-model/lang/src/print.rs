//! Prints a syntax tree as text that parses to the same tree.

use std::fmt::{self, Display, Formatter, Write as _};

use crate::ast::{
    Ast, Block, Decl, Each, Expr, ExprKind, Filter, Function, GuardKind, IntType, ItemKind, LockType, Object,
    Prefix, Stmt, StmtKind, Type,
};
use crate::parse::INFIX;

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Type::Enum(name) => write!(f, "enum {name}"),
            Type::Void => f.write_str("void"),
            Type::Bool => f.write_str("bool"),
            Type::Int(int) => f.write_str(match int {
                IntType::Int => "int",
                IntType::UInt => "unsigned int",
                IntType::Long => "long",
                IntType::ULong => "unsigned long",
                IntType::U8 => "u8",
                IntType::U16 => "u16",
                IntType::U32 => "u32",
                IntType::U64 => "u64",
                IntType::S8 => "s8",
                IntType::S16 => "s16",
                IntType::S32 => "s32",
                IntType::S64 => "s64",
            }),
            Type::Atomic => f.write_str("atomic_t"),
            Type::Ref(object) => write!(f, "{object} *"),
            Type::Mask => f.write_str("cpumask_t"),
            Type::MaskVar => f.write_str("cpumask_var_t"),
            Type::MaskPtr => f.write_str("struct cpumask *"),
            Type::Lock(lock) => write!(f, "{lock}"),
            Type::LockPtr(lock) => write!(f, "{lock} *"),
            Type::Func => f.write_str("smp_call_func_t"),
            Type::Opaque => f.write_str("void *"),
        }
    }
}

impl Display for Object {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Object::Vm => "struct kvm",
            Object::Vcpu => "struct kvm_vcpu",
            Object::Page => "struct page",
            Object::Pool(name) => return write!(f, "struct {name}"),
        })
    }
}

impl Display for LockType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LockType::Mutex => "struct mutex",
            LockType::Spin => "spinlock_t",
            LockType::Rwlock => "rwlock_t",
            LockType::Rwsem => "struct rw_semaphore",
            LockType::Completion => "struct completion",
        })
    }
}

/// A type and a name, the star at the name.
fn typed(ty: &Type, name: &str) -> String {
    let ty = ty.to_string();
    if ty.ends_with('*') { format!("{ty}{name}") } else { format!("{ty} {name}") }.trim_end().to_owned()
}

impl Display for Decl {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&typed(&self.ty, &self.name.name))?;
        if let Some(len) = &self.array {
            write!(f, "[{len}]")?;
        }
        if let Some(bits) = &self.bits {
            f.write_str(" : ")?;
            expr(f, bits, 1)?;
        }
        if let Some(init) = &self.init {
            write!(f, " = {init}")?;
        }
        Ok(())
    }
}

impl Display for Function {
    /// The head, without body.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.is_static {
            f.write_str("static ")?;
        }
        if self.is_inline {
            f.write_str("inline ")?;
        }
        write!(f, "{}(", typed(&self.result, &self.name.name))?;
        for (i, param) in self.params.iter().enumerate() {
            write!(f, "{}{param}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str(if self.params.is_empty() { "void)" } else { ")" })
    }
}

impl Display for Ast {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            match &item.kind {
                ItemKind::Include(name) => writeln!(f, "#include \"{}\"", name.name)?,
                ItemKind::Define { name, value } => writeln!(f, "#define {} {value}", name.name)?,
                ItemKind::Enum { name, values } => {
                    let name = name.as_ref().map_or(String::new(), |n| format!("{} ", n.name));
                    write!(f, "enum {name}{{")?;
                    for (i, (constant, value)) in values.iter().enumerate() {
                        write!(f, "{} {}", if i > 0 { "," } else { "" }, constant.name)?;
                        if let Some(value) = value {
                            write!(f, " = {value}")?;
                        }
                    }
                    f.write_str(" };\n")?;
                }
                ItemKind::Struct { object, fields } => {
                    writeln!(f, "{object} {{")?;
                    for field in fields {
                        writeln!(f, "\t{field};")?;
                    }
                    f.write_str("};\n")?;
                }
                ItemKind::Per { each, decl } => {
                    let define = Each::DEFINED.iter().find(|(_, e)| e == each).map_or("", |(word, _)| word);
                    write!(f, "{define}({}, {})", decl.ty, decl.name.name)?;
                    if let Some(init) = &decl.init {
                        write!(f, " = {init}")?;
                    }
                    f.write_str(";\n")?;
                }
                ItemKind::Global { is_static, is_const, decl } => {
                    let words = if *is_static { "static " } else { "" };
                    writeln!(f, "{words}{}{decl};", if *is_const { "const " } else { "" })?;
                }
                ItemKind::Objects { name, count } => {
                    writeln!(f, "DEFINE_OBJECTS(struct {}, {count});", name.name)?;
                }
                ItemKind::Lock { kind, name } => {
                    let define =
                        LockType::DEFINED.iter().find(|(_, k)| k == kind).map_or("", |(word, _)| word);
                    writeln!(f, "{define}({});", name.name)?;
                }
                ItemKind::Function(function) => match &function.body {
                    None => writeln!(f, "{function};")?,
                    Some(body) => {
                        writeln!(f, "{function}\n{{")?;
                        stmts(f, &body.stmts, 1)?;
                        f.write_str("}\n")?;
                    }
                },
            }
        }
        Ok(())
    }
}

fn indent(f: &mut Formatter<'_>, depth: usize) -> fmt::Result {
    for _ in 0..depth {
        f.write_char('\t')?;
    }
    Ok(())
}

fn stmts(f: &mut Formatter<'_>, list: &[Stmt], depth: usize) -> fmt::Result {
    for s in list {
        stmt(f, s, depth)?;
    }
    Ok(())
}

/// ` {`, the statements, and `}` without the line's end.
fn body(f: &mut Formatter<'_>, block: &Block, depth: usize) -> fmt::Result {
    f.write_str(" {\n")?;
    stmts(f, &block.stmts, depth + 1)?;
    indent(f, depth)?;
    f.write_char('}')
}

fn if_stmt(
    f: &mut Formatter<'_>,
    cond: &Expr,
    then: &Block,
    otherwise: Option<&Block>,
    depth: usize,
) -> fmt::Result {
    write!(f, "if ({cond})")?;
    body(f, then, depth)?;
    let Some(otherwise) = otherwise else { return Ok(()) };
    f.write_str(" else")?;
    if let [Stmt { kind: StmtKind::If { cond, then, otherwise }, .. }] = otherwise.stmts.as_slice() {
        f.write_char(' ')?;
        return if_stmt(f, cond, then, otherwise.as_ref(), depth);
    }
    body(f, otherwise, depth)
}

fn stmt(f: &mut Formatter<'_>, s: &Stmt, depth: usize) -> fmt::Result {
    let label = matches!(s.kind, StmtKind::Case(_) | StmtKind::Default | StmtKind::Label(_));
    indent(f, depth - usize::from(label))?;
    match &s.kind {
        StmtKind::Empty => f.write_str(";")?,
        StmtKind::Block(block) => {
            f.write_str("{\n")?;
            stmts(f, &block.stmts, depth + 1)?;
            indent(f, depth)?;
            f.write_char('}')?;
        }
        StmtKind::Decl(decl) => write!(f, "{decl};")?,
        StmtKind::Expr(e) => write!(f, "{e};")?,
        StmtKind::If { cond, then, otherwise } => if_stmt(f, cond, then, otherwise.as_ref(), depth)?,
        StmtKind::While { cond, body: block } => {
            write!(f, "while ({cond})")?;
            body(f, block, depth)?;
        }
        StmtKind::DoWhile { body: block, cond } => {
            f.write_str("do")?;
            body(f, block, depth)?;
            write!(f, " while ({cond});")?;
        }
        StmtKind::For { init, cond, step, body: block } => {
            f.write_str("for (")?;
            match init.as_ref().map(|s| &s.kind) {
                Some(StmtKind::Decl(decl)) => write!(f, "{decl}; ")?,
                Some(StmtKind::Expr(e)) => write!(f, "{e}; ")?,
                Some(_) | None => f.write_str("; ")?,
            }
            if let Some(cond) = cond {
                write!(f, "{cond}")?;
            }
            f.write_str("; ")?;
            if let Some(step) = step {
                write!(f, "{step}")?;
            }
            f.write_char(')')?;
            body(f, block, depth)?;
        }
        StmtKind::Switch { on, body: block } => {
            write!(f, "switch ({on})")?;
            body(f, block, depth)?;
        }
        StmtKind::Case(value) => write!(f, "case {value}:")?,
        StmtKind::Default => f.write_str("default:")?,
        StmtKind::Break => f.write_str("break;")?,
        StmtKind::Continue => f.write_str("continue;")?,
        StmtKind::Fallthrough => f.write_str("fallthrough;")?,
        StmtKind::Goto(label) => write!(f, "goto {};", label.name)?,
        StmtKind::Label(label) => write!(f, "{}:", label.name)?,
        StmtKind::Return(None) => f.write_str("return;")?,
        StmtKind::Return(Some(value)) => write!(f, "return {value};")?,
        StmtKind::Guard { kind, lock } => {
            let kind = GuardKind::ALL.iter().find(|(_, k)| k == kind).map_or("", |(word, _)| word);
            write!(f, "guard({kind})({lock});")?;
        }
        StmtKind::ForEachCpu { cpu, mask, filter, body: block } => {
            match filter {
                None => write!(f, "for_each_cpu({cpu}, {mask})")?,
                Some((filter, other)) => {
                    let word = Filter::LOOPS.iter().find(|(_, l)| l == filter).map_or("", |(word, _)| word);
                    write!(f, "{word}({cpu}, {mask}, {other})")?;
                }
            }
            body(f, block, depth)?;
        }
        StmtKind::ForEachPossibleCpu { cpu, body: block } => {
            write!(f, "for_each_possible_cpu({cpu})")?;
            body(f, block, depth)?;
        }
        StmtKind::ForEachOnlineCpu { cpu, body: block } => {
            write!(f, "for_each_online_cpu({cpu})")?;
            body(f, block, depth)?;
        }
        StmtKind::ForEachVcpu { index, vcpu, vm, body: block } => {
            write!(f, "kvm_for_each_vcpu({index}, {vcpu}, {vm})")?;
            body(f, block, depth)?;
        }
    }
    f.write_char('\n')
}

/// How tightly prefix operators bind; postfix ones bind one tighter.
const PREFIX: u8 = 11;
const POSTFIX: u8 = 12;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        expr(f, self, 0)
    }
}

/// Prints an expression where operators that bind less than `least` need parentheses.
fn expr(f: &mut Formatter<'_>, e: &Expr, least: u8) -> fmt::Result {
    let binds = match &e.kind {
        ExprKind::Assign(..) => 0,
        // One more than assignment, one less than any infix operator.
        ExprKind::Cond(..) => 0,
        ExprKind::Infix(op, ..) => INFIX.iter().find(|(_, o, _)| o == op).map_or(0, |(_, _, b)| *b),
        ExprKind::Prefix(..) | ExprKind::Cast(..) | ExprKind::Step { prefix: true, .. } => PREFIX,
        ExprKind::Step { .. }
        | ExprKind::Int(_)
        | ExprKind::Bool(_)
        | ExprKind::Null
        | ExprKind::Name(_)
        | ExprKind::Call { .. }
        | ExprKind::Field(..)
        | ExprKind::Index(..) => POSTFIX,
    };
    if binds < least {
        f.write_char('(')?;
        expr(f, e, 0)?;
        return f.write_char(')');
    }
    match &e.kind {
        ExprKind::Int(n) => write!(f, "{n}"),
        ExprKind::Bool(b) => write!(f, "{b}"),
        ExprKind::Null => f.write_str("NULL"),
        ExprKind::Name(name) => f.write_str(name),
        ExprKind::Prefix(op, of) => {
            let text = match op {
                Prefix::Neg => "-",
                Prefix::BitNot => "~",
                Prefix::Not => "!",
                Prefix::AddressOf => "&",
            };
            f.write_str(text)?;
            // `- -x` must not become `--x`, nor `& &x` `&&x`.
            let doubled = if let ExprKind::Prefix(inner, _) = &of.kind {
                inner == op
            } else {
                *op == Prefix::Neg && matches!(of.kind, ExprKind::Step { up: false, prefix: true, .. })
            };
            if doubled {
                f.write_char(' ')?;
            }
            expr(f, of, PREFIX)
        }
        ExprKind::Infix(op, lhs, rhs) => {
            let text = INFIX.iter().find(|(_, o, _)| o == op).map_or("", |(text, _, _)| *text);
            expr(f, lhs, binds)?;
            write!(f, " {text} ")?;
            expr(f, rhs, binds + 1)
        }
        ExprKind::Cond(cond, then, otherwise) => {
            expr(f, cond, 1)?;
            f.write_str(" ? ")?;
            expr(f, then, 0)?;
            f.write_str(" : ")?;
            expr(f, otherwise, u8::from(matches!(otherwise.kind, ExprKind::Assign(..))))
        }
        ExprKind::Assign(op, lhs, rhs) => {
            expr(f, lhs, 1)?;
            let text =
                op.and_then(|op| INFIX.iter().find(|(_, o, _)| *o == op)).map_or("", |(text, _, _)| *text);
            write!(f, " {text}= ")?;
            expr(f, rhs, 0)
        }
        ExprKind::Step { up, prefix, of } => {
            let text = if *up { "++" } else { "--" };
            if *prefix {
                f.write_str(text)?;
                expr(f, of, PREFIX)
            } else {
                expr(f, of, POSTFIX)?;
                f.write_str(text)
            }
        }
        ExprKind::Call { name, args } => {
            write!(f, "{}(", name.name)?;
            for (i, arg) in args.iter().enumerate() {
                f.write_str(if i > 0 { ", " } else { "" })?;
                expr(f, arg, 0)?;
            }
            f.write_char(')')
        }
        ExprKind::Field(of, field) => {
            expr(f, of, POSTFIX)?;
            write!(f, "->{}", field.name)
        }
        ExprKind::Index(of, index) => {
            expr(f, of, POSTFIX)?;
            f.write_char('[')?;
            expr(f, index, 0)?;
            f.write_char(']')
        }
        ExprKind::Cast(ty, of) => {
            write!(f, "({ty})")?;
            expr(f, of, PREFIX)
        }
    }
}
