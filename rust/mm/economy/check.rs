// SPDX-License-Identifier: GPL-2.0

//! Recounts and reports: everything is read off the bitmaps, so no free page can escape a count.
//!
//! The invariants are those of [the parent module](super). To be called while nothing runs.

use super::{
    bits::{find_run, run_mask},
    blocks::{Holder, NO_BLOCK},
    set::is_current,
    zone::Zone,
    Economy,
};
use crate::mm::{
    types::{BlockIdx, CpuIdx, Migratetype, Order, PageIdx},
    BlockInfo, FreeChunks, Place, Report, Tuning, Violation,
};

type Checked = core::result::Result<(), Violation>;

fn expect(what: &'static str, at: BlockIdx, expected: u32, found: u32) -> Checked {
    if expected == found {
        return Ok(());
    }
    Err(Violation {
        what,
        at: at.0,
        expected: expected.into(),
        found: found.into(),
    })
}

impl Economy {
    fn all_blocks(&self) -> impl Iterator<Item = BlockIdx> {
        (0..self.blocks.nr_blocks()).map(BlockIdx)
    }

    /// Free pages of a block, local and remote.
    fn free_in(&self, block: BlockIdx) -> u32 {
        match self.blocks.tag(block).holder {
            Holder::Given | Holder::Hole => 0,
            Holder::Zone | Holder::Set(_) => self.bits_of(block),
        }
    }

    /// Bits of a block that are set, local or remote.
    fn bits_of(&self, block: BlockIdx) -> u32 {
        let words = 0..self.blocks.words_per_block();
        words
            .map(|w| self.blocks.free_word(block, w).count_ones())
            .sum()
    }

    /// E1, E3, E4, E5 for one block.
    fn check_block(&self, block: BlockIdx, zone_lists: bool) -> Checked {
        let blocks = &self.blocks;
        let whole = blocks.order().pages();
        let local = blocks.count_local(block);
        let holder = blocks.tag(block).holder;
        if !is_current(blocks, block) {
            expect("E1 local bits, block", block, blocks.nr_free(block), local)?;
        }
        // A double free may have left something behind, which goes before the block is used again.
        let is_whole = local == whole;
        if blocks.pending(block).load() == 0 && !is_whole {
            let twice = blocks.overlap(block);
            expect("E1 pages free twice, block", block, 0, twice)?;
        }
        let in_zone = holder == Holder::Zone;
        expect(
            "E3 block listed by the zone, block",
            block,
            in_zone.into(),
            zone_lists.into(),
        )?;
        let bits = self.bits_of(block);
        match holder {
            Holder::Zone => expect(
                "E3 free pages of a block in the zone, block",
                block,
                whole,
                local,
            )?,
            Holder::Given => expect(
                "E4 local bits of a block given out, block",
                block,
                whole,
                bits,
            )?,
            Holder::Hole => expect("E4 free pages of a hole, block", block, 0, bits)?,
            Holder::Set(_) => {}
        }
        let needs_push = blocks.has_remote(block) && blocks.pending(block).load() == 0 && !is_whole;
        expect(
            "E5 remote frees that nobody was told of, block",
            block,
            0,
            needs_push.into(),
        )
    }

    /// E5: as many blocks are pending as are on stacks.
    fn check_pending(&self) -> Checked {
        let marked = self
            .all_blocks()
            .filter(|&block| self.blocks.pending(block).load() != 0)
            .count();
        let mut stacked = 0;
        // CAST: few sets.
        for set in 0..self.sets.len() as u32 {
            let mut cursor = self.pending.first(set);
            while cursor != NO_BLOCK && stacked <= self.blocks.nr_blocks() {
                stacked += 1;
                cursor = self.blocks.pending_next(BlockIdx(cursor)).load();
            }
        }
        // CAST: as many blocks as there are.
        expect(
            "E5 blocks on pending stacks, from block",
            BlockIdx(0),
            marked as u32,
            stacked,
        )
    }

    /// Counts the aligned free chunks of a block below its own order, largest first.
    fn add_chunks(&self, block: BlockIdx, row: &mut [u64]) {
        let nr_words = self.blocks.words_per_block();
        let mut words = [0; 16];
        for (w, word) in words.iter_mut().enumerate().take(nr_words) {
            *word = self.blocks.free_word(block, w);
        }
        let words = &mut words[..nr_words];
        for order in (6..=self.blocks.order().get()).rev() {
            for run in words.chunks_mut(1 << (order - 6)) {
                if run.iter().all(|&word| word == !0) {
                    row[order as usize] += 1;
                    run.fill(0);
                }
            }
        }
        for word in words {
            for order in (0..6).rev().map(Order::new) {
                while let Some(bit) = find_run([*word].into_iter(), order) {
                    row[order.idx()] += 1;
                    *word &= !run_mask(bit, order);
                }
            }
        }
    }

