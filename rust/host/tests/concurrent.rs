// SPDX-License-Identifier: GPL-2.0

//! Real threads: allocate here, free there, drain meanwhile.

mod common;

use std::{
    sync::mpsc,
    thread, //
};

use common::{alloc, assert_pristine, free, zone, Policy, Zone, CPUS, ECONOMY, OWNER, PCP, SPLIT};
use pcp_buddy::mm::types::{Context, CpuIdx, Migratetype, Order, PageIdx};

const OPS: u32 = 30_000;

/// A small generator (xorshift, Marsaglia 2003): tests need variety, not quality.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

type Chunk = (PageIdx, u8);

fn worker(
    zone: &dyn Zone,
    cpu: u32,
    inbox: mpsc::Receiver<Chunk>,
    peers: Vec<mpsc::Sender<Chunk>>,
) {
    let mut random = Random(0x9e37_79b9 + u64::from(cpu));
    for i in 0..OPS {
        let order = if random.below(8) == 0 {
            random.below(7) as u8
        } else {
            0
        };
        let mt = Migratetype::PCP[random.below(3) as usize];
        if let Ok(page) = alloc(zone, cpu, order, mt) {
            let peer = random.below(peers.len() as u64) as usize;
            peers[peer]
                .send((page, order))
                .expect("the peer takes everything");
        }
        if random.below(2) == 0 {
            for (page, order) in inbox.try_iter().take(4) {
                let ctx = if i % 3 == 0 {
                    Context::Softirq
                } else {
                    Context::Task
                };
                zone.free(CpuIdx(cpu), page, Order::new(order), ctx)
                    .unwrap();
            }
        }
        if random.below(500) == 0 {
            zone.drain(CpuIdx(cpu), CpuIdx(random.below(CPUS.into()) as u32));
        }
    }
    drop(peers);
    for (page, order) in inbox {
        free(zone, cpu, page, order).unwrap();
    }
}

fn run(policy: Policy) {
    let zone = zone(policy, 40);
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..CPUS).map(|_| mpsc::channel()).unzip();
    thread::scope(|scope| {
        for (cpu, inbox) in (0..).zip(inboxes) {
            let (zone, peers) = (&*zone, senders.clone());
            scope.spawn(move || worker(zone, cpu, inbox, peers));
        }
        drop(senders);
    });
    assert_pristine(&*zone);
}

#[test]
fn pcp_keeps_every_page_under_threads() {
    run(PCP);
}

#[test]
fn owner_keeps_every_page_under_threads() {
    run(OWNER);
}

#[test]
fn split_keeps_every_page_under_threads() {
    run(SPLIT);
}

#[test]
fn economy_keeps_every_page_under_threads() {
    run(ECONOMY);
}
