#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Latencies and lock times: every acquisition and no other is timed, percentiles
# rise, and neither is there unless it is asked for.
# Needs a kernel with the module and 1 GiB of memory.
#
# pcpb: cpus=2 mem=2G alone
. "$(dirname "$0")/lib.sh"

LOAD="bulk cpus=0-1 pages=16384 ops=200000"

# The numbers of a histogram, summed; 0 where there is none.
histogram() {
	sed -n "s/^$2: //p" "$ROOT/$1" | tr ' ' '\n' | awk '{ sum += $1 } END { print sum + 0 }'
}

# The times of each kind of lock are as many as its acquisitions.
lock_times() {
	add t-a policy=$1 size=256M && put t-a/stats reset &&
		run t-a "$LOAD lock_times=1" && balanced t-a || return 1
	for lock in zone_lock pcp_lock; do
		for time in wait hold; do
			same "times in ${lock}_${time}_log2_ns" "$(key t-a/result ${lock}_acquired)" \
				"$(histogram t-a/result ${lock}_${time}_log2_ns)" || return 1
		done
	done
	holds "acquisitions of the zone lock" "$(histogram t-a/stats zone_lock_hold_log2_ns)" -gt 0 &&
		put t-a/stats reset &&
		same "times after a reset" 0 "$(histogram t-a/stats zone_lock_hold_log2_ns)" &&
		run t-a "$LOAD" && same "times of a run without" 0 \
			"$(histogram t-a/result zone_lock_hold_log2_ns)" &&
		settled t-a && del t-a
}

latencies() {
	add t-a policy=$1 size=256M && run t-a "$2 latency=1" && has t-a/result status ok || return 1
	for call in alloc free; do
		last=$(key t-a/result clock_ns_p50)
		for figure in p50 p90 p99 p999 max; do
			now=$(key t-a/result ${call}_ns_$figure)
			holds "${call}_ns_$figure" "$now" -ge "$last" || return 1
			last=$now
		done
		holds "longest $call in ns" "$last" -lt 1000000000 || return 1
	done
	run t-a "$2" && same "percentiles of a run without" 0 \
		"$(grep -c '_ns_p50' "$ROOT/t-a/result")" &&
		balanced t-a && settled t-a && del t-a
}

begin $((1 + 4 + 5 * 3 + 1)) cpus=2 mib=600

check "memory can be measured" remember_memory
for policy in $RANGE_POLICIES; do
	check "$policy: every acquisition is timed" lock_times $policy
done
for policy in $ALL_POLICIES; do
	check "$policy: latencies of single calls" latencies $policy "$LOAD"
	check "$policy: latencies of arrays" latencies $policy "$LOAD how=array"
	check "$policy: latencies of runs" latencies $policy "contig cpus=0-1 ops=1000"
done
check "memory is given back" memory_is_back

finish
