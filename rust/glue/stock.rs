// SPDX-License-Identifier: GPL-2.0

//! Policy `stock`: the allocator that this kernel runs, as the control of every comparison.
//!
//! Allocations go to `alloc_pages()`, frees to `__free_pages()`; arrays to `alloc_pages_bulk()` and
//! `release_pages()`; runs are split chunks, or `alloc_contig_pages()` above the largest order, and go
//! back by `free_contig_range()`. Nothing is kept in between. The
//! zone's size is a budget in pages. So that the control is not slowed down by a shared counter,
//! CPUs take credit from the budget in lumps and count it down in words of their own.
//!
//! It never reclaims, kills or uses reserves: an allocation that the kernel cannot serve at once
//! fails. What it cannot report: free chunks, pageblocks and locks are the kernel's own.

use super::ranges::{page_address, ANY_NODE};
use crate::mm::{
    platform::{Array, AtomicU64, CachePadded},
    stats::{Event, Stats},
    types::{
        Context,
        CpuIdx,
        Error,
        Migratetype,
        Order,
        Result,
        MAX_ORDER, //
        NR_PCP_TYPES,
    },
    PageAllocator,
    BULK_STRETCH, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    ffi::{c_int, c_uint, c_ulong},
    sync::atomic::{Atomic, Relaxed}, //
};

// `struct page` refers to types that are empty in some configurations, which the lint dislikes
// even behind a pointer; the bindings allow it too.
#[allow(improper_ctypes)]
extern "C" {
    fn pcpb_stock_gfp(migratetype: c_int) -> bindings::gfp_t;
    fn pcpb_stock_alloc(gfp: bindings::gfp_t, order: c_uint, nid: c_int) -> *mut bindings::page;
    fn pcpb_stock_alloc_bulk(
        gfp: bindings::gfp_t,
        nid: c_int,
        nr: c_ulong,
        pages: *mut *mut bindings::page,
    ) -> c_ulong;
    fn pcpb_stock_free_bulk(pages: *mut *mut bindings::page, nr: c_int);
    fn pcpb_stock_alloc_contig(
        gfp: bindings::gfp_t,
        nid: c_int,
        nr: c_ulong,
    ) -> *mut bindings::page;
    fn pcpb_give_back_range(first: *mut bindings::page, nr_pages: c_ulong);
    fn pcpb_nth_page(first: *mut bindings::page, nr: c_ulong) -> *mut bindings::page;
    fn pcpb_max_page_order() -> c_uint;
}

/// Most pages of credit that a CPU takes at a time.
const MAX_LUMP: u64 = 512;

/// Bits of a `struct page` address that are always 0, and hold the migratetype in [`StockPage`].
const TAG: usize = 0b11;

/// An allocated chunk: the address of its `struct page`, with the migratetype that was asked for
/// in the low bits, so that a free can be counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct StockPage(usize);

impl StockPage {
    fn new(page: NonNull<bindings::page>, mt: Migratetype) -> StockPage {
        const _: () = assert!(align_of::<bindings::page>() > TAG && NR_PCP_TYPES <= TAG + 1);
        StockPage(page.as_ptr() as usize | mt.pcp_type().idx())
    }

    fn page(self) -> *mut bindings::page {
        (self.0 & !TAG) as *mut bindings::page
    }

    fn migratetype(self) -> Migratetype {
        Migratetype::from_bits((self.0 & TAG) as u32)
    }

    /// The page as a number.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0 as u64
    }

    /// The inverse of [`StockPage::to_bits`], for numbers that came from it.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> StockPage {
        // CAST: it was a `usize` in `to_bits()`.
        StockPage(bits as usize)
    }

    /// The address of the first byte.
    #[inline]
    pub(crate) fn address(self) -> *mut u8 {
        match NonNull::new(self.page()) {
            // SAFETY: Only `StockAllocator::alloc()` makes one, from a page of the kernel.
            Some(page) => unsafe { page_address(page) },
            None => core::ptr::null_mut(),
        }
    }
}

/// The kernel's allocator with a budget.
pub(crate) struct StockAllocator {
    /// Pages that may still be handed out as credit.
    budget: Atomic<i64>,
    /// Credit of each CPU in pages; written by that CPU only, in task context.
    credit: Array<CachePadded<AtomicU64>>,
    /// Credit that a CPU takes at a time, and keeps up to twice of.
    lump: u64,
    /// Flags by migratetype.
    gfp: [bindings::gfp_t; NR_PCP_TYPES],
    /// Node to allocate from and no other, or [`ANY_NODE`].
    nid: c_int,
    /// Largest order of the kernel and of our counters.
    max_order: Order,
    stats: Stats,
}

