//! Statements, scopes and jumps.

use svm_policy::BinOp;

use super::{Around, Label, Loop, Lower, Lowered, MaskRef, Target, Value};
use crate::ast::{Block, Decl, Expr, Ident, Object, Span, Stmt, StmtKind, Type};
use crate::decl::{ONLINE_MASK, Program};
use crate::diag::Fault;
use crate::ir::{B, Val};

impl<'p> Lower<'p, '_, '_> {
    /// Finds the labels of a function's body, before any `goto` is met.
    pub(super) fn find_labels(&mut self, body: &'p Block) {
        let mut path = Vec::new();
        self.labels_of(body, &mut path);
    }

    fn labels_of(&mut self, block: &'p Block, path: &mut Vec<Around>) {
        path.push(Around { id: block.span.start, guards: 0, masks: 0 });
        for stmt in &block.stmts {
            match &stmt.kind {
                StmtKind::Label(label) => {
                    let found =
                        Label { block: self.new_block(), path: path.clone(), span: label.span, seen: false };
                    let twice = self
                        .frames
                        .last_mut()
                        .is_some_and(|frame| frame.labels.insert(&label.name, found).is_some());
                    if twice {
                        self.s
                            .faults
                            .push(Fault::at(label.span, format!("the label `{}` stands twice", label.name)));
                    }
                }
                StmtKind::Guard { .. } => {
                    if let Some(around) = path.last_mut() {
                        around.guards += 1;
                    }
                }
                StmtKind::Decl(decl) => {
                    if let Some(around) = path.last_mut()
                        && self.allocates(decl)
                    {
                        around.masks += 1;
                    }
                }
                StmtKind::Block(b)
                | StmtKind::While { body: b, .. }
                | StmtKind::DoWhile { body: b, .. }
                | StmtKind::For { body: b, .. }
                | StmtKind::Switch { body: b, .. }
                | StmtKind::ForEachCpu { body: b, .. }
                | StmtKind::ForEachPossibleCpu { body: b, .. }
                | StmtKind::ForEachOnlineCpu { body: b, .. }
                | StmtKind::ForEachVcpu { body: b, .. } => self.labels_of(b, path),
                StmtKind::If { then, otherwise, .. } => {
                    self.labels_of(then, path);
                    if let Some(b) = otherwise {
                        self.labels_of(b, path);
                    }
                }
                StmtKind::Empty
                | StmtKind::Expr(_)
                | StmtKind::Case(_)
                | StmtKind::Default
                | StmtKind::Break
                | StmtKind::Continue
                | StmtKind::Fallthrough
                | StmtKind::Goto(_)
                | StmtKind::Return(_) => {}
            }
        }
        path.pop();
    }

    /// A block with its scope.
    pub(super) fn block(&mut self, block: &'p Block) {
        self.push_scope(Some(block.span));
        for stmt in &block.stmts {
            self.stmt(stmt);
        }
        self.close(block);
    }

    fn close(&mut self, block: &Block) {
        let end = Span { start: block.span.end.saturating_sub(1), ..block.span };
        if self.scopes.last().is_some_and(|s| !s.cleanups.is_empty() || !s.masks.is_empty()) {
            self.text = self.s.places.text(end);
        }
        self.pop_scope(end);
    }

    /// One statement; its errors have been reported.
    pub(super) fn stmt(&mut self, stmt: &'p Stmt) {
        self.text = self.s.places.text(stmt.span);
        let _: Lowered<()> = self.deeper(stmt.span, |l| l.stmt_kind(stmt));
    }

