// SPDX-License-Identifier: GPL-2.0

//! The kernel-agnostic parts of the module as a host crate.

#[path = "../../mm/mod.rs"]
pub mod mm;

#[path = "../../workload/mod.rs"]
pub mod workload;

#[path = "../../command/mod.rs"]
pub mod command;
