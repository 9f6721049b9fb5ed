// SPDX-License-Identifier: GPL-2.0

//! All that the core asks of its host: atomic words, locks, fixed-size arrays.
//!
//! Two implementations with one interface: `kernel` over the `kernel` crate when this is compiled
//! by kbuild (`cfg(MODULE)`), `host` over std, or over loom's model when `cfg(loom)`. This folder
//! is the only place of the core with `unsafe` code or a `kernel::` path.

#[cfg(MODULE)]
mod kernel;
#[cfg(all(MODULE, CONFIG_KUNIT))]
pub(crate) use ::kernel::macros::kunit_tests;

#[cfg(MODULE)]
pub use self::kernel::{
    barrier_heavy,
    barrier_light,
    mb,
    mb_after_atomic,
    measure_ticks,
    now_ns,
    pin,
    relax,
    ticks,
    ticks_to_ns,
    Array,
    AtomicU32,
    AtomicU64,
    Guard,
    Lock,
    Pinned, //
};

#[cfg(not(MODULE))]
mod host;
#[cfg(not(MODULE))]
pub use self::host::{
    barrier_heavy,
    barrier_light,
    mb,
    mb_after_atomic,
    now_ns,
    pin,
    relax,
    ticks,
    ticks_to_ns,
    Array,
    AtomicU32,
    AtomicU64,
    Guard,
    Lock,
    Pinned, //
};

/// Whether taking a lock also masks interrupts on this CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Irq {
    /// Leave interrupts as they are.
    Keep,
    /// Save and disable, restore at unlock (`spin_lock_irqsave()`).
    Save,
}

/// Which lockdep class a lock belongs to. Lock order: `Hand`, `Pcp` or `Shared`, `Zone`; never two of
/// a class, but for hands, which are only tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockClass {
    /// The lock of a zone.
    Zone,
    /// The lock of a per-CPU set, which an interrupt only tries.
    Pcp,
    /// The lock of a set that belongs to no CPU, which interrupts wait for as well.
    Shared,
    /// The lock of what a workload's interrupts hold.
    Hand,
}

/// A value on cache lines of its own.
#[repr(align(64))]
pub struct CachePadded<T>(pub T);

impl<T> core::ops::Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
