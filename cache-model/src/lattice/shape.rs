//! Places, tags, and what the hardware promises.

use sev_arch::{CcxId, CoreId, Tag, WbinvdScope};

use super::{Lines, Place};

/// Which copies of a line an access of the PSP, which goes straight to memory, writes back and invalidates first.
/// Sources disagree (`docs/MODEL.md`), so each is a switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Psp {
    /// Those under the tag that it accesses (`psp-evicts-own-tag`; the default).
    pub evicts_own_tag: bool,
    /// The host's (`psp-evicts-host-lines`): what the firmware's dummy reads with C=0 are for; not by default.
    pub evicts_host_lines: bool,
}

impl Default for Psp {
    fn default() -> Self {
        Psp { evicts_own_tag: true, evicts_host_lines: false }
    }
}

/// The fixed part: which places and tags there are, and what the hardware promises.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// CCX of each core.
    pub ccx_of_core: Vec<CcxId>,
    /// CCXs.
    pub ccxs: u16,
    /// Socket of each CCX; the first for those that are not listed.
    pub socket_of_ccx: Vec<u16>,
    /// Tags, the host's included.
    pub tags: u8,
    /// Whether a CPU access under one tag evicts the other tags' copies first (CPUID `8000_001F` EAX\[10\]).
    pub sme_coherent: bool,
    /// On an SME_COHERENT part, whether a read, too, evicts clean copies under other tags. Not known; the
    /// default is yes.
    pub evict_clean_on_read: bool,
    /// Which caches a whole-cache flush acts on.
    pub scope: WbinvdScope,
    /// Whether clean copies are kept apart from absent ones. They matter only where a page can come back to a
    /// tag that it had before: elsewhere no clean copy is ever older than the truth, and one may be dropped at
    /// any moment, so nothing is reachable with them that is not reachable without.
    pub keep_clean: bool,
    /// What the PSP evicts.
    pub psp: Psp,
    /// Whether the key of an ASID can be replaced, so that copies and memory under it can be of a guest before.
    pub keys_change: bool,
    /// Whether some actor drops lines without writing them back, so that what memory held before the truth can be
    /// read again. It counts as older data under the key of whoever wrote first.
    pub drops: bool,
    /// Whether a guest's CPU accesses do not evict the host's copies on an SME_COHERENT part, so that the guest must
    /// ([`Shape::guest_evicts`]): what CVE-2024-36331 is about. Not by default.
    pub guest_must_evict: bool,
    /// Whether devices' accesses are coherent with the copies under C=0. They are; `assume` asks what leans on it.
    pub dma_snoops: bool,
    /// Whether what WBINVD, WBNOINVD, CLFLUSH or VM_PAGE_FLUSH writes back is in flight first, as an eviction is. The
    /// explorer does without: that a flush's write-back arrives later is the same as that the flush comes later, for
    /// nobody goes on before it has arrived. In a timed run, a flush has a length, and what happens in it shows.
    pub flushes_fly: bool,
    /// Whether each core's caches are one that evicts straight to memory: no L3, nothing in flight. A model of less than
    /// a machine, for protocols that are about which core has a line.
    pub flat: bool,
}

impl Shape {
    /// Cores.
    #[must_use]
    pub fn cores(&self) -> u16 {
        u16::try_from(self.ccx_of_core.len()).unwrap_or(u16::MAX)
    }

    /// Every place, private caches first, then L3s, then flights.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let ccxs = self.ccxs;
        (0..self.cores())
            .map(|c| Place::Private(CoreId(c)))
            .chain((0..ccxs).map(|x| Place::L3(CcxId(x))))
            .chain((0..ccxs).map(|x| Place::Flight(CcxId(x))))
    }

    /// Dense number of a place.
    #[must_use]
    pub fn place_index(&self, place: Place) -> usize {
        match place {
            Place::Private(c) => c.index(),
            Place::L3(x) => self.ccx_of_core.len() + x.index(),
            Place::Flight(x) => self.ccx_of_core.len() + usize::from(self.ccxs) + x.index(),
        }
    }

    /// How many places.
    #[must_use]
    pub fn place_count(&self) -> usize {
        self.ccx_of_core.len() + 2 * usize::from(self.ccxs)
    }

    /// Every tag.
    pub fn all_tags(&self) -> impl Iterator<Item = Tag> + use<> {
        (0..self.tags).map(Tag)
    }

    fn socket_of(&self, ccx: CcxId) -> u16 {
        self.socket_of_ccx.get(ccx.index()).copied().unwrap_or(0)
    }

    /// Cores whose private caches a flush by `core` acts on.
    pub fn flushed_cores(&self, core: CoreId) -> impl Iterator<Item = CoreId> + '_ {
        let own = self.ccx_of_core[core.index()];
        let socket = self.socket_of(own);
        let scope = self.scope;
        (0..self.cores()).map(CoreId).filter(move |c| match scope {
            WbinvdScope::Core | WbinvdScope::CoreAndL3 => *c == core,
            WbinvdScope::Ccx => self.ccx_of_core[c.index()] == own,
            WbinvdScope::Package => self.socket_of(self.ccx_of_core[c.index()]) == socket,
        })
    }

    /// L3s that a flush by `core` acts on.
    pub fn flushed_l3s(&self, core: CoreId) -> impl Iterator<Item = CcxId> + '_ {
        let own = self.ccx_of_core[core.index()];
        let socket = self.socket_of(own);
        let scope = self.scope;
        (0..self.ccxs).map(CcxId).filter(move |x| match scope {
            WbinvdScope::Core => false,
            WbinvdScope::CoreAndL3 | WbinvdScope::Ccx => *x == own,
            WbinvdScope::Package => self.socket_of(*x) == socket,
        })
    }

    /// The cheapest set of cores whose flushes act on these private caches and these L3s, in order. `busy` says
    /// of each core whether interrupting it costs a guest time.
    #[must_use]
    pub fn cover(&self, private: &[CoreId], shared: &[CcxId], busy: &[bool]) -> Vec<CoreId> {
        let is_busy = |core: &usize| busy.get(*core).copied().unwrap_or(false);
        let mut cover: Vec<CoreId> = Vec::new();
        for core in private {
            if !cover.iter().any(|c| self.flushed_cores(*c).any(|f| f == *core)) {
                cover.push(*core);
            }
        }
        for ccx in shared {
            if !cover.iter().any(|c| self.flushed_l3s(*c).any(|f| f == *ccx))
                && let Some(core) =
                    (0..self.ccx_of_core.len()).filter(|c| self.ccx_of_core[*c] == *ccx).min_by_key(is_busy)
            {
                cover.push(CoreId(u16::try_from(core).unwrap_or(u16::MAX)));
            }
        }
        cover.sort_unstable();
        cover
    }

    /// A digest of every copy, of DRAM and of the truth of the first `count` lines.
    #[must_use]
    pub fn digest<L: Lines>(&self, lines: &L, count: u32) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325u64;
        let mut mix =
            |value: u64| digest = (digest ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        for line in 0..count {
            for tag in self.all_tags() {
                for place in self.places() {
                    mix(lines.copy(line, place, tag).code().cast_unsigned());
                }
            }
            let dram = lines.dram(line);
            mix(dram.code(self.tags).cast_unsigned() << 2
                | u64::from(dram.old) << 1
                | u64::from(lines.truth(line)));
        }
        digest
    }
}
