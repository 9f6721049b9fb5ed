// SPDX-License-Identifier: GPL-2.0

//! What the workers of a run share, and the course of one worker.

use super::{
    barrier::{
        Barrier,
        Passes, //
    },
    chunk::{
        Pool,
        Set,
        SEGMENT, //
    },
    frag::{
        Board,
        Keeper, //
    },
    handover,
    interrupts::Interrupts,
    latency::Latencies,
    ledger::{
        Ledger,
        Promise, //
    },
    report::{
        Counters,
        Found,
        Report,
        Row,
        Setting,
        Verdict, //
    },
    ring::{
        Rings,
        Topology, //
    },
    sets,
    solo::{
        self,
        Slots, //
    },
    spec::{
        Amount,
        How,
        Spec,
        Workload, //
    },
    stress::{
        self,
        Hand,
        Pins, //
    },
    worker::{
        Worker,
        STRETCH, //
    },
    Machine, //
};
use crate::mm::{
    self,
    platform::{
        Array,
        AtomicU32, //
    },
    types::{
        CpuIdx,
        Order,
        TOP_ORDER, //
    },
    PageAllocator, //
};
use core::{
    fmt,
    num::NonZeroU64, //
};

/// Working set of a CPU that is told none, in pages: 64 MiB.
const DEFAULT_PAGES: u64 = 16384;

/// Chunks handed over at a time by `fanout` where no batch is given.
const DEFAULT_BATCH: u64 = 64;

/// Chunks that a ring holds at most, unless the batch is larger.
const MAX_RING: u64 = 1024;

/// How many neighbours a CPU hands chunks to in `stress`: all, on most test machines.
const MAX_NEIGHBOURS: usize = 8;

/// What a plan needs to know of the zone.
#[derive(Clone, Copy, Debug)]
pub struct ZoneFacts {
    /// Pages that can be allocated at once: managed, or the bound of a `stock` zone.
    pub pages: u64,
    /// Largest order that the policy serves.
    pub max_order: Order,
    /// What must not be refused; `None` where nobody knows what is free.
    pub promise: Option<Promise>,
}

/// Why a run cannot be planned; prints as words for `last_error`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// No memory for tables.
    NoMemory,
    /// The policy serves no order above this.
    Order(Order),
    /// The working set is larger than the zone, which has this many pages.
    Pages(u64),
    /// There is no CPU to run on.
    NoCpu,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::NoMemory => f.write_str("no memory for the tables of the run"),
            PlanError::Order(max) => write!(f, "order: this policy serves none above {max}"),
            PlanError::Pages(pages) => write!(f, "pages: the zone has only {pages}"),
            PlanError::NoCpu => f.write_str("cpus: none given"),
        }
    }
}

impl From<mm::types::Error> for PlanError {
    fn from(_: mm::types::Error) -> PlanError {
        PlanError::NoMemory
    }
}

/// What a worker does in workloads that hand over: its number among those with that role.
#[derive(Clone, Copy)]
pub(super) struct Roles {
    pub(super) allocator: Option<usize>,
    pub(super) freer: Option<usize>,
}

struct Seat {
    cpu: CpuIdx,
    roles: Roles,
}

/// A run: what shall be done, and what the workers share while they do it.
pub struct Plan {
    spec: Spec,
    zone_pages: u64,
    /// Workers by number.
    seats: Array<Seat>,
    /// Working set per CPU.
    set_pages: u64,
    set_chunks: u64,
    /// Sets that a worker builds in a repetition, or `u64::MAX`.
    rounds: u64,
    nr_allocators: NonZeroU64,
    barrier: Barrier,
    /// Whether the run ends early.
    stopped: AtomicU32,
    /// Whether a worker has no tables. Written before the first barrier only.
    no_memory: AtomicU32,
    /// Decisions of the leading worker, each made before one barrier and read after it.
    pub(super) more_rounds: AtomicU32,
    more_repetitions: AtomicU32,
    /// Repetitions that were begun.
    begun: AtomicU32,
    /// By repetition, then worker.
    rows: Array<Row>,
    rings: Rings,
    pool: Pool,
    board: Board,
    latencies: Latencies,
    ledger: Ledger,
    interrupts: Interrupts,
}

