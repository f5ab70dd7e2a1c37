//! A policy's text as a file of the helper module: the text itself, what C needs around it, and a table of its functions.
//!
//! The text is C with the kernel's names, so it is compiled as it stands, but for two things that C writes elsewhere, the
//! fields that every `struct kvm_vcpu` has and what fields start as, and one that keeps the host alive: each round of a loop
//! asks the module whether it may go on.

use std::fmt::Write as _;

use svm_model::lang::ast::{Block, Decl, Each, Item, ItemKind, LockType, Object, Stmt, StmtKind, Type};
use svm_native::admit;

use super::program::Policy;
use crate::exit::Failure;

/// The file of a policy; `number` tells the policies of a module apart.
pub(crate) fn module_file(policy: &Policy, number: usize) -> Result<String, Failure> {
    let text = &policy.text;
    let refuse = |what: &str| {
        Failure::input(format!("the policy `{}` cannot be compiled into the module: {what}", text.name))
    };
    let mut out = String::from("// SPDX-License-Identifier: GPL-2.0\n");
    let _ = writeln!(out, "/* Written by `sevsim module`: the policy {}. */", policy.ident());
    out.push_str("#include \"policy.h\"\n\n");
    let mut edits = Vec::new();
    let mut fields = (None, None);
    let mut globals = Vec::new();
    for item in &policy.ast.items {
        match &item.kind {
            ItemKind::Include(name) => {
                return Err(refuse(&format!("it includes \"{}\": put that text in its place", name.name)));
            }
            ItemKind::Struct { object: Object::Vm, fields: f } => fields.0 = Some(f),
            ItemKind::Struct { object: Object::Vcpu, fields: f } => {
                let brace = brace_of(&text.text, item);
                edits.push((brace, brace, String::from(" struct kvm *kvm; int vcpu_idx;")));
                fields.1 = Some(f);
            }
            ItemKind::Struct { object: Object::Page | Object::Pool(_), .. } | ItemKind::Objects { .. } => {
                return Err(refuse("only `struct kvm` and `struct kvm_vcpu` can have fields there"));
            }
            ItemKind::Per { each: Each::Asid, .. } => {
                return Err(refuse("DEFINE_PER_ASID: ASIDs are KVM's, which does not tell"));
            }
            ItemKind::Per { each: Each::Cpu, decl } => globals.push((decl, true)),
            ItemKind::Global { is_const: false, decl, .. } => globals.push((decl, false)),
            ItemKind::Lock { name, .. } => rename(&mut out, number, &name.name),
            ItemKind::Function(f) => {
                let Some(body) = &f.body else {
                    return Err(refuse("a prototype: a policy has whole functions only"));
                };
                rename(&mut out, number, &f.name.name);
                edits.extend(bounds(&text.text, body));
            }
            ItemKind::Define { .. } | ItemKind::Enum { .. } | ItemKind::Global { .. } => {}
        }
    }
    for (decl, per_cpu) in &globals {
        rename(&mut out, number, &decl.name.name);
        if *per_cpu {
            edits.extend(without_initialiser(&text.text, decl));
        }
    }
    for field in [fields.0, fields.1].into_iter().flatten().flatten() {
        edits.extend(without_initialiser(&text.text, field));
    }
    if fields.0.is_none() {
        out.push_str("struct kvm { int no_field; };\n");
    }
    if fields.1.is_none() {
        out.push_str("struct kvm_vcpu { struct kvm *kvm; int vcpu_idx; };\n");
    }
    let _ = writeln!(out, "\n#line 1 {}", literal(&text.file));
    edits.sort_unstable();
    out.push_str(&edited(&text.text, &edits));
    let _ = writeln!(out, "\n#line {} \"policy_{number}.c\"", out.lines().count() + 2);
    let init = |of: &str, list: Option<&Vec<Decl>>| {
        list.into_iter().flatten().map(|d| initialised(&text.text, of, d)).collect::<String>()
    };
    let _ =
        writeln!(out, "static void sevsim_init_kvm(struct kvm *kvm)\n{{\n{}}}\n", init("kvm->", fields.0));
    let _ = writeln!(
        out,
        "static void sevsim_init_vcpu(struct kvm_vcpu *vcpu, struct kvm *kvm, int idx)\n{{\n{}\tvcpu->kvm = kvm;\n\tvcpu->vcpu_idx = idx;\n}}\n",
        init("vcpu->", fields.1)
    );
    let reset: String = globals.iter().map(|(decl, per_cpu)| reset(&text.text, decl, *per_cpu)).collect();
    let cpu = if globals.iter().any(|g| g.1) { "\tint cpu;\n\n" } else { "" };
    let _ = writeln!(out, "static void sevsim_reset(void)\n{{\n{cpu}{reset}}}\n");
    let _ = writeln!(out, "static const char sevsim_text[] =\n{};\n", lines(&text.text));
    for f in policy.functions() {
        let _ = writeln!(out, "#undef {}", f.name.name);
    }
    let _ = writeln!(out, "\nconst struct sevsim_policy sevsim_policy_{number} = {{");
    let _ = writeln!(out, "\t.name = {},", literal(&text.name));
    out.push_str("\t.text = sevsim_text,\n\t.text_len = sizeof(sevsim_text) - 1,\n");
    out.push_str("\t.kvm_size = sizeof(struct kvm),\n\t.vcpu_size = sizeof(struct kvm_vcpu),\n");
    out.push_str(
        "\t.reset = sevsim_reset,\n\t.init_kvm = sevsim_init_kvm,\n\t.init_vcpu = sevsim_init_vcpu,\n",
    );
    for hook in admit::hooks().filter(|h| policy.functions().any(|f| f.name.name == *h)) {
        let _ = writeln!(out, "\t.{hook} = SEVSIM_OF({number}, {hook}),");
    }
    out.push_str("};\n");
    Ok(out)
}

