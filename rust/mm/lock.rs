// SPDX-License-Identifier: GPL-2.0

//! Locks that count how they are taken and, when that is switched on, how long.
//!
//! The figures live beside the value, under the lock itself, so they are exact and cost no cache
//! line of their own. The switch is a word that is read at every acquisition.

use super::{
    platform::{ticks, ticks_to_ns, Array, AtomicU32, CachePadded, Guard, Irq, Lock, LockClass},
    types::Result,
};
use core::fmt;

/// Buckets of a [`Log2`]: up to four seconds.
const NR_BUCKETS: usize = 32;

/// How many times were how long: bucket 0 is below 2 ns, bucket `i` from `2^i` ns to below twice that, the
/// last one has all that is longer.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Log2([u64; NR_BUCKETS]);

impl Log2 {
    fn count(&mut self, ns: u64) {
        let bucket = ns.max(1).ilog2() as usize;
        self.0[bucket.min(NR_BUCKETS - 1)] += 1;
    }

    /// Number of times.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The change since `before`; 0 where a reset came in between.
    pub fn since(&self, before: &Log2) -> Log2 {
        Log2(core::array::from_fn(|i| {
            self.0[i].saturating_sub(before.0[i])
        }))
    }
}

impl core::ops::AddAssign<&Log2> for Log2 {
    fn add_assign(&mut self, other: &Log2) {
        for (sum, nr) in self.0.iter_mut().zip(other.0) {
            *sum += nr;
        }
    }
}

/// The buckets up to the last one that is not empty, in a row.
impl fmt::Display for Log2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.0.iter().rposition(|&nr| nr != 0).map_or(1, |i| i + 1);
        self.0[0].fmt(f)?;
        self.0[1..len].iter().try_for_each(|nr| write!(f, " {nr}"))
    }
}

/// Times around acquisitions while they are taken.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LockTimes {
    /// From asking for the lock to having it.
    pub wait: Log2,
    /// From having it to giving it back.
    pub hold: Log2,
}

impl core::ops::AddAssign<&LockTimes> for LockTimes {
    fn add_assign(&mut self, other: &LockTimes) {
        self.wait += &other.wait;
        self.hold += &other.hold;
    }
}

/// How often a lock was taken.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LockFigures {
    /// Times that the lock was acquired.
    pub acquired: u64,
    /// Times among them that somebody else held it and it had to be waited for.
    pub contended: u64,
    /// Times among the acquired that interrupts were masked for it.
    pub irq_off: u64,
}

impl core::ops::AddAssign for LockFigures {
    fn add_assign(&mut self, other: LockFigures) {
        self.acquired += other.acquired;
        self.contended += other.contended;
        self.irq_off += other.irq_off;
    }
}

/// A value and the figures of the lock around it.
struct Counted<T> {
    figures: LockFigures,
    /// When the lock was acquired, while it is held; 0 if times are not taken.
    acquired: u64,
    value: T,
    times: LockTimes,
}

/// Locks of one class that count their acquisitions, each on cache lines of its own.
pub struct CountedLocks<T> {
    locks: Array<CachePadded<Lock<Counted<T>>>>,
    /// Whether times are taken.
    timed: AtomicU32,
}

/// The right to use the value of one lock; unlocks when dropped.
pub struct CountedGuard<'a, T>(Guard<'a, Counted<T>>);

impl<T> Drop for CountedGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.acquired != 0 {
            self.0.count_hold();
        }
    }
}

impl<T> Counted<T> {
    /// Counts the wait since `asked`, and begins to take the hold time.
    #[cold]
    #[inline(never)]
    fn count_wait(&mut self, asked: u64) {
        self.times.wait.count(ns_since(asked));
        self.acquired = ticks().max(1);
    }

    #[cold]
    #[inline(never)]
    fn count_hold(&mut self) {
        self.times.hold.count(ns_since(self.acquired));
        self.acquired = 0;
    }
}

fn ns_since(start: u64) -> u64 {
    ticks_to_ns(ticks().saturating_sub(start))
}

impl<T> CountedLocks<T> {
    /// `len` locks, lock `i` around `init(i)`.
    ///
    /// # Errors
    ///
    /// `NoMemory` if there is no room for them.
    pub fn new(
        len: usize,
        class: LockClass,
        mut init: impl FnMut(usize) -> T,
    ) -> Result<CountedLocks<T>> {
        let counted = |i| Counted {
            figures: LockFigures::default(),
            acquired: 0,
            value: init(i),
            times: LockTimes::default(),
        };
        Ok(CountedLocks {
            locks: Lock::array(len, class, counted)?,
            timed: AtomicU32::new(0),
        })
    }

