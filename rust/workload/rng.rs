// SPDX-License-Identifier: GPL-2.0

//! Random numbers: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
//! generators", OOPSLA 2014). Small, quick, and any start value will do.

/// The golden ratio in 64 bits: the step of the sequence.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A bijection of 64-bit words that leaves no visible pattern (David Stafford's "Mix13").
pub(super) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A sequence of random numbers.
pub(super) struct Rng(u64);

impl Rng {
    /// The sequence of one purpose of one worker in one repetition.
    pub(super) fn new(seed: u64, worker: usize, repetition: u32, purpose: u32) -> Rng {
        let place = ((worker as u64) << 40) | (u64::from(repetition) << 8) | u64::from(purpose);
        Rng(mix(mix(seed.wrapping_add(GAMMA)) ^ place))
    }

    /// 64 random bits.
    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0. Uniform but for a part in `2^32 / bound` (Lemire,
    /// "Fast random integer generation in an interval", 2019, without the rejection).
    #[inline]
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// A fixed random order of `0..len` that needs no memory: a bijection of the next power of two,
/// of which the numbers from `len` on are left out.
#[derive(Clone, Copy)]
pub(super) struct Shuffle {
    mask: u32,
    shift: u32,
    next: u64,
    len: u32,
}

impl Shuffle {
    pub(super) fn new(len: u32) -> Shuffle {
        let bits = len.max(2).next_power_of_two().trailing_zeros();
        Shuffle {
            // CAST: `bits` is at most 32.
            mask: ((1u64 << bits) - 1) as u32,
            shift: bits.div_ceil(2),
            next: 0,
            len,
        }
    }

    /// Multiplying by an odd number and folding the upper half into the lower are both bijections
    /// of words of `bits` bits.
    #[inline]
    fn scramble(&self, i: u32) -> u32 {
        let i = i.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15) & self.mask;
        let i = (i ^ (i >> self.shift)).wrapping_mul(0x85eb_ca6b) & self.mask;
        let i = (i ^ (i >> self.shift)).wrapping_mul(0xc2b2_ae35) & self.mask;
        i ^ (i >> self.shift)
    }
}

impl Iterator for Shuffle {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        // Bounded: half of the numbers at most are left out.
        while self.next <= u64::from(self.mask) {
            // CAST: `next` is at most `mask`.
            let place = self.scramble(self.next as u32);
            self.next += 1;
            if place < self.len {
                return Some(place);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffle_visits_all_once() {
        for len in [0, 1, 2, 3, 7, 8, 9, 100, 511, 512, 513, 16384, 100_000] {
            let mut seen = vec![false; len as usize];
            for place in Shuffle::new(len) {
                assert!(!seen[place as usize]);
                seen[place as usize] = true;
            }
            assert!(seen.iter().all(|s| *s));
        }
    }

    #[test]
    fn shuffle_is_not_sorted() {
        let order: Vec<u32> = Shuffle::new(1024).collect();
        let near = order
            .windows(2)
            .filter(|w| w[0].abs_diff(w[1]) < 16)
            .count();
        assert!(near < 100, "{near} of 1023 steps are short");
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = Rng::new(1, 2, 3, 4);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
    }

    #[test]
    fn sequences_differ_by_every_argument() {
        let first = |s, w, r, p| Rng::new(s, w, r, p).next();
        let all = [
            first(1, 0, 0, 0),
            first(2, 0, 0, 0),
            first(1, 1, 0, 0),
            first(1, 0, 1, 0),
            first(1, 0, 0, 1),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one));
        }
        assert_eq!(first(9, 8, 7, 6), first(9, 8, 7, 6));
    }
}
