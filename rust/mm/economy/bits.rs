// SPDX-License-Identifier: GPL-2.0

//! Aligned runs of set bits: the search that serves pages in a block and blocks in a superpageblock.
//!
//! Pure functions over words; bit i of word w stands for unit `64 * w + i`, and a set bit means free.

use crate::mm::types::Order;

/// Units per word, as an order.
pub(super) const WORD_ORDER: u8 = 6;

/// The bits of a run of `2^order` units, `order` at most 6, that starts at bit `start`.
#[inline]
pub(super) const fn run_mask(start: u32, order: Order) -> u64 {
    (!0 >> (64 - order.pages())) << start
}

/// The bits at which aligned runs of `2^ORDER` set bits start in a word, `ORDER` at most 6. Each step
/// keeps a bit whose other half is set, too, at the multiples of twice the length.
#[inline(always)]
const fn run_starts<const ORDER: u8>(word: u64) -> u64 {
    let mut starts = word;
    if ORDER > 0 {
        starts &= (starts >> 1) & 0x5555_5555_5555_5555;
    }
    if ORDER > 1 {
        starts &= (starts >> 2) & 0x1111_1111_1111_1111;
    }
    if ORDER > 2 {
        starts &= (starts >> 4) & 0x0101_0101_0101_0101;
    }
    if ORDER > 3 {
        starts &= (starts >> 8) & 0x0001_0001_0001_0001;
    }
    if ORDER > 4 {
        starts &= (starts >> 16) & 0x0000_0001_0000_0001;
    }
    if ORDER > 5 {
        starts &= (starts >> 32) & 1;
    }
    starts
}

/// The first unit of the first aligned run of `2^ORDER` free units, `ORDER` at most 6, among words.
#[inline(always)]
fn find_in_words<const ORDER: u8>(words: impl Iterator<Item = u64>) -> Option<u32> {
    let mut base = 0;
    for word in words {
        let starts = run_starts::<ORDER>(word);
        if starts != 0 {
            return Some(base + starts.trailing_zeros());
        }
        base += 64;
    }
    None
}

/// The first unit of the first aligned run of `2^order` free units among words. A machine loop for each
/// order: this is where allocations above order 0 spend their time.
#[inline]
pub(super) fn find_run(words: impl Iterator<Item = u64>, order: Order) -> Option<u32> {
    match order.get() {
        0 => find_in_words::<0>(words),
        1 => find_in_words::<1>(words),
        2 => find_in_words::<2>(words),
        3 => find_in_words::<3>(words),
        4 => find_in_words::<4>(words),
        5 => find_in_words::<5>(words),
        6 => find_in_words::<6>(words),
        _ => find_whole_words(words, 1 << (order.get() - WORD_ORDER)),
    }
}

/// The first unit of the first aligned run of `len` words, a power of two, that are all free.
fn find_whole_words(words: impl Iterator<Item = u64>, len: u32) -> Option<u32> {
    let mut found = 0;
    for (word, w) in words.zip(0..) {
        if w % len == 0 {
            found = 0;
        }
        found += u32::from(word == !0);
        if found == len {
            return Some((w + 1 - len) << WORD_ORDER);
        }
    }
    None
}

/// The aligned runs that the set bits of a word are made of, each as long as possible: its first bit and
/// its order.
pub(super) fn runs(mut word: u64) -> impl Iterator<Item = (u32, Order)> {
    core::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        if bit == 64 {
            return None;
        }
        let len = (word >> bit).trailing_ones();
        let order = len.ilog2().min((bit | 64).trailing_zeros());
        // CAST: at most 6.
        let order = Order::new(order as u8);
        word &= !run_mask(bit, order);
        Some((bit, order))
    })
}

/// The words that a run touches, each with the mask of its part of the run.
#[inline]
pub(super) fn run_words(start: u32, order: Order) -> impl Iterator<Item = (usize, u64)> {
    let first = (start >> WORD_ORDER) as usize;
    let (nr_words, mask) = match order.get() {
        0..=WORD_ORDER => (1, run_mask(start % 64, order)),
        _ => (1 << (order.get() - WORD_ORDER), !0),
    };
    (first..first + nr_words).map(move |w| (w, mask))
}

/// The words that `nr` units from `start` on touch, each with the mask of its part of them.
pub(super) fn span_words(start: u32, nr: u32) -> impl Iterator<Item = (usize, u64)> {
    let end = start + nr;
    (start >> WORD_ORDER..end.div_ceil(64)).map(move |w| {
        let first = start.max(w << WORD_ORDER) % 64;
        let len = end.min((w + 1) << WORD_ORDER) - ((w << WORD_ORDER) + first);
        (w as usize, (!0 >> (64 - len)) << first)
    })
}

/// The lowest `nr` set bits of a word.
#[inline]
pub(super) fn lowest_bits(word: u64, nr: u32) -> u64 {
    if word.count_ones() <= nr {
        return word;
    }
    let rest = (0..nr).fold(word, |rest, _| rest & (rest - 1));
    word & !rest
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_bits))]
mod tests {
    use super::*;

    /// The obvious search, bit by bit.
    fn slow_find(words: &[u64], order: Order) -> Option<u32> {
        let is_free = |unit: u32| (words[unit as usize / 64] >> (unit % 64)) & 1 == 1;
        (0..words.len() as u32 * 64)
            .step_by(order.pages() as usize)
            .find(|&start| (start..start + order.pages()).all(is_free))
    }

    #[test]
    fn runs_are_found_where_the_slow_search_finds_them() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for _ in 0..2000 {
            // Dense words, or runs would be rare; some full.
            let words: [u64; 8] = core::array::from_fn(|_| match next() % 3 {
                0 => !0,
                1 => next() | next() | next(),
                _ => next() | next() | next() | next() | next(),
            });
            for order in (0..=9).map(Order::new) {
                let found = find_run(words.into_iter(), order);
                assert_eq!(found, slow_find(&words, order));
            }
        }
    }

    #[test]
    fn masks_cover_the_run() {
        assert_eq!(run_mask(0, Order::new(6)), !0);
        assert_eq!(run_mask(8, Order::new(3)), 0xff00);
        let order = Order::new;
        assert!(run_words(64 + 2, order(1)).eq([(1, 0b1100)]));
        assert!(run_words(128, order(7)).eq([(2, !0), (3, !0)]));
        assert!(span_words(62, 4).eq([(0, 3 << 62), (1, 3)]));
        assert!(span_words(64, 64).eq([(1, !0)]));
        assert!(span_words(65, 1).eq([(1, 2)]));
        assert!(span_words(0, 129).eq([(0, !0), (1, !0), (2, 1)]));
    }

    #[test]
    fn the_lowest_bits_are_the_lowest() {
        assert_eq!(lowest_bits(0b1011_0000, 2), 0b0011_0000);
        assert_eq!(lowest_bits(0b1011_0000, 3), 0b1011_0000);
        assert_eq!(lowest_bits(!0, 64), !0);
        assert_eq!(lowest_bits(!0, 1), 1);
    }
}
