// SPDX-License-Identifier: GPL-2.0

//! The list policies: `pcp`, `owner` and `split` over one zone buddy and one kind of per-CPU set.
//!
//! This file and [`batch`](super::batch) take the locks of per-CPU sets. It decides which set a
//! request goes to; [`refill`](super::refill) and [`drain`](super::drain) move pages between a set
//! and the zone.
//!
//! | | `pcp` | `owner` | `split` |
//! |---|---|---|---|
//! | orders on a set | 0-3, block order | 0 to block order | as `owner` |
//! | allocation | exact list | smallest larger chunk, split | as `owner` |
//! | free of an own or unowned block | this CPU's set, trylock | this CPU's set, irqsave lock | this CPU's set, trylock |
//! | free of another CPU's block | this CPU's set, trylock | the owner's set, irqsave lock | the owner's remote list, no lock |
//! | that lock is taken | zone | task context: wait; else: zone | zone |

use super::{
    free_area::End,
    page_map::{Mergeable, State},
    pcp::{Limits, Pcp, COSTLY_ORDER},
    remote::{Chain, Remote},
    zone::{Ladder, Zone},
};
use crate::mm::{
    lock::{CountedGuard, CountedLocks, Locks},
    platform::{Array, CachePadded, Irq, LockClass},
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
        MAX_ORDER, //
    },
    Config, Hotplug, ListPolicy, PageAllocator, Report,
};

/// How often an allocation looks again because pages were on their way.
const MAX_TURNS: u32 = 16;

/// A zone under policy `pcp`, `owner` or `split`.
pub struct ListAllocator {
    pub(super) policy: ListPolicy,
    pub(super) zone: Zone,
    /// By CPU number.
    pub(super) sets: CountedLocks<Pcp>,
    /// By CPU number: what is not under the lock of the set.
    pub(super) remotes: Array<CachePadded<Remote>>,
    pub(super) stats: Stats,
    /// First page index of each range.
    pub(super) range_bases: Array<PageIdx>,
    pub(super) managed_pages: u64,
}

/// Where a free has to go.
pub(super) enum Route {
    /// To the zone: no set takes chunks of this order.
    Zone,
    /// To the set of this CPU: its owner, or the freeing CPU, for batching only.
    Set(CpuIdx, Mergeable),
    /// To the remote list of this CPU, its owner.
    Remote(CpuIdx),
}

/// Blocks that the index space of a zone needs for a range, so that the next one starts aligned.
fn blocks_spanned(range_pages: u32, block_order: Order) -> u64 {
    u64::from(range_pages).next_multiple_of(u64::from(Order::new(MAX_ORDER).pages()))
        >> block_order.get()
}

impl ListAllocator {
    /// A zone over ranges that are entirely free.
    ///
    /// # Errors
    ///
    /// `Invalid` if the description does not make sense, `NoMemory` if there is no room for the
    /// metadata.
    pub fn new(config: &Config<'_>) -> Result<ListAllocator> {
        if !BLOCK_ORDERS.contains(&config.block_order)
            || config.nr_cpus == 0
            || config.cma_percent > 100
            || config.batch == Some(0)
        {
            return Err(Error::Invalid);
        }
        let block_order = Order::new(config.block_order);
        let mut nr_blocks = 0;
        let mut managed_pages = 0;
        for &pages in config.range_pages {
            if pages == 0 || pages % block_order.pages() != 0 {
                return Err(Error::Invalid);
            }
            nr_blocks += blocks_spanned(pages, block_order);
            managed_pages += u64::from(pages);
        }
        // Page indexes, `NO_PAGE` excepted, have to fit 32 bits.
        if nr_blocks == 0 || nr_blocks << block_order.get() >= u64::from(u32::MAX) {
            return Err(Error::Invalid);
        }
        let mut next_base = 0;
        let range_bases = Array::new(config.range_pages.len(), |i| {
            let base = PageIdx(next_base);
            // CAST: the sum was checked above.
            next_base +=
                (blocks_spanned(config.range_pages[i], block_order) as u32) << block_order.get();
            base
        })?;
        let limits = Limits::new(managed_pages, config.online_cpus, config.batch, config.high);
        let alloc = ListAllocator {
            policy: config.policy,
            // CAST: checked above.
            zone: Zone::new(nr_blocks as u32, block_order, config.nr_cpus)?,
            sets: CountedLocks::new(config.nr_cpus as usize, LockClass::Pcp, |_| {
                Pcp::new(limits)
            })?,
            remotes: Array::new(config.nr_cpus as usize, |_| CachePadded(Remote::new()))?,
            stats: Stats::new(config.nr_cpus as usize)?,
            range_bases,
            managed_pages,
        };
        alloc.add_ranges(config);
        Ok(alloc)
    }