    /// Counts the aligned runs of whole blocks in the zone.
    fn add_zone_chunks(&self, chunks: &mut FreeChunks) {
        let in_zone = |block: u32, cma: bool| {
            block < self.blocks.nr_blocks() && {
                let tag = self.blocks.tag(BlockIdx(block));
                tag.holder == Holder::Zone && tag.cma == cma
            }
        };
        let mut block = 0;
        while block < self.blocks.nr_blocks() {
            let cma = self.blocks.tag(BlockIdx(block)).cma;
            let run = (0..=self.max_order.get() - self.blocks.order().get())
                .rev()
                .map(Order::new)
                .find(|order| {
                    block % order.pages() == 0
                        && (block..block + order.pages()).all(|b| in_zone(b, cma))
                });
            block += run.map_or(1, Order::pages);
            if let Some(order) = run {
                let mt = if cma {
                    Migratetype::Cma
                } else {
                    Migratetype::Movable
                };
                chunks[mt.idx()][self.blocks.order().idx() + order.idx()] += 1;
            }
        }
    }

    fn set_chunks(&self, set: u32) -> FreeChunks {
        let mut chunks = FreeChunks::default();
        for block in self.all_blocks() {
            let tag = self.blocks.tag(block);
            if tag.holder == Holder::Set(set) {
                self.add_chunks(block, &mut chunks[tag.mt.idx()]);
            }
        }
        chunks
    }
}

impl Report for Economy {
    fn range_base(&self, i: usize) -> PageIdx {
        self.range_bases[i]
    }

    fn managed_pages(&self) -> u64 {
        self.managed_pages
    }

    fn free_pages(&self) -> u64 {
        self.all_blocks()
            .map(|block| u64::from(self.free_in(block)))
            .sum()
    }

    fn uncounted_free_pages(&self) -> u64 {
        0
    }

    fn metadata_bytes(&self) -> u64 {
        self.blocks.bytes() + self.hot.bytes() + Zone::bytes(self.blocks.nr_blocks())
    }

    fn last_refused_free(&self) -> Option<(PageIdx, CpuIdx)> {
        let word = self.last_refused.load().checked_sub(1)?;
        // CAST: packed by `refuse()`.
        Some((PageIdx((word >> 32) as u32), CpuIdx(word as u32)))
    }

    fn free_chunks(&self, place: Place) -> FreeChunks {
        match place {
            Place::Cpu(cpu) => self.set_chunks(cpu.0),
            Place::Shared => self.set_chunks(self.shared_id()),
            Place::Zone => {
                let mut chunks = FreeChunks::default();
                self.add_zone_chunks(&mut chunks);
                chunks
            }
        }
    }

    fn nr_blocks(&self) -> u32 {
        self.blocks.nr_blocks()
    }

    fn block_info(&self, block: BlockIdx) -> Option<BlockInfo> {
        let tag = self.blocks.tag(block);
        let free = self.free_in(block);
        let (owner, in_zone) = match tag.holder {
            Holder::Hole => return None,
            Holder::Zone => (None, true),
            Holder::Set(set) if set != self.shared_id() => (Some(CpuIdx(set)), false),
            Holder::Set(_) | Holder::Given => (None, false),
        };
        Some(BlockInfo {
            migratetype: if tag.cma { Migratetype::Cma } else { tag.mt },
            owner,
            free_zone_pages: if in_zone { free } else { 0 },
            free_pcp_pages: if in_zone { 0 } else { free },
            recoverable: false,
        })
    }

    fn tuning(&self, cpu: CpuIdx) -> Tuning {
        let pages = |blocks: u32| blocks << self.blocks.order().get();
        Tuning {
            count: pages(self.sets[cpu.idx()].nr_whole()),
            batch: pages(self.batch),
            high: pages(self.high),
            high_min: pages(self.high),
            high_max: pages(self.high),
        }
    }

    fn check(&self) -> Checked {
        {
            let zone = self.zone.inspect();
            let mut in_zone = 0;
            for block in self.all_blocks() {
                let listed = zone.lists(block);
                in_zone += u32::from(listed);
                self.check_block(block, listed)?;
            }
            expect(
                "E3 free blocks of the zone, from block",
                BlockIdx(0),
                zone.nr_free(),
                in_zone,
            )?;
        }
        // CAST: published from a `u32`.
        let published = self.zone.nr_free() as u32;
        let counted = self.zone.inspect().nr_free();
        expect(
            "E3 published free blocks, from block",
            BlockIdx(0),
            counted,
            published,
        )?;
        self.check_pending()?;
        for cpu in (0..self.shared_id()).map(CpuIdx) {
            self.seize(cpu, cpu).check_lists()?;
        }
        self.inspect_shared().check_lists()
    }
}
