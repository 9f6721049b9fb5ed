// SPDX-License-Identifier: GPL-2.0

//! Contiguous memory taken from the running kernel.
//!
//! [`Ranges`] owns its pages from `alloc_contig_pages()` to `free_contig_range()`: they go back in
//! `Drop` and nowhere else, as many as were taken. It never looks at `struct page` in between.

use crate::mm::{platform::Array, types::PageIdx};
use core::{
    num::NonZeroU32,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    current,
    ffi::{c_int, c_ulong, c_void},
    page::PAGE_SIZE,
    prelude::*, //
};

/// "Any node", for C.
pub(crate) const ANY_NODE: c_int = bindings::NUMA_NO_NODE;

// `struct page` refers to types that are empty in some configurations, which the lint dislikes
// even behind a pointer; the bindings allow it too.
#[allow(improper_ctypes)]
extern "C" {
    fn pcpb_grab_range(nr_pages: c_ulong, nid: c_int) -> *mut bindings::page;
    fn pcpb_give_back_range(first: *mut bindings::page, nr_pages: c_ulong);
    fn pcpb_page_address(page: *mut bindings::page) -> *mut c_void;
    fn pcpb_pfn(address: *mut c_void) -> c_ulong;
    fn pcpb_node_has_memory(nid: c_int) -> bool;
}

/// Whether a node of this number exists and has memory.
pub(crate) fn node_has_memory(node: u32) -> bool {
    // SAFETY: Any number may be asked for.
    c_int::try_from(node).is_ok_and(|nid| unsafe { pcpb_node_has_memory(nid) })
}

/// The kernel's address of the first byte of a page. All pages that we get have one: no highmem is
/// ever asked for.
///
/// # Safety
///
/// `page` points to a `struct page` of this kernel.
pub(crate) unsafe fn page_address(page: NonNull<bindings::page>) -> *mut u8 {
    // SAFETY: By caller precondition.
    unsafe { pcpb_page_address(page.as_ptr()) }.cast()
}

/// The number by which the kernel knows the page at an address.
///
/// # Safety
///
/// The address is one that [`page_address`] gave, or of a page adjacent to it and taken with it.
pub(crate) unsafe fn pfn_of(address: *mut u8) -> u64 {
    // SAFETY: By caller precondition.
    unsafe { pcpb_pfn(address.cast()) as u64 }
}

/// One contiguous range.
///
/// # Invariants
///
/// The `pages` pages from `first` on were allocated by `pcpb_grab_range()` and are ours.
struct Range {
    first: NonNull<bindings::page>,
    pages: u32,
}

// SAFETY: Pages belong to no thread.
unsafe impl Send for Range {}
// SAFETY: Nothing but `drop()` uses the pointer.
unsafe impl Sync for Range {}

impl Range {
    fn grab(pages: u32, node: Option<u32>) -> Option<Range> {
        let nid = match node {
            None => ANY_NODE,
            Some(node) => c_int::try_from(node).ok()?,
        };
        // CAST: `unsigned long` has 32 bits at least.
        // SAFETY: Task context that may sleep; the node is one with memory or `ANY_NODE`, checked
        // by `Ranges::grab()`.
        let first = NonNull::new(unsafe { pcpb_grab_range(pages as c_ulong, nid) })?;
        // SAFETY: The pages are ours, and nobody has been given any of them.
        #[cfg(CONFIG_KASAN_GENERIC)]
        unsafe {
            super::poison::poison(page_address(first), pages)
        };
        // INVARIANT: That many pages from `first` on are ours.
        Some(Range { first, pages })
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the pages are ours.
        #[cfg(CONFIG_KASAN_GENERIC)]
        unsafe {
            super::poison::unpoison(page_address(self.first), self.pages)
        };
        // SAFETY: By the type invariant the pages are ours; nobody uses them any more, because
        // allocators and addresses of a zone go before its ranges.
        unsafe { pcpb_give_back_range(self.first.as_ptr(), self.pages as c_ulong) }
    }
}

