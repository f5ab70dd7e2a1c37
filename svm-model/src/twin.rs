//! The "sometimes" twins: what must happen on some way, lest a *holds* say nothing.

use svm_lang::{Entry, VarKind};
use svm_policy::{Op, Operand, Pc, Prim, RmwOp};

use crate::machine::Machine;

/// What a search should meet before it may say that nothing goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Twin {
    /// A page was taken away, or flushed, while a guest's line of it was dirty: the twin of every event about lines.
    DirtyReclaimed,
    /// A flush's IPI was sent to a pCPU that was running a guest.
    IpiMetGuest,
    /// A task began to write caches back while another had not ended doing so.
    FlushersOverlapped,
}

impl Twin {
    /// All of them.
    pub const ALL: [Twin; 3] = [Twin::DirtyReclaimed, Twin::IpiMetGuest, Twin::FlushersOverlapped];

    /// As in JSON and litmus files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Twin::DirtyReclaimed => "dirty-reclaimed",
            Twin::IpiMetGuest => "ipi-met-guest",
            Twin::FlushersOverlapped => "flushers-overlapped",
        }
    }

    /// The twin of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Twin> {
        Twin::ALL.into_iter().find(|t| t.name() == name)
    }

    /// In words, as what did or did not happen.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Twin::DirtyReclaimed => "a page was reclaimed or flushed while a guest's line of it was dirty",
            Twin::IpiMetGuest => "the IPI of a flush was sent to a pCPU that was running a guest",
            Twin::FlushersOverlapped => "two flushers overlapped",
        }
    }

    /// Its bit in [`Notes::twins`](crate::label::Notes::twins).
    pub(crate) const fn bit(self) -> u8 {
        match self {
            Twin::DirtyReclaimed => 1,
            Twin::IpiMetGuest => 2,
            Twin::FlushersOverlapped => 4,
        }
    }
}

/// What is known of the texts before the search.
#[derive(Clone, Debug, Default)]
pub(crate) struct TwinTables {
    /// By operation: whether a context that rests there is between `trace_sev_writeback(true)` and `(false)`.
    pub(crate) writing: Vec<bool>,
    /// By callback: whether it flushes.
    pub(crate) flushing: Vec<bool>,
}

impl TwinTables {
    pub(crate) fn of(ops: &[Op], entries: &[Entry], callbacks: &[u16]) -> TwinTables {
        let traced = |op: &Op, on: i64| matches!(op, Op::Prim { prim: Prim::TraceWriteback, args, .. } if args[0] == Operand::Const(on));
        let begins: Vec<usize> = (0..ops.len()).filter(|at| traced(&ops[*at], 1)).map(|at| at + 1).collect();
        let writing = reach(ops, begins, &|op| traced(op, 0));
        let flushes = |callback: &u16| {
            let start = entries.get(usize::from(*callback)).map_or(0, |e| usize::from(e.start));
            let reached = reach(ops, vec![start], &|_| false);
            ops.iter().zip(reached).any(|(op, reached)| {
                reached && matches!(op, Op::Prim { prim: Prim::FlushShared | Prim::FlushPrivate, .. })
            })
        };
        TwinTables { writing, flushing: callbacks.iter().map(flushes).collect() }
    }
}

/// The operations that can come after some, up to those that `ends`, these included.
fn reach(ops: &[Op], from: Vec<usize>, ends: &dyn Fn(&Op) -> bool) -> Vec<bool> {
    let mut reached = vec![false; ops.len()];
    let mut open = from;
    while let Some(at) = open.pop() {
        let Some(op) = ops.get(at) else { continue };
        if std::mem::replace(&mut reached[at], true) || ends(op) {
            continue;
        }
        match op {
            Op::Jump(to) => open.push(usize::from(*to)),
            Op::Branch { then, otherwise, .. } => open.extend([usize::from(*then), usize::from(*otherwise)]),
            Op::Halt => {}
            Op::Set { .. }
            | Op::MaskPut { .. }
            | Op::Window(_)
            | Op::Choose { .. }
            | Op::ChooseBit { .. }
            | Op::Load { .. }
            | Op::Store { .. }
            | Op::Rmw { .. }
            | Op::Lock { .. }
            | Op::Unlock { .. }
            | Op::Prim { .. } => open.push(at + 1),
        }
    }
    reached
}

impl Machine {
    /// The names of the locks that the texts take, in the order in which they are declared.
    #[must_use]
    pub fn locks(&self) -> Vec<String> {
        let taken = |at: usize| {
            self.code.ops.iter().any(|op| {
                matches!(op, Op::Lock { place, .. } | Op::Rmw { place, op: RmwOp::TryLock(_), .. }
                    if usize::from(place.var.0) == at)
            })
        };
        let excludes = |kind: &VarKind| {
            matches!(kind, VarKind::Mutex | VarKind::Spin | VarKind::Rwlock | VarKind::Rwsem)
        };
        let locks = self.code.vars.iter().enumerate().filter(|(at, v)| excludes(&v.kind) && taken(*at));
        locks.map(|(_, v)| v.name.clone()).collect()
    }

    /// Whether some text flushes whole caches.
    #[must_use]
    pub fn flushes(&self) -> bool {
        let shared = |op: &Op| matches!(op, Op::Prim { prim: Prim::FlushShared, .. });
        self.code.ops.iter().any(shared)
    }

    /// The twins that this model could show: not those whose actors it does not have.
    #[must_use]
    pub fn twins(&self) -> Vec<Twin> {
        let ops = &self.code.ops;
        let has = |wanted: &[Prim]| {
            ops.iter().any(|op| matches!(op, Op::Prim { prim, .. } if wanted.contains(prim)))
        };
        let writes_back = |start: Pc| {
            let reached = reach(ops, vec![usize::from(start)], &|_| false);
            let traced = |op: &Op| matches!(op, Op::Prim { prim: Prim::TraceWriteback, .. });
            ops.iter().zip(reached).any(|(op, reached)| reached && traced(op))
        };
        let flushers = self.tasks.iter().zip(&self.spec.tasks).filter(|(slots, task)| {
            let name = match &task.kind {
                crate::spec::TaskKind::Vcpu { thread, .. } => thread,
                crate::spec::TaskKind::Host { entry }
                | crate::spec::TaskKind::Device { entry }
                | crate::spec::TaskKind::Reclaimer { entry, .. } => entry,
            };
            let entry = self.code.entries.iter().find(|e| e.name == *name);
            slots.on.is_some() && entry.is_some_and(|e| writes_back(e.start))
        });
        let guests = self.tasks.iter().any(|t| t.vcpu.is_some());
        // A shared page's lines are the host's.
        let own = (0u32..).zip(&self.spec.pages).any(|(page, _)| !self.spec.guests.shared.contains(&page));
        let pages = own && has(&[Prim::FreePage, Prim::UserReuse, Prim::MovePages]);
        let ipis = guests && has(&[Prim::SendCall]) && self.twin_tables.flushing.contains(&true);
        let shown = [pages, ipis, flushers.count() > 1];
        Twin::ALL.into_iter().zip(shown).filter(|(_, shown)| *shown).map(|(twin, _)| twin).collect()
    }
}
