// SPDX-License-Identifier: GPL-2.0

//! Locks that count how they are taken.
//!
//! The figures live beside the value, under the lock itself, so they are exact and cost no cache
//! line of their own.

use super::{
    platform::{Array, CachePadded, Guard, Irq, Lock, LockClass},
    types::Result,
};

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
    value: T,
}

/// Locks of one class that count their acquisitions, each on cache lines of its own.
pub struct CountedLocks<T>(Array<CachePadded<Lock<Counted<T>>>>);

/// The right to use the value of one lock; unlocks when dropped.
pub struct CountedGuard<'a, T>(Guard<'a, Counted<T>>);

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
            value: init(i),
        };
        Ok(CountedLocks(Lock::array(len, class, counted)?))
    }

    /// Number of locks.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Waits for lock `i`.
    #[inline]
    pub fn lock(&self, i: usize, irq: Irq) -> CountedGuard<'_, T> {
        let lock = &self.0[i];
        let (mut guard, contended) = match lock.try_lock(irq) {
            Some(guard) => (guard, false),
            None => (lock.lock(irq), true),
        };
        guard.figures.count(irq, contended);
        CountedGuard(guard)
    }

    /// Takes lock `i` if nobody holds it.
    #[inline]
    pub fn try_lock(&self, i: usize, irq: Irq) -> Option<CountedGuard<'_, T>> {
        let mut guard = self.0[i].try_lock(irq)?;
        guard.figures.count(irq, false);
        Some(CountedGuard(guard))
    }

    /// Takes lock `i` to look at the value, uncounted: for reports and checks.
    pub fn inspect(&self, i: usize) -> CountedGuard<'_, T> {
        CountedGuard(self.0[i].lock(Irq::Save))
    }

    /// The figures summed over the locks.
    pub fn figures(&self) -> LockFigures {
        let mut sum = LockFigures::default();
        for i in 0..self.count() {
            sum += self.inspect(i).0.figures;
        }
        sum
    }

    /// Sets all figures to zero.
    pub fn reset_figures(&self) {
        for i in 0..self.count() {
            self.inspect(i).0.figures = LockFigures::default();
        }
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
