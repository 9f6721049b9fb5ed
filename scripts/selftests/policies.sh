#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Every policy serves every workload: exactly the operations asked for, no page
# given out twice or written by another, and all of it comes back.
# Runs each with stamps on every page on 2 CPUs, and counts afterwards.
# Needs a kernel with the module and 1 GiB of memory.
#
# pcpb: cpus=2 mem=2G alone
. "$(dirname "$0")/lib.sh"

OPS=20001
PAGES=65536

# Operations in all. By default a set of 64 MiB a CPU, if half of the zone has it.
expected_ops() {
	case $1 in
	bulk|exit)	echo $((2 * 16384)) ;;
	contig)		echo $((2 * 16384 / 512)) ;;
	hog)		echo $PAGES ;;
	*)		echo $OPS ;;
	esac
}

amount() {
	case $1 in
	bulk|exit|hog|contig)	;;
	*)		echo "ops=$OPS" ;;
	esac
}

# Each CPU finds out by itself that nothing is left.
expected_failures() {
	[ "$1" = hog ] && echo 2 || echo 0
}

# What is left of the operations after those that failed. `stress` holds half of
# the zone in chunks of all sizes: a large one may not be to be had.
failures_and_ops() {
	failures=$(expected_failures $1) ops=$(expected_ops $1)
	[ $1 = stress ] || return 0
	failures=$(key t-a/result failures)
	holds "failures" "$failures" -lt $((OPS / 100)) && ops=$((ops - failures))
}

# serves POLICY WORKLOAD
serves() {
	add t-a policy=$1 size=256M &&
		run t-a "$2 cpus=0-1 $(amount $2) verify=1 seed=7" &&
		failures_and_ops $2 &&
		has t-a/result workload $2 policy $1 cpus 0-1 status ok \
			ops $ops failures $failures alloc_failed $failures \
			verify_errors 0 free_errors 0 double_free 0 bad_free 0 &&
		balanced t-a && tabled && counted $2 && settled t-a && del t-a
}

# The counters of the policy know of as many allocations as the workload, or more
# where some are not timed: those that fill up first.
counted() {
	case $1 in
	rand|stress)	compare=-ge ;;
	*)		compare=-eq ;;
	esac
	# The pages of a run are counted one by one.
	[ "$1" = contig ] && ops=$((512 * ops))
	holds "allocations by the counters" "$(sum t-a/result 'alloc_.*_order.*')" $compare $ops
}

# The table by CPU has a row for each, and its sums are the totals.
tabled() {
	sed -n '/^repetition /,$p' "$ROOT/t-a/result" >"$WORK/rows"
	same "CPUs in the table" "0 1" "$(awk 'NR > 1 { print $2 }' "$WORK/rows" | xargs)" &&
		same "operations in the table" $ops \
			"$(awk '{ sum += $3 } END { print sum }' "$WORK/rows")"
}

# Several repetitions: as many rows, and totals over all.
repeated() {
	add t-a policy=$1 size=256M &&
		run t-a "pair cpus=0-1 ops=1000 repeat=5" &&
		has t-a/result repeat 5 ops 1000 total_ops 5000 &&
		same "allocations by the counters" 5000 "$(sum t-a/result 'alloc_.*_order.*')" &&
		same "rows" 10 "$(sed '1,/^repetition /d' "$ROOT/t-a/result" | wc -l)" &&
		settled t-a && del t-a
}

# What `stats` counts since a reset is what `result` says of the run.
stats_agree() {
	add t-a policy=$1 size=256M && run t-a "bulk cpus=0-1 pages=1000" &&
		put t-a/stats reset && same "counters after reset" 0 "$(sum t-a/stats "$COUNTERS")" &&
		run t-a "bulk cpus=0-1 pages=2000" || return 1
	counters t-a/result >"$WORK/result"
	counters t-a/stats | diff - "$WORK/result" &&
		has t-a/result alloc_movable_order0 4000 && settled t-a && del t-a
}
# Not those of the sets' locks: to look at an economy takes one of them.
COUNTERS='(alloc|free)_.*_order[0-9]*|refill.*|drain.*|merge.*|block_.*|zone_.*|steal.*'
counters() {
	grep -E "^($COUNTERS):" "$ROOT/$1"
}

# A run by time does something, and ends.
timed() {
	add t-a policy=$1 size=256M && run t-a "rand cpus=0-1 ms=30 order=0-3" &&
		holds "operations" "$(key t-a/result ops)" -gt 0 && settled t-a && del t-a
}

begin $((5 * 9 + 3 * 5 + 2)) cpus=2 mib=600

check "memory can be measured" remember_memory
for policy in $ALL_POLICIES; do
	for workload in $WORKLOADS; do
		check "$policy: $workload" serves $policy $workload
	done
	check "$policy: repetitions" repeated $policy
	check "$policy: counters agree" stats_agree $policy
	check "$policy: a run by time" timed $policy
done
check "memory is given back" memory_is_back

finish
