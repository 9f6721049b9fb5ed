#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Chunks of every order and type: as many as asked for are given out, no two of
# them overlap, and free again they merge to what they were.
# Runs workloads of single orders and of ranges of them, stamping every page.
# Needs 4 GiB of memory.
#
# pcpb: cpus=2 mem=6G
. "$(dirname "$0")/lib.sh"

# Half of the zone in chunks of one order; the counters must name that order.
single() {
	add t-a policy=$1 size=128M &&
		run t-a "exit cpus=0-1 order=$2 pages=8192 verify=1 free=shuffled" &&
		has t-a/result failures 0 verify_errors 0 ops $((16384 >> $2)) pages 16384 \
			"alloc_movable_order$2" $((16384 >> $2)) \
			"free_movable_order$2" $((16384 >> $2)) &&
		balanced t-a && settled t-a && del t-a
}

# mixture POLICY WORKLOAD ORDERS TYPE FREE TOUCH
mixture() {
	case $2 in
	rand)	words="ops=10000" ;;
	*)	words="free=$5" ;;
	esac
	add t-a policy=$1 size=256M &&
		run t-a "$2 cpus=0-1 order=$3 mt=$4 touch=$6 pages=8192 verify=1 $words" &&
		has t-a/result verify_errors 0 failures 0 &&
		balanced t-a && types $4 && settled t-a && del t-a
}

# The counters name the types that were asked for, and no others.
types() {
	for type in movable unmovable reclaimable; do
		asked=$(sum t-a/result "alloc_${type}_order.*")
		case $1 in
		mixed|$type)	holds "allocations of type $type" "$asked" -gt 0 || return 1 ;;
		*)		same "allocations of type $type" 0 "$asked" || return 1 ;;
		esac
	done
}

# All of a zone in chunks of one order, from 4 MiB to 1 GiB.
huge() {
	add t-a policy=economy size=1G &&
		run t-a "bulk cpus=0 order=$1 pages=262144 touch=first" &&
		has t-a/result failures 0 pages 262144 ops $((262144 >> $1)) \
			"alloc_movable_order$1" $((262144 >> $1)) &&
		settled t-a && del t-a
}

# A 1 GiB chunk is there again after small ones were all over the zone.
huge_after_small() {
	add t-a policy=economy size=1G &&
		run t-a "stress cpus=0-1 ops=10000" && put t-a/drain all &&
		run t-a "bulk cpus=1 order=18 pages=262144" && has t-a/result failures 0 ops 1 &&
		settled t-a && del t-a
}

huge_stamped() {
	add t-a policy=economy size=1G &&
		run t-a "rand cpus=0-1 order=0-14 ops=300 verify=1 mt=mixed" &&
		has t-a/result verify_errors 0 && balanced t-a && settled t-a && del t-a
}

# No policy gives what it cannot: the largest order and one more.
limit() {
	add t-a policy=$1 size=1G && run t-a "pair cpus=0 order=$2 ops=10" &&
		has t-a/result failures 0 ops 10 || return 1
	[ "$2" = 18 ] ||
		refused EINVAL "none above $2" t-a/run "workload=pair cpus=0 order=$(($2 + 1)) ops=10" ||
		return 1
	settled t-a && del t-a
}

begin $((5 * (11 + 7) + 9 + 2 + 5)) cpus=2 mib=3000

for policy in $ALL_POLICIES; do
	for order in 0 1 2 3 4 5 6 7 8 9 10; do
		check "$policy: order $order" single $policy $order
	done
	check "$policy: orders 0-9, mixed types, at random" mixture $policy rand 0-9 mixed - none
	check "$policy: orders 1-9, unmovable, lifo" mixture $policy bulk 1-9 unmovable lifo first
	check "$policy: orders 0-3, reclaimable, fifo" mixture $policy bulk 0-3 reclaimable fifo all
	check "$policy: orders 3-6, mixed types, shuffled" mixture $policy bulk 3-6 mixed shuffled none
	check "$policy: orders 0-10, movable, all free at once" mixture $policy exit 0-10 movable fifo none
	check "$policy: order 0, mixed types, all free at once" mixture $policy exit 0 mixed lifo all
	check "$policy: order 9, mixed types" mixture $policy exit 9 mixed shuffled first
done
for order in 10 11 12 13 14 15 16 17 18; do
	check "economy: all of 1 GiB in chunks of order $order" huge $order
done
check "economy: 1 GiB in one piece after small chunks" huge_after_small
check "economy: orders 0-14" huge_stamped
for policy in stock pcp owner split; do
	check "$policy: nothing above order 10" limit $policy 10
done
check "economy: 1 GiB is the largest" limit economy 18

finish
