// SPDX-License-Identifier: GPL-2.0

//! `frag`: how whole the free memory stays when chunks of all kinds and lifetimes come and go.
//!
//! At each fill level of [`LEVELS`] in turn, every CPU allocates up to its share of the zone, then
//! replaces chunks: most of them young ones, the rest of any age, one in four freed by another CPU.
//! Then everybody waits while the leading worker looks at what is free, and tries how many runs of
//! 2 MiB and of 1 GiB there are to be had.

use super::{
    barrier::Passes,
    handover::absorb,
    report::Hundredths,
    stress::Hand,
    worker::{
        Worker,
        STRETCH, //
    },
    Machine, //
};
use crate::mm::{
    platform::{
        Array,
        AtomicU64, //
    },
    types::{
        Context,
        CpuIdx,
        Migratetype,
        Order,
        Result,
        MAX_ORDER,
        NR_ORDERS, //
    },
    PageAllocator,
    Place,
    Report, //
};
use core::fmt::{
    self,
    Write, //
};

/// Percentages of the zone that are in use when it is looked at.
pub(super) const LEVELS: [u64; 4] = [25, 50, 75, 90];

/// Order of 2 MiB.
const HUGE: Order = Order::new(9);
/// Order of 1 GiB.
const GIGANTIC: Order = Order::new(18);

/// Orders that have an index: those of mainline's buddy.
const NR_INDEXES: usize = MAX_ORDER as usize + 1;

/// Allocations in a row that fail until a level counts as reached.
const MAX_MISSES: u32 = 64;

/// What is not known, as a figure.
const UNKNOWN: u64 = u64::MAX;

/// What was found at one level of one repetition.
struct Finding {
    free_pages: AtomicU64,
    /// Runs of 2 MiB that are free as they are.
    whole: AtomicU64,
    /// Runs that were to be had, and that there would be if all that is free were in one piece.
    huge: [AtomicU64; 2],
    gigantic: [AtomicU64; 2],
    /// By order: the external fragmentation index plus one, and the unusable free index, in thousandths.
    extfrag: [AtomicU64; NR_INDEXES],
    unusable: [AtomicU64; NR_INDEXES],
}

/// Where the workers of a run put what they hold and the leading one what it finds.
pub(super) struct Board {
    /// Pages in use, by worker.
    used: Array<AtomicU64>,
    /// By repetition, then level.
    findings: Array<Finding>,
}

impl Board {
    /// For a run of that many workers and repetitions.
    pub(super) fn new(workers: usize, repetitions: usize) -> Result<Board> {
        let unknown = || AtomicU64::new(UNKNOWN);
        let finding = |_| Finding {
            free_pages: unknown(),
            whole: unknown(),
            huge: [unknown(), unknown()],
            gigantic: [unknown(), unknown()],
            extfrag: core::array::from_fn(|_| unknown()),
            unusable: core::array::from_fn(|_| unknown()),
        };
        Ok(Board {
            used: Array::new(workers, |_| AtomicU64::new(0))?,
            findings: Array::new(repetitions * LEVELS.len(), finding)?,
        })
    }

    fn used(&self) -> u64 {
        self.used.iter().map(AtomicU64::load).sum()
    }

    /// The median of a figure at one level over the repetitions in which it is known, the lower one if
    /// there are two. Sorts nothing, because this is no place to need memory.
    fn median(&self, level: usize, figure: &dyn Fn(&Finding) -> u64) -> Option<u64> {
        let of_level = || {
            let findings = self.findings.iter().skip(level).step_by(LEVELS.len());
            findings.map(figure).filter(|&value| value != UNKNOWN)
        };
        let middle = of_level().count().checked_sub(1)? / 2;
        of_level().find(|&value| {
            let below = of_level().filter(|&other| other < value).count();
            let above = of_level().filter(|&other| other <= value).count();
            (below..above).contains(&middle)
        })
    }

    /// Writes what was found, level by level.
    pub(super) fn write(&self, out: &mut dyn Write) -> fmt::Result {
        for (level, fill) in LEVELS.iter().enumerate() {
            let median = |figure: &dyn Fn(&Finding) -> u64| self.median(level, figure);
            let free = median(&|f| f.free_pages.load());
            writeln!(out, "fill{fill}_free_pages: {}", Known(free))?;
            let whole = median(&|f| f.whole.load());
            writeln!(out, "fill{fill}_whole_order9: {}", Known(whole))?;
            let huge = median(&|f| rate(&f.huge));
            writeln!(out, "fill{fill}_success_order9: {}", Percent(huge))?;
            let gigantic = median(&|f| rate(&f.gigantic));
            writeln!(out, "fill{fill}_success_order18: {}", Percent(gigantic))?;
            write!(out, "fill{fill}_extfrag_index:")?;
            for order in 0..NR_INDEXES {
                let index = median(&|f| f.extfrag[order].load());
                write!(out, " {}", Thousandths(index.map(|i| i as i64 - 1000)))?;
            }
            write!(out, "\nfill{fill}_unusable_index:")?;
            for order in 0..NR_INDEXES {
                let index = median(&|f| f.unusable[order].load());
                write!(out, " {}", Thousandths(index.map(|i| i as i64)))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Hundredths of a percent, `UNKNOWN` if nothing could be asked for.
fn rate([got, most]: &[AtomicU64; 2]) -> u64 {
    match most.load() {
        0 | UNKNOWN => UNKNOWN,
        most => got.load() * 10_000 / most,
    }
}

struct Known(Option<u64>);

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(figure) => figure.fmt(f),
            None => f.write_str("n/a"),
        }
    }
}

struct Percent(Option<u64>);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hundredths) => Hundredths(hundredths).fmt(f),
            None => f.write_str("n/a"),
        }
    }
}

