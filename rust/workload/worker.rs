// SPDX-License-Identifier: GPL-2.0

//! What every workload does the same way: ask for chunks, mark and check them, count, look at the
//! clock and give way now and then.

use super::{
    barrier::Passes,
    chunk::{
        is_aligned,
        Chunk,
        Tag, //
    },
    latency::{
        Call,
        Latencies, //
    },
    plan::Plan,
    rng::Rng,
    spec::{
        Amount,
        How,
        Mobility,
        OrderRange,
        Spec,
        Touch,
        Workload, //
    },
    Machine,
    PAGE_WORDS, //
};
use crate::mm::{
    platform::Array,
    types::{
        Context,
        CpuIdx,
        Migratetype,
        Order,
        Result, //
    },
    PageAllocator, //
};

/// Operations between two looks at clock, signals and whether others need the CPU. Short against
/// what a user notices, long against what the looks cost.
pub(super) const STRETCH: u64 = 512;

/// The same in pages, where chunks are large.
const STRETCH_PAGES: u64 = 1 << 14;

/// 64-bit words in a cache line.
const LINE_WORDS: usize = 8;

/// How a worker passes the time until another one has done something.
pub(super) struct Backoff(u32);

impl Backoff {
    const SPINS: u32 = 64;
    const GIVES: u32 = 128;

    pub(super) fn new() -> Backoff {
        Backoff(0)
    }

    /// Passes a little time, at first without leaving the CPU.
    pub(super) fn pause<P: Copy>(&mut self, machine: &impl Machine<P>) {
        if self.0 < Backoff::SPINS {
            core::hint::spin_loop();
        } else if self.0 < Backoff::GIVES {
            machine.give_way();
        } else {
            return machine.wait();
        }
        self.0 += 1;
    }
}

/// How a turn at something went.
pub(super) enum Turn {
    /// It was the last.
    Done,
    /// It found something to do.
    Worked,
    /// It found nothing to do.
    Idle,
}

/// What a worker asks the allocator for: a sequence that depends on the seed, the worker and the
/// repetition only.
pub(super) struct Requests {
    rng: Rng,
    order: OrderRange,
    mobility: Mobility,
}

impl Requests {
    /// What a run asks for, in an order that `rng` decides.
    pub(super) fn new(spec: &Spec, rng: Rng) -> Requests {
        Requests {
            rng,
            order: spec.order,
            mobility: spec.mobility,
        }
    }

    #[inline]
    pub(super) fn next(&mut self) -> (Order, Migratetype) {
        (self.next_order(), self.next_type())
    }

    #[inline]
    fn next_order(&mut self) -> Order {
        let OrderRange { lo, hi } = self.order;
        if lo == hi {
            return lo;
        }
        let span = u32::from(hi.get() - lo.get()) + 1;
        // CAST: less than `span`, which came from orders.
        Order::new(lo.get() + self.rng.below(span) as u8)
    }

    #[inline]
    fn next_type(&mut self) -> Migratetype {
        match self.mobility {
            Mobility::One(mt) => mt,
            Mobility::Mixed => match self.rng.below(8) {
                0 => Migratetype::Unmovable,
                1 => Migratetype::Reclaimable,
                _ => Migratetype::Movable,
            },
        }
    }
}

/// What a worker has done and found in one repetition.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    /// Chunks allocated, and their pages.
    pub(super) ops: u64,
    pub(super) pages: u64,
    /// Allocations that failed.
    pub(super) failures: u64,
    /// Chunks freed, by whomever they were allocated.
    pub(super) frees: u64,
    /// Time of the phases, where a workload has them, in nanoseconds.
    pub(super) alloc_ns: u64,
    pub(super) free_ns: u64,
    /// Time spent waiting for others.
    pub(super) waited_ns: u64,
}

/// What must not be, over a whole repetition with its preparation and its end.
#[derive(Clone, Copy, Default)]
pub(super) struct Wrongs {
    /// Pages whose stamp was wrong.
    pub(super) stamps: u64,
    /// Frees that the allocator refused.
    pub(super) frees: u64,
    /// Chunks that are not aligned to their size in memory.
    pub(super) misaligned: u64,
    /// Allocations refused beside free memory.
    pub(super) spurious: u64,
}

