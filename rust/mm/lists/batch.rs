// SPDX-License-Identifier: GPL-2.0

//! Many pages in one call: arrays of single pages, and runs of any length.
//!
//! An array is freed with one lock hold per run of pages that go to the same set
//! (`free_unref_folios()`), or with one push per run of pages of another CPU's blocks ("split-path PCP
//! free", RFC of 2026-05-20). A run is freed in the largest aligned chunks within its blocks. One
//! larger than the largest order is found by looking for adjacent free chunks; nothing is moved.

use super::{
    allocator::{ListAllocator, Route},
    page_map::State,
    pcp::Pcp,
    remote::Chain,
};
use crate::mm::{
    lock::CountedGuard,
    platform::Irq,
    stats::Event,
    types::{Context, CpuIdx, Error, Migratetype, Order, PageIdx, Result, MAX_ORDER, TOP_ORDER},
    PageAllocator, BULK_STRETCH,
};

/// What a batch free keeps from one page to the next.
#[derive(Default)]
enum Open<'a> {
    #[default]
    Nothing,
    /// The lock of a set.
    Set(CpuIdx, CountedGuard<'a, Pcp>),
    /// Pages for the remote list of a CPU, and how many.
    Chain(CpuIdx, Chain, u64),
}

impl ListAllocator {
    pub(super) fn bulk_alloc(
        &self,
        cpu: CpuIdx,
        mt: Migratetype,
        ctx: Context,
        out: &mut [PageIdx],
    ) -> usize {
        self.stats.inc(cpu, Event::BulkAlloc);
        if mt == Migratetype::Cma {
            return 0;
        }
        let mut filled = 0;
        while filled < out.len() {
            let end = out.len().min(filled + BULK_STRETCH);
            filled += self.bulk_from_set(cpu, mt, &mut out[filled..end]);
            if filled == end {
                continue;
            }
            match self.alloc(cpu, Order::ZERO, mt, ctx) {
                Ok(page) => out[filled] = page,
                Err(_) => break,
            }
            filled += 1;
        }
        filled
    }

    /// Allocates from the calling CPU's set and its refills, in one lock hold.
    fn bulk_from_set(&self, cpu: CpuIdx, mt: Migratetype, out: &mut [PageIdx]) -> usize {
        let Some(mut pcp) = self.sets.try_lock(cpu.idx(), Irq::Keep) else {
            self.stats.inc(cpu, Event::PcpLockBusyAlloc);
            return 0;
        };
        if self.remotes[cpu.idx()].is_dead() {
            return 0;
        }
        self.absorb(cpu, cpu, &mut pcp);
        let mut filled = 0;
        for place in out {
            pcp.note_alloc();
            let page = self.take_from_set(&mut pcp, Order::ZERO, mt).or_else(|| {
                self.refill(cpu, &mut pcp, Order::ZERO, mt);
                self.take_from_set(&mut pcp, Order::ZERO, mt)
            });
            let Some(page) = page else {
                break;
            };
            let state = State::Allocated(Order::ZERO, mt);
            self.zone.pages.set_state(page, state);
            *place = page;
            filled += 1;
        }
        drop(pcp);
        self.stats.alloc_pages(cpu, mt, filled as u64);
        filled
    }

    pub(super) fn bulk_free(&self, cpu: CpuIdx, pages: &mut [PageIdx], ctx: Context) -> Result<()> {
        self.stats.inc(cpu, Event::BulkFree);
        let mut result = Ok(());
        for stretch in pages.chunks(BULK_STRETCH) {
            let mut open = Open::Nothing;
            for &page in stretch {
                match self.check_free(cpu, page, Order::ZERO) {
                    Ok(()) => open = self.free_next(cpu, page, ctx, open),
                    Err(error) => result = Err(error),
                }
            }
            self.close(cpu, open);
        }
        result
    }

