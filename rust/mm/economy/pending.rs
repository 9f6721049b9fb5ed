// SPDX-License-Identifier: GPL-2.0

//! How the owner of a block learns of remote frees: a lock-free stack of *blocks* per set.
//!
//! A remote free sets the page's remote bit, then makes the block pending, unless it is: only the
//! first free after an absorption pushes, so one push serves up to a block of frees.
//!
//! ```text
//!   freer                              holder of the set
//!   F1 remote |= bit                   H1 stack -> empty, for each block on it:
//!   F2 if pending: done                H2   pending = 0
//!   F3 pending = 1, push on the        H3   mine: local |= remote, remote = 0
//!      owner's stack                         not mine: pass it on, as in F3
//!   F4 owner changed? pass on the      change of owner:
//!      stack that it was pushed on     C1 owner = new   C2 pass on the old stack
//! ```
//!
//! F1 and F2 are ordered against each other, as are H2 and H3: a freer that skips its push because it
//! saw the block pending set its bit before the flag was cleared, so H3 takes the bit. F3 and F4 are
//! ordered, as are C1 and C2: a push that lands on the stack of a former owner is seen either by C2 or
//! by the freer itself in F4. So no bit is ever left without somebody who will look at it.
//!
//! H1 to H3 are done for a stretch of blocks at a time; the rest of the stack is put back.
//!
//! A block with a bit in flight cannot be whole, since that page is not local; so it cannot leave its
//! owner for the zone meanwhile. Only if two CPUs free a page at the same moment, one of them its owner, the
//! bit of the other one may come too late. Such a *stray* bit is cleared as soon as it is found, under the
//! zone lock, and at the latest before pages of that block are given out again.
//!
//! Sources: the idea of handing whole blocks over is that of free lists
//! per page in mimalloc (Leijen et al. 2019) and of message passing in snmalloc (Liétar et al. 2019).

use super::{
    blocks::{Blocks, Holder, NO_BLOCK},
    STRETCH,
};
use crate::mm::{
    platform::{mb_after_atomic, pin, Array, AtomicU32, CachePadded},
    types::{BlockIdx, Order, PageIdx, Result},
};

/// The pending stacks of all sets.
pub(super) struct Pending(Array<CachePadded<AtomicU32>>);

impl Pending {
    pub(super) fn new(nr_sets: u32) -> Result<Pending> {
        let head = |_| CachePadded(AtomicU32::new(NO_BLOCK));
        Ok(Pending(Array::new(nr_sets as usize, head)?))
    }

    #[inline]
    pub(super) fn is_empty(&self, set: u32) -> bool {
        self.0[set as usize].load() == NO_BLOCK
    }

    /// The first block on the stack of a set, or `NO_BLOCK`.
    pub(super) fn first(&self, set: u32) -> u32 {
        self.0[set as usize].load()
    }

    /// Frees a run into a block of set `owner`. From any context, without a lock. Returns false if a
    /// page of it was free already.
    #[inline]
    #[must_use]
    pub(super) fn free(
        &self,
        blocks: &Blocks,
        block: BlockIdx,
        owner: u32,
        bit: u32,
        order: Order,
        stray: impl Fn(BlockIdx) + Copy,
    ) -> bool {
        let fresh = blocks.put_remote(block, bit, order);
        // ORDERING: F1 before F2.
        mb_after_atomic();
        if blocks.pending(block).load() == 0 {
            self.make_pending(blocks, block, owner, stray);
        }
        fresh
    }

    /// Frees a run of at most a word into a block of set `owner`, as [`Pending::free`] does. Returns false
    /// if a page of it was freed remotely before.
    #[inline(always)]
    #[must_use]
    pub(super) fn free_in_word(
        &self,
        blocks: &Blocks,
        block: BlockIdx,
        owner: u32,
        page: PageIdx,
        order: Order,
        stray: impl Fn(BlockIdx) + Copy,
    ) -> bool {
        if !blocks.put_remote_in_word(page, order) {
            return false;
        }
        // ORDERING: F1 before F2.
        mb_after_atomic();
        if blocks.pending(block).load() == 0 {
            self.make_pending(blocks, block, owner, stray);
        }
        true
    }