/// One worker during its run.
pub(super) struct Worker<'a, A: PageAllocator, M> {
    pub(super) plan: &'a Plan,
    pub(super) zone: &'a A,
    pub(super) machine: &'a M,
    /// Number of the worker.
    pub(super) nr: usize,
    pub(super) cpu: CpuIdx,
    context: Context,
    requests: Requests,
    /// For everything random but the requests.
    pub(super) choices: Rng,
    seed: u64,
    touch: Touch,
    verify: bool,
    /// Whether calls are neither verified nor timed.
    plain: bool,
    /// Whether pages are written to at all.
    marking: bool,
    /// Room for the pages of a bulk call; none where there are no such calls.
    array: Option<Array<A::Page>>,
    /// How many pages of it wait to be freed.
    waiting: usize,
    how: How,
    /// Whether chunks are runs of single pages.
    runs: bool,
    /// Chunks allocated by this worker since the run began.
    sequence: u64,
    pub(super) tally: Tally,
    pub(super) wrongs: Wrongs,
    /// Where the time of each call goes, if it is taken.
    latencies: Option<&'a Latencies>,
    /// Allocations left to try; without limit if the run goes by time.
    left: u64,
    /// When the repetition is over, for runs by time.
    deadline: Option<u64>,
}

impl<'a, A: PageAllocator, M: Machine<A::Page>> Worker<'a, A, M> {
    pub(super) fn new(
        plan: &'a Plan,
        nr: usize,
        zone: &'a A,
        machine: &'a M,
        array: Option<Array<A::Page>>,
    ) -> Self {
        let spec = plan.spec();
        Worker {
            array,
            waiting: 0,
            how: spec.how,
            runs: spec.workload == Workload::Contig,
            plan,
            zone,
            machine,
            nr,
            cpu: plan.cpu_of(nr),
            context: Context::Task,
            requests: Requests::new(spec, Rng::new(spec.seed, nr, 0, 0)),
            choices: Rng::new(spec.seed, nr, 0, 1),
            seed: spec.seed,
            touch: spec.touch,
            verify: spec.verify,
            plain: !spec.verify && !spec.latency,
            marking: spec.verify || spec.touch != Touch::None,
            sequence: 0,
            tally: Tally::default(),
            wrongs: Wrongs::default(),
            latencies: spec.latency.then(|| plan.latencies()),
            left: 0,
            deadline: None,
        }
    }

    /// Starts the random sequences of a repetition.
    pub(super) fn reseed(&mut self, repetition: u32) {
        self.wrongs = Wrongs::default();
        let seed = self.seed;
        self.requests.rng = Rng::new(seed, self.nr, repetition, 0);
        self.choices = Rng::new(seed, self.nr, repetition, 1);
    }

    /// Sets what this worker has to do from now on, and forgets what it did.
    pub(super) fn begin(&mut self, now: u64) {
        self.tally = Tally::default();
        (self.left, self.deadline) = match self.plan.spec().amount {
            Amount::Ops(_) => (self.plan.share(self.nr), None),
            Amount::Ms(ms) => (u64::MAX, Some(now + ms * 1_000_000)),
            Amount::Round => (u64::MAX, None),
        };
    }

    /// Allocates the next chunk of the sequence and marks it; counts a failure if there is none.
    #[inline]
    pub(super) fn alloc(&mut self) -> Option<Chunk<A::Page>> {
        let (order, mt) = self.requests.next();
        self.alloc_one(order, mt)
    }

    /// Allocates a chunk of an order that is not of the sequence.
    pub(super) fn alloc_of(&mut self, order: Order) -> Option<Chunk<A::Page>> {
        let mt = self.requests.next_type();
        self.alloc_one(order, mt)
    }

    /// Takes a run of `2^order` pages and frees all of it but the first page. No part of what is counted.
    pub(super) fn pin(&mut self, order: Order) -> Option<Chunk<A::Page>> {
        let (mt, ledger) = (self.requests.next_type(), self.plan.ledger());
        let (nr, rest) = (order.pages(), order.pages() - 1);
        ledger.ask(self.nr, nr.into());
        let Ok(page) = (self.zone).alloc_contig(self.cpu, nr, mt, self.context) else {
            ledger.settle(self.nr, nr.into());
            return None;
        };
        let second = self.zone.page_of_run(page, 1);
        let freed = (self.zone).free_contig(self.cpu, second, rest, self.context);
        self.settle(&freed, rest.into());
        self.wrongs.frees += u64::from(freed.is_err());
        let tag = Tag::new(self.nr, self.sequence, Order::ZERO);
        self.sequence += 1;
        let chunk = Chunk { page, tag };
        if self.marking {
            self.mark(chunk);
        }
        Some(chunk)
    }

