// SPDX-License-Identifier: GPL-2.0

//! Real threads: allocate here, free there, drain meanwhile; and nobody is refused what is free all
//! the time.

mod common;

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{
    alloc, alloc_pages, assert_ok, assert_pristine, config, free, zone, Policy, Zone, BLOCK_ORDER,
    BLOCK_PAGES, CPUS, ECONOMY, OWNER, PCP, POLICIES, SPLIT,
};
use pcp_buddy::mm::{
    types::{Context, CpuIdx, Error, Migratetype, Order, PageIdx},
    Config,
};

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

const MOVABLE: Migratetype = Migratetype::Movable;

/// A zone of `blocks` blocks whose refusals are judged.
///
/// Each CPU counts what it asks for before the call, and what it has freed after that. So at most what all
/// had asked for when a call ended, less what had been freed before it began, was in use at any time during the
/// call. If that is less than the number of aligned chunks of the size, one was free all the time.
struct Watched {
    zone: Box<dyn Zone>,
    pages: u64,
    /// Orders up to this one are served if a chunk is free all the time.
    promised: u8,
    asked: [AtomicU64; CPUS as usize],
    freed: [AtomicU64; CPUS as usize],
    in_flight: u64,
    spurious: AtomicU64,
    served: AtomicU64,
    stop: AtomicBool,
}

