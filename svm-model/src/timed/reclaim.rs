//! Reclaim and reuse in time: which page goes, and who gets it next.

use sev_arch::Access as Kind;
use sim_core::random::Stream;
use svm_policy::Prim;

use super::engine::Run;
use super::plan::GuestStream;
use crate::label::{Actor, NewOwner};

pub(super) struct Reclaimer {
    pub(super) next_at: u64,
    pub(super) stream: Stream,
    pub(super) writeback_since: Option<u64>,
    pub(super) page: u32,
}

impl<G: GuestStream> Run<'_, G> {
    /// The VMM's mapping and the allocator follow the reclaim.
    pub(super) fn page_life(&mut self, prim: Prim, page: u32, next: u64) {
        if prim == Prim::ZapUserPte {
            for frames in &mut self.frames {
                for frame in frames.iter_mut().filter(|f| **f == Some(page)) {
                    *frame = None;
                }
            }
        }
        if prim == Prim::FreePage {
            self.world.push((next + self.plan.reuse_after, page, Some(Kind::Write)));
            self.world.sort_unstable_by(|a, b| b.cmp(a));
            self.schedule_world();
        }
    }

    fn schedule_world(&mut self) {
        if let Some((at, _, _)) = self.world.last() {
            let at = *at;
            self.schedule(self.agents.len() - 1, at);
        }
    }

    /// A freed page's new owner writes it, then reads it, then gives it back.
    pub(super) fn world(&mut self, _: usize, now: u64) {
        while let Some((at, page, access)) = self.world.last().copied() {
            if at > now {
                break;
            }
            self.world.pop();
            let options = self.machine.world_options(&mut self.store, &self.memory);
            let device = self.world_stream.percent(self.plan.device_percent);
            let wanted = |o: &(u32, NewOwner, Kind)| {
                o.0 == page
                    && match (access, o.1) {
                        (None, by) => by == NewOwner::Vm,
                        (Some(a), NewOwner::Device) => device && o.2 == a,
                        (Some(a), NewOwner::Host(_)) => !device && o.2 == a,
                        (Some(_), NewOwner::Vm) => false,
                    }
            };
            let fits: Vec<usize> =
                options.iter().enumerate().filter(|(_, o)| wanted(o)).map(|(i, _)| i).collect();
            let pick = self.world_stream.below(u64::try_from(fits.len().max(1)).unwrap_or(1));
            if let Some(choice) = fits.get(usize::try_from(pick).unwrap_or(0)) {
                let choice = u32::try_from(*choice).unwrap_or(0);
                if self.step(Actor::World, now, &[choice]).is_err() {
                    continue;
                }
            }
            let later = now + self.plan.reuse_after.max(1);
            match access {
                Some(Kind::Write) => self.world.push((later, page, Some(Kind::Read))),
                Some(Kind::Read) => self.world.push((later, page, None)),
                None => {
                    let vm = self.machine.spec().pages[page as usize].1;
                    self.spare[vm.index()].push(page);
                }
            }
            self.world.sort_unstable_by(|a, b| b.cmp(a));
        }
        self.schedule_world();
    }
}
