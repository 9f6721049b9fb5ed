// SPDX-License-Identifier: GPL-2.0

//! The meeting point of all workers of a run.
//!
//! Two phases make them leave together. In the first, workers that wait give way, because those
//! that are missing may need their CPUs. In the second all of them are running, so they spin for
//! the short moment until everybody knows.

use super::{worker::Backoff, Machine};
use crate::mm::platform::{
    AtomicU32,
    AtomicU64,
    CachePadded, //
};

/// How often a worker looks without giving way until it doubts that the others are running.
const SPINS: u32 = 2_000;

/// A barrier for a fixed number of workers, to be passed any number of times.
pub(super) struct Barrier {
    nr: u64,
    /// Arrivals so far, of all passes, in the first and the second phase.
    arrived: [CachePadded<AtomicU64>; 2],
    /// Whether somebody will never come.
    aborted: AtomicU32,
}

/// How often a worker has passed the barrier.
#[derive(Default)]
pub(super) struct Passes(u64);

impl Barrier {
    pub(super) fn new(nr: usize) -> Barrier {
        Barrier {
            nr: nr as u64,
            arrived: core::array::from_fn(|_| CachePadded(AtomicU64::new(0))),
            aborted: AtomicU32::new(0),
        }
    }

    /// Waits until all workers are here. What any of them wrote before, all of them read after.
    /// Returns false, at once, if they never will be.
    pub(super) fn pass<P: Copy>(&self, passes: &mut Passes, machine: &impl Machine<P>) -> bool {
        passes.0 += 1;
        let all = passes.0 * self.nr;
        let [first, second] = &self.arrived;
        arrive(first);
        let mut backoff = Backoff::new();
        // ORDERING: Acquire, pairs with the release of every arrival.
        while first.load_acquire() < all {
            if self.aborted.load() != 0 {
                return false;
            }
            backoff.pause(machine);
        }
        arrive(second);
        let mut spins = SPINS;
        while second.load_acquire() < all {
            core::hint::spin_loop();
            spins -= 1;
            if spins == 0 {
                machine.give_way();
                spins = SPINS;
            }
        }
        true
    }

    /// Sends home everybody who waits in the first phase or comes to wait there.
    pub(super) fn abort(&self) {
        self.aborted.store(1);
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load() != 0
    }
}

/// Counts one arrival. ORDERING: release, so that an acquire load that counts it sees all that
/// came before; later arrivals are read-modify-writes and carry that on.
fn arrive(count: &AtomicU64) {
    let mut seen = count.load();
    while let Err(now) = count.cmpxchg(seen, seen + 1) {
        seen = now;
    }
}
