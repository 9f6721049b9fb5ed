// SPDX-License-Identifier: GPL-2.0

//! The kernel's side of the platform: atomics of the `kernel` crate, `spinlock_t`, kvmalloc.
//!
//! It protects the core from the kernel: lock state, interrupt flags and allocation live here, so
//! that lists and buddies need no `unsafe` code. It never sleeps but in [`Array::new`], and never
//! takes a lock by itself.

use super::{CachePadded, Irq, LockClass};
use crate::mm::types::{CpuIdx, Error, Result};
use ::kernel::{
    alloc::{
        flags::{
            __GFP_NOWARN,
            GFP_KERNEL, //
        },
        KVVec, //
    },
    bindings,
    ffi::{c_int, c_uint, c_ulong},
    sync::atomic::{
        Atomic,
        Full,
        Relaxed, //
    },
    time::{delay::fsleep, Delta},
    types::{NotThreadSafe, Opaque},
};
use core::{
    cell::UnsafeCell,
    sync::atomic::{
        compiler_fence,
        fence,
        Ordering, //
    }, //
};

extern "C" {
    /// `spin_lock_init()` with one lockdep class per value of `class`.
    fn pcpb_lock_init(lock: *mut bindings::spinlock_t, class: c_int);
    /// `spin_lock_irqsave()`; returns the flags.
    fn pcpb_lock_irqsave(lock: *mut bindings::spinlock_t) -> c_ulong;
    /// `spin_trylock_irqsave()`; whether it has the lock.
    fn pcpb_trylock_irqsave(lock: *mut bindings::spinlock_t, flags: *mut c_ulong) -> bool;
    /// `smp_call_function_single()` of a callback that does nothing, and waits for it.
    fn pcpb_interrupt_cpu(cpu: c_uint);
    /// `preempt_disable()`.
    #[cfg(CONFIG_PREEMPT_COUNT)]
    fn pcpb_preempt_disable();
    /// `preempt_enable()`.
    #[cfg(CONFIG_PREEMPT_COUNT)]
    fn pcpb_preempt_enable();
    /// `spin_unlock_irqrestore()`.
    fn pcpb_unlock_irqrestore(lock: *mut bindings::spinlock_t, flags: c_ulong);
}

/// A fixed-size array on the heap. Its elements never move: nothing here grows it.
pub struct Array<T>(KVVec<T>);

impl<T> Array<T> {
    /// An array of `len` elements, element `i` being `init(i)`. May sleep.
    ///
    /// # Errors
    ///
    /// `NoMemory` if there is no room for it.
    pub fn new(len: usize, mut init: impl FnMut(usize) -> T) -> Result<Array<T>> {
        // Whoever asked is told in words.
        let flags = GFP_KERNEL | __GFP_NOWARN;
        let mut v = KVVec::with_capacity(len, flags).map_err(|_| Error::NoMemory)?;
        for i in 0..len {
            v.push_within_capacity(init(i))
                .map_err(|_| Error::NoMemory)?;
        }
        Ok(Array(v))
    }
}

impl<T> core::ops::Deref for Array<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> core::ops::DerefMut for Array<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

