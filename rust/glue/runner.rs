// SPDX-License-Identifier: GPL-2.0

//! Runs a workload in a zone: one thread per CPU, and somebody who waits.
//!
//! The caller of [`run`] waits for its threads, interruptibly: a signal asks them to stop, and is
//! answered when they have freed what they had. Threads borrow from the caller's stack, so
//! [`Threads`] does not go before every one of them has exited.
//!
//! Workers run in task context. Where the run is to have interrupts too, each worker has a timer that
//! interrupts it.

use super::{
    cpu::{self, Residence},
    interrupts::{Interruptible, Interrupts},
    ranges::{pfn_of, Addresses},
    refusal::{refusal, Outcome, Refusal},
    stock::StockPage,
    zone::{Backend, Managed, Zone},
};
use crate::{
    mm::{
        self,
        platform::{self, AtomicU32},
        types::{Context, CpuIdx, Order, PageIdx},
        PageAllocator, //
    },
    workload::{
        spec::Spec,
        Counters,
        Machine,
        Memory,
        Plan,
        PlanError,
        Promise,
        Report,
        Verdict,
        ZoneFacts,
        PAGE_WORDS, //
    },
};
use core::{marker::PhantomData, ptr};
use kernel::{
    bindings,
    error::from_err_ptr,
    ffi::{c_int, c_ulong, c_void},
    page::PAGE_SIZE,
    prelude::*,
    types::Opaque, //
};

extern "C" {
    fn pcpb_sleep_us(us: c_ulong);
}

/// How long a worker with nothing to do sleeps, in microseconds.
const WAIT_US: c_ulong = 20;

const _: () = assert!(PAGE_SIZE == PAGE_WORDS as usize * size_of::<u64>());

/// Runs what `spec` says in `zone` and keeps the report.
///
/// # Errors
///
/// `EINVAL` for CPUs that are not online or what the zone cannot serve, `EBUSY` if a run is on,
/// `EINTR` if a signal stopped it, `EIO` if the allocator did what it must not, `ENOMEM`.
pub(crate) fn run(zone: &Zone, spec: &Spec) -> Outcome {
    if let Some(cpu) = spec.all_cpus().iter().find(|cpu| !cpu::is_online(*cpu)) {
        return Err(refusal!(
            EINVAL,
            "{}/run: CPU {} is not online",
            zone.name(),
            cpu.0
        ));
    }
    let _claim = zone.start_run()?;
    let report = match zone.backend() {
        // Sets keep pieces of larger chunks, which only a drain puts together; others fill up again
        // meanwhile.
        Backend::List(managed) => run_managed(zone, spec, Order::ZERO, managed),
        Backend::Economy(managed) => {
            run_managed(zone, spec, Order::new(zone.spec().block_order), managed)
        }
        Backend::Stock(alloc) => {
            let facts = ZoneFacts {
                pages: u64::from(zone.spec().pages()),
                max_order: alloc.max_order(),
                promise: None,
            };
            run_in(zone, spec, &facts, alloc, &ByPage)
        }
    }?;
    let verdict = report.verdict();
    zone.set_result(report);
    let errno = match verdict {
        Verdict::Ok => return Ok(()),
        Verdict::Stopped => EINTR,
        Verdict::Aborted | Verdict::NoMemory => ENOMEM,
        Verdict::Failed { .. } => EIO,
    };
    Err(refusal!(errno, "{}/run: {verdict}", zone.name()))
}

/// Runs in a zone whose policy serves chunks of up to order `promised` as long as there are any.
fn run_managed<A>(
    zone: &Zone,
    spec: &Spec,
    promised: Order,
    managed: &Managed<A>,
) -> Outcome<KBox<Report>>
where
    A: PageAllocator<Page = PageIdx> + mm::Report,
{
    let Managed {
        alloc, addresses, ..
    } = managed;
    let pages = alloc.managed_pages();
    let facts = ZoneFacts {
        pages,
        max_order: alloc.max_order(),
        promise: Some(Promise::new(
            alloc.stats(),
            promised,
            zone.spec().cma_pages(),
        )),
    };
    #[cfg(CONFIG_KASAN_GENERIC)]
    let alloc = &super::poison::Poisoning { alloc, addresses };
    run_in(zone, spec, &facts, alloc, addresses)
}

