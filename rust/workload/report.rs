// SPDX-License-Identifier: GPL-2.0

//! What a run found, and its text.
//!
//! Everything is counted in integers; figures with a fraction are kept in hundredths.

use super::{
    frag::Board,
    interrupts::InterruptTally,
    latency::Latencies,
    spec::{
        Spec,
        Workload, //
    },
    worker::{
        Tally,
        Wrongs, //
    }, //
};
use crate::mm::{
    lock::{
        LockFigures,
        LockTimes, //
    },
    platform::{
        Array,
        AtomicU64, //
    },
    stats::{
        counter_name,
        NR_COUNTERS, //
    },
    types::{
        Context,
        CpuIdx,
        Result, //
    },
    PageAllocator, //
};
use core::fmt::{
    self,
    Write, //
};

/// The counters of a zone at one moment, or how they changed.
pub struct Counters {
    totals: Array<u64>,
    zone_lock: Option<LockFigures>,
    pcp_locks: Option<LockFigures>,
    /// Of the zone lock, and of the locks of the per-CPU sets.
    times: Array<LockTimes>,
}

impl Counters {
    /// Looks at them now.
    ///
    /// # Errors
    ///
    /// `NoMemory`.
    pub fn take<A: PageAllocator>(zone: &A) -> Result<Counters> {
        let locks = [zone.zone_lock(), zone.pcp_locks()];
        let mut times = Array::new(2, |_| LockTimes::default())?;
        for (sum, locks) in times.iter_mut().zip(locks) {
            if let Some(locks) = locks {
                locks.add_times(sum);
            }
        }
        let [zone_lock, pcp_locks] = locks.map(|locks| Some(locks?.figures()));
        Ok(Counters {
            times,
            totals: Array::new(NR_COUNTERS, |nr| zone.stats().total(nr))?,
            zone_lock,
            pcp_locks,
        })
    }

    /// The change since `before`; 0 where a reset came in between.
    pub(super) fn since(mut self, before: Counters) -> Counters {
        for (now, then) in self.totals.iter_mut().zip(before.totals.iter()) {
            *now = now.saturating_sub(*then);
        }
        for (now, then) in self.times.iter_mut().zip(before.times.iter()) {
            now.wait = now.wait.since(&then.wait);
            now.hold = now.hold.since(&then.hold);
        }
        self.zone_lock = lock_change(self.zone_lock, before.zone_lock);
        self.pcp_locks = lock_change(self.pcp_locks, before.pcp_locks);
        self
    }

    /// Writes them, one `name: value` a line; `n/a` for locks that the policy has none of.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> fmt::Result {
        for (nr, total) in self.totals.iter().enumerate() {
            writeln!(out, "{}: {total}", counter_name(nr))?;
        }
        write_lock(out, "zone_lock", self.zone_lock)?;
        write_lock(out, "pcp_lock", self.pcp_locks)
    }

    /// Writes how long locks were waited for and held, if that was timed: histograms, each a line of
    /// numbers.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_times(&self, out: &mut dyn Write) -> fmt::Result {
        for (name, times) in ["zone_lock", "pcp_lock"].iter().zip(self.times.iter()) {
            if times.wait.total() != 0 {
                writeln!(out, "{name}_wait_log2_ns: {}", times.wait)?;
                writeln!(out, "{name}_hold_log2_ns: {}", times.hold)?;
            }
        }
        Ok(())
    }
}

fn lock_change(now: Option<LockFigures>, then: Option<LockFigures>) -> Option<LockFigures> {
    let (now, then) = (now?, then?);
    Some(LockFigures {
        acquired: now.acquired.saturating_sub(then.acquired),
        contended: now.contended.saturating_sub(then.contended),
        irq_off: now.irq_off.saturating_sub(then.irq_off),
    })
}

fn write_lock(out: &mut dyn Write, name: &str, figures: Option<LockFigures>) -> fmt::Result {
    let mut line = |what: &str, value: Option<u64>| match value {
        Some(value) => writeln!(out, "{name}_{what}: {value}"),
        None => writeln!(out, "{name}_{what}: n/a"),
    };
    line("acquired", figures.map(|f| f.acquired))?;
    line("contended", figures.map(|f| f.contended))?;
    line("irq_off", figures.map(|f| f.irq_off))
}