    fn stmt_kind(&mut self, stmt: &'p Stmt) -> Lowered<()> {
        let span = stmt.span;
        match &stmt.kind {
            StmtKind::Empty => Ok(()),
            StmtKind::Block(block) => {
                self.block(block);
                Ok(())
            }
            StmtKind::Decl(decl) => self.decl(decl),
            StmtKind::Expr(e) => {
                self.alone = Some(e.span);
                self.value(e).map(drop)
            }
            StmtKind::If { cond, then, otherwise } => {
                let (yes, after) = (self.new_block(), self.new_block());
                let no = if otherwise.is_some() { self.new_block() } else { after };
                let known = self.cond(cond, yes, no, yes);
                self.cur = yes;
                self.block(then);
                self.jump(after, no, span);
                if let Some(block) = otherwise {
                    self.block(block);
                    self.jump(after, after, span);
                }
                known
            }
            StmtKind::While { cond, body } => {
                let (head, inside, after) = (self.new_block(), self.new_block(), self.new_block());
                self.jump(head, head, span);
                self.flow.loops.push((head, span));
                let known = self.cond(cond, inside, after, inside);
                self.cur = inside;
                self.looped(body, after, head);
                self.jump(head, after, span);
                known
            }
            StmtKind::DoWhile { body, cond } => {
                let (inside, test, after) = (self.new_block(), self.new_block(), self.new_block());
                self.jump(inside, inside, span);
                self.flow.loops.push((inside, span));
                self.looped(body, after, test);
                self.jump(test, test, span);
                self.text = self.s.places.text(span);
                let known = self.cond(cond, inside, after, after);
                self.cur = after;
                known
            }
            StmtKind::For { init, cond, step, body } => {
                self.for_loop(span, init.as_deref(), cond, step, body)
            }
            StmtKind::Switch { on, body } => self.switch(on, body, span),
            StmtKind::Case(_) | StmtKind::Default => {
                self.fail(Fault::at(span, "a label of a `switch` that is not directly in its block"))
            }
            StmtKind::Fallthrough => {
                let fault = Fault::at(span, "`fallthrough` does not fall anywhere");
                self.fail(fault.expected("expected directly before a `case` or `default`"))
            }
            StmtKind::Break => {
                let to = self.frames.last().and_then(|f| f.loops.last()).map(|l| (l.after, l.scopes));
                self.leave(to, "break", "a loop or `switch`", span)
            }
            StmtKind::Continue => {
                let to = self
                    .frames
                    .last()
                    .and_then(|f| f.loops.iter().rev().find_map(|l| l.next.map(|next| (next, l.scopes))));
                self.leave(to, "continue", "a loop", span)
            }
            StmtKind::Goto(label) => self.goto(label, span),
            StmtKind::Label(label) => {
                // who comes here by `goto` has not issued them
                self.scopes.iter_mut().for_each(|scope| scope.weak.clear());
                let Some(found) = self.frames.last_mut().and_then(|f| f.labels.get_mut(label.name.as_str()))
                else {
                    return Ok(());
                };
                let (block, seen) = (found.block, found.seen);
                found.seen = true;
                if !seen {
                    self.jump(block, block, span);
                }
                Ok(())
            }
            StmtKind::Return(value) => self.ret(value.as_ref(), span),
            StmtKind::Guard { kind, lock } => self.guard(*kind, lock, span),
            StmtKind::ForEachCpu { cpu, mask, filter, body } => {
                let mask = self.mask(mask)?;
                let filter = match filter {
                    Some((filter, other)) => Some((*filter, self.mask(other)?)),
                    None => None,
                };
                self.each_cpu(cpu, mask, filter, body, span)
            }
            StmtKind::ForEachPossibleCpu { cpu, body } => self.each_cpu(cpu, MaskRef::Full, None, body, span),
            StmtKind::ForEachOnlineCpu { cpu, body } => {
                let mask = match self.p.globals.get(ONLINE_MASK) {
                    Some(crate::decl::Global::Var(var)) => self.variable(*var, Val::Const(0)),
                    Some(_) | None => Target::Value(Value::Mask(MaskRef::Full, Type::MaskPtr)),
                };
                match mask {
                    Target::Value(Value::Mask(m, _)) => self.each_cpu(cpu, m, None, body, span),
                    Target::Value(_) | Target::Reg(..) | Target::Slot(..) | Target::Array(..) => Ok(()),
                }
            }
            StmtKind::ForEachVcpu { index, vcpu, vm, body } => self.each_vcpu(index, vcpu, vm, body, span),
        }
    }

