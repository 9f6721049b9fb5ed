// SPDX-License-Identifier: GPL-2.0

//! The grammar of the writable debugfs files: text in, checked descriptions out.
//!
//! A command is one line of words separated by blanks; most words are `key=value`. A key given
//! twice, a key that the command does not know and a value out of range are errors, and an error
//! says which word it is about and why. Nothing is carried out here.
//!
//! | file        | parsed by                   | gives                                  |
//! |-------------|-----------------------------|----------------------------------------|
//! | `zones`     | [`ZoneCommand::parse`]      | [`ZoneCommand`]                        |
//! | `NAME/run`  | [`parse_run`]               | [`Spec`](crate::workload::spec::Spec)  |
//! | `NAME/drain`| [`DrainCommand::parse`]     | [`DrainCommand`]                       |
//!
//! What is parsed prints as a command that gives it again.

// KUnit wraps tests in unsafe code, so the host build watches over this.
#![cfg_attr(not(MODULE), forbid(unsafe_code))]

mod drain;
mod run;
mod words;
mod zone;

pub use self::{
    drain::DrainCommand,
    run::parse_run,
    words::{
        CommandError,
        Reason, //
    },
    zone::{
        PolicyName,
        ZoneCommand,
        ZoneName,
        ZoneSpec,
        MAX_RANGES,
        PAGE_SHIFT, //
    }, //
};
