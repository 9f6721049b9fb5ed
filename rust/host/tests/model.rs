// SPDX-License-Identifier: GPL-2.0

//! Random operations against a model that knows only which pages are handed out.

mod common;

use std::collections::HashSet;

use common::{
    alloc, assert_ok, assert_pristine, config, free, Policy, Zone, BLOCK_PAGES, CPUS, POLICIES,
};
use pcp_buddy::mm::types::{CpuIdx, Error, Migratetype, Order, PageIdx};
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

struct Model {
    zone: Box<dyn Zone>,
    valid: HashSet<u32>,
    used: HashSet<u32>,
    chunks: Vec<(PageIdx, u8)>,
    last_freed: Option<PageIdx>,
    dead: HashSet<u32>,
}

impl Model {
    fn new(zone: Box<dyn Zone>, ranges: &[u32]) -> Model {
        let pages_of = |(i, &pages): (usize, &u32)| {
            let base = zone.range_base(i).0;
            base..base + pages
        };
        let valid = ranges.iter().enumerate().flat_map(pages_of).collect();
        Model {
            zone,
            valid,
            used: HashSet::new(),
            chunks: Vec::new(),
            last_freed: None,
            dead: HashSet::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            // An offline CPU runs nothing.
            Op::Alloc { cpu, .. } | Op::Free { cpu, .. } | Op::DoubleFree { cpu }
                if self.dead.contains(&cpu) => {}
            Op::Drain { cpu, .. } if self.dead.contains(&cpu) => {}
            Op::Alloc { cpu, order, mt } => self.alloc(cpu, order, Migratetype::PCP[mt]),
            Op::Free { cpu, which } => {
                if !self.chunks.is_empty() {
                    let i = which.index(self.chunks.len());
                    self.free(cpu, i);
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

    fn alloc(&mut self, cpu: u32, order: u8, mt: Migratetype) {
        match alloc(&*self.zone, cpu, order, mt) {
            Ok(page) => {
                assert!(
                    page.is_aligned(Order::new(order)),
                    "{page:?} of order {order}"
                );
                for p in page.0..page.0 + (1 << order) {
                    assert!(self.valid.contains(&p), "page {p} lies in no range");
                    assert!(self.used.insert(p), "page {p} was handed out twice");
                }
                self.chunks.push((page, order));
            }
            Err(error) => {
                assert_eq!(error, Error::NoMemory);
                // Single pages must not fail while pages are free that the type may use.
                let free = (self.valid.len() - self.used.len()) as u64;
                assert_eq!(
                    self.zone.free_pages() + self.zone.uncounted_free_pages(),
                    free
                );
                if order == 0 && mt == Migratetype::Movable {
                    assert_eq!(free, 0, "a page is free, yet the allocation failed");
                }
            }
        }
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

proptest! {

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
