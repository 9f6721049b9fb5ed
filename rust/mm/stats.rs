// SPDX-License-Identifier: GPL-2.0

//! Counters that are always on.
//!
//! Each CPU counts what it does itself in words of its own, so that counting is an addition to a line
//! that is already there, interrupts included. Totals are sums over CPUs; they are exact when nothing runs.

use super::{
    platform::{mb, Array, AtomicU32, AtomicU64, CachePadded},
    types::{CpuIdx, Migratetype, Order, Result, NR_ORDERS, NR_PCP_TYPES},
};

/// Defines [`Event`], its number of variants and its names in debugfs.
macro_rules! events {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// What is counted besides allocations and frees.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Event {
            $($(#[doc = $doc])+ $variant,)+
        }

        /// Names of the events in debugfs, by number.
        const EVENT_NAMES: &[&str] = &[$($name,)+];
    };
}

events! {
    /// Allocations that found no memory.
    AllocFailed => "alloc_failed",
    /// Bulk calls that allocate; their pages are counted one by one as well.
    BulkAlloc => "bulk_alloc",
    /// Bulk calls that free.
    BulkFree => "bulk_free",
    /// Runs of pages allocated as a whole; their pages are counted one by one as well.
    ContigAlloc => "contig_alloc",
    /// Runs of pages freed as a whole.
    ContigFree => "contig_free",
    /// Frees refused because the chunk was free already.
    DoubleFree => "double_free",
    /// Frees refused because no chunk of that order is allocated there.
    BadFree => "bad_free",
    /// Refills: times that a set went to the zone for pages.
    Refill => "refill",
    /// Pages got in refill phase 0: fragments recovered from blocks that the CPU owns.
    RefillRecoverPages => "refill_recover_pages",
    /// Pages got in refill phase 1: whole blocks claimed.
    RefillClaimPages => "refill_claim_pages",
    /// Pages got in refill phase 2: chunks of the same migratetype.
    RefillChunkPages => "refill_chunk_pages",
    /// Pages got in refill phase 3: the ordinary path with fallback.
    RefillOrdinaryPages => "refill_ordinary_pages",
    /// Page states looked at under the zone lock to find fragments (phase 0).
    RecoverScanned => "recover_scanned",
    /// Drains: times that a set gave pages back to the zone.
    Drain => "drain",
    /// Pages given back by drains.
    DrainPages => "drain_pages",
    /// Whole blocks among them.
    DrainBlocks => "drain_blocks",
    /// Entries visited by merge passes on a set.
    MergeVisited => "merge_visited",
    /// Pairs merged on a set.
    MergePcp => "merge_pcp",
    /// Pairs merged in the zone, under its lock.
    MergeZone => "merge_zone",
    /// Pageblocks that a CPU became owner of.
    BlockClaimed => "block_claimed",
    /// Pageblocks that lost their owner.
    BlockDisowned => "block_disowned",
    /// Frees, of chunks, handed to the set of another CPU.
    RemoteFree => "remote_free",
    /// Pages handed over by others that this CPU took in.
    RemoteAbsorbed => "remote_absorbed",
    /// Frees that found the set's lock taken and went to the zone.
    PcpLockBusyFree => "pcp_lock_busy_free",
    /// Allocations that found the set's lock taken and went to the zone.
    PcpLockBusyAlloc => "pcp_lock_busy_alloc",
    /// Frees to the set of a dead CPU, which went to the zone.
    DeadFree => "dead_free",
    /// Chunks allocated from the zone directly.
    ZoneAlloc => "zone_alloc",
    /// Chunks freed to the zone directly.
    ZoneFree => "zone_free",
    /// Allocations of the zone that fell back to another migratetype.
    Fallback => "fallback",
    /// Pageblocks whose migratetype a fallback changed.
    FallbackClaim => "fallback_claim",
    /// Chunks that a fallback took from a block which kept its migratetype.
    FallbackSteal => "fallback_steal",
    /// Chunks that movable requests took from CMA blocks.
    CmaAlloc => "cma_alloc",
    /// Sets that this CPU drained because it had run dry.
    TargetedDrain => "targeted_drain",
    /// Times that this CPU took blocks from the set of another because it had run dry.
    Steal => "steal",
    /// Blocks that it got that way.
    StealBlocks => "steal_blocks",
    /// Times that this CPU entered the set of another one: an IPI each.
    Seize => "seize",
    /// Allocations from the shared set: the own set was busy, seized or empty.
    SharedAlloc => "shared_alloc",
}

const NR_EVENTS: usize = EVENT_NAMES.len();
const NR_PER_ORDER: usize = NR_ORDERS * NR_PCP_TYPES;

/// Number of counters that a CPU has.
pub const NR_COUNTERS: usize = NR_EVENTS + 2 * NR_PER_ORDER;

/// Counters of one CPU.
struct CpuStats([AtomicU64; NR_COUNTERS]);

/// Counters of all CPUs of a zone.
pub struct Stats {
    cpus: Array<CachePadded<CpuStats>>,
    /// Times that they were set to zero.
    resets: AtomicU32,
}

/// What one counter counts; prints its name in debugfs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CounterName {
    /// A counter with a fixed name.
    Event(&'static str),
    /// Allocations or frees of one order and migratetype.
    Chunks {
        /// `alloc` or `free`.
        verb: &'static str,
        /// Migratetype that was asked for; for frees, that of the block.
        migratetype: Migratetype,
        /// Order of the chunk.
        order: u8,
    },
}

