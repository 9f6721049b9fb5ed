// SPDX-License-Identifier: GPL-2.0

//! Policy `economy`: a zone that trades in whole blocks only.
//!
//! Every free page is a bit in its pageblock, and a pageblock is in exactly one place: free and whole
//! in the zone, owned by the set of one CPU, or given out whole. Nothing is merged, because nothing
//! was ever split: a block is whole when all its bits are set. No page is touched, no page list
//! exists, and the zone lock is taken once for many blocks.
//!
//! ```text
//!   zone      one bit per whole free block        zone lock
//!     |  ^                 a few whole blocks at a time
//!     v  |
//!   set       current block per type, partial     own CPU: a flag, no atomic operation
//!     |  ^    blocks by fullness, whole blocks    others: seize (barrier on that CPU)
//!     v  | set bits
//!   block     local bits  <-- absorb --  remote bits, set by any other CPU with one atomic or
//! ```
//!
//! * [`bits`]: aligned runs of free units in words, for pages and for blocks alike
//! * [`blocks`]: bitmaps and state of every block, and who may write which word
//! * [`pending`]: how an owner learns of remote frees; why none is lost
//! * [`hot`]: runs that were freed last, to be allocated first
//! * [`gate`]: who may be inside a set, and how without an atomic operation
//! * [`set`]: the blocks of one CPU, on lists by fullness
//! * [`zone`]: whole free blocks
//! * [`allocator`]: which of them serves a request
//! * [`steal`]: blocks of other sets, when a CPU has run dry or has gone
//! * [`batch`]: arrays of pages and runs of any length, a word of the bitmaps at a time
//! * [`check`] recounts everything
//!
//! # Contexts
//!
//! No free below block order takes the lock of a set: if the own set cannot be entered, the remote bitmap
//! is used, in any context. What may take the zone lock, with interrupts masked, is the free that makes a
//! set exceed `high`, the free of whole blocks, and the first remote free into a block after an absorption if
//! somebody has freed a page twice; so frees are not for NMI. Allocations in an interrupt
//! that finds the set of its CPU busy are served from the shared set, under a lock with interrupts masked.
//! Only task context steals.
//!
//! # Order of locks
//!
//! seized set, then the lock of the shared set, then the zone lock.
//!
//! # Invariants
//!
//! * E1: `nr_free` of a block that is not current is the number of its local bits; none of them is set
//!   remotely too, unless the block is pending or whole: then a double free is about to be found, or what
//!   it left behind goes before pages of the block are used again.
//! * E2: a block of a set that is whole, or has no free page and is on no list, has the place that says
//!   so; any other one is on a list of partial blocks of its type, or current. It is on one list, of the
//!   set that holds it, once. (Which list of partial blocks: the right one when it was put there.)
//! * E3: the zone lists a block if and only if its tag says so; all its pages are free then.
//! * E4: a block given out keeps all its local bits, ready to be whole again; its tag says that they
//!   mean nothing meanwhile.
//! * E5: a block with remote bits that is not whole is pending, and every pending block is on one stack.
//!
//! Sources: the open question in the review of "pcp buddy allocator" (linux-mm, 2026-04-06): make the
//! zone a block economy, and which CPU to steal from; LLFree (Wrenger et al., USENIX ATC 2023) for
//! bit fields of 512 pages.

// KUnit wraps tests in unsafe code, so the host build watches over this.
#![cfg_attr(not(any(MODULE, loom)), forbid(unsafe_code))]

mod bits;

mod blocks;

mod hot;
mod pending;
mod zone;

mod gate;
mod set;

mod allocator;
mod batch;
mod check;
mod steal;

use self::{blocks::Blocks, hot::Hot, pending::Pending, set::Set, zone::Zone};
use super::{
    lock::CountedLocks,
    platform::{Array, AtomicU32, AtomicU64, CachePadded},
    stats::Stats,
    types::{Order, PageIdx},
};

/// Most blocks that are handled at a stretch, with preemption or interrupts off: some microseconds.
/// Mainline's per-CPU lists move `batch` pages at a time for the same reason.
const STRETCH: u32 = 32;

/// A zone under policy `economy`.
pub struct Economy {
    blocks: Blocks,
    pending: Pending,
    hot: Hot,
    /// By CPU number; the last one is the shared set.
    sets: Array<CachePadded<Set>>,
    shared_lock: CountedLocks<()>,
    zone: Zone,
    stats: Stats,
    /// First page index of each range.
    range_bases: Array<PageIdx>,
    managed_pages: u64,
    /// Largest order served: runs never reach from one range into the next.
    max_order: Order,
    /// Blocks of the first refill: each one doubles the next up to 32 times, a drain halves the exponent.
    batch: u32,
    /// Most whole blocks that a set keeps.
    high: u32,
    /// The block where the last search in all sets found something.
    search_start: AtomicU32,
    /// The last free that was refused: page and CPU, plus one; 0 if none was.
    last_refused: AtomicU64,
}
