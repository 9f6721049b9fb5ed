// SPDX-License-Identifier: GPL-2.0

//! The host's side of the platform: std, or loom's model of it under `cfg(loom)`.

use super::{CachePadded, Irq, LockClass};
use crate::mm::types::{CpuIdx, Error, Result};

#[cfg(not(loom))]
use std::sync::{atomic, Mutex, MutexGuard};

#[cfg(loom)]
use loom::sync::{atomic, Mutex, MutexGuard};

use atomic::Ordering;

/// A fixed-size array on the heap.
pub struct Array<T>(Vec<T>);

impl<T> Array<T> {
    /// An array of `len` elements, element `i` being `init(i)`.
    ///
    /// # Errors
    ///
    /// `NoMemory` if there is no room for it.
    pub fn new(len: usize, init: impl FnMut(usize) -> T) -> Result<Array<T>> {
        let mut v = Vec::new();
        v.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
        v.extend((0..len).map(init));
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

/// Makes loom try every order of accesses to a word.
///
/// Loom (0.7) remembers the last access to each word only. Where a thread reads a word before it changes
/// it, that hides what another thread had read before, and loom never tries the change first. A
/// read-modify-write of a word of its own beside every access makes each depend on the one before, and orders
/// nothing else, being relaxed.
#[cfg(loom)]
#[derive(Debug)]
struct Visits(atomic::AtomicU32);

#[cfg(loom)]
impl Visits {
    fn new() -> Visits {
        Visits(atomic::AtomicU32::new(0))
    }

    fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Nothing, outside of models.
#[cfg(not(loom))]
#[derive(Debug)]
struct Visits;

#[cfg(not(loom))]
impl Visits {
    #[inline(always)]
    fn new() -> Visits {
        Visits
    }

    #[inline(always)]
    fn count(&self) {}
}

macro_rules! atomic_word {
    ($name:ident, $int:ty, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug)]
        pub struct $name(atomic::$name, Visits);

        impl $name {
            /// A word with a first value.
            pub fn new(value: $int) -> Self {
                Self(atomic::$name::new(value), Visits::new())
            }

            /// Reads without ordering (`READ_ONCE()`).
            #[inline]
            pub fn load(&self) -> $int {
                self.1.count();
                self.0.load(Ordering::Relaxed)
            }

            /// Writes without ordering (`WRITE_ONCE()`).
            #[inline]
            pub fn store(&self, value: $int) {
                self.1.count();
                self.0.store(value, Ordering::Relaxed)
            }

            /// Reads with acquire ordering.
            #[inline]
            pub fn load_acquire(&self) -> $int {
                self.1.count();
                self.0.load(Ordering::Acquire)
            }

            /// Writes with release ordering.
            #[inline]
            pub fn store_release(&self, value: $int) {
                self.1.count();
                self.0.store(value, Ordering::Release)
            }

            /// Adds to a word that only this CPU writes; here nothing interrupts.
            #[inline]
            pub fn add_local(&self, by: $int) {
                self.store(self.load().wrapping_add(by));
            }

            /// Sets the bits of `mask`, with acquire and release ordering; returns what the word
            /// was.
            #[inline]
            pub fn or(&self, mask: $int) -> $int {
                self.1.count();
                self.0.fetch_or(mask, Ordering::AcqRel)
            }

            /// Keeps the bits of `mask` only, with acquire and release ordering; returns what the word
            /// was.
            #[inline]
            pub fn and(&self, mask: $int) -> $int {
                self.1.count();
                self.0.fetch_and(mask, Ordering::AcqRel)
            }

            /// Swaps in a value, fully ordered.
            #[inline]
            pub fn swap(&self, value: $int) -> $int {
                self.1.count();
                self.0.swap(value, Ordering::AcqRel)
            }

            /// Stores `new` if the word is `old`; fully ordered; else returns what it is.
            #[inline]
            pub fn cmpxchg(&self, old: $int, new: $int) -> core::result::Result<$int, $int> {
                self.1.count();
                self.0
                    .compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
            }
        }
    };
}

/// Orders a fully ordered read-modify-write before what follows it. Rust's read-modify-writes order
/// less than the kernel's; this makes up for it.
#[inline]
pub fn mb_after_atomic() {
    atomic::fence(Ordering::SeqCst);
}

/// A full memory barrier.
#[inline]
pub fn mb() {
    atomic::fence(Ordering::SeqCst);
}

/// The cheap half of an asymmetric barrier: orders for those who use [`barrier_heavy`].
#[inline]
pub fn barrier_light() {
    #[cfg(loom)]
    atomic::fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// The dear half: when it returns, every [`barrier_light`] on that CPU has either taken effect or
/// comes after what the caller wrote before. Here for all threads of the process at once.
pub fn barrier_heavy(_cpu: CpuIdx) {
    #[cfg(loom)]
    atomic::fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    membarrier();
}

#[cfg(not(loom))]
fn membarrier() {
    use std::sync::Once;
    static REGISTER: Once = Once::new();
    let call = |command: libc::c_int| {
        // SAFETY: `membarrier(2)` touches no memory of ours.
        let status = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
        assert_eq!(status, 0, "membarrier(2) is needed for the tests");
    };
    REGISTER.call_once(|| call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED));
    call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
}

/// Proof that the caller stays on its CPU, undisturbed by other tasks.
pub struct Pinned;

/// Keeps the caller on its CPU until the value is dropped. A thread stands for a CPU here.
#[inline]
pub fn pin() -> Pinned {
    Pinned
}

/// Waits a moment in a busy loop.
pub fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::thread::yield_now();
}

atomic_word!(AtomicU32, u32, "A 32-bit word shared between CPUs.");
atomic_word!(AtomicU64, u64, "A 64-bit word shared between CPUs.");

/// A lock around a value. There are no interrupts to mask on the host.
pub struct Lock<T>(Mutex<T>);

/// The right to use the value of a [`Lock`]; unlocks when dropped.
pub struct Guard<'a, T>(MutexGuard<'a, T>);

impl<T> Lock<T> {
    /// `len` locks of one class, each on cache lines of its own.
    ///
    /// # Errors
    ///
    /// `NoMemory` if there is no room for them.
    pub fn array(
        len: usize,
        _class: LockClass,
        mut init: impl FnMut(usize) -> T,
    ) -> Result<Array<CachePadded<Lock<T>>>> {
        Array::new(len, |i| CachePadded(Lock(Mutex::new(init(i)))))
    }

    /// Waits for the lock.
    pub fn lock(&self, _irq: Irq) -> Guard<'_, T> {
        Guard(self.0.lock().expect("a holder of the lock panicked"))
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self, _irq: Irq) -> Option<Guard<'_, T>> {
        self.0.try_lock().ok().map(Guard)
    }
}

impl<T> core::ops::Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> core::ops::DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A monotonic clock, in nanoseconds.
pub fn now_ns() -> u64 {
    use std::{sync::OnceLock, time::Instant};
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// A clock that is quick to read, for short times on one CPU. [`ticks_to_ns`] knows its unit.
pub fn ticks() -> u64 {
    now_ns()
}

/// Nanoseconds of a number of [`ticks`].
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ticks
}
