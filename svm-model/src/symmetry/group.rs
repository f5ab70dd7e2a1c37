//! Permutations of a model's objects, and which of them the litmus test and the texts treat alike.

use std::collections::BTreeSet;

use sev_arch::VcpuId;
use svm_policy::{BinOp, Expr, Op, Operand, Pc, Place, Prim};

use super::kinds::{Kind, Kinds, of_args, of_scope};
use crate::label::Actor;
use crate::machine::Machine;
use crate::spec::{Guest, TaskKind};

/// New names: thing `i` becomes thing `pcpus[i]`, and so on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Permutation {
    pub(crate) pcpus: Vec<usize>,
    pub(crate) tasks: Vec<usize>,
    pub(crate) vms: Vec<usize>,
    pub(crate) pages: Vec<usize>,
    /// What follows from these: vCPUs from tasks, cores and CCXs from pCPUs, ASIDs from VMs.
    pub(crate) vcpus: Vec<usize>,
    pub(crate) cores: Vec<usize>,
    pub(crate) ccxs: Vec<usize>,
    pub(crate) asids: Vec<usize>,
}

fn image(of: &[usize], value: i64) -> i64 {
    let to = usize::try_from(value).ok().and_then(|v| of.get(v));
    to.and_then(|to| i64::try_from(*to).ok()).unwrap_or(value)
}

fn count(of: &[usize]) -> i64 {
    i64::try_from(of.len()).unwrap_or(i64::MAX)
}

/// The image of each of `to`, where `from[i]` becomes `to[of[i]]`; none if two images of one thing differ.
fn induced(size: usize, pairs: impl Iterator<Item = (usize, usize)>) -> Option<Vec<usize>> {
    let mut images: Vec<Option<usize>> = vec![None; size];
    for (from, to) in pairs {
        if *images.get_mut(from)?.get_or_insert(to) != to {
            return None;
        }
    }
    // What nothing stands for stays.
    let images: Vec<usize> = images.iter().enumerate().map(|(i, to)| to.unwrap_or(i)).collect();
    let distinct: BTreeSet<usize> = images.iter().copied().collect();
    (distinct.len() == size && distinct.last().is_none_or(|last| *last < size)).then_some(images)
}

impl Permutation {
    /// The new name of a value.
    pub(crate) fn value(&self, kind: Kind, value: i64) -> i64 {
        match kind {
            Kind::Plain => value,
            Kind::Pcpu => image(&self.pcpus, value),
            Kind::Vcpu => image(&self.vcpus, value),
            Kind::Vm => image(&self.vms, value),
            Kind::Page => image(&self.pages, value),
            Kind::Asid => image(&self.asids, value),
            Kind::Task => image(&self.tasks, value),
            Kind::Exit => image(&self.pages, value - 2) + 2,
            Kind::Mask => {
                let bit = |p: usize| (value >> p & 1) << self.pcpus[p];
                (0..self.pcpus.len().min(63)).fold(0, |mask, p| mask | bit(p))
            }
            Kind::Holder if value > 0 => {
                let tasks = count(&self.tasks);
                let to = if value <= tasks {
                    image(&self.tasks, value - 1)
                } else {
                    tasks + image(&self.pcpus, value - 1 - tasks)
                };
                to + 1
            }
            Kind::Holder => value,
            Kind::Writer if value < 0 => -self.value(Kind::Holder, -value),
            Kind::Writer => value,
            Kind::Handling if value > 0 => 1 + 2 * image(&self.tasks, (value - 1) / 2) + (value - 1) % 2,
            Kind::Handling => value,
            Kind::Owner => {
                let vms = count(&self.vms);
                if value < vms {
                    image(&self.vms, value)
                } else if value >= vms + 3 {
                    vms + 3 + image(&self.vms, value - vms - 3)
                } else {
                    value
                }
            }
            Kind::Key => {
                let tags = count(&self.asids).max(1);
                value / tags * tags + image(&self.asids, value % tags)
            }
        }
    }

    /// An actor's new name.
    pub(crate) fn actor(&self, actor: Actor) -> Actor {
        let to =
            |of: &[usize], i: u16| of.get(usize::from(i)).and_then(|to| u16::try_from(*to).ok()).unwrap_or(i);
        match actor {
            Actor::Task(t) => Actor::Task(to(&self.tasks, t)),
            Actor::Preempt(t) => Actor::Preempt(to(&self.tasks, t)),
            Actor::Irq(p) => Actor::Irq(to(&self.pcpus, p)),
            Actor::Buffer(p) => Actor::Buffer(to(&self.pcpus, p)),
            Actor::Cache | Actor::World => actor,
        }
    }

