// SPDX-License-Identifier: GPL-2.0

//! Which set, the zone, or whose blocks serve a request.
//!
//! Order of an allocation: the own set and the zone, the shared set, then in task context whatever block
//! of whichever set has what is needed ([`steal`](super::steal)). A request in task context is refused
//! only if there is no such block.

use super::{
    bits::WORD_ORDER,
    blocks::{Blocks, Holder, Tag, MAX_SETS},
    hot::Hot,
    pending::Pending,
    set::Set,
    zone::{Zone, GROUP_ORDER},
    Economy,
};
use crate::mm::{
    lock::{CountedLocks, Locks},
    platform::{Array, AtomicU32, AtomicU64, CachePadded, LockClass},
    stats::{Event, Stats},
    types::{
        BlockIdx,
        Context,
        CpuIdx,
        Error,
        Migratetype,
        Order,
        PageIdx,
        Result,
        BLOCK_ORDERS,
        MAX_ORDER,
        TOP_ORDER, //
    },
    Config, Hotplug, PageAllocator, Report,
};
use core::cmp::Ordering;

/// Share of the zone that all sets together may keep whole: a quarter. Mainline's per-CPU lists hold
/// an eighth at most, because what they hold is out of reach and in pieces; whole blocks on a set are
/// neither, whoever needs them takes them.
const HIGH_FRACTION: u64 = 4;

/// Runs up to this order lie in one word of the bitmaps, and have a short way in and out.
const WORD: Order = Order::new(WORD_ORDER);

/// The largest order that is served: every range is aligned in memory to the largest power of two that
/// divides its size, and no run crosses a group. Ranges are aligned as much in the index space, so that no
/// aligned run reaches from one into the next, which is adjacent there only.
fn max_order(config: &Config<'_>, block_order: Order) -> Order {
    let dividing = |pages: &u32| pages.trailing_zeros().min(TOP_ORDER.into());
    let common = config.range_pages.iter().map(dividing).min().unwrap_or(0);
    // CAST: at most `TOP_ORDER`.
    let served = (common as u8).min(block_order.get() + GROUP_ORDER.get());
    // Ranges that are smaller have no run of that order.
    Order::new(served.max(MAX_ORDER))
}

impl Economy {
    /// A zone over ranges that are entirely free.
    ///
    /// # Errors
    ///
    /// `Invalid` if the description does not make sense, `NoMemory` if there is no room for the
    /// metadata.
    pub fn new(config: &Config<'_>) -> Result<Economy> {
        if !BLOCK_ORDERS.contains(&config.block_order)
            || config.nr_cpus == 0
            || config.nr_cpus >= MAX_SETS
            || config.cma_percent > 100
            || config.batch == Some(0)
        {
            return Err(Error::Invalid);
        }
        let block_order = Order::new(config.block_order);
        let max_order = max_order(config, block_order);
        let align = max_order.pages() >> block_order.get();
        let blocks_spanned =
            |pages: u32| u64::from((pages >> block_order.get()).next_multiple_of(align));
        let (mut nr_blocks, mut managed_pages) = (0, 0);
        for &pages in config.range_pages {
            if pages == 0 || pages % block_order.pages() != 0 {
                return Err(Error::Invalid);
            }
            nr_blocks += blocks_spanned(pages);
            managed_pages += u64::from(pages);
        }
        if nr_blocks == 0 || nr_blocks << block_order.get() >= u64::from(u32::MAX) {
            return Err(Error::Invalid);
        }
        let mut next = 0;
        let range_bases = Array::new(config.range_pages.len(), |i| {
            let base = next;
            next += blocks_spanned(config.range_pages[i]);
            // CAST: checked above.
            PageIdx((base << block_order.get()) as u32)
        })?;
        let managed_blocks = managed_pages >> block_order.get();
        let automatic =
            (managed_blocks / HIGH_FRACTION / u64::from(config.online_cpus.max(1))).max(1);
        let nr_sets = config.nr_cpus + 1;
        let eco = Economy {
            // CAST: checked above.
            blocks: Blocks::new(nr_blocks as u32, block_order)?,
            pending: Pending::new(nr_sets)?,
            hot: Hot::new(config.nr_cpus, managed_pages)?,
            sets: Array::new(nr_sets as usize, |_| CachePadded(Set::new()))?,
            shared_lock: CountedLocks::new(1, LockClass::Shared, |_| ())?,
            zone: Zone::new(nr_blocks as u32)?,
            stats: Stats::new(config.nr_cpus as usize)?,
            range_bases,
            managed_pages,
            max_order,
            batch: (config.batch.unwrap_or(0) >> block_order.get()).max(1),
            // CAST: no more than the blocks of the zone.
            high: config
                .high
                .map_or(automatic as u32, |pages| pages >> block_order.get()),
            search_start: AtomicU32::new(0),
            last_refused: AtomicU64::new(0),
        };
        eco.add_ranges(config);
        Ok(eco)
    }

