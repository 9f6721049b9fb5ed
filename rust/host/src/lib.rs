// SPDX-License-Identifier: GPL-2.0

//! The kernel-agnostic parts of the module as a host crate.

#[path = "../../mm/mod.rs"]
pub mod mm;
