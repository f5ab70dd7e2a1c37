//! Finds loops that can never end and never give way: nobody else could run meanwhile, so nothing would change.

use crate::ast::Span;
use crate::diag::Fault;
use crate::ir::{B, End, Flow, Inst, V, Val};
use crate::live::{Set, liveness};

/// Reports every loop without a shared step or choice whose conditions to leave depend on nothing that it assigns.
pub(crate) fn check(flow: &Flow, faults: &mut Vec<Fault>) {
    let mut before: Vec<Vec<B>> = vec![Vec::new(); flow.blocks.len()];
    for (i, block) in flow.blocks.iter().enumerate() {
        for next in block.end.targets() {
            before[next].push(i);
        }
    }
    let (_, live_in) = liveness(flow);
    let mut told: Vec<Span> = Vec::new();
    for (head, span) in &flow.loops {
        let body = natural_loop(flow, &before, *head);
        if body.iter().any(|inside| *inside) && is_endless(flow, &body, &live_in[*head]) {
            let known = told.iter().any(|s| (s.file, s.start) == (span.file, span.start));
            if !known {
                told.push(*span);
                faults.push(
                    Fault::at(*span, "endless loop without a shared step")
                        .expected("nothing it waits for can change while it runs")
                        .help("read a shared variable in it (`READ_ONCE`), change its condition, or leave it with `break`"),
                );
            }
        }
    }
}

/// The blocks of the loop with this head; none if nothing leads back to it.
fn natural_loop(flow: &Flow, before: &[Vec<B>], head: B) -> Vec<bool> {
    let count = flow.blocks.len();
    let mut ahead = vec![false; count];
    let mut stack = vec![head];
    while let Some(b) = stack.pop() {
        for next in flow.blocks[b].end.targets() {
            if !ahead[next] {
                ahead[next] = true;
                stack.push(next);
            }
        }
    }
    let mut body = vec![false; count];
    if !ahead[head] {
        return body;
    }
    body[head] = true;
    let mut stack: Vec<B> = before[head].iter().copied().filter(|b| ahead[*b]).collect();
    while let Some(b) = stack.pop() {
        if !body[b] {
            body[b] = true;
            stack.extend(before[b].iter().copied().filter(|p| ahead[*p]));
        }
    }
    body
}

fn is_endless(flow: &Flow, body: &[bool], live_at_head: &Set) -> bool {
    let inside = || flow.blocks.iter().zip(body).filter(|(_, inside)| **inside).map(|(b, _)| b);
    if inside().any(|b| b.insts.iter().any(|(inst, _)| inst.gives_way())) {
        return false;
    }
    let regs = flow.regs.len();
    // What each register is computed from in the loop; `None` if it is assigned more than once.
    let mut made: Vec<Option<Vec<V>>> = vec![Some(Vec::new()); regs];
    let mut is_made = vec![false; regs];
    for block in inside() {
        for (inst, _) in &block.insts {
            let mut from = Vec::new();
            inst.uses(&mut |v| from.push(v));
            inst.changes(&mut |v| {
                let i = usize::try_from(v).unwrap_or(0);
                let again = is_made[i] || live_at_head.has(v) || matches!(inst, Inst::MaskPut { .. });
                made[i] = if again { None } else { Some(from.clone()) };
                is_made[i] = true;
            });
        }
    }
    let mut varies = vec![false; regs];
    for (v, from) in varies.iter_mut().zip(&made) {
        *v = from.is_none();
    }
    let mut changed = true;
    while changed {
        changed = false;
        for (v, from) in made.iter().enumerate() {
            let now = from
                .as_ref()
                .is_none_or(|from| from.iter().any(|f| varies[usize::try_from(*f).unwrap_or(0)]));
            if now && !varies[v] {
                varies[v] = true;
                changed = true;
            }
        }
    }
    inside().all(|block| match block.end {
        End::Branch { cond: Val::Reg(r), then, otherwise } => {
            (body[then] && body[otherwise]) || !varies[usize::try_from(r).unwrap_or(0)]
        }
        End::Branch { cond: Val::Const(_), .. } | End::Jump(_) => true,
        // A context that ends has left every loop.
        End::Halt => false,
    })
}
