// SPDX-License-Identifier: GPL-2.0

//! Everything at random: `stress`.
//!
//! Each worker holds chunks of its own and rolls dice: allocate or free one, a burst of either,
//! hand one to a neighbour, drain somebody's set. What neighbours hand over is freed every so
//! often. Nobody waits for anybody: what finds no room in a ring is freed by who has it.
//!
//! With `vain=` the first worker asks for large chunks only, of which there are none: before, the others
//! have taken all of them and kept a page of each. What it turns over in its search is what the
//! others want to allocate from.

use super::{
    chunk::Chunk,
    handover::absorb,
    plan::Plan,
    worker::Worker,
    Machine, //
};
use crate::mm::{
    platform::Array,
    types::{
        Order,
        Result, //
    },
    PageAllocator, //
};

/// Longest burst in chunks.
const BURST: u32 = 32;

/// Rolls of the dice between two looks at the rings.
const ROLLS: u64 = 64;

/// Does the part of a worker.
pub(super) fn play<A, M>(worker: &mut Worker<'_, A, M>, hand: &mut Hand<A::Page>)
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    match worker.plan.spec().vain {
        Some(order) if !pins(worker.plan, worker.nr) => ask_in_vain(worker, order),
        _ => hand.play(worker),
    }
}

/// Asks for chunks of an order until the share of allocations is done.
fn ask_in_vain<A, M>(worker: &mut Worker<'_, A, M>, order: Order)
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    loop {
        let nr = worker.stretch(ROLLS);
        if nr == 0 {
            return;
        }
        for _ in 0..nr {
            // It happens that there is one.
            if let Some(chunk) = worker.alloc_of(order) {
                worker.free(chunk);
            }
        }
        absorb(worker, worker.nr);
    }
}

/// Whether a worker holds pins: all do but the first, if there are others.
fn pins(plan: &Plan, worker: usize) -> bool {
    worker != 0 || plan.nr_workers() == 1
}

/// The pages that keep chunks of the order in `vain=` from being whole.
pub(super) struct Pins<P>(Array<Option<Chunk<P>>>);

impl<P: Copy> Pins<P> {
    /// An even share of all pins for each that holds some.
    pub(super) fn new(plan: &Plan) -> Result<Pins<P>> {
        let nr = plan.spec().vain.map_or(0, |order| {
            let holders = (plan.nr_workers() - 1).max(1);
            (plan.zone_pages() >> order.get()).div_ceil(holders as u64)
        });
        Ok(Pins(Array::new(nr as usize, |_| None)?))
    }

    /// Takes the share, as far as there is anything.
    pub(super) fn prepare<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        let Some(order) = worker.plan.spec().vain else {
            return;
        };
        if !pins(worker.plan, worker.nr) {
            return;
        }
        for place in self.0.iter_mut() {
            *place = if worker.breathe() {
                worker.pin(order)
            } else {
                None
            };
            if place.is_none() {
                return;
            }
        }
    }

    /// Frees them.
    pub(super) fn clean_up<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        for chunk in self.0.iter_mut().filter_map(Option::take) {
            worker.breathe();
            worker.free(chunk);
        }
    }
}

/// The chunks that a worker holds: the first `len`, young ones rather towards the end.
pub(super) struct Hand<P> {
    chunks: Array<Option<Chunk<P>>>,
    len: usize,
    pages: u64,
}

impl<P: Copy> Hand<P> {
    pub(super) fn new(nr: usize) -> Result<Hand<P>> {
        Ok(Hand {
            chunks: Array::new(nr, |_| None)?,
            len: 0,
            pages: 0,
        })
    }

    /// Chunks in the hand.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a chunk has to go for the next.
    pub(super) fn is_full(&self) -> bool {
        self.len == self.chunks.len()
    }

    /// Pages in the hand.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// Rolls dice until the share of allocations is done.
    fn play<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        loop {
            let mut left = worker.stretch(ROLLS);
            if left == 0 {
                return;
            }
            // Bounded: one roll in two allocates at least one chunk.
            while left > 0 {
                left -= self.roll(worker, left);
            }
            absorb(worker, worker.nr);
        }
    }

    /// Does one thing at random; returns how many allocations it tried, at most `left`.
    fn roll<A, M>(&mut self, worker: &mut Worker<'_, A, M>, left: u64) -> u64
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        match worker.choices.below(64) {
            0 => {
                // CAST: there are at most `MAX_CPUS` workers.
                let other = worker.choices.below(worker.plan.nr_workers() as u32);
                let target = worker.plan.cpu_of(other as usize);
                worker.zone.drain(worker.cpu, target);
                0
            }
            1..=3 => {
                let nr = u64::from(worker.choices.below(BURST) + 1).min(left);
                (0..nr).for_each(|_| {
                    self.add(worker);
                });
                nr
            }
            4..=6 => {
                for _ in 0..=worker.choices.below(BURST) {
                    self.free_any(worker);
                }
                0
            }
            7..=15 => {
                self.hand_over_any(worker);
                0
            }
            16..=27 => {
                self.free_any(worker);
                0
            }
            _ => {
                self.add(worker);
                1
            }
        }
    }

    /// Tries to allocate a chunk, if need be in place of another; says whether there was one.
    pub(super) fn add<A, M>(&mut self, worker: &mut Worker<'_, A, M>) -> bool
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        if self.is_full() {
            self.free_any(worker);
        }
        let chunk = worker.alloc();
        if let Some(chunk) = chunk {
            self.chunks[self.len] = Some(chunk);
            self.len += 1;
            self.pages += u64::from(chunk.tag.order().pages());
        }
        chunk.is_some()
    }

    /// Takes out a chunk at random, of the last `among`.
    pub(super) fn take<A, M>(
        &mut self,
        worker: &mut Worker<'_, A, M>,
        among: usize,
    ) -> Option<Chunk<P>>
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        let last = self.len.checked_sub(1)?;
        // CAST: the plan keeps working sets within 32 bits.
        let place = last - worker.choices.below(among as u32) as usize;
        self.chunks.swap(place, last);
        self.len = last;
        let chunk = self.chunks[last].take()?;
        self.pages -= u64::from(chunk.tag.order().pages());
        Some(chunk)
    }

    fn free_any<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        if let Some(chunk) = self.take(worker, self.len) {
            worker.free(chunk);
        }
    }

    fn hand_over_any<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        if let Some(chunk) = self.take(worker, self.len) {
            Self::hand_over(worker, chunk);
        }
    }

    /// Gives a chunk to a neighbour to free, or frees it where that has no room.
    pub(super) fn hand_over<A, M>(worker: &mut Worker<'_, A, M>, chunk: Chunk<P>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        let rings = worker.plan.rings();
        let nr_out = rings.topology.nr_out(worker.nr);
        if nr_out == 0 {
            return worker.free(chunk);
        }
        // CAST: less than the number of workers.
        let neighbour = worker.choices.below(nr_out as u32) as usize;
        let ring = rings.topology.out(worker.nr, neighbour);
        if rings.room(ring) == 0 {
            return worker.free(chunk);
        }
        rings.stage::<P, M>(ring, 0, chunk);
        rings.publish(ring, 1);
    }

    /// Frees everything that this worker has or was given. Nobody gives any more by now.
    pub(super) fn clean_up<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        absorb(worker, worker.nr);
        while self.len > 0 {
            worker.breathe();
            for _ in 0..BURST {
                self.free_any(worker);
            }
        }
    }
}
