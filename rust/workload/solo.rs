// SPDX-License-Identifier: GPL-2.0

//! Workloads of CPUs that keep to themselves: `pair` and `rand`.

use super::{
    chunk::Chunk,
    worker::{
        Worker,
        STRETCH, //
    },
    Machine, //
};
use crate::mm::{
    platform::Array,
    types::Result,
    PageAllocator, //
};

/// Allocates and frees one chunk, again and again.
pub(super) fn pair<A: PageAllocator, M: Machine<A::Page>>(worker: &mut Worker<'_, A, M>) {
    loop {
        let nr = worker.stretch(STRETCH);
        if nr == 0 {
            return;
        }
        for _ in 0..nr {
            if let Some(chunk) = worker.alloc() {
                worker.free(chunk);
            }
        }
    }
}

/// The working set of `rand`: a slot is hit at random; if it is full it is freed, if it is empty
/// it is filled. That holds the set near half full by itself.
pub(super) struct Slots<P>(Array<Option<Chunk<P>>>);

impl<P: Copy> Slots<P> {
    pub(super) fn new(nr: usize) -> Result<Slots<P>> {
        Ok(Slots(Array::new(nr, |_| None)?))
    }

    /// Fills every other slot. Not part of what is timed.
    pub(super) fn prepare<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        for (i, slot) in self.0.iter_mut().step_by(2).enumerate() {
            if i as u64 % STRETCH == 0 && !worker.breathe() {
                return;
            }
            *slot = worker.alloc();
        }
    }

    /// Hits slots until the share of allocations is done.
    pub(super) fn hit<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        // CAST: the plan keeps working sets within 32 bits.
        let len = self.0.len() as u32;
        loop {
            let mut left = worker.stretch(STRETCH);
            if left == 0 {
                return;
            }
            // Bounded: full slots run out, and every hit of an empty one counts.
            while left > 0 {
                let slot = &mut self.0[worker.choices.below(len) as usize];
                match slot.take() {
                    Some(chunk) => worker.free(chunk),
                    None => {
                        *slot = worker.alloc();
                        left -= 1;
                    }
                }
            }
        }
    }

    /// Frees what is left. Not part of what is timed.
    pub(super) fn clean_up<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        for (i, slot) in self.0.iter_mut().enumerate() {
            if i as u64 % STRETCH == 0 {
                worker.breathe();
            }
            if let Some(chunk) = slot.take() {
                worker.free(chunk);
            }
        }
    }
}