    #[inline]
    fn alloc_one(&mut self, order: Order, mt: Migratetype) -> Option<Chunk<A::Page>> {
        let page = match self.plain {
            true => self.zone.alloc(self.cpu, order, mt, self.context),
            false => self.alloc_closely(order, mt),
        };
        self.got(page, order, mt)
    }

    /// What the zone has for a request, as a run of pages if that is the manner of the run.
    fn call(&self, order: Order, mt: Migratetype) -> Result<A::Page> {
        match self.runs {
            true => (self.zone).alloc_contig(self.cpu, order.pages(), mt, self.context),
            false => self.zone.alloc(self.cpu, order, mt, self.context),
        }
    }

    /// The same with what is wanted besides: its time taken, the answer judged.
    #[inline(never)]
    fn alloc_closely(&mut self, order: Order, mt: Migratetype) -> Result<A::Page> {
        let (ledger, pages) = (self.plan.ledger(), u64::from(order.pages()));
        ledger.ask(self.nr, pages);
        let freed = ledger.freed();
        let page = self.timed(Call::Alloc, || self.call(order, mt));
        if !self.verify {
            return page;
        }
        match page {
            Ok(page) => {
                let aligned = is_aligned(self.machine, page, order, self.runs);
                self.wrongs.misaligned += u64::from(!aligned);
            }
            Err(_) => {
                let spurious = ledger.is_spurious(order, mt, freed, pages);
                self.wrongs.spurious += u64::from(spurious);
                ledger.settle(self.nr, pages);
            }
        }
        page
    }

    /// Judges a refusal where calls are not watched closely.
    #[cold]
    #[inline(never)]
    fn refused(&mut self, order: Order, mt: Migratetype) {
        if self.verify {
            return;
        }
        let again = || match self.call(order, mt) {
            Ok(page) => {
                let freed = match self.runs {
                    true => (self.zone).free_contig(self.cpu, page, order.pages(), self.context),
                    false => self.zone.free(self.cpu, page, order, self.context),
                };
                // The run is about what it would have been.
                debug_assert!(freed.is_ok());
                false
            }
            Err(_) => true,
        };
        let ledger = self.plan.ledger();
        let spurious = ledger.is_spurious_again((order, mt), self.zone.stats(), again);
        self.wrongs.spurious += u64::from(spurious);
    }

    /// Does a call, and takes its time if that is wanted.
    #[inline]
    fn timed<R>(&self, call: Call, deed: impl FnOnce() -> R) -> R {
        match self.latencies {
            None => deed(),
            Some(latencies) => {
                latencies.time(self.nr, Call::Nothing, || ());
                latencies.time(self.nr, call, deed)
            }
        }
    }

    /// Allocates the next chunk, as a run of pages if that is the manner of the run.
    #[inline]
    pub(super) fn get(&mut self) -> Option<Chunk<A::Page>> {
        if !self.runs {
            return self.alloc();
        }
        let (order, mt) = self.requests.next();
        let page = match self.plain {
            true => (self.zone).alloc_contig(self.cpu, order.pages(), mt, self.context),
            false => self.alloc_closely(order, mt),
        };
        self.got(page, order, mt)
    }

    #[inline]
    fn got(
        &mut self,
        page: Result<A::Page>,
        order: Order,
        mt: Migratetype,
    ) -> Option<Chunk<A::Page>> {
        let Ok(page) = page else {
            self.tally.failures += 1;
            self.refused(order, mt);
            return None;
        };
        let tag = Tag::new(self.nr, self.sequence, order);
        self.sequence += 1;
        self.tally.ops += 1;
        self.tally.pages += u64::from(order.pages());
        let chunk = Chunk { page, tag };
        if self.marking {
            self.mark(chunk);
        }
        Some(chunk)
    }

    /// Whether chunks are single pages, allocated and freed in calls of many.
    #[inline]
    pub(super) fn uses_arrays(&self) -> bool {
        !self.runs && self.how == How::Array
    }

