// SPDX-License-Identifier: GPL-2.0

//! Who may be inside a set: one at a time, and its own CPU without any atomic read-modify-write.
//!
//! The CPU sets `busy`, looks at `seized`, and goes ahead if that is clear. Who wants the set of another
//! CPU sets `seized`, makes that CPU execute a memory barrier ([`barrier_heavy`], an IPI in the kernel),
//! and waits for `busy` to clear. After the barrier either the owner's `busy` is visible, or the owner
//! sees `seized`: the asymmetric form of Dekker's algorithm; compare `membarrier(2)`.
//!
//! A CPU that finds its set seized or, in an interrupt, busy does not wait: it frees through the remote
//! path and allocates from the shared set. Where it has to get in it says so in `waiting`, and nobody
//! seizes the set before it has: a thief that comes again and again needs less time than the
//! interrupt with which it stops the owner, and could keep it out for seconds.

use crate::mm::{
    platform::{barrier_heavy, barrier_light, pin, relax, AtomicU32, Pinned},
    types::CpuIdx,
};

/// The way into the set of a CPU.
pub(super) struct Gate {
    busy: AtomicU32,
    seized: AtomicU32,
    waiting: AtomicU32,
}

/// The CPU is inside its set, with nobody else, until this is dropped.
pub(super) struct Inside<'a> {
    gate: &'a Gate,
    _pinned: Pinned,
}

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // ORDERING: pairs with the acquire in `seize()`.
        self.gate.busy.store_release(0);
    }
}

/// Another CPU is inside, and the set's own stays out, until this is dropped.
pub(super) struct Seized<'a> {
    gate: &'a Gate,
    _pinned: Pinned,
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        // ORDERING: pairs with the acquire in `enter()`.
        self.gate.seized.store_release(0);
    }
}

impl Gate {
    pub(super) fn new() -> Gate {
        Gate {
            busy: AtomicU32::new(0),
            seized: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
        }
    }

