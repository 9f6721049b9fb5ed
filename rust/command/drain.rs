// SPDX-License-Identifier: GPL-2.0

//! The grammar of `NAME/drain`.

use super::words::{
    bad,
    cpu_list,
    CommandError,
    Reason,
    Words, //
};
use crate::workload::cpus::CpuSet;
use core::fmt;

/// Whose sets shall be drained; prints as the command that gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrainCommand {
    /// Those of all CPUs.
    All,
    /// Those of some CPUs.
    Cpus(CpuSet),
}

impl DrainCommand {
    /// Reads `all` or a CPU list.
    ///
    /// # Errors
    ///
    /// The offending word and what is wrong with it.
    pub fn parse(line: &str) -> Result<DrainCommand, CommandError<'_>> {
        let mut words = Words::new(line);
        let command = match words.next() {
            None => return bad("", line, Reason::Empty),
            Some("all") => DrainCommand::All,
            Some(list) => DrainCommand::Cpus(cpu_list("cpus", list)?),
        };
        words.end()?;
        Ok(command)
    }
}

impl fmt::Display for DrainCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DrainCommand::All => f.write_str("all"),
            DrainCommand::Cpus(set) => set.fmt(f),
        }
    }
}
