// SPDX-License-Identifier: GPL-2.0

//! Allocated chunks as workers keep them, 8 or 16 bytes each, and the stamps by which they are known.

use super::{
    rng::mix,
    Machine,
    Memory,
    PAGE_WORDS, //
};
use crate::mm::{
    platform::{
        Array,
        AtomicU32,
        AtomicU64, //
    },
    types::{
        Order,
        Result,
        MAX_ORDER, //
    },
};

/// Bits of a tag, from the lowest: order, worker, sequence number. A stamp has the offset of the
/// page in place of the order.
const LOW_BITS: u32 = 18;
const WORKER_BITS: u32 = 10;

const _: () = assert!(1 << WORKER_BITS >= super::cpus::MAX_CPUS);

/// What is known of an allocated chunk besides its page: the order, who allocated it, as which of
/// its chunks. The tags of a run differ from each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag(u64);

impl Tag {
    pub(super) fn new(worker: usize, sequence: u64, order: Order) -> Tag {
        let who = (sequence << WORKER_BITS) | worker as u64;
        Tag((who << LOW_BITS) | u64::from(order.get()))
    }

    #[inline]
    pub(super) fn order(self) -> Order {
        // CAST: an order was put in here.
        Order::new(self.0 as u8)
    }

    /// The stamp of page `nr` of the chunk. `mix` is a bijection, so no two pages of a run that
    /// are allocated at the same time have the same.
    pub(super) fn stamp(self, seed: u64, nr: u32) -> u64 {
        mix(mix(seed) ^ ((self.0 >> LOW_BITS << LOW_BITS) | u64::from(nr)))
    }
}

/// An allocated chunk.
#[derive(Clone, Copy)]
pub(super) struct Chunk<P> {
    pub(super) page: P,
    pub(super) tag: Tag,
}

impl<P: Copy> Chunk<P> {
    /// Writes the stamp of each page into its first and last word.
    pub(super) fn stamp(&self, memory: &impl Memory<P>, seed: u64) {
        for nr in 0..self.tag.order().pages() {
            let stamp = self.tag.stamp(seed, nr);
            memory.write_word(self.page, nr, 0, stamp);
            memory.write_word(self.page, nr, PAGE_WORDS - 1, stamp);
        }
    }

    /// How many pages have not kept their stamp.
    pub(super) fn wrong_stamps(&self, memory: &impl Memory<P>, seed: u64) -> u64 {
        let wrong = |nr| {
            let stamp = self.tag.stamp(seed, nr);
            let read = |word| memory.read_word(self.page, nr, word);
            u64::from(read(0) != stamp || read(PAGE_WORDS - 1) != stamp)
        };
        (0..self.tag.order().pages()).map(wrong).sum()
    }
}

/// Whether a chunk of `order` is aligned to its size in memory; one that was allocated as a run of pages
/// to `2^MAX_ORDER` pages at most.
pub(super) fn is_aligned<P: Copy>(
    memory: &impl Memory<P>,
    page: P,
    order: Order,
    run: bool,
) -> bool {
    let least = match run {
        true => order.min(Order::new(MAX_ORDER)),
        false => order,
    };
    memory.is_aligned(page, least)
}

/// Places for chunks that several CPUs can reach. Where all chunks of a run have the same order and
/// nobody checks stamps, a chunk is its page and takes 8 bytes, so that handing it over costs little
/// beside freeing it; else 16.
pub(super) struct Cells {
    pages: Array<AtomicU64>,
    /// Empty where `alike` says it all.
    tags: Array<AtomicU64>,
    alike: Option<Tag>,
}

