// SPDX-License-Identifier: GPL-2.0

//! One test per promise that the policies make.

mod common;

use common::{
    alloc, alloc_pages, assert_ok, assert_pristine, config, counter, free, zone, Zone, BLOCK_PAGES,
    CPUS, ECONOMY, LISTS, OWNER, PCP, POLICIES,
};
use pcp_buddy::mm::{
    types::{BlockIdx, Context, CpuIdx, Error, Migratetype, PageIdx},
    Config, Place,
};

fn owner_of(zone: &dyn Zone, page: PageIdx) -> Option<CpuIdx> {
    let block = BlockIdx(page.0 / BLOCK_PAGES);
    zone.block_info(block).expect("no hole").owner
}

fn free_all(zone: &dyn Zone, cpu: u32, pages: &[PageIdx]) {
    for &page in pages {
        free(zone, cpu, page, 0).unwrap();
    }
}

#[test]
fn a_new_zone_is_pristine() {
    for policy in POLICIES {
        assert_pristine(&*zone(policy, 7));
    }
}

#[test]
fn owner_claims_whole_blocks_and_remote_frees_return_home() {
    let zone = zone(OWNER, 32);
    let pages = alloc_pages(&*zone, 1, 8 * BLOCK_PAGES);
    assert!(counter(&*zone, "block_claimed") >= 3);
    let owned: Vec<_> = pages
        .iter()
        .copied()
        .filter(|&page| owner_of(&*zone, page) == Some(CpuIdx(1)))
        .collect();
    assert!(owned.len() as u32 >= 2 * BLOCK_PAGES);
    free_all(&*zone, 2, &owned);
    assert_eq!(counter(&*zone, "remote_free"), owned.len() as u64);
    let others: Vec<_> = pages
        .into_iter()
        .filter(|page| !owned.contains(page))
        .collect();
    free_all(&*zone, 2, &others);
    assert_ok(&*zone);
    assert_pristine(&*zone);
}

#[test]
fn pcp_owns_nothing_and_frees_stay_local() {
    let zone = zone(PCP, 32);
    let pages = alloc_pages(&*zone, 1, 4 * BLOCK_PAGES);
    free_all(&*zone, 2, &pages);
    assert_eq!(counter(&*zone, "block_claimed"), 0);
    assert_eq!(counter(&*zone, "remote_free"), 0);
    let on_cpu_2: u64 = zone.free_chunks(Place::Cpu(CpuIdx(2)))[1].iter().sum();
    assert!(on_cpu_2 > 0);
    assert_pristine(&*zone);
}

#[test]
fn a_fragment_is_recovered_before_a_fresh_block_is_claimed() {
    let zone = zone(OWNER, 32);
    let pages = alloc_pages(&*zone, 0, 6 * BLOCK_PAGES);
    // Half of each block comes back and is drained: fragments of owned blocks in the zone.
    let (kept, freed): (Vec<_>, Vec<_>) = pages.iter().partition(|page| page.0 % 2 == 0);
    free_all(&*zone, 0, &freed);
    zone.drain(CpuIdx(0), CpuIdx(0));
    assert!((0..32).any(|b| zone.block_info(BlockIdx(b)).unwrap().recoverable));
    let claimed = counter(&*zone, "block_claimed");
    let again = alloc(&*zone, 0, 0, Migratetype::Movable).unwrap();
    assert!(counter(&*zone, "refill_recover_pages") > 0);
    assert!(freed.contains(&again));
    assert_eq!(counter(&*zone, "block_claimed"), claimed);
    free(&*zone, 0, again, 0).unwrap();
    free_all(&*zone, 3, &kept);
    assert_pristine(&*zone);
}

#[test]
fn a_drained_whole_block_is_disowned() {
    let zone = zone(OWNER, 32);
    let pages = alloc_pages(&*zone, 0, 4 * BLOCK_PAGES);
    free_all(&*zone, 0, &pages);
    zone.drain(CpuIdx(0), CpuIdx(0));
    assert!(counter(&*zone, "merge_pcp") > 0);
    assert_eq!(
        counter(&*zone, "block_claimed"),
        counter(&*zone, "block_disowned")
    );
    assert_pristine(&*zone);
}

