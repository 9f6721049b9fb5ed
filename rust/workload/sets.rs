// SPDX-License-Identifier: GPL-2.0

//! Workloads that build a set and free it: `bulk` and `contig`, each CPU at its own pace; `exit` and
//! `hog`, where all begin to free at the same moment. Allocating and freeing are timed apart.

use super::{
    barrier::Passes,
    chunk::Set,
    rng::Shuffle,
    spec::FreeOrder,
    worker::{
        Worker,
        STRETCH, //
    },
    Machine, //
};
use crate::mm::PageAllocator;

/// Builds and frees sets, each of the worker's share of `pages`, until the share of operations is done.
pub(super) fn bulk<A, M>(worker: &mut Worker<'_, A, M>, set: &mut Set)
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    let rounds = worker.plan.rounds();
    let mut round = 0;
    while round < rounds && !worker.is_late() && worker.goes_on() {
        build(worker, set);
        tear_down(worker, set);
        set.clear();
        round += 1;
    }
}

/// Like `bulk`, but all workers build, then all free.
pub(super) fn exit<A, M>(worker: &mut Worker<'_, A, M>, set: &mut Set, passes: &mut Passes)
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    together(worker, set, passes, build);
}

/// All workers take until nothing is left, then all free.
pub(super) fn hog<A, M>(worker: &mut Worker<'_, A, M>, set: &mut Set, passes: &mut Passes)
where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    together(worker, set, passes, exhaust);
}

fn together<A, M>(
    worker: &mut Worker<'_, A, M>,
    set: &mut Set,
    passes: &mut Passes,
    fill: impl Fn(&mut Worker<'_, A, M>, &mut Set),
) where
    A: PageAllocator,
    M: Machine<A::Page>,
{
    let rounds = worker.plan.rounds();
    let mut round = 0;
    loop {
        fill(worker, set);
        worker.meet(passes);
        tear_down(worker, set);
        set.release();
        round += 1;
        // Whether there is another round has to be the same answer for everybody.
        if worker.leads() {
            let more = round < rounds && !worker.is_late() && worker.goes_on();
            worker.plan.pool().reset();
            worker.plan.more_rounds.store(u32::from(more));
        }
        worker.meet(passes);
        if worker.plan.more_rounds.load() == 0 {
            return;
        }
    }
}

/// Allocates a set, or what is left of the share.
fn build<A: PageAllocator, M: Machine<A::Page>>(worker: &mut Worker<'_, A, M>, set: &mut Set) {
    let (start, pool) = (worker.machine.now_ns(), worker.plan.pool());
    let mut left = worker.plan.set_chunks();
    while left > 0 {
        let nr = worker.stretch(left);
        if nr == 0 {
            break;
        }
        left -= nr;
        // The pool has room for the full sets of all workers.
        if worker.uses_arrays() {
            let got = worker.alloc_array(nr, |chunk| {
                let room = set.reserve(pool);
                debug_assert!(room);
                set.push::<A::Page, M>(pool, chunk);
            });
            worker.tally.failures += nr - got;
            continue;
        }
        for _ in 0..nr {
            if !set.reserve(pool) {
                break;
            }
            if let Some(chunk) = worker.get() {
                set.push::<A::Page, M>(pool, chunk);
            }
        }
    }
    worker.tally.alloc_ns += worker.machine.now_ns() - start;
}

/// Allocates until the smallest order that is asked for fails, the larger ones having failed
/// before.
fn exhaust<A: PageAllocator, M: Machine<A::Page>>(worker: &mut Worker<'_, A, M>, set: &mut Set) {
    let (start, pool) = (worker.machine.now_ns(), worker.plan.pool());
    'all: while worker.breathe() {
        for _ in 0..STRETCH {
            if !set.reserve(pool) {
                break 'all;
            }
            match worker.alloc() {
                Some(chunk) => set.push::<A::Page, M>(pool, chunk),
                None if worker.exclude_largest_order() => {}
                None => break 'all,
            }
        }
    }
    worker.include_all_orders();
    worker.tally.alloc_ns += worker.machine.now_ns() - start;
}

/// Frees a set in the order that was asked for, whatever happens.
fn tear_down<A: PageAllocator, M: Machine<A::Page>>(worker: &mut Worker<'_, A, M>, set: &Set) {
    let start = worker.machine.now_ns();
    let len = set.len();
    match worker.plan.spec().free {
        FreeOrder::Lifo => free_each(worker, set, (0..len).rev()),
        FreeOrder::Fifo => free_each(worker, set, 0..len),
        // CAST: the plan keeps sets within 32 bits.
        FreeOrder::Shuffled => free_each(worker, set, Shuffle::new(len as u32).map(|i| i as usize)),
    }
    worker.tally.free_ns += worker.machine.now_ns() - start;
}

fn free_each<A: PageAllocator, M: Machine<A::Page>>(
    worker: &mut Worker<'_, A, M>,
    set: &Set,
    mut places: impl Iterator<Item = usize>,
) {
    let pool = worker.plan.pool();
    loop {
        worker.breathe();
        for _ in 0..worker.at_a_time() {
            match places.next() {
                Some(i) => worker.put(set.get::<A::Page, M>(pool, i)),
                None => return worker.flush(),
            }
        }
    }
}
