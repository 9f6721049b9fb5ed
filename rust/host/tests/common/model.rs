// SPDX-License-Identifier: GPL-2.0

//! Operations on a zone, and a model that knows only which pages are handed out.

use std::{collections::HashSet, ops::Range};

use super::{alloc, assert_ok, assert_pristine, config, free, Policy, Zone, CPUS};
use pcp_buddy::mm::types::{Context, CpuIdx, Error, Migratetype, Order, PageIdx, MAX_ORDER};

/// One thing that happens to a zone. A `which` or `cut` is taken modulo the number of what there is.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alloc {
        cpu: u32,
        order: u8,
        mt: usize,
    },
    Free {
        cpu: u32,
        which: usize,
    },
    /// Single pages, in one call.
    AllocBulk {
        cpu: u32,
        nr: usize,
        mt: usize,
    },
    /// The single pages among the last ones, in one call.
    FreeBulk {
        cpu: u32,
        nr: usize,
    },
    AllocRun {
        cpu: u32,
        nr: u32,
        mt: usize,
    },
    /// The first pages of a run; the others stay, as single pages.
    FreeRun {
        cpu: u32,
        which: usize,
        cut: usize,
    },
    DoubleFree {
        cpu: u32,
    },
    Drain {
        cpu: u32,
        target: u32,
    },
    Offline {
        cpu: u32,
    },
    Online {
        cpu: u32,
    },
}

/// The pages of each range.
pub(crate) fn index_ranges<'a>(
    zone: &'a dyn Zone,
    ranges: &'a [u32],
) -> impl Iterator<Item = Range<u32>> + 'a {
    ranges.iter().enumerate().map(|(i, &pages)| {
        let base = zone.range_base(i).0;
        base..base + pages
    })
}

/// A zone and what is known of it.
struct Model {
    zone: Box<dyn Zone>,
    ranges: Vec<Range<u32>>,
    valid: HashSet<u32>,
    used: HashSet<u32>,
    chunks: Vec<(PageIdx, u8)>,
    runs: Vec<(PageIdx, u32)>,
    last_freed: Option<PageIdx>,
    dead: HashSet<u32>,
}

impl Model {
    fn new(zone: Box<dyn Zone>, ranges: &[u32]) -> Model {
        let ranges: Vec<_> = index_ranges(&*zone, ranges).collect();
        Model {
            zone,
            valid: ranges.iter().cloned().flatten().collect(),
            ranges,
            used: HashSet::new(),
            chunks: Vec::new(),
            runs: Vec::new(),
            last_freed: None,
            dead: HashSet::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            // An offline CPU runs nothing.
            Op::Alloc { cpu, .. }
            | Op::Free { cpu, .. }
            | Op::AllocBulk { cpu, .. }
            | Op::FreeBulk { cpu, .. }
            | Op::AllocRun { cpu, .. }
            | Op::FreeRun { cpu, .. }
            | Op::DoubleFree { cpu }
            | Op::Drain { cpu, .. }
                if self.dead.contains(&cpu) => {}
            Op::Alloc { cpu, order, mt } => self.alloc(cpu, order, Migratetype::PCP[mt]),
            Op::Free { cpu, which } => {
                if !self.chunks.is_empty() {
                    let i = which % self.chunks.len();
                    self.free(cpu, i);
                }
            }
            Op::AllocBulk { cpu, nr, mt } => self.alloc_bulk(cpu, nr, Migratetype::PCP[mt]),
            Op::FreeBulk { cpu, nr } => self.free_bulk(cpu, nr),
            Op::AllocRun { cpu, nr, mt } => self.alloc_run(cpu, nr, Migratetype::PCP[mt]),
            Op::FreeRun { cpu, which, cut } => {
                if !self.runs.is_empty() {
                    self.free_run(cpu, which % self.runs.len(), cut);
                }
            }
            Op::DoubleFree { cpu } => self.double_free(cpu),
            Op::Drain { cpu, target } => self.zone.drain(CpuIdx(cpu), CpuIdx(target)),
            Op::Offline { cpu } => {
                if self.dead.insert(cpu) {
                    self.zone.cpu_dead(CpuIdx(0), CpuIdx(cpu));
                }
            }
            Op::Online { cpu } => {
                if self.dead.remove(&cpu) {
                    self.zone.cpu_online(CpuIdx(cpu));
                }
            }
        }
    }

    /// Notes that pages were handed out.
    fn take(&mut self, page: PageIdx, nr: u32) {
        let pages = page.0..page.0 + nr;
        let inside = |range: &Range<u32>| range.start <= pages.start && pages.end <= range.end;
        assert!(self.ranges.iter().any(inside), "{pages:?} in no range");
        for p in pages {
            assert!(self.used.insert(p), "page {p} was handed out twice");
        }
    }

    fn alloc(&mut self, cpu: u32, order: u8, mt: Migratetype) {
        match alloc(&*self.zone, cpu, order, mt) {
            Ok(page) => {
                assert!(
                    page.is_aligned(Order::new(order)),
                    "{page:?} of order {order}"
                );
                self.take(page, 1 << order);
                self.chunks.push((page, order));
            }
            Err(error) => {
                assert_eq!(error, Error::NoMemory);
                self.failed(order == 0, mt);
            }
        }
    }