    /// Allocates `nr` pages, at most a [`STRETCH`], in one call, and hands them over as chunks; returns how
    /// many there were. That there are fewer is for the caller to count.
    pub(super) fn alloc_array(&mut self, nr: u64, mut each: impl FnMut(Chunk<A::Page>)) -> u64 {
        let mt = self.requests.next_type();
        let (zone, cpu, context) = (self.zone, self.cpu, self.context);
        let ledger = self.plan.ledger();
        ledger.ask(self.nr, nr);
        let freed = ledger.freed();
        let mut array = self.array.take();
        let got = match &mut array {
            Some(array) => {
                let out = &mut array[..nr as usize];
                self.timed(Call::Alloc, || zone.alloc_bulk(cpu, mt, context, out))
            }
            None => 0,
        };
        self.array = array;
        let missing = nr - got as u64;
        if missing > 0 {
            self.refused(Order::ZERO, mt);
            if self.verify {
                let spurious = ledger.is_spurious(Order::ZERO, mt, freed, missing);
                self.wrongs.spurious += u64::from(spurious);
                ledger.settle(self.nr, missing);
            }
        }
        let first = self.sequence;
        self.sequence += got as u64;
        self.tally.ops += got as u64;
        self.tally.pages += got as u64;
        let pages = self.array.as_deref().unwrap_or_default();
        for (&page, sequence) in pages[..got].iter().zip(first..) {
            let tag = Tag::new(self.nr, sequence, Order::ZERO);
            let chunk = Chunk { page, tag };
            if self.marking {
                self.mark(chunk);
            }
            each(chunk);
        }
        got as u64
    }

    /// Checks a chunk, whoever allocated it, and frees it.
    #[inline]
    pub(super) fn free(&mut self, chunk: Chunk<A::Page>) {
        let Chunk { page, tag } = chunk;
        let freed = match self.plain {
            true => self.zone.free(self.cpu, page, tag.order(), self.context),
            false => self.free_closely(chunk),
        };
        self.wrongs.frees += u64::from(freed.is_err());
        self.tally.frees += 1;
    }

    /// Frees a chunk with what is wanted besides.
    #[inline(never)]
    fn free_closely(&mut self, chunk: Chunk<A::Page>) -> Result<()> {
        if self.verify {
            self.check(chunk);
        }
        let Chunk { page, tag } = chunk;
        let freed = self.timed(Call::Free, || {
            self.zone.free(self.cpu, page, tag.order(), self.context)
        });
        self.settle(&freed, tag.order().pages().into());
        freed
    }

    /// Notes that pages have been freed, where somebody wants to know.
    fn settle(&self, freed: &Result<()>, pages: u64) {
        if self.verify && freed.is_ok() {
            self.plan.ledger().settle(self.nr, pages);
        }
    }

    /// Checks a chunk and frees it in the manner of the run, now or with the next [`Worker::flush`].
    #[inline]
    pub(super) fn put(&mut self, chunk: Chunk<A::Page>) {
        if !self.runs && self.how == How::Single {
            return self.free(chunk);
        }
        if self.verify {
            self.check(chunk);
        }
        let Chunk { page, tag } = chunk;
        self.tally.frees += 1;
        if !self.runs {
            return self.put_later(page);
        }
        let nr = tag.order().pages();
        match self.how {
            How::Range => {
                let freed = self.timed(Call::Free, || {
                    self.zone.free_contig(self.cpu, page, nr, self.context)
                });
                self.settle(&freed, nr.into());
                self.wrongs.frees += u64::from(freed.is_err());
            }
            How::Array => {
                for i in 0..nr {
                    self.put_later(self.zone.page_of_run(page, i));
                }
            }
            How::Single => {
                for page in (0..nr).map(|i| self.zone.page_of_run(page, i)) {
                    let freed = self.timed(Call::Free, || {
                        self.zone.free(self.cpu, page, Order::ZERO, self.context)
                    });
                    self.settle(&freed, 1);
                    self.wrongs.frees += u64::from(freed.is_err());
                }
            }
        }
    }

    #[inline]
    fn put_later(&mut self, page: A::Page) {
        let array = self.array.as_deref_mut().unwrap_or_default();
        if let Some(place) = array.get_mut(self.waiting) {
            *place = page;
            self.waiting += 1;
        }
        if self.waiting == array.len() {
            self.flush();
        }
    }