impl Plan {
    /// Lays out a run.
    ///
    /// # Errors
    ///
    /// What the zone cannot serve, or `NoMemory`.
    pub fn new(spec: &Spec, zone: &ZoneFacts) -> Result<Plan, PlanError> {
        let max_order = match spec.workload {
            // Beyond the largest chunk is what it is for; whether there is a run shows.
            Workload::Contig => Order::new(TOP_ORDER),
            _ => zone.max_order,
        };
        if spec.order.hi.max(spec.vain.unwrap_or(Order::ZERO)) > max_order {
            return Err(PlanError::Order(zone.max_order));
        }
        let zone_pages = zone.pages.min(u64::from(u32::MAX));
        if spec.pages.is_some_and(|pages| pages > zone_pages) {
            return Err(PlanError::Pages(zone_pages));
        }
        let seats = seats(spec)?;
        // At least one of each there is; saying so leaves no division that could panic.
        let nr = seats.len().max(1);
        let topology = topology(spec, nr);
        let mean = spec.order.mean_pages().max(1);

        // Half of the zone at most for what is on the way, half for what CPUs hold.
        let fair = zone_pages / 2 / mean / topology.rings().max(1) as u64;
        let set_pages = spec.pages.unwrap_or(match spec.workload {
            Workload::Fanout => (fair / 2).clamp(1, DEFAULT_BATCH) * mean,
            Workload::Purge => DEFAULT_PAGES.min(fair.max(1) * mean),
            _ => DEFAULT_PAGES.min(zone_pages / 2 / nr as u64),
        });
        let set_chunks = match spec.workload {
            // A CPU's share of the zone in the smallest chunks, when larger ones are not to be had.
            Workload::Frag => ((zone_pages / nr as u64) >> spec.order.lo.get()) + 1,
            _ => (set_pages / mean).max(1),
        };
        let ring_chunks = match spec.workload {
            Workload::Fanout => fair.min(MAX_RING).max(2 * set_chunks),
            Workload::Purge => set_chunks,
            // What is on the way counts as in use, and there is to be little of it.
            Workload::Frag => (fair / 64).clamp(1, MAX_RING),
            _ => fair.min(MAX_RING),
        };
        let nr_allocators =
            NonZeroU64::new(spec.alloc_cpus().len() as u64).unwrap_or(NonZeroU64::MIN);
        let same_order = spec.order.lo == spec.order.hi;
        let alike = (same_order && !spec.verify).then_some(spec.order.lo);
        let segments = match spec.workload {
            Workload::Bulk | Workload::Exit | Workload::Contig => nr * segments_of(set_chunks),
            // Each CPU may leave its last segment nearly empty.
            Workload::Hog => nr + segments_of(zone_pages >> spec.order.lo.get()),
            _ => 0,
        };
        let boards = match spec.workload {
            Workload::Frag => spec.repeat as usize,
            _ => 0,
        };
        Ok(Plan {
            spec: *spec,
            zone_pages,
            set_pages,
            set_chunks,
            rounds: match spec.amount {
                Amount::Ops(ops) => ops.div_ceil(nr_allocators.get()).div_ceil(set_chunks),
                Amount::Ms(_) => u64::MAX,
                Amount::Round => 1,
            },
            nr_allocators,
            barrier: Barrier::new(nr),
            stopped: AtomicU32::new(0),
            no_memory: AtomicU32::new(0),
            more_rounds: AtomicU32::new(0),
            more_repetitions: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            rows: Array::new(nr * spec.repeat as usize, |_| Row::new())?,
            rings: Rings::new(topology, ring_chunks as usize, alike)?,
            pool: Pool::new(segments, alike)?,
            board: Board::new(nr, boards)?,
            latencies: Latencies::new(if spec.latency { nr } else { 0 })?,
            ledger: Ledger::new(spec, zone.promise, zone_pages, nr)?,
            interrupts: Interrupts::new(spec, nr)?,
            seats,
        })
    }

    /// What the run does.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Number of workers: one for each CPU of the run.
    pub fn nr_workers(&self) -> usize {
        self.seats.len()
    }

    /// The CPU that worker `worker` must run on.
    pub fn cpu_of(&self, worker: usize) -> CpuIdx {
        self.seats[worker].cpu
    }

