//! Store buffers in words.

use svm_policy::Op;

use super::effect::Seen;
use crate::machine::Machine;

impl Machine {
    /// What an access did that touched no variable, because it met its pCPU's store buffer.
    pub(super) fn buffered(&self, seen: &Seen<'_>, op: Op) -> Option<String> {
        let (Op::Load { place, .. }
        | Op::Store { place, .. }
        | Op::Rmw { place, .. }
        | Op::Unlock { place, .. }) = op
        else {
            return None;
        };
        let var = &self.vars[usize::from(place.var.0)];
        let slots = var.base..var.base + var.words * var.instances;
        let plain = op.is_plain_store();
        let entries =
            self.buffers.of_pcpu.iter().enumerate().flat_map(|(p, es)| es.iter().map(move |e| (p, e)));
        let mut found = None;
        for (p, entry) in entries.filter(|(_, e)| seen.touched.contains(&e.target)) {
            let (old, new) = (seen.before[entry.target.0 as usize], seen.after[entry.target.0 as usize]);
            let Some(slot) = self.buffers.slot(new).filter(|s| slots.contains(&s.0)) else { continue };
            let name = &self.layout.slots()[slot.0 as usize].name;
            let value = self.value_name(slot, seen.after[entry.value.0 as usize]);
            if plain && old == 0 {
                return Some(format!("{name} = {value} goes into pcpu{p}'s store buffer"));
            }
            if !plain {
                found = Some(format!("{name} is {value}, from pcpu{p}'s own store buffer"));
            }
        }
        found
    }
}
