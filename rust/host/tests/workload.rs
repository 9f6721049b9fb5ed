// SPDX-License-Identifier: GPL-2.0

//! Every workload on a model allocator that notices what allocators and workloads can do wrong,
//! then on the allocators themselves.

#![cfg(not(loom))]

use pcp_buddy::{
    command::parse_run,
    mm::{
        self,
        stats::Stats,
        types::{Context, CpuIdx, Error, Migratetype, Order, PageIdx, Result},
        Config, Economy, ListAllocator, ListPolicy, PageAllocator,
    },
    workload::{
        Counters, Errors, Machine, Memory, Plan, PlanError, Promise, Report, Verdict, ZoneFacts,
        PAGE_WORDS,
    },
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        Mutex,
    },
    time::{Duration, Instant},
};

/// Workloads, in every manner that they have.
const WORKLOADS: [&str; 16] = [
    "pair",
    "bulk",
    "bulk how=array",
    "rand",
    "purge",
    "purge how=array",
    "fanout",
    "fanout how=array",
    "exit",
    "exit how=array",
    "hog",
    "frag",
    "contig",
    "contig how=array",
    "contig how=single",
    "stress",
];

/// An allocator that is obviously right, panics on wrong use, and remembers what it was asked.
struct Model {
    books: Mutex<Books>,
    stats: Stats,
    /// One in this many frees is said to be refused, though it is not.
    refuse_every: usize,
    /// So many allocations in a row are refused, beside any memory, of each thousand.
    mean: u64,
    calls: AtomicU64,
}

struct Books {
    /// Per page whether it is free.
    free: Vec<bool>,
    /// Where to look first.
    next: usize,
    /// Order and allocating CPU of each allocated chunk by its first page.
    chunks: HashMap<u32, (Order, CpuIdx)>,
    /// By CPU, what was asked for.
    requests: HashMap<u32, Vec<(u8, Migratetype)>>,
    /// Frees by CPU.
    frees: HashMap<u32, u64>,
    drains: u64,
    /// Frees by another CPU than the one that allocated.
    moved: u64,
    /// First pages in the order of their allocation and of their free.
    allocated: Vec<u32>,
    freed: Vec<u32>,
}

impl Model {
    fn new(pages: usize) -> Model {
        Model {
            books: Mutex::new(Books {
                free: vec![true; pages],
                next: 0,
                chunks: HashMap::new(),
                requests: HashMap::new(),
                frees: HashMap::new(),
                drains: 0,
                moved: 0,
                allocated: Vec::new(),
                freed: Vec::new(),
            }),
            stats: Stats::new(16).unwrap(),
            refuse_every: usize::MAX,
            mean: 0,
            calls: AtomicU64::new(0),
        }
    }

    fn requests(self) -> HashMap<u32, Vec<(u8, Migratetype)>> {
        self.books.into_inner().unwrap().requests
    }

    fn nr_requests(&self) -> u64 {
        let books = self.books.lock().unwrap();
        books.requests.values().map(|r| r.len() as u64).sum()
    }

    fn assert_all_free(&self) {
        let books = self.books.lock().unwrap();
        assert!(books.chunks.is_empty(), "{} leaked", books.chunks.len());
        assert!(books.free.iter().all(|free| *free));
    }
}

impl PageAllocator for Model {
    type Page = PageIdx;

    fn alloc(&self, cpu: CpuIdx, order: Order, mt: Migratetype, _: Context) -> Result<PageIdx> {
        if self.calls.fetch_add(1, Ordering::Relaxed) % 1000 < self.mean {
            return Err(Error::NoMemory);
        }
        let mut books = self.books.lock().unwrap();
        let books = &mut *books;
        let asked = books.requests.entry(cpu.0).or_default();
        asked.push((order.get(), mt));
        let size = order.pages() as usize;
        let nr = books.free.len() / size;
        let start = books.next / size;
        let fits = |i: &usize| books.free[i * size..(i + 1) * size].iter().all(|f| *f);
        let place = (start..nr).chain(0..start.min(nr)).find(fits);
        let first = place.ok_or(Error::NoMemory)? * size;
        books.free[first..first + size].fill(false);
        books.next = (first + size) % books.free.len();
        books.chunks.insert(first as u32, (order, cpu));
        self.stats.alloc(cpu, mt, order);
        books.allocated.push(first as u32);
        Ok(PageIdx(first as u32))
    }

    fn free(&self, cpu: CpuIdx, page: PageIdx, order: Order, _: Context) -> Result<()> {
        let mut books = self.books.lock().unwrap();
        let known = books.chunks.remove(&page.0);
        let (known, by) = known.unwrap_or_else(|| panic!("double free of {page:?} by {cpu:?}"));
        assert_eq!(known, order, "free of {page:?} by {cpu:?}");
        books.moved += u64::from(by != cpu);
        books.freed.push(page.0);
        let first = page.idx();
        books.free[first..first + order.pages() as usize].fill(true);
        *books.frees.entry(cpu.0).or_default() += 1;
        self.stats.free(cpu, Migratetype::Movable, order);
        if books.freed.len() % self.refuse_every == 0 {
            return Err(Error::BadFree);
        }
        Ok(())
    }

    fn alloc_bulk(&self, cpu: CpuIdx, mt: Migratetype, ctx: Context, out: &mut [PageIdx]) -> usize {
        let pages = out.iter_mut().map_while(|place| {
            *place = self.alloc(cpu, Order::ZERO, mt, ctx).ok()?;
            Some(())
        });
        pages.count()
    }