impl StockAllocator {
    /// An allocator that holds at most `pages` pages, from `node` only if one is given.
    ///
    /// # Errors
    ///
    /// `NoMemory` if there is no room for counters, `Invalid` if a number is too large.
    pub(crate) fn new(pages: u64, node: Option<u32>, nr_cpus: u32) -> Result<StockAllocator> {
        let nid = match node {
            None => ANY_NODE,
            Some(node) => c_int::try_from(node).map_err(|_| Error::Invalid)?,
        };
        // SAFETY: Reads a constant.
        let max_order = unsafe { pcpb_max_page_order() }.min(u32::from(MAX_ORDER));
        Ok(StockAllocator {
            budget: Atomic::new(i64::try_from(pages).map_err(|_| Error::Invalid)?),
            credit: Array::new(nr_cpus as usize, |_| CachePadded(AtomicU64::new(0)))?,
            // What idle CPUs keep stays a small part of the whole.
            lump: (pages / (16 * u64::from(nr_cpus.max(1)))).clamp(1, MAX_LUMP),
            gfp: Migratetype::PCP.map(|mt| {
                // SAFETY: Computes flags. The numbers of the types are those of mainline.
                unsafe { pcpb_stock_gfp(mt as c_int) }
            }),
            nid,
            // CAST: at most `MAX_ORDER`, a `u8`.
            max_order: Order::new(max_order as u8),
            stats: Stats::new(nr_cpus as usize)?,
        })
    }

    /// Takes `pages` out of the budget; tasks do by way of their CPU's credit, which is not made for
    /// interrupts.
    #[inline]
    fn charge(&self, cpu: CpuIdx, pages: u64, ctx: Context) -> bool {
        if ctx != Context::Task {
            return self.take(pages);
        }
        let credit = &self.credit[cpu.idx()];
        let have = credit.load();
        if have >= pages {
            credit.store(have - pages);
            return true;
        }
        self.charge_budget(credit, have, pages)
    }

    #[cold]
    fn charge_budget(&self, credit: &AtomicU64, have: u64, pages: u64) -> bool {
        let need = pages - have;
        // A whole lump where there is one, else just what is missing.
        for take in [need.max(self.lump), need] {
            if self.take(take) {
                credit.store(have + take - pages);
                return true;
            }
        }
        false
    }

    /// Takes `pages` out of the budget, if it has them.
    fn take(&self, pages: u64) -> bool {
        // CAST: credit and chunks are far below 2^63 pages.
        let pages = pages as i64;
        let enough = self.budget.fetch_sub(pages, Relaxed) >= pages;
        if !enough {
            self.budget.add(pages, Relaxed);
        }
        enough
    }

    /// Puts `pages` back.
    #[inline]
    fn refund(&self, cpu: CpuIdx, pages: u64, ctx: Context) {
        if ctx != Context::Task {
            // CAST: as in `take()`.
            return self.budget.add(pages as i64, Relaxed);
        }
        let credit = &self.credit[cpu.idx()];
        let mut have = credit.load() + pages;
        if have > 2 * self.lump {
            let excess = have - self.lump;
            // CAST: as in `take()`.
            self.budget.add(excess as i64, Relaxed);
            have -= excess;
        }
        credit.store(have);
    }

    /// Pages that may still be allocated. Exact when nothing runs.
    pub(crate) fn free_pages(&self) -> u64 {
        let credit: u64 = self.credit.iter().map(|c| c.load()).sum();
        credit.saturating_add_signed(self.budget.load(Relaxed))
    }
}

impl PageAllocator for StockAllocator {
    type Page = StockPage;

    #[inline]
    fn alloc(&self, cpu: CpuIdx, order: Order, mt: Migratetype, ctx: Context) -> Result<StockPage> {
        if order > self.max_order {
            return Err(Error::Invalid);
        }
        let pages = u64::from(order.pages());
        if !self.charge(cpu, pages, ctx) {
            self.stats.inc(cpu, Event::AllocFailed);
            return Err(Error::NoMemory);
        }
        let gfp = self.gfp[mt.pcp_type().idx()];
        // SAFETY: The flags allow any context: they never sleep. `order` is one of the kernel's,
        // and the node was checked when the zone was made.
        let page = unsafe { pcpb_stock_alloc(gfp, c_uint::from(order.get()), self.nid) };
        let Some(page) = NonNull::new(page) else {
            self.refund(cpu, pages, ctx);
            self.stats.inc(cpu, Event::AllocFailed);
            return Err(Error::NoMemory);
        };
        self.stats.alloc(cpu, mt, order);
        Ok(StockPage::new(page, mt))
    }

    #[inline]
    fn free(&self, cpu: CpuIdx, page: StockPage, order: Order, ctx: Context) -> Result<()> {
        // SAFETY: `page` came from `alloc()` with this order and is freed once: that is the
        // interface, which the kernel does not check for us.
        unsafe { bindings::__free_pages(page.page(), c_uint::from(order.get())) };
        self.refund(cpu, u64::from(order.pages()), ctx);
        self.stats.free(cpu, page.migratetype(), order);
        Ok(())
    }

