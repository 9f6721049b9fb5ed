// SPDX-License-Identifier: GPL-2.0

//! The pageblocks of an economy zone: free-page bitmaps and the state of each block.
//!
//! With 512-page blocks a block takes a cache line each of local bits, of remote bits, of state for all and
//! of state for its owner: half a byte a page. Blocks of 256 pages or less share the lines of their state,
//! so that it is never more than 0.75 bytes.
//!
//! | words          | written by                                   | how            |
//! |----------------|----------------------------------------------|----------------|
//! | local bits     | whoever holds the owner's set                | load and store |
//! | remote bits    | anyone who frees; absorbed by the set        | atomic or, and |
//! | tag            | whoever holds the owner's set, or zone lock  | store          |
//! | tag, given out | `take_back()`, anyone; who was given the block, before it is of a set again | cmpxchg; store |
//! | nr_free, place, links | whoever holds the owner's set         | load and store |
//! | pending, pending_next | see [`pending`](super::pending)       | atomic         |
//!
//! A page of a block that a set or the zone holds is free if its local or its remote bit is set, never
//! both. The bits of a block that is given out mean nothing.

use super::bits::{find_run, lowest_bits, run_mask, run_words, span_words, WORD_ORDER};
use crate::mm::{
    platform::{Array, AtomicU32, AtomicU64},
    types::{BlockIdx, Migratetype, Order, PageIdx, Result},
};

/// Marks "no block" in links.
pub(super) const NO_BLOCK: u32 = u32::MAX;

/// Where a block is. Exactly one of these at any time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// Between two ranges: there is no memory.
    Hole,
    /// Free and whole in the zone.
    Zone,
    /// Given out whole, alone or as part of a run of blocks.
    Given,
    /// Owned by the set of this number.
    Set(u32),
}

/// Holder, migratetype and CMA mark of a block, as one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag {
    pub(super) holder: Holder,
    /// What the pages of an owned block are used for.
    pub(super) mt: Migratetype,
    /// Reserved for contiguous allocation: movable pages only.
    pub(super) cma: bool,
}

const HOLDER_HOLE: u32 = 0xffff;
const HOLDER_ZONE: u32 = 0xfffe;
const HOLDER_GIVEN: u32 = 0xfffd;

/// Sets that a zone may have: the numbers above mean something else.
pub(super) const MAX_SETS: u32 = HOLDER_GIVEN;

const TYPE_SHIFT: u32 = 16;
const CMA: u32 = 1 << 18;

impl Tag {
    #[inline]
    fn to_bits(self) -> u32 {
        let holder = match self.holder {
            Holder::Hole => HOLDER_HOLE,
            Holder::Zone => HOLDER_ZONE,
            Holder::Given => HOLDER_GIVEN,
            Holder::Set(set) => set,
        };
        holder | ((self.mt as u32) << TYPE_SHIFT) | if self.cma { CMA } else { 0 }
    }

    #[inline]
    fn from_bits(bits: u32) -> Tag {
        Tag {
            holder: match bits & 0xffff {
                HOLDER_HOLE => Holder::Hole,
                HOLDER_ZONE => Holder::Zone,
                HOLDER_GIVEN => Holder::Given,
                set => Holder::Set(set),
            },
            mt: Migratetype::from_bits(bits >> TYPE_SHIFT),
            cma: bits & CMA != 0,
        }
    }
}

/// State of a block that every CPU reads when it frees. Seldom written, so that the cache lines stay
/// shared.
#[repr(align(16))]
struct Public {
    tag: AtomicU32,
    /// Whether the block is on somebody's pending stack.
    pending: AtomicU32,
    pending_next: AtomicU32,
}

/// State of a block that only the holder of its set looks at, and writes all the time.
#[repr(align(16))]
pub(super) struct Private {
    /// Local bits that are set.
    pub(super) nr_free: AtomicU32,
    /// Which list of the set the block is on; [`set`](super::set) says what the numbers mean.
    pub(super) place: AtomicU32,
    pub(super) next: AtomicU32,
    pub(super) prev: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Public>() + size_of::<Private>() == 32);

/// Less than this part of a block is crumbs, as an order: 1/64.
const CRUMBS: u8 = 6;

/// A line of 64 bytes has room for four.
const SPREAD_MAX: u8 = 2;