/// What an allocator has done wrong in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Errors {
    /// Pages whose stamp was not what had been written.
    pub verify: u64,
    /// Frees that the allocator refused.
    pub free: u64,
    /// Chunks that are not aligned to their size in memory.
    pub align: u64,
    /// Allocations refused beside free memory, where that is an error.
    pub spurious: u64,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As planned.
    Ok,
    /// Early, by a signal.
    Stopped,
    /// At once, because a worker could not be started.
    Aborted,
    /// At once, because a worker found no memory for its tables.
    NoMemory,
    /// The allocator did what it must not. Outweighs all others.
    Failed(Errors),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ok => f.write_str("ok"),
            Verdict::Stopped => f.write_str("stopped by a signal"),
            Verdict::Aborted => f.write_str("aborted: a worker could not be started"),
            Verdict::NoMemory => f.write_str("aborted: no memory for the tables of a worker"),
            Verdict::Failed(errors) => write!(
                f,
                "failed: {} wrong stamps, {} refused frees, {} misaligned chunks, \
                 {} spurious failures",
                errors.verify, errors.free, errors.align, errors.spurious
            ),
        }
    }
}

/// What one worker did in one repetition. Written by that worker, read when all have returned.
pub(super) struct Row([AtomicU64; NR_COLUMNS]);

/// What a row holds.
#[derive(Clone, Copy)]
enum Column {
    Ops,
    Pages,
    Failures,
    Frees,
    BusyNs,
    AllocNs,
    FreeNs,
    StartNs,
    EndNs,
    WrongStamps,
    WrongFrees,
    Misaligned,
    Spurious,
}

const NR_COLUMNS: usize = Column::Spurious as usize + 1;

