// SPDX-License-Identifier: GPL-2.0

//! Blocks that are on the wrong set: for a CPU that has run dry, for runs of blocks, when a CPU has gone.
//!
//! Who needs a block looks for it from outside first, at tags and bitmaps, without a lock, and then
//! enters the one set that holds it. So a request that cannot be met disturbs nobody. A page that is free
//! all the while is found: its bits stay where they are when its block changes hands or its remote bit
//! becomes a local one, and it does not matter on which list or stack the block is, or whether on any.
//!
//! Nobody is kept out of a set, and no lock is held, for longer than a stretch of blocks takes.

use super::{
    blocks::{Holder, Tag},
    set::{is_current, Held},
    Economy, STRETCH,
};
use crate::mm::{
    platform::{mb, pin},
    stats::Event,
    types::{BlockIdx, Context, CpuIdx, Migratetype, Order, PageIdx},
};
use core::ops::Range;

/// Most whole blocks that change owner in one steal.
const STEAL_MAX: usize = 8;

/// Where one block has what is wanted, the best of so many is chosen.
const CHOICE: u32 = 64;

/// Times that all blocks are looked at, while other CPUs allocate and free.
const SEARCHES: u32 = 4;

/// Times that a block is followed from set to set.
const CHASES: u32 = 4;

/// Whole blocks on their way from one set to another.
#[derive(Default)]
struct Stolen {
    blocks: [Option<BlockIdx>; STEAL_MAX],
    len: usize,
}

impl Stolen {
    fn push(&mut self, block: BlockIdx) {
        self.blocks[self.len] = Some(block);
        self.len += 1;
    }

    fn iter(&self) -> impl Iterator<Item = BlockIdx> + '_ {
        self.blocks[..self.len].iter().filter_map(|&block| block)
    }
}

impl Economy {
    /// The other CPUs, upwards from `cpu`.
    fn others(&self, cpu: CpuIdx) -> impl Iterator<Item = CpuIdx> {
        let nr_cpus = self.shared_id();
        (1..nr_cpus).map(move |i| CpuIdx((cpu.0 + i) % nr_cpus))
    }

    /// Serves a request, of a block at most, from blocks of other CPUs: whole ones first, which are many
    /// at a time. Task context.
    #[cold]
    pub(super) fn steal(&self, cpu: CpuIdx, order: Order, mt: Migratetype) -> Option<PageIdx> {
        self.steal_whole(cpu, order, mt)
            .or_else(|| self.steal_block(cpu, order, mt))
    }

    /// Takes half of the whole blocks of the first CPU that has any, and serves the request from them.
    fn steal_whole(&self, cpu: CpuIdx, order: Order, mt: Migratetype) -> Option<PageIdx> {
        self.others(cpu).find_map(|victim| {
            if !self.sets[victim.idx()].looks_whole(mt) {
                return None;
            }
            let held = self.seize(cpu, victim);
            // Blocks on their way belong to this CPU's set: nobody may declare it dead meanwhile.
            let _pinned = pin();
            let stolen = held.give_whole(mt, cpu.0);
            drop(held);
            if stolen.len == 0 {
                return None;
            }
            self.count_steal(cpu, stolen.len);
            let own = self.enter_waiting(cpu);
            stolen.iter().for_each(|block| own.adopt(block));
            own.alloc(order, mt)
        })
    }

    fn count_steal(&self, cpu: CpuIdx, nr_blocks: usize) {
        self.stats.inc(cpu, Event::Steal);
        self.stats.add(cpu, Event::StealBlocks, nr_blocks as u64);
    }

    /// Takes one block that has what is wanted, of whichever set, this CPU's and the shared one too: they
    /// are only searched so far before. The search goes on where the last one found something.
    fn steal_block(&self, cpu: CpuIdx, order: Order, mt: Migratetype) -> Option<PageIdx> {
        let middle = self.search_start.load();
        let all = [middle..self.blocks.nr_blocks(), 0..middle];
        for search in 0..SEARCHES {
            // A single page is looked for again: all may have been free one after the other, each where
            // the search was not.
            let mut again = search == 0 && order == Order::ZERO;
            for mut rest in all.clone() {
                while let Some((first, best)) = self.find_block(rest.clone(), order, mt) {
                    let take = |block| self.take_from(cpu, block, order, mt);
                    let other = (best != first).then_some(first);
                    let found = take(best).or_else(|| other.and_then(take));
                    if let Some(page) = found {
                        self.search_start.store(first.0);
                        return Some(page);
                    }
                    // Somebody was quicker.
                    again = true;
                    rest.start = first.0 + 1;
                }
            }
            if !again {
                break;
            }
        }
        None
    }