/// All blocks of a zone.
pub(super) struct Blocks {
    public: Array<Public>,
    private: Array<Private>,
    local: Array<AtomicU64>,
    remote: Array<AtomicU64>,
    order: Order,
    /// Entries of `public` and `private` per block, as an order: the first counts, the rest keeps other
    /// blocks off its cache line.
    spread: u8,
}

impl Blocks {
    /// `nr_blocks` holes.
    pub(super) fn new(nr_blocks: u32, order: Order) -> Result<Blocks> {
        let hole = Tag {
            holder: Holder::Hole,
            mt: Migratetype::Movable,
            cma: false,
        };
        let public = |_| Public {
            tag: AtomicU32::new(hole.to_bits()),
            pending: AtomicU32::new(0),
            pending_next: AtomicU32::new(NO_BLOCK),
        };
        let private = |_| Private {
            nr_free: AtomicU32::new(0),
            place: AtomicU32::new(0),
            next: AtomicU32::new(NO_BLOCK),
            prev: AtomicU32::new(NO_BLOCK),
        };
        let nr_words = (nr_blocks as usize) << (order.get() - WORD_ORDER);
        let spread = (order.get() - WORD_ORDER).saturating_sub(1).min(SPREAD_MAX);
        let nr_slots = (nr_blocks as usize) << spread;
        Ok(Blocks {
            public: Array::new(nr_slots, public)?,
            private: Array::new(nr_slots, private)?,
            local: Array::new(nr_words, |_| AtomicU64::new(0))?,
            remote: Array::new(nr_words, |_| AtomicU64::new(0))?,
            order,
            spread,
        })
    }

    /// Index of a block's state.
    #[inline(always)]
    fn slot(&self, block: BlockIdx) -> usize {
        block.idx() << self.spread
    }

    /// Order of the blocks.
    #[inline]
    pub(super) fn order(&self) -> Order {
        self.order
    }

    /// Number of blocks, holes included.
    #[inline]
    pub(super) fn nr_blocks(&self) -> u32 {
        // CAST: `new` was given a `u32`.
        (self.public.len() >> self.spread) as u32
    }

    /// Bytes of metadata.
    pub(super) fn bytes(&self) -> u64 {
        let words = self.local.len() + self.remote.len();
        let state = size_of::<Public>() + size_of::<Private>();
        (self.public.len() * state + words * size_of::<u64>()) as u64
    }

    #[inline]
    pub(super) fn words_per_block(&self) -> usize {
        1 << (self.order.get() - WORD_ORDER)
    }

    /// Number of the first word of a block in the bitmaps.
    #[inline]
    fn first_word(&self, block: BlockIdx) -> usize {
        block.idx() << (self.order.get() - WORD_ORDER)
    }

    /// The block of a page, and the page's place in it.
    #[inline]
    pub(super) fn locate(&self, page: PageIdx) -> (BlockIdx, u32) {
        (
            BlockIdx(page.0 >> self.order.get()),
            page.0 & (self.order.pages() - 1),
        )
    }

    /// The page at place `bit` of a block.
    #[inline]
    pub(super) fn page(&self, block: BlockIdx, bit: u32) -> PageIdx {
        PageIdx((block.0 << self.order.get()) + bit)
    }

    /// The part of a block's state that belongs to the holder of its set.
    #[inline]
    pub(super) fn get(&self, block: BlockIdx) -> &Private {
        &self.private[self.slot(block)]
    }

    /// The pending flag of a block.
    #[inline]
    pub(super) fn pending(&self, block: BlockIdx) -> &AtomicU32 {
        &self.public[self.slot(block)].pending
    }

    /// The block below on the same pending stack.
    #[inline]
    pub(super) fn pending_next(&self, block: BlockIdx) -> &AtomicU32 {
        &self.public[self.slot(block)].pending_next
    }

    #[inline]
    pub(super) fn tag(&self, block: BlockIdx) -> Tag {
        Tag::from_bits(self.public[self.slot(block)].tag.load())
    }

    /// Whether a set holds a block; false beyond the last block.
    #[inline(always)]
    pub(super) fn is_of(&self, block: BlockIdx, set: u32) -> bool {
        let public = self.public.get(self.slot(block));
        public.is_some_and(|public| public.tag.load() & 0xffff == set)
    }