    /// Hands every block of the ranges to the zone; the last `cma_percent` of them as CMA.
    fn add_ranges(&self, config: &Config<'_>) {
        let block_order = self.blocks.order();
        let nr_blocks = self.managed_pages >> block_order.get();
        let first_cma = nr_blocks - nr_blocks * u64::from(config.cma_percent) / 100;
        let mut nr = 0;
        let mut zone = self.zone.lock();
        for (base, &pages) in self.range_bases.iter().zip(config.range_pages) {
            let (first, _) = self.blocks.locate(*base);
            for block in (first.0..first.0 + (pages >> block_order.get())).map(BlockIdx) {
                self.blocks.set_tag(
                    block,
                    Tag {
                        holder: Holder::Zone,
                        mt: Migratetype::Movable,
                        cma: nr >= first_cma,
                    },
                );
                self.blocks.fill(block);
                zone.put(&self.blocks, block);
                nr += 1;
            }
        }
        drop(zone);
        self.reset_stats();
    }

    pub(super) fn refuse(&self, cpu: CpuIdx, page: PageIdx, error: Error) -> Result<()> {
        self.stats.inc(
            cpu,
            match error {
                Error::DoubleFree => Event::DoubleFree,
                _ => Event::BadFree,
            },
        );
        self.last_refused
            .store(((u64::from(page.0) << 32) | u64::from(cpu.0)) + 1);
        Err(error)
    }

    /// Takes a run of at most a word out of the set of the calling CPU, if that takes no search.
    #[inline(always)]
    fn alloc_quick(&self, cpu: CpuIdx, order: Order, mt: Migratetype) -> Option<PageIdx> {
        self.enter_quick(cpu)?.take_quick(order, mt)
    }

    /// Frees a run of at most a word into a block of the calling CPU if that takes no search and changes
    /// no list. Returns false, with nothing changed, if it is not as simple as that, or not right.
    #[inline(always)]
    fn free_own_quick(&self, cpu: CpuIdx, page: PageIdx, order: Order) -> bool {
        let (block, _) = self.blocks.locate(page);
        if !self.blocks.is_of(block, cpu.0) {
            return false;
        }
        let Some(busy) = self.enter_quick(cpu) else {
            return false;
        };
        // Looked at again from inside: the block could have been stolen meanwhile. A page of a block that is pending
        // may have been freed by another CPU already.
        let Some((owner, mt)) = self.blocks.set_of(block) else {
            return false;
        };
        let freed = owner == cpu.0
            && self.blocks.pending(block).load() == 0
            && busy.put_quick(block, page, order, mt);
        if freed {
            self.stats.free(cpu, mt, order);
        }
        freed
    }

    /// The same for a block of another CPU.
    #[inline(always)]
    fn free_remote_quick(&self, cpu: CpuIdx, page: PageIdx, order: Order) -> bool {
        let (block, _) = self.blocks.locate(page);
        let Some((owner, mt)) = self.blocks.set_of(block) else {
            return false;
        };
        // Remote bits that are set already are seen by the atomic operation, and counted there.
        let freed = owner != cpu.0
            && !self.blocks.any_local_in_word(page, order)
            && (self.pending).free_in_word(
                &self.blocks,
                block,
                owner,
                page,
                order,
                self.stray(cpu),
            );
        if freed {
            self.stats.inc(cpu, Event::RemoteFree);
            self.stats.free(cpu, mt, order);
        }
        freed
    }