    fn free_bulk(&self, cpu: CpuIdx, pages: &mut [PageIdx], ctx: Context) -> Result<()> {
        pages
            .iter()
            .try_for_each(|&page| self.free(cpu, page, Order::ZERO, ctx))
    }

    fn alloc_contig(&self, cpu: CpuIdx, nr: u32, mt: Migratetype, ctx: Context) -> Result<PageIdx> {
        assert!(nr.is_power_of_two(), "all that workloads ask for");
        let first = self.alloc(cpu, Order::fitting(nr), mt, ctx)?;
        let mut books = self.books.lock().unwrap();
        books.chunks.remove(&first.0);
        for page in first.0..first.0 + nr {
            books.chunks.insert(page, (Order::ZERO, cpu));
        }
        Ok(first)
    }

    fn free_contig(&self, cpu: CpuIdx, first: PageIdx, nr: u32, ctx: Context) -> Result<()> {
        (0..nr).try_for_each(|i| self.free(cpu, first.offset(i), Order::ZERO, ctx))
    }

    fn page_of_run(&self, first: PageIdx, nr: u32) -> PageIdx {
        first.offset(nr)
    }

    fn drain(&self, _: CpuIdx, _: CpuIdx) {
        self.books.lock().unwrap().drains += 1;
    }

    fn max_order(&self) -> Order {
        Order::new(10)
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// Threads as CPUs, two words for each page.
struct Host {
    words: Vec<AtomicU64>,
    start: Instant,
    stop: AtomicBool,
    /// Stops by itself after this many looks at the flag.
    patience: AtomicU64,
    /// Which words were written, by their place in the page.
    written: Vec<AtomicU64>,
    /// One in this many writes goes wrong.
    damage_every: u64,
    writes: AtomicU64,
    /// What was written to the first words of pages.
    stamps: Mutex<Vec<u64>>,
    /// How far in memory the first page is from where it should be.
    skew: u32,
}

impl Host {
    fn new(pages: usize) -> Host {
        Host {
            words: (0..2 * pages).map(|_| AtomicU64::new(0)).collect(),
            start: Instant::now(),
            stop: AtomicBool::new(false),
            patience: AtomicU64::new(u64::MAX),
            written: (0..PAGE_WORDS).map(|_| AtomicU64::new(0)).collect(),
            damage_every: u64::MAX,
            writes: AtomicU64::new(1),
            stamps: Mutex::new(Vec::new()),
            skew: 0,
        }
    }

    fn word(&self, page: PageIdx, nr: u32, word: u32) -> &AtomicU64 {
        let last = usize::from(word == PAGE_WORDS - 1);
        &self.words[2 * (page.idx() + nr as usize) + last]
    }
}

impl Machine<PageIdx> for Host {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn give_way(&self) {
        std::thread::yield_now();
    }

    fn wait(&self) {
        std::thread::sleep(Duration::from_micros(20));
    }

    fn stop_requested(&self) -> bool {
        if self.patience.load(Ordering::Relaxed) != u64::MAX
            && self.patience.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.patience.store(1, Ordering::Relaxed);
            self.stop.store(true, Ordering::Relaxed);
        }
        self.stop.load(Ordering::Relaxed)
    }
}

impl Memory<PageIdx> for Host {
    fn write_word(&self, page: PageIdx, nr: u32, word: u32, value: u64) {
        self.written[word as usize].fetch_add(1, Ordering::Relaxed);
        if word == 0 {
            self.stamps.lock().unwrap().push(value);
        }
        let writes = self.writes.fetch_add(1, Ordering::Relaxed);
        let value = value ^ u64::from(writes % self.damage_every == 0);
        if word == 0 || word == PAGE_WORDS - 1 {
            self.word(page, nr, word).store(value, Ordering::Relaxed);
        }
    }

    fn read_word(&self, page: PageIdx, nr: u32, word: u32) -> u64 {
        self.word(page, nr, word).load(Ordering::Relaxed)
    }

    fn is_aligned(&self, page: PageIdx, order: Order) -> bool {
        page.offset(self.skew).is_aligned(order)
    }

    fn to_bits(page: PageIdx) -> u64 {
        u64::from(page.0)
    }

    fn from_bits(bits: u64) -> PageIdx {
        PageIdx(bits as u32)
    }
}

/// What a report says, by key, and its table.
struct Told {
    values: HashMap<String, String>,
    table: Vec<Vec<u64>>,
    verdict: Verdict,
    text: String,
}

impl Told {
    fn new(report: &Report) -> Told {
        let mut text = String::new();
        report.write(&mut text).unwrap();
        let mut values = HashMap::new();
        let mut table = Vec::new();
        for line in text.lines() {
            match line.split_once(": ") {
                Some((key, value)) => {
                    let old = values.insert(key.to_string(), value.to_string());
                    assert!(old.is_none(), "{key} twice");
                }
                None if line.starts_with("repetition ") => {}
                None => table.push(line.split(' ').map(|v| v.parse().unwrap()).collect()),
            }
        }
        Told {
            values,
            table,
            verdict: report.verdict(),
            text,
        }
    }

