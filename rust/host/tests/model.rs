// SPDX-License-Identifier: GPL-2.0

//! Random operations against a model that knows only which pages are handed out.

mod common;

use std::{
    collections::{BTreeSet, HashSet},
    ops::Range,
};

use common::{
    alloc, assert_ok, assert_pristine, config, free, Policy, Zone, BLOCK_PAGES, CPUS, POLICIES,
};
use pcp_buddy::mm::types::{Context, CpuIdx, Error, Migratetype, Order, PageIdx, MAX_ORDER};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        cpu: u32,
        order: u8,
        mt: usize,
    },
    Free {
        cpu: u32,
        which: prop::sample::Index,
    },
    /// Single pages, in one call.
    AllocBulk {
        cpu: u32,
        nr: usize,
        mt: usize,
    },
    /// The single pages among the last ones, in one call.
    FreeBulk {
        cpu: u32,
        nr: usize,
    },
    AllocRun {
        cpu: u32,
        nr: u32,
        mt: usize,
    },
    /// The first pages of a run; the others stay, as single pages.
    FreeRun {
        cpu: u32,
        which: prop::sample::Index,
        cut: prop::sample::Index,
    },
    DoubleFree {
        cpu: u32,
    },
    Drain {
        cpu: u32,
        target: u32,
    },
    Offline {
        cpu: u32,
    },
    Online {
        cpu: u32,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0..CPUS;
    let order = prop_oneof![6 => Just(0u8), 3 => 1..=6u8, 1 => 7..=10u8];
    prop_oneof![
        50 => (cpu.clone(), order, 0..3usize)
            .prop_map(|(cpu, order, mt)| Op::Alloc { cpu, order, mt }),
        45 => (cpu.clone(), any::<prop::sample::Index>())
            .prop_map(|(cpu, which)| Op::Free { cpu, which }),
        4 => (cpu.clone(), 0..200usize, 0..3usize)
            .prop_map(|(cpu, nr, mt)| Op::AllocBulk { cpu, nr, mt }),
        4 => (cpu.clone(), 0..200usize).prop_map(|(cpu, nr)| Op::FreeBulk { cpu, nr }),
        4 => (cpu.clone(), prop_oneof![3 => 1..200u32, 1 => 1..3000u32], 0..3usize)
            .prop_map(|(cpu, nr, mt)| Op::AllocRun { cpu, nr, mt }),
        4 => (cpu.clone(), any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(cpu, which, cut)| Op::FreeRun { cpu, which, cut }),
        2 => cpu.clone().prop_map(|cpu| Op::DoubleFree { cpu }),
        3 => (cpu.clone(), cpu.clone()).prop_map(|(cpu, target)| Op::Drain { cpu, target }),
        1 => (1..CPUS).prop_map(|cpu| Op::Offline { cpu }),
        1 => (1..CPUS).prop_map(|cpu| Op::Online { cpu }),
    ]
}

/// Zones of one or more ranges, some of them no power of two of blocks long.
fn ranges() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1..=20u32, 1..=3)
        .prop_map(|blocks| blocks.into_iter().map(|n| n * BLOCK_PAGES).collect())
}

/// The pages of each range.
fn index_ranges<'a>(
    zone: &'a dyn Zone,
    ranges: &'a [u32],
) -> impl Iterator<Item = Range<u32>> + 'a {
    ranges.iter().enumerate().map(|(i, &pages)| {
        let base = zone.range_base(i).0;
        base..base + pages
    })
}

struct Model {
    zone: Box<dyn Zone>,
    ranges: Vec<Range<u32>>,
    valid: HashSet<u32>,
    used: HashSet<u32>,
    chunks: Vec<(PageIdx, u8)>,
    runs: Vec<(PageIdx, u32)>,
    last_freed: Option<PageIdx>,
    dead: HashSet<u32>,
}