    /// This one after another.
    pub(crate) fn after(&self, first: &Permutation) -> Permutation {
        let then = |a: &[usize], b: &[usize]| b.iter().map(|i| a[*i]).collect();
        Permutation {
            pcpus: then(&self.pcpus, &first.pcpus),
            tasks: then(&self.tasks, &first.tasks),
            vms: then(&self.vms, &first.vms),
            pages: then(&self.pages, &first.pages),
            vcpus: then(&self.vcpus, &first.vcpus),
            cores: then(&self.cores, &first.cores),
            ccxs: then(&self.ccxs, &first.ccxs),
            asids: then(&self.asids, &first.asids),
        }
    }

    /// Whether everything keeps its name.
    pub(crate) fn is_identity(&self) -> bool {
        let stays = |of: &[usize]| of.iter().enumerate().all(|(i, to)| i == *to);
        [&self.pcpus, &self.tasks, &self.vms, &self.pages].iter().all(|of| stays(of))
    }
}

/// Objects of a sort up to which permutations of it are tried.
const MOST: usize = 6;
/// Permutations that a search works with, at most.
pub(crate) const ELEMENTS: usize = 1024;

/// Every permutation of `0..n` that `fits` position by position: `fits(chosen so far, next image)`.
fn permutations(n: usize, fits: &dyn Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    fn go(n: usize, so_far: &mut Vec<usize>, fits: &dyn Fn(usize, usize) -> bool, out: &mut Vec<Vec<usize>>) {
        if so_far.len() == n {
            out.push(so_far.clone());
            return;
        }
        for to in 0..n {
            if !so_far.contains(&to) && fits(so_far.len(), to) {
                so_far.push(to);
                go(n, so_far, fits, out);
                so_far.pop();
            }
        }
    }
    if n > MOST {
        return vec![(0..n).collect()];
    }
    let mut out = Vec::new();
    go(n, &mut Vec::new(), fits, &mut out);
    out
}

/// Those permutations under which the description of the model and its texts stay as they are. The identity comes
/// first; they are closed under composition.
pub(crate) fn alike(machine: &Machine, kinds: &Kinds) -> Vec<Permutation> {
    let spec = &machine.spec;
    let pcpus = spec.core_of.len();
    let plain = machine.firmware.is_none() && machine.tlb_pages == 1;
    let vms = permutations(usize::from(spec.vms), &|a, b| a == b || plain && vms_alike(machine, a, b));
    let pages = permutations(spec.pages.len(), &|a, b| a == b || plain && pages_alike(machine, a, b));
    let tasks = permutations(spec.tasks.len(), &|a, b| a == b || tasks_alike(machine, a, b));
    // A kernel's own order over pCPUs, where a text takes one, makes them differ.
    let ordered = machine.code.ops.iter().any(|op| matches!(op, Op::Set { rhs: Expr::MaskNext { .. }, .. }))
        || machine.code.vars.iter().any(|v| v.kind == svm_lang::VarKind::Mask && v.words > 1);
    let free = plain && !ordered;
    let size = |p: usize| spec.core_of.iter().filter(|c| **c == spec.core_of[p]).count();
    let pcpus = permutations(pcpus, &|a, b| a == b || free && size(a) == size(b));
    let mut found = Vec::new();
    for vms in &vms {
        let Some(asids) = asids_of(machine, vms) else { continue };
        for pages in pages.iter().filter(|pages| pages_fit(machine, vms, pages)) {
            for tasks in &tasks {
                let Some(vcpus) = vcpus_of(machine, vms, pages, tasks) else { continue };
                for pcpus in &pcpus {
                    let Some((cores, ccxs)) = cores_of(machine, pcpus) else { continue };
                    let permutation = Permutation {
                        pcpus: pcpus.clone(),
                        tasks: tasks.clone(),
                        vms: vms.clone(),
                        pages: pages.clone(),
                        vcpus: vcpus.clone(),
                        cores,
                        ccxs,
                        asids: asids.clone(),
                    };
                    if pinned(machine, &permutation) && texts_alike(machine, kinds, &permutation) {
                        found.push(permutation);
                    }
                    if found.len() > ELEMENTS {
                        return found[..1].to_vec();
                    }
                }
            }
        }
    }
    found
}