    fn number(&self, key: &str) -> u64 {
        self.values[key]
            .parse()
            .unwrap_or_else(|_| panic!("{key} of\n{}", self.text))
    }
}

fn facts<A: PageAllocator>(zone: &A, pages: usize) -> ZoneFacts {
    ZoneFacts {
        pages: pages as u64,
        max_order: zone.max_order(),
        promise: None,
    }
}

/// Facts of a zone that serves every request of up to `order` for which there is a chunk.
fn promising<A: PageAllocator>(zone: &A, pages: usize, order: u8) -> ZoneFacts {
    ZoneFacts {
        promise: Some(Promise::new(zone.stats(), Order::new(order), 0)),
        ..facts(zone, pages)
    }
}

/// Runs a command on any allocator whose pages are indexes.
fn run_on<A: PageAllocator<Page = PageIdx>>(
    zone: &A,
    pages: usize,
    host: &Host,
    command: &str,
) -> Told {
    run_with(zone, &facts(zone, pages), host, command)
}

/// The same in a zone that is known to be so.
fn run_with<A: PageAllocator<Page = PageIdx>>(
    zone: &A,
    facts: &ZoneFacts,
    host: &Host,
    command: &str,
) -> Told {
    let spec = parse_run(command).unwrap_or_else(|err| panic!("{command}: {err}"));
    let plan = Plan::new(&spec, facts).unwrap_or_else(|err| panic!("{command}: {err}"));
    zone.time_locks(spec.lock_times);
    let before = Counters::take(zone).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..plan.nr_workers() {
            let plan = &plan;
            scope.spawn(move || plan.run_worker(worker, zone, host));
        }
    });
    let after = Counters::take(zone).unwrap();
    Told::new(&plan.into_report("model", before, after).unwrap())
}

/// Runs a command on a fresh model, which must have everything back afterwards.
fn run(pages: usize, command: &str) -> (Told, Model) {
    let (model, host) = (Model::new(pages), Host::new(pages));
    let told = run_on(&model, pages, &host, command);
    model.assert_all_free();
    (told, model)
}

/// CPU lists of one, two and four workers.
const CPUS: [&str; 3] = ["0", "0-1", "0,2,5-6"];

/// Pages of a zone in which nothing here runs dry by accident.
const ROOMY: usize = 1 << 14;

/// The orders to ask for, if arrays, which are of single pages, do not stand against it.
fn orders<'a>(workload: &str, wanted: &'a str) -> &'a str {
    match workload.strip_prefix("contig") {
        None if workload.ends_with("how=array") => "0",
        _ => wanted,
    }
}

/// Whether a run does as many operations as it is told to. (`frag` fills the zone besides.)
fn is_counted(workload: &&str) -> bool {
    !matches!(*workload, "hog" | "frag")
}

/// Enough to do for all tests of how a run ends early.
fn endless(workload: &str) -> &'static str {
    match workload {
        "frag" => "ops=1000000000000",
        _ => "ms=3600000",
    }
}

#[test]
fn operations_are_exact() {
    for workload in WORKLOADS.into_iter().filter(is_counted) {
        for cpus in CPUS {
            for ops in [1, 7, 10_007] {
                let command =
                    format!("workload={workload} cpus={cpus} ops={ops} verify=1 repeat=3 order=0");
                let (told, model) = run(ROOMY, &command);
                assert_eq!(told.verdict, Verdict::Ok, "{command}");
                assert_eq!(told.number("ops"), ops, "{command}\n{}", told.text);
                assert_eq!(told.number("pages"), ops, "{command}");
                assert_eq!(told.number("total_ops"), 3 * ops, "{command}");
                assert_eq!(told.number("failures"), 0, "{command}");
                assert_eq!(told.number("verify_errors"), 0, "{command}");
                // Only `rand` allocates outside of what it counts.
                let (asked, prepared) = (model.nr_requests(), workload == "rand");
                assert!(asked == 3 * ops || prepared && asked > 3 * ops, "{command}");
            }
        }
    }
}

#[test]
fn shares_are_even() {
    let (told, _) = run(ROOMY, "workload=pair cpus=0-3 ops=10");
    let ops: Vec<u64> = told.table.iter().map(|row| row[2]).collect();
    assert_eq!(ops, [3, 3, 2, 2]);
    let cpus: Vec<u64> = told.table.iter().map(|row| row[1]).collect();
    assert_eq!(cpus, [0, 1, 2, 3]);
}

#[test]
fn runs_by_time_end_in_time() {
    for workload in WORKLOADS.into_iter().filter(|w| *w != "frag") {
        let start = Instant::now();
        let command = format!("workload={workload} cpus=0-1 ms=20 repeat=2 verify=1");
        let (told, _) = run(ROOMY, &command);
        assert!(start.elapsed() >= Duration::from_millis(40), "{command}");
        assert_eq!(told.verdict, Verdict::Ok, "{command}");
        assert!(told.number("ops") > 0, "{command}");
    }
}

/// Orders and migratetypes are drawn from what was asked for, all of it.
#[test]
fn orders_and_types_are_those_asked_for() {
    let (told, model) = run(ROOMY, "workload=pair cpus=0 ops=4000 order=2-5 mt=mixed");
    let requests = model.requests();
    for order in 2..=5 {
        let nr = requests[&0].iter().filter(|r| r.0 == order).count();
        assert!((800..1200).contains(&nr), "{nr} of order {order}");
    }
    assert!(requests[&0].iter().all(|r| (2..=5).contains(&r.0)));
    let of = |mt| requests[&0].iter().filter(|r| r.1 == mt).count();
    assert!((2800..3200).contains(&of(Migratetype::Movable)));
    assert!((400..600).contains(&of(Migratetype::Unmovable)));
    assert!((400..600).contains(&of(Migratetype::Reclaimable)));
    let pages: u64 = requests[&0].iter().map(|r| 1 << r.0).sum();
    assert_eq!(told.number("pages"), pages);
}

