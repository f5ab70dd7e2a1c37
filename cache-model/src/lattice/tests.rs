//! The lattice against an oracle that keeps whole values: what was written, by whom, under which key. It knows no bit
//! "older than the truth", none "came old" and none "of a guest before", and works them out from the values.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sev_arch::{Access, CcxId, CoreId, FlushOp, Tag, WbinvdScope};

use super::{Copy, Dram, Held, Lines, Move, MoveKind, Past, Place, Psp, Shape};
use crate::event::{Event, EventKind};

#[derive(Default)]
struct Line {
    copies: BTreeMap<(Place, Tag), Copy>,
    dram: Option<Dram>,
    truth: bool,
}

impl Lines for Line {
    fn copy(&self, _: u32, place: Place, tag: Tag) -> Copy {
        self.copies.get(&(place, tag)).copied().unwrap_or_default()
    }

    fn set_copy(&mut self, _: u32, place: Place, tag: Tag, copy: Copy) {
        self.copies.insert((place, tag), copy);
    }

    fn dram(&self, _: u32) -> Dram {
        self.dram.unwrap_or(Dram::UNTOLD)
    }

    fn set_dram(&mut self, _: u32, dram: Dram) {
        self.dram = Some(dram);
    }

    fn truth(&self, _: u32) -> bool {
        self.truth
    }

    fn set_truth(&mut self, _: u32, truth: bool) {
        self.truth = truth;
    }
}

/// What a cell holds: the number of the store that made it (0: junk), and which of the tag's guests made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Data {
    store: u32,
    guest: u32,
    /// How many stores there had been when it got to the cache that it is in.
    since: u32,
}

/// A key: of which tag, and which of its keys.
type Key = (Tag, u32);

/// The oracle: three cores, two of them in CCX 0; the host and two guests' tags.
struct Oracle {
    coherent: bool,
    psp: Psp,
    guest_must_evict: bool,
    flushes_fly: bool,
    copies: BTreeMap<(Tag, Place), (Data, bool)>,
    memory: (Data, Key),
    truth: Option<u32>,
    /// The owner's first store.
    first: Option<u32>,
    owner: Tag,
    stores: u32,
    keys: [u32; 3],
    told: Vec<(EventKind, Tag)>,
}

const CCX_OF: [u16; 3] = [0, 0, 1];
const TAGS: u8 = 3;

fn places() -> Vec<Place> {
    let cores = (0..3).map(|c| Place::Private(CoreId(c)));
    let l3s = (0..2).map(|x| Place::L3(CcxId(x)));
    cores.chain(l3s).chain((0..2).map(|x| Place::Flight(CcxId(x)))).collect()
}

impl Oracle {
    fn key(&self, tag: Tag) -> Key {
        (tag, self.keys[usize::from(tag.0)])
    }

    fn is_old(&self, data: Data) -> bool {
        self.truth.is_some_and(|truth| truth != data.store)
    }

    fn came_old(&self, tag: Tag, data: Data) -> bool {
        tag == Tag::HOST && self.is_old(data) && self.first.is_some_and(|first| data.since >= first)
    }

    fn past(&self) -> Past {
        let (data, (tag, number)) = self.memory;
        match number {
            _ if number != self.keys[usize::from(tag.0)] => Past::Lost,
            _ if data.guest != number => Past::Foreign,
            _ => Past::No,
        }
    }

    fn write_back(&mut self, tag: Tag, data: Data) {
        if self.is_old(data) && !self.is_old(self.memory.0) {
            let kind = if tag == Tag::HOST { EventKind::HostDirty } else { EventKind::Clobber };
            self.told.push((kind, tag));
        }
        self.memory = (data, self.key(tag));
    }

    /// Takes every copy of a tag at some places away, writing dirty ones back.
    fn evict(&mut self, tag: Tag, wanted: impl Fn(Place) -> bool) {
        for place in places().into_iter().filter(|p| wanted(*p)) {
            if let Some((data, dirty)) = self.copies.remove(&(tag, place))
                && dirty
            {
                self.write_back(tag, data);
            }
        }
    }

