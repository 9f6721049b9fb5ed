// SPDX-License-Identifier: GPL-2.0

//! Policies `pcp`, `owner` and `split`: per-CPU page sets over one zone buddy.
//!
//! ```text
//!   set of CPU 0        set of CPU 1          one per CPU: free lists by order and type
//!   [0][1][2]..[block]  [0][1][2]..[block]    lock: the set's own
//!        |  ^                |  ^
//! refill |  | drain          |  |             whole blocks, chunks or single pages
//!        v  |                v  |
//!   zone: [0][1][2]......[MAX_ORDER]          lock: the zone lock
//! ```
//!
//! # Locks
//!
//! 1. the lock of one per-CPU set
//! 2. the zone lock, always with interrupts masked
//!
//! Never two sets at once. A set's lock is taken without masking interrupts by its own CPU, which
//! only tries, but to drain; under `owner` a free in task context waits for the owner's lock with interrupts
//! masked. Interrupt context only ever tries a set's lock, because the interrupted code may hold it,
//! and goes to the zone instead. Under `split` no CPU takes another's lock to free a page: it pushes
//! the page on that CPU's [`remote`] list without a lock.
//!
//! # Who owns what
//!
//! A block gets an owner in refill phase 1, when it is taken whole; it loses it when it is whole in
//! the zone again, whichever way its pages came there. In between the owner is stable for whoever
//! holds a page of the block, which is what lets the free path read it without a lock. Pages that a
//! set got in phases 2 and 3 are cached there for batching only: they are never marked mergeable, so
//! a merge pass, which acts on marked chunks of its own CPU's blocks only, cannot touch a chunk that
//! sits on another CPU's set.
//!
//! # Invariants
//!
//! * I1: a chunk on a list has the state that names that list's place, order and type; list lengths
//!   are as counted.
//! * I2: the page counts of zone and sets are the sums over their lists.
//! * I3: a mergeable chunk on the set of CPU c lies in a block owned by c.
//! * I4: a chunk in the zone is on the list of its block's type, and no two buddies below block
//!   order are both free there.
//! * I5: a block that is whole in the zone has no owner and is on no recovery list.
//! * I6: a block on the recovery list of CPU c and type t is owned by c and of type t.
//! * I7: the chunks, free and allocated, cover every page of every range exactly once.
//! * I8: set and remote list of a dead CPU are empty.
//!
//! [`check`] recounts all of them. Sources: mainline `mm/page_alloc.c` of 7.3 (names in the
//! functions' comments), and "mm: page_alloc: pcp buddy allocator", RFC of 2026-04-03, with what its
//! review asked for: recovery lists per type, CMA blocks recovered and balanced; "split-path PCP free",
//! RFC of 2026-05-20.

// KUnit wraps tests in unsafe code, so the host build watches over this.
#![cfg_attr(not(any(MODULE, loom)), forbid(unsafe_code))]

mod page_map;

mod free_area;
mod pageblock;

mod pcp;
mod remote;
mod zone;

mod drain;
mod refill;

mod allocator;
mod batch;
mod check;

pub use self::allocator::ListAllocator;
