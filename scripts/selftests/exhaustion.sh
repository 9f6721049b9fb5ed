#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Out of memory means out of memory: every page of a zone can be had, whichever CPU
# has it on its set, and all are back afterwards.
# Takes all of a zone from all CPUs, repeatedly, and counts.
# Needs 1 GiB of memory.
#
# pcpb: cpus=4 mem=2G
. "$(dirname "$0")/lib.sh"

PAGES=16384

# hog POLICY CPUS NR_CPUS: to the last page, three times, each CPU failing once.
hog() {
	add t-a policy=$1 size=64M &&
		run t-a "hog cpus=$2 verify=1 repeat=3 free=shuffled" &&
		has t-a/result pages $PAGES ops $PAGES failures $3 verify_errors 0 \
			total_pages $((3 * PAGES)) total_failures $((3 * $3)) &&
		balanced t-a && settled t-a && del t-a
}

hog_ranges() {
	add t-a policy=$1 size=64M ranges=8 block_order=8 &&
		run t-a "hog cpus=0-3 verify=1" && has t-a/result pages $PAGES verify_errors 0 &&
		settled t-a && del t-a
}

# Each type can have all of the zone, after the others had it.
types() {
	add t-a policy=$1 size=64M || return 1
	for type in unmovable movable reclaimable mixed; do
		run t-a "hog cpus=0-3 mt=$type" && has t-a/result pages $PAGES || return 1
	done
	settled t-a && del t-a
}

# Large chunks first, then what is left in smaller ones, to the last page.
orders() {
	add t-a policy=$1 size=64M &&
		run t-a "hog cpus=0-3 order=0-9 verify=1 repeat=2" &&
		has t-a/result pages $PAGES verify_errors 0 && balanced t-a && settled t-a && del t-a
}

# CPU 0 has pages on its set, CPU 1 runs dry: it gets them, without a drain of all.
others_have_it() {
	add t-a policy=$1 size=64M &&
		run t-a "bulk cpus=0 pages=4096" &&
		holds "pages on sets" "$(column_sum t-a/pageblocks free_pcp)" -gt 0 &&
		run t-a "hog cpus=1" && has t-a/result pages $PAGES failures 1 &&
		holds "targeted drains or steals" "$(sum t-a/result 'targeted_drain|steal')" -gt 0 &&
		settled t-a && del t-a
}

# Any workload that asks for more than there is fails some allocations, loses
# nothing, and goes on.
too_small() {
	add t-a policy=$1 size=4M &&
		run t-a "exit cpus=0-3 pages=1024 verify=1 ops=20000" &&
		has t-a/result verify_errors 0 &&
		holds "failures" "$(key t-a/result failures)" -gt 0 && balanced t-a &&
		run t-a "stress cpus=0-3 pages=1024 ops=10000" && has t-a/result verify_errors 0 &&
		balanced t-a && settled t-a && run t-a "hog cpus=0-3" && has t-a/result pages 1024 &&
		settled t-a && del t-a
}

begin $((4 * 7 + 2 + 2)) cpus=4 mib=600

check "memory can be measured" remember_memory
for policy in $RANGE_POLICIES; do
	check "$policy: the last page, from one CPU" hog $policy 2 1
	check "$policy: the last page, from 4 CPUs" hog $policy 0-3 4
	check "$policy: the last page of 8 ranges" hog_ranges $policy
	check "$policy: the last page of every type" types $policy
	check "$policy: the last page in chunks of all orders" orders $policy
	check "$policy: the last page, when another CPU has it" others_have_it $policy
	check "$policy: a zone that is too small" too_small $policy
done
check "stock: the last page of its budget, from one CPU" hog stock 2 1
check "stock: a zone that is too small" too_small stock
check "memory is given back" memory_is_back

finish