impl core::fmt::Display for CounterName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            CounterName::Event(name) => f.write_str(name),
            CounterName::Chunks {
                verb,
                migratetype,
                order,
            } => write!(f, "{verb}_{}_order{order}", migratetype.name()),
        }
    }
}

/// The name of counter `nr`, `0..NR_COUNTERS`.
pub fn counter_name(nr: usize) -> CounterName {
    if let Some(name) = EVENT_NAMES.get(nr) {
        return CounterName::Event(name);
    }
    let chunk = nr - NR_EVENTS;
    let (verb, chunk) = match chunk.checked_sub(NR_PER_ORDER) {
        None => ("alloc", chunk),
        Some(chunk) => ("free", chunk),
    };
    CounterName::Chunks {
        verb,
        migratetype: Migratetype::PCP[chunk / NR_ORDERS],
        order: (chunk % NR_ORDERS) as u8,
    }
}

const fn chunk_counter(first: usize, mt: Migratetype, order: Order) -> usize {
    first + mt.pcp_type().idx() * NR_ORDERS + order.idx()
}

impl Stats {
    /// Counters for `nr_cpus` CPUs, all zero.
    ///
    /// # Errors
    ///
    /// `NoMemory` if there is no room for them.
    pub fn new(nr_cpus: usize) -> Result<Stats> {
        let zero = |_| CachePadded(CpuStats(core::array::from_fn(|_| AtomicU64::new(0))));
        Ok(Stats {
            cpus: Array::new(nr_cpus, zero)?,
            resets: AtomicU32::new(0),
        })
    }

    #[inline(always)]
    fn bump(&self, cpu: CpuIdx, nr: usize, by: u64) {
        self.cpus[cpu.idx()].0 .0[nr].add_local(by);
    }

    /// Counts `by` events on `cpu`, which is the calling CPU.
    #[inline]
    pub fn add(&self, cpu: CpuIdx, event: Event, by: u64) {
        self.bump(cpu, event as usize, by);
    }

    /// Counts one event.
    #[inline]
    pub fn inc(&self, cpu: CpuIdx, event: Event) {
        self.add(cpu, event, 1);
    }

    /// Counts an allocation of a chunk.
    #[inline]
    pub fn alloc(&self, cpu: CpuIdx, mt: Migratetype, order: Order) {
        self.bump(cpu, chunk_counter(NR_EVENTS, mt, order), 1);
    }

    /// Counts a free of a chunk.
    #[inline]
    pub fn free(&self, cpu: CpuIdx, mt: Migratetype, order: Order) {
        self.bump(cpu, chunk_counter(NR_EVENTS + NR_PER_ORDER, mt, order), 1);
    }

    /// Counts the allocation of `nr` single pages.
    #[inline]
    pub fn alloc_pages(&self, cpu: CpuIdx, mt: Migratetype, nr: u64) {
        self.bump(cpu, chunk_counter(NR_EVENTS, mt, Order::ZERO), nr);
    }

    /// Counts the free of `nr` single pages.
    #[inline]
    pub fn free_pages(&self, cpu: CpuIdx, mt: Migratetype, nr: u64) {
        let first = NR_EVENTS + NR_PER_ORDER;
        self.bump(cpu, chunk_counter(first, mt, Order::ZERO), nr);
    }

    /// Number of CPUs.
    pub fn nr_cpus(&self) -> usize {
        self.cpus.len()
    }

    /// Counter `nr` of one CPU.
    pub fn get(&self, cpu: CpuIdx, nr: usize) -> u64 {
        self.cpus[cpu.idx()].0 .0[nr].load()
    }

    /// Counter `nr` summed over the CPUs.
    pub fn total(&self, nr: usize) -> u64 {
        self.cpus.iter().map(|cpu| cpu.0 .0[nr].load()).sum()
    }

    /// An event summed over the CPUs.
    pub fn total_event(&self, event: Event) -> u64 {
        self.total(event as usize)
    }

    /// Pages that were allocated, in chunks of all orders. While CPUs are at work, all that had been
    /// counted before, and maybe some more.
    pub fn pages_allocated(&self) -> u64 {
        self.pages(NR_EVENTS)
    }

    /// The same of pages that were freed.
    pub fn pages_freed(&self) -> u64 {
        self.pages(NR_EVENTS + NR_PER_ORDER)
    }

    /// Sums up the chunks of a verb, whose counters begin at `first`.
    fn pages(&self, first: usize) -> u64 {
        let of = |cpu: &CachePadded<CpuStats>| -> u64 {
            let chunks = cpu.0 .0[first..first + NR_PER_ORDER].iter().enumerate();
            chunks
                .map(|(nr, word)| word.load() << (nr % NR_ORDERS))
                .sum()
        };
        self.cpus.iter().map(of).sum()
    }

    /// How often the counters were set to zero, or are about to be.
    pub fn resets(&self) -> u32 {
        mb();
        self.resets.load()
    }

    /// Sets everything to zero. Counts made meanwhile on other CPUs may survive or be lost.
    pub fn reset(&self) {
        let mut resets = self.resets.load();
        while let Err(now) = self.resets.cmpxchg(resets, resets.wrapping_add(1)) {
            resets = now;
        }
        // ORDERING: Whoever sees a zero sees that there was a reset.
        mb();
        for word in self.cpus.iter().flat_map(|cpu| &cpu.0 .0) {
            word.store(0);
        }
    }
}
