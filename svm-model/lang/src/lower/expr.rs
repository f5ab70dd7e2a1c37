//! Expressions: evaluated from left to right, each read of a shared variable one load.

use svm_policy::{BinOp, Scope, UnOp};

use super::{Lower, Lowered, MaskRef, Target, Value};
use crate::ast::{Expr, ExprKind, Ident, Infix, IntType, Object, Prefix, Span, Type};
use crate::builtin::{self, Act};
use crate::decl::{Global, ONLINE_MASK, POSSIBLE_MASK, Program};
use crate::diag::Fault;
use crate::ir::{B, Calc, Inst, Slot, Val};
use crate::kernel::instead_of;
use crate::machine;

const INT: Type = Type::Int(IntType::Int);

impl<'p> Lower<'p, '_, '_> {
    /// The value of an expression.
    pub(super) fn value(&mut self, e: &'p Expr) -> Lowered<Value> {
        self.deeper(e.span, |l| match &e.kind {
            ExprKind::Int(n) => Ok(Value::Num(Val::Const(*n), INT)),
            ExprKind::Bool(b) => Ok(Value::Num(Val::Const(i64::from(*b)), Type::Bool)),
            ExprKind::Null => Ok(Value::Num(Val::Const(-1), Type::Opaque)),
            ExprKind::Name(_) | ExprKind::Field(..) | ExprKind::Index(..) => {
                let target = l.target(e)?;
                l.read(target, e.span)
            }
            ExprKind::Prefix(op, of) => l.prefix(*op, of, e),
            ExprKind::Infix(Infix::And | Infix::Or, ..) => l.logic(e),
            ExprKind::Infix(op, a, b) => {
                let left = l.number(a)?;
                let right = l.number(b)?;
                let (v, ty) = l.infix(*op, left, right, e.span)?;
                Ok(Value::Num(v, ty))
            }
            ExprKind::Cond(cond, a, b) => l.choose(cond, a, b, e.span),
            ExprKind::Assign(op, to, from) => l.assign(*op, to, from, e.span),
            ExprKind::Step { up, prefix, of } => l.count(*up, *prefix, of, e.span),
            ExprKind::Call { name, args } => l.call(name, args, e.span),
            ExprKind::Cast(ty, of) => l.cast(ty, of, e.span),
        })
    }

