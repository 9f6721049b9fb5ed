// SPDX-License-Identifier: GPL-2.0

//! What is known of every page: one state word and two list links, 12 bytes.
//!
//! A page is the *head* of the chunk that it starts, or *inner*. Only heads carry a state:
//!
//! | kind      | on a list        | state and links are written by            |
//! |-----------|------------------|-------------------------------------------|
//! | Inner     | no               | whoever owns the chunk around it          |
//! | Allocated | no               | the allocating call, then the freeing one |
//! | Zone      | zone free list   | the holder of the zone lock               |
//! | Pcp       | a set's list     | the holder of that set's lock             |
//! | Remote    | a remote list    | the freer that pushes it; then the set    |
//!
//! The words are read across lock domains (is my buddy free on my own set?), so all are atomic; a
//! reader that does not hold the lock in question may only act on a state that nobody but itself
//! can change. No memory ordering is needed: whoever changes a chunk's place does so under the lock
//! of that place.

use crate::mm::{
    platform::{Array, AtomicU32},
    types::{Migratetype, Order, PageIdx, Result, NO_PAGE},
};

/// State of the page that heads a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not the head of a chunk.
    Inner,
    /// In use; the type is the one asked for.
    Allocated(Order, Migratetype),
    /// On the zone list of its order and type.
    Zone(Order, Migratetype),
    /// On the list of a per-CPU set.
    Pcp(Order, Migratetype, Mergeable),
    /// On the remote list of the CPU that owns its block, not taken in yet.
    Remote(Order),
}

/// Whether a chunk on a per-CPU set may merge there: it belongs to a block that this CPU owns and
/// is on its home set (the role of `PagePCPBuddy` in the RFC).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mergeable {
    /// Cached for batching only.
    No,
    /// At home.
    Yes,
}

const KIND_INNER: u32 = 0;
const KIND_ALLOCATED: u32 = 1;
const KIND_ZONE: u32 = 2;
const KIND_PCP: u32 = 3;
const KIND_REMOTE: u32 = 4;

const KIND_MASK: u32 = 7;
const TYPE_SHIFT: u32 = 3;
const ORDER_SHIFT: u32 = 5;
const MERGEABLE: u32 = 1 << 9;

const fn pack(kind: u32, order: Order, mt: Migratetype) -> u32 {
    kind | ((mt as u32) << TYPE_SHIFT) | ((order.get() as u32) << ORDER_SHIFT)
}

impl State {
    #[inline]
    fn to_bits(self) -> u32 {
        match self {
            State::Inner => KIND_INNER,
            State::Allocated(order, mt) => pack(KIND_ALLOCATED, order, mt),
            State::Zone(order, mt) => pack(KIND_ZONE, order, mt),
            State::Pcp(order, mt, Mergeable::No) => pack(KIND_PCP, order, mt),
            State::Pcp(order, mt, Mergeable::Yes) => pack(KIND_PCP, order, mt) | MERGEABLE,
            State::Remote(order) => pack(KIND_REMOTE, order, Migratetype::Unmovable),
        }
    }

    #[inline]
    fn from_bits(bits: u32) -> State {
        let order = Order::new(((bits >> ORDER_SHIFT) & 0xf) as u8);
        let mt = Migratetype::from_bits(bits >> TYPE_SHIFT);
        match bits & KIND_MASK {
            KIND_ALLOCATED => State::Allocated(order, mt),
            KIND_ZONE => State::Zone(order, mt),
            KIND_PCP if bits & MERGEABLE != 0 => State::Pcp(order, mt, Mergeable::Yes),
            KIND_PCP => State::Pcp(order, mt, Mergeable::No),
            KIND_REMOTE => State::Remote(order),
            _ => State::Inner,
        }
    }
}

/// Links of a page on a free list; meaningful while it is on one.
pub(super) struct Links {
    pub(super) next: AtomicU32,
    pub(super) prev: AtomicU32,
}

struct PageMeta {
    state: AtomicU32,
    links: Links,
}

/// The metadata of all pages of a zone, by [`PageIdx`].
pub(super) struct PageMap(Array<PageMeta>);

#[cfg(not(loom))]
const _: () = assert!(size_of::<PageMeta>() == 12);

impl PageMap {
    /// A map of `nr_pages` pages, all inner.
    pub(super) fn new(nr_pages: u32) -> Result<PageMap> {
        let meta = |_| PageMeta {
            state: AtomicU32::new(State::Inner.to_bits()),
            links: Links {
                next: AtomicU32::new(NO_PAGE),
                prev: AtomicU32::new(NO_PAGE),
            },
        };
        Ok(PageMap(Array::new(nr_pages as usize, meta)?))
    }

    /// Number of pages, holes included.
    pub(super) fn nr_pages(&self) -> u32 {
        // CAST: `new` was given a `u32`.
        self.0.len() as u32
    }

    /// Bytes that the map takes.
    pub(super) fn bytes(&self) -> u64 {
        (self.0.len() * size_of::<PageMeta>()) as u64
    }

    #[inline]
    pub(super) fn state(&self, page: PageIdx) -> State {
        State::from_bits(self.0[page.idx()].state.load())
    }

    #[inline]
    pub(super) fn set_state(&self, page: PageIdx, state: State) {
        self.0[page.idx()].state.store(state.to_bits());
    }

    #[inline]
    pub(super) fn links(&self, page: u32) -> &Links {
        &self.0[page as usize].links
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_page_map))]
mod tests {
    use super::*;

    #[test]
    fn states_survive_packing() {
        for order in Order::ZERO.upto(Order::new(crate::mm::types::MAX_ORDER)) {
            for mt in Migratetype::ALL {
                for state in [
                    State::Inner,
                    State::Allocated(order, mt),
                    State::Zone(order, mt),
                    State::Pcp(order, mt, Mergeable::No),
                    State::Pcp(order, mt, Mergeable::Yes),
                    State::Remote(order),
                ] {
                    assert_eq!(State::from_bits(state.to_bits()), state);
                }
            }
        }
    }
}
