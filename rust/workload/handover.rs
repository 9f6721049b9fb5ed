// SPDX-License-Identifier: GPL-2.0

//! Workloads in which some CPUs allocate and others free: `purge` and `fanout`.
//!
//! `fanout` is a stream: small batches, frees while the allocations go on. `purge` is what jemalloc
//! does to the kernel: an allocating CPU fills a large set, which is given back as a whole by one of
//! a few purging threads before the next one is begun.
//!
//! An allocating CPU puts a batch at a time into the ring of the next freeing CPU. Nothing can
//! lock up: a freeing CPU never waits for anything but more to free; an allocating CPU that waits
//! for room waits for a freeing CPU; and one that has both roles frees while it waits.

use super::{
    worker::{
        Turn,
        Worker, //
    },
    Machine, //
};
use crate::mm::PageAllocator;

/// The part of one worker, allocating, freeing, or both.
pub(super) fn hand_over<A, M>(worker: &mut Worker<'_, A, M>)
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    let roles = worker.plan.roles(worker.nr);
    if let Some(from) = roles.allocator {
        produce(worker, from, roles.freer);
    }
    if let Some(to) = roles.freer {
        finish(worker, to);
    }
}

/// Allocates batches and hands them over until the share is done, then says so.
fn produce<A, M>(worker: &mut Worker<'_, A, M>, from: usize, freer: Option<usize>)
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    let rings = worker.plan.rings();
    let nr_out = rings.topology.nr_out(from);
    for i in (0..nr_out).cycle() {
        let ring = rings.topology.out(from, i);
        make_room(worker, ring, freer);
        match fill(worker, ring) {
            Filled::Full => {}
            // Memory comes back by frees: ours, if there were any, or those of others.
            Filled::Starved => {
                if absorb_own(worker, freer) == 0 {
                    worker.rest();
                }
            }
            Filled::ShareDone => break,
        }
    }
    for i in 0..nr_out {
        rings.close(rings.topology.out(from, i));
    }
}

/// Frees what is there for this worker, then waits until a batch may go into `ring`.
fn make_room<A, M>(worker: &mut Worker<'_, A, M>, ring: usize, freer: Option<usize>)
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    let plan = worker.plan;
    worker.take_turns(|worker| {
        let freed = absorb_own(worker, freer);
        if plan.may_begin_batch(ring) {
            Turn::Done
        } else if freed > 0 {
            Turn::Worked
        } else {
            Turn::Idle
        }
    });
}

/// How filling a batch ended.
enum Filled {
    Full,
    /// With a failed allocation.
    Starved,
    /// With nothing left to do.
    ShareDone,
}

/// Allocates a batch straight into `ring`, which has room for it.
fn fill<A, M>(worker: &mut Worker<'_, A, M>, ring: usize) -> Filled
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    let (rings, batch) = (worker.plan.rings(), worker.plan.batch());
    let mut staged = 0;
    let filled = 'batch: loop {
        if staged == batch {
            break Filled::Full;
        }
        let nr = worker.stretch((batch - staged) as u64);
        if nr == 0 {
            break Filled::ShareDone;
        }
        if worker.uses_arrays() {
            let got = worker.alloc_array(nr, |chunk| {
                rings.stage::<A::Page, M>(ring, staged, chunk);
                staged += 1;
            });
            if got < nr {
                // The one after them was tried, the others were not.
                worker.tally.failures += 1;
                worker.put_back(nr - got - 1);
                break Filled::Starved;
            }
            continue;
        }
        for tried in 1..=nr {
            let Some(chunk) = worker.alloc() else {
                worker.put_back(nr - tried);
                break 'batch Filled::Starved;
            };
            rings.stage::<A::Page, M>(ring, staged, chunk);
            staged += 1;
        }
    };
    if staged > 0 {
        rings.publish(ring, staged);
    }
    filled
}

/// Frees what there is to free for a worker that has that role too; returns how many chunks.
fn absorb_own<A, M>(worker: &mut Worker<'_, A, M>, freer: Option<usize>) -> usize
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    freer.map_or(0, |to| absorb(worker, to))
}

/// Frees what there is to free for freeing CPU `to`; returns how many chunks.
pub(super) fn absorb<A, M>(worker: &mut Worker<'_, A, M>, to: usize) -> usize
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    let rings = worker.plan.rings();
    let inward = (0..rings.topology.nr_in(to)).map(|i| rings.topology.inward(to, i));
    let freed = inward
        .map(|ring| rings.pop::<A::Page, M>(ring, |chunk| worker.put(chunk)))
        .sum();
    worker.flush();
    freed
}

/// Frees until nothing more comes.
fn finish<A, M>(worker: &mut Worker<'_, A, M>, to: usize)
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    let rings = worker.plan.rings();
    let inward = || (0..rings.topology.nr_in(to)).map(|i| rings.topology.inward(to, i));
    worker.take_turns(|worker| {
        // Asked first: what comes between the question and `absorb` is absorbed.
        let closed = inward().all(|ring| rings.is_closed(ring));
        let freed = absorb(worker, to);
        match (closed, freed) {
            (true, _) => Turn::Done,
            (false, 0) => Turn::Idle,
            (false, _) => Turn::Worked,
        }
    });
    inward().for_each(|ring| rings.reopen(ring));
}
