// SPDX-License-Identifier: GPL-2.0

//! CPUs of this machine.
//!
//! (CPU hotplug: a `cpuhp` callback registered here will tell the zones.)

use crate::mm::types::CpuIdx;
use kernel::{
    cpu,
    ffi::c_uint,
    types::NotThreadSafe, //
};

extern "C" {
    fn pcpb_cpu_online(cpu: c_uint) -> bool;
    fn pcpb_num_online_cpus() -> c_uint;
    fn pcpb_pin_cpu() -> c_uint;
    fn pcpb_unpin_cpu();
    fn pcpb_cond_resched();
}

/// Upper bound of CPU numbers, plus one.
pub(crate) fn nr_ids() -> u32 {
    cpu::nr_cpu_ids()
}

/// Number of CPUs online.
pub(crate) fn nr_online() -> u32 {
    // SAFETY: Reads a counter.
    unsafe { pcpb_num_online_cpus() }
}

/// Whether there is such a CPU, and it is online.
pub(crate) fn is_online(cpu: CpuIdx) -> bool {
    // SAFETY: Any number may be asked for.
    unsafe { pcpb_cpu_online(cpu.0) }
}

/// Whether this machine has such a CPU, online or not.
pub(crate) fn exists(cpu: CpuIdx) -> bool {
    cpu.0 < nr_ids()
}

/// Lets others run on this CPU if they need it. Task context, no lock held.
pub(crate) fn give_way() {
    // SAFETY: By the condition above; under a lock the kernel would complain, no more.
    unsafe { pcpb_cond_resched() }
}

/// All CPU numbers that exist on this machine, online or not.
pub(crate) fn all() -> impl Iterator<Item = CpuIdx> {
    (0..nr_ids()).map(CpuIdx)
}

/// Keeps the calling task on its CPU, alone, while it lives: preemption is off, nothing may sleep.
/// So counters of this CPU have no other writer in task context.
pub(crate) struct Pinned {
    cpu: CpuIdx,
    /// It is this task that stays.
    _not_send: NotThreadSafe,
}

impl Pinned {
    /// Stays where we are.
    pub(crate) fn new() -> Pinned {
        Pinned {
            // SAFETY: Paired with `pcpb_unpin_cpu()` in `drop()`, in the same task.
            cpu: CpuIdx(unsafe { pcpb_pin_cpu() }),
            _not_send: NotThreadSafe,
        }
    }

    /// Where we are.
    pub(crate) fn cpu(&self) -> CpuIdx {
        self.cpu
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: Undoes the call in `new()`.
        unsafe { pcpb_unpin_cpu() }
    }
}
