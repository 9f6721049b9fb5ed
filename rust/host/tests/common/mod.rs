// SPDX-License-Identifier: GPL-2.0

//! What the allocator tests share: small zones, and the books that a client could keep.

#![allow(dead_code, reason = "no test file uses all of it")]

pub(crate) mod model;

use pcp_buddy::mm::{
    types::{BlockIdx, Context, CpuIdx, Migratetype, Order, PageIdx, Result},
    Config, Economy, Hotplug, ListAllocator, ListPolicy, PageAllocator, Place, Report,
};

/// Everything that a zone of any policy can do.
pub(crate) trait Zone: PageAllocator<Page = PageIdx> + Report + Hotplug {}

impl<T: PageAllocator<Page = PageIdx> + Report + Hotplug> Zone for T {}

/// A policy over ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    Lists(ListPolicy),
    Economy,
}

pub(crate) const PCP: Policy = Policy::Lists(ListPolicy::Pcp);
pub(crate) const OWNER: Policy = Policy::Lists(ListPolicy::Owner);
pub(crate) const SPLIT: Policy = Policy::Lists(ListPolicy::Split);
pub(crate) const ECONOMY: Policy = Policy::Economy;

/// Those over one zone buddy.
pub(crate) const LISTS: [Policy; 3] = [PCP, OWNER, SPLIT];
pub(crate) const POLICIES: [Policy; 4] = [PCP, OWNER, SPLIT, ECONOMY];

impl Policy {
    pub(crate) fn zone(self, config: &Config<'_>) -> Result<Box<dyn Zone>> {
        Ok(match self {
            Policy::Lists(policy) => Box::new(ListAllocator::new(&Config { policy, ..*config })?),
            Policy::Economy => Box::new(Economy::new(config)?),
        })
    }
}

pub(crate) const CPUS: u32 = 4;
pub(crate) const BLOCK_ORDER: u8 = 6;
pub(crate) const BLOCK_PAGES: u32 = 1 << BLOCK_ORDER;

/// A description with small blocks, so that short tests see blocks come and go.
pub(crate) fn config(range_pages: &[u32]) -> Config<'_> {
    Config {
        policy: ListPolicy::Pcp,
        range_pages,
        block_order: BLOCK_ORDER,
        nr_cpus: CPUS,
        online_cpus: CPUS,
        batch: Some(31),
        high: Some(8 * BLOCK_PAGES),
        cma_percent: 0,
    }
}

/// A zone of one range of `blocks` blocks.
pub(crate) fn zone(policy: Policy, blocks: u32) -> Box<dyn Zone> {
    policy
        .zone(&config(&[blocks * BLOCK_PAGES]))
        .expect("a valid description")
}

pub(crate) fn alloc(zone: &dyn Zone, cpu: u32, order: u8, mt: Migratetype) -> Result<PageIdx> {
    zone.alloc(CpuIdx(cpu), Order::new(order), mt, Context::Task)
}

pub(crate) fn free(zone: &dyn Zone, cpu: u32, page: PageIdx, order: u8) -> Result<()> {
    zone.free(CpuIdx(cpu), page, Order::new(order), Context::Task)
}

/// Allocates `n` single movable pages on a CPU.
pub(crate) fn alloc_pages(zone: &dyn Zone, cpu: u32, n: u32) -> Vec<PageIdx> {
    (0..n)
        .map(|_| alloc(zone, cpu, 0, Migratetype::Movable).expect("enough memory"))
        .collect()
}

pub(crate) fn assert_ok(zone: &dyn Zone) {
    if let Err(violation) = zone.check() {
        panic!("{violation}");
    }
}

/// Drains all sets and asserts that the zone is as new: everything free, whole and unowned.
pub(crate) fn assert_pristine(zone: &dyn Zone) {
    assert_pristine_in(zone, BLOCK_ORDER);
}

/// The same of a zone with blocks of another order.
pub(crate) fn assert_pristine_in(zone: &dyn Zone, block_order: u8) {
    for cpu in 0..CPUS {
        zone.drain(CpuIdx(0), CpuIdx(cpu));
    }
    assert_ok(zone);
    assert_eq!(zone.free_pages(), zone.managed_pages());
    let mut shown = 0;
    for row in zone.free_chunks(Place::Zone) {
        for (order, nr) in row[..=zone.max_order().idx()].iter().enumerate() {
            let fragment = order < block_order.into() && *nr != 0;
            assert!(!fragment, "a fragment of order {order} is left");
            shown += nr << order;
        }
    }
    assert_eq!(
        shown,
        zone.managed_pages(),
        "pages in chunks of orders that there are"
    );
    for block in (0..zone.nr_blocks()).map(BlockIdx) {
        if let Some(info) = zone.block_info(block) {
            assert_eq!(info.owner, None, "{block:?} is owned");
            assert_eq!(
                info.free_zone_pages,
                1 << block_order,
                "{block:?} is not whole"
            );
        }
    }
}

/// A counter by its name in debugfs, summed over the CPUs.
pub(crate) fn counter(zone: &dyn Zone, name: &str) -> u64 {
    use pcp_buddy::mm::stats::{counter_name, NR_COUNTERS};
    let nr = (0..NR_COUNTERS)
        .find(|&nr| counter_name(nr).to_string() == name)
        .unwrap_or_else(|| panic!("no counter is called {name}"));
    zone.stats().total(nr)
}