    /// Hands every block of the ranges to the zone; the last `cma_percent` of them as CMA.
    fn add_ranges(&self, config: &Config<'_>) {
        let block_order = self.zone.blocks.order();
        let nr_blocks = self.managed_pages >> block_order.get();
        let first_cma = nr_blocks - nr_blocks * u64::from(config.cma_percent) / 100;
        let mut zone = self.zone.lock(CpuIdx(0), &self.stats);
        let mut nr = 0;
        for (base, &pages) in self.range_bases.iter().zip(config.range_pages) {
            let first = self.zone.blocks.block_of(*base).0;
            for block in first..first + (pages >> block_order.get()) {
                let mt = if nr < first_cma {
                    Migratetype::Movable
                } else {
                    Migratetype::Cma
                };
                zone.add_block(BlockIdx(block), mt);
                nr += 1;
            }
        }
        drop(zone);
        self.reset_stats();
    }

    /// Whether sets keep chunks of `order` (mainline: `pcp_allowed_order()`).
    #[inline]
    fn is_set_order(&self, order: Order) -> bool {
        let block_order = self.zone.blocks.order();
        match self.policy {
            ListPolicy::Pcp => order <= COSTLY_ORDER || order == block_order,
            ListPolicy::Owner | ListPolicy::Split => order <= block_order,
        }
    }

    pub(super) fn take_from_set(
        &self,
        pcp: &mut Pcp,
        order: Order,
        mt: Migratetype,
    ) -> Option<PageIdx> {
        match self.policy {
            ListPolicy::Pcp => pcp.take_exact(&self.zone.pages, order, mt),
            ListPolicy::Owner | ListPolicy::Split => pcp.take_split(&self.zone.pages, order, mt),
        }
    }

    /// Allocates from the calling CPU's set, refilling it if it has nothing that fits.
    #[inline]
    fn alloc_from_set(&self, cpu: CpuIdx, order: Order, mt: Migratetype) -> Option<PageIdx> {
        let Some(mut pcp) = self.sets.try_lock(cpu.idx(), Irq::Keep) else {
            self.stats.inc(cpu, Event::PcpLockBusyAlloc);
            return None;
        };
        if self.remotes[cpu.idx()].is_dead() {
            return None;
        }
        self.absorb(cpu, cpu, &mut pcp);
        pcp.note_alloc();
        if let Some(page) = self.take_from_set(&mut pcp, order, mt) {
            return Some(page);
        }
        if !self.refill(cpu, &mut pcp, order, mt) {
            return None;
        }
        self.take_from_set(&mut pcp, order, mt)
    }

    fn alloc_from_zone(&self, cpu: CpuIdx, order: Order, mt: Migratetype) -> Option<PageIdx> {
        let page = self
            .zone
            .lock(cpu, &self.stats)
            .take(order, mt, &mut Ladder::Normal)?;
        self.stats.inc(cpu, Event::ZoneAlloc);
        Some(page)
    }

    /// A chunk from the calling CPU's set, from the zone, or after a targeted drain; in no state yet.
    #[inline]
    pub(super) fn alloc_chunk(
        &self,
        cpu: CpuIdx,
        order: Order,
        mt: Migratetype,
        ctx: Context,
    ) -> Option<PageIdx> {
        let from_set = match self.is_set_order(order) {
            true => self.alloc_from_set(cpu, order, mt),
            false => None,
        };
        from_set
            .or_else(|| self.alloc_from_zone(cpu, order, mt))
            .or_else(|| match ctx {
                Context::Task => {
                    self.after_targeted_drain(cpu, order, || self.alloc_from_zone(cpu, order, mt))
                }
                _ => None,
            })
    }

    /// Last resort of an allocation of chunks of `order`: gives the sets back to the zone one after the
    /// other, this CPU's first, then upwards from it, and stops as soon as the request is served.
    /// CPUs that have nothing are left alone after a look.
    #[cold]
    #[inline(never)]
    pub(super) fn after_targeted_drain(
        &self,
        cpu: CpuIdx,
        order: Order,
        alloc: impl Fn() -> Option<PageIdx>,
    ) -> Option<PageIdx> {
        if let Some(page) = self.drain_until(cpu, &alloc) {
            return Some(page);
        }
        if order > Order::ZERO {
            return None;
        }
        // There is no page on any set, but one may have been drained into the zone after the look there.
        // Who drains counts that before it lets go of the set. Bounded, as each turn is due to somebody else.
        let mut drained = self.stats.total_event(Event::Drain);
        for _ in 0..MAX_TURNS {
            if let Some(page) = alloc().or_else(|| self.drain_until(cpu, &alloc)) {
                return Some(page);
            }
            let now = self.stats.total_event(Event::Drain);
            if now == drained {
                break;
            }
            drained = now;
        }
        None
    }

