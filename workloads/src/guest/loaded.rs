//! A guest that is ready to run: what its description named is loaded, and each run takes its sources from it.

use std::sync::Arc;

use super::pattern::{Chase, Manner, PingPong, Streaming, Uniform, Zipf};
use super::random::{Chance, Purpose, RandomStream, StreamKey};
use super::source::GuestSource;
use super::spec::{GuestSpec, Sharing};
use super::trace::{Trace, TraceStats};
use super::zipf::ZipfTable;
use super::{CompactCursor, LINES_PER_PAGE, StreamedCursor};

/// The memory behaviour of one VM, loaded; cheap to clone, and shared by every run that compares policies.
#[derive(Clone, Debug)]
pub struct Guest {
    spec: GuestSpec,
    /// Of the pattern `trace`.
    trace: Option<Trace>,
    /// Of the pattern `zipf`.
    table: Option<Arc<ZipfTable>>,
    vcpus: u32,
}

impl Guest {
    pub(super) fn new(spec: GuestSpec, trace: Option<Trace>, vcpus: u32) -> Guest {
        let table = match &spec {
            GuestSpec::Zipf(s) => Some(Arc::new(ZipfTable::new(s.pages, s.exponent_percent))),
            GuestSpec::Trace(_)
            | GuestSpec::Uniform(_)
            | GuestSpec::Stream(_)
            | GuestSpec::Chase(_)
            | GuestSpec::PingPong(_) => None,
        };
        Guest { spec, trace, table, vcpus }
    }

    /// The description.
    #[must_use]
    pub fn spec(&self) -> &GuestSpec {
        &self.spec
    }

    /// What the trace holds, if it is one.
    #[must_use]
    pub fn trace_stats(&self) -> Option<&TraceStats> {
        self.trace.as_ref().map(Trace::stats)
    }

    /// How many pages one vCPU accesses.
    #[must_use]
    pub fn pages_of_one(&self) -> u32 {
        match &self.spec {
            GuestSpec::Trace(_) => self.trace_stats().map_or(0, |stats| stats.pages),
            GuestSpec::Uniform(s) => s.pages,
            GuestSpec::Zipf(s) => s.pages,
            GuestSpec::Stream(s) => s.pages,
            GuestSpec::Chase(s) => s.pages,
            GuestSpec::PingPong(s) => s.pages,
        }
    }

    /// How many pages the VM accesses: guest frames 0 up to this number.
    #[must_use]
    pub fn pages(&self) -> u32 {
        u32::try_from(self.pages_of_all()).unwrap_or(u32::MAX)
    }

    pub(super) fn pages_of_all(&self) -> u64 {
        match self.spec.sharing() {
            Sharing::Private => u64::from(self.pages_of_one()) * u64::from(self.vcpus),
            Sharing::Shared => u64::from(self.pages_of_one()),
        }
    }

    /// The sources of all vCPUs for one run.
    ///
    /// They depend on the seed and on the actors' numbers only: vCPU i is actor `first_actor + i`. So runs that
    /// differ in the policy, the kernel or the part have the same guests.
    #[must_use]
    pub fn sources(&self, seed: u64, first_actor: u32) -> Vec<GuestSource> {
        let mut layout = RandomStream::new(StreamKey { seed, actor: first_actor, purpose: Purpose::Layout });
        let order: Arc<[u32]> = match &self.spec {
            GuestSpec::Zipf(s) => {
                let mut pages: Vec<u32> = (0..s.pages).collect();
                layout.shuffle(&mut pages);
                pages.into()
            }
            GuestSpec::Chase(s) => {
                let mut next: Vec<u32> = (0..s.pages * LINES_PER_PAGE).collect();
                layout.single_cycle(&mut next);
                next.into()
            }
            GuestSpec::Trace(_) | GuestSpec::Uniform(_) | GuestSpec::Stream(_) | GuestSpec::PingPong(_) => {
                Arc::new([])
            }
        };
        (0..self.vcpus).map(|vcpu| self.source(seed, first_actor.wrapping_add(vcpu), vcpu, &order)).collect()
    }

    fn source(&self, seed: u64, actor: u32, vcpu: u32, order: &Arc<[u32]>) -> GuestSource {
        let first_line = match self.spec.sharing() {
            Sharing::Private => vcpu * self.pages_of_one() * LINES_PER_PAGE,
            Sharing::Shared => 0,
        };
        let manner = |write_percent, instructions| Manner {
            first_line,
            write: Chance::of_percent(write_percent),
            instructions,
            random: RandomStream::new(StreamKey { seed, actor, purpose: Purpose::Access }),
        };
        match &self.spec {
            GuestSpec::Trace(_) => match &self.trace {
                Some(Trace::Compact(t)) => {
                    GuestSource::Compact(CompactCursor::new(Arc::clone(t), first_line))
                }
                Some(Trace::Streamed(t)) => {
                    GuestSource::Streamed(Box::new(StreamedCursor::new(Arc::clone(t), first_line)))
                }
                None => unreachable!("loading a trace guest loads its trace"),
            },
            GuestSpec::Uniform(s) => {
                GuestSource::Uniform(Uniform::new(manner(s.write_percent, s.instructions), s.pages))
            }
            GuestSpec::Zipf(s) => {
                let Some(table) = &self.table else { unreachable!("loading a zipf guest makes its table") };
                let manner = manner(s.write_percent, s.instructions);
                GuestSource::Zipf(Zipf::new(manner, Arc::clone(table), Arc::clone(order)))
            }
            GuestSpec::Stream(s) => {
                let manner = manner(s.write_percent, s.instructions);
                GuestSource::Stream(Streaming::new(manner, s.pages, s.stride_lines))
            }
            GuestSpec::Chase(s) => {
                let key = StreamKey { seed, actor, purpose: Purpose::Start };
                let start = RandomStream::new(key).below(s.pages * LINES_PER_PAGE);
                let manner = manner(s.write_percent, s.instructions);
                GuestSource::Chase(Chase::new(manner, Arc::clone(order), start))
            }
            GuestSpec::PingPong(s) => {
                let manner = manner(s.write_percent, s.instructions);
                GuestSource::PingPong(PingPong::new(manner, s.pages, s.lines_per_page))
            }
        }
    }
}
