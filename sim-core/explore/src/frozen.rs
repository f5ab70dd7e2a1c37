//! States that were put on the disk when memory ended.
//!
//! All states in memory are written twice: in the order in which they were found, to be expanded and told from, and
//! sorted, as differences, to be compared with. What is found afterwards is looked for in memory only, and compared
//! with the sorted states by one pass over them when a level ends or memory ends again. So nothing is approximate:
//! states, counts and stories are those of a search that had memory for all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::dictionary::{Dictionary, Plan};
use crate::table::Shard;

/// The states that were put on the disk at one time.
#[derive(Debug)]
pub(crate) struct Frozen<const W: usize> {
    pub(crate) plan: Plan<W>,
    /// Keys in the order of the states, shard after shard.
    order: File,
    /// Keys of each shard, sorted, as differences.
    sorted: File,
    pub(crate) shards: Vec<Part>,
}

/// A shard's part of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its states: the first, and how many.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Where its keys begin, in keys.
    pub(crate) order_at: u64,
    /// Where its sorted keys lie, in bytes.
    pub(crate) sorted_at: u64,
    pub(crate) sorted_end: u64,
}

/// Bytes that are read at a time.
const PIECE: usize = 1 << 16;

fn open(dir: &Path, name: &str, number: usize, fresh: bool) -> io::Result<File> {
    let path = dir.join(format!("{name}-{number}"));
    OpenOptions::new().read(true).write(fresh).create(fresh).truncate(fresh).open(path)
}

impl<const W: usize> Frozen<W> {
    /// Writes the states that the shards have in memory.
    pub(crate) fn write(dir: &Path, number: usize, plan: &Plan<W>, shards: &[Shard]) -> io::Result<Self> {
        let order = open(dir, "states", number, true)?;
        let sorted = open(dir, "sorted", number, true)?;
        let (mut keys, mut runs) = (BufWriter::new(&order), BufWriter::new(&sorted));
        let (mut parts, mut order_at, mut sorted_at) = (Vec::new(), 0u64, 0u64);
        for shard in shards {
            for word in shard.keys.pages().flatten() {
                keys.write_all(&word.to_le_bytes())?;
            }
            let mut all: Vec<&[u64]> = shard.keys.records().collect();
            all.sort_unstable();
            let (mut before, mut end) = (0, sorted_at);
            for key in all {
                end += write_key(&mut runs, key, before)?;
                before = key[0];
            }
            let count = shard.len() - shard.first;
            parts.push(Part { first: shard.first, count, order_at, sorted_at, sorted_end: end });
            (order_at, sorted_at) = (order_at + u64::from(count), end);
        }
        keys.flush()?;
        runs.flush()?;
        drop((keys, runs));
        Ok(Frozen { plan: plan.clone(), order, sorted, shards: parts })
    }

    /// Opens what was written before.
    pub(crate) fn open(dir: &Path, number: usize, plan: Plan<W>, shards: Vec<Part>) -> io::Result<Self> {
        let (order, sorted) = (open(dir, "states", number, false)?, open(dir, "sorted", number, false)?);
        let keys: u64 = shards.iter().map(|p| u64::from(p.count)).sum();
        let runs = shards.last().map_or(0, |p| p.sorted_end);
        let short = order.metadata()?.len() < keys * plan.words as u64 * 8 || sorted.metadata()?.len() < runs;
        if short {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{}: states-{number} or sorted-{number} is shorter than it was", dir.display()),
            ));
        }
        Ok(Frozen { plan, order, sorted, shards })
    }

    /// The keys of some states of a shard, all of which are here.
    pub(crate) fn keys(&self, shard: usize, from: u32, to: u32) -> io::Result<Vec<u64>> {
        let part = &self.shards[shard];
        let words = self.plan.words;
        let mut bytes = vec![0; (to - from) as usize * words * 8];
        let at = part.order_at + u64::from(from - part.first);
        self.order.read_exact_at(&mut bytes, at * words as u64 * 8)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect())
    }

    /// Marks those of the shard's states in memory, from `from` on, that are here.
    pub(crate) fn mark_known(
        &self,
        shard: usize,
        (plan, dictionary): (&Plan<W>, &Dictionary<W>),
        (states, from): (&Shard, u32),
        known: &mut [bool],
    ) -> io::Result<()> {
        let part = self.shards[shard];
        let mut asked: Vec<([u64; W], u32)> = Vec::new();
        for index in from..states.len() {
            let key = states.key(index);
            // A state with a value that had no number then, or one too large, is not here.
            let own = if *plan == self.plan {
                let mut own = [0; W];
                own[..key.len()].copy_from_slice(key);
                Some(own)
            } else {
                self.plan.encode(dictionary, &plan.decode(dictionary, key))
            };
            asked.extend(own.map(|key| (key, index - from)));
        }
        asked.sort_unstable();
        let mut run = Run::new(&self.sorted, part.sorted_at, part.sorted_end);
        let (mut stored, mut left) = ([0u64; W], part.count);
        let mut next = asked.iter().peekable();
        while left > 0 && next.peek().is_some() {
            run.read_key(&mut stored[..self.plan.words])?;
            left -= 1;
            while next.next_if(|(key, _)| *key < stored).is_some() {}
            while let Some((_, index)) = next.next_if(|(key, _)| *key == stored) {
                known[*index as usize] = true;
            }
        }
        Ok(())
    }
}

/// Writes a key: how much its first word is above that of the key before, seven bits a byte, then its other words.
fn write_key(out: &mut impl Write, key: &[u64], before: u64) -> io::Result<u64> {
    let (mut bytes, mut left) = (1, key[0] - before);
    while left >= 0x80 {
        out.write_all(&[0x80 | (left & 0x7f) as u8])?;
        (bytes, left) = (bytes + 1, left >> 7);
    }
    out.write_all(&[(left & 0x7f) as u8])?;
    for word in &key[1..] {
        out.write_all(&word.to_le_bytes())?;
        bytes += 8;
    }
    Ok(bytes)
}

/// Sorted keys, read piece by piece.
struct Run<'f> {
    file: &'f File,
    at: u64,
    end: u64,
    piece: Vec<u8>,
    next: usize,
    before: u64,
}

impl<'f> Run<'f> {
    fn new(file: &'f File, at: u64, end: u64) -> Self {
        Run { file, at, end, piece: Vec::new(), next: 0, before: 0 }
    }

    fn byte(&mut self) -> io::Result<u8> {
        if self.next == self.piece.len() {
            let length = usize::try_from(self.end - self.at).unwrap_or(PIECE).min(PIECE);
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.piece.resize(length, 0);
            self.file.read_exact_at(&mut self.piece, self.at)?;
            (self.at, self.next) = (self.at + length as u64, 0);
        }
        self.next += 1;
        Ok(self.piece[self.next - 1])
    }

    fn read_key(&mut self, key: &mut [u64]) -> io::Result<()> {
        let (mut more, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            more |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 || shift >= 64 {
                break;
            }
        }
        self.before = self.before.wrapping_add(more);
        key[0] = self.before;
        for word in &mut key[1..] {
            let mut bytes = [0; 8];
            for byte in &mut bytes {
                *byte = self.byte()?;
            }
            *word = u64::from_le_bytes(bytes);
        }
        Ok(())
    }
}