    /// The number of the set that holds a block, and its type; `None` if no set does.
    #[inline(always)]
    pub(super) fn set_of(&self, block: BlockIdx) -> Option<(u32, Migratetype)> {
        let bits = self.public.get(self.slot(block))?.tag.load();
        let set = bits & 0xffff;
        (set < MAX_SETS).then(|| (set, Migratetype::from_bits(bits >> TYPE_SHIFT)))
    }

    pub(super) fn set_tag(&self, block: BlockIdx, tag: Tag) {
        self.public[self.slot(block)].tag.store(tag.to_bits());
    }

    /// Changes the holder of a block and leaves the rest of its tag.
    pub(super) fn set_holder(&self, block: BlockIdx, holder: Holder) {
        let tag = self.tag(block);
        self.set_tag(block, Tag { holder, ..tag });
    }

    /// Takes a block that was given out back for `holder`. From anywhere. Returns false, with nothing
    /// changed, if it is not given out: of those who free a block at the same moment, one succeeds.
    #[inline(always)]
    #[must_use]
    pub(super) fn take_back(&self, block: BlockIdx, holder: Holder) -> bool {
        let tag = &self.public[self.slot(block)].tag;
        let bits = tag.load();
        let ours = Tag {
            holder,
            ..Tag::from_bits(bits)
        };
        // ORDERING: the next user of the pages comes after who freed them.
        bits & 0xffff == HOLDER_GIVEN && tag.cmpxchg(bits, ours.to_bits()).is_ok()
    }

    /// Sets the local bits of a whole block: how a block begins.
    pub(super) fn fill(&self, block: BlockIdx) {
        let first = self.first_word(block);
        for word in &self.local[first..first + self.words_per_block()] {
            word.store(!0);
        }
        self.private[self.slot(block)]
            .nr_free
            .store(self.order.pages());
    }

    /// Clears the local bits of a block that was given out whole: its pages are free one by one from
    /// now on. Before its tag names a set.
    pub(super) fn empty(&self, block: BlockIdx) {
        for w in self.first_word(block)..self.first_word(block) + self.words_per_block() {
            self.local[w].store(0);
            // What two CPUs have freed at the same moment.
            if self.remote[w].load() != 0 {
                self.remote[w].store(0);
            }
        }
        self.private[self.slot(block)].nr_free.store(0);
    }

    /// Number of local bits that are set. Out of date while the block is current: that spares the
    /// allocation path a store; [`Blocks::recount`] mends it.
    #[inline]
    pub(super) fn nr_free(&self, block: BlockIdx) -> u32 {
        self.private[self.slot(block)].nr_free.load()
    }

    #[inline]
    pub(super) fn local_word(&self, block: BlockIdx, w: usize) -> &AtomicU64 {
        &self.local[self.first_word(block) + w]
    }

    /// Counts the local bits anew.
    pub(super) fn recount(&self, block: BlockIdx) {
        self.private[self.slot(block)]
            .nr_free
            .store(self.count_local(block));
    }

    /// The quarters of a block that so many free pages fill.
    #[inline]
    pub(super) fn quarters(&self, nr_free: u32) -> u32 {
        nr_free >> (self.order.get() - 2)
    }

    /// Whether so many free pages are but crumbs.
    #[inline(always)]
    pub(super) fn has_crumbs(&self, nr_free: u32) -> bool {
        nr_free >> (self.order.get() - CRUMBS) == 0
    }

    /// The first word of a block, counted from the first of all blocks, that has a local page.
    #[inline]
    pub(super) fn first_free_word(&self, block: BlockIdx) -> Option<u32> {
        let first = self.first_word(block);
        let words = &self.local[first..first + self.words_per_block()];
        let nr = words.iter().position(|word| word.load() != 0)?;
        // CAST: a word for 64 pages, whose indexes fit 32 bits.
        Some((first + nr) as u32)
    }

    /// Takes the first page of word `w` of all words, if there is such a word and it has one.
    /// Pages are numbered as bits are. Does not count.
    #[inline(always)]
    pub(super) fn take_page(&self, w: u32) -> Option<PageIdx> {
        let word = self.local.get(w as usize)?;
        let bits = word.load();
        if bits == 0 {
            return None;
        }
        word.store(bits & (bits - 1));
        Some(PageIdx((w << WORD_ORDER) + bits.trailing_zeros()))
    }