    /// Does the part of one worker, all repetitions, and returns when it has nothing allocated
    /// any more. To be called once for each worker, on the worker's CPU.
    pub fn run_worker<A, M>(&self, worker: usize, zone: &A, machine: &M)
    where
        A: PageAllocator,
        M: Machine<A::Page>,
    {
        let made = Tools::new(self).and_then(|tools| Ok((tools, self.array::<A, M>()?)));
        let (mut tools, array) = made.unwrap_or_else(|_| {
            // The others learn of it at the barrier.
            self.no_memory.store(1);
            (Tools::Nothing, None)
        });
        let mut worker = Worker::new(self, worker, zone, machine, array);
        let mut passes = Passes::default();
        for repetition in 0..self.spec.repeat {
            worker.reseed(repetition);
            tools.prepare(&mut worker);
            let started = self.barrier.pass(&mut passes, machine);
            if !started || self.no_memory.load() != 0 {
                tools.clean_up(&mut worker);
                return;
            }
            let start = machine.now_ns();
            worker.begin(start);
            // Also when the run has been stopped: all have to go through the same barriers.
            tools.run(&mut worker, &mut passes, repetition as usize);
            let (end, tally) = (machine.now_ns(), worker.tally);
            if worker.leads() {
                let more = worker.goes_on();
                self.more_repetitions.store(u32::from(more));
                self.begun.store(repetition + 1);
            }
            self.barrier.pass(&mut passes, machine);
            tools.clean_up(&mut worker);
            let row = repetition as usize * self.nr_workers() + worker.nr;
            self.rows[row].put(start, end, &tally, &worker.wrongs);
            if self.more_repetitions.load() == 0 {
                return;
            }
        }
    }

    /// Room for the pages of a bulk call, where there are such calls.
    fn array<A, M>(&self) -> mm::types::Result<Option<Array<A::Page>>>
    where
        A: PageAllocator,
        M: Machine<A::Page>,
    {
        if self.spec.how != How::Array {
            return Ok(None);
        }
        Array::new(STRETCH as usize, |_| M::from_bits(0)).map(Some)
    }

    /// Sends home the workers that have been started, because not all can be. Only while at least
    /// one of them has not been started.
    pub fn abort(&self) {
        self.barrier.abort();
    }

    /// Ends the run early, as a signal does. For callers that learn of it themselves.
    pub fn stop(&self) {
        self.stopped.store(1);
    }

    /// Makes the report, when all workers have returned. `policy` is the zone's name for it,
    /// `before` and `after` are its counters before the first worker started and now.
    ///
    /// # Errors
    ///
    /// `NoMemory`.
    pub fn into_report(
        self,
        policy: &'static str,
        before: Counters,
        after: Counters,
    ) -> Result<Report, PlanError> {
        let early = if self.barrier.is_aborted() {
            Some(Verdict::Aborted)
        } else if self.no_memory.load() != 0 {
            Some(Verdict::NoMemory)
        } else if self.is_stopped() {
            Some(Verdict::Stopped)
        } else {
            None
        };
        let setting = Setting {
            spec: self.spec,
            policy,
            judged: self.ledger.judges(),
            set_pages: self.set_pages,
            workers: self.seats.len(),
            repetitions: self.begun.load() as usize,
        };
        let cpus = Array::new(self.seats.len(), |nr| self.seats[nr].cpu)?;
        let changes = after.since(before);
        let found = Found {
            rows: self.rows,
            board: self.board,
            latencies: self.latencies,
            interrupts: self.interrupts.tally(),
            changes,
        };
        Ok(Report::new(setting, cpus, found, early)?)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load() != 0
    }

    /// Operations of worker `nr` in a repetition that counts them: an even share, the first
    /// allocating CPUs taking one more each of what is left over.
    pub(super) fn share(&self, nr: usize) -> u64 {
        let (Amount::Ops(ops), Some(place)) = (self.spec.amount, self.roles(nr).allocator) else {
            return 0;
        };
        ops / self.nr_allocators + u64::from((place as u64) < ops % self.nr_allocators)
    }

    pub(super) fn roles(&self, nr: usize) -> Roles {
        self.seats[nr].roles
    }

