//! Initial values of the texts' variables: the assignments of a function that nobody runs.

use svm_lang::{Diag, Entry};
use svm_policy::{Op, Operand, RmwOp};

use crate::machine::Machine;

impl Machine {
    /// Takes over the values that the function of [`crate::spec::ModelSpec::initial`] assigns.
    pub(crate) fn initialise(&mut self) -> Result<(), Vec<Diag>> {
        let named = |e: &&Entry| Some(&e.name) == self.spec.initial.as_ref();
        let Some(entry) = self.code.entries.iter().find(named) else { return Ok(()) };
        let constant = |operand: Operand| match operand {
            Operand::Const(n) => Some(n),
            Operand::Reg(_) => None,
        };
        for pc in usize::from(entry.start)..self.code.ops.len() {
            let op = self.code.ops[pc];
            if op == Op::Halt {
                break;
            }
            let (place, src, bits) = if let Op::Store { place, src } = op {
                (place, src, false)
            } else if let Op::Rmw { place, src, op: RmwOp::Or, .. } = op {
                (place, src, true)
            } else {
                return Err(self.no_initial(pc, "this is no value that a variable can have at first"));
            };
            let at = constant(place.instance).zip(constant(place.word));
            let slot = at.and_then(|(instance, word)| self.var_slot(place.var, instance, word));
            let (Some(slot), Some((instance, _)), Some(value)) = (slot, at, constant(src)) else {
                return Err(self.no_initial(pc, "there is no such variable in this model"));
            };
            let var = &self.code.vars[usize::from(place.var.0)];
            if !bits && !var.names.is_empty() && !var.names.iter().any(|(n, _)| *n == value) {
                let names: Vec<&str> = var.names.iter().map(|(_, name)| name.as_str()).collect();
                let message = format!("{value} is none of {}", names.join(", "));
                return Err(self.no_initial(pc, &message));
            }
            let old = self.layout.slots()[slot.0 as usize].init;
            if !self.layout.start_as(slot, if bits { old | value } else { value }) {
                return Err(self.no_initial(pc, "the variable cannot have this value"));
            }
            if let Some(state) = self.mask_state(place.var, instance) {
                self.layout.start_as(state, svm_lang::MASK_LIVE);
            }
        }
        Ok(())
    }

    fn no_initial(&self, pc: usize, message: &str) -> Vec<Diag> {
        let place = &self.code.places[pc];
        vec![Diag {
            file: self.code.files[usize::from(place.file)].clone(),
            line: place.line,
            column: place.column,
            len: 1,
            message: message.to_owned(),
            source_line: String::new(),
            expected: None,
            help: None,
        }]
    }
}