    /// The first block of a range that has a free chunk of `order`, and the best of some that come next: one
    /// of the same type, that is in no use right now, and that has most free pages. A glance from outside.
    fn find_block(
        &self,
        mut range: Range<u32>,
        order: Order,
        mt: Migratetype,
    ) -> Option<(BlockIdx, BlockIdx)> {
        let blocks = &self.blocks;
        let serves = |block: &BlockIdx| self.may_serve(*block, order, mt);
        let goodness = |&block: &BlockIdx| {
            let same_type = blocks.tag(block).mt == mt;
            (same_type, !is_current(blocks, block), blocks.nr_free(block))
        };
        let first = range.by_ref().map(BlockIdx).find(serves)?;
        let next = range.take(CHOICE as usize - 1).map(BlockIdx).filter(serves);
        let best = next.chain([first]).max_by_key(goodness);
        Some((first, best.unwrap_or(first)))
    }

    /// Whether a block looks as if it had a free chunk of `order` for pages of type `mt`.
    fn may_serve(&self, block: BlockIdx, order: Order, mt: Migratetype) -> bool {
        let tag = self.blocks.tag(block);
        may_hold(tag, mt)
            && match tag.holder {
                Holder::Zone => true,
                Holder::Set(_) => self.blocks.has_free_run(block, order),
                Holder::Given | Holder::Hole => false,
            }
    }

    /// Serves a request from one block, wherever it is, and takes over what is left of it.
    fn take_from(
        &self,
        cpu: CpuIdx,
        block: BlockIdx,
        order: Order,
        mt: Migratetype,
    ) -> Option<PageIdx> {
        for _ in 0..CHASES {
            let set = match self.blocks.tag(block).holder {
                Holder::Set(set) => set,
                Holder::Zone => {
                    // A tag says so a moment before the zone has the block.
                    drop(self.zone.lock());
                    return self.enter_waiting(cpu).alloc(order, mt);
                }
                Holder::Given | Holder::Hole => return None,
            };
            let held = self.hold(cpu, set);
            if !held.owns(block) {
                continue;
            }
            held.take_pending_if_any([block]);
            let page = held.alloc_from(block, order, mt)?;
            // Of frees into a block that is still on its stack only the present owner would hear.
            let is_pending = self.blocks.pending(block).load() != 0;
            if set != cpu.0 && held.owns(block) && !is_pending {
                // As in `steal_whole()`.
                let _pinned = pin();
                held.give(block, cpu.0);
                held.give_up_pending();
                drop(held);
                self.count_steal(cpu, 1);
                self.enter_waiting(cpu).adopt(block);
            }
            return Some(page);
        }
        None
    }

    /// Allocates a run of blocks, more than one, from wherever they are: blocks on sets go to the zone, but
    /// only if all of the run is free. Outside of task context the sets of other CPUs are left alone.
    #[cold]
    pub(super) fn gather(
        &self,
        cpu: CpuIdx,
        nr: Order,
        mt: Migratetype,
        ctx: Context,
    ) -> Option<PageIdx> {
        let runs = (0..self.blocks.nr_blocks())
            .step_by(nr.pages() as usize)
            .map(|first| first..first + nr.pages())
            .filter(|run| run.end <= self.blocks.nr_blocks());
        for _ in 0..SEARCHES {
            let mut again = false;
            for run in runs.clone() {
                if !self.may_gather(cpu, run.clone(), mt, ctx) {
                    continue;
                }
                let there = self.bring_to_zone(cpu, run.clone(), ctx);
                let first = BlockIdx(run.start);
                let page = there.then(|| self.take_blocks(cpu, nr, mt, Some(first)));
                if let Some(page) = page.flatten() {
                    return Some(page);
                }
                // Somebody was quicker.
                again = true;
            }
            if !again {
                break;
            }
        }
        None
    }

    /// Whether all blocks of a run look free and within reach, and as if they could be given out together
    /// for `mt`.
    fn may_gather(&self, cpu: CpuIdx, mut run: Range<u32>, mt: Migratetype, ctx: Context) -> bool {
        let blocks = &self.blocks;
        let in_reach = |holder| match holder {
            Holder::Set(set) => ctx == Context::Task || set == cpu.0 || set == self.shared_id(),
            _ => true,
        };
        let cma = blocks.tag(BlockIdx(run.start)).cma;
        run.all(|block| {
            let tag = blocks.tag(BlockIdx(block));
            tag.cma == cma
                && in_reach(tag.holder)
                && self.may_serve(BlockIdx(block), blocks.order(), mt)
        })
    }