#[test]
fn a_block_that_becomes_whole_in_the_zone_is_disowned() {
    let zone = zone(OWNER, 32);
    let pages = alloc_pages(&*zone, 0, 8 * BLOCK_PAGES);
    let page = *pages
        .iter()
        .find(|&&page| owner_of(&*zone, page).is_some())
        .unwrap();
    let keep: Vec<_> = pages.iter().copied().filter(|&p| p == page).collect();
    let rest: Vec<_> = pages.iter().copied().filter(|&p| p != page).collect();
    free_all(&*zone, 0, &rest);
    zone.drain(CpuIdx(0), CpuIdx(0));
    assert_eq!(owner_of(&*zone, page), Some(CpuIdx(0)));
    // The last page goes to the zone directly because its owner is gone.
    zone.cpu_dead(CpuIdx(1), CpuIdx(0));
    free_all(&*zone, 1, &keep);
    assert_eq!(owner_of(&*zone, page), None);
    assert_eq!(counter(&*zone, "dead_free"), 1);
    zone.cpu_online(CpuIdx(0));
    assert_pristine(&*zone);
}

#[test]
fn a_dead_cpu_holds_nothing_and_serves_again_when_online() {
    let zone = zone(OWNER, 32);
    let pages = alloc_pages(&*zone, 2, 3 * BLOCK_PAGES + 5);
    free_all(&*zone, 2, &pages[..BLOCK_PAGES as usize]);
    zone.cpu_dead(CpuIdx(0), CpuIdx(2));
    assert_ok(&*zone);
    assert_eq!(zone.tuning(CpuIdx(2)).count, 0);
    assert!((0..32).all(|b| !zone.block_info(BlockIdx(b)).unwrap().recoverable));
    free_all(&*zone, 1, &pages[BLOCK_PAGES as usize..]);
    assert_eq!(zone.tuning(CpuIdx(2)).count, 0);
    zone.cpu_online(CpuIdx(2));
    let pages = alloc_pages(&*zone, 2, BLOCK_PAGES);
    free_all(&*zone, 2, &pages);
    assert_pristine(&*zone);
}

#[test]
fn a_set_smaller_than_a_block_works_page_by_page() {
    let ranges = [32 * BLOCK_PAGES];
    let zone = OWNER
        .zone(&Config {
            batch: Some(4),
            high: Some(BLOCK_PAGES / 2),
            ..config(&ranges)
        })
        .unwrap();
    let pages = alloc_pages(&*zone, 0, 3 * BLOCK_PAGES);
    assert_eq!(counter(&*zone, "block_claimed"), 0);
    free_all(&*zone, 1, &pages);
    assert_eq!(counter(&*zone, "remote_free"), 0);
    assert_pristine(&*zone);
}

#[test]
fn exhaustion_reaches_every_page_and_recovers() {
    for policy in POLICIES {
        let zone = zone(policy, 9);
        let mut pages = Vec::new();
        let mut cpu = 0;
        while let Ok(page) = alloc(&*zone, cpu, 0, Migratetype::Movable) {
            pages.push(page);
            cpu = (cpu + 1) % CPUS;
        }
        assert_eq!(pages.len() as u32, 9 * BLOCK_PAGES);
        assert_eq!(zone.free_pages(), 0);
        assert!(counter(&*zone, "targeted_drain") + counter(&*zone, "steal") > 0);
        assert_ok(&*zone);
        for (i, page) in pages.into_iter().enumerate() {
            free(&*zone, i as u32 % CPUS, page, 0).unwrap();
        }
        assert_pristine(&*zone);
    }
}

#[test]
fn a_targeted_drain_takes_from_who_has_and_leaves_the_rest() {
    for policy in LISTS {
        let zone = zone(policy, 4);
        // CPU 2 and CPU 3 hold free pages, the zone holds none.
        let a = alloc_pages(&*zone, 2, 2 * BLOCK_PAGES);
        let b = alloc_pages(&*zone, 3, 2 * BLOCK_PAGES);
        free_all(&*zone, 2, &a);
        free_all(&*zone, 3, &b);
        let held_by_3 = zone.tuning(CpuIdx(3)).count;
        assert!(zone
            .free_chunks(Place::Zone)
            .iter()
            .flatten()
            .all(|&n| n == 0));
        let before = counter(&*zone, "targeted_drain");
        let served = alloc_pages(&*zone, 1, 1);
        assert_eq!(counter(&*zone, "targeted_drain"), before + 1);
        assert_eq!(zone.tuning(CpuIdx(2)).count, 0);
        assert_eq!(zone.tuning(CpuIdx(3)).count, held_by_3);
        free_all(&*zone, 1, &served);
        assert_pristine(&*zone);
    }
}

