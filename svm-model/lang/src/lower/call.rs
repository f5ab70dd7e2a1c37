//! Calls: of functions of the texts, which are inlined, and of what is built in.

use svm_policy::{BinOp, Prim, Scope, Window};

use super::expr::what;
use super::{Lower, Lowered, MaskRef, Target, Value};
use crate::Role;
use crate::ast::{Expr, ExprKind, Filter, Ident, IntType, Object, Span, Type};
use crate::builtin::{self, Act, Bit, Builtin, Feature, Gives, Group, Par};
use crate::decl::Global;
use crate::diag::Fault;
use crate::ir::{Calc, Inst, LocalMask, Slot, V, Val};
use crate::kernel::instead_of;

const INT: Type = Type::Int(IntType::Int);

/// An argument of a built-in call.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Arg {
    Num(Val, Type),
    Mask(MaskRef),
    Local(Option<LocalMask>),
    Place(Target),
    Lock(Slot),
    Func(Option<usize>),
    PerCpu(u16),
    Flags(V),
    Nothing,
}

impl Arg {
    /// The register of interrupt flags; any where there are none.
    pub(super) fn reg(&self) -> V {
        if let Arg::Flags(reg) = self { *reg } else { 0 }
    }
}

impl<'p> Lower<'p, '_, '_> {
    pub(super) fn call(&mut self, name: &'p Ident, args: &'p [Expr], span: Span) -> Lowered<Value> {
        if let Some(binding) = self.local(&name.name) {
            let target = binding.target.clone();
            let Target::Value(Value::Func(func)) = target else {
                return self.fail(Fault::at(name.span, format!("`{}` is not a function", name.name)));
            };
            return match func {
                Some(func) => self.call_function(func, args, span),
                None => {
                    for arg in args {
                        self.value(arg)?;
                    }
                    Ok(Value::Nothing)
                }
            };
        }
        if let Some(builtin) = builtin::find(&name.name) {
            return self.call_builtin(builtin, name, args, span);
        }
        match self.p.globals.get(name.name.as_str()) {
            Some(Global::Func(func)) => self.call_function(*func, args, span),
            Some(Global::Const { .. } | Global::Var(_)) => {
                self.fail(Fault::at(name.span, format!("`{}` is not a function", name.name)))
            }
            None => {
                let functions =
                    self.p.globals.iter().filter(|(_, g)| matches!(g, Global::Func(_))).map(|(n, _)| *n);
                let help = instead_of(&name.name).or_else(|| {
                    self.nearest(&name.name, functions.chain(builtin::TABLE.iter().map(|b| b.name)))
                });
                let fault = Fault::at(name.span, format!("unknown function `{}`", name.name));
                self.fail(fault.expected("neither built in nor in any text").help_if(help))
            }
        }
    }

    fn count_args(&mut self, signature: &str, want: usize, args: &[Expr], span: Span) -> Lowered<()> {
        if want == args.len() {
            return Ok(());
        }
        let plural = if want == 1 { "" } else { "s" };
        let fault = Fault::at(span, format!("{want} argument{plural} expected, {} given", args.len()));
        self.fail(fault.expected(format!("expected `{signature}`")))
    }

    fn call_function(&mut self, func: usize, args: &'p [Expr], span: Span) -> Lowered<Value> {
        let head = self.p.funcs[func].head;
        self.by_actor(&head.name.name, self.p.funcs[func].role == Role::Litmus, true, span)?;
        self.count_args(&head.to_string(), head.params.len(), args, span)?;
        let mut values = Vec::new();
        for (param, arg) in head.params.iter().zip(args) {
            let value = match (self.value(arg)?, &param.ty) {
                (Value::Num(v, from), to)
                    if !matches!(to, Type::MaskPtr | Type::MaskVar | Type::LockPtr(_) | Type::Func) =>
                {
                    let v = self.convert(v, &from, to, arg.span)?;
                    // An argument is what it was when it was reached, whatever the later ones do.
                    Value::Num(v, to.clone())
                }
                (Value::Mask(m, Type::MaskPtr | Type::MaskVar), Type::MaskPtr | Type::MaskVar) => {
                    Value::Mask(m, Type::MaskPtr)
                }
                (Value::Lock(slot, kind, true), Type::LockPtr(k)) if kind == *k => {
                    Value::Lock(slot, kind, true)
                }
                (Value::Func(f), Type::Func) => {
                    self.sendable(f, arg.span)?;
                    Value::Func(f)
                }
                (other, ty) => return self.wrong_argument(arg, &other, &format!("{ty}"), &head.to_string()),
            };
            values.push(value);
        }
        self.inline(func, values, span, false)
    }

