// SPDX-License-Identifier: GPL-2.0

//! Free lists by order and migratetype: the zone has one such area, every per-CPU set another.
//!
//! Lists are linked by page index through the [`PageMap`]; insertion and removal are O(1). An area
//! is data under the lock of its place. Everything that puts a chunk on a list or takes it off goes
//! through [`FreeArea::insert`] and [`FreeArea::remove`], which keep state words and counts true.

use super::page_map::{Mergeable, PageMap, State};
use crate::mm::{
    types::{
        Migratetype,
        Order,
        PageIdx,
        MAX_ORDER, //
        NO_PAGE,
        NR_MIGRATETYPES,
    },
    FreeChunks,
};

/// Orders that have lists.
const NR_LIST_ORDERS: usize = MAX_ORDER as usize + 1;

/// Which end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Next to be allocated.
    Head,
    /// Last to be allocated.
    Tail,
}

/// Whose lists these are; decides the state of chunks on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Zone,
    Pcp,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    len: u32,
}

const EMPTY: List = List {
    head: NO_PAGE,
    tail: NO_PAGE,
    len: 0,
};

/// Free lists of one place, with the number of pages on them.
pub(super) struct FreeArea {
    place: Owner,
    lists: [[List; NR_LIST_ORDERS]; NR_MIGRATETYPES],
    /// Per migratetype, bit `o` is set when the list of order `o` has an entry.
    filled: [u16; NR_MIGRATETYPES],
    /// Pages per migratetype of list.
    pages: [u32; NR_MIGRATETYPES],
}

impl FreeArea {
    pub(super) fn new(place: Owner) -> FreeArea {
        FreeArea {
            place,
            lists: [[EMPTY; NR_LIST_ORDERS]; NR_MIGRATETYPES],
            filled: [0; NR_MIGRATETYPES],
            pages: [0; NR_MIGRATETYPES],
        }
    }

    /// Pages on all lists.
    #[inline]
    pub(super) fn nr_pages(&self) -> u32 {
        self.pages.iter().sum()
    }

    /// Pages on the lists of one migratetype.
    pub(super) fn nr_pages_of(&self, mt: Migratetype) -> u32 {
        self.pages[mt.idx()]
    }

    /// Chunks on one list.
    pub(super) fn len(&self, order: Order, mt: Migratetype) -> u32 {
        self.lists[mt.idx()][order.idx()].len
    }

    /// The smallest order, at least `order`, that has a chunk of type `mt`.
    #[inline]
    pub(super) fn smallest(&self, order: Order, mt: Migratetype) -> Option<Order> {
        let filled = self.filled[mt.idx()] >> order.get();
        // CAST: fewer than 16 bits.
        (filled != 0).then(|| Order::new(order.get() + filled.trailing_zeros() as u8))
    }

    /// The chunk at one end of a list.
    #[inline]
    pub(super) fn peek(&self, order: Order, mt: Migratetype, end: End) -> Option<PageIdx> {
        let list = &self.lists[mt.idx()][order.idx()];
        let page = match end {
            End::Head => list.head,
            End::Tail => list.tail,
        };
        (page != NO_PAGE).then_some(PageIdx(page))
    }

    /// The chunk behind `page` on its list, towards the tail.
    #[inline]
    pub(super) fn next(&self, map: &PageMap, page: PageIdx) -> Option<PageIdx> {
        let next = map.links(page.0).next.load();
        (next != NO_PAGE).then_some(PageIdx(next))
    }

    /// Puts a chunk on the list of `order` and `mt`. `mergeable` matters on per-CPU sets only.
    #[inline]
    pub(super) fn insert(
        &mut self,
        map: &PageMap,
        page: PageIdx,
        order: Order,
        mt: Migratetype,
        mergeable: Mergeable,
        end: End,
    ) {
        debug_assert!(page.is_aligned(order));
        map.set_state(
            page,
            match self.place {
                Owner::Zone => State::Zone(order, mt),
                Owner::Pcp => State::Pcp(order, mt, mergeable),
            },
        );
        let list = &mut self.lists[mt.idx()][order.idx()];
        let links = map.links(page.0);
        match end {
            End::Head => {
                links.prev.store(NO_PAGE);
                links.next.store(list.head);
                match list.head {
                    NO_PAGE => list.tail = page.0,
                    head => map.links(head).prev.store(page.0),
                }
                list.head = page.0;
            }
            End::Tail => {
                links.next.store(NO_PAGE);
                links.prev.store(list.tail);
                match list.tail {
                    NO_PAGE => list.head = page.0,
                    tail => map.links(tail).next.store(page.0),
                }
                list.tail = page.0;
            }
        }
        list.len += 1;
        self.filled[mt.idx()] |= 1 << order.get();
        self.pages[mt.idx()] += order.pages();
    }

