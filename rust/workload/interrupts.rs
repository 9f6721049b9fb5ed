// SPDX-License-Identifier: GPL-2.0

//! Interrupts that allocate and free too: `context=softirq` and `context=hardirq`.
//!
//! While workers do what the workload says, in task context, somebody calls [`Plan::interrupt`] on
//! their CPUs in the context of the run, at whatever instruction a worker is. Each call rolls a few
//! dice over chunks of its own. Nobody is waited for: that would be for ever.

use super::{
    chunk::{
        is_aligned,
        Chunk,
        Tag, //
    },
    plan::Plan,
    rng::Rng,
    spec::Spec,
    worker::{
        Requests,
        Wrongs, //
    },
    Memory, //
};
use crate::mm::{
    platform::{
        Array,
        CachePadded,
        Irq,
        Lock,
        LockClass, //
    },
    types::{
        Context,
        CpuIdx,
        Result, //
    },
    PageAllocator, //
};
use core::fmt::{
    self,
    Write, //
};

/// Chunks that the interrupts of a CPU hold at most, and their pages.
const MOST_CHUNKS: usize = 32;
const MOST_PAGES: u64 = 1 << 12;

/// Dice rolled in an interrupt.
const ROLLS: u32 = 8;

/// Told apart from what workers allocate by the number in the sequence of chunks.
const FIRST_SEQUENCE: u64 = 1 << 35;

/// What the interrupts of one CPU hold, and what they have done.
struct Hand {
    /// Pages as bits.
    chunks: [Option<Chunk<u64>>; MOST_CHUNKS],
    len: usize,
    pages: u64,
    sequence: u64,
    requests: Requests,
    dice: Rng,
    ops: u64,
    failures: u64,
    wrongs: Wrongs,
}

/// A hand for each worker, taken only by who finds nobody at it; none where nothing interrupts.
pub(super) struct Interrupts(Array<CachePadded<Lock<Hand>>>);

/// What all of them did.
#[derive(Default)]
pub(super) struct InterruptTally {
    ops: u64,
    failures: u64,
    pub(super) wrongs: Wrongs,
}

impl InterruptTally {
    /// Writes it, one `key: value` a line.
    pub(super) fn write(&self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "interrupt_ops: {}", self.ops)?;
        writeln!(out, "interrupt_failures: {}", self.failures)
    }
}

impl Interrupts {
    /// Hands for that many workers, if the run has interrupts.
    pub(super) fn new(spec: &Spec, workers: usize) -> Result<Interrupts> {
        let nr = match spec.context {
            Context::Task => 0,
            Context::Softirq | Context::Hardirq => workers,
        };
        let hand = |nr| Hand {
            chunks: [None; MOST_CHUNKS],
            len: 0,
            pages: 0,
            sequence: FIRST_SEQUENCE,
            requests: Requests::new(spec, Rng::new(spec.seed, nr, 0, 2)),
            dice: Rng::new(spec.seed, nr, 0, 3),
            ops: 0,
            failures: 0,
            wrongs: Wrongs::default(),
        };
        Ok(Interrupts(Lock::array(nr, LockClass::Hand, hand)?))
    }

    /// What was done in all of them. To be asked when they are over.
    pub(super) fn tally(&self) -> InterruptTally {
        let mut sum = InterruptTally::default();
        for hand in self.0.iter().map(|hand| hand.lock(Irq::Save)) {
            sum.ops += hand.ops;
            sum.failures += hand.failures;
            sum.wrongs.stamps += hand.wrongs.stamps;
            sum.wrongs.frees += hand.wrongs.frees;
            sum.wrongs.misaligned += hand.wrongs.misaligned;
        }
        sum
    }
}

impl Hand {
    fn take(&mut self) -> Option<Chunk<u64>> {
        let last = self.len.checked_sub(1)?;
        // CAST: a small array.
        let place = self.dice.below(self.len as u32) as usize;
        self.chunks.swap(place, last);
        self.len = last;
        let chunk = self.chunks[last].take()?;
        self.pages -= u64::from(chunk.tag.order().pages());
        Some(chunk)
    }
}