    /// Puts all blocks of a run in the zone, each set that has some of them being entered once for a
    /// stretch. Returns whether they are all there.
    fn bring_to_zone(&self, cpu: CpuIdx, run: Range<u32>, ctx: Context) -> bool {
        run.clone().all(|block| {
            (0..CHASES).any(|_| match self.blocks.tag(BlockIdx(block)).holder {
                Holder::Zone => true,
                Holder::Set(set) => {
                    let stretch = block..run.end.min(block + STRETCH);
                    self.set_to_zone(cpu, set, stretch, ctx)
                        && self.blocks.tag(BlockIdx(block)).holder == Holder::Zone
                }
                Holder::Given | Holder::Hole => false,
            })
        })
    }

    /// Gives what a set has whole of a stretch of blocks back to the zone. False if it cannot be entered.
    fn set_to_zone(&self, cpu: CpuIdx, set: u32, stretch: Range<u32>, ctx: Context) -> bool {
        if ctx == Context::Task {
            self.stats.inc(cpu, Event::TargetedDrain);
            self.hold(cpu, set).give_to_zone(stretch);
        } else if set == self.shared_id() {
            self.enter_shared(cpu).give_to_zone(stretch);
        } else if let Some(own) = self.enter(cpu).filter(|_| set == cpu.0) {
            own.give_to_zone(stretch);
        } else {
            return false;
        }
        true
    }

    /// Gives everything whole of a set back to the zone.
    pub(super) fn flush_set(&self, cpu: CpuIdx, set: u32) {
        // Bounded, whatever others free into the set meanwhile: a stretch more than it can have.
        for _ in 0..self.blocks.nr_blocks() / STRETCH + 2 {
            if !self.hold(cpu, set).flush() {
                break;
            }
        }
    }

    /// Hands every block of a set whose CPU has gone to the shared set.
    pub(super) fn move_to_shared(&self, cpu: CpuIdx, dead: CpuIdx) {
        self.flush_set(cpu, dead.0);
        let nr_blocks = self.blocks.nr_blocks();
        let is_dead = |block| self.blocks.tag(BlockIdx(block)).holder == Holder::Set(dead.0);
        for first in (0..nr_blocks).step_by(STRETCH as usize) {
            let stretch = first..nr_blocks.min(first + STRETCH);
            if stretch.clone().any(is_dead) {
                let held = self.seize(cpu, dead);
                let shared = self.enter_shared(cpu);
                for block in stretch.filter(|&block| is_dead(block)) {
                    held.hand_over(BlockIdx(block), &shared);
                }
            }
        }
        // ORDERING: C1 before C2 of the pending protocol.
        mb();
        // Bounded: no block belongs to that set any more.
        for _ in 0..nr_blocks / STRETCH + 1 {
            let _pinned = pin();
            (self.pending).pass_on(&self.blocks, dead.0, self.stray(cpu));
        }
    }

    /// What to do with a block of the zone that has a remote bit: two CPUs have freed a page at the same
    /// moment, and the second one came when the block was whole. A block that is given out is looked
    /// at when it comes back.
    pub(super) fn stray(&self, cpu: CpuIdx) -> impl Fn(BlockIdx) + Copy + '_ {
        move |block| {
            let _zone = self.zone.lock();
            if self.blocks.tag(block).holder == Holder::Zone {
                let twice = self.blocks.clear_remote(block);
                self.stats.add(cpu, Event::DoubleFree, twice.into());
            }
        }
    }
}

/// Whether pages of type `mt` may lie in a block.
fn may_hold(tag: Tag, mt: Migratetype) -> bool {
    mt == Migratetype::Movable || !tag.cma
}

