//! Loops: C's, and those over pCPUs and vCPUs.

use svm_policy::BinOp;

use super::{Loop, Lower, Lowered, MaskRef, Target, Value};
use crate::ast::{Block, Expr, ExprKind, Filter, Object, Span, Stmt, Type};
use crate::diag::Fault;
use crate::ir::{B, Calc, Inst, V, Val};

impl<'p> Lower<'p, '_, '_> {
    /// The body of a loop.
    pub(super) fn looped(&mut self, body: &'p Block, after: B, next: B) {
        let scopes = self.scopes.len();
        if let Some(frame) = self.frames.last_mut() {
            frame.loops.push(Loop { after, next: Some(next), scopes });
        }
        self.block(body);
        if let Some(frame) = self.frames.last_mut() {
            frame.loops.pop();
        }
    }

    pub(super) fn for_loop(
        &mut self,
        span: Span,
        init: Option<&'p Stmt>,
        cond: &'p Option<Expr>,
        step: &'p Option<Expr>,
        body: &'p Block,
    ) -> Lowered<()> {
        self.push_scope(None);
        if let Some(init) = init {
            self.stmt(init);
            self.text = self.s.places.text(span);
        }
        let (head, inside, next, after) =
            (self.new_block(), self.new_block(), self.new_block(), self.new_block());
        self.jump(head, head, span);
        self.flow.loops.push((head, span));
        let known = match cond {
            Some(cond) => self.cond(cond, inside, after, inside),
            None => {
                self.jump(inside, inside, span);
                Ok(())
            }
        };
        self.cur = inside;
        self.looped(body, after, next);
        self.jump(next, next, span);
        self.text = self.s.places.text(span);
        let stepped = step.as_ref().map_or(Ok(()), |e| self.value(e).map(drop));
        self.jump(head, after, span);
        self.pop_scope(span);
        known.and(stepped)
    }

    /// A local number that a loop moves: its name, register and type.
    pub(super) fn moved(&mut self, e: &'p Expr, ref_to: Option<Object>) -> Lowered<(&'p str, V)> {
        if let ExprKind::Name(name) = &e.kind
            && let Some(binding) = self.local(name)
            && let Target::Reg(reg, ty) = &binding.target
            && !binding.held
        {
            let (reg, ty) = (*reg, ty.clone());
            match &ref_to {
                Some(object) if ty == Type::Ref(object.clone()) => return Ok((name, reg)),
                None if matches!(ty, Type::Int(_)) => {
                    let most = self.p.machine.pcpus.max(self.p.machine.vcpus());
                    if self.p.range(&ty).1 < most {
                        let fault = Fault::at(e.span, format!("`{name}` is too small for {most}"));
                        return self.fail(fault.expected(format!("it is a `{ty}`")));
                    }
                    return Ok((name, reg));
                }
                Some(_) | None => {}
            }
        }
        let wanted = ref_to.map_or("an integer".to_owned(), |o| format!("a `{o} *`"));
        let fault = Fault::at(e.span, format!("`{e}` cannot be the loop's variable"));
        self.fail(fault.expected(format!("expected a local variable that is {wanted}")))
    }

