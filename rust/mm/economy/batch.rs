// SPDX-License-Identifier: GPL-2.0

//! Many pages in one call: arrays of single pages, and runs of any length.
//!
//! Both go by words of the bitmaps. Pages of an array that lie in the same word, one after the other,
//! are freed by one store, or by one atomic operation if their block is another CPU's; a run of 512
//! pages is eight words. So a batch costs what its pages are apart, not how many there are.

use super::{
    blocks::{Blocks, Holder, Tag},
    set::Held,
    Economy,
};
use crate::mm::{
    stats::Event,
    types::{BlockIdx, Context, CpuIdx, Error, Migratetype, Order, PageIdx, Result},
    PageAllocator, BULK_STRETCH,
};

/// The word of the first of some pages, the mask of those after it that lie in the same word, no page
/// twice, and how many these are.
#[inline]
fn same_word(pages: &[PageIdx]) -> (u32, u64, usize) {
    let w = pages[0].0 / 64;
    let (mut mask, mut nr) = (0_u64, 0);
    for page in pages {
        let bit = 1 << (page.0 % 64);
        if page.0 / 64 != w || mask & bit != 0 {
            break;
        }
        mask |= bit;
        nr += 1;
    }
    (w, mask, nr)
}

impl Economy {
    pub(super) fn bulk_alloc(
        &self,
        cpu: CpuIdx,
        mt: Migratetype,
        ctx: Context,
        out: &mut [PageIdx],
    ) -> usize {
        self.stats.inc(cpu, Event::BulkAlloc);
        if mt == Migratetype::Cma {
            return 0;
        }
        let mut filled = 0;
        while filled < out.len() {
            let end = out.len().min(filled + BULK_STRETCH);
            if let Some(own) = self.enter(cpu) {
                let got = own.alloc_pages(mt, &mut out[filled..end]);
                self.stats.alloc_pages(cpu, mt, got as u64);
                filled += got;
            }
            if filled == end {
                continue;
            }
            // One from wherever there is one; that may bring more.
            match self.alloc(cpu, Order::ZERO, mt, ctx) {
                Ok(page) => out[filled] = page,
                Err(_) => break,
            }
            filled += 1;
        }
        filled
    }

    pub(super) fn bulk_free(&self, cpu: CpuIdx, pages: &mut [PageIdx], ctx: Context) -> Result<()> {
        self.stats.inc(cpu, Event::BulkFree);
        let (mut rest, mut result) = (&*pages, Ok(()));
        while !rest.is_empty() {
            let (done, odd) = self.free_words(cpu, &rest[..rest.len().min(BULK_STRETCH)]);
            // What is not as simple as that, or not right, page by page.
            for &page in &rest[done..done + odd] {
                result = result.and(self.free(cpu, page, Order::ZERO, ctx));
            }
            rest = &rest[done + odd..];
        }
        result
    }

    /// Frees pages word by word. Stops before pages of one word that do not go that way. Returns how many
    /// pages it has freed, and how many it stopped before.
    fn free_words(&self, cpu: CpuIdx, pages: &[PageIdx]) -> (usize, usize) {
        let own = self.enter(cpu);
        if let Some(own) = &own {
            own.absorb();
        }
        let mut done = 0;
        while done < pages.len() {
            let (w, mask, nr) = same_word(&pages[done..]);
            if !self.free_word(cpu, own.as_ref(), w, mask) {
                return (done, nr);
            }
            done += nr;
        }
        (done, 0)
    }

    /// Frees pages of word `w` of all words. False, with nothing changed, if that is not right for all.
    #[inline]
    fn free_word(&self, cpu: CpuIdx, own: Option<&Held<'_>>, w: u32, mask: u64) -> bool {
        let block = self.blocks.block_of_word(w);
        if block.0 >= self.blocks.nr_blocks() || self.blocks.any_free(w, mask) {
            return false;
        }
        let tag = self.blocks.tag(block);
        let Holder::Set(owner) = tag.holder else {
            return false;
        };
        let freed = self.free_pages(cpu, own, owner, w, mask);
        self.stats.free_pages(cpu, tag.mt, freed);
        true
    }

