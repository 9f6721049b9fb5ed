// SPDX-License-Identifier: GPL-2.0

//! Workloads: what runs on a zone to see where the time and the contiguity go.
//!
//! Kernel-agnostic: the caller brings the allocator, one thread per CPU and a [`Machine`].
//! A run goes like this:
//!
//! 1. [`Plan::new`] lays out everything that the workers share; [`Counters::take`] looks at the
//!    zone's counters before the run.
//! 2. For each `worker` in `0..plan.nr_workers()` a thread on CPU `plan.cpu_of(worker)` calls
//!    [`Plan::run_worker`] once. It does all repetitions and returns with nothing left allocated.
//!    If a thread cannot be had, [`Plan::abort`] sends those home that were started already.
//! 3. If the run has interrupts (`context=`), somebody calls [`Plan::interrupt`] meanwhile, and
//!    [`Plan::end_interrupts`] after the last of them.
//! 4. When all have returned, [`Plan::into_report`] makes of it what `NAME/result` shows.

// KUnit wraps tests in unsafe code, so the host build watches over this.
#![cfg_attr(not(MODULE), forbid(unsafe_code))]

pub mod cpus;
pub mod spec;

mod barrier;
mod chunk;
mod latency;
mod ledger;
mod ring;
mod rng;

mod plan;
mod report;
mod worker;

mod frag;
mod handover;
mod interrupts;
mod sets;
mod solo;
mod stress;

use crate::mm::types::{CpuIdx, Order};

pub use self::{
    ledger::Promise,
    plan::{
        Plan,
        PlanError,
        ZoneFacts, //
    },
    report::{
        Counters,
        Errors,
        Report,
        Verdict, //
    }, //
};

/// 64-bit words in a page.
pub const PAGE_WORDS: u32 = 512;

/// What workers ask of the machine they run on. `P` names a page of the allocator under test.
/// Each worker calls on its own thread; all of it in task context with no lock held.
pub trait Machine<P: Copy>: Memory<P> {
    /// A monotonic clock that all CPUs share, in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Lets others run on this CPU if they need it (`cond_resched()`). If the CPU goes offline,
    /// this lasts until it is back, or the run is to end.
    fn give_way(&self);

    /// Passes a little time because there is nothing to do; may sleep. CPUs as in
    /// [`Machine::give_way`].
    fn wait(&self);

    /// The CPU that the worker is on, which is `home`, the one it is meant for, as long as that is
    /// online. It stays there but for [`Machine::give_way`] and [`Machine::wait`].
    fn cpu(&self, home: CpuIdx) -> CpuIdx {
        home
    }

    /// Whether the run shall end early: somebody waits with a signal.
    fn stop_requested(&self) -> bool;
}

/// The memory that an allocator gives out. Any context.
pub trait Memory<P: Copy> {
    /// Writes word `word`, `0..PAGE_WORDS`, of the page `nr` pages after `page`, which belongs to
    /// a chunk that the caller has allocated.
    fn write_word(&self, page: P, nr: u32, word: u32, value: u64);

    /// Reads what [`Memory::write_word`] writes.
    fn read_word(&self, page: P, nr: u32, word: u32) -> u64;

    /// Whether the memory of a chunk that the caller has allocated, and that begins with `page`, is
    /// aligned as one of `order` has to be.
    fn is_aligned(&self, page: P, order: Order) -> bool;

    /// A page as a number, to be handed to another CPU.
    fn to_bits(page: P) -> u64;

    /// The inverse of [`Memory::to_bits`], only ever given what came from it.
    fn from_bits(bits: u64) -> P;
}
