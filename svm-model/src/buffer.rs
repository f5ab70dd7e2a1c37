//! Store buffers of x86 (TSO): where each pCPU's stores wait until others see them.
//!
//! A buffer is a queue of a few entries. An entry names the slot that is written and what will stand there; entries
//! reach memory in order, each by a step of its own. Sources: Intel SDM vol. 3, 8.2, AMD APM vol. 2, 7.2, and Sewell et
//! al., *x86-TSO* (CACM 2010), whose abstract machine this is but for the bound.

use sim_core::layout::Layout;
use sim_core::state::{Class, Domain, SlotId};
use svm_lang::Code;
use svm_policy::Op;

use crate::context::union;
use crate::machine::VarSlots;

/// One entry's slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntrySlots {
    /// 0 if the entry is empty, else 1 + the number of the slot that is written, among [`Buffers::targets`].
    pub(crate) target: SlotId,
    /// What will stand there; [`Buffers::resting`] if the entry is empty.
    pub(crate) value: SlotId,
}

/// The buffers of all pCPUs; none under sequential consistency.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    /// By pCPU, the oldest entry first.
    pub(crate) of_pcpu: Vec<Vec<EntrySlots>>,
    /// The slots that texts write by plain stores, in ascending order.
    pub(crate) targets: Vec<SlotId>,
    /// The value of an empty entry.
    pub(crate) resting: i64,
}

impl Buffers {
    /// Declares buffers of `entries` for each pCPU; none if that is 0.
    pub(crate) fn declare(
        layout: &mut Layout,
        code: &Code,
        vars: &[VarSlots],
        pcpus: usize,
        entries: u8,
    ) -> Buffers {
        if entries == 0 {
            return Buffers::default();
        }
        let mut written = vec![false; vars.len()];
        for op in &code.ops {
            if let (Op::Store { place, .. } | Op::Unlock { place, .. }, true) = (op, op.is_plain_store()) {
                written[usize::from(place.var.0)] = true;
            }
        }
        let (mut targets, mut domain) = (Vec::new(), None);
        for (var, _) in vars.iter().zip(written).filter(|(_, written)| *written) {
            targets.extend((var.base..var.base + var.words * var.instances).map(SlotId));
            domain = Some(domain.map_or(var.domain, |d| union(d, var.domain)));
        }
        let domain = domain.unwrap_or(Domain::BOOL);
        let resting = if domain.holds(0) { 0 } else { domain.low() };
        let most = i64::try_from(targets.len()).unwrap_or(i64::MAX);
        let mut of_pcpu = Vec::new();
        for p in 0..pcpus {
            let entry = |e: u8| EntrySlots {
                target: layout.slot(
                    format!("pcpu{p}.store_buffer{e}"),
                    Domain::Range { lo: 0, hi: most },
                    Class::Hardware,
                    0,
                ),
                value: layout.slot(
                    format!("pcpu{p}.store_buffer{e}.value"),
                    domain,
                    Class::Hardware,
                    resting,
                ),
            };
            of_pcpu.push((0..entries).map(entry).collect());
        }
        Buffers { of_pcpu, targets, resting }
    }

    /// The code of a slot in an entry.
    pub(crate) fn code(&self, slot: SlotId) -> Option<i64> {
        let at = self.targets.binary_search_by_key(&slot.0, |s| s.0).ok()?;
        i64::try_from(at + 1).ok()
    }

    /// The slot of a code; none of an empty entry.
    pub(crate) fn slot(&self, code: i64) -> Option<SlotId> {
        usize::try_from(code).ok()?.checked_sub(1).and_then(|i| self.targets.get(i)).copied()
    }
}
