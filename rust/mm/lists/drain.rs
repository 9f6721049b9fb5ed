// SPDX-License-Identifier: GPL-2.0

//! Per-CPU set to zone: giving pages back.
//!
//! Runs with the set's lock held and takes the zone lock once per step (`free_pcppages_bulk()`).

use super::{
    allocator::ListAllocator,
    free_area::End,
    page_map::Mergeable,
    pcp::{mergeable, Pcp},
};
use crate::mm::{
    stats::Event,
    types::{CpuIdx, Migratetype, Order},
    ListPolicy,
};

/// The lists of a set in the order in which drains go round: by order, types within. Starts with
/// the list of `first`.
fn lists_from(first: Order, block_order: Order) -> impl Iterator<Item = (Order, Migratetype)> {
    let upwards = first.upto(block_order);
    let wrapped = (first > Order::ZERO).then(|| Order::ZERO.upto(first.below()));
    upwards
        .chain(wrapped.into_iter().flatten())
        .flat_map(|order| Migratetype::PCP.map(|mt| (order, mt)))
}

impl ListAllocator {
    /// Gives back `excess` pages after a free made a set too large; `order` is that of the free.
    pub(super) fn drain_excess(&self, cpu: CpuIdx, pcp: &mut Pcp, excess: u32, order: Order) {
        match self.policy {
            // In steps of a batch, as mainline does to bound the time under the zone lock.
            ListPolicy::Pcp => {
                let mut left = excess;
                while left > 0 && pcp.count() > 0 {
                    let step = left.min(pcp.batch());
                    self.drain_step(cpu, pcp, step, order);
                    left -= step;
                }
            }
            ListPolicy::Owner | ListPolicy::Split => self.drain_step(cpu, pcp, excess, order),
        }
    }

    /// Gives back everything that is on the set.
    pub(super) fn drain_whole(&self, cpu: CpuIdx, pcp: &mut Pcp) {
        while pcp.count() > 0 {
            let step = pcp.drain_step().min(pcp.count());
            self.drain_step(cpu, pcp, step, Order::ZERO);
        }
    }

    /// Gives back at least `count` pages, whole chunks at a time, in one zone lock hold. Bounded by
    /// `count`: every turn frees a page or moves on to the next list.
    fn drain_step(&self, cpu: CpuIdx, pcp: &mut Pcp, count: u32, order: Order) {
        let block_order = self.zone.blocks.order();
        let first = match self.policy {
            ListPolicy::Pcp => order,
            ListPolicy::Owner | ListPolicy::Split => {
                let merged = pcp.merge(&self.zone.pages, block_order);
                self.stats.add(cpu, Event::MergeVisited, merged.visited);
                self.stats.add(cpu, Event::MergePcp, merged.pairs);
                block_order
            }
        };
        let count = count.min(pcp.count());
        let mut drained = 0;
        let mut zone = self.zone.lock(cpu, &self.stats);
        for (order, mt) in lists_from(first, block_order) {
            while drained < count {
                let Some(page) = pcp.free.peek(order, mt, End::Tail) else {
                    break;
                };
                let home = mergeable(&self.zone.pages, page) == Mergeable::Yes;
                pcp.free.remove(&self.zone.pages, page, order, mt);
                let mut end = End::Head;
                if home && order < block_order {
                    // A fragment of an owned block: keep it away from others, remember it.
                    zone.remember_fragment(page);
                    end = End::Tail;
                }
                let block_mt = zone.migratetype(page);
                zone.free_chunk(page, order, block_mt, end);
                drained += order.pages();
                if order == block_order {
                    self.stats.inc(cpu, Event::DrainBlocks);
                }
            }
        }
        drop(zone);
        self.stats.inc(cpu, Event::Drain);
        self.stats.add(cpu, Event::DrainPages, u64::from(drained));
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_drain))]
mod tests {
    use super::*;

    #[test]
    fn lists_go_round_once() {
        let orders =
            |first| lists_from(Order::new(first), Order::new(3)).map(|(order, _)| order.get());
        assert!(orders(0).eq([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]));
        assert!(orders(3).eq([3, 3, 3, 0, 0, 0, 1, 1, 1, 2, 2, 2]));
    }
}