fn vms_alike(machine: &Machine, a: usize, b: usize) -> bool {
    let of = |vm: usize| machine.spec.vm(sev_arch::VmId(u16::try_from(vm).unwrap_or(u16::MAX)));
    of(a).kind == of(b).kind && (of(a).asid == 0) == (of(b).asid == 0)
}

fn pages_alike(machine: &Machine, a: usize, b: usize) -> bool {
    let spec = &machine.spec;
    let number = |p: usize| u32::try_from(p).unwrap_or(u32::MAX);
    let (a, b) = (number(a), number(b));
    spec.mapped.contains(&a) == spec.mapped.contains(&b)
        && spec.is_shared(a) == spec.is_shared(b)
        && spec.is_vmsa(a) == spec.is_vmsa(b)
}

fn tasks_alike(machine: &Machine, a: usize, b: usize) -> bool {
    let (a, b) = (&machine.spec.tasks[a], &machine.spec.tasks[b]);
    let kinds = match (&a.kind, &b.kind) {
        (TaskKind::Vcpu { thread: a, guest: x, .. }, TaskKind::Vcpu { thread: b, guest: y, .. }) => {
            a == b && (*x == Guest::Any) == (*y == Guest::Any)
        }
        (TaskKind::Host { .. }, TaskKind::Host { .. }) => true,
        (TaskKind::Device { .. }, TaskKind::Device { .. }) => true,
        (TaskKind::Reclaimer { entry: a, .. }, TaskKind::Reclaimer { entry: b, .. }) => a == b,
        _ => false,
    };
    kinds && a.pcpus.len() == b.pcpus.len()
}

fn asids_of(machine: &Machine, vms: &[usize]) -> Option<Vec<usize>> {
    let spec = &machine.spec;
    let asid = |vm: usize| usize::from(spec.vm(sev_arch::VmId(u16::try_from(vm).unwrap_or(0))).asid);
    let pairs = (0..vms.len()).map(|vm| (asid(vm), asid(vms[vm])));
    induced(usize::from(spec.asids()), std::iter::once((0, 0)).chain(pairs))
}

fn pages_fit(machine: &Machine, vms: &[usize], pages: &[usize]) -> bool {
    let owner = |page: usize| machine.spec.pages[page].1.index();
    (0..pages.len()).all(|page| owner(pages[page]) == vms[owner(page)])
}

/// The vCPUs as their tasks go; their VMs and VMSAs must go with them.
fn vcpus_of(machine: &Machine, vms: &[usize], pages: &[usize], tasks: &[usize]) -> Option<Vec<usize>> {
    let spec = &machine.spec;
    let vcpu = |task: usize| match &spec.tasks[task].kind {
        TaskKind::Vcpu { vcpu, .. } => Some(vcpu.index()),
        TaskKind::Host { .. } | TaskKind::Reclaimer { .. } | TaskKind::Device { .. } => None,
    };
    let reclaims = |task: usize| match &spec.tasks[task].kind {
        TaskKind::Reclaimer { vm, .. } => Some(vm.index()),
        TaskKind::Host { .. } | TaskKind::Vcpu { .. } | TaskKind::Device { .. } => None,
    };
    if (0..tasks.len()).any(|t| reclaims(t).map(|vm| vms[vm]) != reclaims(tasks[t])) {
        return None;
    }
    let pairs = (0..tasks.len()).filter_map(|t| Some((vcpu(t)?, vcpu(tasks[t])?)));
    let vcpus = induced(spec.vcpu_vm.len(), pairs)?;
    let vm = |v: usize| spec.vcpu_vm[v].index();
    let vmsa = |v: usize| spec.vmsa_of(VcpuId(u16::try_from(v).unwrap_or(u16::MAX)));
    let fits = |v: usize| {
        vm(vcpus[v]) == vms[vm(v)] && vmsa(v).map(|p| pages[p as usize]) == vmsa(vcpus[v]).map(|p| p as usize)
    };
    (0..vcpus.len()).all(fits).then_some(vcpus)
}

/// Cores and CCXs as their pCPUs go.
fn cores_of(machine: &Machine, pcpus: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
    let spec = &machine.spec;
    let ccx_of = &spec.shape.ccx_of_core;
    let pairs = (0..pcpus.len()).map(|p| (spec.core_of[p].index(), spec.core_of[pcpus[p]].index()));
    let cores = induced(ccx_of.len(), pairs)?;
    let ccxs = (0..cores.len()).map(|c| (ccx_of[c].index(), ccx_of[cores[c]].index()));
    let ccxs = induced(usize::from(spec.shape.ccxs), ccxs)?;
    Some((cores, ccxs))
}