impl Cells {
    /// `len` places. `alike` is the order of all chunks, if tags need not be kept.
    pub(super) fn new(len: usize, alike: Option<Order>) -> Result<Cells> {
        let nr_tags = if alike.is_some() { 0 } else { len };
        Ok(Cells {
            pages: Array::new(len, |_| AtomicU64::new(0))?,
            tags: Array::new(nr_tags, |_| AtomicU64::new(0))?,
            alike: alike.map(|order| Tag::new(0, 0, order)),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    #[inline]
    pub(super) fn put<P: Copy, M: Machine<P>>(&self, i: usize, chunk: Chunk<P>) {
        self.pages[i].store(M::to_bits(chunk.page));
        if self.alike.is_none() {
            self.tags[i].store(chunk.tag.0);
        }
    }

    #[inline]
    pub(super) fn get<P: Copy, M: Machine<P>>(&self, i: usize) -> Chunk<P> {
        Chunk {
            page: M::from_bits(self.pages[i].load()),
            tag: self.alike.unwrap_or_else(|| Tag(self.tags[i].load())),
        }
    }
}

/// Cells in a segment.
pub(super) const SEGMENT: usize = 512;

/// The store of the sets that workers build: segments for whoever needs them, because nobody
/// knows how much of a zone each CPU will get.
pub(super) struct Pool {
    cells: Cells,
    /// Segments given out.
    taken: AtomicU32,
}

impl Pool {
    /// Room for that many segments; `alike` as for [`Cells::new`].
    pub(super) fn new(segments: usize, alike: Option<Order>) -> Result<Pool> {
        Ok(Pool {
            cells: Cells::new(segments * SEGMENT, alike)?,
            taken: AtomicU32::new(0),
        })
    }

    pub(super) fn segments(&self) -> usize {
        self.cells.len() / SEGMENT
    }

    fn take(&self) -> Option<u32> {
        let mut seen = self.taken.load();
        while (seen as usize) < self.segments() {
            match self.taken.cmpxchg(seen, seen + 1) {
                Ok(_) => return Some(seen),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Takes all segments back. To be called when no set has any of them.
    pub(super) fn reset(&self) {
        self.taken.store(0);
    }
}

/// A set of chunks that one worker builds and frees.
pub(super) struct Set {
    /// Numbers of the segments that this set has got, the first `nr_segments`.
    segments: Array<u32>,
    nr_segments: usize,
    len: usize,
}

impl Set {
    /// A set that grows up to `max` chunks.
    pub(super) fn new(max: usize) -> Result<Set> {
        Ok(Set {
            segments: Array::new(max.div_ceil(SEGMENT), |_| 0)?,
            nr_segments: 0,
            len: 0,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes sure that there is room for one more chunk; false if there is none to be had.
    #[inline]
    pub(super) fn reserve(&mut self, pool: &Pool) -> bool {
        if self.len < self.nr_segments * SEGMENT {
            return true;
        }
        self.grow(pool)
    }

    #[cold]
    fn grow(&mut self, pool: &Pool) -> bool {
        let Some(place) = self.segments.get_mut(self.nr_segments) else {
            return false;
        };
        let Some(segment) = pool.take() else {
            return false;
        };
        *place = segment;
        self.nr_segments += 1;
        true
    }

    /// Place of chunk `i`, below what was reserved, in the pool.
    #[inline]
    fn place(&self, i: usize) -> usize {
        self.segments[i / SEGMENT] as usize * SEGMENT + i % SEGMENT
    }

    /// Chunk `i`, which has been added.
    #[inline]
    pub(super) fn get<P: Copy, M: Machine<P>>(&self, pool: &Pool, i: usize) -> Chunk<P> {
        pool.cells.get::<P, M>(self.place(i))
    }

    /// Adds a chunk, for which room has been reserved.
    #[inline]
    pub(super) fn push<P: Copy, M: Machine<P>>(&mut self, pool: &Pool, chunk: Chunk<P>) {
        pool.cells.put::<P, M>(self.place(self.len), chunk);
        self.len += 1;
    }

    /// Forgets the chunks, which have been freed; keeps the segments.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Forgets the segments too, which go back by [`Pool::reset`].
    pub(super) fn release(&mut self) {
        self.clear();
        self.nr_segments = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_never_repeat() {
        let mut seen = std::collections::HashSet::new();
        for worker in [0, 1, 1023] {
            for sequence in 0..50 {
                let tag = Tag::new(worker, sequence, Order::new(3));
                assert_eq!(tag.order(), Order::new(3));
                assert!((0..8).all(|nr| seen.insert(tag.stamp(7, nr))));
            }
        }
        let tag = Tag::new(0, 0, Order::ZERO);
        assert!(tag.stamp(1, 0) != tag.stamp(2, 0));
    }

    #[test]
    fn pool_gives_each_segment_once() {
        let pool = Pool::new(3, None).unwrap();
        let (mut a, mut b) = (Set::new(10_000).unwrap(), Set::new(SEGMENT).unwrap());
        assert!(a.reserve(&pool) && b.reserve(&pool));
        assert!(a.place(0) != b.place(0));
        a.len = SEGMENT;
        b.len = SEGMENT;
        assert!(!b.reserve(&pool), "b may have one segment");
        assert!(a.reserve(&pool));
        a.len = 2 * SEGMENT;
        assert!(!a.reserve(&pool), "the pool is empty");
        a.release();
        b.release();
        pool.reset();
        assert!(b.reserve(&pool));
    }
}