impl Plan {
    /// Allocates and frees a little on `cpu`, the calling one, in the context of the run. `worker`
    /// says whose interrupts these are.
    pub fn interrupt<A, M>(&self, worker: usize, cpu: CpuIdx, zone: &A, memory: &M)
    where
        A: PageAllocator,
        M: Memory<A::Page>,
    {
        let hands = &self.interrupts().0;
        let at = (zone, cpu, self.spec().context);
        let Some(mut own) = hands[worker].try_lock(Irq::Keep) else {
            return;
        };
        for _ in 0..ROLLS {
            match own.dice.below(8) {
                0..=3 => self.interrupt_alloc(&mut own, worker, cpu, zone, memory),
                4..=6 => {
                    if let Some(chunk) = own.take() {
                        self.interrupt_free(&mut own.wrongs, worker, chunk, at, memory);
                    }
                }
                _ => {
                    // CAST: there are at most `MAX_CPUS` workers.
                    let other = own.dice.below(hands.len() as u32) as usize;
                    let taken = match other == worker {
                        true => own.take(),
                        false => {
                            (hands[other].try_lock(Irq::Keep)).and_then(|mut hand| hand.take())
                        }
                    };
                    if let Some(chunk) = taken {
                        self.interrupt_free(&mut own.wrongs, worker, chunk, at, memory);
                    }
                }
            }
        }
    }

    fn interrupt_alloc<A, M>(
        &self,
        hand: &mut Hand,
        worker: usize,
        cpu: CpuIdx,
        zone: &A,
        memory: &M,
    ) where
        A: PageAllocator,
        M: Memory<A::Page>,
    {
        let (order, mt) = hand.requests.next();
        let pages = u64::from(order.pages());
        if hand.len == MOST_CHUNKS || hand.pages + pages > MOST_PAGES {
            return;
        }
        let (ledger, account) = (self.ledger(), self.ledger().interrupts_of(worker));
        ledger.ask(account, pages);
        let Ok(page) = zone.alloc(cpu, order, mt, self.spec().context) else {
            hand.failures += 1;
            ledger.settle(account, pages);
            return;
        };
        let tag = Tag::new(worker, hand.sequence, order);
        hand.sequence += 1;
        hand.ops += 1;
        if self.spec().verify {
            let chunk = Chunk { page, tag };
            chunk.stamp(memory, self.spec().seed);
            let aligned = is_aligned(memory, page, order, false);
            hand.wrongs.misaligned += u64::from(!aligned);
        }
        hand.chunks[hand.len] = Some(Chunk {
            page: M::to_bits(page),
            tag,
        });
        hand.len += 1;
        hand.pages += pages;
    }

    fn interrupt_free<A, M>(
        &self,
        wrongs: &mut Wrongs,
        worker: usize,
        chunk: Chunk<u64>,
        (zone, cpu, context): (&A, CpuIdx, Context),
        memory: &M,
    ) where
        A: PageAllocator,
        M: Memory<A::Page>,
    {
        let Chunk { page, tag } = chunk;
        let page = M::from_bits(page);
        if self.spec().verify {
            wrongs.stamps += Chunk { page, tag }.wrong_stamps(memory, self.spec().seed);
        }
        match zone.free(cpu, page, tag.order(), context) {
            Ok(()) => {
                let account = self.ledger().interrupts_of(worker);
                self.ledger().settle(account, tag.order().pages().into());
            }
            Err(_) => wrongs.frees += 1,
        }
    }

    /// Frees what the interrupts of all CPUs have, when they are over. `cpu` is the calling one; task
    /// context.
    pub fn end_interrupts<A, M>(&self, cpu: CpuIdx, zone: &A, memory: &M)
    where
        A: PageAllocator,
        M: Memory<A::Page>,
    {
        for (worker, hand) in self.interrupts().0.iter().enumerate() {
            loop {
                let chunk = hand.lock(Irq::Save).take();
                let Some(chunk) = chunk else { break };
                let mut wrongs = Wrongs::default();
                let at = (zone, cpu, Context::Task);
                self.interrupt_free(&mut wrongs, worker, chunk, at, memory);
                let mut hand = hand.lock(Irq::Save);
                hand.wrongs.stamps += wrongs.stamps;
                hand.wrongs.frees += wrongs.frees;
            }
        }
    }
}
