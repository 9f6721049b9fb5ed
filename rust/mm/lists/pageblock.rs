// SPDX-License-Identifier: GPL-2.0

//! What is known of every pageblock: its migratetype, its owner, and its place on the owner's
//! recovery list (the `struct pageblock_data` of the RFC).
//!
//! Everything here is written under the zone lock. Migratetype and owner are read without it on the
//! free path: the owner of a block is stable for whoever holds a page of it, because it changes only
//! while the whole block is free; the migratetype is a hint that the zone reads again under its
//! lock.

use crate::mm::{
    platform::{Array, AtomicU32},
    types::{BlockIdx, CpuIdx, Migratetype, Order, PageIdx, Result, NO_PAGE, NR_MIGRATETYPES},
};

/// `kind` of a block that lies between two ranges and has no pages.
const HOLE: u32 = u32::MAX;

/// `recovery` of a block that is on no recovery list.
const UNLISTED: u32 = u32::MAX;

/// `owner` of a block that belongs to the zone.
const UNOWNED: u32 = u32::MAX;

struct Pageblock {
    /// Migratetype, or `HOLE`.
    kind: AtomicU32,
    /// Number of the owning CPU, or `UNOWNED`.
    owner: AtomicU32,
    /// Migratetype of the recovery list that the block is on, or `UNLISTED`.
    recovery: AtomicU32,
    next: AtomicU32,
    prev: AtomicU32,
}

/// All pageblocks of a zone.
pub(super) struct PageblockMap {
    blocks: Array<Pageblock>,
    order: Order,
}

impl PageblockMap {
    /// A map of `nr_blocks` holes.
    pub(super) fn new(nr_blocks: u32, order: Order) -> Result<PageblockMap> {
        let hole = |_| Pageblock {
            kind: AtomicU32::new(HOLE),
            owner: AtomicU32::new(UNOWNED),
            recovery: AtomicU32::new(UNLISTED),
            next: AtomicU32::new(NO_PAGE),
            prev: AtomicU32::new(NO_PAGE),
        };
        Ok(PageblockMap {
            blocks: Array::new(nr_blocks as usize, hole)?,
            order,
        })
    }

    /// Order of the blocks.
    #[inline]
    pub(super) fn order(&self) -> Order {
        self.order
    }

    /// Number of blocks, holes included.
    pub(super) fn nr_blocks(&self) -> u32 {
        // CAST: `new` was given a `u32`.
        self.blocks.len() as u32
    }

    /// Bytes that the map takes.
    pub(super) fn bytes(&self) -> u64 {
        (self.blocks.len() * size_of::<Pageblock>()) as u64
    }

    /// The block that contains a page.
    #[inline]
    pub(super) fn block_of(&self, page: PageIdx) -> BlockIdx {
        BlockIdx(page.0 >> self.order.get())
    }

    /// The first page of a block.
    #[inline]
    pub(super) fn first_page(&self, block: BlockIdx) -> PageIdx {
        PageIdx(block.0 << self.order.get())
    }

    /// The migratetype of a block; `None` for a hole.
    #[inline]
    pub(super) fn kind(&self, block: BlockIdx) -> Option<Migratetype> {
        match self.blocks[block.idx()].kind.load() {
            HOLE => None,
            kind => Some(Migratetype::from_bits(kind)),
        }
    }

    /// The migratetype of the block around a page of the zone.
    #[inline]
    pub(super) fn migratetype(&self, page: PageIdx) -> Migratetype {
        Migratetype::from_bits(self.blocks[self.block_of(page).idx()].kind.load())
    }

    /// The CPU that owns the block around a page.
    #[inline]
    pub(super) fn owner(&self, page: PageIdx) -> Option<CpuIdx> {
        match self.blocks[self.block_of(page).idx()].owner.load() {
            UNOWNED => None,
            cpu => Some(CpuIdx(cpu)),
        }
    }

    /// Whether the block is on its owner's recovery list.
    pub(super) fn is_recoverable(&self, block: BlockIdx) -> bool {
        self.blocks[block.idx()].recovery.load() != UNLISTED
    }

    /// Sets the type of a block that is on no recovery list. Under the zone lock.
    pub(super) fn set_migratetype(&self, block: BlockIdx, mt: Migratetype) {
        debug_assert!(!self.is_recoverable(block));
        self.blocks[block.idx()].kind.store(mt as u32);
    }

