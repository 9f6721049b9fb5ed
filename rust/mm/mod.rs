// SPDX-License-Identifier: GPL-2.0

//! The allocator core: pure logic over index arrays, the same source in the module and on the host.
//!
//! Bottom up; each may use what stands before it:
//!
//! * [`types`]: indexes, orders, migratetypes, contexts, errors
//! * [`platform`]: atomics, locks, arrays, barriers: all that the core asks of its host
//! * [`lock`], [`stats`]: counting locks, and the counters that are always on
//! * `lists`: policies `pcp`, `owner` and `split`, per-CPU page sets over one zone buddy
//! * `economy`: a zone that trades in whole blocks, free pages as bits
//!
//! A caller sees [`PageAllocator`], which every policy implements, `stock` in the glue included, and
//! [`Report`] and [`Hotplug`] of those that manage ranges. The CPU number is an argument everywhere:
//! the core never asks where it runs.
//!
//! A page is an index in its zone. The ranges of a zone share one index space; each begins aligned, so
//! that buddies and runs are found by index alone, and what lies between two ranges is a hole.

pub mod types;

pub mod platform;

pub mod lock;
pub mod stats;

mod economy;
mod lists;

pub use self::{economy::Economy, lists::ListAllocator};

use self::{
    lock::Locks,
    stats::Stats,
    types::{
        BlockIdx,
        Context,
        CpuIdx,
        Migratetype,
        Order,
        PageIdx,
        Result,
        NR_MIGRATETYPES,
        NR_ORDERS, //
    },
};

/// The policies over the zone buddy and its per-CPU page sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListPolicy {
    /// Today's per-CPU lists: orders 0 to 3 and the pageblock order, page by page.
    Pcp,
    /// The per-CPU pageblock buddy of April 2026: whole blocks, owned by CPUs.
    Owner,
    /// The same with the split free path of May 2026: remote frees take no lock.
    Split,
}

impl ListPolicy {
    /// Whether CPUs own the blocks that they take whole.
    pub const fn owns_blocks(self) -> bool {
        matches!(self, ListPolicy::Owner | ListPolicy::Split)
    }
}

/// Description of a zone with ranges of its own.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// How sets refill, merge and drain.
    pub policy: ListPolicy,
    /// Pages of each range; multiples of the pageblock size, and in memory powers of two or multiples
    /// of `2^MAX_ORDER`. The first page of each range is physically aligned to the largest power of two
    /// that divides its size, as `alloc_contig_pages()` has it; no policy may count on more.
    pub range_pages: &'a [u32],
    /// Pageblock order, within [`types::BLOCK_ORDERS`].
    pub block_order: u8,
    /// Upper bound of CPU numbers, plus one.
    pub nr_cpus: u32,
    /// CPUs that share the pages: what the automatic watermarks divide by.
    pub online_cpus: u32,
    /// Fixed batch in pages instead of the automatic one.
    pub batch: Option<u32>,
    /// Fixed pcp high in pages instead of the automatic one.
    pub high: Option<u32>,
    /// Blocks of type CMA, as percentage of all.
    pub cma_percent: u8,
}

/// Pages of a bulk call that are handled at a stretch, without letting others in between.
pub(crate) const BULK_STRETCH: usize = 512;

/// What every policy offers to workloads and clients.
pub trait PageAllocator: Sync {
    /// Names an allocated chunk by its first page.
    type Page: Copy + Send + Sync + PartialEq + core::fmt::Debug;

    /// Allocates `2^order` pages, aligned to their number.
    ///
    /// `cpu` is the calling CPU; the caller stays on it during the call.
    ///
    /// # Errors
    ///
    /// `NoMemory` if no chunk is free, `Invalid` if the policy does not serve that order.
    fn alloc(&self, cpu: CpuIdx, order: Order, mt: Migratetype, ctx: Context)
        -> Result<Self::Page>;

    /// Frees a chunk that was allocated with the same `order`, by whichever CPU.
    ///
    /// # Errors
    ///
    /// `DoubleFree`, `BadFree` or `Invalid`; nothing changes then.
    fn free(&self, cpu: CpuIdx, page: Self::Page, order: Order, ctx: Context) -> Result<()>;

    /// Allocates single pages into `out`, from its start, and returns how many there were: fewer than
    /// asked for only if memory has run out, or `mt` is not to be had here. What `out` held does not
    /// matter (mainline: `alloc_pages_bulk()`).
    fn alloc_bulk(
        &self,
        cpu: CpuIdx,
        mt: Migratetype,
        ctx: Context,
        out: &mut [Self::Page],
    ) -> usize;

    /// Frees single pages. What `pages` holds afterwards is not said (mainline: `release_pages()`).
    ///
    /// # Errors
    ///
    /// One of those of [`PageAllocator::free`] if any page was refused; the others are free.
    fn free_bulk(&self, cpu: CpuIdx, pages: &mut [Self::Page], ctx: Context) -> Result<()>;

    /// Allocates `nr` adjacent pages, each of which may be freed alone, or any part of them by
    /// [`PageAllocator::free_contig`]. Aligned to `nr` rounded up to a power of two, at most to
    /// `2^MAX_ORDER` (mainline: `alloc_contig_pages()`, without migration).
    ///
    /// # Errors
    ///
    /// `NoMemory` if no such run is free, `Invalid` if `nr` is 0 or more than the policy serves.
    fn alloc_contig(
        &self,
        cpu: CpuIdx,
        nr: u32,
        mt: Migratetype,
        ctx: Context,
    ) -> Result<Self::Page>;