    /// Frees a page that is not one of this CPU's, or not that quickly.
    #[inline(never)]
    fn free_page(&self, cpu: CpuIdx, page: PageIdx) -> Result<()> {
        match self.free_remote_quick(cpu, page, Order::ZERO) {
            true => Ok(()),
            false => self.free_slow(cpu, page, Order::ZERO),
        }
    }

    /// Frees more than a page.
    #[inline(never)]
    fn free_run(&self, cpu: CpuIdx, page: PageIdx, order: Order) -> Result<()> {
        let quick = page.is_aligned(order)
            && match order.cmp(&self.blocks.order()) {
                Ordering::Less if order <= WORD => {
                    self.free_own_quick(cpu, page, order)
                        || self.free_remote_quick(cpu, page, order)
                }
                Ordering::Equal => self.free_whole_quick(cpu, page),
                _ => false,
            };
        match quick {
            true => Ok(()),
            false => self.free_slow(cpu, page, order),
        }
    }

    /// Frees a block that was given out whole, if this CPU has room for it.
    #[inline(always)]
    fn free_whole_quick(&self, cpu: CpuIdx, page: PageIdx) -> bool {
        let (block, _) = self.blocks.locate(page);
        if block.0 >= self.blocks.nr_blocks() {
            return false;
        }
        // Read first: once the block is free it may be another's.
        let mt = self.blocks.tag(block).mt;
        let freed = self
            .enter_quick(cpu)
            .is_some_and(|busy| busy.take_back(block));
        if freed {
            self.stats.free(cpu, mt, self.blocks.order());
        }
        freed
    }

    /// Allocates more than a page, if that takes no search and changes no list but that of whole blocks.
    #[inline(never)]
    pub(super) fn alloc_run_quick(
        &self,
        cpu: CpuIdx,
        order: Order,
        mt: Migratetype,
    ) -> Option<PageIdx> {
        match order.cmp(&self.blocks.order()) {
            Ordering::Less if order <= WORD => self.alloc_quick(cpu, order, mt),
            Ordering::Equal => {
                let block = self.enter_quick(cpu)?.give_whole(mt)?;
                Some(self.blocks.page(block, 0))
            }
            _ => None,
        }
    }

    #[inline(never)]
    fn alloc_slow(
        &self,
        cpu: CpuIdx,
        order: Order,
        mt: Migratetype,
        ctx: Context,
    ) -> Result<PageIdx> {
        let page = self.alloc_chunk(cpu, order, mt, ctx)?;
        self.stats.alloc(cpu, mt, order);
        Ok(page)
    }

    /// Allocates a chunk in every way there is; does not count it, but counts the failure.
    pub(super) fn alloc_chunk(
        &self,
        cpu: CpuIdx,
        order: Order,
        mt: Migratetype,
        ctx: Context,
    ) -> Result<PageIdx> {
        if order > self.max_order || mt == Migratetype::Cma {
            return Err(Error::Invalid);
        }
        let page = if order > self.blocks.order() {
            self.alloc_blocks(cpu, order, mt, ctx)
        } else {
            // Left again before anything else is tried.
            let own = match ctx {
                Context::Task => self.enter_waiting(cpu).alloc(order, mt),
                _ => self.enter(cpu).and_then(|own| own.alloc(order, mt)),
            };
            own.or_else(|| self.alloc_shared(cpu, order, mt))
                .or_else(|| match ctx {
                    Context::Task => self.steal(cpu, order, mt),
                    _ => None,
                })
        };
        page.ok_or_else(|| {
            self.stats.inc(cpu, Event::AllocFailed);
            Error::NoMemory
        })
    }

    #[inline(never)]
    fn free_slow(&self, cpu: CpuIdx, page: PageIdx, order: Order) -> Result<()> {
        if order > self.max_order
            || !page.is_aligned(order)
            || page.0 >> self.blocks.order().get() >= self.blocks.nr_blocks()
        {
            return Err(Error::Invalid);
        }
        let mt = self.blocks.tag(self.blocks.locate(page).0).mt;
        match self.route_free(cpu, page, order) {
            Ok(()) => {
                self.stats.free(cpu, mt, order);
                Ok(())
            }
            Err(error) => self.refuse(cpu, page, error),
        }
    }

    /// Number of the set that belongs to no CPU.
    pub(super) fn shared_id(&self) -> u32 {
        // CAST: `new` was given a `u32`.
        self.sets.len() as u32 - 1
    }

