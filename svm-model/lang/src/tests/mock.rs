//! A machine of one pCPU at a time that runs compiled programs, and looks whether what `Code` says is true.

use sim_state::{Domain, SlotId};
use svm_policy::{
    Answer, Context, Lock, LockEvent, Op, Outcome, Place, Platform, Prim, REGS, Scope, Shared, Window, step,
};

use crate::{Code, Config, Entry};

/// What a run leaves behind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Run {
    /// Every word of every variable, in order.
    pub(crate) values: Vec<Vec<i64>>,
    /// What was done, a line each.
    pub(crate) log: Vec<String>,
    /// Steps made.
    pub(crate) steps: usize,
}

pub(crate) struct Mock<'c> {
    code: &'c Code,
    config: &'c Config,
    pub(crate) cpu: i64,
    choices: Vec<i64>,
    irq_off: bool,
    preempt: i64,
    run: Run,
}

impl<'c> Mock<'c> {
    pub(crate) fn new(code: &'c Code, config: &'c Config) -> Mock<'c> {
        let values = code
            .vars
            .iter()
            .map(|v| {
                let instances = match v.scope {
                    Scope::Global => 1,
                    Scope::PerVm => usize::from(config.vms),
                    Scope::PerVcpu => config.vcpu_vm.len(),
                    Scope::PerCpu => usize::from(config.pcpus),
                    Scope::PerPage => config.pages as usize,
                    Scope::PerAsid => usize::from(config.asids),
                    Scope::PerObject(pool) => usize::from(code.pools[usize::from(pool)].1),
                };
                let words = (0..v.words).map(|w| v.init_of(w, config.pcpus, config.word_bits));
                words.cycle().take(instances * usize::from(v.words)).collect()
            })
            .collect();
        let run = Run { values, ..Run::default() };
        Mock { code, config, cpu: 0, choices: Vec::new(), irq_off: false, preempt: 0, run }
    }

    /// What the chooser answers, the first first; 0 when they run out.
    pub(crate) fn choices(mut self, choices: &[i64]) -> Self {
        self.choices = choices.iter().rev().copied().collect();
        self
    }

    pub(crate) fn set(mut self, name: &str, index: usize, value: i64) -> Self {
        let var = self.code.vars.iter().position(|v| v.name == name).expect("a variable");
        assert!(self.code.vars[var].domain.holds(value), "{name} cannot be {value}");
        self.run.values[var][index] = value;
        self
    }

    fn at(&self, place: Place, instance: i64, word: i64) -> (usize, usize) {
        let var = usize::from(place.var.0);
        let words = i64::from(self.code.vars[var].words);
        assert!((0..words).contains(&word), "word {word} of {}", self.code.vars[var].name);
        (var, usize::try_from(instance * words + word).expect("an instance"))
    }

    /// Runs an entry to its end.
    ///
    /// At every rest it looks whether the rest is listed and whether each live register is in its domain, and
    /// then spoils every other register: nothing may depend on them.
    pub(crate) fn run(mut self, entry: &Entry, args: &[i64]) -> Run {
        let code = self.code;
        let mut context = Context { pc: entry.start, regs: [0x7a7a_7a7a; REGS] };
        for (param, value) in entry.params.iter().zip(args) {
            context.regs[usize::from(param.reg)] = *value;
        }
        for _ in 0..20_000 {
            let rest = entry.rests.iter().position(|r| *r == context.pc).expect("a listed rest");
            let live = entry.live[rest];
            for (r, value) in context.regs.iter_mut().enumerate() {
                if live >> r & 1 == 1 {
                    let fits = entry.regs[r].holds(*value);
                    assert!(fits, "r{r} = {value} at {}\n{}", context.pc, code.listing());
                } else {
                    *value = 0x5b5b_5b5b;
                }
            }
            if code.ops[usize::from(context.pc)] == Op::Halt {
                return self.run;
            }
            match step(&code.ops, &mut context, &mut self) {
                Outcome::Ran { at } if code.ops[usize::from(at)].is_shared() => self.run.steps += 1,
                Outcome::Ran { .. } => {}
                Outcome::Blocked { .. } => {
                    self.run.log.push("blocked".to_owned());
                    return self.run;
                }
                Outcome::Runaway { at } => panic!("runaway at {at}\n{}", code.listing()),
            }
        }
        panic!("no end\n{}", code.listing());
    }
}

