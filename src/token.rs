//! Tokens: a violation in one word that can be sent to somebody. It names the texts, the part and the event, holds a
//! digest of the program and the schedule, and ends in a checksum.
//!
//! Names of what is built in are kept as hashes of 24 bits, which no two of a kind share; a file's name is kept as it
//! is, and the file must be there.

use cache_model::event::EventKind;
use svm_model::explore::{Explorer, ScheduledStep};
use svm_model::spec::MemoryModel;
use workloads::check::CheckCase;
use workloads::litmus::Litmus;
use workloads::schedule::program_digest;

use crate::exit::Failure;
use crate::names::Kind;

/// What every token begins with; the number is the format's.
const PREFIX: &str = "sev1-";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.";
const KINDS: [Kind; 4] = [Kind::Litmus, Kind::Policy, Kind::Kernel, Kind::Part];

/// What a token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    /// Litmus test, policy, kernel, part.
    pub(crate) names: [String; 4],
    /// The order in which accesses are seen.
    pub(crate) memory_model: MemoryModel,
    /// The event that the schedule shows.
    pub(crate) event: EventKind,
    /// The low half of the program's digest.
    pub(crate) digest: u32,
    /// How many steps.
    pub(crate) steps: usize,
    /// Which ones.
    pub(crate) schedule: Vec<u8>,
}

/// The low half.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low(value: u64) -> u32 {
    value as u32
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn hash24(name: &str) -> [u8; 3] {
    let h = low(fnv(name.as_bytes()) >> 16).to_le_bytes();
    [h[0] ^ h[3], h[1], h[2]]
}

/// The built-in names of a kind, variants of litmus tests included.
fn builtin(kind: Kind) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, file, text) in kind.builtin() {
        names.push(name.to_owned());
        if kind == Kind::Litmus
            && let Ok(litmus) = Litmus::parse(&file, text)
        {
            names.extend(litmus.variants().iter().map(|v| v.name.clone()).filter(|n| n != name));
        }
    }
    names
}

/// Whether a name is one of [`builtin`], which parses every litmus test.
fn is_builtin(kind: Kind, name: &str) -> bool {
    let base = name.split(':').next().unwrap_or(name);
    kind.builtin().into_iter().filter(|(known, ..)| *known == base).any(|(_, file, text)| {
        name == base
            || kind == Kind::Litmus
                && Litmus::parse(&file, text).is_ok_and(|l| l.variants().iter().any(|v| v.name == name))
    })
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = PREFIX.to_owned();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().enumerate().fold(0usize, |bits, (i, b)| bits | usize::from(*b) << (16 - 8 * i));
        for i in 0..=chunk.len() {
            text.push(char::from(ALPHABET[bits >> (18 - 6 * i) & 63]));
        }
    }
    text
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.strip_prefix(PREFIX)?.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for (i, c) in chunk.iter().enumerate() {
            let digit = ALPHABET.iter().position(|a| a == c)?;
            bits |= u32::try_from(digit).ok()? << (18 - 6 * i);
        }
        bytes.extend_from_slice(bits.to_be_bytes().get(1..chunk.len())?);
    }
    Some(bytes)
}

/// Whether a word on the command line is meant as a token.
pub(crate) fn is_token(word: &str) -> bool {
    word.starts_with(PREFIX)
}

impl Token {
    /// Of a violation; `None` for a schedule that does not fit the case, or one of texts with other `#define`s.
    pub(crate) fn of(case: &CheckCase<'_>, event: EventKind, steps: &[ScheduledStep]) -> Option<Token> {
        if !case.litmus.defined().is_empty() {
            return None;
        }
        let machine = case.machine_to_replay().ok()?;
        let schedule = Explorer::new(&machine)?.packed(steps)?;
        let names: [&str; 4] = [&case.litmus.name, &case.policy.name, &case.kernel.name, case.part];
        Some(Token {
            names: names.map(str::to_owned),
            memory_model: case.litmus.memory_model(),
            event,
            digest: low(program_digest(&machine)),
            steps: steps.len(),
            schedule,
        })
    }

