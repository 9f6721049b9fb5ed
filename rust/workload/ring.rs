// SPDX-License-Identifier: GPL-2.0

//! Hand-over of chunks between CPUs: bounded rings with one producer and one consumer each, the
//! same for every policy.
//!
//! Positions only grow; the difference of the two is the fill level. The producer writes `tail`,
//! the consumer `head`, each after the cells it speaks for.

use super::{
    chunk::{Cells, Chunk},
    Machine,
};
use crate::mm::{
    platform::{
        Array,
        AtomicU32,
        AtomicU64,
        CachePadded, //
    },
    types::{Order, Result},
};

/// Chunks that a consumer takes before it tells the producer that their cells are free again.
const CONSUME_BATCH: u64 = 64;

/// Chunks that the smallest ring holds.
const MIN_RING: usize = 16;

struct Ring {
    head: CachePadded<AtomicU64>,
    tail: CachePadded<AtomicU64>,
    /// Whether the producer has put in its last chunk of this repetition.
    closed: CachePadded<AtomicU32>,
}

/// Who hands over to whom.
#[derive(Clone, Copy, Debug)]
pub(super) enum Topology {
    /// Nobody to anybody.
    None,
    /// From allocating to freeing CPUs, with just as many rings as connect all of them: ring `k`
    /// leads from allocating CPU `k % allocators` to freeing CPU `k % freers`.
    Pairs {
        /// CPUs that allocate.
        allocators: usize,
        /// CPUs that free.
        freers: usize,
    },
    /// From each of `workers` to the next `distance`: ring `d * workers + w` leads from worker `w`
    /// to worker `w + d + 1`, counted round.
    Neighbours {
        /// Workers of the run.
        workers: usize,
        /// How far each of them reaches, less than `workers`.
        distance: usize,
    },
}

impl Topology {
    /// Number of rings.
    pub(super) fn rings(self) -> usize {
        match self {
            Topology::None => 0,
            Topology::Pairs { allocators, freers } => allocators.max(freers),
            Topology::Neighbours { workers, distance } => workers * distance,
        }
    }

    /// Number of rings that producer `from` puts into.
    pub(super) fn nr_out(self, from: usize) -> usize {
        match self {
            Topology::None => 0,
            Topology::Pairs { allocators, .. } => (self.rings() - from).div_ceil(allocators.max(1)),
            Topology::Neighbours { distance, .. } => distance,
        }
    }

    /// Ring `i` of those that producer `from` puts into.
    pub(super) fn out(self, from: usize, i: usize) -> usize {
        match self {
            Topology::None => i,
            Topology::Pairs { allocators, .. } => from + i * allocators,
            Topology::Neighbours { workers, .. } => i * workers + from,
        }
    }

    /// Number of rings that consumer `to` takes from.
    pub(super) fn nr_in(self, to: usize) -> usize {
        match self {
            Topology::None => 0,
            Topology::Pairs { freers, .. } => (self.rings() - to).div_ceil(freers.max(1)),
            Topology::Neighbours { distance, .. } => distance,
        }
    }

    /// Ring `i` of those that consumer `to` takes from.
    pub(super) fn inward(self, to: usize, i: usize) -> usize {
        match self {
            Topology::None => i,
            Topology::Pairs { freers, .. } => to + i * freers,
            Topology::Neighbours { workers, .. } => {
                let from = to.checked_sub(i + 1).unwrap_or(to + workers - (i + 1));
                i * workers + from
            }
        }
    }
}

/// The rings of a run.
pub(super) struct Rings {
    rings: Array<Ring>,
    /// Those of ring `i` start at `i * capacity`.
    cells: Cells,
    /// Chunks that a ring holds, a power of two.
    capacity: usize,
    pub(super) topology: Topology,
}

impl Rings {
    /// Rings for `each` chunks, at least; `alike` as for [`Cells::new`].
    pub(super) fn new(topology: Topology, each: usize, alike: Option<Order>) -> Result<Rings> {
        let nr = topology.rings();
        let capacity = each.max(MIN_RING).next_power_of_two();
        Ok(Rings {
            rings: Array::new(nr, |_| Ring {
                head: CachePadded(AtomicU64::new(0)),
                tail: CachePadded(AtomicU64::new(0)),
                closed: CachePadded(AtomicU32::new(0)),
            })?,
            cells: Cells::new(nr * capacity, alike)?,
            capacity,
            topology,
        })
    }

