// SPDX-License-Identifier: GPL-2.0

//! What a run shall do: the parsed form of a line written to `NAME/run`.

use super::cpus::CpuSet;
use crate::mm::types::{Context, Migratetype, Order};

/// Defines an enum whose variants have a name in commands and results.
macro_rules! named {
    ($(#[doc = $doc:literal])+ $type:ident {
        $($(#[doc = $variant_doc:literal])+ $variant:ident => $name:literal,)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $type {
            $($(#[doc = $variant_doc])+ $variant,)+
        }

        impl $type {
            /// All of them, in the order of their definition.
            pub const ALL: &'static [$type] = &[$($type::$variant,)+];

            /// The name in commands and results.
            pub const fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)+
                }
            }

            /// The inverse of `name`.
            pub fn from_name(name: &str) -> Option<$type> {
                $type::ALL.iter().copied().find(|it| it.name() == name)
            }
        }
    };
}

named! {
    /// The workloads. Documentation/workloads.rst says what each does.
    Workload {
        /// Allocate and free one chunk, hot.
        Pair => "pair",
        /// Allocate a set, then free it all.
        Bulk => "bulk",
        /// Allocate and free slots at random, about half of them full.
        Rand => "rand",
        /// Many CPUs allocate, a few free.
        Purge => "purge",
        /// One CPU allocates for all others, which free.
        Fanout => "fanout",
        /// Every CPU builds a set, then all tear down at once.
        Exit => "exit",
        /// All CPUs allocate to exhaustion, then all free.
        Hog => "hog",
        /// Chunks of all kinds and lifetimes at rising fill levels.
        Frag => "frag",
        /// Allocate runs of pages, then free them all.
        Contig => "contig",
        /// All of it at random.
        Stress => "stress",
    }
}

named! {
    /// What the allocating CPU writes to fresh pages.
    Touch {
        /// Nothing.
        None => "none",
        /// The first word of each page.
        First => "first",
        /// One word of each cache line.
        All => "all",
    }
}

named! {
    /// The order in which a set is freed.
    FreeOrder {
        /// Last allocated first.
        Lifo => "lifo",
        /// First allocated first.
        Fifo => "fifo",
        /// A fixed pseudo-random order.
        Shuffled => "shuffled",
    }
}

named! {
    /// How pages are allocated and freed. Compare single with single and batch with batch.
    How {
        /// Chunk by chunk.
        Single => "single",
        /// Single pages, in calls of up to 512.
        Array => "array",
        /// Runs of pages as a whole.
        Range => "range",
    }
}

/// Orders to draw from, uniformly; both ends included, `lo <= hi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderRange {
    /// Smallest order.
    pub lo: Order,
    /// Largest order.
    pub hi: Order,
}

impl OrderRange {
    /// A single order.
    pub const fn one(order: Order) -> OrderRange {
        OrderRange {
            lo: order,
            hi: order,
        }
    }

    /// Mean number of pages of a chunk, rounded down.
    pub fn mean_pages(self) -> u64 {
        let sum: u64 = self.lo.upto(self.hi).map(|o| u64::from(o.pages())).sum();
        sum / (u64::from(self.hi.get() - self.lo.get()) + 1)
    }
}

/// Migratetypes to ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mobility {
    /// Always the same.
    One(Migratetype),
    /// Movable in three of four requests, else unmovable or reclaimable.
    Mixed,
}

/// How much each repetition does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amount {
    /// Operations over all allocating CPUs together.
    Ops(u64),
    /// Milliseconds.
    Ms(u64),
    /// As often as makes one round of the workload: one set, or one exhaustion.
    Round,
}

