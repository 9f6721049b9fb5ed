// SPDX-License-Identifier: GPL-2.0

//! The time that the core alone takes, without a kernel: workloads of the module on threads, one per CPU.
//!
//! ```text
//! cargo bench --bench workloads [-- WORD]
//! ```
//!
//! writes a line per workload and policy, as tab-separated columns: nanoseconds per page of allocating and
//! of freeing, and per operation, the medians of [`REPEAT`] repetitions. A word chooses the workloads whose
//! text contains it. The machine's own noise is in the figures; the ratios of one run are the result.

use pcp_buddy::{
    command::parse_run,
    mm::{
        types::{Order, PageIdx, Result},
        Config, Economy, ListAllocator, ListPolicy, PageAllocator,
    },
    workload::{Counters, Machine, Memory, Plan, ZoneFacts},
};
use std::{collections::HashMap, thread, time::Instant};

/// Repetitions of which the median counts.
const REPEAT: u32 = 5;

/// 1 GiB.
const ZONE_PAGES: u32 = 1 << 18;

const WORKLOADS: [&str; 7] = [
    "pair order=0 ops=2000000",
    "pair order=9 ops=1000000",
    "bulk order=0 pages=16384 ops=500000",
    "bulk order=9 pages=16384 ops=500000",
    "bulk order=0 pages=16384 ops=500000 how=array",
    "rand order=0 pages=32768 ops=500000",
    "rand order=0-9 pages=32768 ops=200000",
];

const CPUS: [&str; 2] = ["0", "0-1"];

/// Threads as CPUs. Pages have no memory.
struct Threads {
    start: Instant,
}

impl Machine<PageIdx> for Threads {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn give_way(&self) {}

    fn wait(&self) {
        thread::yield_now();
    }

    fn stop_requested(&self) -> bool {
        false
    }
}

impl Memory<PageIdx> for Threads {
    fn write_word(&self, _page: PageIdx, _nr: u32, _word: u32, _value: u64) {}

    fn read_word(&self, _page: PageIdx, _nr: u32, _word: u32) -> u64 {
        0
    }

    fn is_aligned(&self, page: PageIdx, order: Order) -> bool {
        page.is_aligned(order)
    }

    fn to_bits(page: PageIdx) -> u64 {
        page.0.into()
    }

    fn from_bits(bits: u64) -> PageIdx {
        PageIdx(bits as u32)
    }
}

/// Puts the calling thread on a CPU of this machine.
fn run_on_cpu(cpu: u32) {
    let nr = cpu as usize % thread::available_parallelism().map_or(1, Into::into);
    // SAFETY: all bits zero is the empty set; `nr` is far below its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(nr, &mut set);
        // Where it is not allowed, the scheduler decides.
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// What one run says, by key.
fn run<A: PageAllocator<Page = PageIdx>>(zone: &A, command: &str) -> HashMap<String, String> {
    let facts = ZoneFacts {
        pages: ZONE_PAGES.into(),
        max_order: zone.max_order(),
        promise: None,
    };
    let spec = parse_run(command).unwrap_or_else(|err| panic!("{command}: {err}"));
    let plan = Plan::new(&spec, &facts).unwrap_or_else(|err| panic!("{command}: {err}"));
    let machine = Threads {
        start: Instant::now(),
    };
    let before = Counters::take(zone).expect("memory");
    thread::scope(|scope| {
        for worker in 0..plan.nr_workers() {
            let (plan, machine) = (&plan, &machine);
            scope.spawn(move || {
                run_on_cpu(plan.cpu_of(worker).0);
                plan.run_worker(worker, zone, machine);
            });
        }
    });
    let after = Counters::take(zone).expect("memory");
    let mut text = String::new();
    let report = plan.into_report("host", before, after).expect("memory");
    report.write(&mut text).expect("strings take everything");
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    pairs.map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn measure<A: PageAllocator<Page = PageIdx>>(policy: &str, zone: Result<A>, workload: &str) {
    let zone = zone.expect("a valid description");
    for cpus in CPUS {
        let command = format!("workload={workload} cpus={cpus} repeat={REPEAT}");
        run(&zone, &command);
        let told = run(&zone, &command);
        let figure = |key| told.get(key).map_or("n/a", String::as_str);
        println!(
            "{workload}\t{cpus}\t{policy}\t{}\t{}\t{}",
            figure("alloc_ns_per_page"),
            figure("free_ns_per_page"),
            figure("ns_per_op"),
        );
    }
}

fn lists(policy: ListPolicy) -> Result<ListAllocator> {
    ListAllocator::new(&config(policy))
}

fn config(policy: ListPolicy) -> Config<'static> {
    Config {
        policy,
        range_pages: &[ZONE_PAGES],
        block_order: 9,
        nr_cpus: 2,
        online_cpus: 2,
        batch: None,
        high: None,
        cma_percent: 0,
    }
}

fn main() {
    // Cargo passes --bench.
    let word = std::env::args()
        .skip(1)
        .find(|word| !word.starts_with("--"))
        .unwrap_or_default();
    println!("workload\tcpus\tpolicy\talloc_ns_per_page\tfree_ns_per_page\tns_per_op");
    for workload in WORKLOADS.iter().filter(|w| w.contains(&word)) {
        measure("pcp", lists(ListPolicy::Pcp), workload);
        measure("owner", lists(ListPolicy::Owner), workload);
        measure("split", lists(ListPolicy::Split), workload);
        let economy = Economy::new(&config(ListPolicy::Pcp));
        measure("economy", economy, workload);
    }
}
