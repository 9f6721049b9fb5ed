// SPDX-License-Identifier: GPL-2.0
/*
 * One of each kind of bug that a debug kernel is to find, made when this is loaded.
 * A boot in which one of them goes unnoticed proves nothing about anything else.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

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