    /// Frees what waits to be freed together.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.waiting == 0 {
            return;
        }
        let mut array = self.array.take();
        if let Some(array) = &mut array {
            let pages = &mut array[..self.waiting];
            let (zone, cpu, context) = (self.zone, self.cpu, self.context);
            let freed = self.timed(Call::Free, || zone.free_bulk(cpu, pages, context));
            self.settle(&freed, self.waiting as u64);
            self.wrongs.frees += u64::from(freed.is_err());
        }
        self.array = array;
        self.waiting = 0;
    }

    #[inline(never)]
    fn mark(&self, chunk: Chunk<A::Page>) {
        let Chunk { page, tag } = chunk;
        for nr in 0..tag.order().pages() {
            let stamp = tag.stamp(self.seed, nr);
            let write = |word| self.machine.write_word(page, nr, word, stamp);
            match self.touch {
                Touch::None => {}
                Touch::First => write(0),
                Touch::All => (0..PAGE_WORDS).step_by(LINE_WORDS).for_each(write),
            }
        }
        if self.verify {
            chunk.stamp(self.machine, self.seed);
        }
    }

    #[inline(never)]
    fn check(&mut self, chunk: Chunk<A::Page>) {
        self.wrongs.stamps += chunk.wrong_stamps(self.machine, self.seed);
    }

    /// Stops asking for the largest order; false if there is no other.
    pub(super) fn exclude_largest_order(&mut self) -> bool {
        let order = &mut self.requests.order;
        let more = order.lo < order.hi;
        if more {
            order.hi = order.hi.below();
        }
        more
    }

    /// Asks for all orders of the run again.
    pub(super) fn include_all_orders(&mut self) {
        self.requests.order = self.plan.spec().order;
    }

    /// How many allocations to try next without looking up, at most `limit`; 0 when this worker
    /// has done its share or the run is over. Takes them off the share.
    pub(super) fn stretch(&mut self, limit: u64) -> u64 {
        if !self.breathe() || self.is_late() {
            return 0;
        }
        let nr = limit.min(self.at_a_time()).min(self.left);
        self.left -= nr;
        nr
    }

    /// How many chunks to handle between two looks up.
    pub(super) fn at_a_time(&self) -> u64 {
        // Some policies free a chunk of a run page by page.
        let most = STRETCH_PAGES >> self.plan.spec().order.hi.get();
        most.clamp(1, STRETCH)
    }

    /// Puts allocations that were not tried back to the share.
    pub(super) fn put_back(&mut self, nr: u64) {
        self.left += nr;
    }

    /// Whether a run by time has had its time.
    pub(super) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|end| self.machine.now_ns() >= end)
    }

    /// Gives way to others; says whether the run goes on.
    pub(super) fn breathe(&mut self) -> bool {
        self.machine.give_way();
        self.look_around();
        self.goes_on()
    }

    /// Notes where this worker is, after others have been let in.
    #[inline]
    fn look_around(&mut self) {
        self.cpu = self.machine.cpu(self.plan.cpu_of(self.nr));
    }

    /// Whether the run goes on, also for this worker to tell the others.
    pub(super) fn goes_on(&self) -> bool {
        if self.machine.stop_requested() {
            self.plan.stop();
        }
        !self.plan.is_stopped()
    }

    /// Takes turns at something until it is done; time in which a turn finds nothing to do is not
    /// busy time. The last turn has to come whatever this worker was told to do.
    pub(super) fn take_turns(&mut self, mut turn: impl FnMut(&mut Self) -> Turn) {
        let mut backoff = Backoff::new();
        loop {
            match turn(self) {
                Turn::Done => return,
                Turn::Worked => {
                    backoff = Backoff::new();
                    self.breathe();
                }
                Turn::Idle => {
                    self.goes_on();
                    self.idle(|machine| backoff.pause(machine));
                }
            }
        }
    }

    /// Waits a little for others to free memory.
    pub(super) fn rest(&mut self) {
        self.idle(M::wait);
    }

    /// Waits for all other workers.
    pub(super) fn meet(&mut self, passes: &mut Passes) {
        let barrier = self.plan.barrier();
        self.idle(|machine| barrier.pass(passes, machine));
    }

    /// Does something that is no part of the work.
    pub(super) fn aside(&mut self, deed: impl FnOnce(&mut Self)) {
        let start = self.machine.now_ns();
        deed(self);
        self.tally.waited_ns += self.machine.now_ns().saturating_sub(start);
    }

    /// Does something that is not busy time.
    fn idle<R>(&mut self, wait: impl FnOnce(&M) -> R) -> R {
        let start = self.machine.now_ns();
        let result = wait(self.machine);
        self.look_around();
        self.tally.waited_ns += self.machine.now_ns().saturating_sub(start);
        result
    }

    /// Whether this is the worker that decides for all.
    pub(super) fn leads(&self) -> bool {
        self.nr == 0
    }
}