    /// Frees pages of word `w` of all words, in a block of set `owner`, as [`Pending::free`] does.
    /// Returns the bits of those that were freed remotely before.
    #[inline]
    #[must_use]
    pub(super) fn free_pages(
        &self,
        blocks: &Blocks,
        owner: u32,
        w: u32,
        mask: u64,
        stray: impl Fn(BlockIdx) + Copy,
    ) -> u64 {
        let twice = blocks.put_remote_pages(w, mask);
        // ORDERING: F1 before F2.
        mb_after_atomic();
        let block = blocks.block_of_word(w);
        if blocks.pending(block).load() == 0 {
            self.make_pending(blocks, block, owner, stray);
        }
        twice
    }

    /// Pushes a block on the stack of `owner`, unless it is pending.
    #[cold]
    #[inline(never)]
    fn make_pending(
        &self,
        blocks: &Blocks,
        block: BlockIdx,
        owner: u32,
        stray: impl Fn(BlockIdx) + Copy,
    ) {
        // Between flag and push the block is on nobody's stack, and whoever frees into it relies on us.
        let _pinned = pin();
        if blocks.pending(block).swap(1) != 0 {
            return;
        }
        self.push(blocks, block, owner);
        // ORDERING: F3 before F4.
        mb_after_atomic();
        if blocks.tag(block).holder != Holder::Set(owner) {
            self.pass_on(blocks, owner, stray);
        }
    }