#[test]
fn requests_depend_on_seed_worker_and_repetition_only() {
    for workload in WORKLOADS.into_iter().filter(|w| *w != "hog") {
        let requests = |seed: u32| {
            let order = orders(workload, "0-3");
            // Where memory is short, who gets it depends on who comes first.
            let cpus = if workload == "frag" { "0" } else { "0-2" };
            let command = format!(
                "workload={workload} cpus={cpus} ops=3000 order={order} mt=mixed seed={seed} repeat=2 \
                 verify=0"
            );
            run(ROOMY, &command).1.requests()
        };
        let first = requests(5);
        assert_eq!(first, requests(5), "{workload}");
        assert_ne!(first, requests(6), "{workload}");
        if workload == "bulk" {
            assert_ne!(first[&0][..1000], first[&1][..1000], "workers differ");
            assert_ne!(first[&0][..1000], first[&0][1000..], "repetitions differ");
        }
    }
}

/// What cannot be had is counted; what can be had is freed; nothing waits for ever.
#[test]
fn dry_zone_fails_allocations_only() {
    for workload in WORKLOADS.into_iter().filter(is_counted) {
        for cpus in CPUS {
            // Chunks of 64 pages: the zone has four of them.
            let order = orders(workload, "6");
            let command =
                format!("workload={workload} cpus={cpus} ops=3000 order={order} verify=1 repeat=2");
            let (told, _) = run(256, &command);
            assert_eq!(told.verdict, Verdict::Ok, "{command}");
            let (ops, failures) = (told.number("total_ops"), told.number("total_failures"));
            assert_eq!(ops + failures, 6000, "{command}");
            assert!(ops > 0, "{command}");
        }
    }
    // Long enough for workers to meet, whatever else the machine does.
    let (told, _) = run(256, "workload=bulk how=array cpus=0-1 ops=400000 pages=200");
    assert!(told.number("failures") > 0);
    // A batch that the zone cannot hold twice: what was not tried of it is tried later.
    for command in [
        "purge cpus=0-2 order=6",
        "purge cpus=0 order=6",
        "purge cpus=0-2 how=array",
        "purge cpus=0 how=array",
        "fanout cpus=0-1 order=6",
        "fanout cpus=0-1 how=array",
    ] {
        let command = format!("workload={command} ops=3000 pages=256");
        let (told, _) = run(256, &command);
        let (ops, failures) = (told.number("ops"), told.number("failures"));
        assert_eq!(ops + failures, 3000, "{command}");
    }
    let (told, _) = run(256, "workload=bulk cpus=0-3 ops=400000 pages=200");
    assert!(told.number("failures") > 0);
    let (told, _) = run(256, "workload=pair cpus=0 ops=800 order=9");
    assert_eq!((told.number("ops"), told.number("failures")), (0, 800));
    assert_eq!(told.values["ns_per_op"], "0.00");
}

#[test]
fn hog_takes_everything() {
    for cpus in CPUS {
        for (order, fits) in [("0", 10_000), ("3", 10_000 / 8 * 8), ("0-5", 10_000)] {
            for free in ["lifo", "fifo", "shuffled"] {
                let command =
                    format!("workload=hog cpus={cpus} order={order} free={free} repeat=3 verify=1");
                let (told, _) = run(10_000, &command);
                assert_eq!(told.verdict, Verdict::Ok, "{command}");
                assert_eq!(told.number("pages"), fits, "{command}\n{}", told.text);
                assert!(told.number("failures") > 0, "{command}");
                // Every repetition asks for all orders anew.
                let workers = told.table.len() / 3;
                for rows in told.table.chunks(workers) {
                    let (ops, pages) = rows.iter().fold((0, 0), |s, r| (s.0 + r[2], s.1 + r[3]));
                    assert_eq!(ops == pages, order == "0", "{command}");
                }
            }
        }
    }
}

#[test]
fn rand_starts_half_full() {
    let (told, model) = run(ROOMY, "workload=rand cpus=0-1 pages=1000 ops=20000");
    assert_eq!(model.nr_requests(), 20_000 + 2 * 500);
    // The level stays there: what is freed in between is about what is allocated.
    let frees: u64 = told.table.iter().map(|row| row[5]).sum();
    assert!((19_600..20_400).contains(&frees), "{frees} frees");
}

#[test]
fn stamps_of_a_run_never_repeat() {
    for workload in WORKLOADS {
        let (model, host) = (Model::new(1024), Host::new(1024));
        let amount = if workload == "hog" { "" } else { "ops=2000" };
        let order = orders(workload, "0-2");
        let command =
            format!("workload={workload} cpus=0-1 {amount} verify=1 order={order} repeat=2");
        let told = run_on(&model, 1024, &host, &command);
        let stamps = host.stamps.into_inner().unwrap();
        let distinct: HashSet<u64> = stamps.iter().copied().collect();
        assert!(
            stamps.len() as u64 >= told.number("total_pages"),
            "{command}"
        );
        assert_eq!(distinct.len(), stamps.len(), "{command}");
    }
}

