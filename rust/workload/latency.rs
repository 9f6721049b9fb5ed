// SPDX-License-Identifier: GPL-2.0

//! How long single calls of the allocator take: histograms fine enough for percentiles.
//!
//! A bucket is an eighth of a power of two wide, so a percentile is exact to an eighth; the idea is that of
//! HdrHistogram (Tene). Reading the clock is part of each time: what two readings with nothing in between
//! take is told beside them.

use crate::mm::{
    platform::{
        ticks,
        ticks_to_ns,
        Array,
        AtomicU64, //
    },
    types::Result, //
};
use core::fmt::{
    self,
    Write, //
};

/// Buckets per power of two, as an order.
const FINE: u32 = 3;

/// Buckets for times below `2^35` ticks; the last one has all that is longer.
const NR_BUCKETS: usize = (33 << FINE) as usize;

/// What can be timed.
#[derive(Clone, Copy)]
pub(super) enum Call {
    Alloc,
    Free,
    /// Nothing: two readings of the clock.
    Nothing,
}

const NR_CALLS: usize = Call::Nothing as usize + 1;

/// Percentiles that are told, in tenths.
const PERMILLE: [(&str, u64); 5] = [
    ("p50", 500),
    ("p90", 900),
    ("p99", 990),
    ("p999", 999),
    ("max", 1000),
];

/// The times of all workers, each of which writes its own; nothing if they are not taken.
pub(super) struct Latencies(Array<AtomicU64>);

impl Latencies {
    /// Room for the times of that many workers, or for none.
    pub(super) fn new(workers: usize) -> Result<Latencies> {
        let nr = workers * NR_CALLS * NR_BUCKETS;
        Ok(Latencies(Array::new(nr, |_| AtomicU64::new(0))?))
    }

    /// Does a call of a worker and takes its time.
    #[inline]
    pub(super) fn time<R>(&self, worker: usize, call: Call, deed: impl FnOnce() -> R) -> R {
        let start = ticks();
        let result = deed();
        let bucket = bucket_of(ticks().saturating_sub(start));
        let row = (worker * NR_CALLS + call as usize) * NR_BUCKETS;
        if let Some(count) = self.0.get(row + bucket) {
            count.store(count.load() + 1);
        }
        result
    }

    /// Calls of all workers in a bucket.
    fn sum(&self, call: Call, bucket: usize) -> u64 {
        let rows = self.0.chunks(NR_CALLS * NR_BUCKETS);
        rows.map(|row| row[call as usize * NR_BUCKETS + bucket].load())
            .sum()
    }

    /// The time, in ticks, that so many of a thousand calls do not exceed; `None` if there were none.
    fn percentile(&self, call: Call, permille: u64) -> Option<u64> {
        let total: u64 = (0..NR_BUCKETS).map(|bucket| self.sum(call, bucket)).sum();
        let wanted = (total * permille).div_ceil(1000);
        let mut seen = 0;
        let found = (0..NR_BUCKETS).find(|&bucket| {
            seen += self.sum(call, bucket);
            seen >= wanted
        });
        found.filter(|_| total != 0).map(end_of)
    }

    /// Writes the percentiles, in nanoseconds, one a line.
    pub(super) fn write(&self, out: &mut dyn Write) -> fmt::Result {
        let mut line = |name: &str, call, (suffix, permille): (&str, u64)| match self
            .percentile(call, permille)
        {
            Some(time) => writeln!(out, "{name}_ns_{suffix}: {}", ticks_to_ns(time)),
            None => writeln!(out, "{name}_ns_{suffix}: n/a"),
        };
        for (name, call) in [("alloc", Call::Alloc), ("free", Call::Free)] {
            for percentile in PERMILLE {
                line(name, call, percentile)?;
            }
        }
        line("clock", Call::Nothing, PERMILLE[0])
    }
}

fn bucket_of(ticks: u64) -> usize {
    let log2 = (ticks | 1).ilog2().max(FINE);
    let fine = (ticks >> (log2 - FINE)) as usize & ((1 << FINE) - 1);
    let first = (log2 - FINE) as usize;
    let bucket = match ticks >> FINE {
        0 => ticks as usize,
        _ => ((first + 1) << FINE) + fine,
    };
    bucket.min(NR_BUCKETS - 1)
}

/// The longest time that goes into a bucket.
fn end_of(bucket: usize) -> u64 {
    let (power, fine) = (bucket >> FINE, bucket as u64 & ((1 << FINE) - 1));
    match power {
        0 => fine,
        _ => (((1 << FINE) + fine + 1) << (power - 1)) - 1,
    }
}

#[cfg(any(test, CONFIG_KUNIT))]
#[cfg_attr(MODULE, crate::mm::platform::kunit_tests(pcpb_latency))]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_an_eighth_wide() {
        let mut last = 0;
        for ticks in (0..5000).chain([1 << 20, 1 << 30, (1 << 35) - 1]) {
            let bucket = bucket_of(ticks);
            assert!(bucket >= last);
            last = bucket;
            assert!(end_of(bucket) >= ticks);
            assert!(end_of(bucket) <= ticks + ticks / 8);
            assert_eq!(bucket_of(end_of(bucket)), bucket);
        }
        assert_eq!(last, NR_BUCKETS - 1);
        assert_eq!(bucket_of(u64::MAX), NR_BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_over_all_workers() {
        let times = Latencies::new(2).unwrap();
        let count = |worker: usize, ticks: u64, nr: u64| {
            times.0[worker * NR_CALLS * NR_BUCKETS + bucket_of(ticks)].store(nr);
        };
        count(0, 4, 980);
        count(1, 7, 19);
        count(1, 1 << 20, 1);
        assert_eq!(times.percentile(Call::Alloc, 500), Some(4));
        assert_eq!(times.percentile(Call::Alloc, 980), Some(4));
        assert_eq!(times.percentile(Call::Alloc, 990), Some(7));
        assert_eq!(
            times.percentile(Call::Alloc, 1000),
            Some(end_of(bucket_of(1 << 20)))
        );
        assert_eq!(times.percentile(Call::Free, 500), None);
    }
}