/// The table of policies.
pub(crate) fn table_file(policies: usize) -> String {
    let mut out = String::from("// SPDX-License-Identifier: GPL-2.0\n/* Written by `sevsim module`. */\n");
    out.push_str("#include <linux/stddef.h>\n\n#include \"internal.h\"\n\n");
    for n in 0..policies {
        let _ = writeln!(out, "extern const struct sevsim_policy sevsim_policy_{n};");
    }
    out.push_str("\nconst struct sevsim_policy *const sevsim_policies[] = {\n");
    for n in 0..policies {
        let _ = writeln!(out, "\t&sevsim_policy_{n},");
    }
    let _ = writeln!(out, "\tNULL,\n}};\n\nconst unsigned int sevsim_nr_policies = {policies};");
    out
}

/// Policies of one module may use a name twice, and names that the kernel has.
fn rename(out: &mut String, number: usize, name: &str) {
    let _ = writeln!(out, "#define {name} SEVSIM_OF({number}, {name})");
}

fn at(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// One past the opening brace of a structure.
fn brace_of(text: &str, item: &Item) -> usize {
    let start = at(item.span.start);
    text.get(start..).and_then(|t| t.find('{')).map_or(start, |n| start + n + 1)
}

/// Takes what a declaration starts as out of it: ` = -1`.
fn without_initialiser(text: &str, decl: &Decl) -> Option<(usize, usize, String)> {
    let init = decl.init.as_ref()?;
    let (from, to) = (at(decl.name.span.end), at(init.span.end));
    let equals = text.get(from..at(init.span.start))?.rfind('=')?;
    Some((from + equals, to, String::new()))
}

/// What is put into a function's loops, so that none goes on for ever: what they wait for may never come. Loops over pCPUs end by
/// themselves.
fn bounds(text: &str, body: &Block) -> Vec<(usize, usize, String)> {
    let mut edits = Vec::new();
    let mut labels = Vec::new();
    let mut gotos = Vec::new();
    let mut todo: Vec<&Stmt> = body.stmts.iter().collect();
    while let Some(stmt) = todo.pop() {
        if let StmtKind::While { body, .. } | StmtKind::DoWhile { body, .. } | StmtKind::For { body, .. } =
            &stmt.kind
        {
            edits.extend(bound(text, body));
        }
        if let StmtKind::Label(label) = &stmt.kind {
            labels.push((label.name.as_str(), stmt.span.start));
        }
        if let StmtKind::Goto(label) = &stmt.kind {
            gotos.push((label.name.as_str(), stmt.span.start));
        }
        todo.extend(stmt.kind.blocks().flat_map(|block| &block.stmts));
    }
    for (label, from) in gotos {
        if labels.iter().any(|(name, to)| *name == label && *to < from) {
            // No `if`, which an `else` behind it would take for its own.
            edits.push((at(from), at(from), String::from("for (; sevsim_goes_on(); ) ")));
        }
    }
    edits
}

/// What is put into the body of a loop.
fn bound(text: &str, body: &Block) -> Option<(usize, usize, String)> {
    let start = body.span.start;
    // A `scoped_guard` is a loop that runs once.
    if let Some(Stmt { kind: StmtKind::Guard { .. }, span }) = body.stmts.first()
        && span.start == start
    {
        return None;
    }
    let (start, braced) = (at(start), text.get(at(start)..)?.starts_with('{'));
    let check = "if (!sevsim_goes_on()) break;";
    Some(match braced {
        true => (start + 1, start + 1, format!(" {check}")),
        false => (start, start, format!("{check} else ")),
    })
}

fn edited(text: &str, edits: &[(usize, usize, String)]) -> String {
    let (mut out, mut done) = (String::new(), 0);
    for (from, to, with) in edits {
        out.push_str(text.get(done..*from).unwrap_or(""));
        out.push_str(with);
        done = *to;
    }
    out.push_str(text.get(done..).unwrap_or(""));
    out
}

/// What a declaration starts as, in the words of its text.
fn initial<'t>(text: &'t str, decl: &Decl) -> Option<&'t str> {
    let init = decl.init.as_ref()?;
    text.get(at(init.span.start)..at(init.span.end))
}