/// The order of frees, as positions in the order of allocations.
fn order_of_frees(free: &str) -> Vec<usize> {
    let command = format!("workload=bulk cpus=0 pages=1000 ops=1000 free={free}");
    let books = run(ROOMY, &command).1.books.into_inner().unwrap();
    let place = |page| books.allocated.iter().position(|p| *p == page).unwrap();
    books.freed.iter().map(|page| place(*page)).collect()
}

#[test]
fn sets_are_freed_in_the_order_asked_for() {
    assert!(order_of_frees("fifo").into_iter().eq(0..1000));
    assert!(order_of_frees("lifo").into_iter().eq((0..1000).rev()));
    let mut shuffled = order_of_frees("shuffled");
    let rising = shuffled.windows(2).filter(|w| w[0] < w[1]).count();
    assert!((400..600).contains(&rising), "{rising} of 999 rise");
    shuffled.sort_unstable();
    assert!(shuffled.into_iter().eq(0..1000));
}

/// Every call is timed, once, and nothing is unless asked for.
#[test]
fn latencies_and_lock_times_are_told_where_asked_for() {
    let zone = ListAllocator::new(&Config {
        policy: ListPolicy::Owner,
        range_pages: &[4096],
        block_order: 9,
        nr_cpus: 2,
        online_cpus: 2,
        batch: None,
        high: None,
        cma_percent: 0,
    })
    .unwrap();
    let run = |command: &str| run_on(&zone, 4096, &Host::new(4096), command);
    let told = run("workload=bulk cpus=0-1 pages=1000 ops=10000 latency=1 lock_times=1 repeat=2");
    for call in ["alloc", "free"] {
        let figures = ["p50", "p90", "p99", "p999", "max"];
        let rising = figures.map(|figure| told.number(&format!("{call}_ns_{figure}")));
        assert!(rising.is_sorted(), "{}", told.text);
    }
    assert!(told.number("clock_ns_p50") <= told.number("alloc_ns_p50"));
    for lock in ["zone_lock", "pcp_lock"] {
        for time in ["wait", "hold"] {
            let histogram = &told.values[&format!("{lock}_{time}_log2_ns")];
            let times: u64 = histogram
                .split(' ')
                .map(|nr| nr.parse::<u64>().unwrap())
                .sum();
            assert_eq!(
                times,
                told.number(&format!("{lock}_acquired")),
                "{}",
                told.text
            );
        }
    }
    let told = run("workload=bulk cpus=0-1 pages=1000 ops=10000");
    assert!(
        !told.text.contains("log2_ns") && !told.text.contains("_p50"),
        "{}",
        told.text
    );
}

/// A signal at any moment ends the run, and everything is freed all the same.
#[test]
fn stop_leaks_nothing() {
    for workload in WORKLOADS {
        for cpus in CPUS {
            for patience in [1, 2, 5, 20, 100] {
                let (model, host) = (Model::new(ROOMY), Host::new(ROOMY));
                host.patience.store(patience, Ordering::Relaxed);
                let amount = endless(workload);
                let command = format!("workload={workload} cpus={cpus} {amount} repeat=3 verify=1");
                let told = run_on(&model, ROOMY, &host, &command);
                model.assert_all_free();
                assert_eq!(told.verdict, Verdict::Stopped, "{command}");
                assert!(told.text.contains("status: stopped"), "{}", told.text);
            }
        }
    }
}

#[test]
fn abort_sends_home_who_was_started() {
    for workload in WORKLOADS {
        let (model, host) = (Model::new(ROOMY), Host::new(ROOMY));
        let spec = parse_run(&format!("workload={workload} cpus=0-3")).unwrap();
        let facts = facts(&model, ROOMY);
        let plan = Plan::new(&spec, &facts).unwrap();
        let counters = || Counters::take(&model).unwrap();
        let before = counters();
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let (plan, model, host) = (&plan, &model, &host);
                scope.spawn(move || plan.run_worker(worker, model, host));
            }
            std::thread::sleep(Duration::from_millis(5));
            plan.abort();
        });
        model.assert_all_free();
        let report = plan.into_report("model", before, counters()).unwrap();
        assert_eq!(report.verdict(), Verdict::Aborted, "{workload}");
        assert_eq!(Told::new(&report).table.len(), 0);
    }
}

/// A page that two have at the same time, or that somebody else writes to, does not go unnoticed.
#[test]
fn damaged_pages_are_found() {
    for workload in WORKLOADS {
        let (model, mut host) = (Model::new(4096), Host::new(4096));
        host.damage_every = 500;
        let amount = if workload == "hog" { "" } else { "ops=5000" };
        let order = orders(workload, "0-2");
        let command = format!("workload={workload} cpus=0-1 {amount} verify=1 order={order}");
        let told = run_on(&model, 4096, &host, &command);
        model.assert_all_free();
        let Verdict::Failed(Errors {
            verify,
            free: 0,
            align: 0,
            spurious: 0,
        }) = told.verdict
        else {
            panic!("{command}: {:?}", told.verdict);
        };
        assert!(verify > 0);
        assert_eq!(told.number("verify_errors"), verify, "{command}");
        assert!(told.values["status"].starts_with("failed: "), "{command}");
    }
}

#[test]
fn refused_frees_are_found() {
    let (mut model, host) = (Model::new(4096), Host::new(4096));
    model.refuse_every = 100;
    let told = run_on(&model, 4096, &host, "workload=pair cpus=0 ops=1000");
    assert_eq!(
        told.verdict,
        Verdict::Failed(Errors {
            free: 10,
            ..Errors::default()
        })
    );
}

