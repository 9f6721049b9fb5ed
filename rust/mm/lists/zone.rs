// SPDX-License-Identifier: GPL-2.0

//! The zone buddy: free chunks of the whole zone under one lock.
//!
//! Protects, with the zone lock: the zone's free lists and counts, the migratetype and owner of
//! every pageblock, and the recovery lists of all CPUs. It never takes a per-CPU set's lock.
//!
//! The allocation ladder is mainline's, by rising risk of fragmentation (`__rmqueue()`):
//! smallest fitting chunk of the type, CMA, claim a block of another type, steal from one.

use super::{
    free_area::{End, FreeArea, Owner},
    page_map::{Mergeable, PageMap, State},
    pageblock::{PageblockMap, Recovery},
};
use crate::mm::{
    lock::{CountedGuard, CountedLocks},
    platform::{AtomicU64, Irq, LockClass},
    stats::{Event, Stats},
    types::{BlockIdx, CpuIdx, Migratetype, Order, PageIdx, Result, MAX_ORDER},
};

/// Where a request may fall back to when its own type has nothing, in this order (mainline:
/// `fallbacks[][]`).
const fn fallbacks(mt: Migratetype) -> [Migratetype; 2] {
    match mt {
        Migratetype::Unmovable => [Migratetype::Reclaimable, Migratetype::Movable],
        Migratetype::Movable | Migratetype::Cma => {
            [Migratetype::Reclaimable, Migratetype::Unmovable]
        }
        Migratetype::Reclaimable => [Migratetype::Unmovable, Migratetype::Movable],
    }
}

/// Pages, blocks and free lists of a zone.
pub(super) struct Zone {
    pub(super) pages: PageMap,
    pub(super) blocks: PageblockMap,
    /// A single lock.
    state: CountedLocks<ZoneState>,
    /// Copy of the number of free pages, for readers without the lock.
    nr_free: AtomicU64,
}

/// What the zone lock protects.
pub(super) struct ZoneState {
    pub(super) free: FreeArea,
    pub(super) recovery: Recovery,
}

/// Up to which step of the ladder earlier requests of the same lock hold have climbed. Nothing
/// below can have become free since (mainline: `enum rmqueue_mode`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Ladder {
    Normal,
    Cma,
    Claim,
    Steal,
}

/// The zone with its lock held.
pub(super) struct ZoneGuard<'a> {
    zone: &'a Zone,
    stats: &'a Stats,
    cpu: CpuIdx,
    state: CountedGuard<'a, ZoneState>,
}

impl Zone {
    /// An empty zone: all blocks are holes.
    pub(super) fn new(nr_blocks: u32, block_order: Order, nr_cpus: u32) -> Result<Zone> {
        let recovery = Recovery::new(nr_cpus)?;
        let mut state = Some(ZoneState {
            free: FreeArea::new(Owner::Zone),
            recovery,
        });
        Ok(Zone {
            pages: PageMap::new(nr_blocks << block_order.get())?,
            blocks: PageblockMap::new(nr_blocks, block_order)?,
            // The closure runs once, for the one lock.
            state: CountedLocks::new(1, LockClass::Zone, |_| state.take().expect("one zone lock"))?,
            nr_free: AtomicU64::new(0),
        })
    }

    /// Takes the zone lock on behalf of `cpu`.
    #[inline]
    pub(super) fn lock<'a>(&'a self, cpu: CpuIdx, stats: &'a Stats) -> ZoneGuard<'a> {
        ZoneGuard {
            zone: self,
            stats,
            cpu,
            state: self.state.lock(0, Irq::Save),
        }
    }

    /// Takes the zone lock uncounted, for reports.
    pub(super) fn inspect(&self) -> CountedGuard<'_, ZoneState> {
        self.state.inspect(0)
    }

    /// The lock, for its figures.
    pub(super) fn locks(&self) -> &CountedLocks<ZoneState> {
        &self.state
    }

    /// Free pages in the zone, without those on per-CPU sets.
    #[inline]
    pub(super) fn nr_free(&self) -> u64 {
        self.nr_free.load()
    }
}

