// SPDX-License-Identifier: GPL-2.0

//! A zone, whatever its policy: memory, allocator, and who may do what when.
//!
//! [`Control`] is what a zone is busy with. A run claims it for as long as it lasts, but holds no
//! lock meanwhile; `check` holds the lock, so that no run starts under it; removal marks it for
//! good. A zone never looks at other zones.

use super::{
    cpu,
    hotplug::Node,
    ranges::{Addresses, GrabError, Ranges},
    refusal::{refusal, LastError, Outcome},
    stock::StockAllocator,
};
use crate::{
    command::{PolicyName, ZoneName, ZoneSpec, MAX_RANGES},
    mm::{
        self,
        stats::Stats,
        types::{CpuIdx, PageIdx, MAX_ORDER},
        Config,
        Economy,
        Hotplug as _,
        ListAllocator,
        ListPolicy,
        PageAllocator,
        Report, //
    },
    workload,
};
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{Arc, Mutex}, //
};

/// A zone with ranges of its own.
///
/// The allocator goes before the memory it manages.
pub(crate) struct Managed<A> {
    /// What allocates.
    pub(crate) alloc: A,
    /// Where pages are.
    pub(crate) addresses: Addresses,
    /// The memory.
    _ranges: Ranges,
}

/// The allocator of a zone, by kind of policy.
pub(crate) enum Backend {
    /// Policies over one zone buddy.
    List(Managed<ListAllocator>),
    /// A zone of whole blocks.
    Economy(Managed<Economy>),
    /// The kernel's allocator.
    Stock(StockAllocator),
}

/// Does the same with the allocator of a zone, whatever its type.
macro_rules! with_allocator {
    ($zone:expr, $alloc:ident => $body:expr) => {
        match $zone.backend() {
            $crate::glue::zone::Backend::List(managed) => {
                let $alloc = &managed.alloc;
                $body
            }
            $crate::glue::zone::Backend::Economy(managed) => {
                let $alloc = &managed.alloc;
                $body
            }
            $crate::glue::zone::Backend::Stock($alloc) => $body,
        }
    };
}
pub(crate) use with_allocator;

/// What a zone is busy with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Control {
    Idle,
    Running,
    /// Being removed. Never anything else again.
    Gone,
}

/// A zone.
#[pin_data]
pub(crate) struct Zone {
    name: CString,
    spec: ZoneSpec,
    backend: Backend,
    /// Never moved: part of a list.
    pub(super) hotplug: Node,
    #[pin]
    control: Mutex<Control>,
    #[pin]
    result: Mutex<Option<KBox<workload::Report>>>,
    last_error: Arc<LastError>,
}

impl Zone {
    /// Makes a zone: takes the memory and sets up the allocator.
    ///
    /// # Errors
    ///
    /// What is wrong with the description, or what was not to be had. Nothing is held then.
    pub(crate) fn new(
        name: ZoneName<'_>,
        spec: &ZoneSpec,
        last_error: Arc<LastError>,
    ) -> Outcome<Arc<Zone>> {
        let no_memory = || refusal!(ENOMEM, "add {name}: no memory for metadata");
        let backend = match spec.policy {
            PolicyName::Stock => Backend::Stock(new_stock(name, spec)?),
            PolicyName::Pcp => Backend::List(new_list(name, spec, ListPolicy::Pcp)?),
            PolicyName::Owner => Backend::List(new_list(name, spec, ListPolicy::Owner)?),
            PolicyName::Split => Backend::List(new_list(name, spec, ListPolicy::Split)?),
            PolicyName::Economy => {
                // The list policy of a description means nothing to an economy.
                Backend::Economy(Managed::new(name, spec, ListPolicy::Pcp, Economy::new)?)
            }
        };
        let name = CString::try_from_fmt(fmt!("{}", name.as_str())).map_err(|_| no_memory())?;
        let spec = *spec;
        Arc::pin_init(
            pin_init!(Zone {
                name,
                spec,
                backend,
                hotplug: Node::new(),
                control <- new_mutex!(Control::Idle, "Zone::control"),
                result <- new_mutex!(None, "Zone::result"),
                last_error,
            }),
            GFP_KERNEL,
        )
        .map_err(|_| no_memory())
    }

    /// The name as C string.
    pub(crate) fn c_name(&self) -> &CStr {
        &self.name
    }

