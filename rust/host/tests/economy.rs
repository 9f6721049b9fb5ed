// SPDX-License-Identifier: GPL-2.0

//! What economy must not do: refuse memory that is there, serve what is not aligned, believe a wrong
//! free, or keep others waiting while it works on a large zone.

mod common;

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::*},
    thread,
};

use common::{
    alloc, alloc_pages, assert_ok, assert_pristine, config, counter, free, zone, Zone, BLOCK_PAGES,
    CPUS, ECONOMY,
};
use pcp_buddy::mm::{
    types::{Context, CpuIdx, Error, Migratetype, Order, PageIdx},
    Config, Place,
};

const MOVABLE: Migratetype = Migratetype::Movable;
const UNMOVABLE: Migratetype = Migratetype::Unmovable;

/// A zone of blocks of 2 MiB, with watermarks of its own choice.
fn large_zone(range_pages: &[u32]) -> Box<dyn Zone> {
    let large = Config {
        block_order: 9,
        batch: None,
        high: None,
        ..config(range_pages)
    };
    ECONOMY.zone(&large).unwrap()
}

fn high(blocks: u32, ranges: &[u32]) -> Config<'_> {
    Config {
        batch: Some(BLOCK_PAGES),
        high: Some(blocks * BLOCK_PAGES),
        ..config(ranges)
    }
}

/// Frees pages on a CPU, one by one.
fn free_all(zone: &dyn Zone, cpu: u32, pages: impl IntoIterator<Item = PageIdx>) {
    for page in pages {
        free(zone, cpu, page, 0).unwrap();
    }
}

/// Everything that is free, page by page, on CPU 0.
fn take_all(zone: &dyn Zone) -> Vec<PageIdx> {
    std::iter::from_fn(|| alloc(zone, 0, 0, MOVABLE).ok()).collect()
}

#[test]
fn every_block_order_reports_and_serves_up_to_a_gigabyte_at_most() {
    for block_order in 6..=10 {
        let ranges = [1 << 19, 1 << 19];
        let zone = ECONOMY
            .zone(&Config {
                block_order,
                high: None,
                ..config(&ranges)
            })
            .unwrap();
        assert_eq!(zone.max_order().get(), 18.min(block_order + 9));
        let chunks: u64 = zone.free_chunks(Place::Zone)[MOVABLE.idx()]
            .iter()
            .zip(0..)
            .map(|(nr, order)| nr << order)
            .sum();
        assert_eq!(chunks, zone.managed_pages());
        let top = zone.max_order();
        let page = alloc(&*zone, 0, top.get(), MOVABLE).unwrap();
        let above = alloc(&*zone, 0, top.get() + 1, MOVABLE);
        assert_eq!(above, Err(Error::Invalid));
        free(&*zone, 1, page, top.get()).unwrap();
        assert_ok(&*zone);
    }
}

/// `alloc_contig_pages()` aligns a range to the largest power of two that divides its size.
#[test]
fn runs_are_no_more_aligned_than_their_ranges() {
    const MIB: u32 = 256;
    for (sizes, largest) in [
        (&[1536 * MIB][..], 17),
        (&[1000 * MIB], 11),
        (&[4 * MIB, 4 * MIB], 10),
        (&[1024 * MIB, 1536 * MIB], 17),
        (&[2 * MIB], 10),
    ] {
        let zone = large_zone(sizes);
        assert_eq!(zone.max_order().get(), largest, "{sizes:?} pages");
        let too_long = (1 << largest) + 1;
        let run = zone.alloc_contig(CpuIdx(0), too_long, MOVABLE, Context::Task);
        assert_eq!(run, Err(Error::Invalid));
    }
}

#[test]
fn a_whole_cma_block_does_not_hide_pages_for_unmovable_requests() {
    let ranges = [2 * BLOCK_PAGES];
    for cpu in 0..2 {
        let zone = ECONOMY
            .zone(&Config {
                batch: Some(2 * BLOCK_PAGES),
                cma_percent: 50,
                ..high(8, &ranges)
            })
            .unwrap();
        // The plain block is current on CPU 1, which has the CMA block whole.
        let page = alloc(&*zone, 1, 0, MOVABLE).unwrap();
        let other = alloc(&*zone, cpu, 0, UNMOVABLE).unwrap();
        free_all(&*zone, 0, [page, other]);
        assert_ok(&*zone);
    }
}

