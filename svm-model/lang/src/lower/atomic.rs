//! Calls that read and write numbers: once, atomically, on this pCPU.

use svm_policy::{BinOp, RmwOp, UnOp, Window};

use super::call::Arg;
use super::expr::what;
use super::{Lower, Lowered, Target, Value};
use crate::ast::{Expr, Infix, IntType, Span, Type};
use crate::builtin::{self, Act, Sum};
use crate::diag::Fault;
use crate::ir::{Calc, Inst, Val};

const INT: Type = Type::Int(IntType::Int);

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
            (Act::Add(sign, sum), args) => {
                let (slot, ty, by) = match args {
                    [Arg::Place(Target::Slot(slot, ty)), ..] => (slot, ty, Val::Const(1)),
                    [Arg::Num(by, _), Arg::Place(Target::Slot(slot, ty)), ..] => (slot, ty, by),
                    _ => return Err(crate::parse::Reported),
                };
                self.need_number(&ty, span)?;
                let src = if sign < 0 { self.un(UnOp::Neg, by, span) } else { by };
                let dst = self.new_reg();
                self.push(Inst::Rmw { dst, slot, op: RmwOp::Add, src, expected: Val::Const(0) }, span);
                if sum == Sum::Nothing {
                    return Ok(Value::Nothing);
                }
                let (new, new_ty) = self.infix(Infix::Add, (Val::Reg(dst), INT), (src, INT), span)?;
                let new = self.convert_into(new, &new_ty, &Target::Slot(slot, ty.clone()), span)?;
                if sum == Sum::NewIsZero {
                    return Ok(Value::Num(self.un(UnOp::IsZero, new, span), Type::Bool));
                }
                Ok(Value::Num(new, if ty == Type::Atomic { INT } else { ty }))
            }
            (Act::Xchg, [Arg::Place(Target::Slot(slot, ty)), Arg::Num(v, from), ..]) => {
                let src = self.convert_into(v, &from, &Target::Slot(slot, ty.clone()), at(1))?;
                let dst = self.new_reg();
                self.push(Inst::Rmw { dst, slot, op: RmwOp::Xchg, src, expected: Val::Const(0) }, span);
                Ok(Value::Num(Val::Reg(dst), if ty == Type::Atomic { INT } else { ty }))
            }
            (
                Act::CmpXchg,
                [Arg::Place(Target::Slot(slot, ty)), Arg::Num(was, was_ty), Arg::Num(v, from), ..],
            ) => {
                let target = Target::Slot(slot, ty.clone());
                let expected = self.convert_into(was, &was_ty, &target, at(1))?;
                let src = self.convert_into(v, &from, &target, at(2))?;
                let dst = self.new_reg();
                self.push(Inst::Rmw { dst, slot, op: RmwOp::CmpXchg, src, expected }, span);
                Ok(Value::Num(Val::Reg(dst), if ty == Type::Atomic { INT } else { ty }))
            }
            (Act::Bit(bit), [Arg::Num(nr, _), Arg::Place(Target::Slot(slot, ty)), ..]) => {
                self.need_number(&ty, span)?;
                let src = self.bin(BinOp::Shl, Val::Const(1), nr, span);
                let op = if bit == builtin::Bit::Set { RmwOp::Or } else { RmwOp::AndNot };
                let dst = self.new_reg();
                self.push(Inst::Rmw { dst, slot, op, src, expected: Val::Const(0) }, span);
                let down = self.bin(BinOp::Shr, Val::Reg(dst), nr, span);
                Ok(Value::Num(self.bin(BinOp::And, down, Val::Const(1), span), Type::Bool))
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

    fn need_number(&mut self, ty: &Type, span: Span) -> Lowered<()> {
        if crate::decl::Program::is_number(ty) {
            return Ok(());
        }
        self.fail(Fault::at(span, format!("the variable is a `{ty}`")).expected("expected a number"))
    }
}