    /// The name.
    pub(crate) fn name(&self) -> &str {
        // Zone names are ASCII.
        self.name.to_str().unwrap_or("?")
    }

    /// What was asked for.
    pub(crate) fn spec(&self) -> &ZoneSpec {
        &self.spec
    }

    /// The allocator.
    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Where refused writes leave their reason.
    pub(crate) fn last_error(&self) -> &LastError {
        &self.last_error
    }

    /// The kernel's number of a page, where the zone has pages of its own.
    pub(crate) fn pfn(&self, page: PageIdx) -> Option<u64> {
        match &self.backend {
            Backend::List(managed) => Some(managed.addresses.pfn(page)),
            Backend::Economy(managed) => Some(managed.addresses.pfn(page)),
            Backend::Stock(_) => None,
        }
    }

    /// Figures that only policies with ranges of their own have.
    pub(crate) fn report(&self) -> Option<&dyn Report> {
        with_allocator!(self, alloc => alloc.report())
    }

    /// Counters.
    pub(crate) fn stats(&self) -> &Stats {
        with_allocator!(self, alloc => alloc.stats())
    }

    /// Pages that can be allocated now.
    pub(crate) fn free_pages(&self) -> u64 {
        match &self.backend {
            Backend::List(managed) => managed.alloc.free_pages(),
            Backend::Economy(managed) => managed.alloc.free_pages(),
            Backend::Stock(alloc) => alloc.free_pages(),
        }
    }

    /// Whether a run is on.
    pub(crate) fn is_running(&self) -> bool {
        *self.control.lock() == Control::Running
    }

    /// Claims the zone for a run.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a run is on, `ENODEV` if the zone is being removed.
    pub(crate) fn start_run(&self) -> Outcome<RunClaim<'_>> {
        let mut control = self.control.lock();
        match *control {
            Control::Idle => {
                *control = Control::Running;
                Ok(RunClaim(self))
            }
            Control::Running => Err(refusal!(
                EBUSY,
                "{}/run: a workload is running in this zone",
                self.name()
            )),
            Control::Gone => Err(refusal!(
                ENODEV,
                "{}/run: the zone is being removed",
                self.name()
            )),
        }
    }

    /// Lets no run start any more, because the zone is about to go.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a run is on.
    pub(crate) fn retire(&self) -> Outcome {
        let mut control = self.control.lock();
        if *control == Control::Running {
            return Err(refusal!(
                EBUSY,
                "del {}: a workload is running in this zone",
                self.name()
            ));
        }
        *control = Control::Gone;
        Ok(())
    }

    /// Calls `quiet` while no run, drain or move of a dead CPU's pages can be on; `None` if a run is.
    pub(crate) fn while_quiet<R>(&self, quiet: impl FnOnce() -> R) -> Option<R> {
        let control = self.control.lock();
        match *control {
            Control::Running => None,
            Control::Idle | Control::Gone => Some(quiet()),
        }
    }

    /// Gives the set of a CPU back to the zone. Runs may be on, checks not.
    pub(crate) fn drain(&self, target: CpuIdx) {
        let _control = self.control.lock();
        let here = cpu::Settled::new();
        with_allocator!(self, alloc => alloc.drain(here.cpu(), target));
    }

    /// How the kernel knows this zone where CPUs come and go.
    pub(crate) fn hotplug(&self) -> &Node {
        &self.hotplug
    }

    /// A CPU is about to come. The kernel's own pages are the kernel's business.
    pub(crate) fn cpu_online(&self, cpu: CpuIdx) {
        match &self.backend {
            Backend::List(managed) => managed.alloc.cpu_online(cpu),
            Backend::Economy(managed) => managed.alloc.cpu_online(cpu),
            Backend::Stock(_) => {}
        }
    }

    /// A CPU has gone: nothing stays on its set. Runs may be on, checks not.
    pub(crate) fn cpu_dead(&self, dead: CpuIdx) {
        let _control = self.control.lock();
        let here = cpu::Settled::new();
        match &self.backend {
            Backend::List(managed) => managed.alloc.cpu_dead(here.cpu(), dead),
            Backend::Economy(managed) => managed.alloc.cpu_dead(here.cpu(), dead),
            Backend::Stock(_) => {}
        }
    }

    /// Sets counters and lock figures to zero.
    pub(crate) fn reset_stats(&self) {
        with_allocator!(self, alloc => alloc.reset_stats());
    }

    /// Keeps the report of a run, for `result`.
    pub(crate) fn set_result(&self, report: KBox<workload::Report>) {
        // The old report is freed after the lock is released.
        let _old = self.result.lock().replace(report);
    }

    /// Shows the report of the last run, if there was one.
    pub(crate) fn with_result<R>(&self, show: impl FnOnce(Option<&workload::Report>) -> R) -> R {
        show(self.result.lock().as_deref())
    }
}

