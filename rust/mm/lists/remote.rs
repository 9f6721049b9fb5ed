// SPDX-License-Identifier: GPL-2.0

//! What other CPUs may touch of a set without its lock: the dead flag, and under `split` the list of
//! remote frees.
//!
//! The list is a stack linked through the page links: anyone pushes, and whoever holds the set's
//! lock takes the whole of it at once, so there is no ABA. Idea: the per-CPU `free_llist` of "split-path
//! PCP free", RFC of 2026-05-20. Pages on it are in no count, as there.
//!
//! # No page is lost on a dead CPU
//!
//! The RFC leaves a window: a push that lands after the dead CPU's list was emptied stays there until
//! the CPU returns. Here the pusher looks at the flag again *after* its push, and empties the list
//! itself if it is set. Offlining sets the flag *before* it empties the list. Push and flag are
//! ordered against each other on both sides, so at least one of the two sees the other's write.

use super::page_map::{PageMap, State};
use crate::mm::{
    platform::{mb_after_atomic, AtomicU32},
    types::{Order, PageIdx, NO_PAGE},
};

/// The lock-free side of a set.
pub(super) struct Remote {
    head: AtomicU32,
    dead: AtomicU32,
}

/// Chunks that the caller has taken out of use, linked to be pushed together: a batch free costs one
/// atomic operation for all pages of a CPU in a row.
pub(super) struct Chain {
    first: PageIdx,
    last: PageIdx,
}

impl Chain {
    /// A single chunk.
    #[inline]
    pub(super) fn of(map: &PageMap, page: PageIdx, order: Order) -> Chain {
        map.set_state(page, State::Remote(order));
        Chain {
            first: page,
            last: page,
        }
    }

    /// Adds a chunk in front.
    #[inline]
    pub(super) fn add(&mut self, map: &PageMap, page: PageIdx, order: Order) {
        map.set_state(page, State::Remote(order));
        map.links(page.0).next.store(self.first.0);
        self.first = page;
    }
}

impl Remote {
    pub(super) fn new() -> Remote {
        Remote {
            head: AtomicU32::new(NO_PAGE),
            dead: AtomicU32::new(0),
        }
    }