impl Model {
    fn new(zone: Box<dyn Zone>, ranges: &[u32]) -> Model {
        let ranges: Vec<_> = index_ranges(&*zone, ranges).collect();
        Model {
            zone,
            valid: ranges.iter().cloned().flatten().collect(),
            ranges,
            used: HashSet::new(),
            chunks: Vec::new(),
            runs: Vec::new(),
            last_freed: None,
            dead: HashSet::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            // An offline CPU runs nothing.
            Op::Alloc { cpu, .. }
            | Op::Free { cpu, .. }
            | Op::AllocBulk { cpu, .. }
            | Op::FreeBulk { cpu, .. }
            | Op::AllocRun { cpu, .. }
            | Op::FreeRun { cpu, .. }
            | Op::DoubleFree { cpu }
            | Op::Drain { cpu, .. }
                if self.dead.contains(&cpu) => {}
            Op::Alloc { cpu, order, mt } => self.alloc(cpu, order, Migratetype::PCP[mt]),
            Op::Free { cpu, which } => {
                if !self.chunks.is_empty() {
                    let i = which.index(self.chunks.len());
                    self.free(cpu, i);
                }
            }
            Op::AllocBulk { cpu, nr, mt } => self.alloc_bulk(cpu, nr, Migratetype::PCP[mt]),
            Op::FreeBulk { cpu, nr } => self.free_bulk(cpu, nr),
            Op::AllocRun { cpu, nr, mt } => self.alloc_run(cpu, nr, Migratetype::PCP[mt]),
            Op::FreeRun { cpu, which, cut } => {
                if !self.runs.is_empty() {
                    self.free_run(cpu, which.index(self.runs.len()), cut);
                }
            }
            Op::DoubleFree { cpu } => self.double_free(cpu),
            Op::Drain { cpu, target } => self.zone.drain(CpuIdx(cpu), CpuIdx(target)),
            Op::Offline { cpu } => {
                if self.dead.insert(cpu) {
                    self.zone.cpu_dead(CpuIdx(0), CpuIdx(cpu));
                }
            }
            Op::Online { cpu } => {
                if self.dead.remove(&cpu) {
                    self.zone.cpu_online(CpuIdx(cpu));
                }
            }
        }
    }

    /// Notes that pages were handed out.
    fn take(&mut self, page: PageIdx, nr: u32) {
        let pages = page.0..page.0 + nr;
        let inside = |range: &Range<u32>| range.start <= pages.start && pages.end <= range.end;
        assert!(self.ranges.iter().any(inside), "{pages:?} in no range");
        for p in pages {
            assert!(self.used.insert(p), "page {p} was handed out twice");
        }
    }

    fn alloc(&mut self, cpu: u32, order: u8, mt: Migratetype) {
        match alloc(&*self.zone, cpu, order, mt) {
            Ok(page) => {
                assert!(
                    page.is_aligned(Order::new(order)),
                    "{page:?} of order {order}"
                );
                self.take(page, 1 << order);
                self.chunks.push((page, order));
            }
            Err(error) => {
                assert_eq!(error, Error::NoMemory);
                self.failed(order == 0, mt);
            }
        }
    }

    fn failed(&self, single: bool, mt: Migratetype) {
        let free = (self.valid.len() - self.used.len()) as u64;
        assert_eq!(
            self.zone.free_pages() + self.zone.uncounted_free_pages(),
            free
        );
        // Single pages must not fail while pages are free that the type may use.
        if single && mt == Migratetype::Movable {
            assert_eq!(free, 0, "a page is free, yet the allocation failed");
        }
    }

    fn alloc_bulk(&mut self, cpu: u32, nr: usize, mt: Migratetype) {
        let mut pages = vec![PageIdx(u32::MAX); nr];
        let got = (self.zone).alloc_bulk(CpuIdx(cpu), mt, Context::Task, &mut pages);
        for &page in &pages[..got] {
            self.take(page, 1);
            self.chunks.push((page, 0));
        }
        if got < nr {
            self.failed(true, mt);
        }
    }