#[test]
fn a_run_of_blocks_is_found_on_whichever_set() {
    let make = |high_blocks| {
        ECONOMY
            .zone(&high(high_blocks, &[2 * BLOCK_PAGES]))
            .unwrap()
    };
    // On the set of a CPU, which has more than it may keep as soon as it takes in what is pending.
    let zone = make(1);
    let pages = alloc_pages(&*zone, 1, 2 * BLOCK_PAGES);
    free_all(&*zone, 0, pages);
    assert!(alloc(&*zone, 0, 7, MOVABLE).is_ok());
    // The same without a current block.
    let zone = make(1);
    let nr = 2 * BLOCK_PAGES;
    let run = (zone.alloc_contig(CpuIdx(1), nr, MOVABLE, Context::Task)).unwrap();
    (zone.free_contig(CpuIdx(0), run, nr, Context::Task)).unwrap();
    assert!(alloc(&*zone, 0, 7, MOVABLE).is_ok());
    // On the shared set.
    let zone = make(4);
    let pages = alloc_pages(&*zone, 1, 2 * BLOCK_PAGES);
    zone.cpu_dead(CpuIdx(0), CpuIdx(1));
    free_all(&*zone, 0, pages);
    let page = alloc(&*zone, 0, 7, MOVABLE).unwrap();
    free(&*zone, 3, page, 7).unwrap();
    assert_pristine(&*zone);
}

/// The bits of a run are set all at once, or not at all.
#[test]
fn a_run_whose_free_is_refused_stays_in_use() {
    for order in 1..=5 {
        for freed_by in [0, 1] {
            let zone = ECONOMY.zone(&high(4, &[2 * BLOCK_PAGES])).unwrap();
            let run = alloc(&*zone, 1, order, MOVABLE).unwrap();
            let last = run.offset((1 << order) - 1);
            free(&*zone, 0, last, 0).unwrap();
            let free_before = zone.free_pages();
            let refused = free(&*zone, freed_by, run, order);
            assert_eq!(refused, Err(Error::DoubleFree));
            assert_eq!(zone.free_pages(), free_before);
            let again = take_all(&*zone);
            assert!(!(run.0..last.0).any(|page| again.contains(&PageIdx(page))));
            assert_ok(&*zone);
        }
    }
}

/// A turn after which there is none.
const OVER: u32 = u32::MAX;

/// Says that it is over when the test ends, also if it fails.
struct Over<'a>(&'a AtomicU32);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(OVER, Release);
    }
}

/// Two CPUs free a page at the same moment, one of them its owner; by that the block is whole, and goes to
/// the zone at once.
#[test]
fn what_a_racing_double_free_leaves_behind_is_never_given_out() {
    let zone = ECONOMY.zone(&high(0, &[BLOCK_PAGES])).unwrap();
    let zone = &*zone;
    const ROUNDS: u32 = 10_000;
    let (page, turn, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let wait_for = |word: &AtomicU32, value| {
        let mut turns = 0_u32;
        while word.load(Acquire) < value {
            turns += 1;
            match turns % 1000 {
                0 => thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                wait_for(&turn, round);
                if turn.load(Relaxed) == OVER {
                    return;
                }
                let _ = free(zone, 1, PageIdx(page.load(Relaxed)), 0);
                done.store(round, Release);
            }
        });
        let _over = Over(&turn);
        for round in 1..=ROUNDS {
            let mine = alloc(zone, 0, 0, MOVABLE).unwrap();
            page.store(mine.0, Relaxed);
            turn.store(round, Release);
            (0..round % 37).for_each(|_| std::hint::spin_loop());
            let _ = free(zone, 0, mine, 0);
            zone.drain(CpuIdx(0), CpuIdx(0));
            wait_for(&done, round);
            assert_ok(zone);
            // Whoever gets the block has all of it, once; a free into it brings back that page alone.
            let all = take_all(zone);
            assert_eq!(all.len() as u32, BLOCK_PAGES);
            let other = all.iter().copied().find(|&page| page != mine).unwrap();
            free(zone, 2, other, 0).unwrap();
            assert_eq!(take_all(zone), [other]);
            free_all(zone, 0, all);
            zone.drain(CpuIdx(0), CpuIdx(0));
        }
    });
    assert_pristine(zone);
}

#[test]
fn checks_beside_drains_find_nothing() {
    let zone = zone(ECONOMY, 64);
    let pages = alloc_pages(&*zone, 1, 100);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let zone = &*zone;
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                (0..CPUS).for_each(|cpu| zone.drain(CpuIdx(0), CpuIdx(cpu)));
            }
        });
        let checks: Vec<_> = (0..2000).map(|_| zone.check()).collect();
        stop.store(true, Relaxed);
        assert!(checks.iter().all(Result::is_ok));
    });
    free_all(&*zone, 1, pages);
    assert_pristine(&*zone);
}

