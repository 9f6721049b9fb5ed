// SPDX-License-Identifier: GPL-2.0

//! What the kernel tells of CPUs that come and go.
//!
//! A zone hears of a CPU before it comes and after it has gone, on some other CPU, in task context:
//! where mainline calls `page_alloc_cpu_online()` and `page_alloc_cpu_dead()`. So nobody runs on the
//! CPU in question. The kernel itself keeps zones that join or leave apart from CPUs that do.

use super::zone::Zone;
use crate::mm::types::CpuIdx;
use kernel::{
    bindings,
    container_of,
    error::to_result,
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// What the kernel calls for a zone.
type Callback = unsafe extern "C" fn(cpu: c_uint, node: *mut bindings::hlist_node) -> c_int;

extern "C" {
    /// `cpuhp_setup_state_multi()`, in the part that other CPUs do; the state, or an errno.
    fn pcpb_hotplug_setup(online: Callback, dead: Callback) -> c_int;
    /// `cpuhp_remove_multi_state()`.
    fn pcpb_hotplug_remove(state: c_int);
    /// `cpuhp_state_add_instance_nocalls()`.
    fn pcpb_hotplug_join(state: c_int, node: *mut bindings::hlist_node) -> c_int;
    /// `cpuhp_state_remove_instance_nocalls()`.
    fn pcpb_hotplug_leave(state: c_int, node: *mut bindings::hlist_node);
}

/// The module's place among those that hear of CPUs. Outlives every [`Membership`].
///
/// # Invariants
///
/// A state that the kernel gave us.
pub(crate) struct State(c_int);

impl State {
    /// Asks for a place.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is none left.
    pub(crate) fn new() -> Result<State> {
        // SAFETY: Both functions may be called for every node that joins.
        let state = unsafe { pcpb_hotplug_setup(online, dead) };
        to_result(state)?;
        // INVARIANT: Not an error, so a state.
        Ok(State(state))
    }

    /// Lets a zone hear of CPUs from now on.
    ///
    /// # Errors
    ///
    /// Those of the kernel; the zone hears nothing then.
    pub(crate) fn join(&self, zone: &Arc<Zone>) -> Result<Membership> {
        // SAFETY: The node is part of a pinned zone, which the result keeps alive, and in no list.
        to_result(unsafe { pcpb_hotplug_join(self.0, zone.hotplug().0.get()) })?;
        // INVARIANT: It has joined.
        Ok(Membership {
            zone: zone.clone(),
            state: self.0,
        })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody is a member any more.
        unsafe { pcpb_hotplug_remove(self.0) }
    }
}

/// The part of a zone by which the kernel knows it.
pub(crate) struct Node(Opaque<bindings::hlist_node>);

// SAFETY: Only the kernel uses the node, under locks of its own.
unsafe impl Send for Node {}
// SAFETY: As above.
unsafe impl Sync for Node {}

impl Node {
    /// One that has not joined.
    pub(crate) fn new() -> Node {
        Node(Opaque::zeroed())
    }
}

/// A zone that hears of CPUs, until this is dropped.
///
/// # Invariants
///
/// The node of the zone has joined `state`.
pub(crate) struct Membership {
    zone: Arc<Zone>,
    state: c_int,
}

impl Drop for Membership {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { pcpb_hotplug_leave(self.state, self.zone.hotplug().0.get()) }
    }
}

/// The zone of a node.
///
/// # Safety
///
/// `node` is that of a zone which is a member for as long as the reference is used.
unsafe fn zone_of<'a>(node: *mut bindings::hlist_node) -> &'a Zone {
    // SAFETY: By caller precondition the node is the one inside of a `Node` inside of a `Zone`.
    unsafe { &*container_of!(Opaque::cast_from(node), Zone, hotplug.0) }
}

/// A CPU is about to come.
///
/// # Safety
///
/// As for [`zone_of`], during the call.
unsafe extern "C" fn online(cpu: c_uint, node: *mut bindings::hlist_node) -> c_int {
    // SAFETY: By caller precondition.
    unsafe { zone_of(node) }.cpu_online(CpuIdx(cpu));
    0
}

/// A CPU has gone.
///
/// # Safety
///
/// As for [`zone_of`], during the call.
unsafe extern "C" fn dead(cpu: c_uint, node: *mut bindings::hlist_node) -> c_int {
    // SAFETY: By caller precondition.
    unsafe { zone_of(node) }.cpu_dead(CpuIdx(cpu));
    0
}