    fn alloc_bulk(
        &self,
        cpu: CpuIdx,
        mt: Migratetype,
        ctx: Context,
        out: &mut [StockPage],
    ) -> usize {
        self.stats.inc(cpu, Event::BulkAlloc);
        let mut filled = 0;
        for stretch in out.chunks_mut(BULK_STRETCH) {
            let wanted = stretch.len();
            if !self.charge(cpu, wanted as u64, ctx) {
                break;
            }
            // The kernel fills the places that are null.
            stretch.fill(StockPage(0));
            let gfp = self.gfp[mt.pcp_type().idx()];
            let places: *mut *mut bindings::page = stretch.as_mut_ptr().cast();
            // SAFETY: A `StockPage` is a word, as the pointers are that are written to `wanted` of them.
            // The flags allow any context: they never sleep.
            let got = unsafe { pcpb_stock_alloc_bulk(gfp, self.nid, wanted, places) };

            for page in &mut stretch[..got] {
                page.0 |= mt.pcp_type().idx();
            }
            filled += got;
            if got < wanted {
                self.refund(cpu, (wanted - got) as u64, ctx);
                break;
            }
        }
        self.stats.alloc_pages(cpu, mt, filled as u64);
        if filled < out.len() {
            // The bulk call gives up early by design; the rest one by one, while there is any.
            for place in &mut out[filled..] {
                match self.alloc(cpu, Order::ZERO, mt, ctx) {
                    Ok(page) => *place = page,
                    Err(_) => break,
                }
                filled += 1;
            }
        }
        filled
    }

    fn free_bulk(&self, cpu: CpuIdx, pages: &mut [StockPage], ctx: Context) -> Result<()> {
        self.stats.inc(cpu, Event::BulkFree);
        for stretch in pages.chunks_mut(BULK_STRETCH) {
            for page in stretch.iter_mut() {
                self.stats.free(cpu, page.migratetype(), Order::ZERO);
                page.0 &= !TAG;
            }
            // CAST: at most a stretch.
            let nr = stretch.len() as c_int;
            // SAFETY: `nr` pages from `alloc()`, each freed once, as pointers: the tags are gone.
            unsafe { pcpb_stock_free_bulk(stretch.as_mut_ptr().cast(), nr) };
            self.refund(cpu, stretch.len() as u64, ctx);
        }
        Ok(())
    }

    fn alloc_contig(
        &self,
        cpu: CpuIdx,
        nr: u32,
        mt: Migratetype,
        ctx: Context,
    ) -> Result<StockPage> {
        // What is larger than a chunk is got together by migration, which sleeps.
        let sleeps = Order::fitting(nr) > self.max_order;
        if nr == 0 || (sleeps && ctx != Context::Task) {
            return Err(Error::Invalid);
        }
        let page = match self.charge(cpu, nr.into(), ctx) {
            true => {
                let gfp = self.gfp[mt.pcp_type().idx()];
                // SAFETY: Task context where it may sleep. The node was checked when the zone was made.
                let page = unsafe { pcpb_stock_alloc_contig(gfp, self.nid, nr as c_ulong) };
                if page.is_null() {
                    self.refund(cpu, nr.into(), ctx);
                }
                NonNull::new(page)
            }
            false => None,
        };
        let Some(page) = page else {
            self.stats.inc(cpu, Event::AllocFailed);
            return Err(Error::NoMemory);
        };
        self.stats.inc(cpu, Event::ContigAlloc);
        self.stats.alloc_pages(cpu, mt, nr.into());
        Ok(StockPage::new(page, mt))
    }

    fn free_contig(&self, cpu: CpuIdx, first: StockPage, nr: u32, ctx: Context) -> Result<()> {
        // SAFETY: `nr` adjacent pages from `alloc_contig()` or `alloc()`, each freed once.
        unsafe { pcpb_give_back_range(first.page(), nr as c_ulong) };
        self.refund(cpu, nr.into(), ctx);
        self.stats.inc(cpu, Event::ContigFree);
        self.stats.free_pages(cpu, first.migratetype(), nr.into());
        Ok(())
    }

    fn page_of_run(&self, first: StockPage, nr: u32) -> StockPage {
        // SAFETY: The run has a page of that number.
        let page = unsafe { pcpb_nth_page(first.page(), nr as c_ulong) };
        StockPage(page as usize | (first.0 & TAG))
    }

    /// Does nothing: 7.3 exports no way to drain the kernel's own per-CPU lists.
    fn drain(&self, _cpu: CpuIdx, _target: CpuIdx) {}

    fn max_order(&self) -> Order {
        self.max_order
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}