    fn failed(&self, single: bool, mt: Migratetype) {
        let free = (self.valid.len() - self.used.len()) as u64;
        assert_eq!(
            self.zone.free_pages() + self.zone.uncounted_free_pages(),
            free
        );
        // Single pages must not fail while pages are free that the type may use.
        if single && mt == Migratetype::Movable {
            assert_eq!(free, 0, "a page is free, yet the allocation failed");
        }
    }

    fn alloc_bulk(&mut self, cpu: u32, nr: usize, mt: Migratetype) {
        let mut pages = vec![PageIdx(u32::MAX); nr];
        let got = (self.zone).alloc_bulk(CpuIdx(cpu), mt, Context::Task, &mut pages);
        for &page in &pages[..got] {
            self.take(page, 1);
            self.chunks.push((page, 0));
        }
        if got < nr {
            self.failed(true, mt);
        }
    }

    fn free_bulk(&mut self, cpu: u32, nr: usize) {
        let from = self.chunks.len().saturating_sub(nr);
        let mut pages = Vec::new();
        for (page, order) in self.chunks.split_off(from) {
            match order {
                0 => pages.push(page),
                _ => self.chunks.push((page, order)),
            }
        }
        for page in &pages {
            self.used.remove(&page.0);
            self.last_freed = Some(*page);
        }
        let freed = (self.zone).free_bulk(CpuIdx(cpu), &mut pages, Context::Task);
        freed.expect("allocated pages");
    }

    fn alloc_run(&mut self, cpu: u32, nr: u32, mt: Migratetype) {
        match (self.zone).alloc_contig(CpuIdx(cpu), nr, mt, Context::Task) {
            Ok(first) => {
                let order = Order::fitting(nr).get().min(MAX_ORDER);
                assert!(first.is_aligned(Order::new(order)), "{first:?}, {nr} pages");
                self.take(first, nr);
                self.runs.push((first, nr));
            }
            Err(error) => {
                let too_large = Order::fitting(nr) > self.zone.max_order();
                assert!(error == Error::NoMemory || too_large, "{error:?}");
                self.failed(nr == 1, mt);
            }
        }
    }

    fn free_run(&mut self, cpu: u32, i: usize, cut: usize) {
        let (first, nr) = self.runs.swap_remove(i);
        let cut = (cut % nr as usize) as u32 + 1;
        let freed = (self.zone).free_contig(CpuIdx(cpu), first, cut, Context::Task);
        freed.expect("an allocated run");
        // As a whole it is refused now, and stays as it is.
        let again = (self.zone).free_contig(CpuIdx(cpu), first, nr, Context::Task);
        assert_eq!(again, Err(Error::DoubleFree));
        for p in first.0..first.0 + cut {
            self.used.remove(&p);
        }
        self.last_freed = Some(first);
        let rest = (cut..nr).map(|i| (first.offset(i), 0));
        self.chunks.extend(rest);
    }

    fn free(&mut self, cpu: u32, i: usize) {
        let (page, order) = self.chunks.swap_remove(i);
        free(&*self.zone, cpu, page, order).expect("an allocated chunk");
        for p in page.0..page.0 + (1 << order) {
            self.used.remove(&p);
        }
        self.last_freed = Some(page);
    }

    fn double_free(&mut self, cpu: u32) {
        if let Some(page) = self.last_freed.filter(|page| !self.used.contains(&page.0)) {
            assert_eq!(free(&*self.zone, cpu, page, 0), Err(Error::DoubleFree));
        }
    }

    fn check(&self) {
        assert_ok(&*self.zone);
        let free = (self.valid.len() - self.used.len()) as u64;
        assert_eq!(
            self.zone.free_pages() + self.zone.uncounted_free_pages(),
            free
        );
    }

    fn finish(mut self) {
        for (first, nr) in core::mem::take(&mut self.runs) {
            self.chunks.extend((0..nr).map(|i| (first.offset(i), 0)));
        }
        while !self.chunks.is_empty() {
            let i = self.chunks.len() - 1;
            self.free(i as u32 % CPUS * u32::from(self.dead.is_empty()), i);
        }
        assert_pristine(&*self.zone);
    }
}

/// Does operations on a new zone and gives everything back; panics if anything is not as it must be.
pub(crate) fn run(policy: Policy, ranges: &[u32], tune: (u32, u32, u8), ops: &[Op]) {
    let (batch, high, cma_percent) = tune;
    let zone = policy.zone(&pcp_buddy::mm::Config {
        batch: Some(batch),
        high: Some(high),
        cma_percent,
        ..config(ranges)
    });
    let mut model = Model::new(zone.expect("a valid description"), ranges);
    for (i, op) in ops.iter().enumerate() {
        model.apply(op);
        if i % 8 == 0 {
            model.check();
        }
    }
    model.finish();
}
