// SPDX-License-Identifier: GPL-2.0

//! What the workers of a run share.

use super::{
    report::{Counters, Report},
    spec::Spec,
    Machine,
};
use crate::mm::{
    types::{CpuIdx, Order},
    PageAllocator,
};
use core::fmt;

/// What a plan needs to know of the zone.
#[derive(Clone, Copy, Debug)]
pub struct ZoneFacts {
    /// Pages that can be allocated at once: managed, or the bound of a `stock` zone.
    pub pages: u64,
    /// Largest order that the policy serves.
    pub max_order: Order,
}

/// Why a run cannot be planned; prints as words for `last_error`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlanError {
    /// No memory for tables.
    NoMemory,
    /// The policy serves no order above this.
    Order(Order),
    /// The working set is larger than the zone, which has this many pages.
    Pages(u64),
    /// There is no CPU to run on.
    NoCpu,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::NoMemory => f.write_str("no memory for the tables of the run"),
            PlanError::Order(max) => write!(f, "order: this policy serves none above {max}"),
            PlanError::Pages(pages) => write!(f, "pages: the zone has {pages}"),
            PlanError::NoCpu => f.write_str("cpus: none given"),
        }
    }
}

/// A run: what shall be done, and what the workers share while they do it.
pub struct Plan {
    spec: Spec,
}

impl Plan {
    /// Lays out a run.
    ///
    /// # Errors
    ///
    /// What the zone cannot serve, or `NoMemory`.
    pub fn new(spec: &Spec, zone: &ZoneFacts) -> Result<Plan, PlanError> {
        let _ = zone;
        Ok(Plan { spec: *spec })
    }

    /// What the run does.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Number of workers: one for each CPU of the run.
    pub fn nr_workers(&self) -> usize {
        self.spec.all_cpus().len()
    }

    /// The CPU that worker `worker` must run on.
    pub fn cpu_of(&self, worker: usize) -> CpuIdx {
        self.spec.all_cpus().iter().nth(worker).unwrap_or(CpuIdx(0))
    }

    /// Does the part of one worker, all repetitions, and returns when its CPU has nothing
    /// allocated any more. To be called once for each worker, on the worker's CPU.
    pub fn run_worker<A, M>(&self, worker: usize, zone: &A, machine: &M)
    where
        A: PageAllocator,
        M: Machine<A::Page>,
    {
        let _ = (worker, zone, machine);
    }

    /// Sends home the workers that have been started, because not all can be. Only while at least
    /// one of them has not been started.
    pub fn abort(&self) {}

    /// Ends the run early, as a signal does. For callers that learn of it themselves.
    pub fn stop(&self) {}

    /// Makes the report, when all workers have returned. `policy` is the zone's, `before` and
    /// `after` are its counters before the first worker started and now.
    ///
    /// # Errors
    ///
    /// `NoMemory`.
    pub fn into_report(
        self,
        policy: &'static str,
        before: Counters,
        after: Counters,
    ) -> Result<Report, PlanError> {
        let _ = (before, after);
        Ok(Report::new(self.spec, policy))
    }
}