    fn alloc_shared(&self, cpu: CpuIdx, order: Order, mt: Migratetype) -> Option<PageIdx> {
        if self.zone.nr_free() == 0 && !self.shared_looks_stocked() {
            return None;
        }
        let page = self.enter_shared(cpu).alloc(order, mt)?;
        self.stats.inc(cpu, Event::SharedAlloc);
        Some(page)
    }

    /// Whether the shared set looks as if it had anything free.
    fn shared_looks_stocked(&self) -> bool {
        let id = self.shared_id();
        self.sets[id as usize].looks_stocked(&self.blocks) || !self.pending.is_empty(id)
    }

    /// Allocates a run of blocks: from the zone, or from wherever they are.
    fn alloc_blocks(
        &self,
        cpu: CpuIdx,
        order: Order,
        mt: Migratetype,
        ctx: Context,
    ) -> Option<PageIdx> {
        let nr = Order::new(order.get() - self.blocks.order().get());
        self.take_blocks(cpu, nr, mt, None)
            .or_else(|| self.gather(cpu, nr, mt, ctx))
    }

    /// Takes a run of `2^nr` blocks from the zone: the one that begins with `first`, or any.
    pub(super) fn take_blocks(
        &self,
        cpu: CpuIdx,
        nr: Order,
        mt: Migratetype,
        first: Option<BlockIdx>,
    ) -> Option<PageIdx> {
        if self.zone.nr_free() < u64::from(nr.pages()) {
            return None;
        }
        let mut zone = self.zone.lock();
        let first = match first {
            Some(first) => zone.take_run_at(first, nr).then_some(first),
            None => zone.take_run(nr, mt == Migratetype::Movable),
        }?;
        for block in (first.0..first.0 + nr.pages()).map(BlockIdx) {
            let (holder, cma) = (Holder::Given, self.blocks.tag(block).cma);
            self.blocks.set_tag(block, Tag { holder, mt, cma });
        }
        drop(zone);
        self.stats.inc(cpu, Event::ZoneAlloc);
        Some(self.blocks.page(first, 0))
    }

    /// Frees a run into the block of a set.
    #[inline]
    fn free_to_set(
        &self,
        cpu: CpuIdx,
        owner: u32,
        (block, bit): (BlockIdx, u32),
        order: Order,
    ) -> Result<()> {
        if self.blocks.any_remote(block, bit, order) {
            return Err(Error::DoubleFree);
        }
        if owner == cpu.0 {
            if let Some(own) = self.enter(cpu) {
                // The block may have been stolen before this CPU was inside.
                if own.owns(block) {
                    // Frees of blocks that are pending are slow until that is done.
                    own.absorb();
                    return match own.free(block, bit, order) {
                        true => Ok(()),
                        false => Err(Error::DoubleFree),
                    };
                }
            }
        }
        self.free_remote(cpu, owner, (block, bit), order)
    }

    fn free_remote(
        &self,
        cpu: CpuIdx,
        owner: u32,
        (block, bit): (BlockIdx, u32),
        order: Order,
    ) -> Result<()> {
        if self.blocks.any_local(block, bit, order) {
            return Err(Error::DoubleFree);
        }
        self.stats.inc(cpu, Event::RemoteFree);
        let stray = self.stray(cpu);
        match (self.pending).free(&self.blocks, block, owner, bit, order, stray) {
            true => Ok(()),
            false => Err(Error::DoubleFree),
        }
    }

    /// Frees one or more blocks that were given out whole.
    fn free_blocks(&self, cpu: CpuIdx, first: BlockIdx, order: Order) -> Result<()> {
        let nr = order.pages() >> self.blocks.order().get();
        if nr == 1 {
            let freed = match self.enter(cpu) {
                Some(own) => own.free_whole(first),
                None => self.enter_shared(cpu).free_whole(first),
            };
            return match freed {
                true => Ok(()),
                false => Err(self.why_not_given(first)),
            };
        }
        let run = || (first.0..first.0 + nr).map(BlockIdx);
        let mut zone = self.zone.lock();
        let refused = |&block: &BlockIdx| !self.blocks.take_back(block, Holder::Zone);
        if let Some(wrong) = run().find(refused) {
            let why = self.why_not_given(wrong);
            for block in run().take_while(|&block| block != wrong) {
                self.blocks.set_holder(block, Holder::Given);
            }
            return Err(why);
        }
        for block in run() {
            zone.put(&self.blocks, block);
        }
        drop(zone);
        self.stats.inc(cpu, Event::ZoneFree);
        Ok(())
    }

