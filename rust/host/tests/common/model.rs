// SPDX-License-Identifier: GPL-2.0

//! Operations on a zone, and a model that knows only which pages are handed out.

use std::{collections::HashSet, ops::Range};

use super::{alloc, assert_ok, assert_pristine_in, config, free, Policy, Zone, CPUS, ECONOMY};
use pcp_buddy::mm::{
    types::{BlockIdx, Context, CpuIdx, Error, Migratetype, Order, PageIdx, MAX_ORDER},
    BlockInfo, Config, Place,
};

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
    /// As one chunk, pages of which not all are in use.
    WrongFree {
        cpu: u32,
        which: usize,
        order: u8,
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

/// What a zone is made like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) block_order: u8,
    /// Blocks of each range.
    pub(crate) blocks: Vec<u32>,
    pub(crate) batch: Option<u32>,
    pub(crate) high: Option<u32>,
    pub(crate) cma_percent: u8,
}

/// Which pages of the index space are in use, holes among them.
struct Used(Vec<u64>);

impl Used {
    fn new(pages: u32) -> Used {
        Used(vec![u64::MAX; pages.div_ceil(64) as usize])
    }

    fn contains(&self, page: u32) -> bool {
        self.0[page as usize / 64] >> (page % 64) & 1 != 0
    }

    /// Whether it was not there before.
    fn insert(&mut self, page: u32) -> bool {
        let fresh = !self.contains(page);
        self.0[page as usize / 64] |= 1 << (page % 64);
        fresh
    }

    fn remove(&mut self, page: u32) {
        self.0[page as usize / 64] &= !(1 << (page % 64));
    }

    /// Whether all pages of an aligned run are free.
    fn is_free(&self, first: u32, order: u8) -> bool {
        let word = first as usize / 64;
        match order {
            0..=5 => {
                let mask = (1 << (1 << order)) - 1;
                self.0[word] >> (first % 64) & mask == 0
            }
            _ => self.0[word..word + (1 << (order - 6))]
                .iter()
                .all(|w| *w == 0),
        }
    }
}

/// A zone and what is known of it.
struct Model {
    policy: Policy,
    zone: Box<dyn Zone>,
    block_order: u8,
    ranges: Vec<Range<u32>>,
    /// Pages of the zone.
    managed: u64,
    used: Used,
    nr_used: u64,
    /// By block, whether it is of type CMA.
    cma: Vec<bool>,
    chunks: Vec<(PageIdx, u8)>,
    runs: Vec<(PageIdx, u32)>,
    last_freed: Option<PageIdx>,
    dead: HashSet<u32>,
}

