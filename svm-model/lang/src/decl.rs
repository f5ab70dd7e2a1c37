//! What the texts declare: constants, variables, functions, hooks. All texts share one space of names.

use std::collections::BTreeMap;

use svm_policy::Scope;

use crate::ast::{Decl, Each, Expr, Function, Ident, ItemKind, LockType, Object, Span, Type};
use crate::builtin;
use crate::constant::{KERNEL_CONSTANTS, evaluate};
use crate::diag::{Fault, NO_DEFINE, NO_HOOK, nearest};
use crate::include::Texts;
use crate::kernel::instead_of;
use crate::machine::Machine;
use crate::{Config, Role, VarKind};

/// A declared variable.
#[derive(Clone, Debug)]
pub(crate) struct VarDef {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) ty: Type,
    pub(crate) kind: VarKind,
    /// Elements of an array.
    pub(crate) array: Option<u16>,
    /// Words of a mask, elements of an array, else 1.
    pub(crate) words: u16,
    /// What its type, or the width of the bit-field, allows.
    pub(crate) range: (i64, i64),
    pub(crate) init: i64,
    pub(crate) span: Span,
}

/// A name at top level.
#[derive(Clone, Debug)]
pub(crate) enum Global {
    Const { value: i64, ty: Type },
    Var(u16),
    Func(usize),
}

/// A function of the texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Func<'p> {
    /// The definition, or the prototype of an empty hook.
    pub(crate) head: &'p Function,
    pub(crate) role: Role,
    pub(crate) has_body: bool,
}

/// A structure that texts allocate objects of.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) count: u16,
    /// The variable that says of each object whether it is there.
    pub(crate) state: u16,
}

/// All texts together.
#[derive(Debug)]
pub(crate) struct Program<'p> {
    pub(crate) machine: Machine,
    pub(crate) globals: BTreeMap<&'p str, Global>,
    pub(crate) vars: Vec<VarDef>,
    pub(crate) fields: BTreeMap<(Object, &'p str), u16>,
    pub(crate) funcs: Vec<Func<'p>>,
    /// Ranges of the enumerations.
    pub(crate) enums: BTreeMap<&'p str, (i64, i64)>,
    /// The names of their values.
    pub(crate) enum_names: BTreeMap<&'p str, Vec<(i64, String)>>,
    /// The declared structures, in the order of their numbers.
    pub(crate) pools: Vec<Pool>,
    /// Whether a definition differs from its prototype: calls of it would only give more errors.
    pub(crate) differs: bool,
}

struct Collector<'p, 'f> {
    program: Program<'p>,
    places: BTreeMap<&'p str, Span>,
    texts: &'p Texts,
    faults: &'f mut Vec<Fault>,
    protos: BTreeMap<&'p str, Vec<(&'p Function, Role)>>,
    /// Each definition of a name; a text may redefine what it includes.
    defs: BTreeMap<&'p str, Vec<(&'p Function, Role)>>,
    order: Vec<&'p str>,
    /// Whether more variables than there can be have been reported.
    full: bool,
}

/// Names that mean something of their own.
pub(crate) const POSSIBLE_MASK: &str = "cpu_possible_mask";
pub(crate) const ONLINE_MASK: &str = "cpu_online_mask";

/// What a kernel text says to those who choose its VMs: the newest kind that its era knows, and whether VMs can mirror others.
const ABOUT_VMS: [&str; 2] = ["KVM_LAST_VM_TYPE", "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM"];