/// A run that verifies sees every allocation that is refused beside free memory; others see those
/// that last. In `stress` it is an error.
#[test]
fn spurious_failures_are_found() {
    for workload in WORKLOADS {
        // Where more is in use than there are chunks of an order, nothing is known of that order.
        let few = matches!(workload, "pair" | "fanout" | "stress");
        let order = if few { orders(workload, "0-2") } else { "0" };
        for cpus in ["0", "0-1"] {
            for (verify, mean) in [(1, 1), (0, 40)] {
                let (mut model, host) = (Model::new(ROOMY), Host::new(ROOMY));
                model.mean = mean;
                let amount = if workload == "hog" { "" } else { "ops=5000" };
                let command = format!(
                    "workload={workload} cpus={cpus} {amount} order={order} verify={verify}"
                );
                let told = run_with(&model, &promising(&model, ROOMY, 10), &host, &command);
                let (all, spurious) = (
                    told.number("total_failures"),
                    told.number("spurious_failures"),
                );
                let by_cpu: u64 = told.table.iter().map(|row| row[10]).sum();
                assert_eq!(by_cpu, spurious, "{command}");
                // `rand` prepares, `frag` and `hog` fail for other reasons as well.
                match workload {
                    "rand" | "frag" | "hog" => assert!(spurious > 0, "{command}\n{}", told.text),
                    // A call that brings too little is one refusal, and as many failures as it lacks.
                    _ if verify == 1 && !workload.ends_with("how=array") => {
                        assert_eq!(spurious, all, "{command}");
                    }
                    _ => assert!(0 < spurious && spurious <= all, "{command}"),
                }
                let failed = Verdict::Failed(Errors {
                    spurious,
                    ..Errors::default()
                });
                let right = if workload == "stress" {
                    failed
                } else {
                    Verdict::Ok
                };
                assert_eq!(told.verdict, right, "{command}");
            }
        }
    }
}

/// An allocator that gives all there is, one call after the other, is never blamed, whoever comes
/// first, however little there is, and if its counters are reset all the time.
#[test]
fn want_of_memory_is_not_spurious() {
    for workload in WORKLOADS {
        for (cpus, verify) in [("0", 1), ("0-1", 1), ("0,2,5-6", 1), ("0-3", 0)] {
            for (pages, order) in [(256, "0-6"), (1 << 11, "0-8"), (256, "6")] {
                let (model, host) = (Model::new(pages), Host::new(pages));
                let amount = if workload == "hog" { "" } else { "ops=1500" };
                let order = orders(workload, order);
                let command = format!(
                    "workload={workload} cpus={cpus} {amount} order={order} mt=mixed repeat=2 \
                     verify={verify}"
                );
                let done = AtomicBool::new(false);
                let told = std::thread::scope(|scope| {
                    scope.spawn(|| {
                        while verify == 0 && !done.load(Ordering::Relaxed) {
                            model.stats.reset();
                            std::thread::sleep(Duration::from_micros(50));
                        }
                    });
                    let facts = promising(&model, pages, 8);
                    let told = run_with(&model, &facts, &host, &command);
                    done.store(true, Ordering::Relaxed);
                    told
                });
                assert_eq!(told.verdict, Verdict::Ok, "{command}");
                assert_eq!(told.number("spurious_failures"), 0, "{command}");
            }
        }
    }
}

/// Chunks that are not where their index says are found, whatever their stamps.
#[test]
fn misaligned_chunks_are_found() {
    for workload in WORKLOADS
        .into_iter()
        .filter(|w| orders(w, "4") == "4" && *w != "frag")
    {
        let (model, mut host) = (Model::new(ROOMY), Host::new(ROOMY));
        host.skew = 8;
        for (order, wrong) in [("3", false), ("4", true)] {
            let amount = if workload == "hog" { "" } else { "ops=1000" };
            let command = format!("workload={workload} cpus=0-1 {amount} order={order} verify=1");
            let told = run_on(&model, ROOMY, &host, &command);
            let align = told.number("align_errors");
            assert_eq!(align > 0, wrong, "{command}");
            assert_eq!(told.verdict != Verdict::Ok, wrong, "{command}");
            assert!(!wrong || align >= told.number("total_ops"), "{command}");
        }
    }
}

/// With `vain=` the first worker finds nothing, and the others what they ask for.
#[test]
fn stress_in_vain() {
    for (cpus, asking) in [("0-1", 1), ("0-3", 1), ("2", 0)] {
        let command = format!("workload=stress cpus={cpus} vain=9 order=0-3 ops=8000 repeat=2");
        let (model, host) = (Model::new(ROOMY), Host::new(ROOMY));
        let told = run_with(&model, &promising(&model, ROOMY, 10), &host, &command);
        model.assert_all_free();
        assert_eq!(told.verdict, Verdict::Ok, "{command}");
        for row in &told.table {
            let vain = asking == 1 && row[1] == 0;
            assert_eq!((row[2] == 0, row[4] > 0), (vain, vain), "{command}");
        }
        // In each chunk a page was in use: one of nine orders is refused to whoever asks for it.
        let books = model.books.into_inner().unwrap();
        let runs = books.requests.values().flatten().filter(|r| r.0 == 9);
        assert!(runs.count() >= 2 * (ROOMY >> 9), "{command}");
    }
}

