// SPDX-License-Identifier: GPL-2.0

//! How many instructions and cache lines an operation costs, on every policy that manages ranges.
//!
//! Callgrind counts them, so the figures are the same on an idle and on a busy machine, and a change of
//! the fast path shows. Each benchmark does [`OPS`] operations on a zone that has been warmed up: divide
//! by that. `Documentation/budget.rst` says where they go; the limits here fail the benchmark if
//! `economy` exceeds them.

// The macros of the harness define what they need without words.
#![allow(missing_docs)]

use gungraun::{
    library_benchmark, library_benchmark_group, main, Callgrind, EventKind, LibraryBenchmarkConfig,
};
use pcp_buddy::mm::{
    types::{Context, CpuIdx, Migratetype, Order, PageIdx},
    Config, Economy, ListAllocator, ListPolicy, PageAllocator,
};
use std::hint::black_box;

/// Operations of a benchmark.
const OPS: usize = 4096;

const MOVABLE: Migratetype = Migratetype::Movable;
const HERE: CpuIdx = CpuIdx(0);
const ELSEWHERE: CpuIdx = CpuIdx(1);

fn config(policy: ListPolicy) -> Config<'static> {
    Config {
        policy,
        range_pages: &[1 << 17],
        block_order: 9,
        nr_cpus: 2,
        online_cpus: 2,
        batch: None,
        high: None,
        cma_percent: 0,
    }
}

fn alloc<A: PageAllocator>(zone: &A, order: Order) -> A::Page {
    zone.alloc(HERE, order, MOVABLE, Context::Task)
        .expect("the zone is large")
}

fn free<A: PageAllocator>(zone: &A, cpu: CpuIdx, page: A::Page, order: Order) {
    zone.free(cpu, page, order, Context::Task)
        .expect("it is in use");
}

fn take<A: PageAllocator>(zone: &A) -> Vec<A::Page> {
    (0..OPS).map(|_| alloc(zone, Order::ZERO)).collect()
}

/// Nothing of what a zone does for the first time is counted.
fn warm<A: PageAllocator>(zone: A) -> A {
    for cpu in [HERE, ELSEWHERE] {
        for page in take(&zone) {
            free(&zone, cpu, page, Order::ZERO);
        }
        for order in [0, 3, 9].map(Order::new) {
            let page = alloc(&zone, order);
            free(&zone, cpu, page, order);
        }
    }
    zone
}

fn with_pages<A: PageAllocator>(zone: A) -> (A, Vec<A::Page>) {
    let zone = warm(zone);
    let pages = take(&zone);
    (zone, pages)
}

fn with_room<A: PageAllocator<Page = PageIdx>>(zone: A) -> (A, Vec<PageIdx>) {
    (warm(zone), vec![PageIdx(0); OPS])
}

fn pairs<A: PageAllocator>(zone: A, order: u8) -> A {
    for _ in 0..OPS {
        let page = black_box(alloc(&zone, Order::new(order)));
        free(&zone, HERE, page, Order::new(order));
    }
    zone
}

fn free_all<A: PageAllocator>((zone, pages): (A, Vec<A::Page>), cpu: CpuIdx) -> A {
    for &page in &pages {
        free(&zone, cpu, page, Order::ZERO);
    }
    zone
}

fn alloc_all<A: PageAllocator>((zone, mut pages): (A, Vec<A::Page>)) -> (A, Vec<A::Page>) {
    for page in &mut pages {
        *page = alloc(&zone, Order::ZERO);
    }
    (zone, pages)
}

fn alloc_array<A: PageAllocator>((zone, mut pages): (A, Vec<A::Page>)) -> (A, Vec<A::Page>) {
    for array in pages.chunks_mut(512) {
        let got = zone.alloc_bulk(HERE, MOVABLE, Context::Task, array);
        assert_eq!(got, array.len());
    }
    (zone, pages)
}

fn free_array<A: PageAllocator>((zone, mut pages): (A, Vec<A::Page>), cpu: CpuIdx) -> A {
    for array in pages.chunks_mut(512) {
        zone.free_bulk(cpu, array, Context::Task)
            .expect("all are in use");
    }
    zone
}

