// SPDX-License-Identifier: GPL-2.0

//! The blocks of one CPU: a current block per migratetype, partial blocks by fullness, whole ones.
//!
//! [`gate`](super::gate) says who may be inside a set.
//!
//! The shared set is one more set that belongs to no CPU and is entered under a lock. Blocks of dead
//! CPUs go there.

use super::{
    blocks::{Blocks, Holder, Tag, NO_BLOCK},
    gate::{Gate, Inside, Seized},
    Economy, STRETCH,
};
use crate::mm::{
    lock::CountedGuard,
    platform::{mb, relax, AtomicU32, Irq},
    stats::Event,
    types::{BlockIdx, CpuIdx, Migratetype, Order, PageIdx, NR_PCP_TYPES},
    Violation,
};
use core::cell::Cell;

/// `word` of a set without a current block: beyond all bitmaps.
const NO_WORD: u32 = u32::MAX;

/// Number of fullness classes of partial blocks.
const NR_BUCKETS: usize = 4;

/// `place` of a block on no list: no page of it is free here.
const PLACE_NONE: u32 = 0;
/// `place` of a current block.
const PLACE_CURRENT: u32 = 1;
/// `place` of a whole free block.
const PLACE_WHOLE: u32 = 2;
/// `place` of a partial block in bucket 0; bucket b follows.
const PLACE_BUCKET: u32 = 3;
/// `place` of a partial block that others were freeing into when it was looked at last. It is left to
/// ripen while there are whole blocks: more frees are likely to follow, and allocating from it meanwhile
/// would make two CPUs fight over its cache lines and mix young pages with old ones.
const PLACE_RIPENING: u32 = PLACE_BUCKET + NR_BUCKETS as u32;
/// `place` of a block with crumbs: less than 1/64 of it is free. What is freed there is left to
/// gather until it is worth the search, as long as the zone has whole blocks.
const PLACE_CRUMBS: u32 = PLACE_RIPENING + 1;
/// Lists of partial blocks per type: the buckets, what is ripening, crumbs.
const NR_PARTIAL_LISTS: usize = NR_BUCKETS + 2;

/// Partial blocks per bucket that are searched for a run before a whole block is broken.
const SEARCH_LIMIT: usize = 16;

/// Partial blocks that a request looks at in all. In task context [`steal`](super::steal) goes on from
/// there, with the set left to others.
const SEARCH_MAX: usize = 512;

/// Refills take at most `2^REFILL_SCALE_MAX` blocks.
const REFILL_SCALE_MAX: u32 = 5;

/// Blocks of one CPU, or of none.
pub(super) struct Set {
    gate: Gate,
    current: [AtomicU32; NR_PCP_TYPES],
    /// Word of the bitmaps, in the current block, where the next page is looked for; `NO_WORD` without
    /// a current block.
    word: [AtomicU32; NR_PCP_TYPES],
    partial: [[AtomicU32; NR_PARTIAL_LISTS]; NR_PCP_TYPES],
    /// Whole blocks: plain, CMA.
    whole: [AtomicU32; 2],
    /// How many there are; others look at these to see whom to ask.
    nr_whole: AtomicU32,
    nr_partial: AtomicU32,
    refill_scale: AtomicU32,
}

impl Set {
    pub(super) fn new() -> Set {
        let none = || AtomicU32::new(NO_BLOCK);
        let zero = || AtomicU32::new(0);
        Set {
            gate: Gate::new(),
            current: core::array::from_fn(|_| none()),
            word: core::array::from_fn(|_| AtomicU32::new(NO_WORD)),
            partial: core::array::from_fn(|_| core::array::from_fn(|_| none())),
            whole: core::array::from_fn(|_| none()),
            nr_whole: zero(),
            nr_partial: zero(),
            refill_scale: zero(),
        }
    }

    /// Whole blocks on the set.
    pub(super) fn nr_whole(&self) -> u32 {
        self.nr_whole.load()
    }

    /// Whether the set looks as if it had a whole block for pages of type `mt`. A glance from outside.
    pub(super) fn looks_whole(&self, mt: Migratetype) -> bool {
        lists_of_whole(mt)
            .iter()
            .any(|&list| self.whole[list].load() != NO_BLOCK)
    }

    /// Whether the set looks as if it had anything free. A glance from outside.
    pub(super) fn looks_stocked(&self, blocks: &Blocks) -> bool {
        self.nr_whole.load() != 0
            || self.nr_partial.load() != 0
            || self.current.iter().any(|current| {
                let block = current.load();
                block != NO_BLOCK && blocks.count_local(BlockIdx(block)) != 0
            })
    }
}

/// The set of the calling CPU, with nobody else inside until this is dropped.
pub(super) struct Busy<'a> {
    eco: &'a Economy,
    set: &'a Set,
    /// Number of the set.
    id: u32,
    _inside: Inside<'a>,
}