    /// Number of locks.
    pub fn count(&self) -> usize {
        self.locks.len()
    }

    /// Waits for lock `i`.
    #[inline]
    pub fn lock(&self, i: usize, irq: Irq) -> CountedGuard<'_, T> {
        if self.timed.load() != 0 {
            return self.lock_timed(i, irq);
        }
        let lock = &self.locks[i];
        match lock.try_lock(irq) {
            Some(guard) => CountedGuard::new(guard, irq, false),
            None => CountedGuard::new(lock.lock(irq), irq, true),
        }
    }

    /// Takes lock `i` if nobody holds it.
    #[inline]
    pub fn try_lock(&self, i: usize, irq: Irq) -> Option<CountedGuard<'_, T>> {
        let guard = self.locks[i].try_lock(irq)?;
        let mut guard = CountedGuard::new(guard, irq, false);
        if self.timed.load() != 0 {
            guard.0.count_wait(ticks());
        }
        Some(guard)
    }

    #[cold]
    #[inline(never)]
    fn lock_timed(&self, i: usize, irq: Irq) -> CountedGuard<'_, T> {
        let (lock, asked) = (&self.locks[i], ticks());
        let mut guard = match lock.try_lock(irq) {
            Some(guard) => CountedGuard::new(guard, irq, false),
            None => CountedGuard::new(lock.lock(irq), irq, true),
        };
        guard.0.count_wait(asked);
        guard
    }

    /// Takes lock `i` to look at the value, uncounted: for reports and checks.
    pub fn inspect(&self, i: usize) -> CountedGuard<'_, T> {
        CountedGuard(self.locks[i].lock(Irq::Save))
    }
}

/// What can be asked of locks whatever they protect.
pub trait Locks {
    /// The figures summed over the locks.
    fn figures(&self) -> LockFigures;

    /// Adds the times of all locks to `sum`.
    fn add_times(&self, sum: &mut LockTimes);

    /// Switches on, or off, that times are taken.
    fn time(&self, on: bool);

    /// Sets all figures and times to zero.
    fn reset(&self);
}

impl<T> Locks for CountedLocks<T> {
    fn figures(&self) -> LockFigures {
        let mut sum = LockFigures::default();
        for i in 0..self.count() {
            sum += self.inspect(i).0.figures;
        }
        sum
    }

    fn add_times(&self, sum: &mut LockTimes) {
        for i in 0..self.count() {
            *sum += &self.inspect(i).0.times;
        }
    }

    fn time(&self, on: bool) {
        self.timed.store(on.into());
    }

    fn reset(&self) {
        for i in 0..self.count() {
            let counted = &mut self.inspect(i).0;
            counted.figures = LockFigures::default();
            counted.times = LockTimes::default();
        }
    }
}

impl<'a, T> CountedGuard<'a, T> {
    #[inline(always)]
    fn new(mut guard: Guard<'a, Counted<T>>, irq: Irq, contended: bool) -> Self {
        guard.figures.count(irq, contended);
        CountedGuard(guard)
    }
}

impl LockFigures {
    fn count(&mut self, irq: Irq, contended: bool) {
        self.acquired += 1;
        self.contended += u64::from(contended);
        self.irq_off += u64::from(irq == Irq::Save);
    }
}

impl<T> core::ops::Deref for CountedGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> core::ops::DerefMut for CountedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.value
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_lock))]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        let mut times = Log2::default();
        for ns in [0, 1, 2, 3, 4, 1023, 1024, u64::MAX] {
            times.count(ns);
        }
        for (bucket, nr) in [(0, 2), (1, 2), (2, 1), (9, 1), (10, 1), (31, 1), (3, 0)] {
            assert_eq!(times.0[bucket], nr);
        }
        assert_eq!(times.total(), 8);
    }

    #[test]
    fn times_are_taken_while_that_is_on() {
        let locks = CountedLocks::new(2, LockClass::Zone, |i| i).unwrap();
        let mut times = LockTimes::default();
        drop(locks.lock(0, Irq::Save));
        locks.add_times(&mut times);
        assert_eq!(times.wait.total(), 0);
        locks.time(true);
        drop(locks.lock(0, Irq::Save));
        drop(locks.try_lock(1, Irq::Save));
        locks.time(false);
        drop(locks.lock(1, Irq::Save));
        locks.add_times(&mut times);
        assert_eq!(times.wait.total(), 2);
        assert_eq!(times.hold.total(), 2);
        assert_eq!(locks.figures().acquired, 4);
        locks.reset();
        let mut none = LockTimes::default();
        locks.add_times(&mut none);
        assert!(none == LockTimes::default());
    }
}