    pub(super) fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    pub(super) fn rings(&self) -> &Rings {
        &self.rings
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// Pages that can be allocated at once.
    pub(super) fn zone_pages(&self) -> u64 {
        self.zone_pages
    }

    pub(super) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Chunks of a working set.
    pub(super) fn set_chunks(&self) -> u64 {
        self.set_chunks
    }

    /// Chunks handed over at a time.
    pub(super) fn batch(&self) -> usize {
        self.set_chunks as usize
    }

    /// Whether an allocating CPU may begin its next batch: `fanout` streams, so there has to be room
    /// for it; `purge` comes in bursts, so the one before has to be gone.
    pub(super) fn may_begin_batch(&self, ring: usize) -> bool {
        match self.spec.workload {
            Workload::Purge => self.rings.is_empty(ring),
            _ => self.rings.room(ring) >= self.batch(),
        }
    }
}

/// A worker for each CPU of the run, with its places among those that allocate and that free.
fn seats(spec: &Spec) -> Result<Array<Seat>, PlanError> {
    let (allocating, freeing) = (spec.alloc_cpus(), spec.freeing_cpus());
    let all = allocating.union(&freeing);
    if spec.cpus.is_empty() {
        return Err(PlanError::NoCpu);
    }
    let (mut allocators, mut freers) = (0.., 0..);
    let mut cpus = all.iter();
    let seat = |_| {
        // As many as are asked for, so there is always a next one.
        let cpu = cpus.next().unwrap_or(CpuIdx(0));
        Seat {
            cpu,
            roles: Roles {
                allocator: allocators.next_if(allocating.contains(cpu)),
                freer: freers.next_if(freeing.contains(cpu)),
            },
        }
    };
    Ok(Array::new(all.len(), seat)?)
}

/// Counting those to whom something applies.
trait NextIf {
    fn next_if(&mut self, applies: bool) -> Option<usize>;
}

impl NextIf for core::ops::RangeFrom<usize> {
    fn next_if(&mut self, applies: bool) -> Option<usize> {
        if applies {
            self.next()
        } else {
            None
        }
    }
}

fn topology(spec: &Spec, workers: usize) -> Topology {
    match spec.workload {
        Workload::Purge | Workload::Fanout => Topology::Pairs {
            allocators: spec.alloc_cpus().len(),
            freers: spec.freeing_cpus().len(),
        },
        Workload::Stress | Workload::Frag if workers > 1 => Topology::Neighbours {
            workers,
            distance: MAX_NEIGHBOURS.min(workers - 1),
        },
        _ => Topology::None,
    }
}

fn segments_of(chunks: u64) -> usize {
    chunks.div_ceil(SEGMENT as u64) as usize
}

/// What a worker has for itself, by workload.
enum Tools<P> {
    Nothing,
    Pair,
    HandOver,
    Bulk(Set),
    Exit(Set),
    Hog(Set),
    Rand(Slots<P>),
    Stress(Hand<P>, Pins<P>),
    Frag(Keeper<P>),
}

impl<P: Copy> Tools<P> {
    fn new(plan: &Plan) -> mm::types::Result<Tools<P>> {
        let chunks = plan.set_chunks as usize;
        Ok(match plan.spec.workload {
            Workload::Pair => Tools::Pair,
            Workload::Purge | Workload::Fanout => Tools::HandOver,
            Workload::Bulk | Workload::Contig => Tools::Bulk(Set::new(chunks)?),
            Workload::Exit => Tools::Exit(Set::new(chunks)?),
            Workload::Hog => Tools::Hog(Set::new(plan.pool.segments() * SEGMENT)?),
            Workload::Rand => Tools::Rand(Slots::new(chunks)?),
            Workload::Stress => Tools::Stress(Hand::new(chunks)?, Pins::new(plan)?),
            Workload::Frag => Tools::Frag(Keeper::new(chunks, plan.zone_pages)?),
        })
    }

    /// Before the clock starts.
    fn prepare<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        match self {
            Tools::Rand(slots) => slots.prepare(worker),
            Tools::Stress(_, pins) => pins.prepare(worker),
            _ => {}
        }
    }

    /// What is timed.
    fn run<A, M>(&mut self, worker: &mut Worker<'_, A, M>, passes: &mut Passes, repetition: usize)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        match self {
            Tools::Nothing => {}
            Tools::Pair => solo::pair(worker),
            Tools::HandOver => handover::hand_over(worker),
            Tools::Bulk(set) => sets::bulk(worker, set),
            Tools::Exit(set) => sets::exit(worker, set, passes),
            Tools::Hog(set) => sets::hog(worker, set, passes),
            Tools::Rand(slots) => slots.hit(worker),
            Tools::Stress(hand, _) => stress::play(worker, hand),
            Tools::Frag(keeper) => keeper.keep(worker, passes, repetition),
        }
    }

    /// When the clock has stopped on all CPUs.
    fn clean_up<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        match self {
            Tools::Rand(slots) => slots.clean_up(worker),
            Tools::Stress(hand, pins) => {
                hand.clean_up(worker);
                pins.clean_up(worker);
            }
            Tools::Frag(keeper) => keeper.clean_up(worker),
            _ => {}
        }
    }
}