#[test]
fn touch_writes_what_it_says() {
    let written = |touch: &str| {
        let (model, host) = (Model::new(64), Host::new(64));
        let command = format!("workload=pair cpus=0 ops=10 order=1 touch={touch}");
        run_on(&model, 64, &host, &command);
        let count = |word: &AtomicU64| word.load(Ordering::Relaxed);
        host.written.iter().map(count).collect::<Vec<u64>>()
    };
    assert!(written("none").iter().all(|n| *n == 0));
    let first = written("first");
    assert_eq!((first[0], first.iter().sum::<u64>()), (20, 20));
    for (word, n) in written("all").into_iter().enumerate() {
        assert_eq!(n, if word % 8 == 0 { 20 } else { 0 }, "word {word}");
    }
}

/// Who frees in `purge` and `fanout`: exactly the CPUs that should.
#[test]
fn pages_are_freed_where_they_should() {
    let frees_by = |command: &str| {
        let (told, model) = run(ROOMY, command);
        assert_eq!(told.number("ops"), 9000, "{command}");
        let books = model.books.into_inner().unwrap();
        let mut allocating: Vec<u32> = books.requests.into_keys().collect();
        let mut freeing: Vec<u32> = books.frees.into_keys().collect();
        allocating.sort_unstable();
        freeing.sort_unstable();
        (allocating, freeing)
    };
    for (command, allocating, freeing) in [
        ("purge cpus=0-3", vec![0, 1, 2, 3], vec![0]),
        ("purge cpus=2", vec![2], vec![2]),
        ("purge cpus=0-2 free_cpus=3-4", vec![0, 1, 2], vec![3, 4]),
        ("purge cpus=0 free_cpus=1-3", vec![0], vec![1, 2, 3]),
        ("purge cpus=0-2 free_cpus=1-3", vec![0, 1, 2], vec![1, 2, 3]),
        ("purge cpus=0-1 free_cpus=0-1", vec![0, 1], vec![0, 1]),
        ("fanout cpus=0-3", vec![0], vec![1, 2, 3]),
        ("fanout cpus=3", vec![3], vec![3]),
        ("fanout cpus=0 free_cpus=0,2", vec![0], vec![0, 2]),
    ] {
        let command = format!("workload={command} ops=9000 verify=1 repeat=2");
        assert_eq!(frees_by(&command), (allocating, freeing), "{command}");
    }
}

#[test]
fn stress_does_all_of_it() {
    let (told, model) = run(ROOMY, "workload=stress cpus=0-3 ops=20000 repeat=2");
    let books = model.books.into_inner().unwrap();
    assert!(books.drains > 100, "{} drains", books.drains);
    assert!(books.moved > 1000, "{} freed elsewhere", books.moved);
    for order in 0..=9 {
        let of_order = |r: &&(u8, Migratetype)| r.0 == order;
        let nr: usize = books
            .requests
            .values()
            .map(|r| r.iter().filter(of_order).count())
            .sum();
        assert!(nr > 1000, "{nr} of order {order}");
    }
    let asked = told.number("total_ops") + told.number("total_failures");
    assert_eq!(asked, 40_000);
}

#[test]
fn result_says_what_the_interface_promises() {
    let (told, _) = run(ROOMY, "workload=exit cpus=0-1 ops=4000 repeat=2 seed=9");
    let keys: Vec<&str> = told
        .text
        .lines()
        .filter_map(|line| line.split_once(": ").map(|(key, _)| key))
        .collect();
    assert_eq!(
        keys[..11],
        [
            "workload",
            "policy",
            "cpus",
            "ops",
            "pages",
            "failures",
            "ns_per_op",
            "cpu_ns_per_op",
            "pages_per_s",
            "alloc_ns_per_page",
            "free_ns_per_page"
        ]
    );
    for key in [
        "status",
        "verify_errors",
        "repeat",
        "seed",
        "command",
        "total_ops",
    ] {
        assert!(told.values.contains_key(key), "{key}");
    }
    assert_eq!(told.values["status"], "ok");
    assert_eq!(told.values["cpus"], "0-1");
    assert_eq!(told.values["zone_lock_acquired"], "n/a");
    assert_eq!(told.values["pcp_lock_contended"], "n/a");
    assert_eq!(told.values["alloc_movable_order0"], "8000");
    assert_eq!(told.values["spurious_failures"], "n/a", "nobody knows here");
    assert_eq!(told.values["align_errors"], "n/a");
    let repeated = parse_run(&told.values["command"]).unwrap();
    assert_eq!((repeated.seed, repeated.repeat), (9, 2));
    // Repetition, CPU, ops, pages, failures, frees, busy, alloc, free, wall, spurious.
    assert_eq!(told.table.len(), 4);
    for row in &told.table {
        assert_eq!(row.len(), 11);
        assert_eq!((row[2], row[3], row[4], row[5]), (2000, 2000, 0, 2000));
        assert!(row[7] > 0 && row[8] > 0);
        assert!(row[7] + row[8] <= row[9], "phases fit into the time");
        assert!(row[6] <= row[9]);
    }
}

#[test]
fn result_of_a_hand_over_says_who_freed() {
    let (told, _) = run(ROOMY, "workload=purge cpus=0-1 free_cpus=2 ops=1000");
    assert_eq!(told.values["free_cpus"], "2");
    assert!(!told.values.contains_key("alloc_ns_per_page"));
    assert_eq!((told.table[2][2], told.table[2][5]), (0, 1000));
}