    #[inline]
    fn place(&self, ring: usize, position: u64) -> usize {
        ring * self.capacity + (position as usize & (self.capacity - 1))
    }

    /// Chunks that can be put in now, at least. Only for the producer.
    pub(super) fn room(&self, ring: usize) -> usize {
        let Ring { head, tail, .. } = &self.rings[ring];
        // ORDERING: Acquire, pairs with the swap in `pop`: cells that are free have been read.
        self.capacity - (tail.load() - head.load_acquire()) as usize
    }

    /// Whether all that was put in has been freed. Only for the producer.
    pub(super) fn is_empty(&self, ring: usize) -> bool {
        self.room(ring) == self.capacity
    }

    /// Writes a chunk to the place `ahead` of the next one, less than `room`. The consumer sees
    /// it when it is published. Only by the producer.
    #[inline]
    pub(super) fn stage<P: Copy, M: Machine<P>>(&self, ring: usize, ahead: usize, chunk: Chunk<P>) {
        let end = self.rings[ring].tail.load();
        let place = self.place(ring, end + ahead as u64);
        self.cells.put::<P, M>(place, chunk);
    }

    /// Hands over the first `nr` chunks staged. Only by the producer.
    pub(super) fn publish(&self, ring: usize, nr: usize) {
        let tail = &self.rings[ring].tail;
        // ORDERING: Full, pairs with the Acquire in `pop`: who sees the chunks there can read them.
        tail.swap(tail.load() + nr as u64);
    }

    /// Takes out what is there now, each chunk given to `each`; returns how many. Only by the
    /// consumer.
    pub(super) fn pop<P: Copy, M: Machine<P>>(
        &self,
        ring: usize,
        mut each: impl FnMut(Chunk<P>),
    ) -> usize {
        let Ring { head, tail, .. } = &self.rings[ring];
        let start = head.load();
        // ORDERING: Acquire, pairs with the swap in `publish`.
        let end = tail.load_acquire();
        let mut next = start;
        while next < end {
            let stop = end.min(next + CONSUME_BATCH);
            for position in next..stop {
                each(self.cells.get::<P, M>(self.place(ring, position)));
            }
            // ORDERING: Full, pairs with the Acquire in `room`.
            head.swap(stop);
            next = stop;
        }
        (end - start) as usize
    }

    /// Says that nothing more comes in this repetition. Only by the producer.
    pub(super) fn close(&self, ring: usize) {
        // ORDERING: Full, pairs with the Acquire in `is_closed`: what was put in is there.
        self.rings[ring].closed.swap(1);
    }

    /// Whether nothing more comes than what is there now.
    pub(super) fn is_closed(&self, ring: usize) -> bool {
        self.rings[ring].closed.load_acquire() != 0
    }

    /// Prepares a closed ring for the next repetition. Only by the consumer, before a barrier.
    pub(super) fn reopen(&self, ring: usize) {
        self.rings[ring].closed.store(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every ring has one producer and one consumer, and all are connected.
    fn check(topology: Topology, producers: usize, consumers: usize) {
        let mut from = vec![0; topology.rings()];
        let mut to = vec![0; topology.rings()];
        for p in 0..producers {
            assert!(topology.nr_out(p) > 0);
            (0..topology.nr_out(p)).for_each(|i| from[topology.out(p, i)] += 1);
        }
        for c in 0..consumers {
            assert!(topology.nr_in(c) > 0);
            (0..topology.nr_in(c)).for_each(|i| to[topology.inward(c, i)] += 1);
        }
        assert!(from.iter().all(|n| *n == 1), "{topology:?} from {from:?}");
        assert!(to.iter().all(|n| *n == 1), "{topology:?} to {to:?}");
    }

    #[test]
    fn rings_connect_everybody_once() {
        for allocators in 1..9 {
            for freers in 1..9 {
                check(Topology::Pairs { allocators, freers }, allocators, freers);
            }
        }
        for workers in 2..9 {
            for distance in 1..workers {
                let topology = Topology::Neighbours { workers, distance };
                check(topology, workers, workers);
                for w in 0..workers {
                    for d in 0..distance {
                        let to = (w + d + 1) % workers;
                        let ring = topology.out(w, d);
                        assert!((0..distance).any(|i| topology.inward(to, i) == ring));
                    }
                }
            }
        }
    }
}
