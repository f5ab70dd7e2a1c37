//! Random streams keyed by (seed, actor, purpose), so that policies compared share their guests' behaviour.
//!
//! Integer arithmetic only, on a generator whose output is fixed by its authors for good (`Pcg64Dxsm`), with
//! our own samplers: the same numbers on every machine and in every version.

use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_pcg::Pcg64Dxsm;

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(Pcg64Dxsm);

/// Spreads a number's bits (the finaliser of SplitMix64).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Stream {
    /// The stream of one actor for one purpose under a seed.
    #[must_use]
    pub fn new(seed: u64, actor: u64, purpose: u64) -> Stream {
        Stream(Pcg64Dxsm::seed_from_u64(mix(seed ^ mix(actor ^ mix(purpose)))))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n` (at least 1), by multiplication; the bias is under n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(n.max(1));
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// Whether something of so many percent happens.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_for_good() {
        let mut s = Stream::new(1, 2, 3);
        let first: Vec<u64> = (0..2).map(|_| s.bits()).collect();
        assert_eq!(
            first,
            [Stream::new(1, 2, 3).bits(), {
                let mut t = Stream::new(1, 2, 3);
                t.bits();
                t.bits()
            }]
        );
        assert_ne!(Stream::new(1, 2, 4).bits(), first[0]);
        assert!((0..1000).all(|_| s.below(7) < 7));
    }
}