    /// Frees `nr` adjacent single pages as a whole (mainline: `free_contig_range()`).
    ///
    /// # Errors
    ///
    /// Those of [`PageAllocator::free`]; nothing changes then.
    fn free_contig(&self, cpu: CpuIdx, first: Self::Page, nr: u32, ctx: Context) -> Result<()>;

    /// Page number `nr` of a run that starts with `first`.
    fn page_of_run(&self, first: Self::Page, nr: u32) -> Self::Page;

    /// Gives what the set of CPU `target` holds back to the zone: everything under the list policies,
    /// whole blocks under `economy`. `cpu` is the calling CPU, which the caller stays on. Task context.
    fn drain(&self, cpu: CpuIdx, target: CpuIdx);

    /// The largest order that [`PageAllocator::alloc`] serves.
    fn max_order(&self) -> Order;

    /// Counters, per CPU.
    fn stats(&self) -> &Stats;

    /// The zone lock, where the policy has one of its own.
    fn zone_lock(&self) -> Option<&dyn Locks> {
        None
    }

    /// The locks of the per-CPU sets, where the policy has any.
    fn pcp_locks(&self) -> Option<&dyn Locks> {
        None
    }

    /// Switches on, or off, that wait and hold times of all locks are taken.
    fn time_locks(&self, on: bool) {
        for locks in [self.zone_lock(), self.pcp_locks()].into_iter().flatten() {
            locks.time(on);
        }
    }

    /// Sets counters and lock figures to zero.
    fn reset_stats(&self) {
        self.stats().reset();
        for locks in [self.zone_lock(), self.pcp_locks()].into_iter().flatten() {
            locks.reset();
        }
    }

    /// What the policy can say of its ranges, if it has any.
    fn report(&self) -> Option<&dyn Report> {
        None
    }
}

/// CPUs that come and go. Task context; the CPU in question runs nothing of ours meanwhile.
pub trait Hotplug {
    /// `dead` has gone offline: nothing may stay on its set. `cpu` is the calling CPU.
    fn cpu_dead(&self, cpu: CpuIdx, dead: CpuIdx);

    /// The CPU is coming online again.
    fn cpu_online(&self, cpu: CpuIdx);
}

/// Free chunks by migratetype and order: one row group of `buddyinfo`.
pub type FreeChunks = [[u64; NR_ORDERS]; NR_MIGRATETYPES];

/// Where the chunks of a report are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the zone.
    Zone,
    /// On the set of a CPU.
    Cpu(CpuIdx),
    /// On the set that belongs to no CPU, where the policy has one.
    Shared,
}

/// One row of `pageblocks`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockInfo {
    /// Type of the block.
    pub migratetype: Migratetype,
    /// Owning CPU, if any.
    pub owner: Option<CpuIdx>,
    /// Pages of it that are free in the zone.
    pub free_zone_pages: u32,
    /// Pages of it that are free on per-CPU sets.
    pub free_pcp_pages: u32,
    /// Whether it waits on its owner's recovery list.
    pub recoverable: bool,
}

/// What a policy that manages ranges of its own can report. `stock` has none of this.
pub trait Report {
    /// Index of the first page of range `i`.
    fn range_base(&self, i: usize) -> PageIdx;

    /// Pages managed.
    fn managed_pages(&self) -> u64;

    /// Free pages, in the zone and on all sets.
    fn free_pages(&self) -> u64;

    /// Free pages that [`Report::free_pages`] does not see, because the policy's own counters do
    /// not: remote frees that no one has taken in yet. Found by walking all pages.
    fn uncounted_free_pages(&self) -> u64;

    /// Bytes of metadata for pages and blocks.
    fn metadata_bytes(&self) -> u64;

    /// The last free that was refused, if the policy remembers: the page, and the CPU that tried.
    fn last_refused_free(&self) -> Option<(PageIdx, CpuIdx)> {
        None
    }

    /// Free chunks in one place, now.
    fn free_chunks(&self, place: Place) -> FreeChunks;

    /// Number of pageblocks, holes included.
    fn nr_blocks(&self) -> u32;

    /// A row of the block table; `None` for a hole between ranges. Exact when nothing runs.
    fn block_info(&self, block: BlockIdx) -> Option<BlockInfo>;

    /// Batch and high watermark of a CPU's set, in pages.
    fn tuning(&self, cpu: CpuIdx) -> Tuning;

    /// Verifies every invariant of the zone; to be called while nothing runs.
    ///
    /// # Errors
    ///
    /// The first invariant found violated.
    fn check(&self) -> core::result::Result<(), Violation>;
}

/// Current sizes of a per-CPU set, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tuning {
    /// Pages on the set.
    pub count: u32,
    /// Pages moved per zone transaction, before scaling.
    pub batch: u32,
    /// Count that triggers a drain, now.
    pub high: u32,
    /// Bounds between which `high` adapts.
    pub high_min: u32,
    /// See `high_min`.
    pub high_max: u32,
}

/// A violated invariant: which one, where, and the two figures that disagree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The invariant, in words.
    pub what: &'static str,
    /// Index of the page, block or CPU that shows it.
    pub at: u32,
    /// What the books say.
    pub expected: u64,
    /// What a recount found.
    pub found: u64,
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} at {}: expected {}, found {}",
            self.what, self.at, self.expected, self.found
        )
    }
}
