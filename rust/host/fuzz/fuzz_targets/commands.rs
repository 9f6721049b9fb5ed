// SPDX-License-Identifier: GPL-2.0

//! The text that can be written to files in debugfs: any of it is refused in words, or understood,
//! and then prints as a command that is understood the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pcp_buddy::command::{parse_run, CommandError, DrainCommand, ZoneCommand};

fn refused(error: &CommandError<'_>) {
    assert!(!error.to_string().is_empty());
}

fuzz_target!(|text: &str| {
    match ZoneCommand::parse(text) {
        Ok(command) => assert_eq!(ZoneCommand::parse(&command.to_string()), Ok(command)),
        Err(error) => refused(&error),
    }
    match DrainCommand::parse(text) {
        Ok(command) => assert_eq!(DrainCommand::parse(&command.to_string()), Ok(command)),
        Err(error) => refused(&error),
    }
    match parse_run(text) {
        Ok(spec) => assert_eq!(parse_run(&spec.to_string()), Ok(spec)),
        Err(error) => refused(&error),
    }
});
