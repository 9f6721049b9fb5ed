// SPDX-License-Identifier: GPL-2.0

//! The per-CPU page set: free lists of one CPU, and the rules that size it.
//!
//! Data under the set's own lock. all three policies share it; what differs is whether chunks are
//! split and merged here ([`Pcp::take_split`], [`Pcp::merge`]).
//!
//! Sizes adapt as in mainline: `batch` pages are moved per zone transaction, doubled while a CPU
//! only allocates (`alloc_factor`) or only frees (`free_count`); `high` moves between `high_min` and
//! `high_max` (`nr_pcp_alloc()`, `nr_pcp_high()`, `nr_pcp_free()`).

use super::{
    free_area::{End, FreeArea, Owner},
    page_map::{Mergeable, PageMap, State},
};
use crate::mm::{
    types::{Migratetype, Order, PageIdx},
    Tuning,
};

/// Orders up to this one have lists in mainline's sets (`PAGE_ALLOC_COSTLY_ORDER`).
pub(super) const COSTLY_ORDER: Order = Order::new(3);

/// `batch` is scaled by at most `2^BATCH_SCALE_MAX` (mainline's default
/// `CONFIG_PCP_BATCH_SCALE_MAX`).
const BATCH_SCALE_MAX: u32 = 5;

/// Largest automatic batch: 256 KiB of pages.
const BATCH_MAX_PAGES: u64 = 64;

/// Share of a zone that all sets together may hold at most: one eighth (mainline:
/// `MIN_PERCPU_PAGELIST_HIGH_FRACTION`).
const HIGH_MAX_FRACTION: u64 = 8;

/// Sizes that are the same for every set of a zone, in pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) batch: u32,
    pub(super) high_min: u32,
    pub(super) high_max: u32,
    /// Zone free pages below which sets shrink: the zone high watermark.
    pub(super) zone_high: u64,
}

impl Limits {
    /// The sizes mainline would choose for a machine that consists of this zone and `cpus` CPUs,
    /// unless `batch` or `high` fix them (`zone_batchsize()`, `zone_highsize()`,
    /// `__setup_per_zone_wmarks()`).
    pub(super) fn new(managed: u64, cpus: u32, batch: Option<u32>, high: Option<u32>) -> Limits {
        let batch = batch.unwrap_or_else(|| automatic_batch(managed));
        let min_free_kbytes = (managed * 4 * 16).isqrt().clamp(128, 262_144);
        let zone_min = min_free_kbytes / 4;
        let distance = (zone_min / 4).max(managed / 1000);
        let zone_low = zone_min + distance;
        let per_cpu = |pages: u64| {
            let share = (pages / u64::from(cpus.max(1))).min(u64::from(u32::MAX / 2));
            // CAST: bounded above.
            (share as u32).max(batch * 4)
        };
        let (high_min, high_max) = match high {
            Some(high) => (high, high),
            None => {
                let high_max = per_cpu(managed / HIGH_MAX_FRACTION);
                (per_cpu(zone_low).min(high_max), high_max)
            }
        };
        Limits {
            batch,
            high_min,
            high_max,
            zone_high: zone_low + distance,
        }
    }
}

/// About 0.025 % of the zone or 256 KiB, whichever is smaller, as `2^n - 1`.
fn automatic_batch(managed: u64) -> u32 {
    let batch = (managed >> 12).min(BATCH_MAX_PAGES);
    if batch <= 1 {
        return 1;
    }
    let power = (batch + batch / 2).ilog2();
    (1 << power) - 1
}

/// Free pages of one CPU.
pub(super) struct Pcp {
    pub(super) free: FreeArea,
    limits: Limits,
    high: u32,
    alloc_factor: u32,
    free_count: u32,
    prev_free_high_order: bool,
}

/// What one pass over a set's lists merged.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Merged {
    pub(super) visited: u64,
    pub(super) pairs: u64,
}