    /// Gives back one set after the other until the request is served.
    fn drain_until(&self, cpu: CpuIdx, alloc: &impl Fn() -> Option<PageIdx>) -> Option<PageIdx> {
        let nr_cpus = self.sets.count();
        for i in 0..nr_cpus {
            let target = (cpu.idx() + i) % nr_cpus;
            if self.drain_set(cpu, target) {
                self.stats.inc(cpu, Event::TargetedDrain);
                if let Some(page) = alloc() {
                    return Some(page);
                }
            }
        }
        None
    }

    /// Gives a whole set back. Returns whether it had anything.
    fn drain_set(&self, cpu: CpuIdx, target: usize) -> bool {
        let mut pcp = self.sets.lock(target, Irq::Save);
        self.absorb(cpu, CpuIdx(target as u32), &mut pcp);
        if pcp.count() == 0 {
            return false;
        }
        self.drain_whole(cpu, &mut pcp);
        true
    }

    #[inline]
    pub(super) fn route(&self, cpu: CpuIdx, page: PageIdx, order: Order) -> Route {
        if !self.is_set_order(order) {
            return Route::Zone;
        }
        match self.zone.blocks.owner(page) {
            // The owner is stable here: it changes only while the whole block is free, and the
            // caller still holds a page of it. Under `pcp` no block has one.
            Some(owner) if self.policy == ListPolicy::Split && owner != cpu => Route::Remote(owner),
            Some(owner) => Route::Set(owner, Mergeable::Yes),
            None => Route::Set(cpu, Mergeable::No),
        }
    }

    /// The lock of the set that a free goes to; `None` if the free should go to the zone instead.
    #[inline]
    pub(super) fn lock_for_free(
        &self,
        cpu: CpuIdx,
        set: CpuIdx,
        ctx: Context,
    ) -> Option<CountedGuard<'_, Pcp>> {
        let pcp = match (self.policy, ctx) {
            (ListPolicy::Pcp | ListPolicy::Split, _) => self.sets.try_lock(set.idx(), Irq::Keep),
            (ListPolicy::Owner, Context::Task) => Some(self.sets.lock(set.idx(), Irq::Save)),
            // The interrupted code may hold this very lock.
            (ListPolicy::Owner, _) => self.sets.try_lock(set.idx(), Irq::Save),
        };
        if pcp.is_none() {
            self.stats.inc(cpu, Event::PcpLockBusyFree);
        } else if self.remotes[set.idx()].is_dead() {
            self.stats.inc(cpu, Event::DeadFree);
            return None;
        }
        pcp
    }

    /// Frees a chunk to set `set`, whose lock is held.
    #[inline]
    pub(super) fn free_to_set(
        &self,
        (cpu, set): (CpuIdx, CpuIdx),
        pcp: &mut Pcp,
        page: PageIdx,
        order: Order,
        mergeable: Mergeable,
    ) {
        let mt = self.zone.blocks.migratetype(page).pcp_type();
        pcp.free
            .insert(&self.zone.pages, page, order, mt, mergeable, End::Head);
        if set != cpu {
            self.stats.inc(cpu, Event::RemoteFree);
        }
        self.absorb(cpu, set, pcp);
        let excess = pcp.note_free(order, self.zone.nr_free());
        if excess > 0 {
            self.drain_excess(cpu, pcp, excess, order);
        }
    }

    /// Hands chunks to the CPU that owns their block, without a lock. `nr` of them.
    pub(super) fn free_remote(&self, cpu: CpuIdx, owner: CpuIdx, chain: Chain, nr: u64) {
        self.stats.add(cpu, Event::RemoteFree, nr);
        let remote = &self.remotes[owner.idx()];
        if remote.push(&self.zone.pages, chain) {
            // It died meanwhile, or before, and may not look here again.
            remote.take_all(&self.zone.pages, |page, order| {
                self.stats.inc(cpu, Event::DeadFree);
                self.free_to_zone(cpu, page, order);
            });
        }
    }

    /// Takes what other CPUs freed into the blocks of `set` onto that set, whose lock is held.
    #[inline]
    pub(super) fn absorb(&self, cpu: CpuIdx, set: CpuIdx, pcp: &mut Pcp) {
        let remote = &self.remotes[set.idx()];
        if self.policy != ListPolicy::Split || remote.is_empty() {
            return;
        }
        let mut absorbed = 0;
        remote.take_all(&self.zone.pages, |page, order| {
            let mt = self.zone.blocks.migratetype(page).pcp_type();
            let pages = &self.zone.pages;
            pcp.free
                .insert(pages, page, order, mt, Mergeable::Yes, End::Head);
            absorbed += u64::from(order.pages());
        });
        self.stats.add(cpu, Event::RemoteAbsorbed, absorbed);
    }

    pub(super) fn free_to_zone(&self, cpu: CpuIdx, page: PageIdx, order: Order) {
        let mut zone = self.zone.lock(cpu, &self.stats);
        let mt = zone.migratetype(page);
        zone.free_chunk(page, order, mt, End::Head);
        drop(zone);
        self.stats.inc(cpu, Event::ZoneFree);
    }

    /// Frees a chunk that has been taken out of use.
    #[inline]
    pub(super) fn put_chunk(&self, cpu: CpuIdx, page: PageIdx, order: Order, ctx: Context) {
        let (set, mergeable) = match self.route(cpu, page, order) {
            Route::Zone => return self.free_to_zone(cpu, page, order),
            Route::Remote(owner) => {
                let chain = Chain::of(&self.zone.pages, page, order);
                return self.free_remote(cpu, owner, chain, 1);
            }
            Route::Set(set, mergeable) => (set, mergeable),
        };
        match self.lock_for_free(cpu, set, ctx) {
            Some(mut pcp) => self.free_to_set((cpu, set), &mut pcp, page, order, mergeable),
            None => self.free_to_zone(cpu, page, order),
        }
    }

    /// Checks that an allocated chunk of `order` starts at `page`.
    #[inline]
    pub(super) fn check_free(&self, cpu: CpuIdx, page: PageIdx, order: Order) -> Result<()> {
        if page.0 >= self.zone.pages.nr_pages() || order.get() > MAX_ORDER {
            return Err(Error::Invalid);
        }
        match self.zone.pages.state(page) {
            State::Allocated(o, _) if o == order => Ok(()),
            State::Allocated(..) => {
                self.stats.inc(cpu, Event::BadFree);
                Err(Error::BadFree)
            }
            _ if self.is_free(page) => {
                self.stats.inc(cpu, Event::DoubleFree);
                Err(Error::DoubleFree)
            }
            _ => {
                self.stats.inc(cpu, Event::BadFree);
                Err(Error::BadFree)
            }
        }
    }

    /// Whether the page lies in a free chunk.
    fn is_free(&self, page: PageIdx) -> bool {
        Order::ZERO.upto(Order::new(MAX_ORDER)).any(|order| {
            match self.zone.pages.state(page.align_down(order)) {
                State::Zone(o, _) | State::Pcp(o, _, _) | State::Remote(o) => o >= order,
                _ => false,
            }
        })
    }
}