/// A run, as commanded; prints as the command that gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spec {
    /// What to run.
    pub workload: Workload,
    /// CPUs that allocate, and free where the workload hands nothing over.
    pub cpus: CpuSet,
    /// CPUs that free what the others allocate; empty for the workload's default.
    pub free_cpus: CpuSet,
    /// Orders of requests.
    pub order: OrderRange,
    /// Migratetypes of requests.
    pub mobility: Mobility,
    /// Length of a repetition.
    pub amount: Amount,
    /// Working set per CPU in pages; `None` for the workload's default.
    pub pages: Option<u64>,
    /// Start of the random sequences.
    pub seed: u64,
    /// What the allocating CPU writes to fresh pages.
    pub touch: Touch,
    /// Whether every page is stamped at allocation and checked at free.
    pub verify: bool,
    /// Context that allocates and frees, besides the workers themselves.
    pub context: Context,
    /// Repetitions, each measured.
    pub repeat: u32,
    /// Order in which sets are freed.
    pub free: FreeOrder,
    /// How pages are allocated and freed.
    pub how: How,
    /// Whether wait and hold times of locks are taken.
    pub lock_times: bool,
    /// Whether each call of the allocator is timed.
    pub latency: bool,
    /// Order that `stress` asks for in vain, in a zone in which every such chunk has a page in use.
    pub vain: Option<Order>,
}

impl Spec {
    /// A run of `workload` on `cpus` with everything else as it is by default.
    pub fn new(workload: Workload, cpus: CpuSet) -> Spec {
        let stress = workload == Workload::Stress;
        let nine = Order::new(9);
        Spec {
            workload,
            cpus,
            free_cpus: CpuSet::EMPTY,
            order: match workload {
                Workload::Stress => OrderRange {
                    lo: Order::ZERO,
                    hi: nine,
                },
                Workload::Frag => OrderRange {
                    lo: Order::ZERO,
                    hi: Order::new(3),
                },
                Workload::Contig => OrderRange::one(nine),
                _ => OrderRange::one(Order::ZERO),
            },
            mobility: match workload {
                Workload::Stress | Workload::Frag => Mobility::Mixed,
                _ => Mobility::One(Migratetype::Movable),
            },
            amount: match workload {
                _ if workload.has_phases() => Amount::Round,
                _ => Amount::Ops(1_000_000),
            },
            pages: None,
            seed: 1,
            touch: Touch::None,
            verify: stress,
            context: Context::Task,
            repeat: 1,
            free: FreeOrder::Lifo,
            how: match workload {
                Workload::Contig => How::Range,
                _ => How::Single,
            },
            lock_times: false,
            latency: false,
            vain: None,
        }
    }

    /// CPUs that allocate.
    pub fn alloc_cpus(&self) -> CpuSet {
        match (self.workload, self.cpus.first()) {
            (Workload::Fanout, Some(first)) => CpuSet::of(first),
            _ => self.cpus,
        }
    }

    /// CPUs that free.
    pub fn freeing_cpus(&self) -> CpuSet {
        let Some(first) = self.cpus.first() else {
            return CpuSet::EMPTY;
        };
        match self.workload {
            Workload::Purge if self.free_cpus.is_empty() => CpuSet::of(first),
            Workload::Purge => self.free_cpus,
            Workload::Fanout => {
                let mut rest = self.cpus;
                rest.remove(first);
                let rest = rest.union(&self.free_cpus);
                if rest.is_empty() {
                    self.cpus
                } else {
                    rest
                }
            }
            _ => self.cpus,
        }
    }

    /// All CPUs that the run needs.
    pub fn all_cpus(&self) -> CpuSet {
        self.alloc_cpus().union(&self.freeing_cpus())
    }
}

impl Workload {
    /// Whether pages go from allocating to freeing CPUs named apart (`free_cpus=`).
    pub const fn has_free_cpus(self) -> bool {
        matches!(self, Workload::Purge | Workload::Fanout)
    }

    /// Whether a working set can be given (`pages=`).
    pub const fn has_working_set(self) -> bool {
        !matches!(self, Workload::Pair | Workload::Hog | Workload::Frag)
    }

    /// Whether allocating and freeing are phases apart, timed each (`free=`).
    pub const fn has_phases(self) -> bool {
        matches!(
            self,
            Workload::Bulk | Workload::Exit | Workload::Hog | Workload::Contig
        )
    }

    /// Whether it can be said how pages are allocated and freed (`how=`).
    pub const fn has_how(self) -> bool {
        matches!(
            self,
            Workload::Bulk | Workload::Exit | Workload::Purge | Workload::Fanout | Workload::Contig
        )
    }
}
