// SPDX-License-Identifier: GPL-2.0

//! Recounts everything from the lowest level up and compares it with the books; and the reports
//! that need the same walks.
//!
//! The invariants are numbered in [the parent module](super). To be called while nothing runs: locks are
//! taken one after the other, so pages on the move would be missed.

use super::{
    allocator::ListAllocator,
    free_area::{End, FreeArea},
    page_map::{Mergeable, State},
    zone::{chunks_of, ZoneState},
};
use crate::mm::{
    types::{BlockIdx, CpuIdx, Migratetype, Order, PageIdx, MAX_ORDER},
    BlockInfo, FreeChunks, ListPolicy, Place, Report, Tuning, Violation,
};

type Checked = core::result::Result<(), Violation>;

fn expect(what: &'static str, at: u32, expected: u64, found: u64) -> Checked {
    if expected == found {
        return Ok(());
    }
    Err(Violation {
        what,
        at,
        expected,
        found,
    })
}

/// Pages by state, from a walk over all pages.
#[derive(Default)]
struct Recount {
    zone: u64,
    pcp: u64,
    remote: u64,
    allocated: u64,
}

impl ListAllocator {
    /// I1, I2: every chunk on the lists of `area` has the matching state, and the counts are right. The
    /// lists are those of the set of `on_set`, or of the zone.
    fn check_lists(&self, area: &FreeArea, on_set: Option<CpuIdx>) -> Checked {
        let mut sum = 0;
        for order in Order::ZERO.upto(Order::new(MAX_ORDER)) {
            for mt in Migratetype::ALL {
                let mut len = 0;
                let mut cursor = area.peek(order, mt, End::Head);
                while let Some(page) = cursor {
                    self.check_entry(page, order, mt, on_set)?;
                    len += 1;
                    // A list that runs in a circle would never end.
                    if len > self.zone.pages.nr_pages() {
                        break;
                    }
                    cursor = area.next(&self.zone.pages, page);
                }
                expect(
                    "I1 length of a free list, order",
                    order.get().into(),
                    area.len(order, mt).into(),
                    len.into(),
                )?;
                sum += u64::from(len) << order.get();
            }
        }
        let at = on_set.map_or(u32::MAX, |cpu| cpu.0);
        expect(
            "I2 free pages on lists, CPU",
            at,
            area.nr_pages().into(),
            sum,
        )
    }

    fn check_entry(
        &self,
        page: PageIdx,
        order: Order,
        mt: Migratetype,
        on_set: Option<CpuIdx>,
    ) -> Checked {
        let state = self.zone.pages.state(page);
        match on_set {
            None => {
                let listed = state == State::Zone(order, mt);
                expect(
                    "I1 state of a chunk on a zone list, page",
                    page.0,
                    1,
                    listed.into(),
                )?;
                self.check_zone_chunk(page, order, mt)
            }
            Some(cpu) => {
                let (listed, home) = match state {
                    State::Pcp(o, t, mergeable) => {
                        ((o, t) == (order, mt), mergeable == Mergeable::Yes)
                    }
                    _ => (false, false),
                };
                expect(
                    "I1 state of a chunk on a set, page",
                    page.0,
                    1,
                    listed.into(),
                )?;
                let owned = self.zone.blocks.owner(page) == Some(cpu);
                expect(
                    "I3 mergeable chunk on a set that owns its block, page",
                    page.0,
                    1,
                    (!home || owned).into(),
                )
            }
        }
    }

    /// I4, I5: a chunk in the zone has the type of its block, is merged as far as it goes, and a
    /// whole block has no owner.
    fn check_zone_chunk(&self, page: PageIdx, order: Order, mt: Migratetype) -> Checked {
        let block = self.zone.blocks.block_of(page);
        let block_mt = self.zone.blocks.kind(block);
        expect(
            "I4 type of a free chunk and of its block, page",
            page.0,
            1,
            (block_mt == Some(mt)).into(),
        )?;
        if order < self.zone.blocks.order() {
            let buddy = self.zone.pages.state(page.buddy(order));
            let unmerged = buddy == State::Zone(order, mt);
            return expect(
                "I4 unmerged buddies in the zone, page",
                page.0,
                0,
                unmerged.into(),
            );
        }
        let nr_blocks = order.pages() >> self.zone.blocks.order().get();
        for block in (block.0..block.0 + nr_blocks).map(BlockIdx) {
            let owned = self
                .zone
                .blocks
                .owner(self.zone.blocks.first_page(block))
                .is_some();
            let listed = self.zone.blocks.is_recoverable(block);
            expect(
                "I5 owner of a whole block in the zone, block",
                block.0,
                0,
                owned.into(),
            )?;
            expect(
                "I5 recovery entry of a whole block, block",
                block.0,
                0,
                listed.into(),
            )?;
        }
        Ok(())
    }

    /// I6: every entry of a recovery list is a block of that CPU and type, and no block is on a
    /// list that does not lead to it.
    fn check_recovery(&self, state: &mut ZoneState) -> Checked {
        let blocks = &self.zone.blocks;
        let mut listed = 0;
        for cpu in (0..self.sets.count() as u32).map(CpuIdx) {
            let lists = state.recovery.of(cpu);
            for mt in Migratetype::ALL {
                let mut cursor = lists.first(mt);
                while let Some(block) = cursor {
                    let first = blocks.first_page(block);
                    let right = blocks.is_recoverable(block)
                        && blocks.owner(first) == Some(cpu)
                        && blocks.kind(block) == Some(mt);
                    expect(
                        "I6 block on a recovery list, block",
                        block.0,
                        1,
                        right.into(),
                    )?;
                    listed += 1;
                    if listed > blocks.nr_blocks() {
                        break;
                    }
                    cursor = lists.next(blocks, block);
                }
            }
        }
        let marked = (0..blocks.nr_blocks())
            .filter(|&block| blocks.is_recoverable(BlockIdx(block)))
            .count();
        expect(
            "I6 blocks marked as recoverable",
            0,
            listed.into(),
            marked as u64,
        )
    }