    /// Takes up to `max` pages of word `w` of all words, lowest first; returns their bits, and 0 if there
    /// is no such word. Does not count.
    #[inline]
    pub(super) fn take_pages(&self, w: u32, max: u32) -> u64 {
        let Some(word) = self.local.get(w as usize) else {
            return 0;
        };
        let bits = word.load();
        let taken = lowest_bits(bits, max);
        word.store(bits & !taken);
        taken
    }

    /// The block that word `w` of all words belongs to.
    #[inline]
    pub(super) fn block_of_word(&self, w: u32) -> BlockIdx {
        BlockIdx(w >> (self.order.get() - WORD_ORDER))
    }

    /// Whether any page of word `w` of all words in `mask` is free, locally or remotely.
    #[inline]
    pub(super) fn any_free(&self, w: u32, mask: u64) -> bool {
        (self.local[w as usize].load() | self.remote[w as usize].load()) & mask != 0
    }

    /// Sets the local bits of pages of word `w` of all words. By the holder of the set. Returns how many
    /// local bits of the block are set now, and those of the pages that were free before.
    #[inline]
    pub(super) fn put_pages(&self, w: u32, mask: u64) -> (u32, u64) {
        let word = &self.local[w as usize];
        let bits = word.load();
        word.store(bits | mask);
        let nr_free = &self.private[self.slot(self.block_of_word(w))].nr_free;
        let now = nr_free.load().wrapping_add((mask & !bits).count_ones());
        nr_free.store(now);
        (now, mask & bits)
    }

    /// Sets the remote bits of pages of word `w` of all words. From anywhere. Returns those that were
    /// set already.
    #[inline]
    #[must_use]
    pub(super) fn put_remote_pages(&self, w: u32, mask: u64) -> u64 {
        self.remote[w as usize].or(mask) & mask
    }

    /// The words, of all words, that a run touches, each with the mask of its part of the run.
    pub(super) fn words_of(first: PageIdx, nr: u32) -> impl Iterator<Item = (u32, u64)> {
        // CAST: a word for 64 pages, whose indexes fit 32 bits.
        span_words(first.0, nr).map(|(w, mask)| (w as u32, mask))
    }

    /// Takes the first run of `2^order` pages, `order` at most 6, of word `w` of all words, as
    /// [`Blocks::take_page`] takes a page.
    #[inline(always)]
    pub(super) fn take_in_word(&self, w: u32, order: Order) -> Option<PageIdx> {
        let word = self.local.get(w as usize)?;
        let bits = word.load();
        let bit = find_run([bits].into_iter(), order)?;
        word.store(bits & !run_mask(bit, order));
        Some(PageIdx((w << WORD_ORDER) + bit))
    }

    /// Sets the local bits of a run of `2^order` pages, `order` at most 6. Returns false, with nothing
    /// changed, if one is set already. Does not count.
    #[inline(always)]
    pub(super) fn put_in_word(&self, page: PageIdx, order: Order) -> bool {
        let word = &self.local[page.idx() >> WORD_ORDER];
        let mask = run_mask(page.0 % 64, order);
        let bits = word.load();
        if bits & mask != 0 {
            return false;
        }
        word.store(bits | mask);
        true
    }

    /// Takes a run of `2^order` pages, `order` at most 6. Returns false, with nothing changed, if not all
    /// of them are free. Does not count.
    #[inline(always)]
    pub(super) fn take_from_word(&self, page: PageIdx, order: Order) -> bool {
        let word = &self.local[page.idx() >> WORD_ORDER];
        let mask = run_mask(page.0 % 64, order);
        let bits = word.load();
        if bits & mask != mask {
            return false;
        }
        word.store(bits & !mask);
        true
    }

