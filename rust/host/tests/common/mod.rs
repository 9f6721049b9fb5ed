// SPDX-License-Identifier: GPL-2.0

//! What the allocator tests share: small zones, and the books that a client could keep.

#![allow(dead_code, reason = "no test file uses all of it")]

use pcp_buddy::mm::{
    types::{BlockIdx, Context, CpuIdx, Migratetype, Order, PageIdx, Result, NR_ORDERS},
    Config, ListAllocator, ListPolicy, PageAllocator, Place, Report,
};

pub(crate) const CPUS: u32 = 4;
pub(crate) const BLOCK_ORDER: u8 = 6;
pub(crate) const BLOCK_PAGES: u32 = 1 << BLOCK_ORDER;

/// A description with small blocks, so that short tests see blocks come and go.
pub(crate) fn config(policy: ListPolicy, range_pages: &[u32]) -> Config<'_> {
    Config {
        policy,
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
pub(crate) fn zone(policy: ListPolicy, blocks: u32) -> ListAllocator {
    ListAllocator::new(&config(policy, &[blocks * BLOCK_PAGES])).expect("a valid description")
}

pub(crate) fn alloc(zone: &ListAllocator, cpu: u32, order: u8, mt: Migratetype) -> Result<PageIdx> {
    zone.alloc(CpuIdx(cpu), Order::new(order), mt, Context::Task)
}

pub(crate) fn free(zone: &ListAllocator, cpu: u32, page: PageIdx, order: u8) -> Result<()> {
    zone.free(CpuIdx(cpu), page, Order::new(order), Context::Task)
}

/// Allocates `n` single movable pages on a CPU.
pub(crate) fn alloc_pages(zone: &ListAllocator, cpu: u32, n: u32) -> Vec<PageIdx> {
    (0..n)
        .map(|_| alloc(zone, cpu, 0, Migratetype::Movable).expect("enough memory"))
        .collect()
}

pub(crate) fn assert_ok(zone: &ListAllocator) {
    if let Err(violation) = zone.check() {
        panic!("{violation}");
    }
}

/// Drains all sets and asserts that the zone is as new: everything free, whole and unowned.
pub(crate) fn assert_pristine(zone: &ListAllocator) {
    for cpu in 0..CPUS {
        zone.drain(CpuIdx(0), CpuIdx(cpu));
    }
    assert_ok(zone);
    assert_eq!(zone.free_pages(), zone.managed_pages());
    for row in zone.free_chunks(Place::Zone) {
        for order in 0..NR_ORDERS.min(BLOCK_ORDER.into()) {
            assert_eq!(row[order], 0, "a fragment of order {order} is left");
        }
    }
    for block in (0..zone.nr_blocks()).map(BlockIdx) {
        if let Some(info) = zone.block_info(block) {
            assert_eq!(info.owner, None, "{block:?} is owned");
            assert_eq!(info.free_zone_pages, BLOCK_PAGES, "{block:?} is not whole");
        }
    }
}

/// A counter by its name in debugfs, summed over the CPUs.
pub(crate) fn counter(zone: &impl PageAllocator, name: &str) -> u64 {
    use pcp_buddy::mm::stats::{counter_name, NR_COUNTERS};
    let nr = (0..NR_COUNTERS)
        .find(|&nr| counter_name(nr).to_string() == name)
        .unwrap_or_else(|| panic!("no counter is called {name}"));
    zone.stats().total(nr)
}
