//! Objects that texts allocate: which variables name them, and who may hold a reference that no variable does.

use svm_lang::{Code, Type, VarKind, ast::Object};
use svm_policy::{Op, Pc, Prim, Scope};

use crate::machine::TaskSlots;

/// The objects of one structure.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The variable that says of each object whether it is there.
    pub(crate) state: u16,
    /// The variables that can refer to one.
    pub(crate) names: Vec<u16>,
}

/// What is known of a program's objects before it runs.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) pools: Vec<Pool>,
    /// By task: whether its texts, or those that the scheduler runs over it, use objects.
    pub(crate) users: Vec<bool>,
    /// Whether some handler of IPIs does.
    pub(crate) in_handlers: bool,
}

impl Objects {
    pub(crate) fn of(code: &Code, tasks: &[TaskSlots]) -> Objects {
        let kind = |at: usize| code.vars.get(at).map(|v| &v.kind);
        let names = |at: usize, pool: &str| {
            let named = |ty: &Type| *ty == Type::Opaque || *ty == Type::Ref(Object::Pool(pool.to_owned()));
            matches!(kind(at), Some(VarKind::Ref(ty)) if named(ty)) || code.vars[at].is_opaque
        };
        let all = || (0u16..).zip(&code.vars);
        let state_of = |pool: usize| {
            let states = |v: &svm_lang::Var| {
                v.object.is_none() && matches!(v.scope, Scope::PerObject(p) if usize::from(p) == pool)
            };
            all().find(|(_, v)| states(v)).map(|(at, _)| at)
        };
        let pools: Vec<Pool> = code
            .pools
            .iter()
            .enumerate()
            .filter_map(|(i, (name, _))| {
                let names = all().map(|(at, _)| at).filter(|at| names(usize::from(*at), name)).collect();
                Some(Pool { state: state_of(i)?, names })
            })
            .collect();
        let uses = |op: &Op| match op {
            Op::Prim { prim: Prim::AllocObject | Prim::FreeObject, .. } => true,
            Op::Load { place, .. } | Op::Store { place, .. } | Op::Rmw { place, .. } => {
                let at = usize::from(place.var.0);
                pools.iter().any(|p| p.names.contains(&place.var.0))
                    || matches!(code.vars[at].scope, Scope::PerObject(_))
            }
            Op::Set { .. }
            | Op::MaskPut { .. }
            | Op::Jump(_)
            | Op::Branch { .. }
            | Op::Window(_)
            | Op::Choose { .. }
            | Op::ChooseBit { .. }
            | Op::Lock { .. }
            | Op::Unlock { .. }
            | Op::Prim { .. }
            | Op::Halt => false,
        };
        // The operations of an entry are together.
        let entry_uses = |pc: Pc| {
            let starts = || code.entries.iter().map(|e| e.start);
            let from = starts().filter(|start| *start <= pc).max().unwrap_or(0);
            let to = starts().filter(|start| *start > pc).min().map_or(code.ops.len(), usize::from);
            code.ops[usize::from(from)..to].iter().any(uses)
        };
        let users = tasks.iter().map(|task| {
            let sched = task.vcpu.iter().flat_map(|v| &v.sched.rests);
            let repeats = task.repeats.iter().map(|entry| entry.start);
            task.main.rests.iter().chain(sched).map(|rest| rest.0).chain(repeats).any(entry_uses)
        });
        let users = users.collect();
        let in_handlers = code.callbacks.iter().any(|c| entry_uses(code.entries[usize::from(*c)].start));
        Objects { pools, users, in_handlers }
    }
}