impl ZoneGuard<'_> {
    /// Adds a whole, free, unowned block: how a zone gets its memory.
    pub(super) fn add_block(&mut self, block: BlockIdx, mt: Migratetype) {
        self.zone.blocks.set_migratetype(block, mt);
        let first = self.zone.blocks.first_page(block);
        self.free_chunk(first, self.zone.blocks.order(), mt, End::Tail);
    }

    /// The type of the block around a page, stable under this lock.
    pub(super) fn migratetype(&self, page: PageIdx) -> Migratetype {
        self.zone.blocks.migratetype(page)
    }

    /// Whether movable requests should take CMA pages first: when these are more than half of what
    /// is free, so that they do not lie idle while the rest runs out.
    pub(super) fn prefers_cma(&self) -> bool {
        let free = &self.state.free;
        free.nr_pages_of(Migratetype::Cma) > free.nr_pages() / 2
    }

    fn insert(&mut self, page: PageIdx, order: Order, mt: Migratetype, end: End) {
        let map = &self.zone.pages;
        self.state
            .free
            .insert(map, page, order, mt, Mergeable::No, end);
    }

    fn remove(&mut self, page: PageIdx, order: Order, mt: Migratetype) {
        self.state.free.remove(&self.zone.pages, page, order, mt);
    }

    fn publish_nr_free(&self) {
        self.zone.nr_free.store(self.state.free.nr_pages().into());
    }

    /// Frees a chunk into the zone, merging it with its buddies as far as they are free here
    /// (mainline: `__free_one_page()`). A whole block loses its owner, whether it came whole or
    /// became whole here. `end` says where an unmerged chunk is queued.
    pub(super) fn free_chunk(&mut self, page: PageIdx, order: Order, mt: Migratetype, end: End) {
        let block_order = self.zone.blocks.order();
        let (mut page, mut order) = (page, order);
        if order == block_order {
            self.disown(page);
        }
        while order.get() < MAX_ORDER {
            let buddy = page.buddy(order);
            let Some(buddy_mt) = self.mergeable_buddy(buddy, order, mt) else {
                break;
            };
            self.remove(buddy, order, buddy_mt);
            if buddy_mt != mt {
                let block = self.zone.blocks.block_of(buddy);
                self.set_block_type(block, order, mt);
            }
            page = page.align_down(order.above());
            order = order.above();
            self.stats.inc(self.cpu, Event::MergeZone);
            if order == block_order {
                self.disown(page);
            }
        }
        let end = match end {
            End::Head if self.merge_is_likely(page, order, mt) => End::Tail,
            end => end,
        };
        self.insert(page, order, mt, end);
        self.publish_nr_free();
    }

    /// The type of the list that the buddy is on, if it is free here as one chunk of `order` and
    /// may be merged with a chunk of type `mt`. Within a block the types agree; above, blocks of
    /// different types merge unless one is CMA.
    fn mergeable_buddy(
        &self,
        buddy: PageIdx,
        order: Order,
        mt: Migratetype,
    ) -> Option<Migratetype> {
        if buddy.0 >= self.zone.pages.nr_pages() {
            return None;
        }
        match self.zone.pages.state(buddy) {
            State::Zone(o, t)
                if o == order && (t == mt || (t != Migratetype::Cma && mt != Migratetype::Cma)) =>
            {
                Some(t)
            }
            _ => None,
        }
    }

    /// Whether the chunk one order up could soon be whole: then this one is better kept for last
    /// (mainline: `buddy_merge_likely()`).
    fn merge_is_likely(&self, page: PageIdx, order: Order, mt: Migratetype) -> bool {
        order.get() < MAX_ORDER - 1 && {
            let parent = page.align_down(order.above());
            self.mergeable_buddy(parent.buddy(order.above()), order.above(), mt)
                .is_some()
        }
    }

    fn disown(&mut self, page: PageIdx) {
        let block = self.zone.blocks.block_of(page);
        if self.state.recovery.disown(&self.zone.blocks, block) {
            self.stats.inc(self.cpu, Event::BlockDisowned);
        }
    }

    /// Gives all blocks of a free chunk of at least block order the type `mt`.
    fn set_block_type(&mut self, first: BlockIdx, order: Order, mt: Migratetype) {
        let nr_blocks = order.pages() >> self.zone.blocks.order().get();
        for block in first.0..first.0 + nr_blocks {
            self.state
                .recovery
                .retype(&self.zone.blocks, BlockIdx(block), mt);
        }
    }

    /// Takes a chunk off its list and returns its first `2^order` pages; the rest goes back to the
    /// lists (mainline: `expand()`).
    fn take_split(&mut self, page: PageIdx, from: Order, order: Order, mt: Migratetype) -> PageIdx {
        self.remove(page, from, mt);
        let mut high = from;
        while high > order {
            high = high.below();
            self.insert(page.offset(high.pages()), high, mt, End::Head);
        }
        page
    }

    /// Takes exactly the chunk at the head of one list.
    pub(super) fn take_exact(&mut self, order: Order, mt: Migratetype) -> Option<PageIdx> {
        let page = self.state.free.peek(order, mt, End::Head)?;
        self.remove(page, order, mt);
        self.publish_nr_free();
        Some(page)
    }

    /// Takes a chunk out of the smallest one of type `mt` that fits (`__rmqueue_smallest()`).
    fn take_smallest(&mut self, order: Order, mt: Migratetype) -> Option<PageIdx> {
        let from = self.state.free.smallest(order, mt)?;
        let page = self.state.free.peek(from, mt, End::Head)?;
        Some(self.take_split(page, from, order, mt))
    }

    /// Takes a chunk, climbing the ladder as far as needed. `ladder` is kept by the caller between
    /// requests of one lock hold.
    pub(super) fn take(
        &mut self,
        order: Order,
        mt: Migratetype,
        ladder: &mut Ladder,
    ) -> Option<PageIdx> {
        let page = self.climb(order, mt, ladder);
        self.publish_nr_free();
        page
    }

    fn climb(&mut self, order: Order, mt: Migratetype, ladder: &mut Ladder) -> Option<PageIdx> {
        let may_use_cma = mt == Migratetype::Movable;
        if may_use_cma && self.prefers_cma() {
            if let Some(page) = self.take_cma(order) {
                return Some(page);
            }
        }
        if *ladder <= Ladder::Normal {
            if let Some(page) = self.take_smallest(order, mt) {
                return Some(page);
            }
        }
        if may_use_cma && *ladder <= Ladder::Cma {
            if let Some(page) = self.take_cma(order) {
                *ladder = Ladder::Cma;
                return Some(page);
            }
        }
        if *ladder <= Ladder::Claim {
            if let Some(page) = self.claim(order, mt) {
                self.stats.inc(self.cpu, Event::Fallback);
                // The claimed block is of the wanted type now.
                *ladder = Ladder::Normal;
                return Some(page);
            }
        }
        let page = self.steal(order, mt)?;
        self.stats.inc(self.cpu, Event::Fallback);
        self.stats.inc(self.cpu, Event::FallbackSteal);
        *ladder = Ladder::Steal;
        Some(page)
    }

    /// Takes adjacent chunks of the largest order between `first` and `end`, which are aligned to it:
    /// `nr` of them, for pages of type `mt`. Looks at one page of each, so it is bounded by the size of
    /// the range.
    pub(super) fn take_span(
        &mut self,
        first: PageIdx,
        end: PageIdx,
        nr: u32,
        mt: Migratetype,
    ) -> Option<PageIdx> {
        let top = Order::new(MAX_ORDER);
        let (mut start, mut found) = (first, 0);
        let mut page = first;
        while found < nr {
            if page >= end {
                return None;
            }
            match self.zone.pages.state(page) {
                State::Zone(order, of)
                    if order == top && (of != Migratetype::Cma || mt == Migratetype::Movable) =>
                {
                    found += 1;
                }
                _ => (start, found) = (page.offset(top.pages()), 0),
            }
            page = page.offset(top.pages());
        }
        for page in (0..nr).map(|i| start.offset(i * top.pages())) {
            if let State::Zone(_, of) = self.zone.pages.state(page) {
                self.remove(page, top, of);
                if of != mt && of != Migratetype::Cma {
                    self.set_block_type(self.zone.blocks.block_of(page), top, mt);
                }
            }
        }
        self.publish_nr_free();
        Some(start)
    }

    fn take_cma(&mut self, order: Order) -> Option<PageIdx> {
        let page = self.take_smallest(order, Migratetype::Cma)?;
        self.stats.inc(self.cpu, Event::CmaAlloc);
        Some(page)
    }

    /// Finds the largest chunk of another type and tries to make its block one of type `mt`
    /// (`__rmqueue_claim()`).
    fn claim(&mut self, order: Order, mt: Migratetype) -> Option<PageIdx> {
        for from in order.upto(Order::new(MAX_ORDER)).rev() {
            if !self.should_try_claim(from, mt) {
                return None;
            }
            let Some((page, other)) = self.first_fallback(from, mt) else {
                continue;
            };
            if let Some(page) = self.claim_block(page, from, order, mt, other) {
                self.stats.inc(self.cpu, Event::FallbackClaim);
                return Some(page);
            }
        }
        None
    }

    /// The first chunk of exactly `order` of a type that `mt` may fall back to.
    fn first_fallback(&self, order: Order, mt: Migratetype) -> Option<(PageIdx, Migratetype)> {
        fallbacks(mt).into_iter().find_map(|other| {
            let page = self.state.free.peek(order, other, End::Head)?;
            Some((page, other))
        })
    }

    /// Whether a chunk of `order` is reason enough to try to change the type of its block
    /// (`should_try_claim_block()`).
    fn should_try_claim(&self, order: Order, mt: Migratetype) -> bool {
        // Half a block by order is likely to leave most of the block free.
        if order.get() >= self.zone.blocks.order().get() / 2 {
            return true;
        }
        // Unmovable and reclaimable pages pollute for long: let them fill a block of their own
        // rather than spread. Movable pages can be moved away again.
        matches!(mt, Migratetype::Unmovable | Migratetype::Reclaimable)
    }

    /// Makes the block around a free chunk one of type `mt`, if it is whole or mostly compatible,
    /// and takes a chunk out of it (`try_to_claim_block()`).
    fn claim_block(
        &mut self,
        page: PageIdx,
        from: Order,
        order: Order,
        mt: Migratetype,
        other: Migratetype,
    ) -> Option<PageIdx> {
        let block = self.zone.blocks.block_of(page);
        if from >= self.zone.blocks.order() {
            self.remove(page, from, other);
            self.set_block_type(block, from, mt);
            self.insert(page, from, mt, End::Head);
            return Some(self.take_split(page, from, order, mt));
        }
        let usable = self.usable_pages(block, mt, other);
        if usable < self.zone.blocks.order().pages() / 2 {
            return None;
        }
        self.move_free_chunks(block, other, mt);
        self.state.recovery.retype(&self.zone.blocks, block, mt);
        self.take_smallest(order, mt)
    }

    /// Pages of a block of type `other` that are free in the zone or used in a way compatible with
    /// `mt`. Bounded by the block's size.
    fn usable_pages(&self, block: BlockIdx, mt: Migratetype, other: Migratetype) -> u32 {
        let is_alike = |used_for| match mt {
            Migratetype::Movable => used_for == Migratetype::Movable,
            // Be conservative between the two types that cannot be moved, as mainline is.
            _ => other == Migratetype::Movable && used_for != Migratetype::Movable,
        };
        chunks_of(self.zone, block)
            .map(|(_, state)| match state {
                State::Zone(order, _) => order.pages(),
                State::Allocated(order, used_for) if is_alike(used_for) => order.pages(),
                _ => 0,
            })
            .sum()
    }

    /// Moves the free chunks of a block, all smaller than it, to the lists of another type.
    fn move_free_chunks(&mut self, block: BlockIdx, from: Migratetype, to: Migratetype) {
        let zone = self.zone;
        for (page, state) in chunks_of(zone, block) {
            if let State::Zone(order, mt) = state {
                debug_assert_eq!(mt, from);
                self.remove(page, order, mt);
                self.insert(page, order, to, End::Tail);
            }
        }
    }

    /// Takes a chunk of another type and leaves its block's type as it is (`__rmqueue_steal()`).
    fn steal(&mut self, order: Order, mt: Migratetype) -> Option<PageIdx> {
        let (from, (page, other)) = order
            .upto(Order::new(MAX_ORDER))
            .find_map(|from| Some((from, self.first_fallback(from, mt)?)))?;
        Some(self.take_split(page, from, order, other))
    }

    /// Makes `cpu` the owner of a whole block just taken.
    pub(super) fn claim_ownership(&mut self, page: PageIdx) {
        let block = self.zone.blocks.block_of(page);
        self.zone.blocks.set_owner(block, self.cpu);
        self.stats.inc(self.cpu, Event::BlockClaimed);
    }

    /// Puts the block around a fragment on the recovery list of the CPU that owns it.
    pub(super) fn remember_fragment(&mut self, page: PageIdx) {
        if let Some(owner) = self.zone.blocks.owner(page) {
            let block = self.zone.blocks.block_of(page);
            self.state.recovery.insert(&self.zone.blocks, owner, block);
        }
    }

    /// Takes the first block off the calling CPU's recovery list of type `mt` and hands every
    /// fragment of it that is free in the zone to `take`. Returns false if the list is empty.
    /// Looks at the block page by page, as the RFC does; bounded by the block's size.
    pub(super) fn recover_block(
        &mut self,
        mt: Migratetype,
        mut take: impl FnMut(PageIdx, Order),
    ) -> bool {
        let lists = self.state.recovery.of(self.cpu);
        let Some(block) = lists.first(mt) else {
            return false;
        };
        lists.remove(&self.zone.blocks, block);
        let mut page = self.zone.blocks.first_page(block);
        let end = page.offset(self.zone.blocks.order().pages());
        let mut scanned = 0;
        while page < end {
            scanned += 1;
            if let State::Zone(order, list_mt) = self.zone.pages.state(page) {
                self.remove(page, order, list_mt);
                take(page, order);
                page = page.offset(order.pages());
            } else {
                page = page.offset(1);
            }
        }
        self.stats.add(self.cpu, Event::RecoverScanned, scanned);
        self.publish_nr_free();
        true
    }

    /// Empties the recovery lists of a CPU that goes offline, entry by entry, so that no block
    /// keeps a link to a list that is not kept up (the RFC's first form left such links).
    pub(super) fn forget_fragments(&mut self, cpu: CpuIdx) {
        let lists = self.state.recovery.of(cpu);
        for mt in Migratetype::ALL {
            while let Some(block) = lists.first(mt) {
                lists.remove(&self.zone.blocks, block);
            }
        }
    }
}

/// The chunks of a block that is not part of a larger chunk, with their states. Pages that belong
/// to no chunk at this moment (between two lists) are passed over one by one.
pub(super) fn chunks_of(
    zone: &Zone,
    block: BlockIdx,
) -> impl Iterator<Item = (PageIdx, State)> + '_ {
    let mut page = zone.blocks.first_page(block);
    let end = page.offset(zone.blocks.order().pages());
    core::iter::from_fn(move || {
        if page >= end {
            return None;
        }
        let (this, state) = (page, zone.pages.state(page));
        page = page.offset(match state {
            State::Inner => 1,
            State::Allocated(order, _)
            | State::Zone(order, _)
            | State::Pcp(order, _, _)
            | State::Remote(order) => order.pages(),
        });
        Some((this, state))
    })
}