/// The statement that gives a field of fresh, zeroed memory what it starts as.
fn initialised(text: &str, of: &str, decl: &Decl) -> String {
    let name = format!("{of}{}", decl.name.name);
    let one = |name: &str| {
        if let Type::Lock(kind) = &decl.ty {
            let call = match kind {
                LockType::Mutex => "mutex_init",
                LockType::Spin => "spin_lock_init",
                LockType::Rwlock => "rwlock_init",
                LockType::Rwsem => "init_rwsem",
                LockType::Completion => "init_completion",
            };
            return Some(format!("{call}(&{name});"));
        }
        let value = initial(text, decl)?;
        Some(if decl.ty == Type::Atomic {
            format!("atomic_set(&{name}, {value});")
        } else {
            format!("{name} = {value};")
        })
    };
    if decl.array.is_none() {
        return one(&name).map_or(String::new(), |s| format!("\t{s}\n"));
    }
    let element = one(&format!("{name}[n]"));
    element.map_or(String::new(), |s| format!("\tfor (int n = 0; n < ARRAY_SIZE({name}); n++)\n\t\t{s}\n"))
}

/// The statements that give a global what it starts as, again for each session.
fn reset(text: &str, decl: &Decl, per_cpu: bool) -> String {
    let name = &decl.name.name;
    if matches!(decl.ty, Type::Lock(_)) {
        return String::new();
    }
    if !per_cpu {
        return format!("\tmemset(&{name}, 0, sizeof({name}));\n{}", initialised(text, "", decl));
    }
    let init = initial(text, decl).map_or(String::new(), |v| format!("\t\tper_cpu({name}, cpu) = {v};\n"));
    format!(
        "\tfor_each_possible_cpu(cpu) {{\n\t\tmemset(per_cpu_ptr(&{name}, cpu), 0, sizeof({name}));\n{init}\t}}\n"
    )
}

/// A text as C's string literal.
fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' if byte != b'?' => out.push(char::from(byte)),
            // Three octal digits end by themselves; `?` could begin a trigraph.
            _ => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out.push('"');
    out
}

/// A text as C's string literals, a line each.
fn lines(text: &str) -> String {
    let lines: Vec<String> = text.split_inclusive('\n').map(|l| format!("\t{}", literal(l))).collect();
    lines.join("\n")
}
