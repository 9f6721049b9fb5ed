// SPDX-License-Identifier: GPL-2.0
/*
 * One of each kind of bug that a debug kernel is to find, made when this is loaded.
 * A boot in which one of them goes unnoticed proves nothing about anything else.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

static unsigned long pfn[4];
static int nr_pfn;
module_param_array(pfn, ulong, &nr_pfn, 0);
MODULE_PARM_DESC(pfn, "Free pages of zones of pcp_buddy");

static DEFINE_SPINLOCK(a);
static DEFINE_SPINLOCK(b);

/* KASAN: a byte behind what was allocated. */
static int write_beyond_the_end(void)
{
	size_t size = 64;
	u8 *bytes = kmalloc(size, GFP_KERNEL);

	if (!bytes)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(size);
	WRITE_ONCE(bytes[size], 1);
	kfree(bytes);
	return 0;
}

/* KASAN: pages that their zone has not given to anybody. */
static void write_to_free_pages(void)
{
	int i;

	for (i = 0; i < nr_pfn; i++) {
		u8 *page = page_address(pfn_to_page(pfn[i]));

		pr_err("a write to the free page %lu\n", pfn[i]);
		WRITE_ONCE(page[100], 1);
	}
}

/* DEBUG_ATOMIC_SLEEP: what may sleep, where nothing may. */
static void sleep_with_a_lock_held(void)
{
	spin_lock(&a);
	might_sleep();
	spin_unlock(&a);
}

/* Lockdep: two locks in both orders, which is a deadlock for two CPUs. */
static void lock_both_ways(void)
{
	spin_lock(&a);
	spin_lock(&b);
	spin_unlock(&b);
	spin_unlock(&a);

	spin_lock(&b);
	spin_lock(&a);
	spin_unlock(&a);
	spin_unlock(&b);
}

static int __init planted_init(void)
{
	int err;

	pr_err("planted bugs from here\n");
	/* In this order: what KASAN finds ends the work of lockdep. */
	lock_both_ways();
	sleep_with_a_lock_held();
	err = write_beyond_the_end();
	write_to_free_pages();
	pr_err("planted bugs to here\n");
	return err;
}

static void __exit planted_exit(void)
{
}

module_init(planted_init);
module_exit(planted_exit);
MODULE_DESCRIPTION("Bugs for a debug kernel to find");
MODULE_LICENSE("GPL");