/// What keeps others out of a set.
#[expect(dead_code, reason = "held for their drop")]
enum Key<'a> {
    Busy(Busy<'a>),
    Seized(Seized<'a>),
    /// The lock of the shared set.
    Shared(CountedGuard<'a, ()>),
}

/// A set that nobody else can be inside of.
pub(super) struct Held<'a> {
    eco: &'a Economy,
    set: &'a Set,
    /// Number of the set.
    id: u32,
    /// The CPU that does it, for the counters.
    cpu: CpuIdx,
    _key: Key<'a>,
}

impl Economy {
    /// Enters the set of the calling CPU; `None` if it is seized, or busy below this interrupt.
    #[inline(always)]
    pub(super) fn enter_quick(&self, cpu: CpuIdx) -> Option<Busy<'_>> {
        Some(self.busy(cpu, self.sets[cpu.idx()].gate.enter()?))
    }

    #[inline(always)]
    fn busy<'a>(&'a self, cpu: CpuIdx, inside: Inside<'a>) -> Busy<'a> {
        Busy {
            eco: self,
            set: &self.sets[cpu.idx()],
            id: cpu.0,
            _inside: inside,
        }
    }

    /// The same, for more than a single page.
    pub(super) fn enter(&self, cpu: CpuIdx) -> Option<Held<'_>> {
        Some(self.held(cpu, self.enter_quick(cpu)?))
    }

    /// The same, waiting for who has seized the set. Task context.
    pub(super) fn enter_waiting(&self, cpu: CpuIdx) -> Held<'_> {
        let inside = self.sets[cpu.idx()].gate.enter_waiting();
        self.held(cpu, self.busy(cpu, inside))
    }

    /// The set of the calling CPU, which it has entered.
    pub(super) fn held<'a>(&'a self, cpu: CpuIdx, busy: Busy<'a>) -> Held<'a> {
        Held {
            eco: self,
            set: busy.set,
            id: cpu.0,
            cpu,
            _key: Key::Busy(busy),
        }
    }

    /// Enters the set of another CPU and keeps that CPU out. Task context; waits for who else has seized
    /// the set, or waits for it, and for the moment that the CPU may be inside: a stretch of blocks each.
    pub(super) fn seize(&self, cpu: CpuIdx, victim: CpuIdx) -> Held<'_> {
        let set: &Set = &self.sets[victim.idx()];
        self.stats.inc(cpu, Event::Seize);
        loop {
            if let Some(seized) = set.gate.seize(victim) {
                return Held {
                    eco: self,
                    set,
                    id: victim.0,
                    cpu,
                    _key: Key::Seized(seized),
                };
            }
            relax();
        }
    }

    /// Enters any set. Task context, and not from inside of another one.
    pub(super) fn hold(&self, cpu: CpuIdx, set: u32) -> Held<'_> {
        if set == cpu.0 {
            self.enter_waiting(cpu)
        } else if set == self.shared_id() {
            self.enter_shared(cpu)
        } else {
            self.seize(cpu, CpuIdx(set))
        }
    }

    /// Enters the shared set.
    pub(super) fn enter_shared(&self, cpu: CpuIdx) -> Held<'_> {
        self.held_shared(cpu, self.shared_lock.lock(0, Irq::Save))
    }

    /// Enters the shared set uncounted, for checks.
    pub(super) fn inspect_shared(&self) -> Held<'_> {
        self.held_shared(CpuIdx(0), self.shared_lock.inspect(0))
    }

    fn held_shared<'a>(&'a self, cpu: CpuIdx, lock: CountedGuard<'a, ()>) -> Held<'a> {
        let id = self.shared_id();
        Held {
            eco: self,
            set: &self.sets[id as usize],
            id,
            cpu,
            _key: Key::Shared(lock),
        }
    }
}

impl Busy<'_> {
    /// Takes a run of at most a word: the one of that size that was freed last, else one out of the
    /// current word of the current block.
    #[inline(always)]
    pub(super) fn take_quick(&self, order: Order, mt: Migratetype) -> Option<PageIdx> {
        while let Some(page) = self.eco.hot.pop(self.id, order, mt) {
            if self.take_hot(page, order, mt) {
                return Some(page);
            }
        }
        let w = self.set.word[mt.idx()].load();
        match order {
            Order::ZERO => self.eco.blocks.take_page(w),
            _ => self.eco.blocks.take_in_word(w, order),
        }
    }

    /// Takes a run that was freed not long ago, if it is still free, and nothing else has become of its
    /// block.
    #[inline(always)]
    fn take_hot(&self, page: PageIdx, order: Order, mt: Migratetype) -> bool {
        let blocks = &self.eco.blocks;
        let (block, _) = blocks.locate(page);
        let private = blocks.get(block);
        let place = private.place.load();
        if place == PLACE_WHOLE || blocks.set_of(block) != Some((self.id, mt)) {
            return false;
        }
        let taken = blocks.take_from_word(page, order);
        if taken && place != PLACE_CURRENT {
            let nr_free = &private.nr_free;
            nr_free.store(nr_free.load().wrapping_sub(order.pages()));
        }
        taken
    }

    /// Frees a run of at most a word into a block of this set, whose type is `mt`, if no list changes by
    /// that. Returns false, with nothing changed, if more is to be done or a page of it is free already.
    #[inline(always)]
    pub(super) fn put_quick(
        &self,
        block: BlockIdx,
        page: PageIdx,
        order: Order,
        mt: Migratetype,
    ) -> bool {
        let blocks = &self.eco.blocks;
        let private = blocks.get(block);
        let is_current = private.place.load() == PLACE_CURRENT;
        let now = private.nr_free.load().wrapping_add(order.pages());
        let stays = is_current || !needs_relist(blocks, private.place.load(), now);
        if !stays || !blocks.put_in_word(page, order) {
            return false;
        }
        if !is_current {
            private.nr_free.store(now);
        }
        self.eco.hot.push(self.id, page, order, mt);
        true
    }
}

