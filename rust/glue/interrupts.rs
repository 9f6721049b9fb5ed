// SPDX-License-Identifier: GPL-2.0

//! Interrupts that come upon the workers of a run: a timer on each CPU, and interrupts that CPUs send
//! each other.
//!
//! The timer of a CPU goes off every so often, in the context of the run. In hardirq context it also
//! interrupts the CPU of the next worker, so that both kinds meet at any instruction of anybody.

use super::cpu;
use crate::mm::{
    platform::{
        self,
        AtomicU32, //
    },
    types::{
        Context,
        CpuIdx, //
    },
};
use core::ptr;
use kernel::{
    bindings,
    container_of,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    types::Opaque, //
};

extern "C" {
    /// `lockdep_irq_work_enter()`: locks that PREEMPT_RT would not allow here may be taken.
    fn pcpb_ipi_enter();
    /// `lockdep_irq_work_exit()`.
    fn pcpb_ipi_exit();
}

/// Time from one interrupt to the next, in nanoseconds; more where they take long, so that the task
/// has most of the time.
const GAP_NS: u64 = 40_000;
const GAP_OF_LAST: u64 = 3;

/// What interrupts do.
pub(super) trait Interruptible: Sync {
    /// Called in interrupt context on `cpu`, for a worker; for one worker by several CPUs.
    fn interrupted(&self, worker: usize, cpu: CpuIdx);
}

/// The interrupts that one worker's timer makes.
pub(super) struct Interrupts<'a, W: Interruptible>(Pin<KBox<Inner<'a, W>>>);

/// Where a timer is, whom it interrupts, and who is asked then.
///
/// # Invariants
///
/// `timer` and `ipi` are initialised, and stay where they are. `served` is the number of
/// interrupts sent with `ipi` that have returned, at most `sent`.
struct Inner<'a, W> {
    timer: Opaque<bindings::hrtimer>,
    mode: bindings::hrtimer_mode,
    ipi: Opaque<bindings::call_single_data_t>,
    sent: AtomicU32,
    served: AtomicU32,
    worker: usize,
    /// Worker and CPU that are interrupted in turn.
    next: Option<(usize, CpuIdx)>,
    what: &'a W,
}

// SAFETY: Timer and interrupt are made to be used from several CPUs; the rest is atomic or shared.
unsafe impl<W: Interruptible> Send for Inner<'_, W> {}
// SAFETY: As above.
unsafe impl<W: Interruptible> Sync for Inner<'_, W> {}

impl<'a, W: Interruptible> Interrupts<'a, W> {
    /// Interrupts for a worker; they do not come yet. In hardirq context those of `next`, a worker
    /// and its CPU, too.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        what: &'a W,
        context: Context,
        worker: usize,
        next: (usize, CpuIdx),
    ) -> Result<Interrupts<'a, W>> {
        let hard = context == Context::Hardirq;
        let inner = KBox::new(
            Inner {
                timer: Opaque::zeroed(),
                mode: match hard {
                    true => bindings::hrtimer_mode_HRTIMER_MODE_REL_PINNED,
                    false => bindings::hrtimer_mode_HRTIMER_MODE_REL_PINNED_SOFT,
                },
                ipi: Opaque::zeroed(),
                sent: AtomicU32::new(0),
                served: AtomicU32::new(0),
                worker,
                next: (hard && next.0 != worker).then_some(next),
                what,
            },
            GFP_KERNEL,
        )?;
        let inner = KBox::into_pin(inner);
        // INVARIANT: Here both are initialised, in the box that they do not leave.
        // SAFETY: Memory for a timer that nobody uses so far.
        unsafe {
            bindings::hrtimer_setup(
                inner.timer.get(),
                Some(Inner::<W>::tick),
                bindings::CLOCK_MONOTONIC as bindings::clockid_t,
                inner.mode,
            )
        };
        let info = ptr::from_ref(&*inner).cast_mut().cast::<c_void>();
        // SAFETY: Ours alone so far. All zero is how it begins.
        unsafe {
            (*inner.ipi.get()).func = Some(Inner::<W>::interrupt);
            (*inner.ipi.get()).info = info;
        }
        Ok(Interrupts(inner))
    }

    /// Lets them come, on the calling CPU.
    pub(super) fn start(&self) {
        // CAST: small.
        // SAFETY: An initialised timer, which is stopped before it goes.
        unsafe {
            bindings::hrtimer_start_range_ns(
                self.0.timer.get(),
                GAP_NS as bindings::ktime_t,
                0,
                self.0.mode,
            )
        };
    }

    /// Lets none come any more; when this returns, none is on. Task context.
    pub(super) fn stop(&self) {
        // SAFETY: An initialised timer.
        unsafe { bindings::hrtimer_cancel(self.0.timer.get()) };
        // Nobody sends any more. What has been sent is served as soon as that CPU takes interrupts.
        while self.0.served.load_acquire() != self.0.sent.load() {
            cpu::give_way();
        }
    }
}

impl<W: Interruptible> Drop for Interrupts<'_, W> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<W: Interruptible> Inner<'_, W> {
    /// The timer goes off.
    ///
    /// # Safety
    ///
    /// `timer` is that of an `Inner<W>`, which stays until the timer is cancelled.
    unsafe extern "C" fn tick(timer: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        let begin = platform::now_ns();
        // SAFETY: By the safety requirements of this function.
        let inner = unsafe { &*container_of!(Opaque::cast_from(timer), Self, timer) };
        inner.what.interrupted(inner.worker, cpu::this());
        if let Some((_, next_cpu)) = inner.next {
            inner.send(next_cpu);
        }
        let now = platform::now_ns();
        let then = now + GAP_OF_LAST * (now - begin);
        // CAST: a clock that began with 0 at boot.
        // SAFETY: This is the callback of the timer.
        unsafe {
            bindings::hrtimer_forward(
                timer,
                then as bindings::ktime_t,
                GAP_NS as bindings::ktime_t,
            )
        };
        bindings::hrtimer_restart::HRTIMER_RESTART
    }

    /// Interrupts a CPU, if it has served the last one. Only ever from one timer callback.
    fn send(&self, cpu: CpuIdx) {
        let sent = self.sent.load();
        if self.served.load_acquire() != sent {
            return;
        }
        self.sent.store(sent.wrapping_add(1));
        // CAST: the number of a CPU.
        // SAFETY: Not in use, as we have just seen; `stop()` waits until it is served.
        let refused =
            unsafe { bindings::smp_call_function_single_async(cpu.0 as c_int, self.ipi.get()) };
        if refused != 0 {
            // The CPU is offline.
            self.sent.store(sent);
        }
    }

    /// A CPU has been interrupted.
    ///
    /// # Safety
    ///
    /// `info` points to an `Inner<W>` that stays until this interrupt has been counted as served.
    unsafe extern "C" fn interrupt(info: *mut c_void) {
        // SAFETY: By the safety requirements of this function.
        let inner = unsafe { &*info.cast::<Self>() };
        if let Some((worker, _)) = inner.next {
            // SAFETY: This is an interrupt, and the two calls frame what it does.
            unsafe { pcpb_ipi_enter() };
            inner.what.interrupted(worker, cpu::this());
            // SAFETY: As above.
            unsafe { pcpb_ipi_exit() };
        }
        // ORDERING: Release; pairs with the acquire in `stop()`. Nothing of `inner` is used after it.
        let served = inner.served.load().wrapping_add(1);
        inner.served.store_release(served);
    }
}