impl Pcp {
    pub(super) fn new(limits: Limits) -> Pcp {
        Pcp {
            free: FreeArea::new(Owner::Pcp),
            limits,
            high: limits.high_min,
            alloc_factor: 0,
            free_count: 0,
            prev_free_high_order: false,
        }
    }

    /// Pages on the set.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        self.free.nr_pages()
    }

    pub(super) fn batch(&self) -> u32 {
        self.limits.batch
    }

    /// Most pages that one drain of a whole set takes per zone lock hold.
    pub(super) fn drain_step(&self) -> u32 {
        self.limits.batch << BATCH_SCALE_MAX
    }

    pub(super) fn tuning(&self) -> Tuning {
        Tuning {
            count: self.count(),
            batch: self.limits.batch,
            high: self.high,
            high_min: self.limits.high_min,
            high_max: self.limits.high_max,
        }
    }

    /// Takes the first chunk of exactly this list.
    #[inline]
    pub(super) fn take_exact(
        &mut self,
        map: &PageMap,
        order: Order,
        mt: Migratetype,
    ) -> Option<PageIdx> {
        let page = self.free.peek(order, mt, End::Head)?;
        self.free.remove(map, page, order, mt);
        Some(page)
    }

    /// Takes `2^order` pages out of the smallest chunk that fits; the rest stays here, as mergeable
    /// as it was.
    #[inline]
    pub(super) fn take_split(
        &mut self,
        map: &PageMap,
        order: Order,
        mt: Migratetype,
    ) -> Option<PageIdx> {
        let mut high = self.free.smallest(order, mt)?;
        let page = self.free.peek(high, mt, End::Head)?;
        let mergeable = mergeable(map, page);
        self.free.remove(map, page, high, mt);
        while high > order {
            high = high.below();
            let rest = page.offset(high.pages());
            self.free.insert(map, rest, high, mt, mergeable, End::Head);
        }
        Some(page)
    }

    /// Merges mergeable buddies bottom-up, below `block_order`. Needs this set's lock only: a
    /// buddy that is marked mergeable belongs to the same block, so it is on this same set.
    /// Bounded by the number of entries, each visited once per order.
    pub(super) fn merge(&mut self, map: &PageMap, block_order: Order) -> Merged {
        let mut merged = Merged::default();
        for order in Order::ZERO.upto(block_order.below()) {
            for mt in Migratetype::PCP {
                self.merge_list(map, order, mt, &mut merged);
            }
        }
        merged
    }

    fn merge_list(&mut self, map: &PageMap, order: Order, mt: Migratetype, merged: &mut Merged) {
        let mut cursor = self.free.peek(order, mt, End::Head);
        while let Some(page) = cursor {
            merged.visited += 1;
            cursor = self.free.next(map, page);
            let buddy = page.buddy(order);
            let State::Pcp(_, _, Mergeable::Yes) = map.state(page) else {
                continue;
            };
            // The type of the block may have changed since the buddy was put here: take it off
            // the list that it is on.
            let buddy_mt = match map.state(buddy) {
                State::Pcp(o, t, Mergeable::Yes) if o == order => t,
                _ => continue,
            };
            if cursor == Some(buddy) {
                cursor = self.free.next(map, buddy);
            }
            self.free.remove(map, page, order, mt);
            self.free.remove(map, buddy, order, buddy_mt);
            let whole = page.align_down(order.above());
            self.free
                .insert(map, whole, order.above(), mt, Mergeable::Yes, End::Tail);
            merged.pairs += 1;
        }
    }

    /// Notes an allocation: frees no longer come in a row.
    #[inline]
    pub(super) fn note_alloc(&mut self) {
        self.free_count >>= 1;
    }

    /// Chunks of `order` that the next refill should get (`nr_pcp_alloc()`). `zone_free` is the
    /// number of free pages in the zone.
    pub(super) fn refill_size(&mut self, order: Order, zone_free: u64) -> u32 {
        let Limits {
            batch: base_batch,
            high_min,
            high_max,
            ..
        } = self.limits;
        self.high = self.high.clamp(high_min, high_max);
        if self.high < base_batch {
            return 1;
        }
        let mut batch = match order {
            Order::ZERO => base_batch << self.alloc_factor,
            _ => base_batch,
        };
        if high_min != high_max && zone_free >= self.limits.zone_high {
            self.high = (self.high + batch).min(high_max);
        }
        if order == Order::ZERO {
            let room = self.high.saturating_sub(self.count() + base_batch);
            let most = room.max(base_batch);
            if batch <= most && self.alloc_factor < BATCH_SCALE_MAX {
                self.alloc_factor += 1;
            }
            batch = batch.min(most);
        }
        match batch {
            0 | 1 => 1,
            _ => (batch >> order.get()).max(2),
        }
    }

    /// Notes a free of a chunk that was just put here, and says how many pages are too many now
    /// (the sizing part of `free_frozen_page_commit()`).
    #[inline]
    pub(super) fn note_free(&mut self, order: Order, zone_free: u64) -> u32 {
        self.alloc_factor >>= 1;
        let batch = self.limits.batch;
        let mut drain_high_order = false;
        if order != Order::ZERO && order <= COSTLY_ORDER {
            // Chunks above order 0 fragment when kept; when they come in a row, keep few.
            drain_high_order =
                self.prev_free_high_order && self.free_count >= batch + self.limits.high_min / 2;
            self.prev_free_high_order = true;
        } else {
            self.prev_free_high_order = false;
        }
        if self.free_count < batch << BATCH_SCALE_MAX {
            self.free_count += order.pages();
        }
        let high = self.adapt_high(drain_high_order, zone_free);
        if self.count() < high {
            return 0;
        }
        self.drain_size(high, drain_high_order)
    }

    fn adapt_high(&mut self, drain_high_order: bool, zone_free: u64) -> u32 {
        let Limits {
            batch,
            high_min,
            high_max,
            zone_high,
        } = self.limits;
        let high = self.high.clamp(high_min, high_max);
        self.high = high;
        if high == 0 {
            return 0;
        }
        if drain_high_order {
            self.high = high.saturating_sub(batch << BATCH_SCALE_MAX).max(high_min);
            return 0;
        }
        if high_min == high_max {
            return high;
        }
        if zone_free < zone_high {
            let freed = self.free_count.max(batch);
            self.high = high.saturating_sub(freed).max(high_min);
            return self.count().max(high_min);
        }
        if self.count() >= high {
            self.high = (self.free_count + batch).clamp(high, high_max);
        }
        high
    }

    fn drain_size(&self, high: u32, drain_high_order: bool) -> u32 {
        let batch = self.limits.batch;
        if drain_high_order {
            return self.count().min(batch << BATCH_SCALE_MAX);
        }
        if high < batch {
            return 1;
        }
        // Keep at least a batch; give more back at once the more frees came in a row.
        self.free_count.min(high - batch).max(batch)
    }
}

