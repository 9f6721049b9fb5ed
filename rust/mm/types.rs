// SPDX-License-Identifier: GPL-2.0

//! The vocabulary: page and block indexes, orders, migratetypes, contexts, errors.
//!
//! Index, count and size are different types or carry their unit in the name; the only arithmetic
//! between them lives here.

use core::fmt;

/// Largest order that a list-based zone buddy holds: mainline's default `MAX_PAGE_ORDER`.
pub const MAX_ORDER: u8 = 10;

/// Largest order that any policy serves: 1 GiB with 4 KiB pages.
pub const TOP_ORDER: u8 = 18;

/// Number of orders, `0..=TOP_ORDER`.
pub const NR_ORDERS: usize = TOP_ORDER as usize + 1;

/// Smallest and largest pageblock order that a zone may have.
pub const BLOCK_ORDERS: core::ops::RangeInclusive<u8> = 6..=MAX_ORDER;

/// Pageblock order of a zone that asks for none: 2 MiB with 4 KiB pages.
pub const DEFAULT_BLOCK_ORDER: u8 = 9;

/// Marks "no page" in links. No zone reaches this index.
pub const NO_PAGE: u32 = u32::MAX;

/// Allocation order: a chunk of `2^order` pages, aligned to its size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order(u8);

impl Order {
    /// A single page.
    pub const ZERO: Order = Order(0);

    /// Wraps an order. Whether a zone serves it is the zone's to say.
    pub const fn new(order: u8) -> Order {
        Order(order)
    }

    /// The number itself.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The order as an array index.
    pub const fn idx(self) -> usize {
        self.0 as usize
    }

    /// Pages in a chunk of this order.
    pub const fn pages(self) -> u32 {
        1 << self.0
    }

    /// The next larger order.
    pub const fn above(self) -> Order {
        Order(self.0 + 1)
    }

    /// The next smaller order; the caller knows that this one is not 0.
    pub const fn below(self) -> Order {
        Order(self.0 - 1)
    }

    /// The smallest order whose chunks have at least `nr` pages, `1..=2^31`.
    pub const fn fitting(nr: u32) -> Order {
        // CAST: at most 31.
        Order(nr.next_power_of_two().trailing_zeros() as u8)
    }

    /// Orders from `self` to `last`, both included, ascending.
    pub fn upto(self, last: Order) -> impl DoubleEndedIterator<Item = Order> {
        (self.0..=last.0).map(Order)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "O{}", self.0)
    }
}

/// Index of a page in its zone. All ranges of a zone share one index space; the start of each
/// range is aligned to `2^MAX_ORDER` pages in it, so buddies are found by index alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageIdx(pub u32);

impl PageIdx {
    /// The index as an array index.
    pub const fn idx(self) -> usize {
        self.0 as usize
    }

    /// The page `pages` further on.
    pub const fn offset(self, pages: u32) -> PageIdx {
        PageIdx(self.0 + pages)
    }

    /// The other half of the chunk of the next order (mainline: `__find_buddy_pfn()`).
    pub const fn buddy(self, order: Order) -> PageIdx {
        PageIdx(self.0 ^ order.pages())
    }

    /// First page of the chunk of `order` that contains this page.
    pub const fn align_down(self, order: Order) -> PageIdx {
        PageIdx(self.0 & !(order.pages() - 1))
    }

    /// Order of the largest aligned chunk that starts here and has at most `nr` pages, of at most
    /// order `max`. `nr` is not 0.
    pub fn largest_chunk(self, nr: u32, max: Order) -> Order {
        // CAST: both are at most 32.
        let order = self.0.trailing_zeros().min((nr | 1).ilog2()) as u8;
        Order(order.min(max.0))
    }

    /// Whether a chunk of `order` may start here.
    pub const fn is_aligned(self, order: Order) -> bool {
        self.0 & (order.pages() - 1) == 0
    }
}

impl fmt::Display for PageIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PageIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}", self.0)
    }
}

/// Index of a pageblock in its zone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockIdx(pub u32);

impl BlockIdx {
    /// The index as an array index.
    pub const fn idx(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for BlockIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "B{}", self.0)
    }
}

/// Index of a CPU, `0..nr_cpus` of the zone: the kernel's CPU number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuIdx(pub u32);

impl CpuIdx {
    /// The CPU number as an array index.
    pub const fn idx(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for CpuIdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "C{}", self.0)
    }
}

/// How hard the content of a page is to move (mainline: `enum migratetype`). `Cma` is a type of
/// pageblocks only: it is never requested, movable requests may be served from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Migratetype {
    /// Kernel memory that stays where it is.
    Unmovable = 0,
    /// User memory and page cache.
    Movable = 1,
    /// Kernel memory that can be given up, not moved.
    Reclaimable = 2,
    /// Block reserved for contiguous allocation, lent to movable requests meanwhile.
    Cma = 3,
}

/// Number of migratetypes that blocks can have.
pub const NR_MIGRATETYPES: usize = 4;

/// Number of migratetypes that can be requested and have lists on a per-CPU set
/// (mainline: `MIGRATE_PCPTYPES`).
pub const NR_PCP_TYPES: usize = 3;

impl Migratetype {
    /// All types, by number.
    pub const ALL: [Migratetype; NR_MIGRATETYPES] = [
        Migratetype::Unmovable,
        Migratetype::Movable,
        Migratetype::Reclaimable,
        Migratetype::Cma,
    ];

    /// The types that can be requested, by number.
    pub const PCP: [Migratetype; NR_PCP_TYPES] = [
        Migratetype::Unmovable,
        Migratetype::Movable,
        Migratetype::Reclaimable,
    ];

    /// The type as an array index.
    pub const fn idx(self) -> usize {
        self as usize
    }

    /// The inverse of [`Migratetype::idx`], for values that came from it: only the low two bits
    /// count.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Migratetype {
        // No table: the compiler sees that nothing is to be done.
        match bits & 3 {
            0 => Migratetype::Unmovable,
            1 => Migratetype::Movable,
            2 => Migratetype::Reclaimable,
            _ => Migratetype::Cma,
        }
    }

    /// The list of a per-CPU set that pages of a block of this type go to.
    pub const fn pcp_type(self) -> Migratetype {
        match self {
            Migratetype::Cma => Migratetype::Movable,
            other => other,
        }
    }

    /// The name in debugfs files and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Migratetype::Unmovable => "unmovable",
            Migratetype::Movable => "movable",
            Migratetype::Reclaimable => "reclaimable",
            Migratetype::Cma => "cma",
        }
    }
}

/// What the caller may do: only task context may spin on a lock that another context of the same
/// CPU could hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// Process context, interrupts on.
    Task,
    /// Bottom half, tasklet, timer.
    Softirq,
    /// Interrupt handler.
    Hardirq,
}

impl Context {
    /// The name in commands and results.
    pub const fn name(self) -> &'static str {
        match self {
            Context::Task => "task",
            Context::Softirq => "softirq",
            Context::Hardirq => "hardirq",
        }
    }
}

/// Why a call was refused. Nothing has changed when one of these is returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No free chunk of that size, or no memory for metadata.
    NoMemory,
    /// An argument out of range: order, CPU, page, or a zone description.
    Invalid,
    /// The freed chunk is free already.
    DoubleFree,
    /// The freed page is not the start of an allocated chunk of that order.
    BadFree,
}

/// Result of a core call.
pub type Result<T> = core::result::Result<T, Error>;