/// [`OPS`] pages in runs of 512.
fn runs<A: PageAllocator>(zone: A) -> A {
    for _ in 0..OPS / 512 {
        let first = zone
            .alloc_contig(HERE, 512, MOVABLE, Context::Task)
            .expect("the zone is large");
        zone.free_contig(HERE, first, 512, Context::Task)
            .expect("it is in use");
    }
    zone
}

/// Random slots of random orders, filled or freed: [`OPS`] hits of each kind.
fn mix<A: PageAllocator>((zone, mut slots): (A, Slots<A::Page>)) -> (A, Slots<A::Page>) {
    slots.hit(&zone, 2 * OPS);
    (zone, slots)
}

/// Chunks of random orders in use, about half of the places full.
struct Slots<P> {
    places: Vec<Option<(P, Order)>>,
    random: u64,
    /// Orders are below this.
    orders: u8,
}

impl<P: Copy> Slots<P> {
    fn hit<A: PageAllocator<Page = P>>(&mut self, zone: &A, times: usize) {
        for _ in 0..times {
            // xorshift, Marsaglia 2003.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let nr = self.places.len();
            let place = &mut self.places[(self.random >> 8) as usize % nr];
            match place.take() {
                Some((page, order)) => free(zone, HERE, page, order),
                None => {
                    let order = Order::new((self.random >> 40) as u8 % self.orders);
                    *place = Some((alloc(zone, order), order));
                }
            }
        }
    }
}

/// Warm after eight hits of each place.
fn with_slots<A: PageAllocator>(zone: A, places: usize, orders: u8) -> (A, Slots<A::Page>) {
    let mut slots = Slots {
        places: vec![None; places],
        random: 1,
        orders,
    };
    slots.hit(&zone, 8 * places);
    (zone, slots)
}

/// Chunks of orders 0 to 9.
fn with_runs<A: PageAllocator>(zone: A) -> (A, Slots<A::Page>) {
    with_slots(zone, 256, 10)
}

/// Single pages.
fn with_singles<A: PageAllocator>(zone: A) -> (A, Slots<A::Page>) {
    with_slots(zone, 1 << 15, 1)
}

fn lists(policy: ListPolicy) -> ListAllocator {
    ListAllocator::new(&config(policy)).expect("a valid description")
}

fn economy() -> Economy {
    Economy::new(&config(ListPolicy::Pcp)).expect("a valid description")
}

/// No more than that many instructions an operation.
fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let limit = (EventKind::Ir, instructions * OPS as u64);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([limit]));
    config
}

#[library_benchmark]
#[bench::pcp(warm(lists(ListPolicy::Pcp)))]
#[bench::owner(warm(lists(ListPolicy::Owner)))]
#[bench::split(warm(lists(ListPolicy::Split)))]
#[bench::economy(args = (warm(economy())), config = at_most(280))]
fn pair<A: PageAllocator<Page = PageIdx>>(zone: A) -> impl Sized {
    pairs(zone, 0)
}

#[library_benchmark]
#[bench::pcp(warm(lists(ListPolicy::Pcp)))]
#[bench::owner(warm(lists(ListPolicy::Owner)))]
#[bench::split(warm(lists(ListPolicy::Split)))]
#[bench::economy(args = (warm(economy())), config = at_most(320))]
fn pair_order9<A: PageAllocator<Page = PageIdx>>(zone: A) -> impl Sized {
    pairs(zone, 9)
}

#[library_benchmark]
#[bench::pcp(with_room(lists(ListPolicy::Pcp)))]
#[bench::owner(with_room(lists(ListPolicy::Owner)))]
#[bench::split(with_room(lists(ListPolicy::Split)))]
#[bench::economy(args = (with_room(economy())), config = at_most(105))]
fn alloc_single<A: PageAllocator<Page = PageIdx>>(taken: (A, Vec<PageIdx>)) -> impl Sized {
    alloc_all(taken)
}