struct Thousandths(Option<i64>);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = self.0 else {
            return f.write_str("n/a");
        };
        let sign = if value < 0 { "-" } else { "" };
        let size = value.unsigned_abs();
        write!(f, "{sign}{}.{:03}", size / 1000, size % 1000)
    }
}

/// The free chunks of a zone, wherever they are, by order.
struct Chunks([u64; NR_ORDERS]);

impl Chunks {
    fn of(report: &dyn Report, nr_cpus: usize) -> Chunks {
        let mut chunks = Chunks([0; NR_ORDERS]);
        // CAST: CPU numbers fit 32 bits.
        let sets = (0..nr_cpus as u32).map(|cpu| Place::Cpu(CpuIdx(cpu)));
        for place in [Place::Zone, Place::Shared].into_iter().chain(sets) {
            for row in report.free_chunks(place) {
                for (sum, nr) in chunks.0.iter_mut().zip(row) {
                    *sum += nr;
                }
            }
        }
        chunks
    }

    fn pages(&self) -> u64 {
        self.suitable(Order::ZERO)
    }

    /// Aligned runs of `2^order` pages in chunks that are large enough.
    fn suitable(&self, order: Order) -> u64 {
        let large = self.0.iter().enumerate().skip(order.idx());
        large.map(|(o, nr)| nr << (o - order.idx())).sum()
    }

    /// Whether an allocation fails for want of memory (towards 0) or because what is free is in pieces
    /// (towards 1000), plus 1000; 0 if it does not fail. Mainline: `__fragmentation_index()`.
    fn extfrag(&self, order: Order) -> u64 {
        let nr: u64 = self.0.iter().sum();
        if nr == 0 {
            return 1000;
        }
        if self.suitable(order) != 0 {
            return 0;
        }
        let requests = self.pages() * 1000 / u64::from(order.pages());
        2000_u64.saturating_sub((1000 + requests) / nr)
    }

    /// The part of what is free that is of no use for an allocation, in thousandths. Mainline:
    /// `unusable_free_index()`.
    fn unusable(&self, order: Order) -> u64 {
        let (pages, usable) = (self.pages(), self.suitable(order) << order.get());
        if pages == 0 {
            return 1000;
        }
        (pages - usable) * 1000 / pages
    }
}

/// What a worker of `frag` has for itself.
pub(super) struct Keeper<P> {
    hand: Hand<P>,
    /// Runs that the leading worker tries to get.
    runs: Array<Option<P>>,
}

impl<P: Copy> Keeper<P> {
    /// For up to that many chunks, in a zone of that many pages.
    pub(super) fn new(chunks: usize, zone_pages: u64) -> Result<Keeper<P>> {
        Ok(Keeper {
            hand: Hand::new(chunks)?,
            runs: Array::new((zone_pages >> HUGE.get()) as usize, |_| None)?,
        })
    }

