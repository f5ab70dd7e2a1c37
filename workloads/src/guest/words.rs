//! The packed form of accesses: one word of 32 bits for nearly all, three for the rest.
//!
//! Bits 0 to 23 are the line, bit 24 says that it is written, bits 25 to 31 are the instructions before it.
//! If those bits are all ones, two words follow: the instructions, and the line.

use super::GuestAccess;

const LINE_BITS: u32 = 24;
const LINE_MASK: u32 = (1 << LINE_BITS) - 1;
const WRITE: u32 = 1 << LINE_BITS;
const INSTRUCTIONS_SHIFT: u32 = LINE_BITS + 1;
/// In the place of the instructions: two more words follow.
const WIDE: u32 = 127;
/// How many words an access takes at most.
pub(super) const WORDS_PER_ACCESS_MAX: usize = 3;

/// Appends one access.
#[inline]
pub(super) fn push(words: &mut Vec<u32>, access: GuestAccess) {
    let write = if access.write { WRITE } else { 0 };
    if access.line <= LINE_MASK && access.instructions < WIDE {
        words.push(access.line | write | access.instructions << INSTRUCTIONS_SHIFT);
    } else {
        words.extend([write | WIDE << INSTRUCTIONS_SHIFT, access.instructions, access.line]);
    }
}

/// Takes the access at `at`, which must be the beginning of one, and moves `at` past it.
#[inline]
pub(super) fn take(words: &[u32], at: &mut usize) -> GuestAccess {
    let word = words[*at];
    let instructions = word >> INSTRUCTIONS_SHIFT;
    let write = word & WRITE != 0;
    if instructions == WIDE {
        return take_wide(words, at, write);
    }
    *at += 1;
    GuestAccess { line: word & LINE_MASK, write, instructions }
}

#[cold]
fn take_wide(words: &[u32], at: &mut usize, write: bool) -> GuestAccess {
    let (instructions, line) = (words[*at + 1], words[*at + 2]);
    *at += WORDS_PER_ACCESS_MAX;
    GuestAccess { line, write, instructions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_and_taking_gives_the_same_accesses() {
        let ends = |end: u32| [0, 1, end - 1, end, end + 1, u32::MAX];
        let mut accesses = Vec::new();
        for line in ends(LINE_MASK) {
            for instructions in ends(WIDE) {
                for write in [false, true] {
                    accesses.push(GuestAccess { line, write, instructions });
                }
            }
        }
        let mut words = Vec::new();
        for &access in &accesses {
            push(&mut words, access);
        }
        let mut at = 0;
        for &access in &accesses {
            assert_eq!(take(&words, &mut at), access);
        }
        assert_eq!(at, words.len());
        // The common case takes one word: lines 0, 1, ends of the mask; 0, 1 and 126 instructions.
        assert_eq!(words.len(), accesses.len() * 3 - 4 * 3 * 2 * 2);
    }
}