/// Collects the declarations of all texts.
pub(crate) fn collect<'p>(
    texts: &'p Texts,
    config: &'p Config,
    machine: Machine,
    faults: &mut Vec<Fault>,
) -> Program<'p> {
    let program = Program {
        machine,
        globals: BTreeMap::new(),
        vars: Vec::new(),
        fields: BTreeMap::new(),
        funcs: Vec::new(),
        enums: BTreeMap::new(),
        enum_names: BTreeMap::new(),
        pools: Vec::new(),
        differs: false,
    };
    let mut c = Collector {
        program,
        places: BTreeMap::new(),
        texts,
        faults,
        protos: BTreeMap::new(),
        defs: BTreeMap::new(),
        order: Vec::new(),
        full: false,
    };
    c.program.globals.insert(
        "nr_cpu_ids",
        Global::Const { value: c.program.machine.pcpus, ty: c.program.machine.cpu_type() },
    );
    c.program.globals.insert(
        "nr_asids",
        Global::Const { value: c.program.machine.asids, ty: c.program.machine.cpu_type() },
    );
    c.program.globals.insert(
        "nr_pages",
        Global::Const { value: c.program.machine.pages, ty: c.program.machine.cpu_type() },
    );
    for (name, value) in KERNEL_CONSTANTS {
        c.program.globals.insert(name, Global::Const { value, ty: c.program.machine.cpu_type() });
    }
    for (name, ty, value) in &config.constants {
        c.program.globals.insert(name, Global::Const { value: *value, ty: ty.clone() });
    }
    let items = texts.items();
    let mut defines: BTreeMap<&str, Vec<(&Ident, &Expr)>> = BTreeMap::new();
    for (item, _) in &items {
        if let ItemKind::Define { name, value } = &item.kind {
            defines.entry(&name.name).or_default().push((name, value));
        }
    }
    for (name, _) in &config.defines {
        if !defines.contains_key(name.as_str()) {
            let help = nearest(name, defines.keys().copied());
            let help = help.unwrap_or_else(|| "a value can be given for a `#define` only".to_owned());
            c.fault(Fault::nowhere(format!("{NO_DEFINE}{name}`")).help(help));
        }
    }
    let words = texts.words();
    let mut by_file: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for (name, there) in &defines {
        by_file.entry(there[0].0.span.file).or_default().push(name);
    }
    for (name, all) in &defines {
        if ABOUT_VMS.contains(name) || words.get(name).is_some_and(|mentions| *mentions > all.len()) {
            continue;
        }
        // Nobody uses it. That is an error if it looks like another text's, whose switch was meant.
        let span = all[0].0.span;
        let others = by_file.iter().filter(|(file, _)| **file != span.file);
        if let Some(near) = nearest(name, others.flat_map(|(_, names)| names.iter().copied())) {
            let fault = Fault::at(span, format!("no text uses `{name}`"));
            c.fault(fault.expected("a `#define` that changes nothing").help(near));
        }
    }
    // Constants and enumerations first, in order of the texts: what declares variables may use them all.
    for (item, _) in &items {
        match &item.kind {
            ItemKind::Define { name, value } => {
                // The one that counts stands where the first stands, once.
                let all = defines.get(name.name.as_str()).map_or(&[][..], Vec::as_slice);
                let first = all.first().is_none_or(|(first, _)| std::ptr::eq(*first, name));
                let (name, value) = match texts.outermost(all.iter().map(|(name, _)| name.span.file)) {
                    Some(_) if !first => continue,
                    Some(at) => all[at],
                    None => (name, value),
                };
                let (said, ty) = c.constant(value).unwrap_or((0, Type::Opaque));
                let given = config.defines.iter().rev().find(|(given, _)| *given == name.name);
                c.global(name, Global::Const { value: given.map_or(said, |given| given.1), ty });
            }
            ItemKind::Enum { name, values } => c.enumeration(name.as_ref(), values),
            ItemKind::Global { is_const: true, decl, .. } => c.constant_variable(decl),
            ItemKind::Include(_)
            | ItemKind::Struct { .. }
            | ItemKind::Per { .. }
            | ItemKind::Global { .. }
            | ItemKind::Lock { .. }
            | ItemKind::Objects { .. }
            | ItemKind::Function(_) => {}
        }
    }
    for (item, _) in &items {
        if let ItemKind::Objects { name, count } = &item.kind {
            c.objects(name, count);
        }
    }
    for (item, role) in items {
        match &item.kind {
            ItemKind::Include(_)
            | ItemKind::Define { .. }
            | ItemKind::Enum { .. }
            | ItemKind::Objects { .. } => {}
            ItemKind::Struct { object, fields } => {
                for field in fields {
                    c.field(object, field);
                }
            }
            ItemKind::Per { each: Each::Cpu, decl } => c.global_var(decl, Scope::PerCpu),
            ItemKind::Per { each: Each::Asid, decl } => c.global_var(decl, Scope::PerAsid),
            ItemKind::Global { is_const: true, .. } => {}
            ItemKind::Global { decl, .. } => c.global_var(decl, Scope::Global),
            ItemKind::Lock { kind, name } => c.lock(*kind, name),
            ItemKind::Function(function) => c.function(function, role),
        }
    }
    c.link();
    c.program
}

