//! A policy as this crate takes it: operations of the policy core, and what they need to know of the host.

use sim_state::Domain;
use svm_lang::{Code, Role, VarKind};
use svm_policy::{Op, Pc, Reg, Scope};

/// A variable that the texts declare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variable {
    /// How many instances there are.
    pub scope: Scope,
    /// What a word can hold.
    pub domain: Domain,
    /// What each word of an instance starts as; at least one.
    pub init: Vec<i64>,
}

/// A function that can be called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where it starts.
    pub start: Pc,
    /// The registers of its parameters.
    pub params: Vec<Reg>,
}

/// A policy with the kernel's functions that it calls, compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// The operations.
    pub ops: Vec<Op>,
    /// Whether each operation comes from the policy's own text, not from the kernel's.
    pub own: Vec<bool>,
    /// The variables, by number.
    pub vars: Vec<Variable>,
    /// The functions.
    pub entries: Vec<Entry>,
    /// The entry of each function that is sent to a pCPU, by what `SendCall` names it.
    pub callbacks: Vec<u16>,
}

impl Program {
    /// Takes over what the compiler gives for masks of 64-bit words.
    #[must_use]
    pub fn of(code: &Code, pcpus: u16) -> Program {
        let any = Domain::Range { lo: i64::MIN, hi: i64::MAX };
        let entry = |e: &svm_lang::Entry| Entry {
            name: e.name.clone(),
            start: e.start,
            params: e.params.iter().map(|p| p.reg).collect(),
        };
        let variable = |v: &svm_lang::Var| Variable {
            scope: v.scope,
            domain: match v.kind {
                VarKind::Int | VarKind::Bool | VarKind::Ref(_) | VarKind::Mask => v.domain,
                // Who holds it, by any number.
                VarKind::Mutex | VarKind::Spin | VarKind::Rwlock | VarKind::Rwsem | VarKind::Completion => {
                    any
                }
            },
            init: (0..v.words).map(|w| v.init_of(w, pcpus, 64)).collect(),
        };
        let own = |file: u16| code.roles.get(usize::from(file)) == Some(&Role::Policy);
        Program {
            ops: code.ops.clone(),
            own: code.places.iter().map(|p| own(p.file)).collect(),
            vars: code.vars.iter().map(variable).collect(),
            entries: code.entries.iter().map(entry).collect(),
            callbacks: code.callbacks.clone(),
        }
    }

    /// The entry of a name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }

    /// The function that `SendCall` names by its second argument.
    #[must_use]
    pub fn callback(&self, number: i64) -> Option<&Entry> {
        let entry = usize::try_from(number).ok().and_then(|n| self.callbacks.get(n))?;
        self.entries.get(usize::from(*entry))
    }
}

/// The host that a program runs on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The core of each pCPU.
    pub core: Vec<u32>,
    /// The L3 of each pCPU.
    pub llc: Vec<u32>,
    /// VMs.
    pub vms: u16,
    /// The VM of each vCPU.
    pub vcpu_vm: Vec<u16>,
}

impl Shape {
    /// pCPUs.
    #[must_use]
    pub fn pcpus(&self) -> usize {
        self.core.len()
    }

    /// How many instances a variable of a scope has; of what no real host has, none.
    #[must_use]
    pub fn instances(&self, scope: Scope) -> usize {
        match scope {
            Scope::Global => 1,
            Scope::PerVm => usize::from(self.vms),
            Scope::PerVcpu => self.vcpu_vm.len(),
            Scope::PerCpu => self.pcpus(),
            Scope::PerPage | Scope::PerAsid | Scope::PerObject(_) => 0,
        }
    }
}
