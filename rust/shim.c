// SPDX-License-Identifier: GPL-2.0
/*
 * The inline C that the Rust bindings lack. See shim.h.
 */
#include <linux/cpuhotplug.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/kasan.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/numa.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include "shim.h"

/* Numbers of enum LockClass, mm/platform/mod.rs. */
enum { PCPB_LOCK_ZONE, PCPB_LOCK_PCP, PCPB_LOCK_SHARED, PCPB_LOCK_HAND };

/*
 * One call of spin_lock_init() is one lockdep class, which is called as the
 * variable is.
 */
void pcpb_lock_init(spinlock_t *lock, int class)
{
	spinlock_t *pcpb_zone_lock = lock, *pcpb_pcp_lock = lock;
	spinlock_t *pcpb_shared_lock = lock, *pcpb_hand_lock = lock;

	switch (class) {
	case PCPB_LOCK_ZONE:
		spin_lock_init(pcpb_zone_lock);
		break;
	case PCPB_LOCK_PCP:
		spin_lock_init(pcpb_pcp_lock);
		break;
	case PCPB_LOCK_SHARED:
		spin_lock_init(pcpb_shared_lock);
		break;
	case PCPB_LOCK_HAND:
		spin_lock_init(pcpb_hand_lock);
		break;
	default:
		WARN_ONCE(1, "pcp_buddy: lock class %d\n", class);
		spin_lock_init(lock);
	}
}

unsigned long pcpb_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

bool pcpb_trylock_irqsave(spinlock_t *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}

void pcpb_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}

static void pcpb_nothing(void *unused)
{
}

/* Being interrupted orders everything on that CPU. An offline CPU is an error here, and fine. */
void pcpb_interrupt_cpu(unsigned int cpu)
{
	smp_call_function_single(cpu, pcpb_nothing, NULL, 1);
}

void pcpb_preempt_disable(void)
{
	preempt_disable();
}

void pcpb_preempt_enable(void)
{
	preempt_enable();
}

/*
 * alloc_contig_pages() takes the node as a preference only: strict needs
 * __GFP_THISNODE. NUMA_NO_NODE means any node, the nearest first.
 */
struct page *pcpb_grab_range(unsigned long nr_pages, int nid)
{
	gfp_t gfp = GFP_KERNEL | __GFP_NOWARN;

	if (nid == NUMA_NO_NODE)
		nid = numa_mem_id();
	else
		gfp |= __GFP_THISNODE;
	return alloc_contig_pages(nr_pages, gfp, nid, NULL);
}

void pcpb_give_back_range(struct page *first, unsigned long nr_pages)
{
	free_contig_range(page_to_pfn(first), nr_pages);
}

void *pcpb_page_address(struct page *page)
{
	return page_address(page);
}

unsigned long pcpb_pfn(void *address)
{
	return page_to_pfn(virt_to_page(address));
}

#ifdef CONFIG_KASAN_GENERIC
/* Exported for modules, but declared in mm/kasan/kasan.h only, as is the value. */
void kasan_poison(const void *addr, size_t size, u8 value, bool init);
#define PCPB_KASAN_PAGE_FREE 0xff

void pcpb_poison(void *first, unsigned long nr_pages)
{
	kasan_poison(first, nr_pages << PAGE_SHIFT, PCPB_KASAN_PAGE_FREE, false);
}

void pcpb_unpoison(void *first, unsigned long nr_pages)
{
	kasan_poison(first, nr_pages << PAGE_SHIFT, 0, false);
}

/* Not checked itself: there is no shadow of the shadow. */
__no_sanitize_address bool pcpb_is_poisoned(void *page)
{
	return READ_ONCE(*(u8 *)kasan_mem_to_shadow(page)) == PCPB_KASAN_PAGE_FREE;
}
#endif

bool pcpb_node_has_memory(int nid)
{
	return nid >= 0 && nid < MAX_NUMNODES && node_state(nid, N_MEMORY);
}

/*
 * What a user of each migratetype asks for, less whatever would reclaim, kill
 * or dip into reserves: a workload that exhausts memory must get NULL.
 */