impl<'p> Collector<'p, '_> {
    fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    fn global(&mut self, name: &'p Ident, global: Global) {
        if builtin::find(&name.name).is_some() || name.name == POSSIBLE_MASK {
            self.fault(
                Fault::at(name.span, format!("`{}` is built in", name.name)).help("give it another name"),
            );
            return;
        }
        let kernels = KERNEL_CONSTANTS.iter().any(|(n, _)| *n == name.name);
        let declared = self.places.contains_key(name.name.as_str());
        if self.program.globals.contains_key(name.name.as_str()) && (declared || !kernels) {
            let help = if declared {
                "all texts share one space of names: rename one of the two"
            } else {
                "the scenario, or the language itself, defines this name"
            };
            self.fault(Fault::at(name.span, format!("`{}` is declared twice", name.name)).help(help));
            return;
        }
        self.places.insert(&name.name, name.span);
        self.program.globals.insert(&name.name, global);
    }

    fn enumeration(&mut self, name: Option<&'p Ident>, values: &'p [(Ident, Option<Expr>)]) {
        let mut next = 0i64;
        let (mut lo, mut hi) = (0, 0);
        let mut names = Vec::new();
        for (constant, value) in values {
            if let Some(value) = value {
                next = self.constant(value).map_or(next, |(v, _)| v);
            }
            (lo, hi) = (lo.min(next), hi.max(next));
            names.push((next, constant.name.clone()));
            self.global(constant, Global::Const { value: next, ty: Type::Int(crate::ast::IntType::Int) });
            next = next.wrapping_add(1);
        }
        if let Some(name) = name {
            self.program.enum_names.insert(&name.name, names);
        }
        if let Some(name) = name
            && self.program.enums.insert(&name.name, (lo, hi)).is_some()
        {
            self.fault(Fault::at(name.span, format!("`enum {}` is declared twice", name.name)));
        }
    }

    /// `DEFINE_OBJECTS(struct name, count);`
    fn objects(&mut self, name: &'p Ident, count: &'p Expr) {
        let n = self.constant(count).map_or(1, |(n, _)| n);
        let number = self.program.pools.len();
        let Ok(pool) = u8::try_from(number) else {
            self.fault(Fault::at(name.span, "too many structures of `DEFINE_OBJECTS`"));
            return;
        };
        // What is wrong with the number is said once, and the structure is there.
        let count = u16::try_from(n).ok().filter(|n| (1..=64).contains(n)).unwrap_or_else(|| {
            let fault = Fault::at(count.span, format!("{n} objects of `struct {}`", name.name));
            self.fault(fault.expected("expected 1 to 64"));
            1
        });
        let built_in = crate::parse::STRUCTS.contains(&name.name.as_str());
        if built_in || self.program.pools.iter().any(|p| p.name == name.name) {
            let what = if built_in { "is built in" } else { "is declared twice" };
            self.fault(Fault::at(name.span, format!("`struct {}` {what}", name.name)));
            return;
        }
        let state = self.add_var(VarDef {
            name: "state".to_owned(),
            scope: Scope::PerObject(pool),
            ty: Type::Int(crate::ast::IntType::U8),
            kind: VarKind::Int,
            array: None,
            words: 1,
            range: (crate::MASK_NULL, crate::MASK_FREED),
            init: crate::MASK_NULL,
            span: name.span,
        });
        let Some(state) = state else { return };
        self.program.machine.pools.insert(name.name.clone(), i64::from(count));
        self.program.pools.push(Pool { name: name.name.clone(), count, state });
    }

    /// Reports a type that no text declares.
    fn known(&mut self, ty: &Type, span: Span) -> bool {
        match self.program.unknown(ty, span) {
            Some(fault) => self.fault(fault),
            None => return true,
        }
        false
    }

    /// `static const int name = value;`
    fn constant_variable(&mut self, decl: &'p Decl) {
        match (&decl.init, &decl.array) {
            (Some(value), None) => {
                let (value, _) = self.constant(value).unwrap_or((0, Type::Opaque));
                self.global(&decl.name, Global::Const { value, ty: decl.ty.clone() });
            }
            _ => self.fault(
                Fault::at(decl.name.span, format!("`{}` is constant", decl.name.name))
                    .expected("expected a number that it is"),
            ),
        }
    }

    fn constant(&mut self, expr: &Expr) -> Option<(i64, Type)> {
        match evaluate(&self.program, expr, 0) {
            Ok(found) => Some(found),
            Err(fault) => {
                self.fault(fault);
                None
            }
        }
    }

    fn variable(&mut self, decl: &Decl, scope: Scope) -> Option<VarDef> {
        let mask_words = u16::from(self.program.machine.mask_words);
        if !self.known(&decl.ty, decl.name.span) {
            return None;
        }
        let mut range = self.program.range(&decl.ty);
        let kind = match &decl.ty {
            Type::Bool => VarKind::Bool,
            Type::Int(_) | Type::Atomic | Type::Enum(_) | Type::Opaque => VarKind::Int,
            Type::Ref(_) => VarKind::Ref(decl.ty.clone()),
            Type::Mask | Type::MaskVar => VarKind::Mask,
            Type::Lock(LockType::Mutex) => VarKind::Mutex,
            Type::Lock(LockType::Spin) => VarKind::Spin,
            Type::Lock(LockType::Rwlock) => VarKind::Rwlock,
            Type::Lock(LockType::Rwsem) => VarKind::Rwsem,
            Type::Lock(LockType::Completion) => VarKind::Completion,
            Type::Void | Type::MaskPtr | Type::LockPtr(_) | Type::Func => {
                let fault = Fault::at(decl.name.span, format!("a variable cannot be a `{}`", decl.ty))
                    .expected("only parameters and locals can")
                    .help("declare the mask or lock itself, or pass it on as a parameter");
                self.fault(fault);
                return None;
            }
        };
        let plain = matches!(kind, VarKind::Bool | VarKind::Int | VarKind::Ref(_));
        if let Some(bits) = &decl.bits {
            let span = bits.span;
            let width = self.constant(bits).map_or(1, |(n, _)| n);
            let most = crate::machine::width_of(range);
            if !matches!(decl.ty, Type::Bool | Type::Int(_) | Type::Enum(_)) {
                self.fault(Fault::at(span, "only numbers have bit-fields"));
            } else if !(1..=63).contains(&width) {
                self.fault(
                    Fault::at(span, format!("a bit-field of {width} bits")).expected("expected 1 to 63"),
                );
            } else if decl.ty != Type::Bool || width > i64::from(most) {
                range = crate::machine::range_of_bits(width.unsigned_abs(), range.0 < 0);
            }
        }
        let array = match &decl.array {
            None => None,
            Some(len) => {
                let span = len.span;
                let n = self.constant(len).map_or(1, |(n, _)| n);
                match u16::try_from(n) {
                    Ok(1..=1024) if decl.ty == Type::MaskVar => {
                        let fault = Fault::at(span, "an array of masks that are allocated");
                        self.fault(fault.expected("expected an array of `cpumask_t`"));
                        return None;
                    }
                    Ok(n @ 1..=1024) => Some(n),
                    Ok(_) | Err(_) => {
                        self.fault(
                            Fault::at(span, format!("an array of {n} elements"))
                                .expected("expected 1 to 1024"),
                        );
                        return None;
                    }
                }
            }
        };
        let mut init = match kind {
            VarKind::Ref(_) => -1,
            VarKind::Int if decl.ty == Type::Opaque => -1,
            VarKind::Int
            | VarKind::Bool
            | VarKind::Mask
            | VarKind::Mutex
            | VarKind::Spin
            | VarKind::Rwlock
            | VarKind::Rwsem
            | VarKind::Completion => 0,
        };
        if let Some(value) = &decl.init {
            if plain {
                if let Some((v, ty)) = self.constant(value) {
                    init = v;
                    let nothing = ty == Type::Opaque;
                    let fits = range.0 <= init && init <= range.1;
                    let is_ref = matches!(decl.ty, Type::Ref(_));
                    if !fits || is_ref && ty != decl.ty && !nothing || !is_ref && matches!(ty, Type::Ref(_)) {
                        let fault =
                            Fault::at(value.span, format!("`{}` cannot start as `{value}`", decl.name.name));
                        self.fault(fault.expected(format!(
                            "expected a `{}`{}",
                            decl.ty,
                            if is_ref {
                                " or `NULL`".to_owned()
                            } else {
                                format!(" from {} to {}", range.0, range.1)
                            }
                        )));
                        init = range.0.max(0).min(range.1);
                    }
                }
            } else {
                self.fault(
                    Fault::at(value.span, "masks start empty and locks free")
                        .expected("unexpected initialiser"),
                );
            }
        }
        let words = if kind == VarKind::Mask { mask_words } else { 1 } * array.unwrap_or(1);
        Some(VarDef {
            name: decl.name.name.clone(),
            scope,
            ty: decl.ty.clone(),
            kind,
            array,
            words,
            range,
            init,
            span: decl.name.span,
        })
    }

    fn add_var(&mut self, var: VarDef) -> Option<u16> {
        let Ok(id) = u16::try_from(self.program.vars.len()) else {
            if !self.full {
                self.full = true;
                self.fault(Fault::at(var.span, "more than 65536 variables"));
            }
            return None;
        };
        self.program.vars.push(var);
        Some(id)
    }

    fn field(&mut self, object: &Object, decl: &'p Decl) {
        let scope = match object {
            Object::Vm => Scope::PerVm,
            Object::Vcpu => Scope::PerVcpu,
            Object::Page => Scope::PerPage,
            Object::Pool(name) => {
                let number = self.program.pools.iter().position(|p| p.name == *name);
                let Some(number) = number.and_then(|n| u8::try_from(n).ok()) else {
                    let fault =
                        Fault::at(decl.name.span, format!("no text says how many `{object}` there can be"));
                    self.fault(fault.help(format!(
                        "declare them: `DEFINE_OBJECTS({object}, 2);`, or put the field into `struct kvm`"
                    )));
                    return;
                };
                Scope::PerObject(number)
            }
        };
        let name = decl.name.name.as_str();
        let fixed = *object == Object::Vcpu && (name == "kvm" || name == "vcpu_idx");
        if fixed || self.program.fields.contains_key(&(object.clone(), name)) {
            let mut fault = Fault::at(decl.name.span, format!("`{object}` has a field `{name}` already"));
            fault = fault.help(if fixed {
                "this one is built in"
            } else {
                "any text may add fields; rename one of the two"
            });
            self.fault(fault);
            return;
        }
        if let Some(var) = self.variable(decl, scope)
            && let Some(id) = self.add_var(var)
        {
            self.program.fields.insert((object.clone(), name), id);
        }
    }

    fn global_var(&mut self, decl: &'p Decl, scope: Scope) {
        if decl.name.name == ONLINE_MASK
            && (scope != Scope::Global || decl.ty != Type::Mask || decl.array.is_some())
        {
            self.fault(
                Fault::at(decl.name.span, "`cpu_online_mask` is one global mask")
                    .expected("expected `cpumask_t`"),
            );
            return;
        }
        if let Some(mut var) = self.variable(decl, scope) {
            if var.name == ONLINE_MASK {
                var.init = -1;
            }
            let Some(id) = self.add_var(var) else { return };
            self.global(&decl.name, Global::Var(id));
        }
    }

    fn lock(&mut self, kind: LockType, name: &'p Ident) {
        let decl = Decl { ty: Type::Lock(kind), name: name.clone(), array: None, bits: None, init: None };
        if let Some(var) = self.variable(&decl, Scope::Global)
            && let Some(id) = self.add_var(var)
        {
            self.global(name, Global::Var(id));
        }
    }

    fn function(&mut self, function: &'p Function, role: Role) {
        let name = function.name.name.as_str();
        if !self.protos.contains_key(name) && !self.defs.contains_key(name) {
            self.order.push(name);
        }
        for ty in function.params.iter().map(|p| &p.ty).chain([&function.result]) {
            self.known(ty, function.name.span);
        }
        for param in &function.params {
            if matches!(param.ty, Type::Void | Type::Mask | Type::Lock(_) | Type::Atomic) {
                let fault = Fault::at(param.name.span, format!("a parameter cannot be a `{}`", param.ty));
                self.fault(
                    fault
                        .expected("expected a pointer to it")
                        .help("masks and locks are passed by reference"),
                );
            }
        }
        let result = &function.result;
        if !matches!(
            result,
            Type::Void | Type::Bool | Type::Int(_) | Type::Enum(_) | Type::Ref(_) | Type::Opaque
        ) {
            self.fault(Fault::at(function.name.span, format!("a function cannot return a `{result}`")));
        }
        if function.body.is_none() {
            self.protos.entry(name).or_default().push((function, role));
        } else {
            self.defs.entry(name).or_default().push((function, role));
        }
    }

    /// The definition of a name that counts; the others, which it replaces, tell what it must look like.
    fn pick(
        &mut self,
        name: &'p str,
        defs: &[(&'p Function, Role)],
    ) -> Option<((&'p Function, Role), Vec<&'p Function>)> {
        let counts = self.texts.outermost(defs.iter().map(|(f, _)| f.name.span.file));
        if counts.is_none()
            && let Some((last, _)) = defs.last()
        {
            let of = |role| defs.iter().find(|(_, r)| *r == role).map(|(f, _)| f.name.span);
            let fault = match (of(Role::Kernel), of(Role::Policy)) {
                (Some(kernel), Some(policy)) => {
                    let file = &self.texts.list[usize::from(kernel.file)].file;
                    Fault::at(policy, format!("`{name}` {NO_HOOK}: `{file}` defines it itself"))
                        .help("no site of that kernel asks the policy: take another kernel, or a policy without it")
                }
                _ => Fault::at(last.name.span, format!("`{name}` is defined twice")).help(
                    "all texts share one space of names: rename one of the two, or let one text include the other",
                ),
            };
            self.fault(fault);
        }
        let counts = counts.unwrap_or(0);
        let others = defs.iter().enumerate().filter(|(at, _)| *at != counts).map(|(_, (f, _))| *f);
        defs.get(counts).map(|def| (*def, others.collect()))
    }

    /// Brings prototypes and definitions together.
    fn link(&mut self) {
        let defs = std::mem::take(&mut self.defs);
        let protos = std::mem::take(&mut self.protos);
        let from_kernel = |name: &str| {
            protos.get(name).is_some_and(|list| list.iter().any(|(_, role)| *role == Role::Kernel))
        };
        let kernel_defines = |name: &str| {
            defs.get(name).is_some_and(|list| list.iter().any(|(_, role)| *role == Role::Kernel))
        };
        let hooks: Vec<&str> =
            protos.keys().copied().filter(|name| from_kernel(name) && !kernel_defines(name)).collect();
        for name in std::mem::take(&mut self.order) {
            let picked = defs.get(name).and_then(|list| self.pick(name, list));
            let (def, replaced) = match picked {
                Some((def, replaced)) => (Some(def), replaced),
                None => (None, Vec::new()),
            };
            if let Some((function, Role::Policy)) = def {
                let place = function.name.span;
                if !function.is_static && !hooks.contains(&name) {
                    let fault = Fault::at(place, format!("no kernel text calls `{name}`"))
                        .expected("a policy defines hooks, and `static` functions of its own")
                        .help(match nearest(name, &hooks) {
                            Some(near) => format!("{near} The hooks are: {}", list(&hooks)),
                            None if hooks.is_empty() => {
                                "the kernel text has no hook at all: is it whole? It can include one, as `#include \"linux-6.17.c\"`".to_owned()
                            }
                            None => format!("make it `static`, or define a hook: {}", list(&hooks)),
                        });
                    self.fault(fault);
                }
                if function.is_static && hooks.contains(&name) {
                    let fault =
                        Fault::at(place, format!("the hook `{name}` is `static`: the kernel cannot call it"));
                    self.fault(fault.help("leave `static` out"));
                }
            }
            let list = protos.get(name).map_or(&[][..], Vec::as_slice);
            let (head, role, has_body) = match (def, list.first()) {
                (Some((f, role)), _) => (f, role, true),
                (None, Some((f, role))) => (*f, *role, false),
                (None, None) => continue,
            };
            let protos = list.iter().map(|(proto, _)| (*proto, "its prototype"));
            for (proto, what) in protos.chain(replaced.iter().map(|f| (*f, "what it replaces"))) {
                let same = proto.result == head.result
                    && proto.params.len() == head.params.len()
                    && proto.params.iter().zip(&head.params).all(|(a, b)| same_param(&a.ty, &b.ty));
                if !same {
                    let fault = Fault::at(head.name.span, format!("`{name}` differs from {what}"))
                        .expected(format!("expected `{proto}`"));
                    self.fault(fault);
                    self.program.differs = true;
                }
            }
            if !has_body && !from_kernel(name) {
                let fault = Fault::at(head.name.span, format!("`{name}` is declared, but never defined"));
                self.fault(fault.help("only a prototype in a kernel text is a hook, which may stay empty"));
            }
            let id = self.program.funcs.len();
            self.program.funcs.push(Func { head, role, has_body });
            self.global(&head.name, Global::Func(id));
        }
    }
}

/// `cpumask_var_t` and `struct cpumask *` are one type for a parameter.
fn same_param(a: &Type, b: &Type) -> bool {
    let mask = |t: &Type| matches!(t, Type::MaskPtr | Type::MaskVar);
    a == b || mask(a) && mask(b)
}

fn list(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

impl Program<'_> {
    /// The values of a type.
    pub(crate) fn range(&self, ty: &Type) -> (i64, i64) {
        match ty {
            Type::Enum(name) => {
                let (lo, hi) = self.enums.get(name.as_str()).copied().unwrap_or((0, 0));
                self.machine.at_least_int(lo, hi)
            }
            Type::Void
            | Type::Bool
            | Type::Int(_)
            | Type::Atomic
            | Type::Ref(_)
            | Type::Mask
            | Type::MaskVar
            | Type::MaskPtr
            | Type::Lock(_)
            | Type::LockPtr(_)
            | Type::Func
            | Type::Opaque => self.machine.range(ty),
        }
    }

    /// What is wrong with a type that no text declares.
    pub(crate) fn unknown(&self, ty: &Type, span: Span) -> Option<Fault> {
        if let Type::Enum(name) = ty
            && !self.enums.contains_key(name.as_str())
        {
            let help = nearest(name, self.enums.keys());
            return Some(Fault::at(span, format!("unknown `enum {name}`")).help_if(help));
        }
        if let Type::Ref(Object::Pool(name)) = ty
            && !self.pools.iter().any(|p| p.name == *name)
        {
            let known = crate::parse::STRUCTS.into_iter().chain(self.pools.iter().map(|p| p.name.as_str()));
            let help = instead_of(name).or_else(|| nearest(name, known.clone()));
            let fault = Fault::at(span, format!("unknown `struct {name}`"));
            let fault = fault.expected(format!("expected one of {}", known.collect::<Vec<_>>().join(", ")));
            return Some(fault.help_if(help));
        }
        None
    }

    /// The declared structure whose objects a variable has instances for.
    pub(crate) fn pool_of(&self, scope: Scope) -> Option<&Pool> {
        if let Scope::PerObject(pool) = scope { self.pools.get(usize::from(pool)) } else { None }
    }

    /// The names of an enumeration's values; none of another type.
    pub(crate) fn names_of(&self, ty: &Type) -> Vec<(i64, String)> {
        let names = if let Type::Enum(name) = ty { self.enum_names.get(name.as_str()) } else { None };
        names.cloned().unwrap_or_default()
    }

    /// Whether the values of a type are numbers (not references, masks or locks).
    pub(crate) fn is_number(ty: &Type) -> bool {
        matches!(ty, Type::Bool | Type::Int(_) | Type::Atomic | Type::Enum(_))
    }
}