    /// I7: the chunks cover every page of the ranges exactly once.
    fn recount(&self) -> core::result::Result<Recount, Violation> {
        let mut count = Recount::default();
        let mut page = 0;
        while page < self.zone.pages.nr_pages() {
            let this = PageIdx(page);
            if self
                .zone
                .blocks
                .kind(self.zone.blocks.block_of(this))
                .is_none()
            {
                page += self.zone.blocks.order().pages();
                continue;
            }
            let (order, sum) = match self.zone.pages.state(this) {
                State::Zone(order, _) => (order, &mut count.zone),
                State::Pcp(order, _, _) => (order, &mut count.pcp),
                State::Remote(order) => (order, &mut count.remote),
                State::Allocated(order, _) => (order, &mut count.allocated),
                State::Inner => {
                    return Err(Violation {
                        what: "I7 page that belongs to no chunk, page",
                        at: page,
                        expected: 1,
                        found: 0,
                    })
                }
            };
            *sum += u64::from(order.pages());
            for inner in page + 1..page + order.pages() {
                let head = self.zone.pages.state(PageIdx(inner)) != State::Inner;
                expect("I7 chunk inside a chunk, page", inner, 0, head.into())?;
            }
            page += order.pages();
        }
        Ok(count)
    }
}

impl Report for ListAllocator {
    fn range_base(&self, i: usize) -> PageIdx {
        self.range_bases[i]
    }

    fn managed_pages(&self) -> u64 {
        self.managed_pages
    }

    fn free_pages(&self) -> u64 {
        let on_sets = |cpu| u64::from(self.sets.inspect(cpu).count());
        self.zone.nr_free() + (0..self.sets.count()).map(on_sets).sum::<u64>()
    }

    fn uncounted_free_pages(&self) -> u64 {
        if self.policy != ListPolicy::Split {
            return 0;
        }
        let remote = |page| match self.zone.pages.state(PageIdx(page)) {
            State::Remote(order) => u64::from(order.pages()),
            _ => 0,
        };
        (0..self.zone.pages.nr_pages()).map(remote).sum()
    }

    fn metadata_bytes(&self) -> u64 {
        self.zone.pages.bytes() + self.zone.blocks.bytes()
    }

    fn free_chunks(&self, place: Place) -> FreeChunks {
        match place {
            Place::Zone => self.zone.inspect().free.chunks(),
            Place::Cpu(cpu) => self.sets.inspect(cpu.idx()).free.chunks(),
            Place::Shared => FreeChunks::default(),
        }
    }

    fn nr_blocks(&self) -> u32 {
        self.zone.blocks.nr_blocks()
    }

    fn block_info(&self, block: BlockIdx) -> Option<BlockInfo> {
        let blocks = &self.zone.blocks;
        let mut info = BlockInfo {
            migratetype: blocks.kind(block)?,
            owner: blocks.owner(blocks.first_page(block)),
            free_zone_pages: 0,
            free_pcp_pages: 0,
            recoverable: blocks.is_recoverable(block),
        };
        let whole = blocks.order().pages();
        // A chunk of several blocks has its head in the first of them.
        let in_larger_chunk = blocks.order().upto(Order::new(MAX_ORDER)).any(|order| {
            let head = blocks.first_page(block).align_down(order);
            matches!(self.zone.pages.state(head), State::Zone(o, _) if o >= order)
        });
        if in_larger_chunk {
            info.free_zone_pages = whole;
            return Some(info);
        }
        for (_, state) in chunks_of(&self.zone, block) {
            match state {
                State::Zone(order, _) => info.free_zone_pages += order.pages(),
                State::Pcp(order, _, _) => info.free_pcp_pages += order.pages(),
                _ => {}
            }
        }
        Some(info)
    }

    fn tuning(&self, cpu: CpuIdx) -> Tuning {
        self.sets.inspect(cpu.idx()).tuning()
    }

    fn check(&self) -> Checked {
        let mut on_sets = 0;
        for cpu in (0..self.sets.count() as u32).map(CpuIdx) {
            let pcp = self.sets.inspect(cpu.idx());
            self.check_lists(&pcp.free, Some(cpu))?;
            let remote = &self.remotes[cpu.idx()];
            let stranded = if remote.is_dead() { pcp.count() } else { 0 };
            let waiting = remote.is_dead() && !remote.is_empty();
            expect("I8 remote list of a dead CPU", cpu.0, 0, waiting.into())?;
            expect(
                "I8 pages on the set of a dead CPU",
                cpu.0,
                0,
                stranded.into(),
            )?;
            on_sets += u64::from(pcp.count());
        }
        let mut zone = self.zone.inspect();
        self.check_lists(&zone.free, None)?;
        expect(
            "I2 published free pages of the zone",
            0,
            self.zone.nr_free(),
            zone.free.nr_pages().into(),
        )?;
        self.check_recovery(&mut zone)?;
        let in_zone = u64::from(zone.free.nr_pages());
        drop(zone);
        let count = self.recount()?;
        expect("I7 pages free in the zone", 0, in_zone, count.zone)?;
        expect("I7 pages free on sets", 0, on_sets, count.pcp)?;
        expect(
            "I7 pages managed",
            0,
            self.managed_pages,
            count.zone + count.pcp + count.remote + count.allocated,
        )
    }
}