    /// A mask that an expression names.
    pub(super) fn mask(&mut self, e: &'p Expr) -> Lowered<MaskRef> {
        match self.value(e)? {
            Value::Mask(m, Type::MaskPtr | Type::MaskVar) => Ok(m),
            Value::Mask(..) => {
                let fault = Fault::at(e.span, "expected a pointer to a mask");
                self.fail(fault.help(format!("take its address: `&{e}`")))
            }
            Value::Num(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing => {
                self.fail(Fault::at(e.span, format!("`{e}` is not a mask")))
            }
        }
    }

    /// The mask as it is named now, whatever happens to the variables that name it.
    fn keep_mask(&mut self, mask: MaskRef, span: Span) -> MaskRef {
        match mask {
            MaskRef::Shared(slot) => MaskRef::Shared(self.keep_slot(slot, span)),
            MaskRef::Local(_) | MaskRef::Fixed(_) | MaskRef::Full => mask,
        }
    }

    pub(super) fn hold(&mut self, name: &str, held: bool) {
        if let Some(binding) = self.local(name) {
            binding.held = held;
        }
    }

    pub(super) fn each_cpu(
        &mut self,
        cpu: &'p Expr,
        mask: MaskRef,
        filter: Option<(Filter, MaskRef)>,
        body: &'p Block,
        span: Span,
    ) -> Lowered<()> {
        let (name, reg) = self.moved(cpu, None)?;
        let end = self.p.machine.pcpus;
        let mask = self.keep_mask(mask, span);
        let filter = filter.map(|(filter, other)| (filter, self.keep_mask(other, span)));
        self.set(reg, Val::Const(0), span);
        let (head, inside, next, after) =
            (self.new_block(), self.new_block(), self.new_block(), self.new_block());
        self.jump(head, head, span);
        let found = match filter {
            None => self.next_from(mask, Val::Reg(reg), span),
            Some((filter, other)) => self.next_of(filter, mask, other, Val::Reg(reg), span),
        };
        self.push(Inst::Set { dst: reg, calc: Calc::Known { of: found, lo: 0, hi: end } }, span);
        let more = self.bin(BinOp::Lt, Val::Reg(reg), Val::Const(end), span);
        self.branch(more, inside, after, inside, span);
        self.hold(name, true);
        self.looped(body, after, next);
        self.hold(name, false);
        self.jump(next, next, span);
        self.text = self.s.places.text(span);
        let sum = self.bin(BinOp::Add, Val::Reg(reg), Val::Const(1), span);
        self.push(Inst::Set { dst: reg, calc: Calc::Known { of: sum, lo: 0, hi: end } }, span);
        self.jump(head, after, span);
        Ok(())
    }

    pub(super) fn each_vcpu(
        &mut self,
        index: &'p Expr,
        vcpu: &'p Expr,
        vm: &'p Expr,
        body: &'p Block,
        span: Span,
    ) -> Lowered<()> {
        let (index_name, count) = self.moved(index, None)?;
        let (vcpu_name, reg) = self.moved(vcpu, Some(Object::Vcpu))?;
        let (vm_value, ty) = self.number(vm)?;
        if ty != Type::Ref(Object::Vm) {
            return self.fail(Fault::at(vm.span, format!("expected a `struct kvm *`, found a `{ty}`")));
        }
        let vm_value = self.keep(vm_value, span);
        let end = self.p.machine.vcpus();
        let cursor = self.new_reg();
        self.set(count, Val::Const(0), span);
        self.set(cursor, Val::Const(0), span);
        let (head, test, inside) = (self.new_block(), self.new_block(), self.new_block());
        let (counted, next, after) = (self.new_block(), self.new_block(), self.new_block());
        self.jump(head, head, span);
        let more = self.bin(BinOp::Lt, Val::Reg(cursor), Val::Const(end), span);
        self.branch(more, test, after, test, span);
        let owner = self.calc(Calc::VmOf(Val::Reg(cursor)), span);
        let mine = self.bin(BinOp::Eq, owner, vm_value, span);
        self.branch(mine, inside, next, inside, span);
        let last = (end - 1).max(0);
        self.push(Inst::Set { dst: reg, calc: Calc::Known { of: Val::Reg(cursor), lo: 0, hi: last } }, span);
        self.hold(index_name, true);
        self.hold(vcpu_name, true);
        self.looped(body, after, counted);
        self.hold(index_name, false);
        self.hold(vcpu_name, false);
        self.jump(counted, counted, span);
        self.text = self.s.places.text(span);
        for (reg, block) in [(count, next), (cursor, head)] {
            let sum = self.bin(BinOp::Add, Val::Reg(reg), Val::Const(1), span);
            self.push(Inst::Set { dst: reg, calc: Calc::Known { of: sum, lo: 0, hi: end } }, span);
            self.jump(block, block, span);
        }
        self.cur = after;
        Ok(())
    }
}
