// SPDX-License-Identifier: GPL-2.0

//! CPUs of this machine.

use crate::mm::{
    platform::AtomicU32,
    types::CpuIdx, //
};
use kernel::{
    cpu,
    ffi::{
        c_int,
        c_uint,
        c_ulong, //
    },
    types::NotThreadSafe, //
};

extern "C" {
    fn pcpb_cpu_online(cpu: c_uint) -> bool;
    fn pcpb_num_online_cpus() -> c_uint;
    fn pcpb_this_cpu() -> c_uint;
    fn pcpb_cpu_active(cpu: c_uint) -> bool;
    fn pcpb_settle() -> c_uint;
    fn pcpb_unsettle();
    fn pcpb_move_to(cpu: c_uint) -> c_int;
    fn pcpb_sleep_us(us: c_ulong);
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

/// The calling CPU, for who stays there.
pub(crate) fn this() -> CpuIdx {
    // SAFETY: Reads a number; a caller that moves gets one that is out of date.
    CpuIdx(unsafe { pcpb_this_cpu() })
}

/// Whether threads may be on a CPU: it is online, and not about to go.
fn is_active(cpu: CpuIdx) -> bool {
    // SAFETY: The CPU exists.
    unsafe { pcpb_cpu_active(cpu.0) }
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

/// Keeps the calling task on its CPU while it lives. It may be preempted.
pub(crate) struct Settled {
    cpu: CpuIdx,
    /// It is this task that stays.
    _not_send: NotThreadSafe,
}

impl Settled {
    /// Stays where we are.
    pub(crate) fn new() -> Settled {
        Settled {
            cpu: settle(),
            _not_send: NotThreadSafe,
        }
    }

    /// Where we are.
    pub(crate) fn cpu(&self) -> CpuIdx {
        self.cpu
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        unsettle();
    }
}

/// Where a kernel thread is to be, and where it is: on its CPU, as long as that is online.
///
/// The kernel takes bound threads elsewhere when their CPU goes, unless they may not migrate: then
/// the CPU waits for them. So the thread may not, and leaves of its own accord when it holds nothing
/// that belongs to the CPU.
pub(crate) struct Residence {
    /// The CPU that the thread is on and does not leave but in [`Residence::confirm`].
    at: AtomicU32,
    /// Migration is disabled for the thread that lives here.
    _not_send: NotThreadSafe,
}

/// How often a thread looks whether its CPU is back, in microseconds.
const AWAY_US: c_ulong = 500;

impl Residence {
    /// Moves the calling kernel thread to `home`, and waits for that CPU if need be.
    pub(crate) fn new(home: CpuIdx, give_up: impl Fn() -> bool) -> Residence {
        let residence = Residence {
            at: AtomicU32::new(settle().0),
            _not_send: NotThreadSafe,
        };
        if residence.at() != home {
            residence.wait_for(home, give_up);
        }
        residence
    }

    /// The CPU that the thread is on.
    #[inline]
    pub(crate) fn at(&self) -> CpuIdx {
        let at = CpuIdx(self.at.load());
        debug_assert!(at == this(), "a worker is not where it believes to be");
        at
    }

    /// To be called now and then, by the thread that lives here, in task context with no lock held.
    /// Returns at once while its CPU is online, else when `home` is back, or, somewhere, when
    /// `give_up` says so.
    #[inline]
    pub(crate) fn confirm(&self, home: CpuIdx, give_up: impl Fn() -> bool) {
        if !is_active(self.at()) {
            self.wait_for(home, give_up);
        }
    }

    #[cold]
    fn wait_for(&self, home: CpuIdx, give_up: impl Fn() -> bool) {
        loop {
            unsettle();
            // SAFETY: Task context with no lock held, see `confirm()`.
            unsafe { pcpb_sleep_us(AWAY_US) };
            if is_active(home) {
                // SAFETY: The CPU exists; the kernel refuses one that has gone meanwhile, and then
                // we are not there.
                unsafe { pcpb_move_to(home.0) };
            }
            let here = settle();
            self.at.store(here.0);
            if here == home || give_up() {
                return;
            }
        }
    }
}

impl Drop for Residence {
    fn drop(&mut self) {
        unsettle();
    }
}

/// Keeps the calling thread on the CPU it is on, though it may sleep; says which one that is.
fn settle() -> CpuIdx {
    // SAFETY: Nests; each is undone by `unsettle()`, in the same thread.
    CpuIdx(unsafe { pcpb_settle() })
}

/// Undoes [`settle`].
fn unsettle() {
    // SAFETY: Undoes a `settle()` of this thread.
    unsafe { pcpb_unsettle() }
}