// Not inlined, as what it calls: the stack of who waits for a run stays small. Plans and reports are
// large, and made below the frames that last.
#[inline(never)]
fn run_in<A, L>(
    zone: &Zone,
    spec: &Spec,
    facts: &ZoneFacts,
    alloc: &A,
    locate: &L,
) -> Outcome<KBox<Report>>
where
    A: PageAllocator,
    L: Locate<A::Page>,
{
    let plan = lay_out(zone, spec, facts)?;
    alloc.time_locks(spec.lock_times);
    let no_memory = |_| refuse(zone, PlanError::NoMemory);
    let before = Counters::take(alloc).map_err(no_memory)?;
    run_threads(&plan, alloc, locate).map_err(|errno| match errno {
        // The making of a thread is given up when a signal comes.
        EINTR => refusal!(EINTR, "{}/run: {}", zone.name(), Verdict::Stopped),
        errno => refusal!(errno, "{}/run: worker threads cannot be made", zone.name()),
    })?;
    let after = Counters::take(alloc).map_err(no_memory)?;
    report(zone, plan, before, after)
}

fn refuse(zone: &Zone, err: PlanError) -> Refusal {
    let errno = match err {
        PlanError::NoMemory => ENOMEM,
        _ => EINVAL,
    };
    refusal!(errno, "{}/run: {err}", zone.name())
}

#[inline(never)]
fn lay_out(zone: &Zone, spec: &Spec, facts: &ZoneFacts) -> Outcome<KBox<Plan>> {
    let plan = Plan::new(spec, facts).map_err(|err| refuse(zone, err))?;
    KBox::new(plan, GFP_KERNEL).map_err(|_| refuse(zone, PlanError::NoMemory))
}

#[inline(never)]
fn report(
    zone: &Zone,
    plan: KBox<Plan>,
    before: Counters,
    after: Counters,
) -> Outcome<KBox<Report>> {
    let report = KBox::into_inner(plan)
        .into_report(zone.spec().policy.name(), before, after)
        .map_err(|err| refuse(zone, err))?;
    KBox::new(report, GFP_KERNEL).map_err(|_| refuse(zone, PlanError::NoMemory))
}

/// Starts a thread for each worker of the plan and waits until all have exited.
fn run_threads<A, L>(plan: &Plan, alloc: &A, locate: &L) -> Result
where
    A: PageAllocator,
    L: Locate<A::Page>,
{
    let shared = Shared {
        plan,
        alloc,
        locate,
        stop: AtomicU32::new(0),
        done: KBox::pin_init(Done::new(), GFP_KERNEL)?,
    };
    let result = run_workers(&shared);
    // All interrupts are over.
    let here = cpu::Settled::new();
    plan.end_interrupts(here.cpu(), alloc, &Pages(locate));
    result
}

fn run_workers<A, L>(shared: &Shared<'_, A, L>) -> Result
where
    A: PageAllocator,
    L: Locate<A::Page>,
{
    let plan = shared.plan;
    let nr = plan.nr_workers();
    let mut workers = KVec::with_capacity(nr, GFP_KERNEL)?;
    for worker in 0..nr {
        let next = (worker + 1) % nr;
        let interrupts = match plan.spec().context {
            Context::Task => None,
            context => {
                let next = (next, plan.cpu_of(next));
                Some(Interrupts::new(shared, context, worker, next)?)
            }
        };
        workers.push(
            Worker {
                nr: worker,
                shared,
                interrupts,
            },
            GFP_KERNEL,
        )?;
    }
    let mut threads = Threads::with_capacity(nr)?;
    for worker in &workers {
        threads.add(worker)?;
    }
    // Nobody has run so far: a thread that cannot be made leaves nothing to abort.
    threads.wake();
    for _ in 0..nr {
        if shared.done.wait_one().is_err() {
            shared.stop.store(1);
            shared.done.wait_one_regardless();
        }
    }
    Ok(())
}

/// What the threads of a run share.
struct Shared<'a, A, L> {
    plan: &'a Plan,
    alloc: &'a A,
    locate: &'a L,
    /// A signal came.
    stop: AtomicU32,
    done: Pin<KBox<Done>>,
}

/// What one thread is given.
struct Worker<'a, A, L>
where
    A: PageAllocator,
    L: Locate<A::Page>,
{
    nr: usize,
    shared: &'a Shared<'a, A, L>,
    interrupts: Option<Interrupts<'a, Shared<'a, A, L>>>,
}

impl<A, L> Interruptible for Shared<'_, A, L>
where
    A: PageAllocator,
    L: Locate<A::Page>,
{
    fn interrupted(&self, worker: usize, cpu: CpuIdx) {
        (self.plan).interrupt(worker, cpu, self.alloc, &Pages(self.locate));
    }
}