/// Why memory could not be grabbed. Nothing is held then.
pub(crate) enum GrabError {
    /// Range number `.0` (from 0) was not to be had.
    Shortage(usize),
    /// There is no such node, or it has no memory.
    NoNode,
    /// A signal came.
    Interrupted,
    /// No memory for our own bookkeeping.
    NoMemory,
}

/// Ranges of equal size, all or none.
pub(crate) struct Ranges(KVec<Range>);

impl Ranges {
    /// Takes `nr` ranges of `pages` pages each; on `node` and nowhere else, if one is given.
    ///
    /// A range is aligned as `mm::Config` asks for if `pages` is a power of two or a multiple of
    /// `2^MAX_ORDER`: `alloc_contig_pages()` aligns to the largest power of two that divides the
    /// size. Sleeps, for long if memory must be moved; a signal is heeded between ranges.
    ///
    /// # Errors
    ///
    /// See [`GrabError`]; ranges taken so far have gone back then.
    pub(crate) fn grab(nr: usize, pages: u32, node: Option<u32>) -> Result<Ranges, GrabError> {
        if !node.is_none_or(node_has_memory) {
            return Err(GrabError::NoNode);
        }
        let mut ranges = KVec::with_capacity(nr, GFP_KERNEL).map_err(|_| GrabError::NoMemory)?;
        for i in 0..nr {
            if current!().signal_pending() {
                return Err(GrabError::Interrupted);
            }
            let range = Range::grab(pages, node).ok_or(GrabError::Shortage(i))?;
            ranges
                .push(range, GFP_KERNEL)
                .map_err(|_| GrabError::NoMemory)?;
        }
        Ok(Ranges(ranges))
    }

    /// The translation from page indexes, range `i` starting at `base(i)`.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no room for it; `EINVAL` if the bases are not equally spaced from 0,
    /// or ranges overlap.
    pub(crate) fn addresses(&self, base: impl Fn(usize) -> PageIdx) -> Result<Addresses> {
        let nr = self.0.len();
        let pages = self.0.first().ok_or(EINVAL)?.pages;
        let stride = NonZeroU32::new(if nr > 1 { base(1).0 } else { pages }).ok_or(EINVAL)?;
        if stride.get() < pages || (0..nr).any(|i| base(i).idx() != i * stride.get() as usize) {
            return Err(EINVAL);
        }
        let starts = Array::new(nr, |i| {
            // SAFETY: The pages are ours by the type invariant of `Range`.
            unsafe { page_address(self.0[i].first) as usize }
        });
        Ok(Addresses {
            starts: starts.map_err(|_| ENOMEM)?,
            #[cfg(CONFIG_KASAN_GENERIC)]
            pages,
            stride,
        })
    }
}

/// Where in the kernel's address space the pages of a zone are.
pub(crate) struct Addresses {
    /// Address of the first byte of each range.
    starts: Array<usize>,
    /// Pages of each.
    #[cfg(CONFIG_KASAN_GENERIC)]
    pages: u32,
    /// Distance between the first pages of two ranges in the index space.
    stride: NonZeroU32,
}

impl Addresses {
    /// The address of the first byte of a page.
    #[inline]
    pub(crate) fn of(&self, page: PageIdx) -> *mut u8 {
        let range = page.0 / self.stride;
        let start = self.starts[range as usize];
        let offset = (page.0 - range * self.stride.get()) as usize * PAGE_SIZE;
        (start + offset) as *mut u8
    }

    /// The same for a page that somebody says the zone has, with all pages up to number `last` in
    /// the same range; `None` if that is wrong.
    #[cfg(CONFIG_KASAN_GENERIC)]
    pub(crate) fn within(&self, page: PageIdx, last: u64) -> Option<*mut u8> {
        let begin = page.0 % self.stride;
        let known = ((page.0 / self.stride) as usize) < self.starts.len();
        let inside = last - u64::from(page.0 - begin) < u64::from(self.pages);
        (known && inside).then(|| self.of(page))
    }

    /// The number by which the kernel knows a page of the zone.
    pub(crate) fn pfn(&self, page: PageIdx) -> u64 {
        // SAFETY: The zone has this page.
        unsafe { pfn_of(self.of(page)) }
    }
}