    /// Goes through the levels.
    pub(super) fn keep<A, M>(
        &mut self,
        worker: &mut Worker<'_, A, M>,
        passes: &mut Passes,
        repetition: usize,
    ) where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        let share = worker.plan.share(worker.nr) / LEVELS.len() as u64;
        for (level, fill) in LEVELS.iter().enumerate() {
            let pages =
                worker.plan.zone_pages() * fill / 100 / worker.plan.nr_workers().max(1) as u64;
            self.fill(worker, pages);
            self.churn(worker, pages, share);
            // Nobody hands anything over any more; then everything is freed that was.
            worker.meet(passes);
            absorb(worker, worker.nr);
            let board = worker.plan.board();
            board.used[worker.nr].store(self.hand.pages());
            worker.meet(passes);
            if worker.leads() && worker.goes_on() {
                let found = &board.findings[repetition * LEVELS.len() + level];
                worker.aside(|worker| self.look(worker, board.used(), found));
            }
            worker.meet(passes);
        }
    }

    /// Allocates until `pages` are in use.
    fn fill<A, M>(&mut self, worker: &mut Worker<'_, A, M>, pages: u64)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        let mut misses = 0;
        while worker.breathe() {
            for _ in 0..STRETCH {
                if self.hand.pages() >= pages || self.hand.is_full() || misses == MAX_MISSES {
                    return;
                }
                misses = if self.hand.add(worker) { 0 } else { misses + 1 };
            }
        }
    }

    /// Replaces chunks until a share of allocations is done.
    fn churn<A, M>(&mut self, worker: &mut Worker<'_, A, M>, pages: u64, share: u64)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        let mut left = share;
        while left > 0 && worker.breathe() {
            for _ in 0..STRETCH.min(left) {
                let any_age = worker.choices.below(8) == 0;
                let young = self.hand.len() / 8 + 1;
                let among = if any_age { self.hand.len() } else { young };
                if let Some(chunk) = self.hand.take(worker, among) {
                    match worker.choices.below(4) {
                        0 => Hand::hand_over(worker, chunk),
                        _ => worker.free(chunk),
                    }
                }
                // Sizes differ: one may make room for many, or for none.
                if self.hand.pages() < pages {
                    self.hand.add(worker);
                }
            }
            left -= STRETCH.min(left);
            absorb(worker, worker.nr);
            self.fill(worker, pages);
        }
    }

    /// Looks at what is free, with nobody else at work.
    fn look<A, M>(&mut self, worker: &mut Worker<'_, A, M>, used: u64, found: &Finding)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        let zone = worker.zone;
        let free = worker.plan.zone_pages().saturating_sub(used);
        found.free_pages.store(free);
        if let Some(report) = zone.report() {
            let chunks = Chunks::of(report, zone.stats().nr_cpus());
            found.whole.store(chunks.suitable(HUGE));
            for order in (0..=MAX_ORDER).map(Order::new) {
                found.extfrag[order.idx()].store(chunks.extfrag(order));
                found.unusable[order.idx()].store(chunks.unusable(order));
            }
        }
        for (order, figures) in [(HUGE, &found.huge), (GIGANTIC, &found.gigantic)] {
            let most = free >> order.get();
            figures[0].store(self.try_runs(worker, order, most as usize));
            figures[1].store(most);
        }
    }

    /// Allocates up to `most` runs of `2^order` pages and frees them; returns how many there were.
    fn try_runs<A, M>(&mut self, worker: &mut Worker<'_, A, M>, order: Order, most: usize) -> u64
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        let (zone, cpu, nr) = (worker.zone, worker.cpu, order.pages());
        let mut got = 0;
        for run in self.runs.iter_mut().take(most) {
            worker.machine.give_way();
            *run = (zone.alloc_contig(cpu, nr, Migratetype::Movable, Context::Task)).ok();
            if run.is_none() {
                break;
            }
            got += 1;
        }
        for run in self.runs.iter_mut().filter_map(Option::take) {
            worker.machine.give_way();
            let freed = zone.free_contig(cpu, run, nr, Context::Task);
            worker.wrongs.frees += u64::from(freed.is_err());
        }
        got
    }

    /// Frees everything that this worker has or was given. Nobody gives any more by now.
    pub(super) fn clean_up<A, M>(&mut self, worker: &mut Worker<'_, A, M>)
    where
        A: PageAllocator<Page = P>,
        M: Machine<P>,
    {
        self.hand.clean_up(worker);
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_frag))]
mod tests {
    use super::*;

    fn chunks(by_order: &[u64]) -> Chunks {
        let mut chunks = Chunks([0; NR_ORDERS]);
        for (nr, sum) in by_order.iter().zip(chunks.0.iter_mut()) {
            *sum = *nr;
        }
        chunks
    }

    #[test]
    fn what_is_in_one_piece_is_usable_to_the_last_page() {
        let chunks = chunks(&[0, 0, 1]);
        assert_eq!(chunks.pages(), 4);
        for order in [0, 1, 2].map(Order::new) {
            assert_eq!(chunks.suitable(order), 4 >> order.get());
            assert_eq!(chunks.extfrag(order), 0);
            assert_eq!(chunks.unusable(order), 0);
        }
    }

    #[test]
    fn failures_are_blamed_on_pieces_or_on_want_of_memory() {
        // 1024 pages, none adjacent: 1 - (1 + 1024/2) / 1024.
        let pieces = chunks(&[1024]);
        assert_eq!(pieces.extfrag(Order::new(1)), 1000 + 500);
        assert_eq!(pieces.extfrag(Order::new(9)), 1000 + 998);
        assert_eq!(pieces.unusable(Order::new(1)), 1000);
        // A single page is too little for anything.
        let little = chunks(&[1]);
        assert_eq!(little.extfrag(Order::new(9)), 1000 - 1);
        assert_eq!(chunks(&[]).extfrag(Order::ZERO), 1000);
    }

    #[test]
    fn half_is_unusable_if_half_is_in_small_pieces() {
        let chunks = chunks(&[4, 0, 1]);
        assert_eq!(chunks.unusable(Order::new(2)), 500);
        assert_eq!(chunks.unusable(Order::ZERO), 0);
    }
}