/// Whether tasks may run where their images may.
fn pinned(machine: &Machine, permutation: &Permutation) -> bool {
    let tasks = &machine.spec.tasks;
    tasks.iter().zip(&permutation.tasks).all(|(task, to)| {
        let moved: BTreeSet<usize> = task.pcpus.iter().map(|p| permutation.pcpus[p.index()]).collect();
        moved == tasks[*to].pcpus.iter().map(|p| p.index()).collect()
    })
}

/// The functions that a task runs: its own, and its guest's.
fn functions(kind: &TaskKind) -> (&str, Option<&str>) {
    match kind {
        TaskKind::Vcpu { thread, guest: Guest::Program(guest), .. } => (thread, Some(guest)),
        TaskKind::Vcpu { thread, guest: Guest::Any, .. } => (thread, None),
        TaskKind::Host { entry } | TaskKind::Device { entry } | TaskKind::Reclaimer { entry, .. } => {
            (entry, None)
        }
    }
}

/// Whether what each task runs becomes what its image runs, and what all run stays.
fn texts_alike(machine: &Machine, kinds: &Kinds, permutation: &Permutation) -> bool {
    let code = &machine.code;
    let start = |name: &str| code.entries.iter().find(|e| e.name == name).map(|e| e.start);
    let mut pairs: BTreeSet<(Pc, Pc)> = code
        .callbacks
        .iter()
        .map(|c| code.entries[usize::from(*c)].start)
        .chain([machine.sched_out.start, machine.sched_in.start])
        .map(|start| (start, start))
        .collect();
    for (task, to) in machine.spec.tasks.iter().zip(&permutation.tasks) {
        let (a, b) = (functions(&task.kind), functions(&machine.spec.tasks[*to].kind));
        let both = |a: &str, b: &str| start(a).zip(start(b));
        let Some(own) = both(a.0, b.0) else { return false };
        pairs.insert(own);
        match (a.1, b.1) {
            (Some(a), Some(b)) => match both(a, b) {
                Some(guests) => pairs.extend([guests]),
                None => return false,
            },
            (None, None) => {}
            _ => return false,
        }
    }
    pairs.into_iter().all(|(a, b)| Texts { machine, kinds, permutation, a, b }.alike())
}

/// Two entries that one permutation should turn into each other.
struct Texts<'m> {
    machine: &'m Machine,
    kinds: &'m Kinds,
    permutation: &'m Permutation,
    a: Pc,
    b: Pc,
}