    fn decl(&mut self, decl: &'p Decl) -> Lowered<()> {
        let name = &decl.name;
        let span = name.span;
        if self.scopes.last().is_some_and(|s| s.names.contains_key(name.name.as_str())) {
            return self.fail(Fault::at(span, format!("`{}` is declared twice in this block", name.name)));
        }
        let bound = self.declared(decl);
        let target = match bound {
            Ok(target) => target,
            Err(reported) => {
                // Bound all the same, so that its uses are no further errors.
                let target = if matches!(decl.ty, Type::Mask | Type::MaskVar | Type::MaskPtr) {
                    Target::Value(Value::Mask(MaskRef::Local(self.new_mask()), decl.ty.clone()))
                } else {
                    Target::Reg(self.new_reg(), decl.ty.clone())
                };
                self.bind(&name.name, target);
                return Err(reported);
            }
        };
        self.bind(&name.name, target);
        Ok(())
    }

    /// Whether it declares a local mask that the function allocates.
    fn allocates(&self, decl: &Decl) -> bool {
        decl.ty == Type::MaskVar
            && self.frames.last().is_some_and(|frame| frame.allocates.contains(decl.name.name.as_str()))
    }

    fn declared(&mut self, decl: &'p Decl) -> Lowered<Target> {
        let span = decl.name.span;
        if let Some(len) = &decl.array {
            let fault = Fault::at(len.span, "a local cannot be an array");
            return self.fail(fault.help("declare the array at top level, or in a structure"));
        }
        if let Some(fault) = self.p.unknown(&decl.ty, span) {
            return self.fail(fault);
        }
        match &decl.ty {
            Type::Bool | Type::Int(_) | Type::Enum(_) | Type::Ref(_) | Type::Opaque => {
                let reg = self.new_reg();
                if let Type::Ref(Object::Pool(_)) = decl.ty {
                    // `kzalloc(sizeof(*r), ...)` may be what it starts as.
                    self.bind(&decl.name.name, Target::Reg(reg, decl.ty.clone()));
                }
                let v = match &decl.init {
                    None => match Self::nothing_of(&decl.ty) {
                        Value::Num(v, _) => v,
                        Value::Mask(..) | Value::Lock(..) | Value::Func(_) | Value::Nothing => Val::Const(0),
                    },
                    Some(init) => {
                        let (v, ty) = self.number(init)?;
                        self.truth_value(init, v, &decl.ty)?;
                        self.convert(v, &ty, &decl.ty, init.span)?
                    }
                };
                self.set(reg, v, span);
                Ok(Target::Reg(reg, decl.ty.clone()))
            }
            Type::Mask | Type::MaskVar => {
                if let Some(init) = &decl.init {
                    let fault =
                        Fault::at(init.span, "a local mask starts empty").expected("unexpected initialiser");
                    return self.fail(fault.help("fill it with `cpumask_copy`"));
                }
                let mask = self.new_mask();
                for reg in mask.regs() {
                    self.set(reg, Val::Const(0), span);
                }
                if self.allocates(decl) {
                    self.track(mask, &decl.name);
                }
                Ok(Target::Value(Value::Mask(MaskRef::Local(mask), decl.ty.clone())))
            }
            Type::MaskPtr | Type::LockPtr(_) | Type::Func => {
                let Some(init) = &decl.init else {
                    let fault = Fault::at(span, format!("`{}` points nowhere", decl.name.name));
                    return self.fail(
                        fault
                            .expected("expected an initialiser")
                            .help("such a local always names the same thing"),
                    );
                };
                match (self.value(init)?, &decl.ty) {
                    (Value::Mask(MaskRef::Shared(slot), Type::MaskPtr | Type::MaskVar), Type::MaskPtr) => {
                        let slot = self.keep_slot(slot, span);
                        Ok(Target::Value(Value::Mask(MaskRef::Shared(slot), Type::MaskPtr)))
                    }
                    (Value::Mask(m, Type::MaskPtr | Type::MaskVar), Type::MaskPtr) => {
                        Ok(Target::Value(Value::Mask(m, Type::MaskPtr)))
                    }
                    (Value::Lock(slot, kind, true), Type::LockPtr(k)) if kind == *k => {
                        let slot = self.keep_slot(slot, span);
                        Ok(Target::Value(Value::Lock(slot, kind, true)))
                    }
                    (Value::Func(f), Type::Func) => {
                        self.sendable(f, init.span)?;
                        Ok(Target::Value(Value::Func(f)))
                    }
                    (other, ty) => {
                        let fault = Fault::at(init.span, format!("expected a `{ty}`"));
                        self.fail(fault.expected(format!("this is {}", super::expr::what(&other))))
                    }
                }
            }
            Type::Void | Type::Atomic | Type::Lock(_) => {
                let fault = Fault::at(span, format!("a local cannot be a `{}`", decl.ty));
                self.fail(
                    fault
                        .expected("it would be shared with nobody")
                        .help("declare it at top level or in a structure"),
                )
            }
        }
    }

