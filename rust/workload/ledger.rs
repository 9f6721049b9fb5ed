// SPDX-License-Identifier: GPL-2.0

//! Which refusals are spurious: an allocation refused in task context although a chunk that would
//! have served it was free from the beginning of the call to its end.
//!
//! Nobody sees all pages at once while other CPUs allocate, but their number has a bound. The pages
//! that were in use at any time during a call are at most those that had been allocated when it
//! ended less those that had been freed before it began. If they are fewer than the aligned chunks
//! of the size in question, one of these had no page in use all the while.
//!
//! There are two ways to know these numbers:
//!
//! * A run that verifies is a test and may cost something: each worker counts the pages that it asks
//!   for before it asks, and the pages that it has freed after that, and every refusal is judged.
//!   What is in flight is counted as in use, so the bound holds at every moment.
//! * Else nothing is counted that is not counted anyway. After a refusal, if the zone's own counters
//!   say that there should have been memory, the request is made again, with a look at the counters before
//!   and after it. What other CPUs are just about and have not counted yet, or have counted too
//!   early, is bounded by the largest call of each. A refusal that does not last is not seen.
//!
//! Interrupts may neither wait nor take what other CPUs have: what they are refused is not judged.

use super::spec::{
    How,
    Spec, //
};
use crate::mm::{
    platform::{
        mb,
        Array,
        AtomicU64,
        CachePadded, //
    },
    stats::Stats,
    types::{
        Context,
        Migratetype,
        Order,
        Result, //
    },
    BULK_STRETCH, //
};

/// What a zone owes to whoever asks in task context, and its counters before the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promise {
    order: Order,
    cma_pages: u64,
    allocated: u64,
    freed: u64,
    resets: u32,
}

impl Promise {
    /// To be made while all pages of the zone are free. A chunk of up to `order`, at most a pageblock, is
    /// found if one is free during the whole call, whatever other CPUs do. Only movable requests may
    /// use `cma_pages` pages, which are whole pageblocks.
    pub fn new(stats: &Stats, order: Order, cma_pages: u64) -> Promise {
        Promise {
            order,
            cma_pages,
            resets: stats.resets(),
            allocated: stats.pages_allocated(),
            freed: stats.pages_freed(),
        }
    }
}

/// What one worker, or the interrupts of one, have asked for and freed, in pages.
struct Account {
    asked: AtomicU64,
    freed: AtomicU64,
}

/// The accounts of a run, and what its zone owes.
pub(super) struct Ledger {
    promise: Option<Promise>,
    zone_pages: u64,
    /// What the calls of all CPUs at one moment may be about and have not counted, in pages.
    in_flight: u64,
    workers: usize,
    /// By worker, then the interrupts of each; none if the run does not verify.
    accounts: Array<CachePadded<Account>>,
}

impl Ledger {
    /// For a run of that many workers in a zone of `zone_pages` pages.
    pub(super) fn new(
        spec: &Spec,
        promise: Option<Promise>,
        zone_pages: u64,
        workers: usize,
    ) -> Result<Ledger> {
        let contexts = match spec.context {
            Context::Task => 1,
            Context::Softirq | Context::Hardirq => 2,
        };
        let largest = match spec.how {
            How::Array => BULK_STRETCH as u64,
            How::Single | How::Range => u64::from(spec.order.hi.pages()),
        };
        let account = |_| {
            CachePadded(Account {
                asked: AtomicU64::new(0),
                freed: AtomicU64::new(0),
            })
        };
        let nr = if spec.verify { 2 * workers } else { 0 };
        Ok(Ledger {
            promise,
            zone_pages,
            // One call may be allocating, and the same one before have been counted freeing.
            in_flight: 2 * largest * contexts * workers as u64,
            workers,
            accounts: Array::new(nr, account)?,
        })
    }

    /// Whether anything can be said of this zone.
    pub(super) fn judges(&self) -> bool {
        self.promise.is_some()
    }

    /// Whose account the interrupts of a worker write.
    pub(super) fn interrupts_of(&self, worker: usize) -> usize {
        self.workers + worker
    }

    /// Notes, before a call, that it asks for `pages`. Written by the owner of the account only.
    pub(super) fn ask(&self, account: usize, pages: u64) {
        if let Some(account) = self.accounts.get(account) {
            account.asked.add_local(pages);
            // ORDERING: Whoever sees a page in use sees that it had been asked for.
            mb();
        }
    }

    /// Notes that pages have been freed, or asked for in vain. Written by the owner of the account only.
    pub(super) fn settle(&self, account: usize, pages: u64) {
        if let Some(account) = self.accounts.get(account) {
            // ORDERING: Release, pairs with the acquire in `freed()`: who sees the count sees the
            // pages free.
            let freed = account.freed.load() + pages;
            account.freed.store_release(freed);
        }
    }

    /// Pages that were freed so far, by the accounts. To be asked before the call that is judged.
    pub(super) fn freed(&self) -> u64 {
        let freed = |account: &CachePadded<Account>| account.freed.load_acquire();
        self.accounts.iter().map(freed).sum()
    }