impl Texts<'_> {
    fn length(&self, start: Pc) -> usize {
        let code = &self.machine.code;
        let end = code.entries.iter().map(|e| usize::from(e.start)).filter(|s| *s > usize::from(start)).min();
        end.unwrap_or(code.ops.len()) - usize::from(start)
    }

    fn alike(&self) -> bool {
        let length = self.length(self.a);
        // What is only passed through on the way from a choice may differ: `if (maybe()) write(P); else write(Q);`. Whether
        // the choices together come to the same, the check finds.
        let passed = |at: usize| {
            let (a, b) = (usize::from(self.a) + at, usize::from(self.b) + at);
            let ops = &self.machine.code.ops;
            !self.kinds.rests[a] && std::mem::discriminant(&ops[a]) == std::mem::discriminant(&ops[b])
        };
        length == self.length(self.b) && (0..length).all(|at| self.op(at) || passed(at))
    }

    /// Whether a value of a kind becomes another.
    fn same(&self, kind: Kind, a: Operand, b: Operand) -> bool {
        match (a, b) {
            (Operand::Const(a), Operand::Const(b)) => self.permutation.value(kind, a) == b,
            _ => a == b,
        }
    }

    fn place(&self, a: Place, b: Place) -> bool {
        let Some(var) = self.machine.code.vars.get(usize::from(a.var.0)) else { return false };
        a.var == b.var
            && self.same(of_scope(var.scope), a.instance, b.instance)
            && self.same(Kind::Plain, a.word, b.word)
    }

    fn op(&self, at: usize) -> bool {
        let pc = usize::from(self.a) + at;
        let (a, b) = (self.machine.code.ops[pc], self.machine.code.ops[usize::from(self.b) + at]);
        let var =
            |place: Place| self.kinds.vars.get(usize::from(place.var.0)).copied().unwrap_or(Kind::Plain);
        let far = |a: Pc, b: Pc| i32::from(a) - i32::from(self.a) == i32::from(b) - i32::from(self.b);
        match (a, b) {
            (Op::Set { dst: d, rhs: x }, Op::Set { dst: e, rhs: y }) => d == e && self.expr(pc, d, x, y),
            (
                Op::MaskPut { base: d, words: v, bit: x, on: p },
                Op::MaskPut { base: e, words: w, bit: y, on: q },
            ) => d == e && v == w && self.same(Kind::Pcpu, x, y) && p == q,
            (Op::Jump(x), Op::Jump(y)) => far(x, y),
            (
                Op::Branch { cond: c, then: x, otherwise: v },
                Op::Branch { cond: d, then: y, otherwise: w },
            ) => c == d && far(x, y) && far(v, w),
            (Op::Load { dst: d, place: p }, Op::Load { dst: e, place: q }) => d == e && self.place(p, q),
            (Op::Store { place: p, src: x }, Op::Store { place: q, src: y }) => {
                self.place(p, q) && self.same(var(p), x, y)
            }
            (
                Op::Rmw { dst: d, place: p, op: o, src: x, expected: v },
                Op::Rmw { dst: e, place: q, op: r, src: y, expected: w },
            ) => d == e && o == r && self.place(p, q) && self.same(var(p), x, y) && self.same(var(p), v, w),
            (Op::Lock { kind: k, place: p }, Op::Lock { kind: l, place: q })
            | (Op::Unlock { kind: k, place: p }, Op::Unlock { kind: l, place: q }) => {
                k == l && self.place(p, q)
            }
            (Op::Prim { prim: k, dst: d, args: x }, Op::Prim { prim: l, dst: e, args: y }) => {
                k == l && d == e && self.args(k, x, y)
            }
            _ => a == b,
        }
    }

    fn args(&self, prim: Prim, x: [Operand; 4], y: [Operand; 4]) -> bool {
        let mut kinds = of_args(prim);
        if let (Prim::SendCall, Operand::Const(callback)) = (prim, x[1]) {
            let info = usize::try_from(callback).ok().and_then(|c| self.kinds.infos.get(c));
            kinds[2] = info.copied().unwrap_or(Kind::Plain);
        }
        if let (
            Prim::LockHeld | Prim::ZallocMask | Prim::FreeMask | Prim::MaskAvailable,
            Operand::Const(var),
        ) = (prim, x[0])
        {
            let var = usize::try_from(var).ok().and_then(|v| self.machine.code.vars.get(v));
            kinds[1] = var.map_or(Kind::Plain, |v| of_scope(v.scope));
        }
        kinds.iter().zip(x.iter().zip(&y)).all(|(kind, (x, y))| self.same(*kind, *x, *y))
    }

    fn expr(&self, pc: usize, dst: u8, x: Expr, y: Expr) -> bool {
        let kind = |o: Operand| match o {
            Operand::Reg(r) => self.kinds.reg(pc, r),
            Operand::Const(_) => Kind::Plain,
        };
        match (x, y) {
            (Expr::Use(x), Expr::Use(y)) => self.same(self.kinds.reg(pc + 1, dst), x, y),
            (Expr::Un(o, x), Expr::Un(p, y)) => o == p && self.same(Kind::Plain, x, y),
            (Expr::Bin(o, x, v), Expr::Bin(p, y, w)) => {
                // A number that something is counted or shifted by is no name, whatever the other operand is.
                let names = !matches!(
                    o,
                    BinOp::Add | BinOp::Sub | BinOp::Mul | BinOp::Div | BinOp::Rem | BinOp::Shl | BinOp::Shr
                );
                let of = |other| if names { kind(other) } else { Kind::Plain };
                o == p && self.same(of(v), x, y) && self.same(of(x), v, w)
            }
            (Expr::VmOf(x), Expr::VmOf(y)) => self.same(Kind::Vcpu, x, y),
            (
                Expr::Siblings { shared: s, cpu: x, word: v },
                Expr::Siblings { shared: t, cpu: y, word: w },
            ) => s == t && v == w && self.same(Kind::Pcpu, x, y),
            (Expr::MaskTest { base: d, words: v, bit: x }, Expr::MaskTest { base: e, words: w, bit: y }) => {
                d == e && v == w && self.same(Kind::Pcpu, x, y)
            }
            _ => x == y,
        }
    }
}