/// Whether a chunk on a set is mergeable.
#[inline]
pub(super) fn mergeable(map: &PageMap, page: PageIdx) -> Mergeable {
    match map.state(page) {
        State::Pcp(_, _, mergeable) => mergeable,
        _ => Mergeable::No,
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_pcp))]
mod tests {
    use super::*;

    const MT: Migratetype = Migratetype::Movable;
    const GIB_PAGES: u64 = 1 << 18;

    fn set_with(map: &PageMap, pages: &[(u32, u8, Mergeable)]) -> Pcp {
        let mut pcp = Pcp::new(Limits::new(GIB_PAGES, 2, None, None));
        for &(page, order, mergeable) in pages {
            pcp.free.insert(
                map,
                PageIdx(page),
                Order::new(order),
                MT,
                mergeable,
                End::Tail,
            );
        }
        pcp
    }

    #[test]
    fn limits_of_a_gibibyte() {
        let limits = Limits::new(GIB_PAGES, 2, None, None);
        assert_eq!(limits.batch, 63);
        // (1024 min + 262 distance) / 2 CPUs, and an eighth of the zone / 2 CPUs.
        assert_eq!(limits.high_min, 643);
        assert_eq!(limits.high_max, 16384);
        let fixed = Limits::new(GIB_PAGES, 2, Some(31), Some(100));
        assert_eq!(
            (fixed.batch, fixed.high_min, fixed.high_max),
            (31, 100, 100)
        );
    }