impl Row {
    pub(super) fn new() -> Row {
        Row(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(super) fn put(&self, start: u64, end: u64, tally: &Tally, wrongs: &Wrongs) {
        let busy = end.saturating_sub(start).saturating_sub(tally.waited_ns);
        for (column, value) in [
            (Column::Ops, tally.ops),
            (Column::Pages, tally.pages),
            (Column::Failures, tally.failures),
            (Column::Frees, tally.frees),
            (Column::BusyNs, busy),
            (Column::AllocNs, tally.alloc_ns),
            (Column::FreeNs, tally.free_ns),
            (Column::StartNs, start),
            (Column::EndNs, end),
            (Column::WrongStamps, wrongs.stamps),
            (Column::WrongFrees, wrongs.frees),
            (Column::Misaligned, wrongs.misaligned),
            (Column::Spurious, wrongs.spurious),
        ] {
            self.0[column as usize].store(value);
        }
    }

    fn get(&self, column: Column) -> u64 {
        self.0[column as usize].load()
    }

    fn wall_ns(&self) -> u64 {
        self.get(Column::EndNs)
            .saturating_sub(self.get(Column::StartNs))
    }
}

/// What was run, as the report says it.
pub(super) struct Setting {
    pub(super) spec: Spec,
    pub(super) policy: &'static str,
    /// Whether it is known which failures are spurious.
    pub(super) judged: bool,
    /// Working set per CPU, as it came out.
    pub(super) set_pages: u64,
    pub(super) workers: usize,
    /// Repetitions that were begun.
    pub(super) repetitions: usize,
}

/// A figure over the repetitions.
#[derive(Clone, Copy, Default)]
struct Spread {
    min: u64,
    median: u64,
    max: u64,
}

impl Spread {
    /// Of one figure for each repetition. Sorts them.
    fn of(figures: &mut [u64]) -> Spread {
        figures.sort_unstable();
        let (Some(min), Some(max)) = (figures.first(), figures.last()) else {
            return Spread::default();
        };
        let half = figures.len() / 2;
        let (below, above) = (figures[(figures.len() - 1) / 2], figures[half]);
        Spread {
            min: *min,
            median: below + (above - below) / 2,
            max: *max,
        }
    }
}

/// What a run found.
pub(super) struct Found {
    /// By repetition, then worker.
    pub(super) rows: Array<Row>,
    pub(super) board: Board,
    pub(super) latencies: Latencies,
    pub(super) interrupts: InterruptTally,
    pub(super) changes: Counters,
}

/// What `NAME/result` shows.
pub struct Report {
    setting: Setting,
    /// By worker.
    cpus: Array<CpuIdx>,
    found: Found,
    verdict: Verdict,
    ops: Spread,
    pages: Spread,
    failures: Spread,
    /// Hundredths of nanoseconds.
    ns_per_op: Spread,
    cpu_ns_per_op: Spread,
    alloc_ns_per_page: Spread,
    free_ns_per_page: Spread,
    pages_per_s: Spread,
}

impl Report {
    pub(super) fn new(
        setting: Setting,
        cpus: Array<CpuIdx>,
        found: Found,
        early: Option<Verdict>,
    ) -> Result<Report> {
        let mut scratch = Array::new(setting.repetitions, |_| 0)?;
        let mut spread = |figure: &dyn Fn(&[Row]) -> u64| {
            for (value, rows) in scratch.iter_mut().zip(found.rows.chunks(setting.workers)) {
                *value = figure(rows);
            }
            Spread::of(&mut scratch)
        };
        Ok(Report {
            verdict: verdict(&setting.spec, &found, early),
            ops: spread(&|rows| sum(rows, Column::Ops)),
            pages: spread(&|rows| sum(rows, Column::Pages)),
            failures: spread(&|rows| sum(rows, Column::Failures)),
            ns_per_op: spread(&|rows| ratio(elapsed_ns(rows), 100, sum(rows, Column::Ops))),
            cpu_ns_per_op: spread(&|rows| per(rows, Column::BusyNs, Column::Ops)),
            alloc_ns_per_page: spread(&|rows| per(rows, Column::AllocNs, Column::Pages)),
            free_ns_per_page: spread(&|rows| per(rows, Column::FreeNs, Column::Pages)),
            pages_per_s: spread(&|rows| {
                ratio(sum(rows, Column::Pages), 1_000_000_000, elapsed_ns(rows))
            }),
            setting,
            cpus,
            found,
        })
    }

    /// How the run ended.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The rows of the repetitions that were begun, each repetition a slice of one row a worker.
    fn repetitions(&self) -> impl Iterator<Item = &[Row]> {
        self.found
            .rows
            .chunks(self.setting.workers)
            .take(self.setting.repetitions)
    }

    fn total(&self, column: Column) -> u64 {
        self.repetitions().map(|rows| sum(rows, column)).sum()
    }

    /// Writes all of it: totals, the change of the counters, the table.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> fmt::Result {
        self.write_totals(out)?;
        self.write_circumstances(out)?;
        self.write_spread(out)?;
        if self.setting.spec.workload == Workload::Frag {
            self.found.board.write(out)?;
        }
        if self.setting.spec.latency {
            self.found.latencies.write(out)?;
        }
        self.found.changes.write(out)?;
        self.found.changes.write_times(out)?;
        self.write_table(out)
    }

    fn write_totals(&self, out: &mut dyn Write) -> fmt::Result {
        let spec = &self.setting.spec;
        writeln!(out, "workload: {}", spec.workload.name())?;
        writeln!(out, "policy: {}", self.setting.policy)?;
        writeln!(out, "cpus: {}", spec.cpus)?;
        writeln!(out, "ops: {}", self.ops.median)?;
        writeln!(out, "pages: {}", self.pages.median)?;
        writeln!(out, "failures: {}", self.failures.median)?;
        writeln!(out, "ns_per_op: {}", Hundredths(self.ns_per_op.median))?;
        let cpu_ns = Hundredths(self.cpu_ns_per_op.median);
        writeln!(out, "cpu_ns_per_op: {cpu_ns}")?;
        writeln!(out, "pages_per_s: {}", self.pages_per_s.median)?;
        if spec.workload.has_phases() {
            let alloc_ns = Hundredths(self.alloc_ns_per_page.median);
            writeln!(out, "alloc_ns_per_page: {alloc_ns}")?;
            let free_ns = Hundredths(self.free_ns_per_page.median);
            writeln!(out, "free_ns_per_page: {free_ns}")?;
        }
        Ok(())
    }

    /// How it was run and how it ended; sums over all repetitions.
    fn write_circumstances(&self, out: &mut dyn Write) -> fmt::Result {
        let spec = &self.setting.spec;
        writeln!(out, "status: {}", self.verdict)?;
        let interrupts = &self.found.interrupts;
        let errors = Errors::of(&self.found);
        for (key, value, known) in [
            ("verify_errors", errors.verify, spec.verify),
            ("align_errors", errors.align, spec.verify),
            ("free_errors", errors.free, true),
            ("spurious_failures", errors.spurious, self.setting.judged),
        ] {
            match known {
                true => writeln!(out, "{key}: {value}")?,
                false => writeln!(out, "{key}: n/a")?,
            }
        }
        writeln!(out, "repeat: {}", self.setting.repetitions)?;
        writeln!(out, "seed: {}", spec.seed)?;
        writeln!(out, "command: {spec}")?;
        if spec.workload.has_free_cpus() {
            writeln!(out, "free_cpus: {}", spec.freeing_cpus())?;
        }
        if spec.workload.has_working_set() {
            writeln!(out, "set_pages: {}", self.setting.set_pages)?;
        }
        writeln!(out, "total_ops: {}", self.total(Column::Ops))?;
        writeln!(out, "total_pages: {}", self.total(Column::Pages))?;
        writeln!(out, "total_failures: {}", self.total(Column::Failures))?;
        match spec.context {
            Context::Task => Ok(()),
            Context::Softirq | Context::Hardirq => interrupts.write(out),
        }
    }

    fn write_spread(&self, out: &mut dyn Write) -> fmt::Result {
        for (name, spread) in [
            ("ns_per_op", &self.ns_per_op),
            ("cpu_ns_per_op", &self.cpu_ns_per_op),
        ] {
            writeln!(out, "{name}_min: {}", Hundredths(spread.min))?;
            writeln!(out, "{name}_max: {}", Hundredths(spread.max))?;
        }
        writeln!(out, "pages_per_s_min: {}", self.pages_per_s.min)?;
        writeln!(out, "pages_per_s_max: {}", self.pages_per_s.max)
    }

    fn write_table(&self, out: &mut dyn Write) -> fmt::Result {
        writeln!(
            out,
            "repetition cpu ops pages failures frees busy_ns alloc_ns free_ns wall_ns spurious"
        )?;
        for (repetition, rows) in self.repetitions().enumerate() {
            for (row, cpu) in rows.iter().zip(self.cpus.iter()) {
                write!(out, "{repetition} {}", cpu.0)?;
                for column in [
                    Column::Ops,
                    Column::Pages,
                    Column::Failures,
                    Column::Frees,
                    Column::BusyNs,
                    Column::AllocNs,
                    Column::FreeNs,
                ] {
                    write!(out, " {}", row.get(column))?;
                }
                writeln!(out, " {} {}", row.wall_ns(), row.get(Column::Spurious))?;
            }
        }
        Ok(())
    }
}

impl Errors {
    /// All that was found, over all repetitions.
    fn of(found: &Found) -> Errors {
        let (rows, interrupts) = (&found.rows, &found.interrupts.wrongs);
        Errors {
            verify: sum(rows, Column::WrongStamps) + interrupts.stamps,
            free: sum(rows, Column::WrongFrees) + interrupts.frees,
            align: sum(rows, Column::Misaligned) + interrupts.misaligned,
            spurious: sum(rows, Column::Spurious),
        }
    }
}

fn verdict(spec: &Spec, found: &Found, early: Option<Verdict>) -> Verdict {
    let mut errors = Errors::of(found);
    // Elsewhere it is a figure, to be compared.
    if spec.workload != Workload::Stress {
        errors.spurious = 0;
    }
    match errors == Errors::default() {
        true => early.unwrap_or(Verdict::Ok),
        false => Verdict::Failed(errors),
    }
}

fn sum(rows: &[Row], column: Column) -> u64 {
    rows.iter().map(|row| row.get(column)).sum()
}

/// One column per other column, in hundredths.
fn per(rows: &[Row], what: Column, each: Column) -> u64 {
    ratio(sum(rows, what), 100, sum(rows, each))
}

/// From the first start to the last end.
fn elapsed_ns(rows: &[Row]) -> u64 {
    let start = rows.iter().map(|row| row.get(Column::StartNs)).min();
    let end = rows.iter().map(|row| row.get(Column::EndNs)).max();
    match (start, end) {
        (Some(start), Some(end)) => end.saturating_sub(start),
        _ => 0,
    }
}

/// `scale * a / b` without overflow, exact to nine digits at least; 0 if `b` is.
fn ratio(a: u64, scale: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b > 0 {
        match a.checked_mul(scale) {
            Some(product) => return product / b,
            None => (a, b) = (a / 2, b / 2),
        }
    }
    0
}

/// A number of hundredths, with its fraction.
pub(super) struct Hundredths(pub(super) u64);

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle() {
        let median = |figures: &[u64]| Spread::of(&mut figures.to_vec()).median;
        assert_eq!(median(&[]), 0);
        assert_eq!(median(&[7]), 7);
        assert_eq!(median(&[9, 1]), 5);
        assert_eq!(median(&[9, 1, 2]), 2);
        assert_eq!(median(&[u64::MAX, u64::MAX]), u64::MAX);
        let spread = Spread::of(&mut [3, 1, 2, 5, 4]);
        assert_eq!((spread.min, spread.median, spread.max), (1, 3, 5));
    }

    #[test]
    fn ratios_neither_overflow_nor_divide_by_zero() {
        assert_eq!(ratio(1, 100, 0), 0);
        assert_eq!(ratio(1, 100, 3), 33);
        assert_eq!(ratio(10, 1_000_000_000, 1_000_000_000), 10);
        let big = ratio(1 << 50, 1_000_000_000, 1 << 40);
        assert!(big.abs_diff(1024 * 1_000_000_000) < 2048, "{big}");
        assert_eq!(ratio(u64::MAX, 100, 1), 0);
    }

    #[test]
    fn hundredths_have_two_digits() {
        assert_eq!(Hundredths(0).to_string(), "0.00");
        assert_eq!(Hundredths(1234).to_string(), "12.34");
        assert_eq!(Hundredths(5).to_string(), "0.05");
    }
}