impl Model {
    fn new(policy: Policy, zone: Box<dyn Zone>, block_order: u8, ranges: &[u32]) -> Model {
        let ranges: Vec<_> = index_ranges(&*zone, ranges).collect();
        let cma = (0..zone.nr_blocks())
            .map(|block| zone.block_info(BlockIdx(block)))
            .map(|info| info.is_some_and(|info| info.migratetype == Migratetype::Cma))
            .collect();
        let mut used = Used::new(zone.nr_blocks() << block_order);
        for page in ranges.iter().cloned().flatten() {
            used.remove(page);
        }
        Model {
            policy,
            block_order,
            managed: ranges.iter().map(|range| range.len() as u64).sum(),
            zone,
            ranges,
            used,
            nr_used: 0,
            cma,
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
            | Op::WrongFree { cpu, .. }
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
            Op::WrongFree { cpu, which, order } => {
                if !self.chunks.is_empty() {
                    self.wrong_free(cpu, which % self.chunks.len(), order);
                }
            }
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
        self.nr_used += u64::from(nr);
    }

    /// Notes that pages were given back.
    fn give(&mut self, page: PageIdx, nr: u32) {
        for p in page.0..page.0 + nr {
            assert!(self.used.contains(p));
            self.used.remove(p);
        }
        self.nr_used -= u64::from(nr);
        self.last_freed = Some(page);
    }

    fn nr_free(&self) -> u64 {
        self.managed - self.nr_used
    }

    /// Whether the blocks of a run are of types that a request may use together: no policy joins CMA blocks
    /// with others, as mainline does not merge them.
    fn suits(&self, first: u32, order: u8, mt: Migratetype) -> bool {
        let nr = 1_usize << order.saturating_sub(self.block_order);
        let block = (first >> self.block_order) as usize;
        let mut blocks = self.cma[block..block + nr].iter();
        match self.cma[block] {
            true => mt == Migratetype::Movable && blocks.all(|cma| *cma),
            false => blocks.all(|cma| !cma),
        }
    }

    /// Whether there is an aligned free run that a request may use. Each range begins aligned to the largest
    /// order.
    fn has(&self, order: u8, mt: Migratetype) -> bool {
        let in_range = |range: &Range<u32>| {
            let fits = |first: &u32| first + (1 << order) <= range.end;
            let mut firsts = range.clone().step_by(1 << order).take_while(fits);
            firsts.any(|first| self.used.is_free(first, order) && self.suits(first, order, mt))
        };
        self.ranges.iter().any(in_range)
    }

    /// Whether there are so many largest chunks in a row.
    fn has_span(&self, nr: u32, mt: Migratetype) -> bool {
        let (order, mut found) = (MAX_ORDER, 0);
        let mut is_next = |range: &Range<u32>| {
            found = 0;
            range.clone().step_by(1 << order).any(|first| {
                let whole = first + (1 << order) <= range.end
                    && self.used.is_free(first, order)
                    && self.suits(first, order, mt);
                found = if whole { found + 1 } else { 0 };
                found == nr
            })
        };
        self.ranges.iter().any(&mut is_next)
    }

    fn alloc(&mut self, cpu: u32, order: u8, mt: Migratetype) {
        match alloc(&*self.zone, cpu, order, mt) {
            Ok(page) => {
                assert!(order <= self.zone.max_order().get());
                assert!(
                    page.is_aligned(Order::new(order)),
                    "{page:?} of order {order}"
                );
                self.take(page, 1 << order);
                self.chunks.push((page, order));
            }
            Err(Error::Invalid) => assert!(order > self.zone.max_order().get()),
            Err(error) => {
                assert_eq!(error, Error::NoMemory);
                self.failed();
                assert!(!self.has(order, mt), "refused: order {order}, {mt:?}");
            }
        }
    }

    /// All that is free is known.
    fn failed(&self) {
        let free = self.zone.free_pages() + self.zone.uncounted_free_pages();
        assert_eq!(free, self.nr_free());
    }

    fn alloc_bulk(&mut self, cpu: u32, nr: usize, mt: Migratetype) {
        let mut pages = vec![PageIdx(u32::MAX); nr];
        let got = (self.zone).alloc_bulk(CpuIdx(cpu), mt, Context::Task, &mut pages);
        for &page in &pages[..got] {
            self.take(page, 1);
            self.chunks.push((page, 0));
        }
        if got < nr {
            self.failed();
            assert!(!self.has(0, mt), "refused: {mt:?}, {got} of {nr}");
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
            self.give(*page, 1);
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
                let (order, max) = (Order::fitting(nr), self.zone.max_order());
                assert!(error == Error::NoMemory || order > max, "{error:?}");
                self.failed();
                // A run that is larger than a chunk is put together by the list policies.
                let there = match order > max {
                    true => self.policy != ECONOMY && self.has_span(nr.div_ceil(max.pages()), mt),
                    false => self.has(order.get(), mt),
                };
                assert!(!there, "refused: {nr} pages, {mt:?}");
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
        self.give(first, cut);
        let rest = (cut..nr).map(|i| (first.offset(i), 0));
        self.chunks.extend(rest);
    }

    fn free(&mut self, cpu: u32, i: usize) {
        let (page, order) = self.chunks.swap_remove(i);
        free(&*self.zone, cpu, page, order).expect("an allocated chunk");
        self.give(page, 1 << order);
    }

    /// A free of a run of which a page is in use and another is free: nothing changes.
    fn wrong_free(&mut self, cpu: u32, i: usize, order: u8) {
        let order = order.min(self.block_order);
        let first = self.chunks[i].0.align_down(Order::new(order));
        let is_used = |page| self.used.contains(page);
        if (first.0..first.0 + (1 << order)).all(is_used) {
            return;
        }
        let freed = free(&*self.zone, cpu, first, order);
        assert!(freed.is_err(), "{first:?} of order {order}");
        self.failed();
    }

    fn double_free(&mut self, cpu: u32) {
        if let Some(page) = self.last_freed.filter(|page| !self.used.contains(page.0)) {
            assert_eq!(free(&*self.zone, cpu, page, 0), Err(Error::DoubleFree));
        }
    }

    fn check(&self) {
        assert_ok(&*self.zone);
        self.failed();
        self.read();
    }

    /// What can be read of a zone at any moment.
    fn read(&self) {
        let cpus = (0..CPUS).map(|cpu| Place::Cpu(CpuIdx(cpu)));
        let chunks = [Place::Zone, Place::Shared].into_iter().chain(cpus);
        let pages = |place| -> u64 {
            let by_type = self.zone.free_chunks(place);
            let rows = by_type.iter().flat_map(|row| row.iter().enumerate());
            rows.map(|(order, nr)| nr << order).sum()
        };
        let free = self.nr_free() - self.zone.uncounted_free_pages();
        assert_eq!(chunks.map(pages).sum::<u64>(), free);
        let blocks = (0..self.zone.nr_blocks()).filter_map(|b| self.zone.block_info(BlockIdx(b)));
        let in_block = |info: BlockInfo| u64::from(info.free_zone_pages + info.free_pcp_pages);
        assert_eq!(blocks.map(in_block).sum::<u64>(), free);
    }

    fn finish(mut self) {
        for (first, nr) in core::mem::take(&mut self.runs) {
            self.chunks.extend((0..nr).map(|i| (first.offset(i), 0)));
        }
        while !self.chunks.is_empty() {
            let i = self.chunks.len() - 1;
            self.free(i as u32 % CPUS * u32::from(self.dead.is_empty()), i);
        }
        self.read();
        assert_pristine_in(&*self.zone, self.block_order);
    }
}

/// Does operations on a new zone and gives everything back; panics if anything is not as it must be.
/// Looks at all of it after each `every` operations.
pub(crate) fn run(policy: Policy, shape: &Shape, ops: &[Op], every: usize) {
    let ranges: Vec<u32> = (shape.blocks.iter())
        .map(|nr| nr << shape.block_order)
        .collect();
    let zone = policy.zone(&Config {
        block_order: shape.block_order,
        batch: shape.batch,
        high: shape.high,
        cma_percent: shape.cma_percent,
        ..config(&ranges)
    });
    let zone = zone.expect("a valid description");
    let mut model = Model::new(policy, zone, shape.block_order, &ranges);
    for (i, op) in ops.iter().enumerate() {
        model.apply(op);
        if i % every == 0 {
            model.check();
        }
    }
    model.finish();
}