#[test]
fn wrong_frees_are_refused_and_counted() {
    for policy in LISTS {
        let zone = zone(policy, 4);
        let page = alloc(&*zone, 0, 2, Migratetype::Movable).unwrap();
        assert_eq!(free(&*zone, 0, page, 1), Err(Error::BadFree));
        assert_eq!(free(&*zone, 0, page.offset(1), 0), Err(Error::BadFree));
        assert_eq!(free(&*zone, 0, PageIdx(1 << 30), 0), Err(Error::Invalid));
        assert_eq!(free(&*zone, 0, page, 11), Err(Error::Invalid));
        free(&*zone, 0, page, 2).unwrap();
        assert_eq!(free(&*zone, 0, page, 2), Err(Error::DoubleFree));
        zone.drain(CpuIdx(0), CpuIdx(0));
        assert_eq!(free(&*zone, 0, page, 2), Err(Error::DoubleFree));
        assert_eq!(counter(&*zone, "double_free"), 2);
        assert_eq!(counter(&*zone, "bad_free"), 2);
        assert_pristine(&*zone);
    }
}

#[test]
fn orders_are_aligned_and_too_large_ones_refused() {
    for policy in LISTS {
        let zone = zone(policy, 64);
        for order in 0..=10 {
            let page = alloc(&*zone, 0, order, Migratetype::Unmovable).unwrap();
            assert_eq!(page.0 % (1 << order), 0);
            free(&*zone, 1, page, order).unwrap();
        }
        assert_eq!(
            alloc(&*zone, 0, 11, Migratetype::Movable),
            Err(Error::Invalid)
        );
        assert_eq!(alloc(&*zone, 0, 0, Migratetype::Cma), Err(Error::Invalid));
        assert_pristine(&*zone);
    }
}

#[test]
fn cma_blocks_serve_movable_requests_only() {
    for policy in LISTS {
        let ranges = [10 * BLOCK_PAGES];
        let zone = policy
            .zone(&Config {
                cma_percent: 60,
                ..config(&ranges)
            })
            .unwrap();
        let mut unmovable = Vec::new();
        while let Ok(page) = alloc(&*zone, 0, 0, Migratetype::Unmovable) {
            unmovable.push(page);
        }
        assert_eq!(unmovable.len() as u32, 4 * BLOCK_PAGES);
        let movable = alloc_pages(&*zone, 1, 6 * BLOCK_PAGES);
        assert!(counter(&*zone, "cma_alloc") > 0);
        free_all(&*zone, 0, &unmovable);
        free_all(&*zone, 2, &movable);
        assert_pristine(&*zone);
        let cma_blocks = (0..10)
            .filter(|&b| zone.block_info(BlockIdx(b)).unwrap().migratetype == Migratetype::Cma)
            .count();
        assert_eq!(cma_blocks, 6);
    }
}

#[test]
fn movable_requests_take_cma_first_when_it_is_most_of_what_is_free() {
    for policy in POLICIES {
        let ranges = [10 * BLOCK_PAGES];
        let zone = policy
            .zone(&Config {
                cma_percent: 60,
                ..config(&ranges)
            })
            .unwrap();
        let page = alloc(&*zone, 0, 0, Migratetype::Movable).unwrap();
        let block = BlockIdx(page.0 / BLOCK_PAGES);
        assert_eq!(
            zone.block_info(block).unwrap().migratetype,
            Migratetype::Cma
        );
        free(&*zone, 0, page, 0).unwrap();
        assert_pristine(&*zone);
    }
}