    /// As one word.
    pub(crate) fn text(&self) -> String {
        let mut bytes = Vec::new();
        for (kind, name) in KINDS.into_iter().zip(&self.names) {
            if is_builtin(kind, name) {
                bytes.push(0);
                bytes.extend(hash24(name));
            } else {
                // Longer names than that are cut, and then not found.
                let name = name.as_bytes();
                let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
                bytes.push(length);
                bytes.extend(&name[..usize::from(length)]);
            }
        }
        let event = EventKind::ALL.iter().position(|e| *e == self.event).unwrap_or(0);
        let model = u8::from(self.memory_model == MemoryModel::Tso);
        bytes.push(u8::try_from(event).unwrap_or(0) << 1 | model);
        bytes.extend(self.digest.to_le_bytes());
        bytes.extend(u16::try_from(self.steps).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(&self.schedule);
        bytes.push(low(fnv(&bytes)).to_le_bytes()[0]);
        encoded(&bytes)
    }

    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Token, Failure> {
        let damaged = || {
            let message = "this is no token of `sevsim check`, or not all of it: its checksum is wrong";
            Failure::input(format!("{text}: {message}"))
        };
        let bytes = decoded(text).ok_or_else(damaged)?;
        let (sum, bytes) = bytes.split_last().ok_or_else(damaged)?;
        if *sum != low(fnv(bytes)).to_le_bytes()[0] {
            return Err(damaged());
        }
        let mut rest = bytes;
        let mut take = |n: usize| {
            let (taken, left) = rest.split_at_checked(n)?;
            rest = left;
            Some(taken)
        };
        let mut names: [String; 4] = Default::default();
        for (kind, name) in KINDS.into_iter().zip(&mut names) {
            let length = take(1).ok_or_else(damaged)?[0];
            if length > 0 {
                let bytes = take(usize::from(length)).ok_or_else(damaged)?;
                *name = String::from_utf8(bytes.to_vec()).map_err(|_| damaged())?;
                continue;
            }
            let hash = take(3).ok_or_else(damaged)?;
            let found = builtin(kind).into_iter().find(|name| hash24(name) == *hash);
            *name = found.ok_or_else(|| {
                let message =
                    format!("it was made by another version: its {} is not built in here", kind.singular());
                Failure::input(format!("{text}: {message}"))
            })?;
        }
        let event = take(1).ok_or_else(damaged)?[0];
        let digest = take(4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or_else(damaged)?;
        let steps = take(2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes).ok_or_else(damaged)?;
        Ok(Token {
            names,
            memory_model: if event & 1 == 1 { MemoryModel::Tso } else { MemoryModel::Sc },
            event: *EventKind::ALL.get(usize::from(event >> 1)).ok_or_else(damaged)?,
            digest,
            steps: usize::from(steps),
            schedule: rest.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_of_a_kind_share_a_hash() {
        for kind in KINDS {
            let names = builtin(kind);
            let mut hashes: Vec<[u8; 3]> = names.iter().map(|n| hash24(n)).collect();
            hashes.sort_unstable();
            hashes.dedup();
            assert_eq!(hashes.len(), names.len(), "{}", kind.plural());
        }
    }

    #[test]
    fn tokens_come_back_as_they_were_and_damage_is_noticed() {
        for length in 0..9u8 {
            let token = Token {
                names: ["two-flushers", "./mine.c", "linux-6.17", "rome"].map(str::to_owned),
                memory_model: MemoryModel::Tso,
                event: EventKind::Stale,
                digest: 0xdead_beef,
                steps: 300,
                schedule: (1..=length).collect(),
            };
            let text = token.text();
            assert_eq!(Token::parse(&text).unwrap(), token);
            assert!(Token::parse(&text[..text.len() - 2]).is_err());
            let other = if text.as_bytes()[12] == b'A' { "B" } else { "A" };
            assert!(Token::parse(&format!("{}{other}{}", &text[..12], &text[13..])).is_err());
        }
        assert!(Token::parse("sev1-").is_err() && Token::parse("sev1-!!").is_err());
    }
}