    /// CLFLUSH's part of one tag: what was on its way has arrived, what was dirty is on its way or has arrived.
    fn flush_tag(&mut self, tag: Tag) {
        self.drain(tag);
        for place in places() {
            if let Some((data, true)) = self.copies.remove(&(tag, place)) {
                self.send(tag, place, data);
            }
        }
    }

    /// A flush writes back what a place held.
    fn send(&mut self, tag: Tag, from: Place, data: Data) {
        let ccx = match from {
            Place::Private(core) => CcxId(CCX_OF[core.index()]),
            Place::L3(ccx) | Place::Flight(ccx) => ccx,
        };
        if self.flushes_fly {
            self.copies.insert((tag, Place::Flight(ccx)), (data, true));
        } else {
            self.write_back(tag, data);
        }
    }

    fn drain(&mut self, tag: Tag) {
        self.evict(tag, |p| matches!(p, Place::Flight(_)));
    }

    fn evict_others(&mut self, tag: Tag) {
        for other in (0..TAGS).map(Tag).filter(|t| *t != tag) {
            self.evict(other, |_| true);
        }
    }

    fn new_store(&mut self, tag: Tag) -> Data {
        self.stores += 1;
        if tag == self.owner {
            if self.truth.is_none() && self.past() != Past::Foreign {
                // What it held before is junk that the writer's key makes readable.
                let guest = self.key(tag).1;
                self.memory = (Data { store: 0, guest, since: self.stores }, self.key(tag));
            }
            self.truth = Some(self.stores);
            self.first = self.first.or(self.truth);
        }
        Data { store: self.stores, guest: self.key(tag).1, since: self.stores }
    }

    fn judge(&mut self, tag: Tag, data: Data) {
        if data.guest != self.key(tag).1 {
            self.told.push((EventKind::Leak, tag));
        }
        // Plaintext that the host had before the owner's first store, or what the owner itself reads.
        if self.is_old(data) && (tag == self.owner || tag == Tag::HOST && !self.came_old(tag, data)) {
            self.told.push((EventKind::Stale, tag));
        }
    }

    /// What memory gives under a tag: junk under another key. The owner notices what is wrong with the truth.
    fn fetch(&mut self, tag: Tag, judge_leak: bool) -> Data {
        let (data, key) = self.memory;
        let readable = key == self.key(tag);
        if tag == self.owner && self.truth.is_some() {
            if !readable {
                self.told.push((EventKind::Garbage, tag));
            } else if self.is_old(data) {
                self.told.push((EventKind::Stale, tag));
            }
        }
        if !readable {
            return Data { store: 0, guest: self.key(tag).1, since: self.stores };
        }
        // Foreign is what a guest of this tag made before its present key: another tag's data are junk here.
        if judge_leak && data.guest != self.key(tag).1 {
            self.told.push((EventKind::Leak, tag));
        }
        Data { since: self.stores, ..data }
    }

    fn read(&mut self, core: u16, tag: Tag) {
        let here = (tag, Place::Private(CoreId(core)));
        let l3 = (tag, Place::L3(CcxId(CCX_OF[usize::from(core)])));
        if let Some((data, _)) = self.copies.get(&here).copied() {
            return self.judge(tag, data);
        }
        if self.coherent && !(self.guest_must_evict && tag != Tag::HOST) {
            self.evict_others(tag);
        }
        self.drain(tag);
        if let Some((data, dirty)) = self.copies.remove(&l3) {
            self.copies.insert(here, (data, dirty));
            return self.judge(tag, data);
        }
        let supplier = places().into_iter().find_map(|p| self.copies.get(&(tag, p)).copied());
        let data = match supplier {
            Some((data, _)) => {
                self.judge(tag, data);
                data
            }
            None => self.fetch(tag, true),
        };
        self.copies.insert(here, (data, false));
    }