/// How many blocks are worked on at a stretch, with preemption or interrupts off: 32.
#[test]
fn large_zones_keep_nobody_waiting() {
    const STRETCH: u64 = 32;
    const BLOCK: u32 = 512;
    let nr_blocks = 16 << 9;
    let zone = large_zone(&[nr_blocks * BLOCK]);
    let (pages_of, first_pages) = (nr_blocks * BLOCK, (0..nr_blocks).map(|nr| nr * BLOCK));
    let mut all = vec![PageIdx(0); pages_of as usize];
    let got = zone.alloc_bulk(CpuIdx(1), MOVABLE, Context::Task, &mut all);
    assert_eq!(got, all.len());
    // A page of each block is in use; the rest was freed by another CPU.
    let mut rest: Vec<_> = all.into_iter().filter(|page| page.0 % BLOCK != 0).collect();
    zone.free_bulk(CpuIdx(0), &mut rest, Context::Task).unwrap();
    let absorbed = || counter(&*zone, "remote_absorbed");
    let page = alloc(&*zone, 1, 0, MOVABLE).unwrap();
    assert!((1..=STRETCH * u64::from(BLOCK)).contains(&absorbed()));
    // A CPU goes: its blocks do so in stretches.
    let shared = || zone.pcp_locks().unwrap().figures().acquired;
    let before = shared();
    zone.cpu_dead(CpuIdx(0), CpuIdx(1));
    assert!(shared() - before >= u64::from(nr_blocks) / STRETCH);
    // Everything becomes whole, and goes to the zone.
    let in_zone = || zone.zone_lock().unwrap().figures().acquired;
    let before = in_zone();
    free(&*zone, 2, page, 0).unwrap();
    free_all(&*zone, 2, first_pages.map(PageIdx));
    assert_eq!(zone.free_pages(), zone.managed_pages());
    zone.drain(CpuIdx(0), CpuIdx(2));
    assert!(in_zone() - before >= u64::from(nr_blocks) / STRETCH);
    assert_eq!(zone.free_chunks(Place::Shared)[MOVABLE.idx()], [0; 19]);
    assert_ok(&*zone);
}

/// Who asks in vain does not enter the sets of others.
#[test]
fn requests_in_vain_disturb_nobody() {
    let zone = ECONOMY.zone(&high(64, &[16 * BLOCK_PAGES])).unwrap();
    let pages = alloc_pages(&*zone, 1, 16 * BLOCK_PAGES);
    // Every second page is in use.
    let (kept, freed): (Vec<_>, Vec<_>) = pages.into_iter().partition(|page| page.0 % 2 == 0);
    free_all(&*zone, 1, freed);
    for order in 1..=7 {
        for mt in Migratetype::PCP {
            assert_eq!(alloc(&*zone, 0, order, mt), Err(Error::NoMemory));
        }
    }
    assert_eq!(counter(&*zone, "seize"), 0);
    assert!(alloc(&*zone, 0, 0, UNMOVABLE).is_ok_and(|page| free(&*zone, 0, page, 0).is_ok()));
    free_all(&*zone, 1, kept);
    assert_pristine(&*zone);
}

/// A block that was taken from its owner while frees into it were pending leaves no trace with that one.
#[test]
fn the_next_owner_of_a_gathered_block_hears_of_frees_at_once() {
    let zone = ECONOMY.zone(&high(4, &[2 * BLOCK_PAGES])).unwrap();
    let pages = alloc_pages(&*zone, 1, 2 * BLOCK_PAGES);
    free_all(&*zone, 2, pages);
    let run = alloc(&*zone, 0, 7, MOVABLE).unwrap();
    free(&*zone, 0, run, 7).unwrap();
    let page = alloc(&*zone, 3, 0, MOVABLE).unwrap();
    free(&*zone, 0, page, 0).unwrap();
    zone.drain(CpuIdx(0), CpuIdx(3));
    let in_zone = zone.free_chunks(Place::Zone)[MOVABLE.idx()];
    assert_eq!(in_zone[7], 1, "{in_zone:?}");
    assert_ok(&*zone);
}

#[test]
fn interrupts_get_runs_of_blocks_from_their_own_set() {
    let zone = ECONOMY.zone(&high(128, &[128 * BLOCK_PAGES])).unwrap();
    let pages = alloc_pages(&*zone, 0, 128 * BLOCK_PAGES);
    free_all(&*zone, 0, pages);
    for order in [7, 10, 12, 13] {
        let (cpu, order) = (CpuIdx(0), Order::new(order));
        let run = (zone.alloc(cpu, order, MOVABLE, Context::Softirq)).unwrap();
        zone.free(cpu, run, order, Context::Hardirq).unwrap();
        let pages = alloc_pages(&*zone, 0, 128 * BLOCK_PAGES);
        free_all(&*zone, 0, pages);
    }
    assert_pristine(&*zone);
}

/// However much else is pending with its former owner, who stays idle.
#[test]
fn the_next_owner_of_a_stolen_block_hears_of_frees_at_once() {
    let zone = ECONOMY.zone(&high(256, &[256 * BLOCK_PAGES])).unwrap();
    let pages = alloc_pages(&*zone, 1, 256 * BLOCK_PAGES);
    let (early, late): (Vec<_>, Vec<_>) =
        (pages.into_iter()).partition(|page| page.0 % BLOCK_PAGES < 2);
    free_all(&*zone, 0, early);
    let mine = alloc_pages(&*zone, 0, 2);
    free_all(&*zone, 2, late);
    free_all(&*zone, 3, mine);
    for cpu in 0..CPUS {
        zone.drain(CpuIdx(0), CpuIdx(cpu));
    }
    let in_zone = zone.free_chunks(Place::Zone)[MOVABLE.idx()];
    let whole: u64 = in_zone.iter().zip(0..).map(|(nr, order)| nr << order).sum();
    assert_eq!(whole, zone.managed_pages());
    assert_ok(&*zone);
}