    /// The local bits of a block.
    #[inline]
    fn local_words(&self, block: BlockIdx) -> impl Iterator<Item = u64> + '_ {
        let first = self.first_word(block);
        let words = &self.local[first..first + self.words_per_block()];
        words.iter().map(|word| word.load())
    }

    /// Takes the first aligned run of `2^order` pages out of a block. By the holder of its set.
    #[inline]
    pub(super) fn take_run(&self, block: BlockIdx, order: Order) -> Option<u32> {
        let bit = find_run(self.local_words(block), order)?;
        for (w, mask) in run_words(bit, order) {
            let word = self.local_word(block, w);
            word.store(word.load() & !mask);
        }
        let nr_free = &self.private[self.slot(block)].nr_free;
        nr_free.store(nr_free.load().wrapping_sub(order.pages()));
        Some(bit)
    }

    /// Whether any page of a run is free locally. From anywhere: the bits of a page in use are
    /// stable.
    #[inline]
    pub(super) fn any_local(&self, block: BlockIdx, bit: u32, order: Order) -> bool {
        run_words(bit, order).any(|(w, mask)| self.local_word(block, w).load() & mask != 0)
    }

    /// Whether any page of a run was freed remotely and not absorbed yet. A block that is not
    /// pending has no such page.
    #[inline]
    pub(super) fn any_remote(&self, block: BlockIdx, bit: u32, order: Order) -> bool {
        let first = self.first_word(block);
        self.public[self.slot(block)].pending.load() != 0
            && run_words(bit, order).any(|(w, mask)| self.remote[first + w].load() & mask != 0)
    }

    /// Sets the local bits of a run. By the holder of the set. Returns how many local bits are set
    /// now; `None`, with nothing changed, if a page of the run is free already.
    #[inline]
    pub(super) fn put_run(&self, block: BlockIdx, bit: u32, order: Order) -> Option<u32> {
        if order.get() <= WORD_ORDER {
            let word = self.local_word(block, (bit >> WORD_ORDER) as usize);
            let mask = run_mask(bit % 64, order);
            let bits = word.load();
            if bits & mask != 0 {
                return None;
            }
            word.store(bits | mask);
        } else {
            if self.any_local(block, bit, order) {
                return None;
            }
            for (w, mask) in run_words(bit, order) {
                self.local_word(block, w).store(mask);
            }
        }
        let nr_free = &self.private[self.slot(block)].nr_free;
        let now = nr_free.load().wrapping_add(order.pages());
        nr_free.store(now);
        Some(now)
    }

    /// Whether any page of a run of `2^order` pages, `order` at most 6, is free locally. From anywhere:
    /// the bits of pages in use are stable.
    #[inline(always)]
    pub(super) fn any_local_in_word(&self, page: PageIdx, order: Order) -> bool {
        let mask = run_mask(page.0 % 64, order);
        self.local[page.idx() >> WORD_ORDER].load() & mask != 0
    }

    /// Sets the remote bits of a run of `2^order` pages, `order` at most 6. From anywhere. Returns false,
    /// with nothing changed, if one was set already.
    #[inline(always)]
    #[must_use]
    pub(super) fn put_remote_in_word(&self, page: PageIdx, order: Order) -> bool {
        let word = &self.remote[page.idx() >> WORD_ORDER];
        let mask = run_mask(page.0 % 64, order);
        if order == Order::ZERO {
            // Asked at once, the machine sets and tests the bit in one go.
            return word.or(mask) & mask == 0;
        }
        put_all(word, mask)
    }

    /// Sets the remote bits of a run. From anywhere. Returns false if one was set already: a double
    /// free by two CPUs at once, which only the atomic operation sees. Nothing has changed then, unless
    /// the other one has freed a part of the run only: what comes before that part is free.
    #[inline]
    #[must_use]
    pub(super) fn put_remote(&self, block: BlockIdx, bit: u32, order: Order) -> bool {
        let first = self.first_word(block);
        run_words(bit, order).all(|(w, mask)| put_all(&self.remote[first + w], mask))
    }

    /// Moves the remote bits of a block to the local ones, and shows them by words, each with its first
    /// page. By the holder of its set. Returns the number of pages, and how many of them were free locally
    /// already: freed twice.
    ///
    /// At every moment a free page has one of its bits set at least, so that who looks from outside
    /// ([`Blocks::free_word`]) sees it.
    pub(super) fn absorb(&self, block: BlockIdx, mut each: impl FnMut(PageIdx, u64)) -> (u32, u32) {
        let first = self.first_word(block);
        let (mut absorbed, mut twice) = (0, 0);
        for w in first..first + self.words_per_block() {
            let bits = self.remote[w].load();
            if bits == 0 {
                continue;
            }
            let local = self.local[w].load();
            self.local[w].store(local | bits);
            // ORDERING: sees what the freers did with the pages before they freed them, and comes after the
            // local bits.
            self.remote[w].and(!bits);
            absorbed += (bits & !local).count_ones();
            twice += (bits & local).count_ones();
            // CAST: a word for 64 pages, whose indexes fit 32 bits.
            each(PageIdx((w as u32) << WORD_ORDER), bits);
        }
        let nr_free = &self.private[self.slot(block)].nr_free;
        nr_free.store(nr_free.load().wrapping_add(absorbed));
        (absorbed, twice)
    }

    /// Whether any remote bit is set.
    pub(super) fn has_remote(&self, block: BlockIdx) -> bool {
        let first = self.first_word(block);
        self.remote[first..first + self.words_per_block()]
            .iter()
            .any(|word| word.load() != 0)
    }

    /// The free pages of one word, local and remote. From anywhere.
    pub(super) fn free_word(&self, block: BlockIdx, w: usize) -> u64 {
        let w = self.first_word(block) + w;
        // ORDERING: remote before local: `absorb()` sets the local bits first.
        let remote = self.remote[w].load_acquire();
        remote | self.local[w].load()
    }

    /// Whether a block has an aligned run of `2^order` free pages, local or remote. A glance from outside.
    pub(super) fn has_free_run(&self, block: BlockIdx, order: Order) -> bool {
        let words = (0..self.words_per_block()).map(|w| self.free_word(block, w));
        find_run(words, order).is_some()
    }

    /// Clears the remote bits of a block of which every page is free: what two CPUs have freed at the same
    /// moment. Returns how many pages that is. By the holder of its set, or with the zone lock if it is in
    /// the zone.
    pub(super) fn clear_remote(&self, block: BlockIdx) -> u32 {
        let first = self.first_word(block);
        let words = self.remote[first..first + self.words_per_block()].iter();
        let stale = words.filter(|word| word.load() != 0);
        stale.map(|word| word.swap(0).count_ones()).sum()
    }

    /// Pages free both locally and remotely: there must be none.
    pub(super) fn overlap(&self, block: BlockIdx) -> u32 {
        let first = self.first_word(block);
        (first..first + self.words_per_block())
            .map(|w| (self.local[w].load() & self.remote[w].load()).count_ones())
            .sum()
    }

    /// Local bits that are set, counted one by one.
    pub(super) fn count_local(&self, block: BlockIdx) -> u32 {
        let first = self.first_word(block);
        self.local[first..first + self.words_per_block()]
            .iter()
            .map(|word| word.load().count_ones())
            .sum()
    }
}