impl<A, L> Worker<'_, A, L>
where
    A: PageAllocator,
    L: Locate<A::Page>,
{
    fn cpu(&self) -> CpuIdx {
        self.shared.plan.cpu_of(self.nr)
    }

    /// The thread function.
    ///
    /// # Safety
    ///
    /// `data` points to a worker that lives until the thread has exited.
    unsafe extern "C" fn main(data: *mut c_void) -> c_int {
        // SAFETY: By caller precondition. Workers and what they refer to are only shared.
        let worker = unsafe { &*data.cast::<Self>() };
        let shared = worker.shared;
        let give_up = || shared.stop.load() != 0;
        let machine = ThisMachine {
            pages: Pages(shared.locate),
            stop: &shared.stop,
            home: worker.cpu(),
            residence: Residence::new(worker.cpu(), give_up),
        };
        if let Some(interrupts) = &worker.interrupts {
            interrupts.start();
        }
        shared.plan.run_worker(worker.nr, shared.alloc, &machine);
        if let Some(interrupts) = &worker.interrupts {
            interrupts.stop();
        }
        drop(machine);
        shared.done.tell();
        0
    }
}

/// Kernel threads, one per worker. Dropping waits for their exit.
///
/// # Invariants
///
/// Each pointer is a thread that we hold a reference to. Threads from number `awake` on have not
/// been woken since they were made.
struct Threads<'a> {
    tasks: KVec<*mut bindings::task_struct>,
    awake: usize,
    /// Threads use workers, which must stay as long as this.
    _workers: PhantomData<&'a ()>,
}

impl<'a> Threads<'a> {
    fn with_capacity(nr: usize) -> Result<Threads<'a>> {
        Ok(Threads {
            tasks: KVec::with_capacity(nr, GFP_KERNEL)?,
            awake: 0,
            _workers: PhantomData,
        })
    }

    /// Makes a thread for a worker, on its CPU and no other; it does not run yet.
    fn add<A, L>(&mut self, worker: &'a Worker<'a, A, L>) -> Result
    where
        A: PageAllocator,
        L: Locate<A::Page>,
    {
        self.tasks.reserve(1, GFP_KERNEL)?;
        let data = ptr::from_ref(worker).cast_mut().cast::<c_void>();
        // SAFETY: The worker outlives `self`, which waits for the exit of the thread. What the
        // worker shares is `Sync`. The name is a format for one `unsigned int`.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_cpu(
                Some(Worker::<A, L>::main),
                data,
                worker.cpu().0,
                c"pcp_buddy/%u".as_char_ptr(),
            )
        })?;
        // SAFETY: A thread that has not been woken exists.
        unsafe { bindings::get_task_struct(task) };
        // INVARIANT: The reference is ours, and nobody has woken the thread.
        self.tasks.push(task, GFP_KERNEL)?;
        Ok(())
    }

    /// Lets all of them run.
    fn wake(&mut self) {
        for task in &self.tasks[self.awake..] {
            // SAFETY: We hold a reference.
            unsafe { bindings::wake_up_process(*task) };
        }
        self.awake = self.tasks.len();
    }
}

impl Drop for Threads<'_> {
    fn drop(&mut self) {
        for task in &self.tasks {
            // A thread that was never woken exits without running its function. The others end by
            // themselves; this waits for them.
            // SAFETY: We hold a reference, which this puts.
            unsafe { bindings::kthread_stop_put(*task) };
        }
    }
}

/// Counts threads that are done.
#[pin_data]
struct Done {
    #[pin]
    completion: Opaque<bindings::completion>,
}

// SAFETY: A completion belongs to no thread.
unsafe impl Send for Done {}
// SAFETY: A completion is made to be used by several threads.
unsafe impl Sync for Done {}

impl Done {
    fn new() -> impl PinInit<Done> {
        pin_init!(Done {
            completion <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: Memory for a completion, which stays where it is.
                unsafe { bindings::init_completion(slot) };
            }),
        })
    }

    /// Says that one more thread is done.
    fn tell(&self) {
        // SAFETY: Initialised in `new()`.
        unsafe { bindings::complete(self.completion.get()) }
    }

    /// Waits until one more thread is done.
    ///
    /// # Errors
    ///
    /// `EINTR` if a signal came first; no thread has been counted then.
    fn wait_one(&self) -> Result {
        // SAFETY: Initialised in `new()`; task context with no lock held.
        match unsafe { bindings::wait_for_completion_interruptible(self.completion.get()) } {
            0 => Ok(()),
            _ => Err(EINTR),
        }
    }

    /// As [`Done::wait_one`], signals or not.
    fn wait_one_regardless(&self) {
        // SAFETY: Initialised in `new()`; task context with no lock held.
        unsafe { bindings::wait_for_completion(self.completion.get()) }
    }
}

/// Where the pages of an allocator are.
trait Locate<P>: Sync {
    /// The address of the first byte of a page that the caller has allocated.
    fn address(&self, page: P) -> *mut u8;

