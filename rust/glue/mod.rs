// SPDX-License-Identifier: GPL-2.0

//! Everything that touches the kernel: memory, threads, files.
//!
//! Bottom-up; a file uses those above it. (Two pairs use each other: `ranges` and `poison`, `zone` and
//! `hotplug`.)
//!
//! * `text`, `refusal`: growing text, and refused commands with their reason
//! * `cpu`: CPUs of this machine
//! * `ranges`: contiguous memory taken from the kernel
//! * `poison`: keeps KASAN informed of which pages are free
//! * `stock`: the kernel's own allocator as a policy
//! * `zone`: a zone, whatever its policy
//! * `hotplug`: tells zones of CPUs that come and go
//! * `interrupts`: timers that come upon a workload
//! * `runner`: threads that run a workload in a zone
//! * `debugfs`: folders and files
//! * `zone_files`: the files of a zone
//! * `registry`: all zones, and the files at the root
//!
//! Lock order: `Registry::zones`, the kernel's `cpu_hotplug_lock`, `Zone::control`, the locks of an allocator;
//! `Zone::result` and `LastError::words` are leaves. The files of a zone never take
//! `Registry::zones`: removal of a zone waits for them with that lock held.
//!
//! A place kept for what comes later: symbols for client modules, in a file `client` beside `registry`.

pub(crate) mod cpu;
pub(crate) mod debugfs;
pub(crate) mod hotplug;
mod interrupts;
#[cfg(CONFIG_KASAN_GENERIC)]
mod poison;
pub(crate) mod ranges;
pub(crate) mod refusal;
pub(crate) mod registry;
pub(crate) mod runner;
pub(crate) mod stock;
pub(crate) mod text;
pub(crate) mod zone;
pub(crate) mod zone_files;
