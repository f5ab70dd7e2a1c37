//! A search written to the disk so that it can go on later.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::Reached;
use crate::dictionary::{Dictionary, Plan};
use crate::frozen::{Frozen, Part};
use crate::ranks::Ranks;
use crate::space::Space;
use crate::table::{SHARDS, Shard};

/// Where a search is, beside its states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) transitions: u64,
    pub(crate) expanded: u64,
    pub(crate) depth: u32,
    /// Shard and state that are expanded next.
    pub(crate) at: (u32, u32),
    pub(crate) reached: Vec<Reached>,
}

/// First word of a checkpoint: what it is, and its version.
const MAGIC: u64 = u64::from_le_bytes(*b"sevsimX2");

/// Words on their way to a file.
struct Out<W: Write>(W);

impl<T: Write> Out<T> {
    fn word(&mut self, word: u64) -> io::Result<()> {
        self.0.write_all(&word.to_le_bytes())
    }

    fn words(&mut self, words: impl ExactSizeIterator<Item = u64>) -> io::Result<()> {
        self.word(words.len() as u64)?;
        words.into_iter().try_for_each(|w| self.word(w))
    }
}

/// Words from a file.
struct In<R: Read>(R);

fn bad(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the checkpoint is damaged: {what}; without --resume the search begins anew"),
    )
}

impl<R: Read> In<R> {
    fn word(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof { bad("it ends too early") } else { error }
        })?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn number<N: TryFrom<u64>>(&mut self) -> io::Result<N> {
        N::try_from(self.word()?).map_err(|_| bad("a number is too large"))
    }

    fn words(&mut self) -> io::Result<Vec<u64>> {
        let count = self.word()?;
        // Read before room is made, so that a damaged count cannot ask for all memory.
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(self.word()?);
        }
        Ok(words)
    }

    fn numbers<N: TryFrom<u64>>(&mut self) -> io::Result<Vec<N>> {
        let narrow = |w| N::try_from(w).map_err(|_| bad("a number is too large"));
        self.words()?.into_iter().map(narrow).collect()
    }
}

/// Writes a checkpoint: until it is whole, the one before stays.
pub(crate) fn write<const W: usize>(
    dir: &Path,
    fingerprint: u64,
    space: &Space<W>,
    place: &Place,
) -> io::Result<()> {
    let part = dir.join("checkpoint.part");
    let mut out = Out(BufWriter::with_capacity(1 << 20, File::create(&part)?));
    out.word(MAGIC)?;
    out.word(fingerprint)?;
    out.word(W as u64)?;
    out.words(
        [place.transitions, place.expanded, place.depth.into(), place.at.0.into(), place.at.1.into()]
            .into_iter(),
    )?;
    out.word(place.reached.len() as u64)?;
    for r in &place.reached {
        let transition = r.transition.map_or(u64::MAX, u64::from);
        out.words([r.goal.into(), r.state.into(), transition, r.depth.into()].into_iter())?;
    }
    for values in space.dictionary.values() {
        out.words(values.iter().map(|v| u64::from(*v)))?;
    }
    out.words(space.plan.written().into_iter())?;
    out.word(space.levels.len() as u64)?;
    for (before, starts) in &space.levels {
        out.word(*before)?;
        out.words(starts.iter().map(|s| u64::from(*s)))?;
    }
    out.word(space.frozen.len() as u64)?;
    for frozen in &space.frozen {
        out.words(frozen.plan.written().into_iter())?;
        for p in &frozen.shards {
            out.words([p.first.into(), p.count.into(), p.order_at, p.sorted_at, p.sorted_end].into_iter())?;
        }
    }
    for (shard, settled) in space.shards.iter().zip(&space.settled) {
        out.words([shard.level.start.into(), shard.level.end.into(), u64::from(*settled)].into_iter())?;
        out.word((shard.keys.len() * space.plan.words) as u64)?;
        shard.keys.pages().flatten().try_for_each(|word| out.word(*word))?;
        let (mut steps, far) = shard.ranks.written();
        out.word(shard.len().into())?;
        steps.try_for_each(|step| out.0.write_all(&step.to_le_bytes()))?;
        out.words(
            far.iter().flat_map(|(place, rank)| [u64::from(*place), *rank]).collect::<Vec<_>>().into_iter(),
        )?;
    }
    out.word(MAGIC)?;
    out.0.into_inner()?.sync_all()?;
    fs::rename(part, dir.join("checkpoint"))
}

