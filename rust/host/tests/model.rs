// SPDX-License-Identifier: GPL-2.0

//! Random operations against a model that knows only which pages are handed out.

mod common;

use std::collections::BTreeSet;

use common::{
    alloc, assert_ok, config, free,
    model::{index_ranges, run, Op, Shape},
    Policy, BLOCK_ORDER, BLOCK_PAGES, CPUS, ECONOMY, POLICIES,
};
use pcp_buddy::mm::types::{Context, CpuIdx, Migratetype, PageIdx, BLOCK_ORDERS};
use proptest::prelude::*;

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0..CPUS;
    // Which orders there are is up to the zone; the others are refused.
    let order = prop_oneof![12 => Just(0u8), 6 => 1..=6u8, 2 => 7..=10u8, 1 => 11..=19u8];
    prop_oneof![
        50 => (cpu.clone(), order.clone(), 0..3usize)
            .prop_map(|(cpu, order, mt)| Op::Alloc { cpu, order, mt }),
        45 => (cpu.clone(), any::<usize>())
            .prop_map(|(cpu, which)| Op::Free { cpu, which }),
        4 => (cpu.clone(), 0..200usize, 0..3usize)
            .prop_map(|(cpu, nr, mt)| Op::AllocBulk { cpu, nr, mt }),
        4 => (cpu.clone(), 0..200usize).prop_map(|(cpu, nr)| Op::FreeBulk { cpu, nr }),
        4 => (cpu.clone(), prop_oneof![3 => 1..200u32, 1 => 1..3000u32], 0..3usize)
            .prop_map(|(cpu, nr, mt)| Op::AllocRun { cpu, nr, mt }),
        4 => (cpu.clone(), any::<usize>(), any::<usize>())
            .prop_map(|(cpu, which, cut)| Op::FreeRun { cpu, which, cut }),
        2 => cpu.clone().prop_map(|cpu| Op::DoubleFree { cpu }),
        2 => (cpu.clone(), any::<usize>(), order)
            .prop_map(|(cpu, which, order)| Op::WrongFree { cpu, which, order }),
        3 => (cpu.clone(), cpu.clone()).prop_map(|(cpu, target)| Op::Drain { cpu, target }),
        1 => (1..CPUS).prop_map(|cpu| Op::Offline { cpu }),
        1 => (1..CPUS).prop_map(|cpu| Op::Online { cpu }),
    ]
}

/// Zones of one or more ranges of up to `most` blocks, most of them no power of two long, with
/// watermarks that make sense and such that do not.
fn shape(most: u32) -> impl Strategy<Value = Shape> {
    let batch = prop_oneof![
        4 => (1..=64u32).prop_map(Some),
        1 => Just(None),
        1 => prop::sample::select(vec![1, 1 << 20, 1 << 24]).prop_map(Some),
    ];
    let high = prop_oneof![
        4 => (0..=400u32).prop_map(Some),
        1 => Just(None),
        1 => prop::sample::select(vec![0, 1, 1 << 20, 1 << 24]).prop_map(Some),
    ];
    (
        prop_oneof![2 => Just(BLOCK_ORDER), 1 => BLOCK_ORDERS],
        prop::collection::vec(prop_oneof![1..=20u32.min(most), 1..=most], 1..=3),
        batch,
        high,
        prop_oneof![Just(0u8), 0..=100u8],
    )
        .prop_map(|(block_order, blocks, batch, high, cma_percent)| Shape {
            block_order,
            blocks,
            batch,
            high,
            cma_percent,
        })
}

/// Zones of one or more ranges, some of them no power of two of blocks long.
fn ranges() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(1..=20u32, 1..=3)
        .prop_map(|blocks| blocks.into_iter().map(|n| n * BLOCK_PAGES).collect())
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
        shape in shape(20),
        ops in prop::collection::vec(op(), 1..600),
    ) {
        run(policy, &shape, &ops, 8);
    }

    /// Gigabytes: one bit a page costs little.
    #[test]
    fn economy_keeps_every_page_of_large_zones(
        shape in shape(4000),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        run(ECONOMY, &shape, &ops, 50);
    }
}