/// Whether a block at `place`, not a current one, has to go elsewhere when `now` of its pages are free
/// after a free. The buckets are only looked at anew when a block is wanted.
#[inline(always)]
fn needs_relist(blocks: &Blocks, place: u32, now: u32) -> bool {
    place == PLACE_NONE
        || now == blocks.order().pages()
        || place == PLACE_CRUMBS && !blocks.has_crumbs(now)
}

impl Busy<'_> {
    /// Gives a whole block out if there is one here that is not of CMA type.
    #[inline(always)]
    pub(super) fn give_whole(&self, mt: Migratetype) -> Option<BlockIdx> {
        let blocks = &self.eco.blocks;
        let list = (&self.set.whole[0], &self.set.nr_whole);
        let first = list.0.load();
        if first == NO_BLOCK {
            return None;
        }
        let block = BlockIdx(first);
        remove(blocks, list, block);
        let (holder, cma) = (Holder::Given, false);
        blocks.set_tag(block, Tag { holder, mt, cma });
        Some(block)
    }

    /// Takes a block that was given out back into this set, unless it has as many whole ones as it may.
    /// Returns false, with nothing changed, if that is so or the block is not given out.
    #[inline(always)]
    pub(super) fn take_back(&self, block: BlockIdx) -> bool {
        let (blocks, nr_whole) = (&self.eco.blocks, &self.set.nr_whole);
        let has_room = nr_whole.load() < self.eco.high;
        let taken = has_room && blocks.take_back(block, Holder::Set(self.id));
        if taken {
            let head = &self.set.whole[usize::from(blocks.tag(block).cma)];
            push(blocks, (head, nr_whole), block);
            blocks.get(block).place.store(PLACE_WHOLE);
        }
        taken
    }
}

/// Puts a block first on the list of a head and a counter.
#[inline(always)]
fn push(blocks: &Blocks, (head, count): (&AtomicU32, &AtomicU32), block: BlockIdx) {
    let (entry, next) = (blocks.get(block), head.load());
    entry.prev.store(NO_BLOCK);
    entry.next.store(next);
    if next != NO_BLOCK {
        blocks.get(BlockIdx(next)).prev.store(block.0);
    }
    head.store(block.0);
    count.store(count.load() + 1);
}

/// Takes a block off the list of a head and a counter.
#[inline(always)]
fn remove(blocks: &Blocks, (head, count): (&AtomicU32, &AtomicU32), block: BlockIdx) {
    let entry = blocks.get(block);
    let (prev, next) = (entry.prev.load(), entry.next.load());
    match prev {
        NO_BLOCK => head.store(next),
        prev => blocks.get(BlockIdx(prev)).next.store(next),
    }
    if next != NO_BLOCK {
        blocks.get(BlockIdx(next)).prev.store(prev);
    }
    count.store(count.load() - 1);
    entry.place.store(PLACE_NONE);
}

/// The lists of whole blocks, by number, that may hold pages of a type: those of CMA type are for movable
/// ones only.
fn lists_of_whole(mt: Migratetype) -> &'static [usize] {
    match mt {
        Migratetype::Movable => &[0, 1],
        _ => &[0],
    }
}

/// Whether a block is the current one of some type, so that its count is out of date.
pub(super) fn is_current(blocks: &Blocks, block: BlockIdx) -> bool {
    blocks.get(block).place.load() == PLACE_CURRENT
}

/// The place where a block with that many free pages belongs.
#[inline]
fn place_for(blocks: &Blocks, nr_free: u32) -> u32 {
    let whole = blocks.order().pages();
    match nr_free {
        0 => PLACE_NONE,
        n if n == whole => PLACE_WHOLE,
        n if blocks.has_crumbs(n) => PLACE_CRUMBS,
        n => PLACE_BUCKET + blocks.quarters(n),
    }
}