    /// What is wrong with a free of a block as a whole that is not given out.
    fn why_not_given(&self, block: BlockIdx) -> Error {
        match self.blocks.tag(block).holder {
            Holder::Zone => Error::DoubleFree,
            Holder::Set(_) if self.blocks.nr_free(block) == self.blocks.order().pages() => {
                Error::DoubleFree
            }
            _ => Error::BadFree,
        }
    }

    #[inline]
    fn route_free(&self, cpu: CpuIdx, page: PageIdx, order: Order) -> Result<()> {
        let at = self.blocks.locate(page);
        let holder = self.blocks.tag(at.0).holder;
        if order < self.blocks.order() {
            return match holder {
                Holder::Set(owner) => self.free_to_set(cpu, owner, at, order),
                Holder::Zone => Err(Error::DoubleFree),
                Holder::Given | Holder::Hole => Err(Error::BadFree),
            };
        }
        self.free_blocks(cpu, at.0, order)
    }
}

impl Hotplug for Economy {
    /// Hands the blocks of the CPU to the shared set. Pages of them that are freed later follow.
    fn cpu_dead(&self, cpu: CpuIdx, dead: CpuIdx) {
        self.move_to_shared(cpu, dead);
    }

    /// There is nothing to undo.
    fn cpu_online(&self, _cpu: CpuIdx) {}
}

impl PageAllocator for Economy {
    type Page = PageIdx;

    #[inline]
    fn alloc(&self, cpu: CpuIdx, order: Order, mt: Migratetype, ctx: Context) -> Result<PageIdx> {
        if mt != Migratetype::Cma {
            let quick = match order {
                Order::ZERO => self.alloc_quick(cpu, Order::ZERO, mt),
                _ => self.alloc_run_quick(cpu, order, mt),
            };
            if let Some(page) = quick {
                self.stats.alloc(cpu, mt, order);
                return Ok(page);
            }
        }
        self.alloc_slow(cpu, order, mt, ctx)
    }

    #[inline]
    fn free(&self, cpu: CpuIdx, page: PageIdx, order: Order, _ctx: Context) -> Result<()> {
        match order {
            Order::ZERO if self.free_own_quick(cpu, page, Order::ZERO) => Ok(()),
            Order::ZERO => self.free_page(cpu, page),
            _ => self.free_run(cpu, page, order),
        }
    }

    fn alloc_bulk(&self, cpu: CpuIdx, mt: Migratetype, ctx: Context, out: &mut [PageIdx]) -> usize {
        self.bulk_alloc(cpu, mt, ctx, out)
    }

    fn free_bulk(&self, cpu: CpuIdx, pages: &mut [PageIdx], ctx: Context) -> Result<()> {
        self.bulk_free(cpu, pages, ctx)
    }

    fn alloc_contig(&self, cpu: CpuIdx, nr: u32, mt: Migratetype, ctx: Context) -> Result<PageIdx> {
        self.contig_alloc(cpu, nr, mt, ctx)
    }

    fn free_contig(&self, cpu: CpuIdx, first: PageIdx, nr: u32, _ctx: Context) -> Result<()> {
        self.contig_free(cpu, first, nr)
    }

    fn page_of_run(&self, first: PageIdx, nr: u32) -> PageIdx {
        first.offset(nr)
    }

    fn drain(&self, cpu: CpuIdx, target: CpuIdx) {
        self.flush_set(cpu, target.0);
        if self.shared_looks_stocked() {
            self.flush_set(cpu, self.shared_id());
        }
    }

    fn max_order(&self) -> Order {
        self.max_order
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn zone_lock(&self) -> Option<&dyn Locks> {
        Some(self.zone.locks())
    }

    fn pcp_locks(&self) -> Option<&dyn Locks> {
        Some(&self.shared_lock)
    }

    fn report(&self) -> Option<&dyn Report> {
        Some(self)
    }
}