#[test]
fn fragments_of_cma_blocks_are_recovered_for_movable_requests() {
    let ranges = [16 * BLOCK_PAGES];
    let zone = OWNER
        .zone(&Config {
            cma_percent: 100,
            ..config(&ranges)
        })
        .unwrap();
    let pages = alloc_pages(&*zone, 0, 4 * BLOCK_PAGES);
    let (kept, freed): (Vec<_>, Vec<_>) = pages.iter().partition(|page| page.0 % 2 == 0);
    free_all(&*zone, 0, &freed);
    zone.drain(CpuIdx(0), CpuIdx(0));
    let again = alloc_pages(&*zone, 0, 1);
    assert!(counter(&*zone, "refill_recover_pages") > 0);
    free_all(&*zone, 0, &again);
    free_all(&*zone, 0, &kept);
    assert_pristine(&*zone);
}

#[test]
fn purge_takes_the_zone_lock_far_less_often_under_owner() {
    let acquired = |policy: common::Policy| {
        let zone = zone(policy, 64);
        for _ in 0..50 {
            let pages = alloc_pages(&*zone, 0, 8 * BLOCK_PAGES);
            free_all(&*zone, 1, &pages);
        }
        let acquired = zone.zone_lock().unwrap().figures().acquired;
        assert_pristine(&*zone);
        acquired
    };
    let (pcp, owner) = (acquired(PCP), acquired(OWNER));
    assert!(owner * 3 < pcp, "owner {owner}, pcp {pcp}");
}

#[test]
fn descriptions_that_make_no_sense_are_refused() {
    let good = [BLOCK_PAGES];
    for policy in POLICIES {
        let refused = |config: Config<'_>| {
            assert_eq!(
                policy.zone(&config).err(),
                Some(Error::Invalid),
                "{config:?}"
            );
        };
        let base = config(&good);
        refused(config(&[]));
        refused(config(&[BLOCK_PAGES, 0]));
        refused(config(&[BLOCK_PAGES + 1]));
        refused(config(&[1 << 31, 1 << 31]));
        refused(Config {
            block_order: 5,
            ..base
        });
        refused(Config {
            block_order: 11,
            ..base
        });
        refused(Config { nr_cpus: 0, ..base });
        refused(Config {
            cma_percent: 101,
            ..base
        });
        refused(Config {
            batch: Some(0),
            ..base
        });
    }
}

#[test]
fn economy_refuses_double_frees_wherever_the_first_one_went() {
    let zone = zone(ECONOMY, 16);
    let pages = alloc_pages(&*zone, 0, 3);
    for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let page = alloc_pages(&*zone, 0, 1)[0];
        free(&*zone, first, page, 0).unwrap();
        assert_eq!(free(&*zone, second, page, 0), Err(Error::DoubleFree));
        assert_eq!(zone.last_refused_free(), Some((page, CpuIdx(second))));
    }
    assert_eq!(counter(&*zone, "double_free"), 4);
    // A run is refused as a whole if one page of it is free.
    let run = alloc(&*zone, 0, 2, Migratetype::Movable).unwrap();
    free(&*zone, 1, run.offset(2), 0).unwrap();
    assert_eq!(free(&*zone, 0, run, 2), Err(Error::DoubleFree));
    for page in [0, 1, 3] {
        free(&*zone, 0, run.offset(page), 0).unwrap();
    }
    let block = alloc(&*zone, 0, common::BLOCK_ORDER, Migratetype::Movable).unwrap();
    assert_eq!(free(&*zone, 0, block, 0), Err(Error::BadFree));
    free(&*zone, 2, block, common::BLOCK_ORDER).unwrap();
    assert_eq!(
        free(&*zone, 0, block, common::BLOCK_ORDER),
        Err(Error::DoubleFree)
    );
    assert_eq!(free(&*zone, 0, PageIdx(1 << 30), 0), Err(Error::Invalid));
    free_all(&*zone, 0, &pages);
    assert_pristine(&*zone);
}

