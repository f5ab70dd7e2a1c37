//! Random streams of guests: keyed, integer only, the same on every machine.
//!
//! *Promise*: a stream depends on its key (seed, actor, purpose) and nothing else, so that two policies that are
//! compared see the same guests; streams of different keys are independent for every practical use.
//! *Not here*: distributions that need `ln` or `pow` (see `zipf` for the one skewed sampler, built with integers).

use sim_core::random::Stream;

/// Where the guests' purposes begin, apart from the small numbers that other users of the engine's streams take.
const GUEST: u64 = 0x4755_4553_5400;

/// What a random stream is for. A purpose of its own keeps one use from shifting the numbers of another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Purpose {
    /// Which line is accessed next, and whether it is written.
    Access,
    /// Where things lie: which page is popular, in which order a chain of pointers runs.
    Layout,
    /// Where in its behaviour an actor begins.
    Start,
}

impl Purpose {
    /// The number that enters the key; fixed for ever, since results depend on it.
    const fn number(self) -> u64 {
        match self {
            Purpose::Access => GUEST,
            Purpose::Layout => GUEST + 1,
            Purpose::Start => GUEST + 2,
        }
    }
}

/// The key of a random stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamKey {
    /// The seed of the whole run.
    pub seed: u64,
    /// The actor whose stream it is: the number of a vCPU over all VMs, say.
    pub actor: u32,
    /// What the stream is for.
    pub purpose: Purpose,
}

/// A random stream and the integer samplers over it.
#[derive(Clone, Debug)]
pub struct RandomStream(Stream);

impl RandomStream {
    /// The stream of a key, at its beginning.
    #[must_use]
    pub fn new(key: StreamKey) -> RandomStream {
        RandomStream(Stream::new(key.seed, u64::from(key.actor), key.purpose.number()))
    }

    /// The next 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `bound`, all equally likely (Lemire's multiply and reject), with 32 bits left over.
    ///
    /// The left-over bits are independent of the number; a `bound` of 0 gives 0.
    #[inline]
    pub fn below_and_bits(&mut self, bound: u32) -> (u32, u32) {
        loop {
            let bits = self.bits();
            let product = (bits >> 32) * u64::from(bound);
            let fraction = low(product);
            // Only a fraction below 2^32 mod bound may be unfair; the cheap test comes first.
            if fraction >= bound || fraction >= bound.wrapping_neg().checked_rem(bound).unwrap_or(0) {
                return (high(product), low(bits));
            }
        }
    }

    /// A number below `bound`, all equally likely; 0 if `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        self.below_and_bits(bound).0
    }

    /// Puts `items` in random order (Fisher and Yates), every order equally likely.
    pub fn shuffle(&mut self, items: &mut [u32]) {
        for last in (1..items.len()).rev() {
            let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
            items.swap(last, self.below(bound) as usize);
        }
    }

    /// Puts `items` in an order that, read as "from place i go to `items[i]`", is one single cycle (Sattolo).
    ///
    /// `items` must hold 0, 1, 2, ... on entry.
    pub fn single_cycle(&mut self, items: &mut [u32]) {
        for last in (1..items.len()).rev() {
            let bound = u32::try_from(last).unwrap_or(u32::MAX);
            items.swap(last, self.below(bound) as usize);
        }
    }
}

/// A chance in percent, decided against 32 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chance {
    /// 2^32 * percent / 100; 2^32 itself is "always", hence 64 bits.
    threshold: u64,
}

impl Chance {
    /// The chance of `percent` in a hundred; more than 100 counts as 100.
    #[must_use]
    pub fn of_percent(percent: u8) -> Chance {
        Chance { threshold: (u64::from(percent.min(100)) << 32) / 100 }
    }

    /// Whether it happens, given 32 random bits.
    #[inline]
    #[must_use]
    pub fn hits(self, bits: u32) -> bool {
        u64::from(bits) < self.threshold
    }
}

#[inline]
const fn low(n: u64) -> u32 {
    (n & 0xffff_ffff) as u32
}

#[inline]
const fn high(n: u64) -> u32 {
    (n >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(seed: u64, actor: u32, purpose: Purpose) -> RandomStream {
        RandomStream::new(StreamKey { seed, actor, purpose })
    }

    #[test]
    fn golden_numbers_of_a_key() {
        let mut s = stream(1, 0, Purpose::Access);
        let drawn: Vec<u64> = (0..4).map(|_| s.bits()).collect();
        assert_eq!(
            drawn,
            [
                10_830_087_236_821_985_826,
                11_339_591_586_063_767_715,
                4_821_547_837_482_198_892,
                16_284_000_603_017_396_797
            ]
        );
        let mut s = stream(1, 0, Purpose::Access);
        let drawn: Vec<u32> = (0..12).map(|_| s.below(1000)).collect();
        assert_eq!(drawn, [587, 614, 261, 882, 966, 113, 618, 839, 448, 883, 732, 301]);
        let mut order: Vec<u32> = (0..10).collect();
        stream(7, 3, Purpose::Layout).shuffle(&mut order);
        assert_eq!(order, [6, 9, 4, 5, 3, 8, 0, 7, 1, 2]);
    }

    #[test]
    fn each_part_of_the_key_matters() {
        let of = |seed, actor, purpose| stream(seed, actor, purpose).bits();
        let base = of(1, 0, Purpose::Access);
        assert_eq!(base, of(1, 0, Purpose::Access));
        let others = [
            of(2, 0, Purpose::Access),
            of(0, 0, Purpose::Access),
            of(1, 1, Purpose::Access),
            of(1, 256, Purpose::Access),
            of(1, 0, Purpose::Layout),
            of(1, 0, Purpose::Start),
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(base, *other);
            assert!(!others[..i].contains(other));
        }
    }

    #[test]
    fn below_is_even_and_in_range() {
        let mut s = stream(3, 0, Purpose::Access);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[s.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (9_500..10_500).contains(&n)), "{counts:?}");
        assert_eq!(s.below(1), 0);
        assert_eq!(s.below(0), 0);
    }

    #[test]
    fn unfair_draws_are_rejected() {
        // With a bound just over 2^31 every second draw would be unfair: the halves must stay even.
        let bound = (1u32 << 31) + 1;
        let mut s = stream(4, 0, Purpose::Access);
        let low_half = (0..40_000).filter(|_| s.below(bound) < bound / 2).count();
        assert!((19_500..20_500).contains(&low_half), "{low_half}");
    }

    #[test]
    fn chances_at_the_ends_are_certain() {
        for bits in [0, 1, u32::MAX] {
            assert!(!Chance::of_percent(0).hits(bits));
            assert!(Chance::of_percent(100).hits(bits));
            assert!(Chance::of_percent(200).hits(bits));
        }
        assert!(Chance::of_percent(50).hits((1 << 31) - 1));
        assert!(!Chance::of_percent(50).hits(1 << 31));
    }

    #[test]
    fn a_single_cycle_visits_everything_once() {
        let mut next: Vec<u32> = (0..257).collect();
        stream(5, 0, Purpose::Layout).single_cycle(&mut next);
        let (mut at, mut steps) = (0u32, 0);
        loop {
            at = next[at as usize];
            steps += 1;
            if at == 0 {
                break;
            }
        }
        assert_eq!(steps, 257);
    }
}