    /// Whether a refusal was spurious, by the accounts: of a chunk of `order`, after `freed` pages had
    /// been freed, with `vain` pages of the caller's asked for in vain and not settled yet.
    pub(super) fn is_spurious(&self, order: Order, mt: Migratetype, freed: u64, vain: u64) -> bool {
        mb();
        let asked: u64 = self.accounts.iter().map(|a| a.asked.load()).sum();
        self.owes(order, mt, asked.wrapping_sub(freed).wrapping_sub(vain))
    }

    /// The same by the counters of the zone; asks again by `again`, which says whether it was refused
    /// again.
    #[cold]
    pub(super) fn is_spurious_again(
        &self,
        (order, mt): (Order, Migratetype),
        stats: &Stats,
        again: impl FnOnce() -> bool,
    ) -> bool {
        let Some(before) = self.promise.filter(|promise| order <= promise.order) else {
            return false;
        };
        let may_be_spurious = |freed: u64| {
            let allocated = stats.pages_allocated().wrapping_sub(before.allocated);
            let used = allocated.saturating_sub(freed.wrapping_sub(before.freed));
            // Last: nothing was reset as long as that has not been counted.
            self.owes(order, mt, used + self.in_flight) && stats.resets() == before.resets
        };
        // A request is repeated only where that may prove something.
        if !may_be_spurious(stats.pages_freed()) {
            return false;
        }
        let freed = stats.pages_freed();
        mb();
        let refused = again();
        mb();
        refused && may_be_spurious(freed)
    }

    /// Whether a chunk must be to be had if so many pages are in use at most.
    fn owes(&self, order: Order, mt: Migratetype, used: u64) -> bool {
        self.promise.is_some_and(|promise| {
            let lent = match mt {
                Migratetype::Movable => 0,
                _ => promise.cma_pages,
            };
            // Who promises single pages only has lists: a page that goes from one to another is out of sight.
            let moving = match promise.order {
                Order::ZERO => (BULK_STRETCH * self.workers) as u64,
                _ => 0,
            };
            let chunks = self.zone_pages.saturating_sub(lent) >> order.get();
            order <= promise.order && used + moving < chunks
        })
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_ledger))]
mod tests {
    use super::*;
    use crate::{
        mm::types::CpuIdx,
        workload::{
            cpus::CpuSet,
            spec::Workload, //
        }, //
    };

    const MOVABLE: Migratetype = Migratetype::Movable;

    /// A zone of 1024 pages in blocks of order 6, half of them CMA; one worker.
    fn ledger(stats: &Stats, verify: bool) -> Ledger {
        let spec = Spec {
            verify,
            ..Spec::new(Workload::Pair, CpuSet::of(CpuIdx(0)))
        };
        let promise = Promise::new(stats, Order::new(6), 512);
        Ledger::new(&spec, Some(promise), 1024, 1).unwrap()
    }

    #[test]
    fn what_is_asked_for_counts_as_used_until_it_is_settled() {
        let ledger = ledger(&Stats::new(1).unwrap(), true);
        ledger.ask(0, 1023);
        ledger.ask(0, 1);
        let freed = ledger.freed();
        // A page is left that was not asked for.
        assert!(ledger.is_spurious(Order::ZERO, MOVABLE, freed, 1));
        assert!(!ledger.is_spurious(Order::ZERO, Migratetype::Unmovable, freed, 1));
        ledger.settle(0, 1);
        ledger.ask(0, 2);
        assert!(!ledger.is_spurious(Order::ZERO, MOVABLE, ledger.freed(), 1));
        ledger.settle(0, 1000);
        // 25 pages in use lie in as many chunks at most; there are 16 of order 6.
        assert!(ledger.is_spurious(Order::new(5), MOVABLE, ledger.freed(), 0));
        assert!(!ledger.is_spurious(Order::new(6), MOVABLE, ledger.freed(), 0));
        // What was freed during the call does not count.
        assert!(!ledger.is_spurious(Order::ZERO, MOVABLE, freed, 0));
        ledger.settle(0, 25);
        assert!(ledger.is_spurious(Order::new(6), MOVABLE, ledger.freed(), 0));
        assert!(!ledger.is_spurious(Order::new(7), MOVABLE, ledger.freed(), 0));
    }

    #[test]
    fn counters_prove_it_unless_they_were_reset() {
        let stats = Stats::new(1).unwrap();
        let book = ledger(&stats, false);
        let zero = (Order::ZERO, MOVABLE);
        let judge = |refused| book.is_spurious_again(zero, &stats, || refused);
        assert!(judge(true) && !judge(false));
        // Two pages are in flight.
        stats.alloc_pages(CpuIdx(0), MOVABLE, 1021);
        assert!(judge(true));
        stats.alloc_pages(CpuIdx(0), MOVABLE, 1);
        assert!(!judge(true));
        stats.free(CpuIdx(0), MOVABLE, Order::new(3));
        assert!(judge(true));
        stats.reset();
        assert!(!judge(true));
        // What is freed meanwhile does not count.
        let book = ledger(&stats, false);
        stats.alloc_pages(CpuIdx(0), MOVABLE, 1021);
        let again = || {
            stats.alloc_pages(CpuIdx(0), MOVABLE, 1);
            stats.free_pages(CpuIdx(0), MOVABLE, 500);
            true
        };
        assert!(!book.is_spurious_again(zero, &stats, again));
    }
}