gfp_t pcpb_stock_gfp(int migratetype)
{
	gfp_t gfp;

	switch (migratetype) {
	case MIGRATE_MOVABLE:
		gfp = GFP_HIGHUSER_MOVABLE & ~__GFP_HIGHMEM;
		break;
	case MIGRATE_RECLAIMABLE:
		gfp = GFP_KERNEL | __GFP_RECLAIMABLE;
		break;
	default:
		gfp = GFP_KERNEL;
	}
	return (gfp & ~__GFP_DIRECT_RECLAIM) | __GFP_NORETRY | __GFP_NOWARN |
	       __GFP_NOMEMALLOC;
}

struct page *pcpb_stock_alloc(gfp_t gfp, unsigned int order, int nid)
{
	if (nid == NUMA_NO_NODE)
		return alloc_pages(gfp, order);
	return alloc_pages_node(nid, gfp | __GFP_THISNODE, order);
}

unsigned long pcpb_stock_alloc_bulk(gfp_t gfp, int nid, unsigned long nr,
				    struct page **pages)
{
	if (nid == NUMA_NO_NODE)
		return alloc_pages_bulk(gfp, nr, pages);
	return alloc_pages_bulk_node(gfp | __GFP_THISNODE, nid, nr, pages);
}

void pcpb_stock_free_bulk(struct page **pages, int nr)
{
	release_pages(pages, nr);
}

/* A run whose pages are freed one by one or by free_contig_range(). */
struct page *pcpb_stock_alloc_contig(gfp_t gfp, int nid, unsigned long nr)
{
	unsigned int order = get_order(nr << PAGE_SHIFT);
	struct page *first;

	if (order > MAX_PAGE_ORDER)
		return pcpb_grab_range(nr, nid);
	first = pcpb_stock_alloc(gfp, order, nid);
	if (!first)
		return NULL;
	split_page(first, order);
	if (nr < 1UL << order)
		free_contig_range(page_to_pfn(first) + nr, (1UL << order) - nr);
	return first;
}

struct page *pcpb_nth_page(struct page *first, unsigned long nr)
{
	return pfn_to_page(page_to_pfn(first) + nr);
}

unsigned int pcpb_max_page_order(void)
{
	return MAX_PAGE_ORDER;
}

bool pcpb_cpu_online(unsigned int cpu)
{
	return cpu < nr_cpu_ids && cpu_online(cpu);
}

unsigned int pcpb_num_online_cpus(void)
{
	return num_online_cpus();
}

unsigned int pcpb_this_cpu(void)
{
	return raw_smp_processor_id();
}

bool pcpb_cpu_active(unsigned int cpu)
{
	return cpu_active(cpu);
}

unsigned int pcpb_settle(void)
{
	migrate_disable();
	return smp_processor_id();
}

void pcpb_unsettle(void)
{
	migrate_enable();
}

int pcpb_move_to(unsigned int cpu)
{
	return set_cpus_allowed_ptr(current, cpumask_of(cpu));
}

/*
 * What is done in an interrupt from another CPU takes spinlocks. Only with
 * PREEMPT_RT would that be wrong; lockdep has to be told, as for irq_work.
 */
void pcpb_ipi_enter(void)
{
	lockdep_irq_work_enter(0);
}

void pcpb_ipi_exit(void)
{
	lockdep_irq_work_exit(0);
}

int pcpb_hotplug_setup(int (*online)(unsigned int, struct hlist_node *),
		       int (*dead)(unsigned int, struct hlist_node *))
{
	return cpuhp_setup_state_multi(CPUHP_BP_PREPARE_DYN, "pcp_buddy:dead",
				       online, dead);
}

void pcpb_hotplug_remove(int state)
{
	cpuhp_remove_multi_state(state);
}

int pcpb_hotplug_join(int state, struct hlist_node *node)
{
	return cpuhp_state_add_instance_nocalls(state, node);
}

void pcpb_hotplug_leave(int state, struct hlist_node *node)
{
	cpuhp_state_remove_instance_nocalls(state, node);
}

void pcpb_cond_resched(void)
{
	cond_resched();
}

void pcpb_sleep_us(unsigned long us)
{
	usleep_range(us, us + us / 4 + 1);
}