    /// Frees pages of word `w` of all words, none of which was free a moment ago, in a block of set
    /// `owner`. `own` is the set of this CPU, if it is inside: what that owns, it keeps meanwhile.
    /// Returns how many there were; fewer only if somebody else has freed them at the same moment.
    #[inline]
    fn free_pages(
        &self,
        cpu: CpuIdx,
        own: Option<&Held<'_>>,
        owner: u32,
        w: u32,
        mask: u64,
    ) -> u64 {
        let twice = match own {
            Some(own) if owner == cpu.0 => own.free_pages(w, mask),
            _ => {
                let stray = self.stray(cpu);
                let twice = (self.pending).free_pages(&self.blocks, owner, w, mask, stray);
                let fresh = (mask & !twice).count_ones();
                self.stats.add(cpu, Event::RemoteFree, fresh.into());
                twice
            }
        };
        if twice != 0 {
            let page = PageIdx(w * 64 + twice.trailing_zeros());
            let _ = self.refuse(cpu, page, Error::DoubleFree);
        }
        (mask & !twice).count_ones().into()
    }

    pub(super) fn contig_alloc(
        &self,
        cpu: CpuIdx,
        nr: u32,
        mt: Migratetype,
        ctx: Context,
    ) -> Result<PageIdx> {
        if nr == 0 || nr > self.max_order.pages() || mt == Migratetype::Cma {
            return Err(Error::Invalid);
        }
        let order = Order::fitting(nr);
        let first = match self.alloc_run_quick(cpu, order, mt) {
            Some(first) => first,
            None => self.alloc_chunk(cpu, order, mt, ctx)?,
        };
        if order >= self.blocks.order() {
            self.break_up(cpu, first, order, mt);
        }
        self.put_run(cpu, first.offset(nr), order.pages() - nr);
        self.stats.inc(cpu, Event::ContigAlloc);
        self.stats.alloc_pages(cpu, mt, nr.into());
        Ok(first)
    }

    /// Makes blocks that were given out whole, and that nobody else knows of yet, blocks of this CPU's set
    /// with no page free.
    fn break_up(&self, cpu: CpuIdx, first: PageIdx, order: Order, mt: Migratetype) {
        let nr = order.pages() >> self.blocks.order().get();
        let (first, _) = self.blocks.locate(first);
        for block in (first.0..first.0 + nr).map(BlockIdx) {
            self.blocks.empty(block);
            let cma = self.blocks.tag(block).cma;
            let holder = Holder::Set(cpu.0);
            self.blocks.set_tag(block, Tag { holder, mt, cma });
        }
    }

    pub(super) fn contig_free(&self, cpu: CpuIdx, first: PageIdx, nr: u32) -> Result<()> {
        let nr_pages = self.blocks.nr_blocks() << self.blocks.order().get();
        if nr == 0 || nr > nr_pages.saturating_sub(first.0) {
            return Err(Error::Invalid);
        }
        for (w, mask) in Blocks::words_of(first, nr) {
            let refused = match self.blocks.tag(self.blocks.block_of_word(w)).holder {
                Holder::Set(_) if !self.blocks.any_free(w, mask) => continue,
                Holder::Set(_) | Holder::Zone => Error::DoubleFree,
                Holder::Given | Holder::Hole => Error::BadFree,
            };
            let page = PageIdx(w * 64 + mask.trailing_zeros());
            return self.refuse(cpu, page, refused);
        }
        self.stats.inc(cpu, Event::ContigFree);
        let mt = self.blocks.tag(self.blocks.locate(first).0).mt;
        self.stats.free_pages(cpu, mt, nr.into());
        self.put_run(cpu, first, nr);
        Ok(())
    }

    /// Frees a run whose pages are in use, one by one, in blocks of sets.
    fn put_run(&self, cpu: CpuIdx, first: PageIdx, nr: u32) {
        if nr == 0 {
            return;
        }
        let own = self.enter(cpu);
        for (w, mask) in Blocks::words_of(first, nr) {
            if let Holder::Set(owner) = self.blocks.tag(self.blocks.block_of_word(w)).holder {
                self.free_pages(cpu, own.as_ref(), owner, w, mask);
            }
        }
    }
}