#[test]
fn economy_serves_every_order_up_to_a_superpageblock() {
    let ranges = [1 << 18, 1 << 18];
    let zone = ECONOMY
        .zone(&Config {
            block_order: 9,
            high: None,
            ..config(&ranges)
        })
        .unwrap();
    for order in 0..=18 {
        let page = alloc(&*zone, 0, order, Migratetype::Movable).unwrap();
        assert_eq!(page.0 % (1 << order), 0);
        free(&*zone, 1, page, order).unwrap();
    }
    let both = [0, 1].map(|cpu| {
        zone.drain(CpuIdx(0), CpuIdx(0));
        zone.drain(CpuIdx(0), CpuIdx(1));
        alloc(&*zone, cpu, 18, Migratetype::Unmovable).unwrap()
    });
    assert_eq!(
        alloc(&*zone, 0, 0, Migratetype::Movable),
        Err(Error::NoMemory)
    );
    for page in both {
        free(&*zone, 3, page, 18).unwrap();
    }
    assert_eq!(
        alloc(&*zone, 0, 19, Migratetype::Movable),
        Err(Error::Invalid)
    );
    assert_ok(&*zone);
    assert_eq!(zone.free_pages(), zone.managed_pages());
    assert!(zone.metadata_bytes() < zone.managed_pages());
}

#[test]
fn economy_absorbs_remote_frees_and_counts_them_as_free_meanwhile() {
    let zone = zone(ECONOMY, 32);
    let pages = alloc_pages(&*zone, 1, 4 * BLOCK_PAGES);
    let free_before = zone.free_pages();
    free_all(&*zone, 2, &pages);
    assert_eq!(counter(&*zone, "remote_free"), pages.len() as u64);
    assert_eq!(counter(&*zone, "remote_absorbed"), 0);
    assert_eq!(zone.free_pages(), free_before + pages.len() as u64);
    zone.drain(CpuIdx(1), CpuIdx(1));
    assert_eq!(counter(&*zone, "remote_absorbed"), pages.len() as u64);
    assert_pristine(&*zone);
}

#[test]
fn economy_steals_a_partial_block_when_there_is_nothing_else() {
    let zone = zone(ECONOMY, 2);
    let pages = alloc_pages(&*zone, 0, 2 * BLOCK_PAGES);
    free_all(&*zone, 0, &pages[..3]);
    let stolen = alloc_pages(&*zone, 3, 3);
    assert_eq!(counter(&*zone, "steal_blocks"), 1);
    assert_eq!(
        alloc(&*zone, 2, 0, Migratetype::Movable),
        Err(Error::NoMemory)
    );
    // The block has a new owner, and frees find it.
    free_all(&*zone, 0, &pages[3..]);
    free_all(&*zone, 3, &stolen);
    assert_pristine(&*zone);
}

#[test]
fn economy_needs_the_zone_lock_a_hundredth_as_often_as_pcp() {
    let acquired = |policy: common::Policy| {
        let ranges = [512 << 9];
        let zone = policy
            .zone(&Config {
                block_order: 9,
                batch: None,
                high: None,
                ..config(&ranges)
            })
            .unwrap();
        for _ in 0..20 {
            let pages = alloc_pages(&*zone, 0, 8192);
            free_all(&*zone, 1, &pages);
        }
        zone.zone_lock().unwrap().figures().acquired
    };
    let (pcp, economy) = (acquired(PCP), acquired(ECONOMY));
    assert!(economy * 100 <= pcp, "economy {economy}, pcp {pcp}");
}

#[test]
fn no_chunk_reaches_from_one_range_into_the_next() {
    // Adjacent in the index space, not in memory.
    for blocks in [[16, 16], [16, 48], [48, 16]] {
        let ranges = blocks.map(|nr| nr * BLOCK_PAGES);
        for policy in POLICIES {
            let zone = policy.zone(&config(&ranges)).unwrap();
            for nr in [17, 32, 33, 64].map(|nr| nr * BLOCK_PAGES) {
                let run = zone.alloc_contig(CpuIdx(0), nr, Migratetype::Movable, Context::Task);
                let Ok(run) = run else { continue };
                let range = usize::from(run >= zone.range_base(1));
                let end = zone.range_base(range).offset(ranges[range]);
                assert!(run.offset(nr) <= end, "{policy:?}, {nr} pages at {run:?}");
                zone.free_contig(CpuIdx(0), run, nr, Context::Task).unwrap();
            }
            assert_pristine(&*zone);
        }
    }
}