    fn switch(&mut self, on: &'p Expr, body: &'p Block, span: Span) -> Lowered<()> {
        let (v, ty) = self.number(on)?;
        if !Program::is_number(&ty) {
            return self
                .fail(Fault::at(on.span, format!("`{on}` is a `{ty}`")).expected("expected a number"));
        }
        let v = self.keep(v, on.span);
        let after = self.new_block();
        let mut cases: Vec<(Option<i64>, B)> = Vec::new();
        for stmt in &body.stmts {
            let value = if let StmtKind::Case(e) = &stmt.kind {
                match self.number(e)? {
                    (Val::Const(n), ty) if Program::is_number(&ty) => Some(n),
                    (Val::Const(_) | Val::Reg(_), _) => {
                        return self.fail(Fault::at(e.span, format!("`{e}` is not a constant number")));
                    }
                }
            } else if matches!(stmt.kind, StmtKind::Default) {
                None
            } else {
                continue;
            };
            if cases.iter().any(|(other, _)| *other == value) {
                return self.fail(Fault::at(stmt.span, "the `switch` has this label already"));
            }
            let block = self.new_block();
            cases.push((value, block));
        }
        for (value, block) in &cases {
            if let Some(n) = value {
                let next = self.new_block();
                let same = self.bin(BinOp::Eq, v, Val::Const(*n), span);
                self.branch(same, *block, next, next, span);
            }
        }
        let default = cases.iter().find(|(value, _)| value.is_none()).map_or(after, |(_, b)| *b);
        let nowhere = self.new_block();
        self.jump(default, nowhere, span);
        let scopes = self.scopes.len();
        if let Some(frame) = self.frames.last_mut() {
            frame.loops.push(Loop { after, next: None, scopes });
        }
        self.push_scope(Some(body.span));
        let mut labels = cases.iter();
        for (i, stmt) in body.stmts.iter().enumerate() {
            let label = |s: &Stmt| matches!(s.kind, StmtKind::Case(_) | StmtKind::Default);
            if label(stmt) {
                self.scopes.iter_mut().for_each(|scope| scope.weak.clear());
                if let Some((_, block)) = labels.next() {
                    self.jump(*block, *block, stmt.span);
                }
            } else if !(stmt.kind == StmtKind::Fallthrough && body.stmts.get(i + 1).is_some_and(label)) {
                self.stmt(stmt);
            }
        }
        self.close(body);
        if let Some(frame) = self.frames.last_mut() {
            frame.loops.pop();
        }
        self.jump(after, after, span);
        Ok(())
    }

