//! Calls that read and write numbers: once, atomically, on this pCPU.

use svm_policy::{BinOp, Prim, RmwOp, UnOp, Window};

use super::call::Arg;
use super::expr::what;
use super::{Lower, Lowered, Target, Value};
use crate::Warning;
use crate::ast::{Expr, Infix, IntType, Span, Type};
use crate::builtin::{self, Act, Sum};
use crate::diag::Fault;
use crate::ir::{Calc, Inst, Slot, Val};

const INT: Type = Type::Int(IntType::Int);
const INT64: Type = Type::Int(IntType::S64);

impl<'p> Lower<'p, '_, '_> {
    /// What reads and writes numbers.
    pub(super) fn memory(
        &mut self,
        act: Act,
        args: [Arg; 4],
        exprs: &'p [Expr],
        span: Span,
    ) -> Lowered<Value> {
        let at = |i: usize| exprs.get(i).map_or(span, |e| e.span);
        match (act, args) {
            (Act::Read, [Arg::Place(target), ..]) => self.read(target, span),
            (Act::Write, [Arg::Place(target), Arg::Num(v, from), ..]) => {
                if let Some(e) = exprs.first()
                    && !matches!(target, Target::Slot(..))
                {
                    self.writable(e)?;
                }
                let v = self.convert_into(v, &from, &target, at(1))?;
                self.write(target, v, span)?;
                Ok(Value::Nothing)
            }
            (Act::StoreMb, [Arg::Place(Target::Slot(slot, ty)), Arg::Num(v, from), ..]) => {
                let src = self.convert_into(v, &from, &Target::Slot(slot, ty), at(1))?;
                self.rmw(slot, RmwOp::Xchg, src, Val::Const(0), span);
                Ok(Value::Nothing)
            }
            (Act::StoreMb, args) => self.memory(Act::Write, args, exprs, span),
            (Act::Math(op, sign, sum), args) => {
                let (slot, ty, by) = match args {
                    [Arg::Place(Target::Slot(slot, ty)), ..] => (slot, ty, Val::Const(1)),
                    [Arg::Num(by, _), Arg::Place(Target::Slot(slot, ty)), ..] => (slot, ty, by),
                    _ => return Err(crate::parse::Reported),
                };
                self.need_number(&ty, span)?;
                let src = if sign < 0 { self.un(UnOp::Neg, by, span) } else { by };
                let old = self.rmw(slot, op, src, Val::Const(0), span);
                if sum == Sum::Old || sum == Sum::Nothing {
                    return Ok(Self::held(old, ty));
                }
                let (new, new_ty) = self.infix(Infix::Add, (old, INT), (src, INT), span)?;
                let new = self.convert_into(new, &new_ty, &Target::Slot(slot, ty.clone()), span)?;
                if sum == Sum::NewIsZero {
                    return Ok(Value::Num(self.un(UnOp::IsZero, new, span), Type::Bool));
                }
                Ok(Self::held(new, ty))
            }
            (Act::Refcount(by, least, test), [Arg::Place(Target::Slot(slot, ty)), ..]) => {
                self.need_number(&ty, span)?;
                let old = self.rmw(slot, RmwOp::Add, Val::Const(by), Val::Const(0), span);
                let wrong = self.bin(BinOp::Lt, old, Val::Const(least), span);
                let args = [wrong, Val::Const(Warning::Count.number()), Val::Const(0), Val::Const(0)];
                self.prim(Prim::Warn, args, None, span);
                if !test {
                    return Ok(Value::Nothing);
                }
                Ok(Value::Num(self.bin(BinOp::Eq, old, Val::Const(1), span), Type::Bool))
            }
            (
                Act::PerCpuMath(..) | Act::PerCpuXchg | Act::PerCpuCmpXchg,
                [Arg::PerCpu(var), second, third, ..],
            ) => {
                // One instruction: nobody moves the task meanwhile.
                self.push(Inst::Window(Window::PreemptDisable), span);
                let cpu = self.calc(Calc::ThisCpu, span);
                let place = Arg::Place(self.variable(var, cpu));
                let (act, args) = match (act, second) {
                    (Act::PerCpuMath(op, sign, sum), by @ Arg::Num(..)) => {
                        (Act::Math(op, sign, sum), [by, place, Arg::Nothing, Arg::Nothing])
                    }
                    (Act::PerCpuMath(op, sign, sum), none) => {
                        (Act::Math(op, sign, sum), [place, none, Arg::Nothing, Arg::Nothing])
                    }
                    (Act::PerCpuXchg, value) => (Act::Xchg, [place, value, Arg::Nothing, Arg::Nothing]),
                    (_, was) => (Act::CmpXchg, [place, was, third, Arg::Nothing]),
                };
                let given = self.memory(act, args, exprs, span)?;
                self.push(Inst::Window(Window::PreemptEnable), span);
                Ok(given)
            }
            (Act::AddUnless, [Arg::Place(Target::Slot(slot, ty)), by, unless, ..]) => {
                self.need_number(&ty, span)?;
                let number = |arg, default| if let Arg::Num(v, _) = arg { v } else { Val::Const(default) };
                let (src, unless) = (number(by, 1), number(unless, 0));
                let old = self.rmw(slot, RmwOp::AddUnless, src, unless, span);
                Ok(Value::Num(self.bin(BinOp::Ne, old, unless, span), Type::Bool))
            }
            (Act::Xchg, [Arg::Place(Target::Slot(slot, ty)), Arg::Num(v, from), ..]) => {
                let src = self.convert_into(v, &from, &Target::Slot(slot, ty.clone()), at(1))?;
                let old = self.rmw(slot, RmwOp::Xchg, src, Val::Const(0), span);
                Ok(Self::held(old, ty))
            }
            (
                Act::CmpXchg,
                [Arg::Place(Target::Slot(slot, ty)), Arg::Num(was, was_ty), Arg::Num(v, from), ..],
            ) => {
                let target = Target::Slot(slot, ty.clone());
                let expected = self.convert_into(was, &was_ty, &target, at(1))?;
                let src = self.convert_into(v, &from, &target, at(2))?;
                let old = self.rmw(slot, RmwOp::CmpXchg, src, expected, span);
                Ok(Self::held(old, ty))
            }
            (
                Act::TryCmpXchg,
                [Arg::Place(Target::Slot(slot, ty)), Arg::Place(local), Arg::Num(v, from), ..],
            ) => {
                let (Target::Reg(reg, local_ty), target) = (&local, Target::Slot(slot, ty.clone())) else {
                    return Err(crate::parse::Reported);
                };
                let expected = self.convert_into(Val::Reg(*reg), local_ty, &target, at(1))?;
                let expected = self.keep(expected, span);
                let src = self.convert_into(v, &from, &target, at(2))?;
                let old = self.rmw(slot, RmwOp::CmpXchg, src, expected, span);
                let Value::Num(_, held) = Self::held(old, ty) else { return Err(crate::parse::Reported) };
                let found = self.convert(old, &held, local_ty, at(1))?;
                let same = self.bin(BinOp::Eq, old, expected, span);
                self.set(*reg, found, span);
                Ok(Value::Num(same, Type::Bool))
            }
            (Act::Bit(bit), [Arg::Num(nr, _), Arg::Place(Target::Slot(slot, ty)), ..]) => {
                self.need_number(&ty, span)?;
                let src = self.bin(BinOp::Shl, Val::Const(1), nr, span);
                let op = if bit == builtin::Bit::Set { RmwOp::Or } else { RmwOp::AndNot };
                let old = self.rmw(slot, op, src, Val::Const(0), span);
                let down = self.bin(BinOp::Shr, old, nr, span);
                Ok(Value::Num(self.bin(BinOp::And, down, Val::Const(1), span), Type::Bool))
            }
            (Act::BitPlain(bit), [Arg::Num(nr, _), Arg::Place(Target::Slot(slot, ty)), ..]) => {
                self.need_number(&ty, span)?;
                let one = self.bin(BinOp::Shl, Val::Const(1), nr, span);
                let slot = self.keep_slot(slot, span);
                let word = self.load(slot, span);
                let new = if bit == builtin::Bit::Set {
                    self.bin(BinOp::Or, word, one, span)
                } else {
                    let others = self.un(UnOp::Not, one, span);
                    self.bin(BinOp::And, word, others, span)
                };
                let new = self.convert_into(new, &INT64, &Target::Slot(slot, ty), span)?;
                self.push(Inst::Store { slot, src: new }, span);
                Ok(Value::Nothing)
            }
            (Act::BitTest, [Arg::Num(nr, _), Arg::Place(Target::Slot(slot, ty)), ..]) => {
                self.need_number(&ty, span)?;
                let word = self.load(slot, span);
                let down = self.bin(BinOp::Shr, word, nr, span);
                Ok(Value::Num(self.bin(BinOp::And, down, Val::Const(1), span), Type::Bool))
            }
            (Act::PerCpuRead(whole), [Arg::PerCpu(var), ..]) => {
                if whole {
                    self.push(Inst::Window(Window::PreemptDisable), span);
                }
                let cpu = self.calc(Calc::ThisCpu, span);
                let target = self.variable(var, cpu);
                let value = self.read(target, span)?;
                if whole {
                    self.push(Inst::Window(Window::PreemptEnable), span);
                }
                match value {
                    Value::Num(..) => Ok(value),
                    other @ (Value::Mask(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing) => {
                        let fault = Fault::at(at(0), format!("this is {}", what(&other)));
                        self.fail(fault.help("use `per_cpu(variable, cpu)` for masks and locks"))
                    }
                }
            }
            (Act::PerCpuWrite(whole), [Arg::PerCpu(var), Arg::Num(v, from), ..]) => {
                let target = self.variable(var, Val::Const(0));
                let v = self.convert_into(v, &from, &target, at(1))?;
                if whole {
                    self.push(Inst::Window(Window::PreemptDisable), span);
                }
                let cpu = self.calc(Calc::ThisCpu, span);
                let target = self.variable(var, cpu);
                self.write(target, v, span)?;
                if whole {
                    self.push(Inst::Window(Window::PreemptEnable), span);
                }
                Ok(Value::Nothing)
            }
            // The arguments were made to fit the table's row.
            (_, _) => Err(crate::parse::Reported),
        }
    }

    fn rmw(&mut self, slot: Slot, op: RmwOp, src: Val, expected: Val, span: Span) -> Val {
        let dst = self.new_reg();
        self.push(Inst::Rmw { dst, slot, op, src, expected }, span);
        Val::Reg(dst)
    }

    /// What a variable of this type held.
    fn held(v: Val, ty: Type) -> Value {
        Value::Num(v, if ty == Type::Atomic { INT } else { ty })
    }

    fn need_number(&mut self, ty: &Type, span: Span) -> Lowered<()> {
        if crate::decl::Program::is_number(ty) {
            return Ok(());
        }
        self.fail(Fault::at(span, format!("the variable is a `{ty}`")).expected("expected a number"))
    }
}