    fn write(&mut self, core: u16, tag: Tag) {
        let here = (tag, Place::Private(CoreId(core)));
        let dirty = self.copies.get(&here).is_some_and(|c| c.1);
        if !dirty && self.coherent && !(self.guest_must_evict && tag != Tag::HOST) {
            self.evict_others(tag);
        }
        self.drain(tag);
        self.copies.retain(|k, _| k.0 != tag);
        let data = self.new_store(tag);
        self.copies.insert(here, (data, true));
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Cpu(u16, u8, Access),
    Dma(Access),
    Psp(u8, Access),
    Private(u16, FlushOp),
    Shared(u16, FlushOp),
    Clflush,
    Clwb,
    FlushTag(u8),
    Invd(u16),
    NewKey(u8),
    Fabric,
    GuestEvicts(u8),
    Owner(u8),
    /// Any move that is possible.
    Move(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let access = || prop_oneof![Just(Access::Read), Just(Access::Write)];
    let op = || prop_oneof![Just(FlushOp::Wbinvd), Just(FlushOp::Wbnoinvd)];
    prop_oneof![
        6 => (0u16..3, 0..TAGS, access()).prop_map(|(c, t, a)| Step::Cpu(c, t, a)),
        1 => access().prop_map(Step::Dma),
        2 => (1..TAGS, access()).prop_map(|(t, a)| Step::Psp(t, a)),
        1 => (0u16..3, op()).prop_map(|(c, o)| Step::Private(c, o)),
        1 => (0u16..3, op()).prop_map(|(c, o)| Step::Shared(c, o)),
        1 => Just(Step::Clflush),
        1 => Just(Step::Clwb),
        1 => (0..TAGS).prop_map(Step::FlushTag),
        1 => (0u16..3).prop_map(Step::Invd),
        1 => (1..TAGS).prop_map(Step::NewKey),
        1 => Just(Step::Fabric),
        1 => (1..TAGS).prop_map(Step::GuestEvicts),
        1 => (0..TAGS).prop_map(Step::Owner),
        5 => any::<usize>().prop_map(Step::Move),
    ]
}

fn flush(oracle: &mut Oracle, place: Place, op: FlushOp) {
    for tag in (0..TAGS).map(Tag) {
        let Some((data, dirty)) = oracle.copies.get(&(tag, place)).copied() else { continue };
        if dirty {
            oracle.drain(tag);
            oracle.send(tag, place, data);
        }
        match op {
            FlushOp::Wbinvd => oracle.copies.remove(&(tag, place)),
            FlushOp::Wbnoinvd => oracle.copies.insert((tag, place), (data, false)),
        };
    }
}

/// Makes a step on the oracle.
fn by_values(oracle: &mut Oracle, step: Step, moved: Option<Move>) {
    let ccx = |c: u16| CcxId(CCX_OF[usize::from(c)]);
    match step {
        Step::Cpu(c, t, Access::Read) => oracle.read(c, Tag(t)),
        Step::Cpu(c, t, Access::Write) => oracle.write(c, Tag(t)),
        Step::Dma(access) => {
            oracle.drain(Tag::HOST);
            match access {
                Access::Read => {
                    let held =
                        places().into_iter().filter_map(|p| oracle.copies.get(&(Tag::HOST, p)).copied());
                    match held.max_by_key(|c| c.1) {
                        Some((data, _)) => oracle.judge(Tag::HOST, data),
                        None => drop(oracle.fetch(Tag::HOST, false)),
                    }
                }
                Access::Write => {
                    oracle.copies.retain(|k, _| k.0 != Tag::HOST);
                    oracle.memory = (oracle.new_store(Tag::HOST), oracle.key(Tag::HOST));
                }
            }
        }
        Step::Psp(t, access) => {
            if oracle.psp.evicts_own_tag {
                oracle.drain(Tag(t));
                oracle.evict(Tag(t), |_| true);
            }
            if oracle.psp.evicts_host_lines {
                oracle.drain(Tag::HOST);
                oracle.evict(Tag::HOST, |_| true);
            }
            match access {
                Access::Read => drop(oracle.fetch(Tag(t), false)),
                Access::Write => oracle.memory = (oracle.new_store(Tag(t)), oracle.key(Tag(t))),
            }
        }
        Step::Private(c, op) => flush(oracle, Place::Private(CoreId(c)), op),
        Step::Shared(c, op) => flush(oracle, Place::L3(ccx(c)), op),
        Step::Clflush => {
            let coherent = oracle.coherent;
            for tag in (0..TAGS).map(Tag).filter(|t| coherent || *t == Tag::HOST) {
                oracle.flush_tag(tag);
            }
        }
        Step::Clwb => {
            let coherent = oracle.coherent;
            for tag in (0..TAGS).map(Tag).filter(|t| coherent || *t == Tag::HOST) {
                oracle.drain(tag);
                for place in places() {
                    if let Some((data, true)) = oracle.copies.get(&(tag, place)).copied() {
                        oracle.copies.insert((tag, place), (data, false));
                        oracle.send(tag, place, data);
                        break;
                    }
                }
            }
        }
        Step::FlushTag(t) => oracle.flush_tag(Tag(t)),
        Step::Invd(c) => {
            oracle.copies.retain(|k, _| k.1 != Place::Private(CoreId(c)) && k.1 != Place::L3(ccx(c)));
        }
        Step::NewKey(t) => oracle.keys[usize::from(t)] += 1,
        Step::Fabric => {
            for tag in (0..TAGS).map(Tag) {
                oracle.drain(tag);
            }
        }
        Step::GuestEvicts(t) => {
            for other in (0..TAGS).map(Tag).filter(|o| *o != Tag(t)) {
                oracle.drain(other);
                oracle.evict(other, |_| true);
            }
        }
        Step::Owner(t) => (oracle.owner, oracle.truth, oracle.first) = (Tag(t), None, None),
        Step::Move(_) => {
            let Some(Move { tag, kind, .. }) = moved else { return };
            match kind {
                MoveKind::PrivateToL3(c) => {
                    let (data, dirty) = oracle.copies.remove(&(tag, Place::Private(c))).unwrap();
                    let l3 = (tag, Place::L3(ccx(c.0)));
                    let was = oracle.copies.get(&l3).is_some_and(|copy| copy.1);
                    oracle.copies.insert(l3, (data, dirty || was));
                }
                MoveKind::PrivateToDram(c) => oracle.evict(tag, |p| p == Place::Private(c)),
                MoveKind::PrivateDrop(c) => drop(oracle.copies.remove(&(tag, Place::Private(c)))),
                MoveKind::L3ToFlight(x) => {
                    let copy = oracle.copies.remove(&(tag, Place::L3(x))).unwrap();
                    oracle.copies.insert((tag, Place::Flight(x)), copy);
                }
                MoveKind::L3Drop(x) => drop(oracle.copies.remove(&(tag, Place::L3(x)))),
                MoveKind::FlightToDram(x) => oracle.evict(tag, |p| p == Place::Flight(x)),
            }
        }
    }
}

/// Makes a step on the lattice.
fn by_bits(
    shape: &Shape,
    line: &mut Line,
    owner: Tag,
    step: Step,
    moved: Option<Move>,
    events: &mut Vec<Event>,
) {
    match step {
        Step::Cpu(c, t, a) => shape.cpu_access(line, 0, (CoreId(c), Tag(t)), a, Tag(t) == owner, events),
        Step::Dma(a) => shape.dma(line, 0, a, owner == Tag::HOST, events),
        Step::Psp(t, a) => shape.psp(line, 0, Tag(t), a, Tag(t) == owner, events),
        Step::Private(c, op) => shape.flush_private(line, 0, CoreId(c), op, events),
        Step::Shared(c, op) => shape.flush_shared(line, 0, CoreId(c), op, events),
        Step::Clflush => shape.clflush(line, 0, events),
        Step::Clwb => shape.clwb(line, 0, events),
        Step::FlushTag(t) => shape.flush_tag(line, 0, Tag(t), events),
        Step::Invd(c) => shape.invd(line, 0, CoreId(c)),
        Step::NewKey(t) => shape.new_key(line, 0, Tag(t)),
        Step::Fabric => shape.fabric_flush(line, 0, events),
        Step::GuestEvicts(t) => shape.guest_evicts(line, 0, Tag(t), events),
        Step::Owner(_) => shape.change_owner(line, 0),
        Step::Move(_) => {
            if let Some(m) = moved {
                shape.make_move(line, m, events);
            }
        }
    }
}

fn agree(coherent: bool, psp: Psp, guest_must_evict: bool, (flat, fly): (bool, bool), program: &[Step]) {
    let shape = Shape {
        ccx_of_core: CCX_OF.map(CcxId).to_vec(),
        ccxs: 2,
        tags: TAGS,
        sme_coherent: coherent,
        dma_snoops: true,
        socket_of_ccx: Vec::new(),
        flushes_fly: fly,
        evict_clean_on_read: true,
        scope: WbinvdScope::CoreAndL3,
        keep_clean: true,
        psp,
        keys_change: true,
        drops: true,
        flat,
        guest_must_evict,
    };
    let junk = (Data { store: 0, guest: 0, since: 0 }, (Tag::HOST, 0));
    let mut oracle = Oracle {
        coherent,
        psp,
        guest_must_evict,
        flushes_fly: fly && !flat,
        copies: BTreeMap::new(),
        memory: junk,
        truth: None,
        first: None,
        owner: Tag(1),
        stores: 0,
        keys: [0; 3],
        told: Vec::new(),
    };
    let mut line = Line::default();
    for (n, step) in program.iter().enumerate() {
        let mut moves = Vec::new();
        shape.each_move(&line, 0, &mut |m| moves.push(m));
        let mut moved = None;
        if let Step::Move(pick) = step
            && !moves.is_empty()
        {
            moved = Some(moves[pick % moves.len()]);
        }
        let mut events = Vec::new();
        by_bits(&shape, &mut line, oracle.owner, *step, moved, &mut events);
        by_values(&mut oracle, *step, moved);
        let mut told: Vec<_> = events.iter().map(|e| (e.kind, e.tag.unwrap())).collect();
        let mut want = std::mem::take(&mut oracle.told);
        told.sort_unstable();
        want.sort_unstable();
        assert_eq!(told, want, "events of step {n}: {step:?} of {program:?}");
        for tag in shape.all_tags() {
            for place in shape.places() {
                let want = oracle.copies.get(&(tag, place)).map_or(Copy::ABSENT, |(data, dirty)| Copy {
                    held: if *dirty { Held::Dirty } else { Held::Clean },
                    old: oracle.is_old(*data),
                    came_old: oracle.came_old(tag, *data),
                    foreign: data.guest != oracle.key(tag).1,
                });
                assert_eq!(line.copy(0, place, tag), want, "{tag} in {place:?} after step {n}: {step:?}");
                let gone = flat && !matches!(place, Place::Private(_));
                assert!(!gone || want == Copy::ABSENT, "{place:?} of flat caches after step {n}: {step:?}");
                assert_eq!(Copy::from_code(want.code()), want);
            }
        }
        let (data, key) = oracle.memory;
        let past = oracle.past();
        let want = Dram { key: key.0, old: oracle.is_old(data), past };
        let got = line.dram(0);
        assert_eq!(line.truth, oracle.truth.is_some());
        if line.truth {
            assert_eq!(got, want, "memory after step {n}: {step:?} of {program:?}");
        } else {
            let told = if past == Past::Foreign { want } else { Dram::UNTOLD };
            assert_eq!(got, told, "memory without truth after step {n}: {step:?}");
        }
        assert_eq!(Dram::from_code(got.code(TAGS), TAGS, got.old), got);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bits_equal_values(
        program in prop::collection::vec(step(), 1..60),
        coherent: bool,
        own: bool,
        host: bool,
        must: bool,
        flat: bool,
        fly: bool,
    ) {
        agree(coherent, Psp { evicts_own_tag: own, evicts_host_lines: host }, must, (flat, fly), &program);
    }
}