macro_rules! atomic_word {
    ($name:ident, $core:ty, $int:ty, $size:literal, $register:literal, $doc:literal) => {
        #[doc = $doc]
        ///
        /// Unordered loads and stores are volatile accesses (`READ_ONCE()`, `WRITE_ONCE()`), which
        /// is what `atomic_read()` and `atomic_set()` are; those of the `kernel` crate are calls
        /// of C helpers where helpers cannot be inlined (gcc builds), too dear for a counter.
        pub struct $name(Atomic<$int>);

        impl $name {
            /// A word with a first value.
            #[inline]
            pub fn new(value: $int) -> Self {
                Self(Atomic::new(value))
            }

            /// Reads without ordering (`READ_ONCE()`).
            #[inline(always)]
            pub fn load(&self) -> $int {
                // SAFETY: `Atomic::as_ptr()` guarantees a valid, aligned pointer. A volatile read
                // of a naturally aligned word is single-copy atomic, as `READ_ONCE()` has it; all
                // other accesses are volatile or atomic too.
                unsafe { self.0.as_ptr().read_volatile() }
            }

            /// Writes without ordering (`WRITE_ONCE()`).
            #[inline(always)]
            pub fn store(&self, value: $int) {
                // SAFETY: As in `load()`, with `WRITE_ONCE()`. Plain stores beside atomic
                // read-modify-writes are sound where the architecture has those natively
                // (`CONFIG_ARCH_SUPPORTS_ATOMIC_RMW`), which the `kernel` crate asserts.
                unsafe { self.0.as_ptr().write_volatile(value) }
            }

            /// Reads with acquire ordering (`smp_load_acquire()`); inline for the same reason as
            /// `load()`. On x86 the fence is one for the compiler only.
            #[inline(always)]
            pub fn load_acquire(&self) -> $int {
                let value = self.load();
                fence(Ordering::Acquire);
                value
            }

            /// Writes with release ordering (`smp_store_release()`).
            #[inline(always)]
            pub fn store_release(&self, value: $int) {
                fence(Ordering::Release);
                self.store(value);
            }

            /// Sets the bits of `mask`, with acquire and release ordering; returns what the word was.
            /// The `kernel` crate has no such operation; this one is inline, and a single `lock bts`
            /// on x86 for a mask of one bit.
            #[inline(always)]
            pub fn or(&self, mask: $int) -> $int {
                // SAFETY: The pointer is valid and aligned for as long as `self` is, and all other
                // accesses are volatile or atomic.
                unsafe { <$core>::from_ptr(self.0.as_ptr()) }.fetch_or(mask, Ordering::AcqRel)
            }

            /// Keeps the bits of `mask` only, with acquire and release ordering; returns what the word was.
            #[inline(always)]
            pub fn and(&self, mask: $int) -> $int {
                // SAFETY: As in `or()`.
                unsafe { <$core>::from_ptr(self.0.as_ptr()) }.fetch_and(mask, Ordering::AcqRel)
            }

            /// Adds to a word that only this CPU writes (`this_cpu_add()`). On x86-64 one
            /// instruction, so that no interrupt comes in between; elsewhere one that adds to the
            /// same word may be lost.
            #[inline(always)]
            pub fn add_local(&self, by: $int) {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: The pointer is valid and aligned for as long as `self` is, and the value
                // an integer, to which everything is a value. Nothing else is touched.
                unsafe {
                    core::arch::asm!(
                        concat!("add ", $size, " ptr [{word}], {by:", $register, "}"),
                        word = in(reg) self.0.as_ptr(),
                        by = in(reg) by,
                        options(nostack),
                    )
                };
                #[cfg(not(target_arch = "x86_64"))]
                self.store(self.load().wrapping_add(by));
            }

            /// Swaps in a value, fully ordered.
            #[inline]
            pub fn swap(&self, value: $int) -> $int {
                self.0.xchg(value, Full)
            }

            /// Stores `new` if the word is `old`, fully ordered; else returns what it is.
            #[inline]
            pub fn cmpxchg(&self, old: $int, new: $int) -> core::result::Result<$int, $int> {
                self.0.cmpxchg(old, new, Full)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Debug::fmt(&self.load(), f)
            }
        }
    };
}

/// A full memory barrier (`smp_mb()`).
#[inline]
pub fn mb() {
    fence(Ordering::SeqCst);
}

/// The cheap half of an asymmetric barrier: keeps the compiler from reordering. The CPU may, until
/// [`barrier_heavy`] makes it stop.
#[inline(always)]
pub fn barrier_light() {
    compiler_fence(Ordering::SeqCst);
}

/// The dear half: interrupts that CPU and waits for it, so that every [`barrier_light`] on it has
/// either taken effect or comes after what the caller wrote before. A CPU that is offline has
/// nothing to order. Task context, interrupts on.
pub fn barrier_heavy(cpu: CpuIdx) {
    // SAFETY: The call takes any CPU number; the callback does nothing.
    unsafe { pcpb_interrupt_cpu(cpu.0) };
}

/// Proof that the caller stays on its CPU, undisturbed by other tasks: preemption is off.
pub struct Pinned(NotThreadSafe);

/// Keeps the caller on its CPU until the value is dropped.
#[inline(always)]
pub fn pin() -> Pinned {
    // SAFETY: Balanced in `drop()`, on the same thread, since `Pinned` cannot be sent.
    #[cfg(CONFIG_PREEMPT_COUNT)]
    unsafe {
        pcpb_preempt_disable()
    };
    // Without a preemption count kernel code is not preempted; the compiler must not move what
    // follows up (`preempt_disable()` is `barrier()` then).
    barrier_light();
    Pinned(NotThreadSafe)
}

impl Drop for Pinned {
    #[inline(always)]
    fn drop(&mut self) {
        barrier_light();
        // SAFETY: Balances `pin()`.
        #[cfg(CONFIG_PREEMPT_COUNT)]
        unsafe {
            pcpb_preempt_enable()
        };
    }
}

/// Waits a moment in a busy loop (`cpu_relax()`).
#[inline]
pub fn relax() {
    core::hint::spin_loop();
}

/// Orders a read-modify-write before what follows it (`smp_mb__after_atomic()`): on x86 it is so
/// already.
#[inline(always)]
pub fn mb_after_atomic() {
    #[cfg(not(CONFIG_X86_64))]
    fence(Ordering::SeqCst);
    compiler_fence(Ordering::SeqCst);
}

atomic_word!(
    AtomicU32,
    core::sync::atomic::AtomicU32,
    u32,
    "dword",
    "e",
    "A 32-bit word shared between CPUs."
);
atomic_word!(
    AtomicU64,
    core::sync::atomic::AtomicU64,
    u64,
    "qword",
    "r",
    "A 64-bit word shared between CPUs."
);

/// A spinlock around a value; each call says whether it also masks interrupts.
///
/// # Invariants
///
/// `raw` is an initialised `spinlock_t` that stays at its address: locks are only made by
/// [`Lock::array`], which hands them out behind an [`Array`].
pub struct Lock<T> {
    raw: Opaque<bindings::spinlock_t>,
    value: UnsafeCell<T>,
}