    fn push(&self, blocks: &Blocks, block: BlockIdx, set: u32) {
        let head = &self.0[set as usize];
        let next = &blocks.pending_next(block);
        let mut first = head.load();
        loop {
            next.store(first);
            match head.cmpxchg(first, block.0) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Takes blocks off the stack of a set, `limit` at most, the one that was pushed last first, and
    /// hands them to `take`, no longer pending. The others stay. The caller is pinned: until it returns
    /// these are in its hands alone.
    pub(super) fn take(
        &self,
        blocks: &Blocks,
        set: u32,
        limit: u32,
        mut take: impl FnMut(BlockIdx),
    ) {
        if self.is_empty(set) {
            return;
        }
        let mut cursor = self.0[set as usize].swap(NO_BLOCK);
        for _ in 0..limit {
            if cursor == NO_BLOCK {
                return;
            }
            let block = BlockIdx(cursor);
            // Once the flag is clear, others may push the block elsewhere.
            cursor = blocks.pending_next(block).load();
            blocks.pending(block).swap(0);
            // ORDERING: H2 before H3.
            mb_after_atomic();
            take(block);
        }
        self.put_back(blocks, set, cursor);
    }

    /// Puts the rest of a stack, from `rest` on, back.
    fn put_back(&self, blocks: &Blocks, set: u32, mut rest: u32) {
        let head = &self.0[set as usize];
        while rest != NO_BLOCK && head.cmpxchg(NO_BLOCK, rest).is_err() {
            let newer = head.swap(NO_BLOCK);
            if newer != NO_BLOCK {
                rest = join(blocks, newer, rest);
            }
        }
    }

    /// Hands on what is on the stack of a set to the current owners, a stretch of it: what was pushed
    /// last comes first. By anyone who is pinned, any time. (A block further down is found by its holder in
    /// time, and at once by who has nothing else: [`steal`](super::steal) looks at the bits.)
    pub(super) fn pass_on(&self, blocks: &Blocks, set: u32, stray: impl Fn(BlockIdx) + Copy) {
        self.take(blocks, set, STRETCH, |block| {
            self.forward(blocks, block, stray)
        });
    }

    /// Hands a block that turned up on the wrong stack to its owner, if it has anything pending; to `stray`
    /// if it has and nobody owns it.
    pub(super) fn forward(
        &self,
        blocks: &Blocks,
        block: BlockIdx,
        stray: impl Fn(BlockIdx) + Copy,
    ) {
        if !blocks.has_remote(block) {
            return;
        }
        match blocks.tag(block).holder {
            Holder::Set(owner) => self.make_pending(blocks, block, owner, stray),
            _ => stray(block),
        }
    }
}

/// Makes one chain of two, neither of which is empty, by hanging the longer one behind the shorter one:
/// somebody else may have put a long rest back. Returns its first block.
fn join(blocks: &Blocks, one: u32, other: u32) -> u32 {
    let next = |block| blocks.pending_next(BlockIdx(block));
    let (mut last, mut last_of_other) = (one, other);
    loop {
        match (next(last).load(), next(last_of_other).load()) {
            (NO_BLOCK, _) => {
                next(last).store(other);
                return one;
            }
            (_, NO_BLOCK) => {
                next(last_of_other).store(one);
                return other;
            }
            (after, after_other) => (last, last_of_other) = (after, after_other),
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    //! Blocks of 64 pages, two sets. What is shown: whoever frees, absorbs and changes the owner, in the
    //! end the owner's stack leads to every page that is free remotely.

    use super::*;
    use crate::mm::{economy::blocks::Tag, platform::mb, types::Migratetype};
    use loom::{sync::Arc, thread};

    const BLOCK: BlockIdx = BlockIdx(0);
    const PAGE: PageIdx = PageIdx(3);
    const OTHER: PageIdx = PageIdx(7);
    /// In the second block.
    const ELSEWHERE: PageIdx = PageIdx(70);

    /// Nobody frees a page twice here.
    fn no_stray(block: BlockIdx) {
        panic!("{block:?} has remote bits, and no owner");
    }

    struct World {
        blocks: Blocks,
        pending: Pending,
    }

    impl World {
        /// The block belongs to set 0, and all its pages are in use.
        fn new() -> Arc<World> {
            World::of_blocks(1)
        }

        /// The same with more blocks.
        fn of_blocks(nr: u32) -> Arc<World> {
            let world = World {
                blocks: Blocks::new(nr, Order::new(6)).unwrap(),
                pending: Pending::new(2).unwrap(),
            };
            for block in (0..nr).map(BlockIdx) {
                let (holder, mt, cma) = (Holder::Set(0), Migratetype::Movable, false);
                world.blocks.set_tag(block, Tag { holder, mt, cma });
            }
            Arc::new(world)
        }

        fn owner(&self) -> u32 {
            self.blocks.set_of(BLOCK).unwrap().0
        }

        /// What a CPU does that frees a page of another CPU's block.
        fn free(&self, page: PageIdx) -> bool {
            self.free_with(page, no_stray)
        }

        fn free_with(&self, page: PageIdx, stray: impl Fn(BlockIdx) + Copy) -> bool {
            let (block, _) = self.blocks.locate(page);
            let owner = self.blocks.set_of(block).map_or(0, |(owner, _)| owner);
            (self.pending).free_in_word(&self.blocks, block, owner, page, Order::ZERO, stray)
        }

        /// What is done, under the zone lock, about a block of the zone that has remote bits.
        fn clear(&self, block: BlockIdx) {
            self.blocks.clear_remote(block);
        }

        /// Takes the remote bits of a block of one word.
        fn take_remote(&self, block: BlockIdx) -> u64 {
            let bits = self.blocks.free_word(block, 0);
            self.blocks.clear_remote(block);
            bits
        }

        /// What the holder of a set does; returns the pages, and how many of them were free before.
        fn absorb(&self, set: u32) -> (u32, u32) {
            self.absorb_some(set, STRETCH)
        }

        fn absorb_some(&self, set: u32, limit: u32) -> (u32, u32) {
            let (mut pages, mut twice) = (0, 0);
            self.pending.take(&self.blocks, set, limit, |block| {
                if self.blocks.set_of(block).unwrap().0 != set {
                    return self.pending.forward(&self.blocks, block, no_stray);
                }
                let found = self.blocks.absorb(block, |_, _| ());
                pages += found.0;
                twice += found.1;
            });
            (pages, twice)
        }

        /// What the holder of set 0 does when set 1 takes the block.
        fn change_owner(&self) {
            self.blocks.set_holder(BLOCK, Holder::Set(1));
            mb();
            self.pending.pass_on(&self.blocks, 0, no_stray);
        }

        /// When all is quiet, the owner finds `expected` pages, some of them perhaps before.
        fn ends_with(&self, before: u32, expected: u32) {
            let (pages, twice) = self.absorb(self.owner());
            let mut blocks = (0..self.blocks.nr_blocks()).map(BlockIdx);
            let left = blocks.any(|block| self.blocks.has_remote(block));
            assert!(!left, "a page is left");
            assert_eq!((before + pages, twice), (expected, 0));
        }
    }

    /// Runs what one CPU does beside what another one does, in every order; then the owner absorbs.
    fn beside(
        one: impl Fn(&World) -> u32 + Send + Sync + Copy + 'static,
        another: impl Fn(&World) -> u32 + Copy + Send + Sync + 'static,
        expected: u32,
    ) {
        loom::model(move || {
            let world = World::new();
            let shared = world.clone();
            let thread = thread::spawn(move || one(&shared));
            let absorbed = another(&world) + thread.join().unwrap();
            world.ends_with(absorbed, expected);
        });
    }

    #[test]
    fn frees_beside_absorption() {
        beside(
            |world| {
                assert!(world.free(PAGE));
                assert!(world.free(OTHER));
                0
            },
            |world| world.absorb(0).0 + world.absorb(0).0,
            2,
        );
    }

    #[test]
    fn frees_by_two_cpus() {
        beside(
            |world| {
                assert!(world.free(PAGE));
                0
            },
            |world| {
                assert!(world.free(OTHER));
                0
            },
            2,
        );
    }

    #[test]
    fn a_free_beside_a_change_of_owner() {
        beside(
            |world| {
                assert!(world.free(PAGE));
                0
            },
            |world| {
                world.change_owner();
                0
            },
            1,
        );
    }

    #[test]
    fn a_free_beside_a_thief_that_absorbs() {
        beside(
            |world| {
                assert!(world.free(PAGE));
                0
            },
            |world| {
                world.change_owner();
                world.absorb(1).0
            },
            1,
        );
    }

    #[test]
    fn of_two_cpus_that_free_a_page_one_is_told() {
        loom::model(|| {
            let world = World::new();
            let other = world.clone();
            let thread = thread::spawn(move || other.free(PAGE));
            let first = world.free(PAGE);
            assert_ne!(thread.join().unwrap(), first);
            world.ends_with(0, 1);
        });
    }

    #[test]
    fn of_two_cpus_that_free_a_whole_block_one_is_told() {
        loom::model(|| {
            let world = World::new();
            world.blocks.set_holder(BLOCK, Holder::Given);
            let other = world.clone();
            let thread = thread::spawn(move || other.blocks.take_back(BLOCK, Holder::Set(0)));
            let first = world.blocks.take_back(BLOCK, Holder::Set(1));
            assert_ne!(thread.join().unwrap(), first);
        });
    }

    /// A world of two blocks of set 0, both with something pending.
    fn two_pending() -> Arc<World> {
        let world = World::of_blocks(2);
        for page in [PAGE, ELSEWHERE] {
            assert!(world.free(page));
        }
        world
    }

    /// The holder of set 0 takes one of two blocks, while that one is freed into.
    fn by_stretches(take_one: impl Fn(&World) -> u32 + Copy + Send + Sync + 'static) {
        loom::model(move || {
            let world = two_pending();
            let shared = world.clone();
            let page = ELSEWHERE.offset(1);
            let freer = thread::spawn(move || assert!(shared.free(page)));
            let absorbed = take_one(&world);
            freer.join().unwrap();
            world.ends_with(absorbed, 3);
        });
    }

    #[test]
    fn what_a_stretch_leaves_is_still_pending() {
        by_stretches(|world| world.absorb_some(0, 1).0);
    }

    #[test]
    #[should_panic(expected = "a page is left")]
    fn broken_if_the_rest_of_a_stack_is_put_over_what_came_meanwhile() {
        by_stretches(|world| {
            let first = BlockIdx(world.pending.0[0].swap(NO_BLOCK));
            let rest = world.blocks.pending_next(first).load();
            world.blocks.pending(first).swap(0);
            mb_after_atomic();
            let absorbed = world.blocks.absorb(first, |_, _| ()).0;
            world.pending.0[0].swap(rest);
            absorbed
        });
    }

    /// Who looks for a free page from outside, beside an absorption of it.
    fn looked_at(absorb: impl Fn(&World) + Copy + Send + Sync + 'static) {
        loom::model(move || {
            let world = World::new();
            assert!(world.free(PAGE));
            let shared = world.clone();
            let owner = thread::spawn(move || absorb(&shared));
            assert_ne!(world.blocks.free_word(BLOCK, 0), 0, "hidden");
            owner.join().unwrap();
        });
    }

    #[test]
    fn a_free_page_is_seen_at_every_moment() {
        looked_at(|world| {
            world.absorb(0);
        });
    }

    #[test]
    #[should_panic(expected = "hidden")]
    fn broken_if_the_remote_bit_goes_before_the_local_one_comes() {
        looked_at(|world| {
            assert!(world.blocks.put_pages(0, world.take_remote(BLOCK)).1 == 0);
        });
    }

    /// A page is freed by its owner, which makes the block whole and gives it to the zone, and by another
    /// CPU at the same moment.
    fn freed_by_two(give_to_zone: impl Fn(&World) + Copy + Send + Sync + 'static) {
        loom::model(move || {
            let world = World::new();
            let others = !(1 << PAGE.0);
            assert_eq!(world.blocks.put_pages(0, others), (63, 0));
            let shared = world.clone();
            let other = thread::spawn(move || {
                if !shared.blocks.any_local_in_word(PAGE, Order::ZERO) {
                    shared.free_with(PAGE, |block| shared.clear(block));
                }
            });
            assert!(world.blocks.put_in_word(PAGE, Order::ZERO));
            give_to_zone(&world);
            other.join().unwrap();
            assert!(!world.blocks.has_remote(BLOCK), "a page is left");
        });
    }

    #[test]
    fn nothing_is_left_of_a_double_free() {
        freed_by_two(|world| {
            world.blocks.set_holder(BLOCK, Holder::Zone);
            mb();
            (world.pending).pass_on(&world.blocks, 0, |block| world.clear(block));
        });
    }

    #[test]
    #[should_panic(expected = "a page is left")]
    fn broken_if_nobody_looks_when_a_block_has_gone() {
        freed_by_two(|world| world.blocks.set_holder(BLOCK, Holder::Zone));
    }

    /// A run is freed by one CPU, and a page of it by another one at the same moment.
    fn freed_in_part(
        put_run: impl Fn(&World, PageIdx, Order) -> bool + Copy + Send + Sync + 'static,
    ) {
        loom::model(move || {
            let world = World::new();
            let (run, part) = (Order::new(2), PageIdx(3));
            let shared = world.clone();
            let other = thread::spawn(move || shared.blocks.put_remote_in_word(part, Order::ZERO));
            let run_freed = put_run(&world, PageIdx(0), run);
            assert_ne!(other.join().unwrap(), run_freed);
            let expected = if run_freed { 0b1111 } else { 0b1000 };
            assert_eq!(world.blocks.free_word(BLOCK, 0), expected, "a part is free");
        });
    }

    #[test]
    fn a_run_is_freed_whole_or_not_at_all() {
        freed_in_part(|world, page, order| world.blocks.put_remote_in_word(page, order));
    }

    #[test]
    #[should_panic(expected = "a part is free")]
    fn broken_if_bits_are_set_before_they_are_looked_at() {
        freed_in_part(|world, _page, _order| world.blocks.put_remote_pages(0, 0b1111) == 0);
    }

    #[test]
    #[should_panic(expected = "a page is left")]
    fn broken_if_pending_is_cleared_after_absorption() {
        fn absorb(world: &World) -> u32 {
            let mut pages = 0;
            let mut cursor = world.pending.0[0].swap(NO_BLOCK);
            while cursor != NO_BLOCK {
                let block = BlockIdx(cursor);
                cursor = world.blocks.pending_next(block).load();
                pages += world.blocks.absorb(block, |_, _| ()).0;
                world.blocks.pending(block).swap(0);
            }
            pages
        }
        beside(
            |world| {
                world.free(PAGE);
                world.free(OTHER);
                0
            },
            absorb,
            2,
        );
    }

    #[test]
    #[should_panic(expected = "a page is left")]
    fn broken_if_the_freer_asks_before_it_frees() {
        loom::model(|| {
            let world = World::new();
            assert!(world.free(OTHER));
            let shared = world.clone();
            let freer = thread::spawn(move || {
                let pending = shared.blocks.pending(BLOCK).load();
                assert!(shared.blocks.put_remote_in_word(PAGE, Order::ZERO));
                if pending == 0 {
                    (shared.pending).make_pending(&shared.blocks, BLOCK, 0, no_stray);
                }
            });
            let absorbed = world.absorb(0).0;
            freer.join().unwrap();
            world.ends_with(absorbed, 2);
        });
    }

    #[test]
    #[should_panic(expected = "a page is left")]
    fn broken_without_a_second_look_at_the_owner() {
        fn free(world: &World) {
            let owner = world.owner();
            assert!(world.blocks.put_remote_in_word(PAGE, Order::ZERO));
            mb_after_atomic();
            if world.blocks.pending(BLOCK).swap(1) == 0 {
                world.pending.push(&world.blocks, BLOCK, owner);
            }
        }
        beside(
            |world| {
                free(world);
                0
            },
            |world| {
                world.change_owner();
                0
            },
            1,
        );
    }

    #[test]
    #[should_panic(expected = "a page is left")]
    fn broken_if_the_old_stack_is_not_passed_on() {
        beside(
            |world| {
                world.free(PAGE);
                0
            },
            |world| {
                world.blocks.set_holder(BLOCK, Holder::Set(1));
                0
            },
            1,
        );
    }
}