    fn free_bulk(&mut self, cpu: u32, nr: usize) {
        let from = self.chunks.len().saturating_sub(nr);
        let mut pages = Vec::new();
        for (page, order) in self.chunks.split_off(from) {
            match order {
                0 => pages.push(page),
                _ => self.chunks.push((page, order)),
            }
        }
        for page in &pages {
            self.used.remove(&page.0);
            self.last_freed = Some(*page);
        }
        let freed = (self.zone).free_bulk(CpuIdx(cpu), &mut pages, Context::Task);
        freed.expect("allocated pages");
    }

    fn alloc_run(&mut self, cpu: u32, nr: u32, mt: Migratetype) {
        match (self.zone).alloc_contig(CpuIdx(cpu), nr, mt, Context::Task) {
            Ok(first) => {
                let order = Order::fitting(nr).get().min(MAX_ORDER);
                assert!(first.is_aligned(Order::new(order)), "{first:?}, {nr} pages");
                self.take(first, nr);
                self.runs.push((first, nr));
            }
            Err(error) => {
                let too_large = Order::fitting(nr) > self.zone.max_order();
                assert!(error == Error::NoMemory || too_large, "{error:?}");
                self.failed(nr == 1, mt);
            }
        }
    }

    fn free_run(&mut self, cpu: u32, i: usize, cut: prop::sample::Index) {
        let (first, nr) = self.runs.swap_remove(i);
        let cut = cut.index(nr as usize) as u32 + 1;
        let freed = (self.zone).free_contig(CpuIdx(cpu), first, cut, Context::Task);
        freed.expect("an allocated run");
        // As a whole it is refused now, and stays as it is.
        let again = (self.zone).free_contig(CpuIdx(cpu), first, nr, Context::Task);
        assert_eq!(again, Err(Error::DoubleFree));
        for p in first.0..first.0 + cut {
            self.used.remove(&p);
        }
        self.last_freed = Some(first);
        let rest = (cut..nr).map(|i| (first.offset(i), 0));
        self.chunks.extend(rest);
    }

    fn free(&mut self, cpu: u32, i: usize) {
        let (page, order) = self.chunks.swap_remove(i);
        free(&*self.zone, cpu, page, order).expect("an allocated chunk");
        for p in page.0..page.0 + (1 << order) {
            self.used.remove(&p);
        }
        self.last_freed = Some(page);
    }

    fn double_free(&mut self, cpu: u32) {
        if let Some(page) = self.last_freed.filter(|page| !self.used.contains(&page.0)) {
            assert_eq!(free(&*self.zone, cpu, page, 0), Err(Error::DoubleFree));
        }
    }

    fn check(&self) {
        assert_ok(&*self.zone);
        let free = (self.valid.len() - self.used.len()) as u64;
        assert_eq!(
            self.zone.free_pages() + self.zone.uncounted_free_pages(),
            free
        );
    }

    fn finish(mut self) {
        for (first, nr) in core::mem::take(&mut self.runs) {
            self.chunks.extend((0..nr).map(|i| (first.offset(i), 0)));
        }
        while !self.chunks.is_empty() {
            let i = self.chunks.len() - 1;
            self.free(i as u32 % CPUS * u32::from(self.dead.is_empty()), i);
        }
        assert_pristine(&*self.zone);
    }
}

fn run(policy: Policy, ranges: &[u32], tune: (u32, u32, u8), ops: &[Op]) {
    let (batch, high, cma_percent) = tune;
    let zone = policy.zone(&pcp_buddy::mm::Config {
        batch: Some(batch),
        high: Some(high),
        cma_percent,
        ..config(ranges)
    });
    let mut model = Model::new(zone.expect("a valid description"), ranges);
    for (i, op) in ops.iter().enumerate() {
        model.apply(op);
        if i % 8 == 0 {
            model.check();
        }
    }
    model.finish();
}

/// A free of pages that are all in use at first, by their number among all pages.
#[derive(Clone, Debug)]
enum Give {
    Page(prop::sample::Index),
    Bulk(Vec<prop::sample::Index>),
    Run(prop::sample::Index, u32),
    Drain(u32),
}