    /// The value of an expression that is a number or a reference.
    pub(super) fn number(&mut self, e: &'p Expr) -> Lowered<(Val, Type)> {
        match self.value(e)? {
            Value::Num(v, ty) => Ok((v, ty)),
            other @ (Value::Mask(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing) => {
                let fault = Fault::at(e.span, format!("`{e}` is not a number"))
                    .expected(format!("this is {}", what(&other)));
                self.fail(fault)
            }
        }
    }

    /// What an expression on the left of `=` (or under `&`) means.
    pub(super) fn target(&mut self, e: &'p Expr) -> Lowered<Target> {
        match &e.kind {
            ExprKind::Name(name) => self.name(name, e.span),
            ExprKind::Field(of, field) => self.field(of, field, e.span),
            ExprKind::Index(of, index) => {
                let Target::Array(slot, ty, len) = self.deeper(e.span, |l| l.target(of))? else {
                    return self.fail(Fault::at(of.span, format!("`{of}` is not an array")));
                };
                let (word, index_ty) = self.number(index)?;
                if matches!(index_ty, Type::Ref(_) | Type::Opaque) {
                    return self.fail(
                        Fault::at(index.span, "a reference is not an index").expected("expected a number"),
                    );
                }
                if let Val::Const(n) = word
                    && !(0..i64::from(len)).contains(&n)
                {
                    let fault = Fault::at(index.span, format!("there is no element {n}"));
                    return self.fail(fault.expected(format!("expected 0 to {}", len - 1)));
                }
                if ty == Type::Mask {
                    let words = Val::Const(i64::from(self.p.machine.mask_words));
                    let word = self.bin(BinOp::Mul, word, words, e.span);
                    let mask = MaskRef::Shared(Slot { word, ..slot });
                    return Ok(Target::Value(Value::Mask(mask, Type::Mask)));
                }
                let slot = Slot { word, ..slot };
                if let Type::Lock(kind) = ty {
                    return Ok(Target::Value(Value::Lock(slot, kind, false)));
                }
                Ok(Target::Slot(slot, ty))
            }
            ExprKind::Call { name, args } if per(name).is_some() => {
                let scope = per(name).unwrap_or(Scope::PerCpu);
                self.per(scope, name, args, e.span)
            }
            ExprKind::Int(_)
            | ExprKind::Bool(_)
            | ExprKind::Null
            | ExprKind::Prefix(..)
            | ExprKind::Infix(..)
            | ExprKind::Cond(..)
            | ExprKind::Assign(..)
            | ExprKind::Step { .. }
            | ExprKind::Call { .. }
            | ExprKind::Cast(..) => self.fail(
                Fault::at(e.span, format!("`{e}` is not a variable"))
                    .expected("expected a variable or field"),
            ),
        }
    }

    fn name(&mut self, name: &str, span: Span) -> Lowered<Target> {
        if let Some(binding) = self.local(name) {
            return Ok(binding.target.clone());
        }
        let online = |var| MaskRef::Shared(Slot { var, instance: Val::Const(0), word: Val::Const(0) });
        if name == POSSIBLE_MASK {
            return Ok(Target::Value(Value::Mask(MaskRef::Full, Type::MaskPtr)));
        }
        if name == ONLINE_MASK {
            let mask = match self.p.globals.get(name) {
                Some(Global::Var(var)) => online(*var),
                Some(Global::Const { .. } | Global::Func(_)) | None => MaskRef::Full,
            };
            return Ok(Target::Value(Value::Mask(mask, Type::MaskPtr)));
        }
        match self.p.globals.get(name) {
            Some(Global::Const { value, ty }) => {
                Ok(Target::Value(Value::Num(Val::Const(*value), ty.clone())))
            }
            Some(Global::Func(func)) => Ok(Target::Value(Value::Func(Some(*func)))),
            Some(Global::Var(var)) if self.p.vars[usize::from(*var)].scope == Scope::PerCpu => {
                let fault = Fault::at(span, format!("`{name}` has an instance on each pCPU")).help(format!(
                    "read it with `this_cpu_read({name})` or `per_cpu({name}, cpu)`, write it with `this_cpu_write`"
                ));
                self.fail(fault)
            }
            Some(Global::Var(var)) if self.p.vars[usize::from(*var)].scope == Scope::PerAsid => {
                let fault = Fault::at(span, format!("`{name}` has an instance for each ASID"));
                self.fail(fault.help(format!("read and write it as `per_asid({name}, asid)`")))
            }
            Some(Global::Var(var)) => Ok(self.variable(*var, Val::Const(0))),
            None => {
                let locals = self.scopes.iter().flat_map(|s| s.names.keys().copied());
                let help = instead_of(name)
                    .or_else(|| self.nearest(name, locals.chain(self.p.globals.keys().copied())));
                let fault =
                    Fault::at(span, format!("unknown name `{name}`")).expected("not declared in any text");
                self.fail(fault.help_if(help))
            }
        }
    }

    /// An instance of a declared variable.
    pub(super) fn variable(&self, var: u16, instance: Val) -> Target {
        let def = &self.p.vars[usize::from(var)];
        let slot = Slot { var, instance, word: Val::Const(0) };
        match (&def.ty, def.array) {
            (ty @ (Type::Mask | Type::Lock(_)), Some(len)) => Target::Array(slot, ty.clone(), len),
            (Type::Mask | Type::MaskVar, _) => {
                Target::Value(Value::Mask(MaskRef::Shared(slot), def.ty.clone()))
            }
            (Type::Lock(kind), _) => Target::Value(Value::Lock(slot, *kind, false)),
            (ty, Some(len)) => Target::Array(slot, ty.clone(), len),
            (ty, None) => Target::Slot(slot, ty.clone()),
        }
    }

    fn field(&mut self, of: &'p Expr, field: &Ident, span: Span) -> Lowered<Target> {
        let (instance, ty) = self.number(of)?;
        let Type::Ref(object) = ty else {
            let mut fault = Fault::at(of.span, format!("`{of}` is a `{ty}`, which has no fields"))
                .expected("expected a pointer to `struct kvm`, `struct kvm_vcpu` or `struct page`");
            if ty == Type::Opaque {
                fault = fault.help("assign it to a typed local first: `struct kvm *kvm = info;`");
            }
            return self.fail(fault);
        };
        if object == Object::Vcpu && field.name == "kvm" {
            let (lo, hi) = self.p.machine.vms_of_vcpus();
            let vm = if lo == hi && self.p.machine.vcpus() > 0 {
                Val::Const(lo)
            } else {
                self.calc(Calc::VmOf(instance), span)
            };
            return Ok(Target::Value(Value::Num(vm, Type::Ref(Object::Vm))));
        }
        if object == Object::Vcpu && field.name == "vcpu_idx" {
            return Ok(Target::Value(Value::Num(instance, INT)));
        }
        match self.p.fields.get(&(object.clone(), field.name.as_str())) {
            Some(var) => Ok(self.variable(*var, instance)),
            None => {
                let names: Vec<&str> = self
                    .p
                    .fields
                    .keys()
                    .filter(|(o, _)| *o == object)
                    .map(|(_, name)| *name)
                    .chain(
                        if object == Object::Vcpu { &["kvm", "vcpu_idx"][..] } else { &[] }.iter().copied(),
                    )
                    .collect();
                let help = instead_of(&field.name)
                    .or_else(|| self.nearest(&field.name, &names))
                    .or_else(|| (!names.is_empty()).then(|| format!("its fields are {}", names.join(", "))));
                let fault = Fault::at(field.span, format!("`{object}` has no field `{}`", field.name));
                self.fail(fault.expected("no text declares it").help_if(help))
            }
        }
    }

    /// Reads what a target names; shared variables by a load.
    pub(super) fn read(&mut self, target: Target, span: Span) -> Lowered<Value> {
        match target {
            Target::Reg(reg, ty) => Ok(Value::Num(Val::Reg(reg), ty)),
            Target::Slot(slot, ty) => {
                let v = self.load(slot, span);
                Ok(Value::Num(v, if ty == Type::Atomic { INT } else { ty }))
            }
            Target::Array(..) => {
                self.fail(Fault::at(span, "an array is not a value").expected("expected an element: `[...]`"))
            }
            Target::Value(value) => Ok(value),
        }
    }

    /// Writes to what a target names.
    pub(super) fn write(&mut self, target: Target, v: Val, span: Span) -> Lowered<()> {
        match target {
            Target::Reg(reg, _) => self.set(reg, v, span),
            Target::Slot(slot, _) => self.push(Inst::Store { slot, src: v }, span),
            Target::Array(..) => return self.fail(Fault::at(span, "an array cannot be assigned")),
            Target::Value(Value::Mask(..)) => {
                let fault = Fault::at(span, "masks are not assigned with `=`");
                return self.fail(fault.expected("expected `cpumask_copy(destination, source)`"));
            }
            Target::Value(_) => return self.fail(Fault::at(span, "this cannot be assigned")),
        }
        Ok(())
    }

    /// The type of what a target holds.
    pub(super) fn type_of(target: &Target) -> Type {
        match target {
            Target::Reg(_, ty) | Target::Slot(_, ty) | Target::Array(_, ty, _) => ty.clone(),
            Target::Value(Value::Num(_, ty) | Value::Mask(_, ty)) => ty.clone(),
            Target::Value(Value::Lock(_, kind, true)) => Type::LockPtr(*kind),
            Target::Value(Value::Lock(_, kind, false)) => Type::Lock(*kind),
            Target::Value(Value::Func(_)) => Type::Func,
            Target::Value(Value::Nothing) => Type::Void,
        }
    }

    /// Refuses to write what a loop moves.
    pub(super) fn writable(&mut self, e: &'p Expr) -> Lowered<Target> {
        if let ExprKind::Name(name) = &e.kind
            && self.local(name).is_some_and(|b| b.held)
        {
            let fault = Fault::at(e.span, format!("`{name}` is moved by the loop around"));
            return self
                .fail(fault.expected("cannot be assigned in its body").help("use a variable of its own"));
        }
        self.target(e)
    }

    /// Converts a value to a type, as an assignment does.
    pub(super) fn convert(&mut self, v: Val, from: &Type, to: &Type, span: Span) -> Lowered<Val> {
        let range = self.p.range(to);
        self.convert_to(v, from, to, range, span)
    }

    /// Refuses another number than 0 and 1 that is written out for a `bool`: C would take it for `true`, and whoever wrote it
    /// meant something else. `flags & 4` stays what it is in C.
    pub(super) fn truth_value(&mut self, e: &Expr, v: Val, to: &Type) -> Lowered<()> {
        match v {
            Val::Const(n)
                if *to == Type::Bool
                    && !(0..=1).contains(&n)
                    && matches!(e.kind, ExprKind::Int(_) | ExprKind::Prefix(..)) =>
            {
                self.fail(Fault::at(e.span, format!("{n} does not fit: a `bool` is `true` or `false`")))
            }
            Val::Const(_) | Val::Reg(_) => Ok(()),
        }
    }

    /// Converts a value to what a variable holds: a bit-field is narrower than its type.
    pub(super) fn convert_into(&mut self, v: Val, from: &Type, target: &Target, span: Span) -> Lowered<Val> {
        let to = Self::type_of(target);
        let range = match target {
            Target::Slot(slot, _) => self.p.vars[usize::from(slot.var)].range,
            Target::Reg(..) | Target::Array(..) | Target::Value(_) => self.p.range(&to),
        };
        self.convert_to(v, from, &to, range, span)
    }

    fn convert_to(&mut self, v: Val, from: &Type, to: &Type, range: (i64, i64), span: Span) -> Lowered<Val> {
        let number = Program::is_number;
        match (from, to) {
            (_, Type::Bool) => Ok(self.truth(v, from, span)),
            (Type::Ref(a), Type::Ref(b)) if a == b => Ok(v),
            (Type::Opaque, Type::Ref(_)) | (Type::Ref(_) | Type::Opaque, Type::Opaque) => Ok(v),
            (Type::Bool, _) if number(to) || *to == Type::Opaque => Ok(v),
            (_, _) if (number(from) || *from == Type::Opaque) && (number(to) || *to == Type::Opaque) => {
                let (lo, hi) = range;
                if let Val::Const(n) = v
                    && (n > hi || n < lo && lo < 0)
                    // What unsigned arithmetic came to is cut as any other value.
                    && self.unsigned(from, from).is_none()
                {
                    let fault =
                        Fault::at(span, format!("{n} does not fit: this `{to}` is from {lo} to {hi}"));
                    return self
                        .fail(fault.help("take `u16`, `s16` or larger where larger numbers are needed"));
                }
                Ok(self.calc(Calc::Wrap { of: v, lo, hi }, span))
            }
            _ => {
                let mut fault = Fault::at(span, format!("expected a `{to}`, found a `{from}`"));
                if matches!(to, Type::Ref(_)) && v == Val::Const(0) {
                    fault = fault.help("the null reference is `NULL`");
                }
                self.fail(fault)
            }
        }
    }

    /// 0 or 1: whether a value counts as true.
    pub(super) fn truth(&mut self, v: Val, ty: &Type, span: Span) -> Val {
        match ty {
            Type::Bool => v,
            Type::Ref(_) | Type::Opaque => self.bin(BinOp::Ne, v, Val::Const(-1), span),
            Type::Void
            | Type::Int(_)
            | Type::Atomic
            | Type::Enum(_)
            | Type::Mask
            | Type::MaskVar
            | Type::MaskPtr
            | Type::Lock(_)
            | Type::LockPtr(_)
            | Type::Func => self.bin(BinOp::Ne, v, Val::Const(0), span),
        }
    }

    /// Goes to `then` if the expression is true; what follows is lowered into `next`.
    pub(super) fn cond(&mut self, e: &'p Expr, then: B, otherwise: B, next: B) -> Lowered<()> {
        self.deeper(e.span, |l| match &e.kind {
            ExprKind::Prefix(Prefix::Not, of) => l.cond(of, otherwise, then, next),
            ExprKind::Infix(Infix::And, a, b) => {
                let second = l.new_block();
                l.cond(a, second, otherwise, second)?;
                l.cond(b, then, otherwise, next)
            }
            ExprKind::Infix(Infix::Or, a, b) => {
                let second = l.new_block();
                l.cond(a, then, second, second)?;
                l.cond(b, then, otherwise, next)
            }
            ExprKind::Int(_)
            | ExprKind::Bool(_)
            | ExprKind::Null
            | ExprKind::Name(_)
            | ExprKind::Prefix(..)
            | ExprKind::Infix(..)
            | ExprKind::Cond(..)
            | ExprKind::Assign(..)
            | ExprKind::Step { .. }
            | ExprKind::Call { .. }
            | ExprKind::Field(..)
            | ExprKind::Index(..)
            | ExprKind::Cast(..) => {
                let (v, ty) = l.number(e)?;
                // A branch tells 0 from everything else by itself.
                let v = if matches!(ty, Type::Ref(_) | Type::Opaque) { l.truth(v, &ty, e.span) } else { v };
                l.branch(v, then, otherwise, next, e.span);
                Ok(())
            }
        })
    }

    /// `a && b`, `a || b` as a value.
    fn logic(&mut self, e: &'p Expr) -> Lowered<Value> {
        let result = self.new_reg();
        let (yes, no, after) = (self.new_block(), self.new_block(), self.new_block());
        self.cond(e, yes, no, yes)?;
        self.set(result, Val::Const(1), e.span);
        self.jump(after, no, e.span);
        self.set(result, Val::Const(0), e.span);
        self.jump(after, after, e.span);
        Ok(Value::Num(Val::Reg(result), Type::Bool))
    }

    fn choose(&mut self, cond: &'p Expr, a: &'p Expr, b: &'p Expr, span: Span) -> Lowered<Value> {
        let (yes, no, after) = (self.new_block(), self.new_block(), self.new_block());
        self.cond(cond, yes, no, yes)?;
        let result = self.new_reg();
        let (v, left) = self.number(a)?;
        self.set(result, v, span);
        self.jump(after, no, span);
        let (w, right) = self.number(b)?;
        self.set(result, w, span);
        self.jump(after, after, span);
        let ty = match (&left, &right) {
            (a, b) if a == b => left,
            (Type::Ref(_), Type::Opaque) => left,
            (Type::Opaque, Type::Ref(_)) => right,
            (a, b) if Program::is_number(a) && Program::is_number(b) => INT,
            _ => {
                let fault = Fault::at(span, format!("one side is a `{left}`, the other a `{right}`"));
                return self.fail(fault.expected("expected the same type on both"));
            }
        };
        Ok(Value::Num(Val::Reg(result), ty))
    }

    fn prefix(&mut self, op: Prefix, of: &'p Expr, e: &'p Expr) -> Lowered<Value> {
        let span = e.span;
        match op {
            Prefix::AddressOf => match self.target(of)? {
                Target::Value(Value::Mask(mask, Type::Mask)) => Ok(Value::Mask(mask, Type::MaskPtr)),
                Target::Value(Value::Lock(slot, kind, false)) => Ok(Value::Lock(slot, kind, true)),
                Target::Value(Value::Func(func)) => Ok(Value::Func(func)),
                Target::Value(Value::Mask(..) | Value::Lock(..)) => {
                    let fault = Fault::at(span, format!("`{of}` is a pointer already"));
                    self.fail(fault.expected(format!("expected `{of}`")))
                }
                Target::Reg(..) | Target::Slot(..) | Target::Array(..) | Target::Value(_) => {
                    let fault = Fault::at(span, "the address of a number goes to built-in calls only");
                    self.fail(fault.expected("for instance `xchg(&x, 1)`, `atomic_inc(&x)`"))
                }
            },
            Prefix::Not => {
                let (v, ty) = self.number(of)?;
                let null = matches!(ty, Type::Ref(_) | Type::Opaque);
                let v = if null {
                    self.bin(BinOp::Eq, v, Val::Const(-1), span)
                } else {
                    self.un(UnOp::IsZero, v, span)
                };
                Ok(Value::Num(v, Type::Bool))
            }
            Prefix::Neg | Prefix::BitNot => {
                let (v, ty) = self.number(of)?;
                if !Program::is_number(&ty) {
                    return self.fail(
                        Fault::at(of.span, format!("`{of}` is a `{ty}`")).expected("expected a number"),
                    );
                }
                let v = self.un(if op == Prefix::Neg { UnOp::Neg } else { UnOp::Not }, v, span);
                Ok(match self.unsigned(&ty, &ty) {
                    Some((hi, ty)) => Value::Num(self.calc(Calc::Wrap { of: v, lo: 0, hi }, span), ty),
                    None => Value::Num(v, INT),
                })
            }
        }
    }

    /// If C computes with these types in an unsigned one: its largest value, and it.
    fn unsigned(&self, a: &Type, b: &Type) -> Option<(i64, Type)> {
        let is =
            |t: &Type| matches!(t, Type::Int(IntType::UInt | IntType::ULong | IntType::U32 | IntType::U64));
        if !is(a) && !is(b) {
            return None;
        }
        let (high_a, high_b) = (self.p.range(a).1, self.p.range(b).1);
        let ty = if is(a) && (!is(b) || high_a >= high_b) { a } else { b };
        Some((high_a.max(high_b), ty.clone()))
    }

    /// An operator without short circuit.
    pub(super) fn infix(
        &mut self,
        op: Infix,
        (a, ta): (Val, Type),
        (b, tb): (Val, Type),
        span: Span,
    ) -> Lowered<(Val, Type)> {
        let compares = matches!(op, Infix::Eq | Infix::Ne | Infix::Lt | Infix::Le | Infix::Gt | Infix::Ge);
        let Some(own) = machine::infix(op) else {
            return Ok((Val::Const(0), Type::Bool));
        };
        let number = Program::is_number;
        if !number(&ta) || !number(&tb) {
            let alike = match (&ta, &tb) {
                (Type::Opaque, _) | (_, Type::Opaque) => true,
                (a, b) => a == b,
            };
            if alike && matches!(op, Infix::Eq | Infix::Ne) {
                return Ok((self.bin(own, a, b, span), Type::Bool));
            }
            let mut fault = Fault::at(span, format!("no such operation on a `{ta}` and a `{tb}`"));
            if compares && (a == Val::Const(0) || b == Val::Const(0)) {
                fault = fault.help("the null reference is `NULL`");
            }
            return self.fail(fault.expected("references can only be compared, with their like or `NULL`"));
        }
        let shift = matches!(op, Infix::Shl | Infix::Shr);
        let unsigned = self.unsigned(&ta, if shift { &ta } else { &tb });
        let (a, b) = match &unsigned {
            Some((hi, _)) => {
                let hi = *hi;
                let a = self.calc(Calc::Wrap { of: a, lo: 0, hi }, span);
                let b = if shift { b } else { self.calc(Calc::Wrap { of: b, lo: 0, hi }, span) };
                (a, b)
            }
            None => (a, b),
        };
        if op == Infix::Shr && unsigned.is_none() && self.p.range(&ta).0 < 0 {
            // The stepper shifts zeros in: negative numbers are complemented around it.
            if let (Val::Const(n), Val::Const(by)) = (a, b) {
                return Ok((Val::Const(if (0..64).contains(&by) { n >> by } else { 0 }), INT));
            }
            let negative = self.bin(BinOp::Lt, a, Val::Const(0), span);
            let ones = self.un(UnOp::Neg, negative, span);
            let flipped = self.bin(BinOp::Xor, a, ones, span);
            let shifted = self.bin(BinOp::Shr, flipped, b, span);
            return Ok((self.bin(BinOp::Xor, shifted, ones, span), INT));
        }
        let v = self.bin(own, a, b, span);
        if compares {
            return Ok((v, Type::Bool));
        }
        Ok(match unsigned {
            Some((hi, ty)) => (self.calc(Calc::Wrap { of: v, lo: 0, hi }, span), ty),
            None => (v, INT),
        })
    }

    fn assign(&mut self, op: Option<Infix>, to: &'p Expr, from: &'p Expr, span: Span) -> Lowered<Value> {
        let target = self.writable(to)?;
        let ty = Self::type_of(&target);
        let v = match op {
            None => {
                let (v, from_ty) = match self.value(from)? {
                    Value::Num(v, ty) => (v, ty),
                    other @ (Value::Mask(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing) => {
                        if let Target::Value(_) = &target {
                            return self.write(target, Val::Const(0), span).map(|()| Value::Nothing);
                        }
                        let fault =
                            Fault::at(from.span, format!("expected a `{ty}`, found {}", what(&other)));
                        return self.fail(fault);
                    }
                };
                if let Target::Value(_) = &target {
                    return self.write(target, v, span).map(|()| Value::Nothing);
                }
                self.truth_value(from, v, &ty)?;
                self.convert_into(v, &from_ty, &target, from.span)?
            }
            Some(op) => {
                let Value::Num(old, old_ty) = self.read(target.clone(), to.span)? else {
                    return self.fail(Fault::at(to.span, format!("`{to}` is not a number")));
                };
                let right = self.number(from)?;
                let (v, sum_ty) = self.infix(op, (old, old_ty), right, span)?;
                self.convert_into(v, &sum_ty, &target, span)?
            }
        };
        self.write(target, v, span)?;
        Ok(Value::Num(v, if ty == Type::Atomic { INT } else { ty }))
    }

    fn count(&mut self, up: bool, prefix: bool, of: &'p Expr, span: Span) -> Lowered<Value> {
        let target = self.writable(of)?;
        let ty = Self::type_of(&target);
        let old = match self.read(target.clone(), of.span)? {
            Value::Num(v, t) if Program::is_number(&t) => self.keep(v, span),
            Value::Num(..) | Value::Mask(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing => {
                return self.fail(Fault::at(of.span, format!("`{of}` is not a number")));
            }
        };
        let op = if up { Infix::Add } else { Infix::Sub };
        let (new, new_ty) = self.infix(op, (old, ty.clone()), (Val::Const(1), INT), span)?;
        let new = self.convert_into(new, &new_ty, &target, span)?;
        self.write(target, new, span)?;
        Ok(Value::Num(if prefix { new } else { old }, if ty == Type::Atomic { INT } else { ty }))
    }

    fn cast(&mut self, ty: &Type, of: &'p Expr, span: Span) -> Lowered<Value> {
        if let Some(fault) = self.p.unknown(ty, span) {
            return self.fail(fault);
        }
        match self.value(of)? {
            Value::Num(v, from) => match (ty, &from) {
                (Type::Void, _) => Ok(Value::Nothing),
                // References and numbers are both numbers here.
                (Type::Ref(_) | Type::Opaque, _) => Ok(Value::Num(v, ty.clone())),
                (Type::Int(_) | Type::Enum(_), Type::Ref(_)) => {
                    let v = self.convert(v, &Type::Opaque, ty, span)?;
                    Ok(Value::Num(v, ty.clone()))
                }
                (Type::Bool | Type::Int(_) | Type::Enum(_), _) => {
                    let v = self.convert(v, &from, ty, span)?;
                    Ok(Value::Num(v, ty.clone()))
                }
                _ => self.fail(Fault::at(span, format!("no cast from `{from}` to `{ty}`"))),
            },
            Value::Mask(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing if *ty == Type::Void => {
                Ok(Value::Nothing)
            }
            other @ (Value::Mask(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing) => {
                let fault = Fault::at(span, format!("no cast to `{ty}`"))
                    .expected(format!("this is {}", what(&other)));
                self.fail(fault)
            }
        }
    }
}

/// What a value is, for messages.
pub(super) fn what(value: &Value) -> String {
    match value {
        Value::Num(_, ty) => format!("a `{ty}`"),
        Value::Mask(_, ty) => format!("a mask (`{ty}`)"),
        Value::Lock(_, kind, true) => format!("a pointer to a `{kind}`"),
        Value::Lock(_, kind, false) => format!("a `{kind}`"),
        Value::Func(_) => "a function".to_owned(),
        Value::Nothing => "nothing: the call returns `void`".to_owned(),
    }
}

/// What a call names an instance for, if it is `per_cpu` or `per_asid`.
fn per(name: &Ident) -> Option<Scope> {
    if let Act::Per(scope) = builtin::find(&name.name)?.act { Some(scope) } else { None }
}
