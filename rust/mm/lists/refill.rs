// SPDX-License-Identifier: GPL-2.0

//! Zone to per-CPU set: what a set does when it has nothing that fits.
//!
//! Runs with the set's lock held and takes the zone lock once (`rmqueue_bulk()`).

use super::{
    allocator::ListAllocator,
    free_area::End,
    page_map::Mergeable,
    pcp::Pcp,
    zone::{Ladder, ZoneGuard},
};
use crate::mm::{
    stats::Event,
    types::{CpuIdx, Migratetype, Order},
};

/// A refill in progress: the zone is locked, pages go to `pcp`.
struct Refill<'a> {
    alloc: &'a ListAllocator,
    cpu: CpuIdx,
    pcp: &'a mut Pcp,
    zone: ZoneGuard<'a>,
    /// Pages that are wanted.
    wanted: u32,
    /// Pages got so far.
    got: u32,
}

impl ListAllocator {
    /// Refills the set of the calling CPU for a request of `order` and `mt`. Returns whether
    /// anything came.
    pub(super) fn refill(&self, cpu: CpuIdx, pcp: &mut Pcp, order: Order, mt: Migratetype) -> bool {
        let chunks = pcp.refill_size(order, self.zone.nr_free());
        let mut refill = Refill {
            alloc: self,
            cpu,
            pcp,
            zone: self.zone.lock(cpu, &self.stats),
            wanted: chunks << order.get(),
            got: 0,
        };
        // A set too small to hold anything works page by page.
        if self.policy.owns_blocks() && chunks > 1 {
            refill.recover(mt);
            refill.claim(mt);
            refill.take_chunks(order, mt);
        }
        refill.take_ordinary(order, mt);
        let got = refill.got;
        drop(refill);
        self.stats.inc(cpu, Event::Refill);
        got > 0
    }
}

impl Refill<'_> {
    fn is_done(&self) -> bool {
        self.got >= self.wanted
    }

    /// Counts what a phase got, given what there was before it.
    fn count(&self, phase: Event, before: u32) {
        self.alloc
            .stats
            .add(self.cpu, phase, u64::from(self.got - before));
    }

    /// Phase 0: fragments of blocks that this CPU owns. Recover before claiming: a fresh block
    /// spreads fragmentation, a fragment heals it.
    fn recover(&mut self, mt: Migratetype) {
        let before = self.got;
        // Movable requests recover CMA blocks as well, in the order in which they would take them
        // from the zone.
        let types: &[Migratetype] = match mt {
            Migratetype::Movable if self.zone.prefers_cma() => {
                &[Migratetype::Cma, Migratetype::Movable]
            }
            Migratetype::Movable => &[Migratetype::Movable, Migratetype::Cma],
            _ => core::slice::from_ref(&mt),
        };
        let pages = &self.alloc.zone.pages;
        let (pcp, got) = (&mut *self.pcp, &mut self.got);
        for &block_mt in types {
            while *got < self.wanted
                && self.zone.recover_block(block_mt, |page, order| {
                    pcp.free
                        .insert(pages, page, order, mt, Mergeable::Yes, End::Tail);
                    *got += order.pages();
                })
            {}
        }
        self.count(Event::RefillRecoverPages, before);
    }

    /// Phase 1: whole blocks, as many as fit; this CPU becomes their owner.
    fn claim(&mut self, mt: Migratetype) {
        let before = self.got;
        let block_order = self.alloc.zone.blocks.order();
        let mut ladder = Ladder::Normal;
        while self.got + block_order.pages() <= self.wanted {
            let Some(page) = self.zone.take(block_order, mt, &mut ladder) else {
                break;
            };
            self.zone.claim_ownership(page);
            self.pcp.free.insert(
                &self.alloc.zone.pages,
                page,
                block_order,
                mt,
                Mergeable::Yes,
                End::Tail,
            );
            self.got += block_order.pages();
        }
        self.count(Event::RefillClaimPages, before);
    }

    /// Phase 2: chunks below a block, largest first, of the type that the CMA rule names; no
    /// ownership, no stealing.
    fn take_chunks(&mut self, order: Order, mt: Migratetype) {
        let before = self.got;
        let from = match mt {
            Migratetype::Movable if self.zone.prefers_cma() => Migratetype::Cma,
            mt => mt,
        };
        let block_order = self.alloc.zone.blocks.order();
        for o in order.upto(block_order).rev() {
            if o == block_order || o == order {
                continue;
            }
            while self.got + o.pages() <= self.wanted {
                let Some(page) = self.zone.take_exact(o, from) else {
                    break;
                };
                let pages = &self.alloc.zone.pages;
                self.pcp
                    .free
                    .insert(pages, page, o, mt, Mergeable::No, End::Tail);
                self.got += o.pages();
            }
        }
        self.count(Event::RefillChunkPages, before);
    }

    /// Phase 3: the ordinary path with fallback to other types.
    fn take_ordinary(&mut self, order: Order, mt: Migratetype) {
        let before = self.got;
        let mut ladder = Ladder::Normal;
        while !self.is_done() {
            let Some(page) = self.zone.take(order, mt, &mut ladder) else {
                break;
            };
            let pages = &self.alloc.zone.pages;
            self.pcp
                .free
                .insert(pages, page, order, mt, Mergeable::No, End::Tail);
            self.got += order.pages();
        }
        self.count(Event::RefillOrdinaryPages, before);
    }
}