    /// Whether the CPU is offline: nothing may be left on its set or list.
    #[inline]
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load() != 0
    }

    /// Sets or clears the dead flag; ordered before what follows.
    pub(super) fn set_dead(&self, dead: bool) {
        self.dead.swap(dead.into());
        mb_after_atomic();
    }

    /// Whether there is something to take in.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.head.load() == NO_PAGE
    }

    /// Pushes chunks, all at once. From any context. Returns whether the CPU is dead by now, in which
    /// case the caller must empty the list.
    #[inline]
    #[must_use]
    pub(super) fn push(&self, map: &PageMap, chain: Chain) -> bool {
        let next = &map.links(chain.last.0).next;
        let mut head = self.head.load();
        loop {
            next.store(head);
            // ORDERING: publishes states and links of the pages to `take_all()`.
            match self.head.cmpxchg(head, chain.first.0) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        mb_after_atomic();
        self.is_dead()
    }

    /// Takes all chunks and hands them to `take` one by one, as inner pages.
    pub(super) fn take_all(&self, map: &PageMap, mut take: impl FnMut(PageIdx, Order)) {
        if self.is_empty() {
            return;
        }
        // ORDERING: sees what the pushers wrote before their `push()`.
        let mut cursor = self.head.swap(NO_PAGE);
        while cursor != NO_PAGE {
            let page = PageIdx(cursor);
            cursor = map.links(cursor).next.load();
            if let State::Remote(order) = map.state(page) {
                map.set_state(page, State::Inner);
                take(page, order);
            } else {
                debug_assert!(false, "{page:?} is on a remote list and not marked so");
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    //! The list of one CPU. What is shown: every page that is pushed is taken once, by whom ever, and none
    //! stays on the list of a dead CPU.

    use super::*;
    use loom::{sync::Arc, thread};

    struct World {
        map: PageMap,
        remote: Remote,
    }

    impl World {
        fn new() -> Arc<World> {
            Arc::new(World {
                map: PageMap::new(4).unwrap(),
                remote: Remote::new(),
            })
        }

        fn chain(&self, page: u32) -> Chain {
            Chain::of(&self.map, PageIdx(page), Order::ZERO)
        }

        /// What a CPU does that frees a page of another CPU's block; returns the pages it had to take.
        fn free(&self, page: u32) -> u32 {
            match self.remote.push(&self.map, self.chain(page)) {
                true => self.take(),
                false => 0,
            }
        }

        /// Takes what is on the list: a bit for each page.
        fn take(&self) -> u32 {
            let mut taken = 0;
            self.remote.take_all(&self.map, |page, _| {
                assert_eq!(taken & (1 << page.0), 0, "{page:?} is taken twice");
                taken |= 1 << page.0;
            });
            taken
        }

        fn go_offline(&self) -> u32 {
            self.remote.set_dead(true);
            self.take()
        }
    }

    /// Runs what one CPU does beside what another one does, in every order. Each returns the pages it took;
    /// then pages 1 to `nr` have been taken, except for those on the list of a CPU that is alive.
    fn beside(
        one: impl Fn(&World) -> u32 + Send + Sync + Copy + 'static,
        another: impl Fn(&World) -> u32 + Send + Sync + Copy + 'static,
        nr: u32,
    ) {
        loom::model(move || {
            let world = World::new();
            let shared = world.clone();
            let thread = thread::spawn(move || one(&shared));
            let mine = another(&world);
            let theirs = thread.join().unwrap();
            assert_eq!(mine & theirs, 0, "a page is taken twice");
            if world.remote.is_dead() {
                assert!(world.remote.is_empty(), "a page is stranded");
            }
            let rest = world.take();
            assert_eq!(mine | theirs | rest, (2 << nr) - 2, "a page is lost");
        });
    }

    #[test]
    fn pushes_beside_pushes() {
        beside(
            |world| world.free(1),
            |world| world.free(2) | world.free(3),
            3,
        );
    }

    #[test]
    fn pushes_beside_absorption() {
        beside(
            |world| world.free(1) | world.free(2),
            |world| world.take() | world.take(),
            2,
        );
    }

    #[test]
    fn a_push_beside_a_cpu_that_dies() {
        beside(|world| world.free(1), World::go_offline, 1);
    }

    #[test]
    fn a_chain_beside_a_cpu_that_dies() {
        beside(
            |world| {
                let mut chain = world.chain(1);
                chain.add(&world.map, PageIdx(2), Order::ZERO);
                match world.remote.push(&world.map, chain) {
                    true => world.take(),
                    false => 0,
                }
            },
            World::go_offline,
            2,
        );
    }

    #[test]
    #[should_panic(expected = "a page is stranded")]
    fn broken_if_the_pusher_looks_first() {
        beside(
            |world| {
                let dead = world.remote.is_dead();
                let _ = world.remote.push(&world.map, world.chain(1));
                match dead {
                    true => world.take(),
                    false => 0,
                }
            },
            World::go_offline,
            1,
        );
    }

    #[test]
    #[should_panic(expected = "a page is stranded")]
    fn broken_if_the_list_is_emptied_before_the_flag_is_set() {
        beside(
            |world| world.free(1),
            |world| {
                let taken = world.take();
                world.remote.set_dead(true);
                taken
            },
            1,
        );
    }

    #[test]
    #[should_panic(expected = "a page is lost")]
    fn broken_if_the_list_is_not_taken_at_once() {
        beside(
            |world| world.free(1) | world.free(2),
            |world| {
                let mut taken = 0;
                let mut cursor = world.remote.head.load_acquire();
                world.remote.head.store(NO_PAGE);
                while cursor != NO_PAGE {
                    taken |= 1 << cursor;
                    cursor = world.map.links(cursor).next.load();
                }
                taken
            },
            2,
        );
    }
}