    /// Frees one page of an array, with what the one before has left open.
    fn free_next<'a>(
        &'a self,
        cpu: CpuIdx,
        page: PageIdx,
        ctx: Context,
        open: Open<'a>,
    ) -> Open<'a> {
        let map = &self.zone.pages;
        let mt = self.zone.blocks.migratetype(page);
        self.stats.free(cpu, mt, Order::ZERO);
        match self.route(cpu, page, Order::ZERO) {
            Route::Remote(owner) => {
                if let Open::Chain(of, mut chain, nr) = open {
                    if of == owner {
                        chain.add(map, page, Order::ZERO);
                        return Open::Chain(owner, chain, nr + 1);
                    }
                    self.free_remote(cpu, of, chain, nr);
                }
                Open::Chain(owner, Chain::of(map, page, Order::ZERO), 1)
            }
            Route::Set(set, mergeable) => {
                map.set_state(page, State::Inner);
                let pcp = match open {
                    Open::Set(of, pcp) if of == set => Some(pcp),
                    open => {
                        self.close(cpu, open);
                        self.lock_for_free(cpu, set, ctx)
                    }
                };
                let Some(mut pcp) = pcp else {
                    self.free_to_zone(cpu, page, Order::ZERO);
                    return Open::Nothing;
                };
                self.free_to_set((cpu, set), &mut pcp, page, Order::ZERO, mergeable);
                Open::Set(set, pcp)
            }
            Route::Zone => {
                map.set_state(page, State::Inner);
                self.free_to_zone(cpu, page, Order::ZERO);
                open
            }
        }
    }

    /// Lets go of a lock, or hands a chain over.
    fn close(&self, cpu: CpuIdx, open: Open<'_>) {
        if let Open::Chain(owner, chain, nr) = open {
            self.free_remote(cpu, owner, chain, nr);
        }
    }

    pub(super) fn contig_alloc(
        &self,
        cpu: CpuIdx,
        nr: u32,
        mt: Migratetype,
        ctx: Context,
    ) -> Result<PageIdx> {
        if nr == 0 || nr > Order::new(TOP_ORDER).pages() || mt == Migratetype::Cma {
            return Err(Error::Invalid);
        }
        let top = Order::new(MAX_ORDER);
        let order = Order::fitting(nr);
        let (first, got) = if order <= top {
            (self.alloc_chunk(cpu, order, mt, ctx), order.pages())
        } else {
            let chunks = nr.div_ceil(top.pages());
            (self.alloc_span(cpu, chunks, mt, ctx), chunks << MAX_ORDER)
        };
        let Some(first) = first else {
            self.stats.inc(cpu, Event::AllocFailed);
            return Err(Error::NoMemory);
        };
        for page in (0..nr).map(|i| first.offset(i)) {
            let state = State::Allocated(Order::ZERO, mt);
            self.zone.pages.set_state(page, state);
        }
        self.put_run(cpu, first.offset(nr), got - nr, ctx);
        self.stats.inc(cpu, Event::ContigAlloc);
        self.stats.alloc_pages(cpu, mt, nr.into());
        Ok(first)
    }

    /// Adjacent chunks of the largest order, from the zone as it is or after drains.
    fn alloc_span(
        &self,
        cpu: CpuIdx,
        chunks: u32,
        mt: Migratetype,
        ctx: Context,
    ) -> Option<PageIdx> {
        let alloc = || self.span_from_zone(cpu, chunks, mt);
        alloc().or_else(|| match ctx {
            Context::Task => self.after_targeted_drain(cpu, Order::new(MAX_ORDER), alloc),
            _ => None,
        })
    }

    fn span_from_zone(&self, cpu: CpuIdx, chunks: u32, mt: Migratetype) -> Option<PageIdx> {
        if self.zone.nr_free() < u64::from(chunks) << MAX_ORDER {
            return None;
        }
        let mut zone = self.zone.lock(cpu, &self.stats);
        // Ranges are adjacent in the index space, not in memory.
        let ends = self.range_bases.iter().skip(1).copied();
        let last = PageIdx(self.zone.pages.nr_pages());
        let mut ranges = self.range_bases.iter().zip(ends.chain([last]));
        let page = ranges.find_map(|(&base, end)| zone.take_span(base, end, chunks, mt))?;
        self.stats.inc(cpu, Event::ZoneAlloc);
        Some(page)
    }

    pub(super) fn contig_free(
        &self,
        cpu: CpuIdx,
        first: PageIdx,
        nr: u32,
        ctx: Context,
    ) -> Result<()> {
        if nr == 0 || nr > self.zone.pages.nr_pages().saturating_sub(first.0) {
            return Err(Error::Invalid);
        }
        let pages = || (0..nr).map(|i| first.offset(i));
        for page in pages() {
            self.check_free(cpu, page, Order::ZERO)?;
        }
        for page in pages() {
            self.zone.pages.set_state(page, State::Inner);
        }
        self.stats.inc(cpu, Event::ContigFree);
        let mt = self.zone.blocks.migratetype(first);
        self.stats.free_pages(cpu, mt, nr.into());
        self.put_run(cpu, first, nr, ctx);
        Ok(())
    }

    /// Frees a run that has been taken out of use, in the largest aligned chunks within its blocks:
    /// ownership is by block.
    fn put_run(&self, cpu: CpuIdx, first: PageIdx, nr: u32, ctx: Context) {
        let (mut page, mut left) = (first, nr);
        while left > 0 {
            let order = page.largest_chunk(left, self.zone.blocks.order());
            self.put_chunk(cpu, page, order, ctx);
            page = page.offset(order.pages());
            left -= order.pages();
        }
    }
}