impl Hotplug for ListAllocator {
    /// Marks the set dead and gives back what it holds. Frees to blocks of this CPU go to the zone
    /// from now on.
    fn cpu_dead(&self, cpu: CpuIdx, dead: CpuIdx) {
        self.remotes[dead.idx()].set_dead(true);
        let mut pcp = self.sets.lock(dead.idx(), Irq::Save);
        self.absorb(cpu, dead, &mut pcp);
        self.drain_whole(cpu, &mut pcp);
        self.zone.lock(cpu, &self.stats).forget_fragments(dead);
    }

    fn cpu_online(&self, cpu: CpuIdx) {
        self.remotes[cpu.idx()].set_dead(false);
    }
}

impl PageAllocator for ListAllocator {
    type Page = PageIdx;

    #[inline]
    fn alloc(&self, cpu: CpuIdx, order: Order, mt: Migratetype, ctx: Context) -> Result<PageIdx> {
        if order.get() > MAX_ORDER || mt == Migratetype::Cma {
            return Err(Error::Invalid);
        }
        let Some(page) = self.alloc_chunk(cpu, order, mt, ctx) else {
            self.stats.inc(cpu, Event::AllocFailed);
            return Err(Error::NoMemory);
        };
        self.zone.pages.set_state(page, State::Allocated(order, mt));
        self.stats.alloc(cpu, mt, order);
        Ok(page)
    }

    #[inline]
    fn free(&self, cpu: CpuIdx, page: PageIdx, order: Order, ctx: Context) -> Result<()> {
        self.check_free(cpu, page, order)?;
        self.zone.pages.set_state(page, State::Inner);
        self.stats
            .free(cpu, self.zone.blocks.migratetype(page), order);
        self.put_chunk(cpu, page, order, ctx);
        Ok(())
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

    fn free_contig(&self, cpu: CpuIdx, first: PageIdx, nr: u32, ctx: Context) -> Result<()> {
        self.contig_free(cpu, first, nr, ctx)
    }

    fn page_of_run(&self, first: PageIdx, nr: u32) -> PageIdx {
        first.offset(nr)
    }

    fn drain(&self, cpu: CpuIdx, target: CpuIdx) {
        self.drain_set(cpu, target.idx());
    }

    fn max_order(&self) -> Order {
        Order::new(MAX_ORDER)
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn zone_lock(&self) -> Option<&dyn Locks> {
        Some(self.zone.locks())
    }

    fn pcp_locks(&self) -> Option<&dyn Locks> {
        Some(&self.sets)
    }

    fn report(&self) -> Option<&dyn Report> {
        Some(self)
    }
}