impl Held<'_> {
    fn blocks(&self) -> &Blocks {
        &self.eco.blocks
    }

    /// The zone that this is a set of.
    pub(super) fn economy(&self) -> &Economy {
        self.eco
    }

    /// Whole blocks on the set.
    pub(super) fn nr_whole(&self) -> u32 {
        self.set.nr_whole()
    }

    /// Whether a block, which is not current, is whole.
    pub(super) fn is_whole(&self, block: BlockIdx) -> bool {
        self.blocks().nr_free(block) == self.blocks().order().pages()
    }

    /// Whether a block of this set is on no list, and not current either.
    pub(super) fn is_unlisted(&self, block: BlockIdx) -> bool {
        self.blocks().get(block).place.load() == PLACE_NONE
    }

    /// Allocates from what this set has, or from the zone.
    pub(super) fn alloc(&self, order: Order, mt: Migratetype) -> Option<PageIdx> {
        let block_order = self.blocks().order();
        if order == block_order {
            return self.alloc_whole(mt);
        }
        let left = Cell::new(SEARCH_MAX);
        if order == Order::ZERO {
            if let Some(page) = self.alloc_page(mt) {
                return Some(page);
            }
        } else {
            self.absorb();
            if let Some(page) = self.alloc_run(order, mt, &left) {
                return Some(page);
            }
        }
        self.alloc_fallback(order, mt, &left)
    }

    /// Takes a page out of the current block, or makes another one current.
    fn alloc_page(&self, mt: Migratetype) -> Option<PageIdx> {
        loop {
            let w = self.set.word[mt.idx()].load();
            if let Some(page) = self.blocks().take_page(w) {
                return Some(page);
            }
            if !self.next_word(mt) {
                return None;
            }
        }
    }

    /// Fills `out` with pages from its start, a word of a bitmap at a time, and returns how many there
    /// were.
    pub(super) fn alloc_pages(&self, mt: Migratetype, out: &mut [PageIdx]) -> usize {
        let mut filled = 0;
        while filled < out.len() {
            let w = self.set.word[mt.idx()].load();
            // CAST: more than a word does not matter.
            let max = (out.len() - filled).min(64) as u32;
            let taken = self.blocks().take_pages(w, max);
            let first = PageIdx(w.wrapping_shl(6));
            if taken == !0 {
                for (page, nr) in out[filled..filled + 64].iter_mut().zip(0..) {
                    *page = first.offset(nr);
                }
            } else if taken != 0 {
                let mut bits = taken;
                for page in &mut out[filled..filled + taken.count_ones() as usize] {
                    *page = first.offset(bits.trailing_zeros());
                    bits &= bits.wrapping_sub(1);
                }
            } else if !self.next_word(mt) {
                break;
            }
            filled += taken.count_ones() as usize;
        }
        filled
    }

    /// Goes on to a word with a free page when the present one has none: in the current block, else in
    /// another one. False if there is none to be had.
    fn next_word(&self, mt: Migratetype) -> bool {
        self.advance(mt) || {
            self.absorb();
            // Remote frees may have come into the current block just now.
            self.advance(mt) || self.next_current(mt)
        }
    }

    /// Moves on to the next word of the current block that has a free page.
    fn advance(&self, mt: Migratetype) -> bool {
        let current = self.set.current[mt.idx()].load();
        current != NO_BLOCK && {
            let next = self.blocks().first_free_word(BlockIdx(current));
            next.inspect(|&w| self.set.word[mt.idx()].store(w))
                .is_some()
        }
    }

    /// Makes another block current: the fullest partial one, else a whole one from here, one that is
    /// ripening, a whole one from the zone, or one with crumbs.
    fn next_current(&self, mt: Migratetype) -> bool {
        self.retire_current(mt);
        let ripe = || (PLACE_BUCKET..PLACE_RIPENING).find_map(|place| self.pop_partial(place, mt));
        let ripening = || self.pop_partial(PLACE_RIPENING, mt);
        let crumbs = || self.pop_partial(PLACE_CRUMBS, mt);
        let block = ripe()
            .or_else(|| self.pop_whole_for(mt))
            .or_else(ripening)
            .or_else(|| self.take_whole(mt))
            .or_else(crumbs);
        block
            .inspect(|&block| self.make_current(block, mt))
            .is_some()
    }

    /// Takes the first block off the list of a type at `place` that still belongs there or earlier.
    fn pop_partial(&self, place: u32, mt: Migratetype) -> Option<BlockIdx> {
        let list = &self.set.partial[mt.idx()][(place - PLACE_BUCKET) as usize];
        loop {
            let first = list.load();
            if first == NO_BLOCK {
                return None;
            }
            let block = BlockIdx(first);
            self.unlist(block);
            match place_for(self.blocks(), self.blocks().nr_free(block)) {
                PLACE_NONE => {}
                later if later > place && place < PLACE_RIPENING => self.list_at(block, later),
                _ => return Some(block),
            }
        }
    }

    fn make_current(&self, block: BlockIdx, mt: Migratetype) {
        self.blocks().get(block).place.store(PLACE_CURRENT);
        self.set.current[mt.idx()].store(block.0);
        let word = self.blocks().first_free_word(block).unwrap_or(NO_WORD);
        self.set.word[mt.idx()].store(word);
    }

    /// Puts the current block of a type where it belongs by its free pages.
    fn retire_current(&self, mt: Migratetype) {
        let current = self.set.current[mt.idx()].load();
        if current == NO_BLOCK {
            return;
        }
        self.set.current[mt.idx()].store(NO_BLOCK);
        self.set.word[mt.idx()].store(NO_WORD);
        self.blocks().recount(BlockIdx(current));
        self.blocks().get(BlockIdx(current)).place.store(PLACE_NONE);
        self.relist(BlockIdx(current));
    }

    /// Takes a run smaller than a block: from the current block, from the fullest partial blocks that
    /// may well have one, from a whole block, and only then from any partial block.
    fn alloc_run(&self, order: Order, mt: Migratetype, left: &Cell<usize>) -> Option<PageIdx> {
        let current = self.set.current[mt.idx()].load();
        if current != NO_BLOCK {
            let block = BlockIdx(current);
            if let Some(bit) = self.blocks().take_run(block, order) {
                return Some(self.blocks().page(block, bit));
            }
        }
        let lists = &self.set.partial[mt.idx()];
        self.run_from_partial(&lists[..=NR_BUCKETS], order, SEARCH_LIMIT, left, |_| true)
            .or_else(|| self.run_from_whole(order, mt))
            .or_else(|| self.run_from_partial(lists, order, SEARCH_MAX, left, |_| true))
    }

    /// Takes a run from a block of some lists, of which it looks at `limit` each, and at `left` in all, which
    /// become fewer. Blocks that have become empty where they are leave the list.
    fn run_from_partial(
        &self,
        lists: &[AtomicU32],
        order: Order,
        limit: usize,
        left: &Cell<usize>,
        may_use: impl Fn(BlockIdx) -> bool,
    ) -> Option<PageIdx> {
        let blocks = self.blocks();
        for list in lists {
            let mut cursor = list.load();
            let until = left.get().saturating_sub(limit);
            while cursor != NO_BLOCK && left.get() > until {
                let block = BlockIdx(cursor);
                cursor = blocks.get(block).next.load();
                left.set(left.get() - 1);
                let nr_free = blocks.nr_free(block);
                if nr_free == 0 {
                    self.unlist(block);
                } else if may_use(block) && nr_free >= order.pages() {
                    if let Some(page) = self.take_run(block, order) {
                        return Some(page);
                    }
                }
            }
        }
        None
    }

    /// Takes a run out of a partial block of this set.
    fn take_run(&self, block: BlockIdx, order: Order) -> Option<PageIdx> {
        let bit = self.blocks().take_run(block, order)?;
        self.relist(block);
        Some(self.blocks().page(block, bit))
    }

    fn run_from_whole(&self, order: Order, mt: Migratetype) -> Option<PageIdx> {
        let block = self.take_whole(mt)?;
        let bit = self.blocks().take_run(block, order)?;
        if self.set.current[mt.idx()].load() == NO_BLOCK {
            self.make_current(block, mt);
        } else {
            self.relist(block);
        }
        Some(self.blocks().page(block, bit))
    }

    /// Takes a chunk of at most a block out of the block that is named, which is this set's: the one that a
    /// search from outside has found. `None` if it has no such chunk any more.
    pub(super) fn alloc_from(
        &self,
        block: BlockIdx,
        order: Order,
        mt: Migratetype,
    ) -> Option<PageIdx> {
        let blocks = self.blocks();
        if !self.settle_all(block) {
            return self.take_run(block, order).inspect(|_| {
                if blocks.tag(block).mt != mt {
                    self.count_fallback();
                }
            });
        }
        self.unlist(block);
        self.begin(block, mt);
        if order == blocks.order() {
            blocks.set_holder(block, Holder::Given);
            return Some(blocks.page(block, 0));
        }
        let page = self.take_run(block, order);
        debug_assert!(page.is_some());
        page
    }

    /// Takes in what others freed into a block of this set, and puts the block where it belongs, also if it
    /// was current. Returns whether it is whole now.
    pub(super) fn settle_all(&self, block: BlockIdx) -> bool {
        let blocks = self.blocks();
        self.absorb_block(block);
        if is_current(blocks, block) {
            self.retire_current(blocks.tag(block).mt);
        }
        self.is_whole(block)
    }

    /// Takes pages of another type's blocks, which keep their type. Blocks of CMA type serve movable
    /// requests only.
    fn alloc_fallback(&self, order: Order, mt: Migratetype, left: &Cell<usize>) -> Option<PageIdx> {
        let blocks = self.blocks();
        let may_use = |block| mt == Migratetype::Movable || !blocks.tag(block).cma;
        for other in Migratetype::PCP.into_iter().filter(|&other| other != mt) {
            let current = self.set.current[other.idx()].load();
            if current != NO_BLOCK && may_use(BlockIdx(current)) {
                if let Some(bit) = blocks.take_run(BlockIdx(current), order) {
                    self.count_fallback();
                    return Some(blocks.page(BlockIdx(current), bit));
                }
            }
            let lists = &self.set.partial[other.idx()];
            if let Some(page) = self.run_from_partial(lists, order, SEARCH_MAX, left, may_use) {
                self.count_fallback();
                return Some(page);
            }
        }
        None
    }

    /// A chunk for one type came out of a block of another one.
    fn count_fallback(&self) {
        self.count(Event::Fallback);
        self.count(Event::FallbackSteal);
    }

    fn count(&self, event: Event) {
        self.eco.stats.inc(self.cpu, event);
    }

    /// Takes a whole block for pages of type `mt`, refilling from the zone if there is none here.
    fn take_whole(&self, mt: Migratetype) -> Option<BlockIdx> {
        self.take_block(mt).inspect(|&block| self.begin(block, mt))
    }

    /// Takes a whole block that may hold pages of type `mt`, refilling from the zone if there is none here.
    fn take_block(&self, mt: Migratetype) -> Option<BlockIdx> {
        self.pop_whole(mt).or_else(|| {
            self.refill(mt);
            self.pop_whole(mt)
        })
    }

    /// Takes a whole block off this set for pages of type `mt`.
    fn pop_whole_for(&self, mt: Migratetype) -> Option<BlockIdx> {
        self.pop_whole(mt).inspect(|&block| self.begin(block, mt))
    }

    /// Makes a whole block one for pages of type `mt`. Two CPUs may have freed a page of it at the same
    /// moment: what the second one has left behind is not to be absorbed when the page is in use again.
    fn begin(&self, block: BlockIdx, mt: Migratetype) {
        let blocks = self.blocks();
        let twice = blocks.clear_remote(block);
        self.eco
            .stats
            .add(self.cpu, Event::DoubleFree, twice.into());
        let tag = blocks.tag(block);
        blocks.set_tag(block, Tag { mt, ..tag });
    }

    /// Takes a whole block that may hold pages of type `mt` off this set.
    pub(super) fn pop_whole(&self, mt: Migratetype) -> Option<BlockIdx> {
        let block = lists_of_whole(mt)
            .iter()
            .map(|&list| self.set.whole[list].load())
            .find(|&block| block != NO_BLOCK)?;
        self.unlist(BlockIdx(block));
        Some(BlockIdx(block))
    }

    /// Gets whole blocks from the zone, twice as many each time until a drain.
    fn refill(&self, mt: Migratetype) {
        if self.eco.zone.nr_free() == 0 {
            return;
        }
        let scale = self.set.refill_scale.load();
        let wanted = (self.eco.batch.min(STRETCH) << scale).min(STRETCH);
        let wanted = wanted.min(self.eco.high / 2).max(1);
        if scale < REFILL_SCALE_MAX {
            self.set.refill_scale.store(scale + 1);
        }
        let mut got = 0;
        let mut zone = self.eco.zone.lock();
        while got < wanted {
            let Some(block) = zone.take_run(Order::ZERO, mt == Migratetype::Movable) else {
                break;
            };
            self.own(block);
            self.relist(block);
            got += 1;
        }
        drop(zone);
        let pages = u64::from(got) * u64::from(self.blocks().order().pages());
        self.count(Event::Refill);
        self.eco.stats.add(self.cpu, Event::RefillClaimPages, pages);
        self.eco
            .stats
            .add(self.cpu, Event::BlockClaimed, got.into());
    }

    /// Makes this set the holder of a block that is on no list.
    pub(super) fn own(&self, block: BlockIdx) {
        self.blocks().set_holder(block, Holder::Set(self.id));
        self.blocks().get(block).place.store(PLACE_NONE);
    }

    fn alloc_whole(&self, mt: Migratetype) -> Option<PageIdx> {
        let block = self.take_block(mt).or_else(|| {
            // A current block may be whole as well.
            self.absorb();
            self.retire_all();
            self.pop_whole(mt)
        })?;
        let (holder, cma) = (Holder::Given, self.blocks().tag(block).cma);
        self.blocks().set_tag(block, Tag { holder, mt, cma });
        Some(self.blocks().page(block, 0))
    }

    /// Puts all current blocks where they belong.
    pub(super) fn retire_all(&self) {
        for mt in Migratetype::PCP {
            self.retire_current(mt);
        }
    }

    /// Takes in a whole block that was given out and is free again. Returns false, with nothing changed,
    /// if it is not given out.
    #[must_use]
    pub(super) fn free_whole(&self, block: BlockIdx) -> bool {
        if !self.blocks().take_back(block, Holder::Set(self.id)) {
            return false;
        }
        self.relist(block);
        self.drain_excess();
        true
    }

    /// Frees a run into a block of this set. Returns false, with nothing changed, if a page of it
    /// is free already.
    #[inline]
    #[must_use]
    pub(super) fn free(&self, block: BlockIdx, bit: u32, order: Order) -> bool {
        let Some(now) = self.blocks().put_run(block, bit, order) else {
            return false;
        };
        self.settle(block, now);
        let mt = self.blocks().tag(block).mt;
        let page = self.blocks().page(block, bit);
        self.eco.hot.push(self.id, page, order, mt);
        true
    }

    /// Frees pages of word `w` of all words, in a block of this set. Returns the bits of those that were
    /// free before: freed by an interrupt on this CPU a moment ago.
    #[inline]
    #[must_use]
    pub(super) fn free_pages(&self, w: u32, mask: u64) -> u64 {
        let (now, twice) = self.blocks().put_pages(w, mask);
        self.settle(self.blocks().block_of_word(w), now);
        twice
    }

    /// Puts a block, which has `now` free pages after a free, where it belongs.
    #[inline]
    fn settle(&self, block: BlockIdx, now: u32) {
        let place = self.blocks().get(block).place.load();
        if place != PLACE_CURRENT && needs_relist(self.blocks(), place, now) {
            self.relist(block);
            self.drain_excess();
        }
    }

    /// Whether a block belongs to this set.
    #[inline]
    pub(super) fn owns(&self, block: BlockIdx) -> bool {
        self.blocks().tag(block).holder == Holder::Set(self.id)
    }

    /// Takes in what others freed into blocks of this set.
    #[inline]
    pub(super) fn absorb(&self) {
        if self.eco.pending.is_empty(self.id) {
            return;
        }
        self.absorb_pending();
    }

    #[inline(never)]
    fn absorb_pending(&self) {
        self.take_pending();
        self.drain_excess();
    }

    /// Takes in what others freed into a stretch of blocks.
    pub(super) fn take_pending(&self) {
        let (blocks, pending) = (self.blocks(), &self.eco.pending);
        pending.take(blocks, self.id, STRETCH, |block| match self.owns(block) {
            true => self.absorb_block(block),
            false => pending.forward(blocks, block, self.eco.stray(self.cpu)),
        });
    }

    /// Takes in what others freed into a block of this set.
    fn absorb_block(&self, block: BlockIdx) {
        let blocks = self.blocks();
        let mt = blocks.tag(block).mt;
        let (absorbed, twice) = blocks.absorb(block, |first, bits| {
            self.eco.hot.push_word(self.id, first, bits, mt);
        });
        let stats = &self.eco.stats;
        stats.add(self.cpu, Event::RemoteAbsorbed, absorbed.into());
        stats.add(self.cpu, Event::DoubleFree, twice.into());
        let (place, now) = (blocks.get(block).place.load(), blocks.nr_free(block));
        match place {
            PLACE_CURRENT => {}
            _ if now == blocks.order().pages() => self.relist(block),
            // As many in one go: there are likely to be more soon.
            _ if absorbed >= blocks.order().pages() / 8 => self.list_at(block, PLACE_RIPENING),
            _ if needs_relist(blocks, place, now) => self.relist(block),
            _ => {}
        }
    }

    /// Puts a block on the list it belongs to by its free pages. Not for current blocks.
    #[inline(never)]
    pub(super) fn relist(&self, block: BlockIdx) {
        let blocks = self.blocks();
        self.list_at(block, place_for(blocks, blocks.nr_free(block)));
    }

    /// Puts a block on the list that `place` names.
    fn list_at(&self, block: BlockIdx, place: u32) {
        let blocks = self.blocks();
        let entry = blocks.get(block);
        if entry.place.load() == place {
            return;
        }
        self.unlist(block);
        entry.place.store(place);
        if place == PLACE_NONE {
            return;
        }
        push(blocks, self.list(block, place), block);
    }

    /// Takes a block off the list that it is on, if any.
    pub(super) fn unlist(&self, block: BlockIdx) {
        let blocks = self.blocks();
        let place = blocks.get(block).place.load();
        if place == PLACE_NONE || place == PLACE_CURRENT {
            return;
        }
        remove(blocks, self.list(block, place), block);
    }

    /// Head and counter of the list for a block at `place`, which is a list.
    fn list(&self, block: BlockIdx, place: u32) -> (&AtomicU32, &AtomicU32) {
        let tag = self.blocks().tag(block);
        match place {
            PLACE_WHOLE => (&self.set.whole[usize::from(tag.cma)], &self.set.nr_whole),
            place => {
                let bucket = (place - PLACE_BUCKET) as usize;
                (
                    &self.set.partial[tag.mt.idx()][bucket],
                    &self.set.nr_partial,
                )
            }
        }
    }

    /// Gives whole blocks above `high` back, towards half of it.
    #[inline]
    fn drain_excess(&self) {
        if self.set.nr_whole.load() > self.eco.high {
            self.drain_whole(self.eco.high / 2);
        }
    }

    /// Gives whole blocks back to the zone, a stretch at most, until `keep` are left, in one hold of the
    /// zone lock.
    #[inline(never)]
    fn drain_whole(&self, keep: u32) {
        if self.set.nr_whole.load() <= keep {
            return;
        }
        self.set
            .refill_scale
            .store(self.set.refill_scale.load() / 2);
        let excess = self.set.nr_whole.load() - keep;
        let whole = core::iter::from_fn(|| self.pop_whole(Migratetype::Movable));
        self.put_in_zone(whole.take(excess.min(STRETCH) as usize));
    }

    /// Gives whole blocks, which are on no list any more when they come, back to the zone, in one hold of
    /// its lock.
    pub(super) fn put_in_zone(&self, whole: impl Iterator<Item = BlockIdx>) {
        let mut drained = 0_u32;
        let mut zone = self.eco.zone.lock();
        for block in whole {
            zone.put(self.blocks(), block);
            drained += 1;
        }
        drop(zone);
        let pages = u64::from(drained) * u64::from(self.blocks().order().pages());
        let stats = &self.eco.stats;
        stats.inc(self.cpu, Event::Drain);
        stats.add(self.cpu, Event::DrainPages, pages);
        stats.add(self.cpu, Event::DrainBlocks, drained.into());
        stats.add(self.cpu, Event::BlockDisowned, drained.into());
    }

    /// Takes in a stretch of what is pending, and gives a stretch of what is whole back. Returns whether
    /// there is more of either.
    pub(super) fn flush(&self) -> bool {
        self.take_pending();
        self.retire_all();
        self.drain_whole(0);
        // ORDERING: C1 before C2 of the pending protocol: the zone may have what somebody pushed here.
        mb();
        self.set.nr_whole.load() != 0 || !self.eco.pending.is_empty(self.id)
    }

    /// E2: the lists of this set hold each of its blocks where its free pages put it, once.
    pub(super) fn check_lists(&self) -> core::result::Result<(), Violation> {
        let blocks = self.blocks();
        let expect = |what, block: u32, expected: u32, found: u32| match expected == found {
            true => Ok(()),
            false => Err(Violation {
                what,
                at: block,
                expected: expected.into(),
                found: found.into(),
            }),
        };
        let (mut whole, mut partial, mut current) = (0, 0, 0);
        for block in (0..blocks.nr_blocks())
            .map(BlockIdx)
            .filter(|&block| self.owns(block))
        {
            let place = blocks.get(block).place.load();
            match place {
                PLACE_CURRENT => current += 1,
                _ => {
                    let nr_free = blocks.nr_free(block);
                    let is_whole = nr_free == blocks.order().pages();
                    let right = match place {
                        PLACE_NONE => nr_free == 0,
                        PLACE_WHOLE => is_whole,
                        PLACE_CRUMBS => blocks.has_crumbs(nr_free),
                        _ => !is_whole,
                    };
                    expect("E2 place of a block, block", block.0, 1, right.into())?;
                    whole += u32::from(place == PLACE_WHOLE);
                    partial += u32::from(place >= PLACE_BUCKET);
                }
            }
        }
        let listed = self
            .set
            .current
            .iter()
            .filter(|c| c.load() != NO_BLOCK)
            .count();
        // CAST: at most one per type.
        expect("E2 current blocks of set", self.id, current, listed as u32)?;
        expect(
            "E2 whole blocks of set",
            self.id,
            whole,
            self.set.nr_whole.load(),
        )?;
        expect(
            "E2 partial blocks of set",
            self.id,
            partial,
            self.set.nr_partial.load(),
        )?;
        let plain_lists = self.set.whole.iter().map(|head| (PLACE_WHOLE, head));
        let partial_lists = self
            .set
            .partial
            .iter()
            .flat_map(|heads| (PLACE_BUCKET..).zip(heads));
        let mut entries = 0;
        for (place, head) in plain_lists.chain(partial_lists) {
            let mut cursor = head.load();
            while cursor != NO_BLOCK && entries <= blocks.nr_blocks() {
                let block = BlockIdx(cursor);
                let right = self.owns(block) && blocks.get(block).place.load() == place;
                expect(
                    "E2 block on a list of its set, block",
                    cursor,
                    1,
                    right.into(),
                )?;
                entries += 1;
                cursor = blocks.get(block).next.load();
            }
        }
        expect(
            "E2 blocks on the lists of set",
            self.id,
            whole + partial,
            entries,
        )
    }
}