    /// A page as a number.
    fn to_bits(page: P) -> u64;

    /// The inverse of `to_bits`.
    fn from_bits(bits: u64) -> P;
}

impl Locate<PageIdx> for Addresses {
    #[inline]
    fn address(&self, page: PageIdx) -> *mut u8 {
        self.of(page)
    }

    #[inline]
    fn to_bits(page: PageIdx) -> u64 {
        u64::from(page.0)
    }

    #[inline]
    fn from_bits(bits: u64) -> PageIdx {
        // CAST: It was 32 bits wide in `to_bits()`.
        PageIdx(bits as u32)
    }
}

/// Pages of the kernel know where they are.
struct ByPage;

impl Locate<StockPage> for ByPage {
    #[inline]
    fn address(&self, page: StockPage) -> *mut u8 {
        page.address()
    }

    #[inline]
    fn to_bits(page: StockPage) -> u64 {
        page.to_bits()
    }

    #[inline]
    fn from_bits(bits: u64) -> StockPage {
        StockPage::from_bits(bits)
    }
}

/// The machine that this kernel runs on, for one worker.
struct ThisMachine<'a, L> {
    pages: Pages<'a, L>,
    /// A signal came.
    stop: &'a AtomicU32,
    home: CpuIdx,
    residence: Residence,
}

impl<L> ThisMachine<'_, L> {
    #[inline]
    fn confirm_residence(&self) {
        self.residence.confirm(self.home, || self.stop.load() != 0);
    }
}

/// The address of a word of an allocated chunk.
#[inline]
fn word<P: Copy>(locate: &impl Locate<P>, page: P, nr: u32, word: u32) -> *mut u64 {
    debug_assert!(word < PAGE_WORDS);
    let index = nr as usize * PAGE_WORDS as usize + word as usize;
    locate.address(page).cast::<u64>().wrapping_add(index)
}

/// The pages of an allocator as memory.
struct Pages<'a, L>(&'a L);

impl<P: Copy, L: Locate<P>> Memory<P> for Pages<'_, L> {
    #[inline]
    fn write_word(&self, page: P, nr: u32, at: u32, value: u64) {
        // SAFETY: The word lies in a chunk that the caller has allocated, by the contract of
        // `Memory`: memory of the zone that the kernel has mapped, contiguous over the chunk.
        // Volatile, because an allocator that is wrong may have given it to two CPUs.
        unsafe { word(self.0, page, nr, at).write_volatile(value) }
    }

    #[inline]
    fn read_word(&self, page: P, nr: u32, at: u32) -> u64 {
        // SAFETY: As in `write_word()`.
        unsafe { word(self.0, page, nr, at).read_volatile() }
    }

    fn is_aligned(&self, page: P, order: Order) -> bool {
        // SAFETY: The page was allocated, by the contract of `Memory`.
        let pfn = unsafe { pfn_of(self.0.address(page)) };
        pfn % u64::from(order.pages()) == 0
    }

    #[inline]
    fn to_bits(page: P) -> u64 {
        <L as Locate<P>>::to_bits(page)
    }

    #[inline]
    fn from_bits(bits: u64) -> P {
        <L as Locate<P>>::from_bits(bits)
    }
}

impl<P: Copy, L: Locate<P>> Machine<P> for ThisMachine<'_, L> {
    fn now_ns(&self) -> u64 {
        platform::now_ns()
    }

    fn give_way(&self) {
        cpu::give_way();
        self.confirm_residence();
    }

    fn wait(&self) {
        // SAFETY: Task context with no lock held, by the contract of `Machine`.
        unsafe { pcpb_sleep_us(WAIT_US) }
        self.confirm_residence();
    }

    #[inline]
    fn cpu(&self, _home: CpuIdx) -> CpuIdx {
        self.residence.at()
    }

    #[inline]
    fn stop_requested(&self) -> bool {
        self.stop.load() != 0
    }
}

impl<P: Copy, L: Locate<P>> Memory<P> for ThisMachine<'_, L> {
    #[inline]
    fn write_word(&self, page: P, nr: u32, word: u32, value: u64) {
        self.pages.write_word(page, nr, word, value);
    }

    #[inline]
    fn read_word(&self, page: P, nr: u32, word: u32) -> u64 {
        self.pages.read_word(page, nr, word)
    }

    fn is_aligned(&self, page: P, order: Order) -> bool {
        self.pages.is_aligned(page, order)
    }

    #[inline]
    fn to_bits(page: P) -> u64 {
        <L as Locate<P>>::to_bits(page)
    }

    #[inline]
    fn from_bits(bits: u64) -> P {
        <L as Locate<P>>::from_bits(bits)
    }
}