    /// Takes a chunk off its list; its head becomes an inner page. The chunk is on the list of
    /// `order` and `mt` of this area.
    #[inline]
    pub(super) fn remove(&mut self, map: &PageMap, page: PageIdx, order: Order, mt: Migratetype) {
        debug_assert!(match map.state(page) {
            State::Zone(o, t) => self.place == Owner::Zone && (o, t) == (order, mt),
            State::Pcp(o, t, _) => self.place == Owner::Pcp && (o, t) == (order, mt),
            _ => false,
        });
        map.set_state(page, State::Inner);
        let list = &mut self.lists[mt.idx()][order.idx()];
        let links = map.links(page.0);
        let (prev, next) = (links.prev.load(), links.next.load());
        match prev {
            NO_PAGE => list.head = next,
            prev => map.links(prev).next.store(next),
        }
        match next {
            NO_PAGE => list.tail = prev,
            next => map.links(next).prev.store(prev),
        }
        list.len -= 1;
        if list.len == 0 {
            self.filled[mt.idx()] &= !(1 << order.get());
        }
        self.pages[mt.idx()] -= order.pages();
    }

    /// Number of chunks per list.
    pub(super) fn chunks(&self) -> FreeChunks {
        let mut chunks = FreeChunks::default();
        for (row, lists) in chunks.iter_mut().zip(&self.lists) {
            for (chunks, list) in row.iter_mut().zip(lists) {
                *chunks = list.len.into();
            }
        }
        chunks
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_free_area))]
mod tests {
    use super::*;

    const MT: Migratetype = Migratetype::Movable;

    /// Takes everything off a list; the pages in the order in which they came.
    fn drain_from<'a>(
        area: &'a mut FreeArea,
        map: &'a PageMap,
        order: Order,
        end: End,
    ) -> impl Iterator<Item = u32> + 'a {
        core::iter::from_fn(move || {
            let page = area.peek(order, MT, end)?;
            area.remove(map, page, order, MT);
            Some(page.0)
        })
    }

    #[test]
    fn ends_work() {
        let map = PageMap::new(64).unwrap();
        let mut area = FreeArea::new(Owner::Zone);
        let order = Order::new(1);
        for page in [0, 2, 4] {
            area.insert(&map, PageIdx(page), order, MT, Mergeable::No, End::Tail);
        }
        area.insert(&map, PageIdx(6), order, MT, Mergeable::No, End::Head);
        assert_eq!(area.nr_pages(), 8);
        assert_eq!(area.smallest(Order::ZERO, MT), Some(order));
        assert_eq!(area.smallest(order.above(), MT), None);
        assert!(drain_from(&mut area, &map, order, End::Head).eq([6, 0, 2, 4]));
        assert_eq!(area.nr_pages(), 0);
        assert_eq!(area.smallest(Order::ZERO, MT), None);
    }

    #[test]
    fn removing_from_the_middle_keeps_both_ends() {
        let map = PageMap::new(64).unwrap();
        let mut area = FreeArea::new(Owner::Pcp);
        for page in 0..5 {
            area.insert(
                &map,
                PageIdx(page),
                Order::ZERO,
                MT,
                Mergeable::Yes,
                End::Tail,
            );
        }
        for page in [2, 0, 4] {
            area.remove(&map, PageIdx(page), Order::ZERO, MT);
            assert_eq!(map.state(PageIdx(page)), State::Inner);
        }
        assert!(drain_from(&mut area, &map, Order::ZERO, End::Tail).eq([3, 1]));
    }
}
