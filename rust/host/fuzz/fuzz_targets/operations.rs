// SPDX-License-Identifier: GPL-2.0

//! Sequences of operations on a zone of any policy, against the model of the property tests.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use arbitrary::Arbitrary;
use common::{
    model::{run, Op, Shape},
    CPUS, ECONOMY, POLICIES,
};
use libfuzzer_sys::fuzz_target;

/// Small numbers, so that few bytes say much.
#[derive(Arbitrary, Debug)]
struct Case {
    policy: u8,
    block_order: u8,
    /// Blocks of each range; eight times as many for `economy` now and then. The model of tests/model.rs has
    /// larger zones, a case of which takes longer.
    ranges: [u8; 3],
    batch: u8,
    high: u8,
    cma: u8,
    ops: Vec<Step>,
}

/// A watermark: none, a small one, or a very large one.
fn watermark(byte: u8, least: u32) -> Option<u32> {
    match byte {
        0 => None,
        255 => Some(1 << 24),
        byte => Some((u32::from(byte) - 1) * 2 + least),
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    Alloc(u8, u8),
    Free(u8, u16),
    AllocBulk(u8, u8),
    FreeBulk(u8, u8),
    AllocRun(u8, u16),
    FreeRun(u8, u8, u16),
    DoubleFree(u8),
    WrongFree(u8, u16, u8),
    Drain(u8, u8),
    Offline(u8),
    Online(u8),
}

/// A CPU in the low bits, a migratetype above.
fn cpu(byte: u8) -> u32 {
    u32::from(byte) % CPUS
}

fn mt(byte: u8) -> usize {
    usize::from(byte >> 4) % 3
}

/// The first CPU stays.
fn mortal(byte: u8) -> u32 {
    1 + u32::from(byte) % (CPUS - 1)
}

impl From<&Step> for Op {
    fn from(step: &Step) -> Op {
        match *step {
            Step::Alloc(who, order) => Op::Alloc {
                cpu: cpu(who),
                order: order % 20,
                mt: mt(who),
            },
            Step::Free(who, which) => Op::Free {
                cpu: cpu(who),
                which: which.into(),
            },
            Step::AllocBulk(who, nr) => Op::AllocBulk {
                cpu: cpu(who),
                nr: nr.into(),
                mt: mt(who),
            },
            Step::FreeBulk(who, nr) => Op::FreeBulk {
                cpu: cpu(who),
                nr: nr.into(),
            },
            Step::AllocRun(who, nr) => Op::AllocRun {
                cpu: cpu(who),
                nr: u32::from(nr) % 3000 + 1,
                mt: mt(who),
            },
            Step::FreeRun(who, which, cut) => Op::FreeRun {
                cpu: cpu(who),
                which: which.into(),
                cut: cut.into(),
            },
            Step::DoubleFree(who) => Op::DoubleFree { cpu: cpu(who) },
            Step::WrongFree(who, which, order) => Op::WrongFree {
                cpu: cpu(who),
                which: which.into(),
                order: order % 20,
            },
            Step::Drain(who, target) => Op::Drain {
                cpu: cpu(who),
                target: cpu(target),
            },
            Step::Offline(who) => Op::Offline { cpu: mortal(who) },
            Step::Online(who) => Op::Online { cpu: mortal(who) },
        }
    }
}

fuzz_target!(|case: Case| {
    let policy = POLICIES[usize::from(case.policy) % POLICIES.len()];
    let block_order = 6 + case.block_order % 5;
    // Some thousand pages: more would find no more, but later.
    let blocks_max = [21, 15, 11, 8, 5][usize::from(block_order) - 6];
    let large = policy == ECONOMY && case.policy >= 248;
    let blocks = case.ranges.map(|blocks| match large {
        true => u32::from(blocks) * 8,
        false => u32::from(blocks) % blocks_max,
    });
    let shape = Shape {
        block_order,
        blocks: blocks.into_iter().filter(|blocks| *blocks != 0).collect(),
        batch: watermark(case.batch, 1),
        high: watermark(case.high, 0),
        cma_percent: case.cma % 101,
    };
    if shape.blocks.is_empty() {
        return;
    }
    let ops: Vec<Op> = case.ops.iter().map(Op::from).collect();
    let every = if large { 64 } else { 8 };
    run(policy, &shape, &ops, every);
});