/// Sets bits of a word unless one of them is set already. Returns whether it did.
#[inline]
fn put_all(word: &AtomicU64, mask: u64) -> bool {
    let mut bits = word.load();
    while bits & mask == 0 {
        match word.cmpxchg(bits, bits | mask) {
            Ok(_) => return true,
            Err(now) => bits = now,
        }
    }
    false
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_blocks))]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_packing() {
        for holder in [
            Holder::Hole,
            Holder::Zone,
            Holder::Given,
            Holder::Set(0),
            Holder::Set(77),
        ] {
            for mt in Migratetype::PCP {
                for cma in [false, true] {
                    let tag = Tag { holder, mt, cma };
                    assert_eq!(Tag::from_bits(tag.to_bits()), tag);
                }
            }
        }
    }

    #[test]
    fn a_block_gives_and_takes_runs_of_every_order() {
        let blocks = Blocks::new(2, Order::new(9)).unwrap();
        let block = BlockIdx(1);
        blocks.fill(block);
        for order in (0..=9).map(Order::new) {
            let bit = blocks.take_run(block, order).unwrap();
            assert_eq!(bit, 0);
            assert_eq!(blocks.nr_free(block), 512 - order.pages());
            assert_eq!(blocks.put_run(block, bit, order), Some(512));
            assert_eq!(blocks.put_run(block, bit, order), None);
        }
        assert_eq!(blocks.count_local(block), 512);
    }

    #[test]
    fn remote_frees_are_absorbed_and_double_ones_counted() {
        let blocks = Blocks::new(1, Order::new(9)).unwrap();
        let block = BlockIdx(0);
        blocks.fill(block);
        blocks.take_run(block, Order::new(7));
        assert!(blocks.put_remote(block, 0, Order::new(6)));
        assert!(!blocks.put_remote(block, 3, Order::ZERO));
        assert!(blocks.put_remote(block, 500, Order::ZERO));
        assert_eq!(blocks.absorb(block, |_, _| ()), (64, 1));
        assert_eq!(blocks.nr_free(block), 512 - 64);
        assert!(!blocks.has_remote(block));
    }
}
