// SPDX-License-Identifier: GPL-2.0

//! The text that can be written to files in debugfs: any of it is refused in words, or understood,
//! and then prints as a command that is understood the same. A zone of any size and block order that is
//! understood can be made and read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pcp_buddy::{
    command::{parse_run, CommandError, DrainCommand, ZoneCommand, ZoneSpec, MAX_RANGES},
    mm::{types::Order, Config, Economy, ListPolicy, PageAllocator, Place, Report},
};

/// Largest zone that is made: its bits take some megabytes.
const MAX_PAGES: u32 = 1 << 23;

fn refused(error: &CommandError<'_>) {
    assert!(!error.to_string().is_empty());
}

/// Makes the zone over pages that need not be there, and reads what a reader of debugfs does.
fn make(spec: &ZoneSpec) {
    if spec.pages() > MAX_PAGES {
        return;
    }
    let zone = Economy::new(&Config {
        policy: ListPolicy::Pcp,
        range_pages: &[spec.range_pages(); MAX_RANGES][..spec.ranges],
        block_order: spec.block_order,
        nr_cpus: 2,
        online_cpus: 2,
        batch: spec.batch,
        high: spec.high,
        cma_percent: spec.cma_percent,
    });
    let zone = zone.expect("what is understood can be made");
    let chunks = zone.free_chunks(Place::Zone);
    let rows = chunks.iter().flat_map(|row| row.iter().enumerate());
    let pages: u64 = rows.map(|(order, nr)| nr << order).sum();
    assert_eq!(pages, u64::from(spec.pages()));
    assert!(zone.max_order() <= Order::new(18));
}

fuzz_target!(|text: &str| {
    match ZoneCommand::parse(text) {
        Ok(command) => {
            assert_eq!(ZoneCommand::parse(&command.to_string()), Ok(command));
            if let ZoneCommand::Add { spec, .. } = command {
                make(&spec);
            }
        }
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