// SAFETY: Sending the lock sends the value; a `spinlock_t` that nobody holds has no thread.
unsafe impl<T: Send> Send for Lock<T> {}

// SAFETY: The value is reached through a `Guard` only, that is, by one holder of the spinlock at a
// time, so sharing the lock moves access to the value between threads: `T: Send`.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The right to use the value of a [`Lock`]; unlocks when dropped.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
    /// Interrupt state to go back to, if the lock was taken with [`Irq::Save`].
    flags: Option<c_ulong>,
    /// A spinlock is released by the thread that took it.
    _not_send: NotThreadSafe,
}

impl<T> Lock<T> {
    /// `len` locks of one class, each on cache lines of its own. May sleep.
    ///
    /// # Errors
    ///
    /// `NoMemory` if there is no room for them.
    pub fn array(
        len: usize,
        class: LockClass,
        mut init: impl FnMut(usize) -> T,
    ) -> Result<Array<CachePadded<Lock<T>>>> {
        let locks = Array::new(len, |i| {
            CachePadded(Lock {
                raw: Opaque::uninit(),
                value: UnsafeCell::new(init(i)),
            })
        })?;
        for lock in locks.iter() {
            // SAFETY: `raw` is memory for a `spinlock_t`, exclusively ours until we return.
            // INVARIANT: This initialises it where it stays, in the buffer of the array.
            unsafe { pcpb_lock_init(lock.raw.get(), class as c_int) };
        }
        Ok(locks)
    }

    /// Waits for the lock.
    #[inline]
    pub fn lock(&self, irq: Irq) -> Guard<'_, T> {
        let flags = match irq {
            Irq::Keep => {
                // SAFETY: `raw` is initialised by the type invariant.
                unsafe { bindings::spin_lock(self.raw.get()) };
                None
            }
            // SAFETY: `raw` is initialised by the type invariant.
            Irq::Save => Some(unsafe { pcpb_lock_irqsave(self.raw.get()) }),
        };
        self.guard(flags)
    }

    /// Takes the lock if nobody holds it.
    #[inline]
    pub fn try_lock(&self, irq: Irq) -> Option<Guard<'_, T>> {
        let mut flags = 0;
        let (taken, flags) = match irq {
            // SAFETY: `raw` is initialised by the type invariant.
            Irq::Keep => (unsafe { bindings::spin_trylock(self.raw.get()) } != 0, None),
            Irq::Save => (
                // SAFETY: `raw` is initialised by the type invariant, `flags` is a local variable.
                unsafe { pcpb_trylock_irqsave(self.raw.get(), &mut flags) },
                Some(flags),
            ),
        };
        taken.then(|| self.guard(flags))
    }

    /// The guard of a lock that was taken just now.
    #[inline]
    fn guard(&self, flags: Option<c_ulong>) -> Guard<'_, T> {
        Guard {
            lock: self,
            flags,
            _not_send: NotThreadSafe,
        }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let raw = self.lock.raw.get();
        match self.flags {
            // SAFETY: A guard exists only while its lock is held, taken without flags.
            None => unsafe { bindings::spin_unlock(raw) },
            // SAFETY: A guard exists only while its lock is held; these are the flags it saved.
            Some(flags) => unsafe { pcpb_unlock_irqrestore(raw, flags) },
        }
    }
}

impl<T> core::ops::Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: The lock is held as long as the guard lives, so nobody else has the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> core::ops::DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: As in `deref()`; the guard itself is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

/// A monotonic clock, in nanoseconds.
pub fn now_ns() -> u64 {
    // SAFETY: `ktime_get()` may be called from any context. CAST: it is never negative.
    unsafe { bindings::ktime_get() as u64 }
}

/// A clock that is quick to read, for short times on one CPU. [`ticks_to_ns`] knows its unit.
///
/// On x86-64 the time stamp counter, since User Mode Linux's own clock goes in steps of 256 ns; elsewhere
/// nanoseconds.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: Every x86-64 CPU has the instruction.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    now_ns()
}

/// Nanoseconds of 2^16 ticks; set by [`measure_ticks`].
static NS_OF_TICKS: Atomic<u32> = Atomic::new(1 << 16);

/// Nanoseconds of a number of [`ticks`].
pub fn ticks_to_ns(ticks: u64) -> u64 {
    let ns = u64::from(NS_OF_TICKS.load(Relaxed));
    (ticks >> 16).saturating_mul(ns) + (((ticks & 0xffff) * ns) >> 16)
}

/// Finds out how long a tick is; takes about 2 ms. May sleep. Once, before anything is timed.
pub fn measure_ticks() {
    let start = (now_ns(), ticks());
    fsleep(Delta::from_millis(2));
    let (ns, ticks) = (now_ns() - start.0, ticks().saturating_sub(start.1));
    let ns_of_ticks = (ns << 16).checked_div(ticks).unwrap_or(1 << 16);
    // CAST: a clock of less than a tick in 64 us is none.
    NS_OF_TICKS.store(ns_of_ticks.clamp(1, u64::from(u32::MAX)) as u32, Relaxed);
}
