// SPDX-License-Identifier: GPL-2.0

//! pcp_buddy: a laboratory for page allocators.
//!
//! Takes contiguous ranges from the running kernel, runs private page allocators over them and
//! drives them with workloads on chosen CPUs, all through `/sys/kernel/debug/pcp_buddy/`.
//!
//! * [`mm`]: the allocators. Knows nothing of the kernel but `mm::platform`.
//! * [`workload`]: what a run does. Knows nothing of the kernel at all.
//! * [`command`]: the grammar of the writable files. Likewise.
//! * [`glue`]: everything that touches the kernel.

// Allocators take spinlocks with preemption off, and in interrupts; there, these sleep.
#[cfg(CONFIG_PREEMPT_RT)]
compile_error!("pcp_buddy is not for kernels with CONFIG_PREEMPT_RT");

pub mod command;
mod glue;
pub mod mm;
pub mod workload;

use glue::{
    debugfs::Dir,
    registry::Registry, //
};
use kernel::prelude::*;

module! {
    type: PcpBuddy,
    name: "pcp_buddy",
    authors: ["pcp_buddy developers"],
    description: "Page allocator laboratory",
    license: "GPL",
}

/// The loaded module: its folder, whose files hold the registry, which holds the zones.
///
/// Unloading takes them down in that order: first the files at the root, then each zone with its
/// files, memory last, then the folder. Nobody is in a file of ours by then, and no workload runs:
/// an open file pins the module.
struct PcpBuddy {
    _root: Dir<Registry>,
}

impl kernel::Module for PcpBuddy {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        mm::platform::measure_ticks();
        Ok(PcpBuddy {
            _root: Registry::publish()?,
        })
    }
}