    /// Enters the set of the calling CPU; `None` if it is seized, or busy below this interrupt.
    #[inline(always)]
    pub(super) fn enter(&self) -> Option<Inside<'_>> {
        let _pinned = pin();
        if self.busy.load() != 0 {
            return None;
        }
        self.busy.store(1);
        // ORDERING: `busy` before `seized`, together with the heavy barrier in `seize()`.
        barrier_light();
        let inside = Inside {
            gate: self,
            _pinned,
        };
        (self.seized.load_acquire() == 0).then_some(inside)
    }

    /// The same for who has to: waits for who has seized the set, but for nobody who comes later. Task
    /// context.
    pub(super) fn enter_waiting(&self) -> Inside<'_> {
        let _pinned = pin();
        loop {
            if let Some(inside) = self.enter() {
                self.waiting.store(0);
                return inside;
            }
            self.waiting.store(1);
            while self.seized.load() != 0 {
                relax();
            }
        }
    }

    /// Enters the set of `owner`, another CPU, and keeps it out. Task context; waits for the moment that
    /// the CPU may be inside. `None` if somebody else has seized it, or the owner waits for that.
    pub(super) fn seize(&self, owner: CpuIdx) -> Option<Seized<'_>> {
        let _pinned = pin();
        if self.waiting.load() != 0 || self.seized.cmpxchg(0, 1).is_err() {
            return None;
        }
        let seized = Seized {
            gate: self,
            _pinned,
        };
        barrier_heavy(owner);
        while self.busy.load_acquire() != 0 {
            relax();
        }
        Some(seized)
    }

    /// Whether nobody is inside.
    #[cfg(all(test, loom))]
    pub(super) fn is_free(&self) -> bool {
        self.busy.load() == 0 && self.seized.load() == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn an_owner_that_waits_is_in_before_thieves_that_come_later() {
        for _ in 0..200 {
            let gate = Gate::new();
            let been_in = AtomicU32::new(0);
            let seized = gate.seize(CpuIdx(0));
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _inside = gate.enter_waiting();
                    been_in.store_release(1);
                });
                while gate.waiting.load() == 0 {
                    relax();
                }
                drop(seized);
                if let Some(_again) = gate.seize(CpuIdx(0)) {
                    assert_eq!(been_in.load_acquire(), 1);
                }
            });
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    /// What the gate guards: loom fails if two are at it, or one does not see what the one before did.
    struct Guarded {
        gate: Gate,
        visits: UnsafeCell<u32>,
    }

    // SAFETY: that `visits` is used by one at a time is what the models are to show.
    unsafe impl Sync for Guarded {}

    impl Guarded {
        fn new() -> Arc<Guarded> {
            Arc::new(Guarded {
                gate: Gate::new(),
                visits: UnsafeCell::new(0),
            })
        }

        fn visit(&self) {
            // SAFETY: loom checks that nobody else does this now.
            self.visits.with_mut(|visits| unsafe { *visits += 1 });
        }
    }

    /// The owner goes in by `enter`, a thief by `seize`; whoever got in is alone.
    fn alone(
        enter: impl Fn(&Gate) -> Option<Inside<'_>> + Sync + Send + Copy + 'static,
        seize: impl Fn(&Gate) -> Option<Seized<'_>> + Sync + Send + Copy + 'static,
    ) {
        loom::model(move || {
            let guarded = Guarded::new();
            let other = guarded.clone();
            let thief = thread::spawn(move || {
                let seized = seize(&other.gate);
                seized.is_some().then(|| other.visit()).is_some()
            });
            let mut visits = 0;
            if let Some(_inside) = enter(&guarded.gate) {
                guarded.visit();
                visits += 1;
            }
            visits += u32::from(thief.join().unwrap());
            assert!(guarded.gate.is_free());
            // SAFETY: all others are gone.
            guarded
                .visits
                .with(|seen| assert_eq!(unsafe { *seen }, visits));
        });
    }

    #[test]
    fn owner_and_thief_are_never_inside_together() {
        alone(Gate::enter, |gate| gate.seize(CpuIdx(0)));
    }

    #[test]
    fn an_owner_that_waits_gets_in_alone() {
        alone(
            |gate| Some(gate.enter_waiting()),
            |gate| gate.seize(CpuIdx(0)),
        );
    }

    #[test]
    fn of_two_thieves_one_gets_in_at_a_time() {
        loom::model(|| {
            let guarded = Guarded::new();
            let other = guarded.clone();
            let thief = thread::spawn(move || {
                if let Some(_seized) = other.gate.seize(CpuIdx(0)) {
                    other.visit();
                }
            });
            if let Some(_seized) = guarded.gate.seize(CpuIdx(0)) {
                guarded.visit();
            }
            thief.join().unwrap();
        });
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn broken_without_the_light_barrier() {
        fn enter(gate: &Gate) -> Option<Inside<'_>> {
            gate.busy.store(1);
            let _pinned = pin();
            let inside = Inside { gate, _pinned };
            (gate.seized.load_acquire() == 0).then_some(inside)
        }
        alone(enter, |gate| gate.seize(CpuIdx(0)));
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn broken_without_the_heavy_barrier() {
        fn seize(gate: &Gate) -> Option<Seized<'_>> {
            gate.seized.cmpxchg(0, 1).ok()?;
            while gate.busy.load_acquire() != 0 {
                relax();
            }
            let _pinned = pin();
            Some(Seized { gate, _pinned })
        }
        alone(Gate::enter, seize);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn broken_if_the_owner_looks_first() {
        fn enter(gate: &Gate) -> Option<Inside<'_>> {
            if gate.seized.load_acquire() != 0 {
                return None;
            }
            gate.busy.store(1);
            barrier_light();
            let _pinned = pin();
            Some(Inside { gate, _pinned })
        }
        alone(enter, |gate| gate.seize(CpuIdx(0)));
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn broken_if_the_thief_does_not_wait() {
        fn seize(gate: &Gate) -> Option<Seized<'_>> {
            gate.seized.cmpxchg(0, 1).ok()?;
            barrier_heavy(CpuIdx(0));
            let _pinned = pin();
            Some(Seized { gate, _pinned })
        }
        alone(Gate::enter, seize);
    }
}
