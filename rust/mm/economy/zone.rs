// SPDX-License-Identifier: GPL-2.0

//! The economy's zone: a bitmap of free whole blocks, and nothing else.
//!
//! The zone lock protects the bitmaps and the tags of blocks that they list. Blocks are grouped by
//! [`GROUP_BLOCKS`], with 2 MiB blocks a superpageblock of 1 GiB; runs of blocks never cross groups.

use super::{
    bits::{find_run, run_words},
    blocks::{Blocks, Holder},
};
use crate::mm::{
    lock::{CountedGuard, CountedLocks},
    platform::{Array, AtomicU64, Irq, LockClass},
    types::{BlockIdx, Order, Result},
};

/// Blocks in a group, as an order.
pub(super) const GROUP_ORDER: Order = Order::new(9);

/// Blocks in a group.
const GROUP_BLOCKS: u32 = GROUP_ORDER.pages();

const GROUP_WORDS: usize = GROUP_BLOCKS as usize / 64;

/// Free blocks of one kind.
struct FreeMap {
    words: Array<u64>,
    /// Free blocks per group.
    per_group: Array<u32>,
    nr_free: u32,
}

impl FreeMap {
    fn new(nr_groups: usize) -> Result<FreeMap> {
        Ok(FreeMap {
            words: Array::new(nr_groups * GROUP_WORDS, |_| 0)?,
            per_group: Array::new(nr_groups, |_| 0)?,
            nr_free: 0,
        })
    }

    fn put(&mut self, block: BlockIdx) {
        let (w, mask) = (block.idx() / 64, 1 << (block.0 % 64));
        debug_assert_eq!(self.words[w] & mask, 0);
        self.words[w] |= mask;
        self.per_group[(block.0 / GROUP_BLOCKS) as usize] += 1;
        self.nr_free += 1;
    }

    /// Takes an aligned run of `2^order` blocks out of the fullest group that has one: groups that
    /// are nearly empty stay so and can serve the largest orders.
    fn take_run(&mut self, order: Order) -> Option<BlockIdx> {
        let nr_groups = self.per_group.len();
        let mut tried_free = 0;
        loop {
            // The next group by number of free blocks. Bounded: `tried_free` grows in each turn.
            let least = (0..nr_groups)
                .map(|group| self.per_group[group])
                .filter(|&free| free >= order.pages() && free > tried_free)
                .min()?;
            for group in (0..nr_groups).filter(|&group| self.per_group[group] == least) {
                let base = group * GROUP_WORDS;
                let words = self.words[base..base + GROUP_WORDS].iter().copied();
                if let Some(unit) = find_run(words, order) {
                    self.take(group, unit, order);
                    // CAST: block numbers fit 32 bits.
                    return Some(BlockIdx(group as u32 * GROUP_BLOCKS + unit));
                }
            }
            tried_free = least;
        }
    }

    /// Takes the run of `2^order` blocks that begins with `first`, if all of them are free.
    fn take_run_at(&mut self, first: BlockIdx, order: Order) -> bool {
        let (group, unit) = ((first.0 / GROUP_BLOCKS) as usize, first.0 % GROUP_BLOCKS);
        let base = group * GROUP_WORDS;
        let free = run_words(unit, order).all(|(w, mask)| self.words[base + w] & mask == mask);
        if free {
            self.take(group, unit, order);
        }
        free
    }

    /// Takes a free run of `2^order` blocks of a group.
    fn take(&mut self, group: usize, unit: u32, order: Order) {
        for (w, mask) in run_words(unit, order) {
            self.words[group * GROUP_WORDS + w] &= !mask;
        }
        self.per_group[group] -= order.pages();
        self.nr_free -= order.pages();
    }

    fn has(&self, block: BlockIdx) -> bool {
        (self.words[block.idx() / 64] >> (block.0 % 64)) & 1 == 1
    }
}

/// What the zone lock protects.
pub(super) struct FreeBlocks {
    plain: FreeMap,
    cma: FreeMap,
}