    fn wrong_argument<T>(&mut self, arg: &Expr, found: &Value, wanted: &str, signature: &str) -> Lowered<T> {
        let mut fault = Fault::at(arg.span, format!("expected a `{wanted}`, found {}", what(found)))
            .expected(format!("an argument of `{signature}`"));
        if let Value::Mask(_, Type::Mask) | Value::Lock(_, _, false) = found {
            fault = fault.help(format!("take its address: `&{arg}`"));
        }
        self.fail(fault)
    }

    fn arg(&mut self, par: Par, arg: &'p Expr, signature: &str) -> Lowered<Arg> {
        let number = match par {
            Par::Number | Par::Cpu => Some(Type::Int(IntType::S64)),
            Par::Bool => Some(Type::Bool),
            Par::Vcpu => Some(Type::Ref(Object::Vcpu)),
            Par::Vm => Some(Type::Ref(Object::Vm)),
            Par::Page => Some(Type::Ref(Object::Page)),
            Par::Opaque
            | Par::Value
            | Par::Func
            | Par::Mask
            | Par::MaskOut
            | Par::LocalMask
            | Par::LocalMaskOrNull
            | Par::Place
            | Par::Address
            | Par::LocalAddress
            | Par::MaskVar
            | Par::MaskVarAddress
            | Par::PerCpu
            | Par::PerAsid
            | Par::Lock(_)
            | Par::AnyLock
            | Par::Size
            | Par::Object
            | Par::Flags
            | Par::Options => None,
        };
        if let Some(to) = number {
            return match self.value(arg)? {
                Value::Num(v, from) => {
                    let v = self.convert(v, &from, &to, arg.span)?;
                    Ok(Arg::Num(v, to))
                }
                other @ (Value::Mask(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing) => {
                    self.wrong_argument(arg, &other, &to.to_string(), signature)
                }
            };
        }
        match par {
            Par::Place => self.target(arg).map(Arg::Place),
            Par::Address => {
                let ExprKind::Prefix(crate::ast::Prefix::AddressOf, of) = &arg.kind else {
                    let fault = Fault::at(arg.span, format!("`{arg}` is not an address"));
                    return self
                        .fail(fault.expected(format!("expected `&{arg}`, an argument of `{signature}`")));
                };
                match self.writable(of)? {
                    target @ Target::Slot(..) => Ok(Arg::Place(target)),
                    Target::Reg(..) => {
                        let fault =
                            Fault::at(arg.span, format!("`{of}` is a local variable, which nobody shares"));
                        self.fail(fault.expected("expected a field or a variable at top level"))
                    }
                    Target::Array(..) | Target::Value(_) => {
                        self.fail(Fault::at(arg.span, format!("`{of}` is not a number")))
                    }
                }
            }
            Par::MaskVarAddress => {
                if let ExprKind::Prefix(crate::ast::Prefix::AddressOf, of) = &arg.kind
                    && let Target::Value(Value::Mask(m, Type::MaskVar)) = self.target(of)?
                {
                    return Ok(Arg::Mask(m));
                }
                let fault = Fault::at(arg.span, format!("`{arg}` is not the address of a `cpumask_var_t`"));
                self.fail(fault.expected(format!("an argument of `{signature}`")))
            }
            Par::LocalAddress => {
                if let ExprKind::Prefix(crate::ast::Prefix::AddressOf, of) = &arg.kind
                    && let target @ Target::Reg(..) = self.writable(of)?
                {
                    return Ok(Arg::Place(target));
                }
                let fault = Fault::at(arg.span, format!("`{arg}` is not the address of a local number"));
                self.fail(fault.expected(format!("an argument of `{signature}`")))
            }
            Par::PerCpu => self.instanced(arg, Scope::PerCpu).map(Arg::PerCpu),
            Par::PerAsid => self.instanced(arg, Scope::PerAsid).map(Arg::PerCpu),
            Par::Flags => match self.target(arg)? {
                Target::Reg(reg, ty) if crate::decl::Program::is_number(&ty) => Ok(Arg::Flags(reg)),
                Target::Reg(..) | Target::Slot(..) | Target::Array(..) | Target::Value(_) => {
                    self.fail(Fault::at(arg.span, "the flags are kept in a local `unsigned long`"))
                }
            },
            Par::Size => self.size_of(arg, signature),
            Par::Number
            | Par::Bool
            | Par::Cpu
            | Par::Vcpu
            | Par::Vm
            | Par::Page
            | Par::Opaque
            | Par::Value
            | Par::Func
            | Par::Mask
            | Par::MaskVar
            | Par::MaskOut
            | Par::LocalMask
            | Par::LocalMaskOrNull
            | Par::Lock(_)
            | Par::AnyLock
            | Par::Object
            | Par::Options => {
                let value = self.value(arg)?;
                match (par, &value) {
                    (Par::Opaque | Par::Value, Value::Num(v, ty)) => Ok(Arg::Num(*v, ty.clone())),
                    (Par::Options, Value::Num(Val::Const(n @ 1..=255), _)) => {
                        Ok(Arg::Num(Val::Const(*n), INT))
                    }
                    (Par::Func, Value::Func(f)) => {
                        self.sendable(*f, arg.span)?;
                        Ok(Arg::Func(*f))
                    }
                    (Par::MaskVar, Value::Mask(m, Type::MaskVar)) => Ok(Arg::Mask(*m)),
                    (Par::Mask, Value::Mask(m, Type::MaskPtr | Type::MaskVar)) => Ok(Arg::Mask(*m)),
                    (Par::MaskOut, Value::Mask(m, Type::MaskPtr | Type::MaskVar))
                        if !matches!(m, MaskRef::Full | MaskRef::Fixed(_)) =>
                    {
                        Ok(Arg::Mask(*m))
                    }
                    (
                        Par::LocalMask | Par::LocalMaskOrNull,
                        Value::Mask(MaskRef::Local(m), Type::MaskPtr | Type::MaskVar),
                    ) => Ok(Arg::Local(Some(*m))),
                    (Par::LocalMaskOrNull, Value::Num(Val::Const(-1), Type::Opaque)) => Ok(Arg::Local(None)),
                    (
                        Par::LocalMask | Par::LocalMaskOrNull,
                        Value::Mask(_, Type::MaskPtr | Type::MaskVar),
                    ) => {
                        let fault = Fault::at(arg.span, format!("`{arg}` is not a local mask"));
                        self.fail(
                            fault
                                .expected("expected a mask that is a local variable")
                                .help("`cpumask_copy` it first"),
                        )
                    }
                    (Par::Object, Value::Num(v, ty @ Type::Ref(Object::Pool(_)))) => {
                        Ok(Arg::Num(*v, ty.clone()))
                    }
                    (Par::AnyLock, Value::Lock(slot, _, true)) => Ok(Arg::Lock(*slot)),
                    (Par::Lock(wanted), Value::Lock(slot, found, true)) if wanted == *found => {
                        Ok(Arg::Lock(*slot))
                    }
                    (Par::Options, Value::Num(..)) => {
                        let fault =
                            Fault::at(arg.span, format!("`{arg}` is no number of ways to choose from"));
                        self.fail(fault.expected("expected a `constant n` from 1 to 255"))
                    }
                    _ => self.wrong_argument(arg, &value, par.text(), signature),
                }
            }
        }
    }

    /// The variable of this name that has an instance for each pCPU or ASID.
    fn instanced(&mut self, arg: &Expr, scope: Scope) -> Lowered<u16> {
        if let ExprKind::Name(name) = &arg.kind
            && let Some(Global::Var(var)) = self.p.globals.get(name.as_str())
            && self.p.vars[usize::from(*var)].scope == scope
        {
            return Ok(*var);
        }
        let names = self.p.vars.iter().filter(|v| v.scope == scope).map(|v| v.name.as_str());
        let help = self.nearest(&arg.to_string(), names);
        let (what, define) = match scope {
            Scope::PerAsid => ("per-ASID", "DEFINE_PER_ASID"),
            Scope::Global
            | Scope::PerVm
            | Scope::PerVcpu
            | Scope::PerCpu
            | Scope::PerPage
            | Scope::PerObject(_) => ("per-CPU", "DEFINE_PER_CPU"),
        };
        let fault = Fault::at(arg.span, format!("`{arg}` is not a {what} variable"));
        self.fail(fault.expected(format!("expected the name of a `{define}` variable")).help_if(help))
    }

    /// `per_cpu(variable, cpu)`, `per_asid(variable, asid)`.
    pub(super) fn per(
        &mut self,
        scope: Scope,
        name: &Ident,
        args: &'p [Expr],
        span: Span,
    ) -> Lowered<Target> {
        let signature = builtin::find(&name.name).map_or(String::new(), Builtin::signature);
        self.count_args(&signature, 2, args, span)?;
        let (Some(var), Some(cpu)) = (args.first(), args.get(1)) else { return Err(crate::parse::Reported) };
        let var = self.instanced(var, scope)?;
        let Arg::Num(cpu, _) = self.arg(Par::Cpu, cpu, &signature)? else {
            return Err(crate::parse::Reported);
        };
        Ok(self.variable(var, cpu))
    }

    fn call_builtin(
        &mut self,
        b: &'static Builtin,
        name: &'p Ident,
        args: &'p [Expr],
        span: Span,
    ) -> Lowered<Value> {
        let signature = b.signature();
        if let Act::Per(scope) = b.act {
            let target = self.per(scope, name, args, span)?;
            return self.read(target, span);
        }
        self.count_args(&signature, b.pars.len(), args, span)?;
        let func = self.frames.last().map_or(0, |f| f.func);
        if b.litmus && self.p.funcs[func].role != Role::Litmus {
            let fault = Fault::at(name.span, format!("`{}` is for guests, in litmus texts", b.name));
            return self
                .fail(fault.expected("neither kernels nor policies touch a guest's memory as the guest"));
        }
        let private =
            matches!(b.group, Group::Memory | Group::Choice) && !matches!(b.act, Act::Kzalloc | Act::Kfree);
        self.by_actor(b.name, b.litmus || private, !b.litmus, name.span)?;
        let mut list = Vec::new();
        for (par, arg) in b.pars.iter().zip(args) {
            list.push(self.arg(*par, arg, &signature)?);
        }
        let mut values = list.into_iter();
        let mut next = || values.next().unwrap_or(Arg::Nothing);
        let (first, second, third, fourth) = (next(), next(), next(), next());
        self.act(b, [first, second, third, fourth], args, span)
    }

    fn act(&mut self, b: &Builtin, args: [Arg; 4], exprs: &'p [Expr], span: Span) -> Lowered<Value> {
        let old = b.gives != Gives::Nothing;
        let num = |v: Val| {
            let ty = match b.gives {
                Gives::Nothing | Gives::Mask | Gives::Object => return Value::Nothing,
                Gives::Bool => Type::Bool,
                Gives::Number | Gives::Cpu | Gives::Reason | Gives::Same => INT,
                Gives::Page => Type::Ref(Object::Page),
            };
            Value::Num(v, ty)
        };
        if let Some(given) = self.lock_act(b.act, &args, span) {
            return Ok(given);
        }
        let given = match (b.act, args) {
            (Act::MaskBit(bit), [Arg::Num(cpu, _), Arg::Mask(m), ..]) => {
                num(self.mask_bit(m, cpu, bit, true, old, span))
            }
            (Act::MaskBitPlain(bit), [Arg::Num(cpu, _), Arg::Mask(m), ..]) => {
                num(self.mask_bit(m, cpu, bit, false, old, span))
            }
            (Act::MaskTest, [Arg::Num(cpu, _), Arg::Mask(m), ..]) => num(self.mask_test(m, cpu, span)),
            (Act::MaskCopy, [Arg::Mask(to), Arg::Mask(from), ..]) => {
                self.mask_copy(to, from, span);
                Value::Nothing
            }
            (Act::MaskFill(full), [Arg::Mask(to), ..]) => {
                self.mask_fill(to, full, span);
                Value::Nothing
            }
            (Act::MaskCombine(op), [Arg::Mask(to), Arg::Mask(x), Arg::Mask(y), ..]) => {
                num(self.mask_combine(op, to, x, y, span))
            }
            (Act::MaskComplement, [Arg::Mask(to), Arg::Mask(x), ..]) => {
                self.mask_combine(builtin::Combine::AndNot, to, MaskRef::Full, x, span);
                Value::Nothing
            }
            (Act::MaskCompare(how), [Arg::Mask(x), Arg::Mask(y), ..]) => {
                num(self.mask_compare(how, x, y, span))
            }
            (Act::MaskEmpty, [Arg::Mask(m), ..]) => num(self.mask_empty(m, span)),
            (Act::MaskWeight, [Arg::Mask(m), ..]) => num(self.mask_weight(m, span)),
            (Act::MaskFirst, [Arg::Mask(m), ..]) => num(self.next_from(m, Val::Const(0), span)),
            (Act::MaskNext, [Arg::Num(n, _), Arg::Mask(m), ..]) => {
                let from = self.bin(BinOp::Add, n, Val::Const(1), span);
                let from = self.clamp(from, span);
                num(self.next_from(m, from, span))
            }
            (Act::MaskFirstAnd, [Arg::Mask(x), Arg::Mask(y), ..]) => {
                num(self.next_of(Filter::And, x, y, Val::Const(0), span))
            }
            (Act::MaskNextAnd, [Arg::Num(n, _), Arg::Mask(x), Arg::Mask(y), ..]) => {
                let from = self.bin(BinOp::Add, n, Val::Const(1), span);
                let from = self.clamp(from, span);
                num(self.next_of(Filter::And, x, y, from, span))
            }
            (Act::MaskAny, [Arg::Mask(m), ..]) => {
                let mask = match m {
                    MaskRef::Local(mask) | MaskRef::Fixed(mask) => {
                        self.use_local(mask, span);
                        mask
                    }
                    MaskRef::Shared(_) | MaskRef::Full => {
                        let mask = self.new_mask();
                        self.mask_copy(MaskRef::Local(mask), m, span);
                        mask
                    }
                };
                num(self.any_bit(mask, span))
            }
            (Act::MaskAnyAnd, [Arg::Mask(x), Arg::Mask(y), ..]) => {
                let mask = self.new_mask();
                self.mask_combine(builtin::Combine::And, MaskRef::Local(mask), x, y, span);
                num(self.any_bit(mask, span))
            }
            (Act::MaskXchg, [Arg::Local(Some(local)), Arg::Mask(m), Arg::Local(new), ..]) => {
                self.mask_xchg(local, m, new, span);
                Value::Nothing
            }
            (Act::Zalloc(junk), [Arg::Mask(m), Arg::Num(gfp, _), ..]) => {
                if let MaskRef::Local(mask) = m {
                    return Ok(num(self.allocate_local(mask, junk, gfp, span)));
                }
                let (var, instance) = m.variable();
                let junk = Val::Const(i64::from(junk));
                num(self.prim(Prim::ZallocMask, [var, instance, gfp, junk], None, span))
            }
            (Act::Kzalloc, [Arg::Num(pool, ty), Arg::Num(gfp, _), ..]) => {
                let pool = if let Val::Const(pool) = pool { usize::try_from(pool).ok() } else { None };
                let Some(pool) = pool.and_then(|at| self.p.pools.get(at)) else {
                    return Err(crate::parse::Reported);
                };
                let (state, count) = (Val::Const(i64::from(pool.state)), i64::from(pool.count));
                let v =
                    self.prim(Prim::AllocObject, [state, Val::Const(count), gfp, Val::Const(0)], None, span);
                Value::Num(self.calc(Calc::Known { of: v, lo: -1, hi: count - 1 }, span), ty)
            }
            (Act::Kfree, [Arg::Num(v, Type::Ref(Object::Pool(name))), ..]) => {
                let state = self.p.pools.iter().find(|p| p.name == name).map_or(0, |p| p.state);
                let state = Val::Const(i64::from(state));
                self.prim(Prim::FreeObject, [state, v, Val::Const(0), Val::Const(0)], None, span);
                Value::Nothing
            }
            (Act::LockHeld(how), [Arg::Lock(slot), ..]) => {
                let var = Val::Const(i64::from(slot.var));
                self.prim(Prim::LockHeld, [var, slot.instance, slot.word, Val::Const(how)], None, span);
                Value::Nothing
            }
            (Act::OfMaskVar(prim), [Arg::Mask(MaskRef::Local(mask)), ..]) => {
                num(self.of_local(prim, mask, span))
            }
            (Act::OfMaskVar(prim), [Arg::Mask(m), ..]) => {
                let (var, instance) = m.variable();
                num(self.prim(prim, [var, instance, Val::Const(0), Val::Const(0)], None, span))
            }
            (Act::CpuOnline, [Arg::Num(cpu, _), ..]) => {
                let online = self.online_mask();
                num(self.mask_test(online, cpu, span))
            }
            (Act::NumOnline, _) => {
                let online = self.online_mask();
                num(self.mask_weight(online, span))
            }
            (Act::Warn, [Arg::Num(cond, _), ..]) => {
                self.prim(Prim::Warn, [cond, Val::Const(0), Val::Const(0), Val::Const(0)], None, span);
                num(cond)
            }
            (Act::BuildBug, _) => {
                let func = self.frames.last().map_or(0, |f| f.func);
                self.s.build_bugs.push((func, span));
                let number = i64::try_from(self.s.build_bugs.len()).unwrap_or(i64::MAX);
                let args = [Val::Const(1), Val::Const(0), Val::Const(number), Val::Const(0)];
                self.prim(Prim::Warn, args, None, span);
                Value::Nothing
            }
            (Act::Fence, _) => {
                if self.p.machine.store_buffers {
                    self.prim(Prim::Fence, [Val::Const(0); 4], None, span);
                }
                Value::Nothing
            }
            (Act::Weak(prim), [Arg::Num(page, _), ..]) => {
                self.stands_alone(span)?;
                let page = self.keep(page, span);
                if let Some(scope) = self.scopes.last_mut() {
                    scope.weak.push((prim, page));
                }
                Value::Nothing
            }
            (Act::StoreFence, _) => {
                self.stands_alone(span)?;
                let due = self.scopes.last_mut().map(|scope| std::mem::take(&mut scope.weak));
                for (prim, page) in due.unwrap_or_default() {
                    self.prim(prim, [page, Val::Const(0), Val::Const(0), Val::Const(0)], None, span);
                }
                Value::Nothing
            }
            (Act::Barrier | Act::Per(_), _) => Value::Nothing,
            (Act::AsidOf, [Arg::Num(vm, _), ..]) => num(self.asid_of(vm, span)),
            (Act::Feature(feature), _) => {
                let features = &self.p.machine.features;
                let has = match feature {
                    Feature::SmeCoherent => features.sme_coherent,
                    Feature::Wbnoinvd => features.wbnoinvd,
                };
                num(Val::Const(i64::from(has)))
            }
            (Act::VmType, [Arg::Num(vm, _), ..]) => num(self.vm_type(vm, span)),
            (Act::Vmsa, [Arg::Num(vcpu, _), ..]) => num(self.vmsa_of(vcpu, span)),
            (Act::MaskOf, [Arg::Num(cpu, _), ..]) => {
                Value::Mask(self.mask_of(cpu, None, span), Type::MaskPtr)
            }
            (Act::Siblings(shared), [Arg::Num(cpu, _), ..]) => {
                Value::Mask(self.mask_of(cpu, Some(shared), span), Type::MaskPtr)
            }
            (Act::SetOnline, [Arg::Num(cpu, _), Arg::Num(on, _), ..]) => self.set_online(cpu, on, span)?,
            (Act::NumberOfBit, [Arg::Num(n, _), ..]) => num(self.bin(BinOp::Shl, Val::Const(1), n, span)),
            (Act::Likely, [Arg::Num(v, ty), ..]) => Value::Num(v, ty),
            (Act::GetCpu, _) => {
                self.push(Inst::Window(Window::PreemptDisable), span);
                num(self.calc(Calc::ThisCpu, span))
            }
            (Act::ThisCpu, _) => num(self.calc(Calc::ThisCpu, span)),
            (Act::AnyOf, [Arg::Num(Val::Const(n), _), ..]) => num(self.option(n, span)),
            (Act::Maybe, _) => num(self.option(2, span)),
            (Act::Flush(how), _) => {
                // A part without WBNOINVD ignores the prefix.
                let how = if self.p.machine.features.wbnoinvd { how } else { 0 };
                let parts = [Prim::FlushBegin, Prim::FlushPrivate, Prim::FlushShared, Prim::FlushEnd];
                // Flat caches are flushed at once, in the step that comes to it.
                let parts = if self.p.machine.features.flat_caches { &parts[..1] } else { &parts[..] };
                for prim in parts {
                    self.prim(
                        *prim,
                        [Val::Const(how), Val::Const(0), Val::Const(0), Val::Const(0)],
                        None,
                        span,
                    );
                }
                Value::Nothing
            }
            (Act::Prim(prim), args) => {
                let args = args.map(|arg| if let Arg::Num(v, _) = arg { v } else { Val::Const(0) });
                num(self.prim(prim, args, None, span))
            }
            (
                Act::SendCall,
                [Arg::Num(cpu, _), Arg::Func(func), Arg::Num(info, info_ty), Arg::Num(wait, _)],
            ) => {
                let info = self.convert(info, &info_ty, &Type::Opaque, span)?;
                let index = self.callback(func);
                self.prim(Prim::SendCall, [cpu, index, info, wait], None, span);
                Value::Nothing
            }
            (Act::NonBlock(on), _) => {
                self.prim(Prim::NonBlock, [on, 0, 0, 0].map(Val::Const), None, span);
                Value::Nothing
            }
            (Act::WaitCalls, [Arg::Local(Some(mask)), ..]) => {
                self.use_local(mask, span);
                self.prim(Prim::WaitCalls, [Val::Const(0); 4], Some(mask), span);
                Value::Nothing
            }
            (act, args) => return self.memory(act, args, exprs, span),
        };
        Ok(given)
    }

    /// `cpu_online_mask`: every pCPU, where no text declares it.
    fn online_mask(&self) -> MaskRef {
        match self.p.globals.get(crate::decl::ONLINE_MASK) {
            Some(Global::Var(var)) => {
                MaskRef::Shared(Slot { var: *var, instance: Val::Const(0), word: Val::Const(0) })
            }
            Some(_) | None => MaskRef::Full,
        }
    }

    fn set_online(&mut self, cpu: Val, on: Val, span: Span) -> Lowered<Value> {
        let Some(Global::Var(var)) = self.p.globals.get(crate::decl::ONLINE_MASK) else {
            let fault = Fault::at(span, "every pCPU is online for good");
            return self.fail(fault.help("declare `cpumask_t cpu_online_mask;`, which starts full"));
        };
        let mask = MaskRef::Shared(Slot { var: *var, instance: Val::Const(0), word: Val::Const(0) });
        let (set, clear, after) = (self.new_block(), self.new_block(), self.new_block());
        self.branch(on, set, clear, set, span);
        self.mask_bit(mask, cpu, Bit::Set, true, false, span);
        self.jump(after, clear, span);
        self.mask_bit(mask, cpu, Bit::Clear, true, false, span);
        self.jump(after, after, span);
        Ok(Value::Nothing)
    }

    fn any_bit(&mut self, mask: LocalMask, span: Span) -> Val {
        let dst = self.new_reg();
        self.push(Inst::ChooseBit { dst, mask }, span);
        Val::Reg(dst)
    }

    /// The number of the structure that `sizeof(...)` measures, and the type of a pointer to it.
    fn size_of(&mut self, arg: &'p Expr, signature: &str) -> Lowered<Arg> {
        if let ExprKind::Call { name, args } = &arg.kind
            && let ("sizeof", [Expr { kind: ExprKind::Name(of), span }]) = (name.name.as_str(), &args[..])
        {
            let ty = match (of.strip_prefix("struct "), of.strip_prefix('*')) {
                (Some(pool), _) => Some(Type::Ref(Object::Pool(pool.to_owned()))),
                (None, Some(local)) => self.local(local).map(|b| Self::type_of(&b.target)),
                (None, None) => None,
            };
            if let Some(ty @ Type::Ref(Object::Pool(pool))) = &ty
                && !crate::parse::STRUCTS.contains(&pool.as_str())
            {
                if let Some(fault) = self.p.unknown(ty, *span) {
                    return self.fail(fault);
                }
                let number = self.p.pools.iter().position(|p| p.name == *pool).unwrap_or(0);
                return Ok(Arg::Num(Val::Const(i64::try_from(number).unwrap_or(0)), ty.clone()));
            }
        }
        let fault =
            Fault::at(arg.span, format!("`{arg}` is not the size of a structure of `DEFINE_OBJECTS`"));
        self.fail(fault.expected(format!("an argument of `{signature}`")))
    }

    pub(super) fn option(&mut self, options: i64, span: Span) -> Val {
        let dst = self.new_reg();
        self.push(Inst::Choose { dst, options: u8::try_from(options).unwrap_or(u8::MAX) }, span);
        Val::Reg(dst)
    }

    pub(super) fn prim(&mut self, prim: Prim, args: [Val; 4], mask: Option<LocalMask>, span: Span) -> Val {
        let dst: V = self.new_reg();
        self.push(Inst::Prim { prim, dst, args, mask }, span);
        Val::Reg(dst)
    }

    /// Refuses a function that is no `smp_call_func_t`.
    pub(super) fn sendable(&mut self, func: Option<usize>, span: Span) -> Lowered<()> {
        let Some(func) = func else { return Ok(()) };
        let head = self.p.funcs[func].head;
        if head.result == Type::Void && matches!(head.params.as_slice(), [p] if p.ty == Type::Opaque) {
            return Ok(());
        }
        let fault = Fault::at(span, format!("`{head}` is no `smp_call_func_t`"));
        self.fail(fault.expected(format!("expected `void {}(void *info)`", head.name.name)))
    }

    /// The number of a function among those that other pCPUs are sent.
    fn callback(&mut self, func: Option<usize>) -> Val {
        let Some(func) = func else { return Val::Const(0) };
        let callbacks = &mut *self.s.callbacks;
        let index = callbacks.iter().position(|f| *f == func).unwrap_or_else(|| {
            callbacks.push(func);
            callbacks.len() - 1
        });
        Val::Const(i64::try_from(index).unwrap_or(i64::MAX))
    }
}