    /// Makes `cpu` the owner of an unowned block that is entirely free. Under the zone lock.
    pub(super) fn set_owner(&self, block: BlockIdx, cpu: CpuIdx) {
        debug_assert_eq!(self.blocks[block.idx()].owner.load(), UNOWNED);
        self.blocks[block.idx()].owner.store(cpu.0);
    }
}

/// Recovery lists of one CPU, one per migratetype of block: the blocks it owns that have fragments
/// in the zone. Under the zone lock. (One list in the RFC; its review asked for one per type.)
pub(super) struct RecoveryLists([u32; NR_MIGRATETYPES]);

impl RecoveryLists {
    pub(super) fn new() -> RecoveryLists {
        RecoveryLists([NO_PAGE; NR_MIGRATETYPES])
    }

    /// The first block on the list of a type.
    pub(super) fn first(&self, mt: Migratetype) -> Option<BlockIdx> {
        let block = self.0[mt.idx()];
        (block != NO_PAGE).then_some(BlockIdx(block))
    }

    /// The block behind `block` on its list.
    pub(super) fn next(&self, blocks: &PageblockMap, block: BlockIdx) -> Option<BlockIdx> {
        let next = blocks.blocks[block.idx()].next.load();
        (next != NO_PAGE).then_some(BlockIdx(next))
    }

    /// Puts a block of this CPU at the head of the list of its type, if it is on none yet.
    pub(super) fn insert(&mut self, blocks: &PageblockMap, block: BlockIdx) {
        if blocks.is_recoverable(block) {
            return;
        }
        let entry = &blocks.blocks[block.idx()];
        let mt = Migratetype::from_bits(entry.kind.load());
        let head = core::mem::replace(&mut self.0[mt.idx()], block.0);
        entry.recovery.store(mt as u32);
        entry.prev.store(NO_PAGE);
        entry.next.store(head);
        if head != NO_PAGE {
            blocks.blocks[head as usize].prev.store(block.0);
        }
    }

    /// Takes a block off the list that it is on, if any. The lists are those of its owner.
    pub(super) fn remove(&mut self, blocks: &PageblockMap, block: BlockIdx) {
        let entry = &blocks.blocks[block.idx()];
        let mt = match entry.recovery.load() {
            UNLISTED => return,
            mt => Migratetype::from_bits(mt),
        };
        let (prev, next) = (entry.prev.load(), entry.next.load());
        match prev {
            NO_PAGE => self.0[mt.idx()] = next,
            prev => blocks.blocks[prev as usize].next.store(next),
        }
        if next != NO_PAGE {
            blocks.blocks[next as usize].prev.store(prev);
        }
        entry.recovery.store(UNLISTED);
    }
}

/// Recovery lists of all CPUs: the one place that knows which CPU's lists a block is on.
pub(super) struct Recovery(Array<RecoveryLists>);

impl Recovery {
    pub(super) fn new(nr_cpus: u32) -> Result<Recovery> {
        Ok(Recovery(Array::new(nr_cpus as usize, |_| {
            RecoveryLists::new()
        })?))
    }

    /// The lists of one CPU.
    pub(super) fn of(&mut self, cpu: CpuIdx) -> &mut RecoveryLists {
        &mut self.0[cpu.idx()]
    }

    /// Remembers that a block of `cpu` has fragments in the zone.
    pub(super) fn insert(&mut self, blocks: &PageblockMap, cpu: CpuIdx, block: BlockIdx) {
        self.0[cpu.idx()].insert(blocks, block);
    }

    /// Takes a block off its owner's lists and makes it unowned. Returns whether it had an owner.
    /// The block is entirely free in the zone.
    pub(super) fn disown(&mut self, blocks: &PageblockMap, block: BlockIdx) -> bool {
        let Some(cpu) = blocks.owner(blocks.first_page(block)) else {
            return false;
        };
        self.0[cpu.idx()].remove(blocks, block);
        blocks.blocks[block.idx()].owner.store(UNOWNED);
        true
    }

    /// Changes the type of a block, moving it to the matching recovery list of its owner.
    pub(super) fn retype(&mut self, blocks: &PageblockMap, block: BlockIdx, mt: Migratetype) {
        let owner = blocks.owner(blocks.first_page(block));
        let listed = blocks.is_recoverable(block);
        match owner {
            Some(cpu) if listed => {
                self.0[cpu.idx()].remove(blocks, block);
                blocks.set_migratetype(block, mt);
                self.0[cpu.idx()].insert(blocks, block);
            }
            _ => blocks.set_migratetype(block, mt),
        }
    }
}