/// The variable's value of a run.
pub(crate) fn value(code: &Code, run: &Run, name: &str) -> i64 {
    let var = code.vars.iter().position(|v| v.name == name).expect("a variable");
    run.values[var][0]
}

impl Platform for Mock<'_> {
    fn load(&mut self, place: Place, instance: i64, word: i64) -> i64 {
        let (var, at) = self.at(place, instance, word);
        self.run.values[var][at]
    }

    fn store(&mut self, place: Place, instance: i64, word: i64, value: i64) {
        let (var, at) = self.at(place, instance, word);
        let value = match self.code.vars[var].domain {
            Domain::Mask { bits: 64 } => value,
            Domain::Mask { bits } => value & ((1 << bits) - 1),
            Domain::Range { lo, hi } => {
                let size = i128::from(hi) - i128::from(lo) + 1;
                let over = (i128::from(value) - i128::from(lo)).rem_euclid(size);
                i64::try_from(i128::from(lo) + over).expect("in range")
            }
        };
        self.run.values[var][at] = value;
    }

    fn slot(&self, _: Place, _: i64, _: i64) -> SlotId {
        SlotId(0)
    }

    fn holder(&self) -> i64 {
        5
    }

    fn lock_event(&mut self, kind: Lock, event: LockEvent) {
        if event != LockEvent::Taken {
            self.run.log.push(format!("{kind:?} {event:?}"));
        }
    }

    fn waits_in_vain(&self, holder: i64) -> bool {
        holder == self.holder()
    }

    fn this_cpu(&self) -> i64 {
        self.cpu
    }

    fn vm_of(&self, vcpu: i64) -> i64 {
        i64::from(self.config.vcpu_vm[usize::try_from(vcpu).expect("a vCPU")])
    }

    /// Cores of two threads, CCXs of two cores.
    fn siblings(&self, shared: Shared, cpu: i64, word: i64) -> i64 {
        let size = if shared == Shared::Core { 2 } else { 4 };
        let bits = i64::from(self.config.word_bits);
        let mine = |bit: &i64| {
            let other = word * bits + bit;
            other < i64::from(self.config.pcpus) && other / size == cpu / size
        };
        (0..bits).filter(mine).fold(0, |mask, bit| mask | 1 << bit)
    }

    fn pcpus(&self) -> i64 {
        i64::from(self.config.pcpus)
    }

    fn word_bits(&self) -> i64 {
        i64::from(self.config.word_bits)
    }

    fn window(&mut self, window: Window) {
        match window {
            Window::IrqDisable => self.irq_off = true,
            Window::IrqEnable => self.irq_off = false,
            Window::PreemptDisable => self.preempt += 1,
            Window::PreemptEnable => self.preempt -= 1,
        }
        self.run.log.push(format!("{window:?}"));
    }

    fn choose(&mut self, options: i64) -> i64 {
        self.choices.pop().unwrap_or(0).clamp(0, options - 1)
    }

    fn primitive(&mut self, prim: Prim, args: [i64; 4], regs: &[i64; REGS]) -> Answer {
        if prim == Prim::IrqsDisabled {
            return Answer::Own(i64::from(self.irq_off));
        }
        if prim == Prim::InAtomic {
            return Answer::Own(i64::from(self.preempt > 0));
        }
        if prim == Prim::Warn && args[0] == 0 {
            // Nothing to warn of, which the optimiser may know.
            return Answer::Own(0);
        }
        let mut shown = args.to_vec();
        if prim == Prim::WaitCalls {
            let base = usize::try_from(args[0]).expect("a register");
            shown = regs[base..base + usize::try_from(args[1]).expect("words")].to_vec();
        }
        self.run.log.push(format!("{prim:?}{shown:?}"));
        let result = if matches!(prim, Prim::ZapSpte | Prim::UserPtePresent | Prim::PageMapped) {
            1
        } else if prim == Prim::FaultPage {
            args[0] - crate::EXIT_NPF
        } else if matches!(prim, Prim::VmRun | Prim::ZallocMask) {
            self.choices.pop().unwrap_or(0)
        } else {
            0
        };
        Answer::Done(result)
    }
}
