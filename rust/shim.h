/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The inline C that the Rust bindings lack: a line each, and where the kernel
 * wants callbacks of C a few. The Rust declarations stand beside their users, in
 * mm/platform/kernel.rs and glue/.
 */
#ifndef PCPB_SHIM_H
#define PCPB_SHIM_H

#include <linux/completion.h>
#include <linux/gfp.h>
#include <linux/spinlock.h>
#include <linux/types.h>

struct hlist_node;
struct page;

/* Locks: mm/platform/kernel.rs */
void pcpb_lock_init(spinlock_t *lock, int class);
unsigned long pcpb_lock_irqsave(spinlock_t *lock);
bool pcpb_trylock_irqsave(spinlock_t *lock, unsigned long *flags);
void pcpb_unlock_irqrestore(spinlock_t *lock, unsigned long flags);

/* Barriers and preemption: mm/platform/kernel.rs */
void pcpb_interrupt_cpu(unsigned int cpu);
void pcpb_preempt_disable(void);
void pcpb_preempt_enable(void);

/* Contiguous ranges: glue/ranges.rs */
struct page *pcpb_grab_range(unsigned long nr_pages, int nid);
void pcpb_give_back_range(struct page *first, unsigned long nr_pages);
void *pcpb_page_address(struct page *page);
unsigned long pcpb_pfn(void *address);
bool pcpb_node_has_memory(int nid);

/* KASAN: glue/poison.rs */
void pcpb_poison(void *first, unsigned long nr_pages);
void pcpb_unpoison(void *first, unsigned long nr_pages);
bool pcpb_is_poisoned(void *page);

/* Pages of the running kernel: glue/stock.rs */
gfp_t pcpb_stock_gfp(int migratetype);
struct page *pcpb_stock_alloc(gfp_t gfp, unsigned int order, int nid);
unsigned long pcpb_stock_alloc_bulk(gfp_t gfp, int nid, unsigned long nr,
				    struct page **pages);
void pcpb_stock_free_bulk(struct page **pages, int nr);
struct page *pcpb_stock_alloc_contig(gfp_t gfp, int nid, unsigned long nr);
struct page *pcpb_nth_page(struct page *first, unsigned long nr);
unsigned int pcpb_max_page_order(void);

/* CPUs and waiting: glue/cpu.rs, glue/runner.rs */
bool pcpb_cpu_online(unsigned int cpu);
unsigned int pcpb_num_online_cpus(void);
unsigned int pcpb_this_cpu(void);
bool pcpb_cpu_active(unsigned int cpu);
unsigned int pcpb_settle(void);
void pcpb_unsettle(void);
int pcpb_move_to(unsigned int cpu);
void pcpb_cond_resched(void);
void pcpb_sleep_us(unsigned long us);

/* Interrupts: glue/interrupts.rs */
void pcpb_ipi_enter(void);
void pcpb_ipi_exit(void);

/* CPUs that come and go: glue/hotplug.rs */
int pcpb_hotplug_setup(int (*online)(unsigned int, struct hlist_node *),
		       int (*dead)(unsigned int, struct hlist_node *));
void pcpb_hotplug_remove(int state);
int pcpb_hotplug_join(int state, struct hlist_node *node);
void pcpb_hotplug_leave(int state, struct hlist_node *node);

#endif /* PCPB_SHIM_H */