    #[test]
    fn limits_of_a_tiny_zone_hold_single_pages() {
        let limits = Limits::new(512, 16, None, None);
        assert_eq!(limits.batch, 1);
        assert_eq!(limits.high_min, 4);
    }

    #[test]
    fn merge_makes_one_chunk_of_mergeable_buddies() {
        let map = PageMap::new(64).unwrap();
        let pages: [_; 8] = core::array::from_fn(|page| (page as u32, 0, Mergeable::Yes));
        let mut pcp = set_with(&map, &pages);
        let merged = pcp.merge(&map, Order::new(6));
        assert_eq!(merged.pairs, 7);
        assert_eq!(pcp.free.len(Order::new(3), MT), 1);
        assert_eq!(pcp.count(), 8);
        assert_eq!(
            map.state(PageIdx(0)),
            State::Pcp(Order::new(3), MT, Mergeable::Yes)
        );
    }

    #[test]
    fn merge_skips_what_is_not_at_home() {
        let map = PageMap::new(64).unwrap();
        let mut pcp = set_with(&map, &[(0, 0, Mergeable::Yes), (1, 0, Mergeable::No)]);
        assert_eq!(pcp.merge(&map, Order::new(6)).pairs, 0);
        assert_eq!(pcp.free.len(Order::ZERO, MT), 2);
    }

    #[test]
    fn merge_stops_at_the_block() {
        let map = PageMap::new(128).unwrap();
        let mut pcp = set_with(&map, &[(0, 6, Mergeable::Yes), (64, 6, Mergeable::Yes)]);
        assert_eq!(pcp.merge(&map, Order::new(6)).pairs, 0);
    }

    #[test]
    fn split_keeps_the_mark() {
        let map = PageMap::new(64).unwrap();
        for mark in [Mergeable::Yes, Mergeable::No] {
            let mut pcp = set_with(&map, &[(8, 3, mark)]);
            assert_eq!(pcp.take_split(&map, Order::ZERO, MT), Some(PageIdx(8)));
            for (page, order) in [(9, 0), (10, 1), (12, 2)] {
                assert_eq!(
                    map.state(PageIdx(page)),
                    State::Pcp(Order::new(order), MT, mark)
                );
            }
            assert_eq!(pcp.count(), 7);
        }
    }

    #[test]
    fn refills_double_while_only_allocating() {
        let mut pcp = Pcp::new(Limits::new(GIB_PAGES, 2, None, None));
        let sizes: [_; 6] = core::array::from_fn(|_| pcp.refill_size(Order::ZERO, GIB_PAGES));
        assert_eq!(sizes[..4], [63, 126, 252, 504]);
        assert!(sizes.is_sorted());
    }

    #[test]
    fn a_full_set_says_how_much_to_drain() {
        let mut pcp = Pcp::new(Limits::new(GIB_PAGES, 2, Some(8), Some(16)));
        let map = PageMap::new(64).unwrap();
        for page in 0..15 {
            pcp.free.insert(
                &map,
                PageIdx(page),
                Order::ZERO,
                MT,
                Mergeable::No,
                End::Head,
            );
            assert_eq!(pcp.note_free(Order::ZERO, GIB_PAGES), 0);
        }
        pcp.free
            .insert(&map, PageIdx(15), Order::ZERO, MT, Mergeable::No, End::Head);
        assert_eq!(pcp.note_free(Order::ZERO, GIB_PAGES), 8);
    }
}