/// Removes a checkpoint and what so many times was put on the disk: the search is over.
pub(crate) fn remove(dir: &Path, frozen: usize) -> io::Result<()> {
    let names = (0..frozen).flat_map(|n| [format!("states-{n}"), format!("sorted-{n}")]);
    for name in names.chain(["checkpoint".to_owned()]) {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Reads a checkpoint; none if there is none.
///
/// # Errors
///
/// What the disk says; a checkpoint that is damaged or of another search.
pub(crate) fn read<const W: usize>(dir: &Path, fingerprint: u64) -> io::Result<Option<(Space<W>, Place)>> {
    let file = match File::open(dir.join("checkpoint")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut file = In(BufReader::with_capacity(1 << 20, file));
    if file.word()? != MAGIC {
        return Err(bad("it does not begin as one"));
    }
    if file.word()? != fingerprint || file.number::<usize>()? != W {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the checkpoint is of another search"));
    }
    let [transitions, expanded, depth, shard, state] = file.words()?[..] else {
        return Err(bad("its place"));
    };
    let narrow = |w: u64| u32::try_from(w).map_err(|_| bad("a number is too large"));
    let mut place = Place {
        transitions,
        expanded,
        depth: narrow(depth)?,
        at: (narrow(shard)?, narrow(state)?),
        reached: Vec::new(),
    };
    for _ in 0..file.word()? {
        let [goal, state, transition, depth] = file.words()?[..] else { return Err(bad("a goal")) };
        let transition = if transition == u64::MAX { None } else { Some(narrow(transition)?) };
        let (goal, state, depth) = (narrow(goal)?, narrow(state)?, narrow(depth)?);
        place.reached.push(Reached { goal, state, transition, depth });
    }
    let mut values = Vec::new();
    for _ in 0..2 * W {
        values.push(file.numbers()?);
    }
    let dictionary = Dictionary::of(&values);
    let plan = Plan::of_written(&file.words()?).ok_or_else(|| bad("its plan"))?;
    let mut levels = Vec::new();
    for _ in 0..file.word()? {
        levels.push((file.word()?, file.numbers()?));
    }
    if levels.is_empty() || levels.iter().any(|(_, starts)| starts.len() != SHARDS) {
        return Err(bad("its levels"));
    }
    let mut frozen = Vec::new();
    for number in 0..file.number::<usize>()? {
        let plan = Plan::of_written(&file.words()?).ok_or_else(|| bad("a plan"))?;
        let mut parts = Vec::new();
        for _ in 0..SHARDS {
            let [first, count, order_at, sorted_at, sorted_end] = file.words()?[..] else {
                return Err(bad("a shard on the disk"));
            };
            let (first, count) = (narrow(first)?, narrow(count)?);
            parts.push(Part { first, count, order_at, sorted_at, sorted_end });
        }
        frozen.push(Frozen::open(dir, number, plan, parts)?);
    }
    let (mut shards, mut settled) = (Vec::new(), Vec::new());
    for _ in 0..SHARDS {
        let [start, end, safe] = file.words()?[..] else { return Err(bad("a shard")) };
        let keys = file.words()?;
        let mut steps = Vec::new();
        let count = file.word()?;
        (&mut file.0).take(count.saturating_mul(2)).read_to_end(&mut steps)?;
        let steps: Vec<u16> = steps.as_chunks::<2>().0.iter().map(|step| u16::from_le_bytes(*step)).collect();
        let far = file
            .words()?
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[p, r]| Ok((narrow(*p)?, *r)))
            .collect::<io::Result<_>>()?;
        let ranks = Ranks::of_written(&steps, far).ok_or_else(|| bad("ranks"))?;
        if keys.len() % plan.words != 0 || keys.len() / plan.words > ranks.len() as usize {
            return Err(bad("keys"));
        }
        let mut shard = Shard::of(plan.words, &keys, ranks);
        shard.level = narrow(start)?..narrow(end)?;
        if shard.level.end > shard.len() || shard.level.start > shard.level.end {
            return Err(bad("a level"));
        }
        shards.push(shard);
        settled.push(narrow(safe)?);
    }
    if file.word()? != MAGIC {
        return Err(bad("it does not end as one"));
    }
    Ok(Some((Space { dictionary, plan, plans: 0, shards, frozen, settled, levels, dead_ends: None }, place)))
}
