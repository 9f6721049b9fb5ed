#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Interrupts allocate and free in the middle of what tasks do, on every policy: no
# page is damaged, lost or counted wrongly.
# Runs workloads with timers and inter-processor interrupts on their CPUs.
# Needs 1 GiB of memory.
#
# pcpb: cpus=4 mem=3G
. "$(dirname "$0")/lib.sh"

CONTEXTS="softirq hardirq"

# interrupted POLICY CONTEXT COMMAND
interrupted() {
	add t-c policy=$1 size=256M && run t-c "$3 context=$2 verify=1" &&
		has t-c/result status ok verify_errors 0 free_errors 0 &&
		contains "$(key t-c/result command)" "context=$2" &&
		holds "allocations in interrupts" "$(key t-c/result interrupt_ops)" -gt 50 &&
		balanced t-c && settled t-c && del t-c
}

# Counters lose nothing to an interrupt in between.
counted() {
	add t-c policy=$1 size=64M && run t-c "pair cpus=0-1 ms=200 context=hardirq" &&
		same "chunks allocated" "$(sum t-c/result 'total_ops|interrupt_ops')" \
			"$(sum t-c/result 'alloc_.*_order.*')" && balanced t-c && del t-c
}

# A run in task context says nothing of interrupts.
uninterrupted() {
	add t-c size=64M && run t-c "pair cpus=0 ops=1000 context=task" &&
		same "lines about interrupts" "" "$(grep interrupt "$ROOT/t-c/result")" && del t-c
}

begin 38 cpus=4 mib=512

check "memory can be measured" remember_memory
check "no interrupts unless asked for" uninterrupted
for policy in $ALL_POLICIES; do
	for context in $CONTEXTS; do
		check "$policy: $context, pair on one CPU" interrupted $policy $context \
			"pair cpus=0 ms=200"
		check "$policy: $context, random orders" interrupted $policy $context \
			"rand cpus=0-1 order=0-9 mt=mixed ms=300"
		check "$policy: $context, stress" interrupted $policy $context \
			"stress cpus=0-3 order=0-4 mt=mixed ms=500 pages=2048"
	done
done
for policy in $ALL_POLICIES; do
	check "$policy: every call is counted" counted $policy
done
check "memory is given back" memory_is_back
finish