impl Watched {
    fn new(policy: Policy, config: &Config<'_>) -> Watched {
        let zero = || core::array::from_fn(|_| AtomicU64::new(0));
        Watched {
            zone: policy.zone(config).expect("a valid description"),
            pages: config.range_pages.iter().copied().map(u64::from).sum(),
            // Sets of the list policies keep pieces of larger chunks.
            promised: if policy == ECONOMY {
                config.block_order
            } else {
                0
            },
            // A call each; a block each that goes from the zone to a set or back, where pages are on lists.
            in_flight: match policy {
                ECONOMY => CPUS.into(),
                _ => (CPUS * BLOCK_PAGES).into(),
            },
            asked: zero(),
            freed: zero(),
            spurious: AtomicU64::new(0),
            served: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    fn sum(counts: &[AtomicU64]) -> u64 {
        counts.iter().map(|count| count.load(SeqCst)).sum()
    }

    fn alloc(&self, cpu: u32, order: u8) -> Option<PageIdx> {
        let pages = 1 << order;
        self.asked[cpu as usize].fetch_add(pages, SeqCst);
        let freed = Watched::sum(&self.freed);
        match alloc(&*self.zone, cpu, order, MOVABLE) {
            Ok(page) => {
                self.served.fetch_add(1, SeqCst);
                Some(page)
            }
            Err(error) => {
                assert_eq!(error, Error::NoMemory);
                let used = Watched::sum(&self.asked) - freed - pages;
                let spurious =
                    order <= self.promised && used + self.in_flight < self.pages >> order;
                self.spurious.fetch_add(spurious.into(), SeqCst);
                self.freed[cpu as usize].fetch_add(pages, SeqCst);
                None
            }
        }
    }

    fn free(&self, cpu: u32, page: PageIdx, order: u8) {
        free(&*self.zone, cpu, page, order).expect("an allocated chunk");
        self.freed[cpu as usize].fetch_add(1 << order, SeqCst);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    /// Lets it go on for a while.
    fn watch(&self, ms: u64) {
        thread::sleep(Duration::from_millis(ms));
        self.stop.store(true, SeqCst);
    }

    fn assert_nothing_refused(&self, what: &str) {
        let (spurious, served) = (self.spurious.load(SeqCst), self.served.load(SeqCst));
        assert!(served > 0, "{what}");
        assert_eq!(spurious, 0, "{what}: beside {served} that were served");
        assert_ok(&*self.zone);
    }
}

/// All that is free is in pieces, on the set of one CPU, which takes from it. Others ask for more than
/// there is in a piece.
#[test]
fn large_requests_in_vain_leave_small_ones_alone() {
    for policy in POLICIES {
        for (order, thieves) in [(6, &[0][..]), (7, &[0]), (6, &[0, 2, 3])] {
            let pages = 512 * BLOCK_PAGES;
            let watched = Watched::new(
                policy,
                &Config {
                    high: None,
                    ..config(&[pages])
                },
            );
            for page in alloc_pages(&*watched.zone, 1, pages) {
                if page.0 % BLOCK_PAGES != 17 {
                    free(&*watched.zone, 1, page, 0).expect("an allocated page");
                }
            }
            watched.asked[1].store(u64::from(pages / BLOCK_PAGES), SeqCst);
            thread::scope(|scope| {
                for &thief in thieves {
                    let watched = &watched;
                    scope.spawn(move || {
                        while watched.goes_on() {
                            assert_eq!(watched.alloc(thief, order), None);
                        }
                    });
                }
                let watched = &watched;
                scope.spawn(move || {
                    while watched.goes_on() {
                        if let Some(page) = watched.alloc(1, 0) {
                            watched.free(1, page, 0);
                        }
                    }
                });
                watched.watch(100);
            });
            let what = format!("{policy:?}: order {order}, {} thieves", thieves.len());
            watched.assert_nothing_refused(&what);
        }
    }
}

/// As little as there may be: each CPU has one chunk at most, and gives it back.
#[test]
fn little_memory_goes_round() {
    for policy in POLICIES {
        for (cpus, blocks, order) in [
            (2, 1, 0),
            (2, 2, 0),
            (4, 2, 0),
            (4, 8, 0),
            (2, 4, BLOCK_ORDER),
            (4, 8, BLOCK_ORDER),
            (3, 4, 3),
        ] {
            let ranges = [blocks * BLOCK_PAGES];
            let watched = Watched::new(
                policy,
                &Config {
                    high: Some(blocks * BLOCK_PAGES),
                    ..config(&ranges)
                },
            );
            thread::scope(|scope| {
                for cpu in 0..cpus {
                    let watched = &watched;
                    scope.spawn(move || {
                        let mut turn = 0_u32;
                        while watched.goes_on() {
                            if let Some(page) = watched.alloc(cpu, order) {
                                watched.free(cpu, page, order);
                            }
                            turn += 1;
                            if turn % 64 == 0 {
                                watched.zone.drain(CpuIdx(cpu), CpuIdx(cpu));
                            }
                        }
                    });
                }
                watched.watch(60);
            });
            let what = format!("{policy:?}: {cpus} CPUs, {blocks} blocks, order {order}");
            watched.assert_nothing_refused(&what);
            assert_pristine(&*watched.zone);
        }
    }
}

/// CPUs come and go, what they hold with them; the others find it, and so do they.
#[test]
fn nobody_is_refused_because_of_cpus_that_go() {
    for policy in POLICIES {
        let watched = Watched::new(
            policy,
            &Config {
                high: Some(16 * BLOCK_PAGES),
                ..config(&[12 * BLOCK_PAGES, 4 * BLOCK_PAGES])
            },
        );
        let gone: [AtomicBool; 3] = core::array::from_fn(|_| AtomicBool::new(false));
        let parked: [AtomicBool; 3] = core::array::from_fn(|_| AtomicBool::new(false));
        thread::scope(|scope| {
            for cpu in 0..3_u32 {
                let (watched, gone) = (&watched, &gone[cpu as usize]);
                let parked = &parked[cpu as usize];
                scope.spawn(move || {
                    let mut random = Random(77 + u64::from(cpu));
                    let mut held: Vec<Chunk> = Vec::new();
                    while watched.goes_on() {
                        while gone.load(SeqCst) {
                            parked.store(true, SeqCst);
                            thread::yield_now();
                        }
                        parked.store(false, SeqCst);
                        // Mostly what there is; now and then what there is not.
                        let order = [0, 0, 0, 1, 3, BLOCK_ORDER, 8][random.below(7) as usize];
                        held.extend(watched.alloc(cpu, order).map(|page| (page, order)));
                        while held.len() > 4 {
                            let which = random.below(held.len() as u64) as usize;
                            let (page, order) = held.swap_remove(which);
                            watched.free(cpu, page, order);
                        }
                    }
                    parked.store(true, SeqCst);
                    // The last act of each; nobody goes any more.
                    while gone.load(SeqCst) {
                        thread::yield_now();
                    }
                    for (page, order) in held {
                        watched.free(cpu, page, order);
                    }
                });
            }
            scope.spawn(|| {
                let mut random = Random(5);
                while watched.goes_on() {
                    let cpu = random.below(3) as u32;
                    gone[cpu as usize].store(true, SeqCst);
                    while !parked[cpu as usize].load(SeqCst) {
                        thread::yield_now();
                    }
                    watched.zone.cpu_dead(CpuIdx(3), CpuIdx(cpu));
                    thread::sleep(Duration::from_micros(random.below(300)));
                    watched.zone.cpu_online(CpuIdx(cpu));
                    gone[cpu as usize].store(false, SeqCst);
                    while parked[cpu as usize].load(SeqCst) && watched.goes_on() {
                        thread::yield_now();
                    }
                }
            });
            watched.watch(300);
        });
        watched.assert_nothing_refused(&format!("{policy:?}"));
        assert_pristine(&*watched.zone);
    }
}