    /// Gives back what the scopes from `depth` on guard, the innermost first.
    pub(super) fn unwind(&mut self, depth: usize, span: Span) {
        for i in (depth..self.scopes.len()).rev() {
            self.unwind_scope(i, 0, 0, span);
        }
    }

    /// Leaves what a scope guards and allocates behind the first `guards` and `masks`.
    fn unwind_scope(&mut self, scope: usize, guards: usize, masks: usize, span: Span) {
        for mask in self.scopes[scope].masks.iter().skip(masks).copied().collect::<Vec<_>>() {
            self.leak(mask, span);
        }
        let cleanups = self.scopes[scope].cleanups[guards..].to_vec();
        for (held, taken) in cleanups.into_iter().rev() {
            self.give_back(held, if span.end > 0 { span } else { taken });
        }
    }

    fn leave(&mut self, to: Option<(B, usize)>, word: &str, from: &str, span: Span) -> Lowered<()> {
        let Some((block, scopes)) = to else {
            return self.fail(Fault::at(span, format!("`{word}` outside of {from}")));
        };
        self.unwind(scopes, span);
        let nowhere = self.new_block();
        self.jump(block, nowhere, span);
        Ok(())
    }

    fn goto(&mut self, label: &'p Ident, span: Span) -> Lowered<()> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let Some(Label { block, path, seen, span: place, .. }) =
            frame.labels.get(label.name.as_str()).cloned()
        else {
            let help = self.nearest(&label.name, frame.labels.keys());
            return self.fail(
                Fault::at(label.span, format!("no label `{}` in this function", label.name)).help_if(help),
            );
        };
        // Blocks of the text around the `goto`, from the outermost of the function.
        let around: Vec<(usize, u32)> =
            (frame.scopes..self.scopes.len()).filter_map(|i| self.scopes[i].id.map(|id| (i, id))).collect();
        let common = around.iter().zip(&path).take_while(|((_, id), path)| *id == path.id).count();
        let Some(&(scope, _)) = around.get(common.wrapping_sub(1)) else { return Ok(()) };
        let Around { guards, masks, .. } = path[common - 1];
        if guards > self.scopes[scope].cleanups.len() || path[common..].iter().any(|a| a.guards > 0) {
            let fault = Fault::at(span, format!("`goto {}` jumps into the scope of a guard", label.name));
            return self.fail(fault.help("the guard's lock would be given back without having been taken"));
        }
        self.unwind(scope + 1, span);
        self.unwind_scope(scope, guards, masks, span);
        if seen {
            self.flow.loops.push((block, place));
        }
        let nowhere = self.new_block();
        self.jump(block, nowhere, span);
        Ok(())
    }

    fn ret(&mut self, value: Option<&'p Expr>, span: Span) -> Lowered<()> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (result, exit, scopes) = (frame.result.clone(), frame.exit, frame.scopes);
        let name = &self.p.funcs[frame.func].head.name.name;
        match (value, result) {
            (None, None) => {}
            (Some(e), Some((reg, ty))) => {
                let (v, from) = self.number(e)?;
                let v = self.convert(v, &from, &ty, e.span)?;
                self.set(reg, v, span);
            }
            (Some(e), None) => {
                // `return f();` of a void function in a void function is allowed in the kernel's C.
                if self.value(e)? != Value::Nothing {
                    return self.fail(
                        Fault::at(e.span, format!("`{name}` returns `void`")).expected("unexpected value"),
                    );
                }
            }
            (None, Some((_, ty))) => {
                let fault = Fault::at(span, format!("`{name}` returns a `{ty}`"));
                return self.fail(fault.expected("expected a value"));
            }
        }
        self.unwind(scopes, span);
        let nowhere = self.new_block();
        self.jump(exit, nowhere, span);
        Ok(())
    }
}