#[library_benchmark]
#[bench::pcp(with_pages(lists(ListPolicy::Pcp)))]
#[bench::owner(with_pages(lists(ListPolicy::Owner)))]
#[bench::split(with_pages(lists(ListPolicy::Split)))]
#[bench::economy(args = (with_pages(economy())), config = at_most(170))]
fn free_local<A: PageAllocator<Page = PageIdx>>(taken: (A, Vec<PageIdx>)) -> impl Sized {
    free_all(taken, HERE)
}

#[library_benchmark]
#[bench::pcp(with_pages(lists(ListPolicy::Pcp)))]
#[bench::owner(with_pages(lists(ListPolicy::Owner)))]
#[bench::split(with_pages(lists(ListPolicy::Split)))]
#[bench::economy(args = (with_pages(economy())), config = at_most(125))]
fn free_remote<A: PageAllocator<Page = PageIdx>>(taken: (A, Vec<PageIdx>)) -> impl Sized {
    free_all(taken, ELSEWHERE)
}

#[library_benchmark]
#[bench::pcp(with_room(lists(ListPolicy::Pcp)))]
#[bench::owner(with_room(lists(ListPolicy::Owner)))]
#[bench::split(with_room(lists(ListPolicy::Split)))]
#[bench::economy(args = (with_room(economy())), config = at_most(7))]
fn alloc_bulk<A: PageAllocator<Page = PageIdx>>(taken: (A, Vec<PageIdx>)) -> impl Sized {
    alloc_array(taken)
}

#[library_benchmark]
#[bench::pcp(with_pages(lists(ListPolicy::Pcp)))]
#[bench::owner(with_pages(lists(ListPolicy::Owner)))]
#[bench::split(with_pages(lists(ListPolicy::Split)))]
#[bench::economy(args = (with_pages(economy())), config = at_most(20))]
fn free_bulk_local<A: PageAllocator<Page = PageIdx>>(taken: (A, Vec<PageIdx>)) -> impl Sized {
    free_array(taken, HERE)
}

#[library_benchmark]
#[bench::pcp(with_pages(lists(ListPolicy::Pcp)))]
#[bench::owner(with_pages(lists(ListPolicy::Owner)))]
#[bench::split(with_pages(lists(ListPolicy::Split)))]
#[bench::economy(args = (with_pages(economy())), config = at_most(20))]
fn free_bulk_remote<A: PageAllocator<Page = PageIdx>>(taken: (A, Vec<PageIdx>)) -> impl Sized {
    free_array(taken, ELSEWHERE)
}

#[library_benchmark]
#[bench::pcp(warm(lists(ListPolicy::Pcp)))]
#[bench::owner(warm(lists(ListPolicy::Owner)))]
#[bench::split(warm(lists(ListPolicy::Split)))]
#[bench::economy(args = (warm(economy())), config = at_most(7))]
fn contig<A: PageAllocator<Page = PageIdx>>(zone: A) -> impl Sized {
    runs(zone)
}

#[library_benchmark]
#[bench::pcp(with_runs(lists(ListPolicy::Pcp)))]
#[bench::owner(with_runs(lists(ListPolicy::Owner)))]
#[bench::split(with_runs(lists(ListPolicy::Split)))]
#[bench::economy(args = (with_runs(economy())), config = at_most(740))]
fn random_orders<A: PageAllocator<Page = PageIdx>>(slots: (A, Slots<PageIdx>)) -> impl Sized {
    mix(slots)
}

#[library_benchmark]
#[bench::pcp(with_singles(lists(ListPolicy::Pcp)))]
#[bench::owner(with_singles(lists(ListPolicy::Owner)))]
#[bench::split(with_singles(lists(ListPolicy::Split)))]
#[bench::economy(args = (with_singles(economy())), config = at_most(370))]
fn random_singles<A: PageAllocator<Page = PageIdx>>(slots: (A, Slots<PageIdx>)) -> impl Sized {
    mix(slots)
}

library_benchmark_group!(
    name = fast_path;
    benchmarks = pair, pair_order9, alloc_single, free_local, free_remote, alloc_bulk, free_bulk_local, free_bulk_remote, contig, random_orders, random_singles
);

main!(library_benchmark_groups = fast_path);