fn give() -> impl Strategy<Value = Give> {
    let page = any::<prop::sample::Index>;
    prop_oneof![
        4 => page().prop_map(Give::Page),
        2 => prop::collection::vec(page(), 0..100).prop_map(Give::Bulk),
        2 => (page(), 1..200u32).prop_map(|(first, nr)| Give::Run(first, nr)),
        1 => (0..CPUS).prop_map(Give::Drain),
    ]
}

/// Takes every page of a zone, gives some back, and says which can be had then, by number.
fn free_set(policy: Policy, ranges: &[u32], gives: &[(u32, Give)]) -> BTreeSet<usize> {
    let zone = policy.zone(&config(ranges)).expect("a valid description");
    let pages: Vec<u32> = index_ranges(&*zone, ranges).flatten().collect();
    let number = |page: PageIdx| pages.binary_search(&page.0).expect("a page of the zone");
    let range_of = |nr: usize| {
        let mut ends = ranges.iter().scan(0, |end, &len| {
            *end += len as usize;
            Some(*end)
        });
        ends.position(|end| nr < end)
    };
    let take_all = || {
        let mut taken = BTreeSet::new();
        // From all CPUs in turn; each takes what it can get.
        for cpu in (0..CPUS).cycle() {
            match alloc(&*zone, cpu, 0, Migratetype::Movable) {
                Ok(page) => assert!(taken.insert(number(page)), "{page:?} was taken twice"),
                Err(_) => return taken,
            }
        }
        taken
    };
    let mut used = take_all();
    assert_eq!(used.len(), pages.len());
    for (cpu, give) in gives {
        let cpu = CpuIdx(*cpu);
        match give {
            Give::Page(which) => {
                let nr = which.index(pages.len());
                let freed = free(&*zone, cpu.0, PageIdx(pages[nr]), 0);
                assert_eq!(freed.is_ok(), used.remove(&nr), "{freed:?}");
            }
            Give::Bulk(which) => {
                let which = which.iter().map(|which| which.index(pages.len()));
                let nrs: Vec<_> = which.collect();
                let mut array: Vec<_> = nrs.iter().map(|&nr| PageIdx(pages[nr])).collect();
                let freed = zone.free_bulk(cpu, &mut array, Context::Task);
                let right = nrs.iter().map(|nr| used.remove(nr)).filter(|was| *was);
                assert_eq!(freed.is_ok(), right.count() == nrs.len());
            }
            Give::Run(first, nr) => {
                let first = first.index(pages.len());
                let run = PageIdx(pages[first]);
                let last = first + *nr as usize - 1;
                // Which ranges are neighbours among the indexes is up to the policy.
                if range_of(first) != range_of(last) {
                    continue;
                }
                let right = (first..=last).all(|nr| used.contains(&nr));
                let freed = zone.free_contig(cpu, run, *nr, Context::Task);
                assert_eq!(freed.is_ok(), right, "{freed:?}");
                if right {
                    used.retain(|nr| *nr < first || *nr > last);
                }
            }
            Give::Drain(target) => zone.drain(cpu, CpuIdx(*target)),
        }
        assert_ok(&*zone);
    }
    let free = take_all();
    assert!(free.is_disjoint(&used));
    assert_eq!(free.len() + used.len(), pages.len());
    free
}

proptest! {

    #[test]
    fn the_same_frees_leave_the_same_pages_free_on_every_policy(
        ranges in ranges(),
        gives in prop::collection::vec((0..CPUS, give()), 0..60),
    ) {
        let sets = POLICIES.map(|policy| free_set(policy, &ranges, &gives));
        for set in &sets[1..] {
            prop_assert_eq!(set, &sets[0]);
        }
    }

    #[test]
    fn every_policy_keeps_every_page(
        policy in prop::sample::select(&POLICIES[..]),
        ranges in ranges(),
        tune in (1..=64u32, 0..=400u32, prop_oneof![Just(0u8), 0..=100u8]),
        ops in prop::collection::vec(op(), 1..600),
    ) {
        run(policy, &ranges, tune, &ops);
    }
}