/// What a run asks for beyond the zone is refused before anything is done.
#[test]
fn plan_refuses_what_the_zone_cannot_serve() {
    let model = Model::new(1000);
    let mut facts = facts(&model, 1000);
    facts.max_order = Order::new(5);
    let plan = |command: &str| Plan::new(&parse_run(command).unwrap(), &facts).err();
    let error = plan("workload=pair cpus=0 order=3-6").unwrap();
    assert_eq!(error, PlanError::Order(Order::new(5)));
    assert!(error.to_string().contains("none above 5"), "{error}");
    let error = plan("workload=bulk cpus=0 pages=1001").unwrap();
    assert_eq!(error, PlanError::Pages(1000));
    assert!(error.to_string().contains("1000"), "{error}");
    assert_eq!(plan("workload=bulk cpus=0 pages=1000"), None);
}

/// A zone with a single page still runs everything.
#[test]
fn smallest_zone_runs() {
    for workload in WORKLOADS {
        let amount = if workload == "hog" { "" } else { "ops=100" };
        let command = format!("workload={workload} cpus=0-3 {amount} order=0 verify=1");
        let (told, _) = run(1, &command);
        assert_eq!(told.verdict, Verdict::Ok, "{command}");
    }
}

/// All workloads on the real policies: nothing lost, no stamp wrong, every invariant kept.
#[test]
fn policies_survive_all_workloads() {
    const PAGES: u32 = 1 << 14;
    let config = |policy| Config {
        policy,
        range_pages: &[PAGES / 2, PAGES / 2],
        block_order: 9,
        nr_cpus: 4,
        online_cpus: 4,
        batch: None,
        high: None,
        cma_percent: 0,
    };
    survive("Economy", PAGES, 9, || {
        Economy::new(&config(ListPolicy::Pcp)).unwrap()
    });
    for policy in [ListPolicy::Pcp, ListPolicy::Owner, ListPolicy::Split] {
        survive(&format!("{policy:?}"), PAGES, 0, || {
            ListAllocator::new(&config(policy)).unwrap()
        });
    }
}

/// Requests that cannot be met do not make others fail that can: a worker asks for large chunks in vain
/// while the others take from what is free in pieces.
#[test]
fn nobody_is_refused_what_is_free_because_of_others() {
    const PAGES: u32 = 1 << 15;
    let config = |policy| Config {
        policy,
        range_pages: &[PAGES],
        block_order: 9,
        nr_cpus: 4,
        online_cpus: 4,
        batch: None,
        high: None,
        cma_percent: 0,
    };
    for policy in [ListPolicy::Pcp, ListPolicy::Owner, ListPolicy::Split] {
        refuse_nothing(&format!("{policy:?}"), PAGES, 0, || {
            ListAllocator::new(&config(policy)).unwrap()
        });
    }
    refuse_nothing("Economy", PAGES, 9, || {
        Economy::new(&config(ListPolicy::Pcp)).unwrap()
    });
}

fn refuse_nothing<A>(name: &str, pages: u32, promised: u8, make: impl Fn() -> A)
where
    A: PageAllocator<Page = PageIdx> + mm::Report,
{
    for (cpus, vain, order, verify) in [
        ("0-1", 9, "0", 1),
        ("0-1", 9, "0", 0),
        ("0-1", 10, "0-3", 1),
        ("0-3", 9, "0-8", 1),
        ("0-3", 5, "0-4", 0),
    ] {
        let (zone, host) = (make(), Host::new(pages as usize));
        let command =
            format!("workload=stress cpus={cpus} ms=150 vain={vain} order={order} verify={verify}");
        let facts = promising(&zone, pages as usize, promised);
        let told = run_with(&zone, &facts, &host, &command);
        let text = &told.text;
        assert_eq!(told.verdict, Verdict::Ok, "{name}: {command}\n{text}");
        assert!(told.number("failures") > 0, "{name}: {command}\n{text}");
        zone.check()
            .unwrap_or_else(|wrong| panic!("{name}: {command}: {wrong}"));
        (0..4).for_each(|cpu| zone.drain(CpuIdx(0), CpuIdx(cpu)));
        assert_eq!(zone.free_pages(), u64::from(pages), "{name}: {command}");
    }
}

fn survive<A>(name: &str, pages: u32, promised: u8, make: impl Fn() -> A)
where
    A: PageAllocator<Page = PageIdx> + mm::Report,
{
    for cpus in ["0", "0-1", "0-3"] {
        let zone = make();
        let host = Host::new(pages as usize);
        for workload in WORKLOADS {
            let amount = if workload == "hog" { "" } else { "ops=4000" };
            for order in ["0", orders(workload, "0-9")] {
                let command = format!(
                    "workload={workload} cpus={cpus} {amount} order={order} mt=mixed verify=1"
                );
                let facts = promising(&zone, pages as usize, promised);
                let told = run_with(&zone, &facts, &host, &command);
                let text = &told.text;
                assert_eq!(told.verdict, Verdict::Ok, "{name}: {command}\n{text}");
                assert_eq!(
                    told.values["spurious_failures"], "0",
                    "{name}: {command}\n{text}"
                );
                zone.check()
                    .unwrap_or_else(|wrong| panic!("{name}: {command}: {wrong}"));
                (0..4).for_each(|cpu| zone.drain(CpuIdx(0), CpuIdx(cpu)));
                assert_eq!(zone.free_pages(), u64::from(pages), "{name}: {command}");
            }
        }
    }
}
