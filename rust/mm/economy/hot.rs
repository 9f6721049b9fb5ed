// SPDX-License-Identifier: GPL-2.0

//! Runs that were freed last, to be allocated first: their lines are in the cache of this CPU, and a run
//! of the same size fits where one was.
//!
//! Only hints. They change nothing about where a page is free; what has become of a run since is looked
//! at when it is taken. A hint that is out of date is dropped, and the oldest ones make way for new ones.
//! Mainline's per-CPU lists are last in, first out for the same reasons, but hold the pages themselves.

use super::bits::{runs, WORD_ORDER};
use crate::mm::{
    platform::{Array, AtomicU32, CachePadded},
    types::{Migratetype, Order, PageIdx, Result, NR_PCP_TYPES},
};

/// Orders that are remembered: runs within a word.
const NR_ORDERS: usize = WORD_ORDER as usize + 1;

/// Depths of the rings of orders 0 to 2; the others are half as deep each as the one before.
const DEPTH_MIN: u32 = 16;
const DEPTH_MAX: u32 = 1024;
/// The deepest rings have a place for that many pages of a CPU's share of the zone.
const PAGES_PER_PLACE: u64 = 128;

const NO_PAGE: u32 = u32::MAX;

/// The hot runs of the sets of all CPUs, by type and order: a ring for each. Those of a set belong to
/// who is inside. With 128 pages a place they take 3/8 of a byte a page.
pub(super) struct Hot {
    /// By set, where the next run of a ring goes.
    end: Array<CachePadded<Ends>>,
    /// First pages, or `NO_PAGE`. Rings begin at multiples of their length.
    pages: Array<AtomicU32>,
    depth: u32,
}

type Ends = [[AtomicU32; NR_ORDERS]; NR_PCP_TYPES];

impl Hot {
    /// For CPUs that share that many pages.
    pub(super) fn new(nr_cpus: u32, pages: u64) -> Result<Hot> {
        let share = pages / u64::from(nr_cpus.max(1)) / PAGES_PER_PLACE;
        // CAST: at most `DEPTH_MAX`.
        let depth = 1 << share.clamp(DEPTH_MIN.into(), DEPTH_MAX.into()).ilog2();
        let mut place = 0;
        let mut rings_of_type = || {
            let first = place;
            place += 4 * depth;
            // Three of full depth, then what is left is halved again and again.
            core::array::from_fn(|order| {
                AtomicU32::new(match order {
                    0..=2 => first + depth * order as u32,
                    _ => first + 4 * depth - (depth >> (order - 3)),
                })
            })
        };
        let mut ends = |_| CachePadded(core::array::from_fn(|_| rings_of_type()));
        let end = Array::new(nr_cpus as usize, &mut ends)?;
        Ok(Hot {
            end,
            pages: Array::new(place as usize, |_| AtomicU32::new(NO_PAGE))?,
            depth,
        })
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> u64 {
        let ends = size_of_val(&*self.end);
        (ends + size_of_val(&*self.pages)) as u64
    }

    /// The end of a ring; `None` for an order that is not remembered, and for a set of no CPU.
    #[inline(always)]
    fn end(&self, set: u32, order: Order, mt: Migratetype) -> Option<&AtomicU32> {
        self.end.get(set as usize)?.0[mt.idx()].get(order.idx())
    }

    /// The place before or after another one of the same ring, of runs of `order`.
    #[inline(always)]
    fn step(&self, place: u32, by: i32, order: Order) -> u32 {
        let mask = (self.depth >> order.get().saturating_sub(2)) - 1;
        place & !mask | place.wrapping_add_signed(by) & mask
    }

    /// Remembers a run of a type, if it is of an order that is remembered.
    #[inline(always)]
    pub(super) fn push(&self, set: u32, page: PageIdx, order: Order, mt: Migratetype) {
        let Some(end) = self.end(set, order, mt) else {
            return;
        };
        let place = end.load();
        if let Some(entry) = self.pages.get(place as usize) {
            entry.store(page.0);
            end.store(self.step(place, 1, order));
        }
    }

    /// Remembers the runs among the pages of a word, `first` being its first page; a whole word is no run
    /// of its own, but rather part of a longer one.
    pub(super) fn push_word(&self, set: u32, first: PageIdx, bits: u64, mt: Migratetype) {
        if bits == !0 {
            return;
        }
        for (bit, order) in runs(bits) {
            self.push(set, first.offset(bit), order, mt);
        }
    }

    /// Forgets the run that was remembered last, and returns it.
    #[inline(always)]
    pub(super) fn pop(&self, set: u32, order: Order, mt: Migratetype) -> Option<PageIdx> {
        let end = self.end(set, order, mt)?;
        let place = self.step(end.load(), -1, order);
        let entry = self.pages.get(place as usize)?;
        let page = entry.load();
        if page == NO_PAGE {
            return None;
        }
        entry.store(NO_PAGE);
        end.store(place);
        Some(PageIdx(page))
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_hot))]
mod tests {
    use super::*;

    const MOVABLE: Migratetype = Migratetype::Movable;

    #[test]
    fn the_last_run_of_its_order_and_type_comes_first() {
        let hot = Hot::new(2, 0).unwrap();
        let order = Order::new(2);
        hot.push(1, PageIdx(4), order, MOVABLE);
        hot.push(1, PageIdx(8), order, MOVABLE);
        hot.push(1, PageIdx(12), Order::ZERO, MOVABLE);
        assert_eq!(hot.pop(1, order, Migratetype::Unmovable), None);
        assert_eq!(hot.pop(0, order, MOVABLE), None);
        assert_eq!(hot.pop(1, order, MOVABLE), Some(PageIdx(8)));
        assert_eq!(hot.pop(1, order, MOVABLE), Some(PageIdx(4)));
        assert_eq!(hot.pop(1, order, MOVABLE), None);
        hot.push(1, PageIdx(512), Order::new(9), MOVABLE);
        assert_eq!(hot.pop(1, Order::new(9), MOVABLE), None);
        hot.push(2, PageIdx(4), order, MOVABLE);
        assert_eq!(hot.pop(2, order, MOVABLE), None);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let hot = Hot::new(2, 0).unwrap();
        for (order, depth) in [(0, 16), (2, 16), (3, 8), (6, 1)] {
            let order = Order::new(order);
            for page in 0..30 {
                hot.push(1, PageIdx(page), order, MOVABLE);
            }
            for page in (30 - depth..30).rev() {
                assert_eq!(hot.pop(1, order, MOVABLE), Some(PageIdx(page)));
            }
            assert_eq!(hot.pop(1, order, MOVABLE), None);
        }
    }

    #[test]
    fn words_are_taken_apart() {
        let hot = Hot::new(2, 0).unwrap();
        hot.push_word(1, PageIdx(64), 0b1_0111_0000, MOVABLE);
        assert_eq!(hot.pop(1, Order::new(1), MOVABLE), Some(PageIdx(68)));
        assert_eq!(hot.pop(1, Order::ZERO, MOVABLE), Some(PageIdx(72)));
        assert_eq!(hot.pop(1, Order::ZERO, MOVABLE), Some(PageIdx(70)));
        hot.push_word(1, PageIdx(64), !0, MOVABLE);
        assert_eq!(hot.pop(1, Order::new(6), MOVABLE), None);
    }
}