impl Held<'_> {
    /// Lets half of the whole blocks that may hold pages of type `mt` go; they belong to set `to` then.
    fn give_whole(&self, mt: Migratetype, to: u32) -> Stolen {
        let mut stolen = Stolen::default();
        let share = self.nr_whole().div_ceil(2).min(STEAL_MAX as u32);
        for _ in 0..share {
            let Some(block) = self.pop_whole(mt) else {
                break;
            };
            self.give(block, to);
            stolen.push(block);
        }
        self.give_up_pending();
        stolen
    }

    /// Lets a block go; it belongs to set `to` then. [`Held::give_up_pending`] comes next.
    fn give(&self, block: BlockIdx, to: u32) {
        self.unlist(block);
        self.economy().blocks.set_holder(block, Holder::Set(to));
    }

    /// Hands on what others freed into blocks that have been let go.
    fn give_up_pending(&self) {
        // ORDERING: C1 before C2 of the pending protocol.
        mb();
        self.take_pending();
    }

    /// Takes in a stretch of what is pending, if a block of some is.
    fn take_pending_if_any(&self, blocks: impl IntoIterator<Item = BlockIdx>) {
        let is_pending = |block| self.economy().blocks.pending(block).load() != 0;
        if blocks.into_iter().any(is_pending) {
            self.take_pending();
        }
    }

    /// Takes in a block that was given to this set.
    fn adopt(&self, block: BlockIdx) {
        // An interrupt may have come first: it found the block through a remote free.
        if self.owns(block) && self.is_unlisted(block) {
            self.relist(block);
        }
    }

    /// Gives the blocks of a range that are this set's, and whole, back to the zone.
    fn give_to_zone(&self, range: Range<u32>) {
        self.take_pending_if_any(range.clone().map(BlockIdx));
        let settle = |&block: &BlockIdx| self.owns(block) && self.settle_all(block);
        if range.clone().map(BlockIdx).filter(settle).count() == 0 {
            return;
        }
        let whole = |&block: &BlockIdx| self.owns(block) && self.is_whole(block);
        let mine = range.map(BlockIdx).filter(whole);
        self.put_in_zone(mine.inspect(|&block| self.unlist(block)));
    }

    /// Gives a block to another set that is held.
    fn hand_over(&self, block: BlockIdx, to: &Held<'_>) {
        self.settle_all(block);
        self.unlist(block);
        to.own(block);
        to.relist(block);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    //! States that last for an instant only, made by hand.

    use super::*;
    use crate::mm::{Config, ListPolicy, PageAllocator, Report};

    const MOVABLE: Migratetype = Migratetype::Movable;

    fn zone(blocks: u32) -> Economy {
        Economy::new(&Config {
            policy: ListPolicy::Pcp,
            range_pages: &[blocks << 9],
            block_order: 9,
            nr_cpus: 4,
            online_cpus: 4,
            batch: None,
            high: Some(1024),
            cma_percent: 0,
        })
        .unwrap()
    }

    fn alloc(eco: &Economy, cpu: u32) -> Option<PageIdx> {
        eco.alloc(CpuIdx(cpu), Order::ZERO, MOVABLE, Context::Task)
            .ok()
    }

    fn free(eco: &Economy, cpu: u32, page: PageIdx) {
        eco.free(CpuIdx(cpu), page, Order::ZERO, Context::Task)
            .unwrap();
    }

    /// A freer has said that a block is pending, and not pushed it yet: nobody else will.
    #[test]
    fn a_freer_that_is_stopped_hides_nothing() {
        let eco = zone(2);
        let all: std::vec::Vec<_> = core::iter::from_fn(|| alloc(&eco, 0)).collect();
        for block in 0..2 {
            let page = PageIdx(block << 9);
            assert!(eco.blocks.put_remote_in_word(page, Order::ZERO));
            assert_eq!(eco.blocks.pending(BlockIdx(block)).swap(1), 0);
        }
        for &page in all.iter().filter(|page| page.0 % 512 != 0) {
            free(&eco, 2, page);
        }
        assert_eq!(Report::free_pages(&eco), 1024);
        let run = eco.alloc(CpuIdx(3), Order::new(10), MOVABLE, Context::Task);
        eco.free(CpuIdx(3), run.unwrap(), Order::new(10), Context::Task)
            .unwrap();
        for cpu in 0..4 {
            assert!(alloc(&eco, cpu).is_some(), "CPU {cpu}");
        }
        let rest = core::iter::from_fn(|| alloc(&eco, 0)).count();
        assert_eq!(rest, 1024 - 4);
    }

    /// The second of two frees of a page comes when its block has been given out whole.
    #[test]
    fn a_late_double_free_is_forgotten_before_its_page_is_used() {
        let eco = zone(1);
        let (page, whole) = (PageIdx(7), Order::new(9));
        let block = eco.alloc(CpuIdx(0), whole, MOVABLE, Context::Task).unwrap();
        assert!(eco.blocks.put_remote_in_word(page, Order::ZERO));
        assert_eq!(eco.check(), Ok(()));
        eco.free(CpuIdx(0), block, whole, Context::Task).unwrap();
        assert_eq!(eco.check(), Ok(()));
        let all: std::vec::Vec<_> = core::iter::from_fn(|| alloc(&eco, 0)).collect();
        assert_eq!(all.len(), 512);
        free(&eco, 1, PageIdx(8));
        assert_eq!(alloc(&eco, 0), Some(PageIdx(8)));
        assert_eq!(alloc(&eco, 0), None);
        assert_eq!(eco.stats.total_event(Event::DoubleFree), 1);
        assert_eq!(eco.check(), Ok(()));
    }
}