/// The right to run a workload in a zone, given up when dropped.
pub(crate) struct RunClaim<'a>(&'a Zone);

impl Drop for RunClaim<'_> {
    fn drop(&mut self) {
        *self.0.control.lock() = Control::Idle;
    }
}

fn new_stock(name: ZoneName<'_>, spec: &ZoneSpec) -> Outcome<StockAllocator> {
    if let Some(node) = spec
        .node
        .filter(|node| !super::ranges::node_has_memory(*node))
    {
        return Err(refusal!(EINVAL, "add {name}: node {node} has no memory"));
    }
    StockAllocator::new(u64::from(spec.pages()), spec.node, cpu::nr_ids())
        .map_err(|_| refusal!(ENOMEM, "add {name}: no memory for counters"))
}

fn new_list(
    name: ZoneName<'_>,
    spec: &ZoneSpec,
    policy: ListPolicy,
) -> Outcome<Managed<ListAllocator>> {
    Managed::new(name, spec, policy, ListAllocator::new)
}

impl<A: Report> Managed<A> {
    fn new(
        name: ZoneName<'_>,
        spec: &ZoneSpec,
        policy: ListPolicy,
        make: impl FnOnce(&Config<'_>) -> mm::types::Result<A>,
    ) -> Outcome<Managed<A>> {
        let pages = spec.range_pages();
        if !pages.is_power_of_two() && pages % (1 << MAX_ORDER) != 0 {
            return Err(refusal!(
                EINVAL,
                "add {name}: a range of {} must be a power of two, or a multiple of {}",
                Kib(u64::from(pages)),
                Kib(1 << MAX_ORDER)
            ));
        }
        let ranges =
            Ranges::grab(spec.ranges, pages, spec.node).map_err(|err| err.words(name, spec))?;
        let config = Config {
            policy,
            range_pages: &[pages; MAX_RANGES][..spec.ranges],
            block_order: spec.block_order,
            nr_cpus: cpu::nr_ids(),
            online_cpus: cpu::nr_online(),
            batch: spec.batch,
            high: spec.high,
            cma_percent: spec.cma_percent,
        };
        let alloc = make(&config).map_err(|err| match err {
            mm::types::Error::NoMemory => refusal!(
                ENOMEM,
                "add {name}: no memory for metadata of {} pages",
                spec.pages()
            ),
            _ => refusal!(EINVAL, "add {name}: the allocator refuses this zone"),
        })?;
        let addresses = ranges
            .addresses(|i| alloc.range_base(i))
            .map_err(|errno| refusal!(errno, "add {name}: no address table"))?;
        Ok(Managed {
            alloc,
            addresses,
            _ranges: ranges,
        })
    }
}

/// Pages as a size.
struct Kib(u64);

impl core::fmt::Display for Kib {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}K", self.0 << (crate::command::PAGE_SHIFT - 10))
    }
}

impl GrabError {
    /// The refusal of a zone that wanted memory.
    fn words(self, name: ZoneName<'_>, spec: &ZoneSpec) -> super::refusal::Refusal {
        match self {
            GrabError::Shortage(i) => refusal!(
                ENOMEM,
                "add {name}: no contiguous memory for range {} of {}, {} each{}",
                i + 1,
                spec.ranges,
                Kib(u64::from(spec.range_pages())),
                OnNode(spec.node)
            ),
            GrabError::NoNode => refusal!(EINVAL, "add {name}: no memory{}", OnNode(spec.node)),
            GrabError::Interrupted => refusal!(EINTR, "add {name}: stopped by a signal"),
            GrabError::NoMemory => refusal!(ENOMEM, "add {name}: no memory for metadata"),
        }
    }
}

/// ` on node N`, if one was asked for.
struct OnNode(Option<u32>);

impl core::fmt::Display for OnNode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(node) => write!(f, " on node {node}"),
            None => Ok(()),
        }
    }
}
