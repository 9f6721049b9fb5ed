// SPDX-License-Identifier: GPL-2.0

//! What KASAN is told of the pages of a zone: those that are free must not be touched.
//!
//! To the kernel a range is one large allocation, so KASAN by itself sees no misuse inside of it.
//! Here pages are poisoned for as long as they are free, as mainline does in
//! `kasan_poison_pages()`. No allocator of ours touches them. Only where the kernel has KASAN.

use super::ranges::Addresses;
use crate::mm::{
    lock::Locks,
    stats::Stats,
    types::{
        Context,
        CpuIdx,
        Migratetype,
        Order,
        PageIdx,
        Result, //
    },
    PageAllocator,
    Report, //
};
use kernel::ffi::{
    c_ulong,
    c_void, //
};

extern "C" {
    fn pcpb_poison(first: *mut c_void, nr_pages: c_ulong);
    fn pcpb_unpoison(first: *mut c_void, nr_pages: c_ulong);
    fn pcpb_is_poisoned(page: *mut c_void) -> bool;
}

/// Has KASAN report accesses to `nr` pages.
///
/// # Safety
///
/// They are adjacent, from address `first` on, ours, and mapped.
pub(super) unsafe fn poison(first: *mut u8, nr: u32) {
    // SAFETY: By caller precondition.
    unsafe { pcpb_poison(first.cast(), nr as c_ulong) }
}

/// Undoes [`poison`].
///
/// # Safety
///
/// As for [`poison`].
pub(super) unsafe fn unpoison(first: *mut u8, nr: u32) {
    // SAFETY: By caller precondition.
    unsafe { pcpb_unpoison(first.cast(), nr as c_ulong) }
}

/// An allocator whose free pages are poisoned. All of them are when it begins.
pub(crate) struct Poisoning<'a, A> {
    pub(super) alloc: &'a A,
    pub(super) addresses: &'a Addresses,
}

impl<A: PageAllocator<Page = PageIdx>> Poisoning<'_, A> {
    fn allocated(&self, first: PageIdx, nr: u32) {
        // SAFETY: The zone has these pages, adjacent because they were allocated together.
        unsafe { unpoison(self.addresses.of(first), nr) }
    }

    /// Poisons pages that `free` is about to free, since they may be allocated again before it
    /// returns. What it refuses gets back the access it had.
    fn freeing(&self, first: PageIdx, nr: u32, free: impl FnOnce() -> Result<()>) -> Result<()> {
        let last = u64::from(first.0) + u64::from(nr.saturating_sub(1));
        let Some(address) = self.addresses.within(first, last) else {
            return free();
        };
        // SAFETY: The zone has these pages, in one range.
        let was_free = unsafe {
            let was_free = pcpb_is_poisoned(address.cast());
            poison(address, nr);
            was_free
        };
        let freed = free();
        if freed.is_err() && !was_free {
            // SAFETY: As above.
            unsafe { unpoison(address, nr) };
        }
        freed
    }
}

impl<A: PageAllocator<Page = PageIdx>> PageAllocator for Poisoning<'_, A> {
    type Page = PageIdx;

    fn alloc(&self, cpu: CpuIdx, order: Order, mt: Migratetype, ctx: Context) -> Result<PageIdx> {
        let page = self.alloc.alloc(cpu, order, mt, ctx)?;
        self.allocated(page, order.pages());
        Ok(page)
    }

    fn free(&self, cpu: CpuIdx, page: PageIdx, order: Order, ctx: Context) -> Result<()> {
        self.freeing(page, order.pages(), || {
            self.alloc.free(cpu, page, order, ctx)
        })
    }

    fn alloc_bulk(&self, cpu: CpuIdx, mt: Migratetype, ctx: Context, out: &mut [PageIdx]) -> usize {
        let got = self.alloc.alloc_bulk(cpu, mt, ctx, out);
        for page in &out[..got] {
            self.allocated(*page, 1);
        }
        got
    }

    /// Pages that are refused stay poisoned: nobody knows which they are.
    fn free_bulk(&self, cpu: CpuIdx, pages: &mut [PageIdx], ctx: Context) -> Result<()> {
        for page in pages.iter() {
            if let Some(address) = self.addresses.within(*page, page.0.into()) {
                // SAFETY: The zone has this page.
                unsafe { poison(address, 1) };
            }
        }
        self.alloc.free_bulk(cpu, pages, ctx)
    }

    fn alloc_contig(&self, cpu: CpuIdx, nr: u32, mt: Migratetype, ctx: Context) -> Result<PageIdx> {
        let first = self.alloc.alloc_contig(cpu, nr, mt, ctx)?;
        self.allocated(first, nr);
        Ok(first)
    }

    fn free_contig(&self, cpu: CpuIdx, first: PageIdx, nr: u32, ctx: Context) -> Result<()> {
        self.freeing(first, nr, || self.alloc.free_contig(cpu, first, nr, ctx))
    }

    fn page_of_run(&self, first: PageIdx, nr: u32) -> PageIdx {
        self.alloc.page_of_run(first, nr)
    }

    fn drain(&self, cpu: CpuIdx, target: CpuIdx) {
        self.alloc.drain(cpu, target);
    }

    fn max_order(&self) -> Order {
        self.alloc.max_order()
    }

    fn stats(&self) -> &Stats {
        self.alloc.stats()
    }

    fn zone_lock(&self) -> Option<&dyn Locks> {
        self.alloc.zone_lock()
    }

    fn pcp_locks(&self) -> Option<&dyn Locks> {
        self.alloc.pcp_locks()
    }

    fn report(&self) -> Option<&dyn Report> {
        self.alloc.report()
    }
}