/// The zone of an economy.
pub(super) struct Zone {
    lock: CountedLocks<FreeBlocks>,
    /// Copy of the number of free blocks, for readers without the lock.
    nr_free: AtomicU64,
}

/// The zone with its lock held.
pub(super) struct ZoneGuard<'a> {
    zone: &'a Zone,
    free: CountedGuard<'a, FreeBlocks>,
}

impl Zone {
    pub(super) fn new(nr_blocks: u32) -> Result<Zone> {
        let nr_groups = nr_blocks.div_ceil(GROUP_BLOCKS) as usize;
        let mut free = Some(FreeBlocks {
            plain: FreeMap::new(nr_groups)?,
            cma: FreeMap::new(nr_groups)?,
        });
        // The closure runs once, for the one lock.
        let lock = CountedLocks::new(1, LockClass::Zone, |_| free.take().expect("one zone lock"))?;
        Ok(Zone {
            lock,
            nr_free: AtomicU64::new(0),
        })
    }

    /// Bytes of the bitmaps and counts for that many blocks.
    pub(super) fn bytes(nr_blocks: u32) -> u64 {
        let nr_groups = u64::from(nr_blocks.div_ceil(GROUP_BLOCKS));
        2 * nr_groups * (GROUP_WORDS as u64 * 8 + 4)
    }

    /// Takes the zone lock.
    pub(super) fn lock(&self) -> ZoneGuard<'_> {
        ZoneGuard {
            zone: self,
            free: self.lock.lock(0, Irq::Save),
        }
    }

    /// Takes the zone lock uncounted, for reports.
    pub(super) fn inspect(&self) -> CountedGuard<'_, FreeBlocks> {
        self.lock.inspect(0)
    }

    /// The lock, for its figures.
    pub(super) fn locks(&self) -> &CountedLocks<FreeBlocks> {
        &self.lock
    }

    /// Free blocks in the zone; a glance without the lock.
    #[inline]
    pub(super) fn nr_free(&self) -> u64 {
        self.nr_free.load()
    }
}

impl ZoneGuard<'_> {
    fn publish(&self) {
        let free = u64::from(self.free.plain.nr_free) + u64::from(self.free.cma.nr_free);
        self.zone.nr_free.store(free);
    }

    /// Whether movable requests should take CMA blocks first: when they are more than half of what
    /// is free.
    fn prefers_cma(&self) -> bool {
        self.free.cma.nr_free > self.free.plain.nr_free
    }

    /// Puts a whole block back. All its local bits are set.
    pub(super) fn put(&mut self, blocks: &Blocks, block: BlockIdx) {
        blocks.set_holder(block, Holder::Zone);
        match blocks.tag(block).cma {
            true => self.free.cma.put(block),
            false => self.free.plain.put(block),
        }
        self.publish();
    }

    /// Takes the run of `2^order` whole blocks that begins with `first`, if all of them are here, and all of
    /// CMA type or none. The caller tags them.
    pub(super) fn take_run_at(&mut self, first: BlockIdx, order: Order) -> bool {
        let free = &mut *self.free;
        let taken = free.plain.take_run_at(first, order) || free.cma.take_run_at(first, order);
        self.publish();
        taken
    }

    /// Takes a run of `2^order` whole blocks, from CMA ones too if `may_use_cma`. The caller tags
    /// them.
    pub(super) fn take_run(&mut self, order: Order, may_use_cma: bool) -> Option<BlockIdx> {
        let run = if may_use_cma && self.prefers_cma() {
            (self.free.cma.take_run(order)).or_else(|| self.free.plain.take_run(order))
        } else if may_use_cma {
            (self.free.plain.take_run(order)).or_else(|| self.free.cma.take_run(order))
        } else {
            self.free.plain.take_run(order)
        };
        self.publish();
        run
    }
}

impl FreeBlocks {
    /// Whether the zone lists a block as free.
    pub(super) fn lists(&self, block: BlockIdx) -> bool {
        self.plain.has(block) || self.cma.has(block)
    }

    /// Free blocks according to the counters.
    pub(super) fn nr_free(&self) -> u32 {
        self.plain.nr_free + self.cma.nr_free
    }
}
