#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Arrays of pages and runs of pages, on every policy: as many calls as it takes
# and no more, every page counted, all of them whole again afterwards; and what
# batches save in lock holds, which are exact counts.
# Needs a kernel with the module and 1 GiB of memory.
#
# pcpb: cpus=2 mem=2G
. "$(dirname "$0")/lib.sh"

SETS=40

# ran POLICY COMMAND EXPECTED...: with stamps on every page.
ran() {
	policy=$1 command=$2
	shift 2
	add t-a policy=$policy size=256M && run t-a "$command verify=1" &&
		has t-a/result status ok failures 0 verify_errors 0 free_errors 0 "$@" &&
		balanced t-a && settled t-a && del t-a
}

# Sets of 1024 pages on two CPUs are allocated and freed in calls of 512.
arrays() {
	calls=$((2 * 2 * SETS))
	ran $1 "$2 cpus=0-1 pages=1024 ops=$((2 * 1024 * SETS)) how=array" \
		bulk_alloc $calls bulk_free $calls alloc_movable_order0 $((2 * 1024 * SETS))
}

# What one CPU allocates in arrays, another one frees in arrays.
arrays_elsewhere() {
	ran $1 "$2 cpus=0 free_cpus=1 pages=512 ops=51200 how=array" \
		bulk_alloc 100 alloc_movable_order0 51200 free_movable_order0 51200
}

# Runs of 512 pages, freed in each way.
runs() {
	runs=$((8 * 2 * 5))
	case $2 in
	range)	freed="contig_free $runs bulk_free 0" ;;
	array)	freed="contig_free 0 bulk_free $runs" ;;
	single)	freed="contig_free 0 bulk_free 0" ;;
	esac
	ran $1 "contig cpus=0-1 pages=4096 ops=$runs how=$2" \
		ops $runs pages $((512 * runs)) contig_alloc $runs $freed \
		alloc_movable_order0 $((512 * runs)) free_movable_order0 $((512 * runs))
}

# Larger than the largest chunk of the lists, and smaller than a block.
odd_runs() {
	ran $1 "contig cpus=0 pages=16384 order=13 ops=10" ops 10 pages 81920 &&
		ran $1 "contig cpus=0 pages=4096 order=1-5 ops=5000" ops 5000
}

# A run that no range can have is a failure, and nothing else.
too_large() {
	add t-a policy=$1 size=64M ranges=2 && run t-a "contig cpus=0 order=15 ops=3" &&
		has t-a/result status ok ops 0 failures 3 && settled t-a && del t-a
}

# Under split a batch free costs a push per run of pages of one owner; what is counted is the
# lock of the set, which single local frees take each.
one_hold_an_array() {
	add t-a policy=$1 size=512M &&
		run t-a "bulk cpus=0 pages=51200" && single=$(key t-a/result pcp_lock_acquired) &&
		run t-a "bulk cpus=0 pages=51200 how=array" || return 1
	holds "lock holds of arrays" "$(key t-a/result pcp_lock_acquired)" -lt $((single / 100)) &&
		settled t-a && del t-a
}

begin $((5 * 9 + 3 + 2)) cpus=2 mib=600

check "memory can be measured" remember_memory
for policy in $ALL_POLICIES; do
	for workload in bulk exit; do
		check "$policy: arrays, $workload" arrays $policy $workload
	done
	for workload in purge fanout; do
		check "$policy: arrays, $workload" arrays_elsewhere $policy $workload
	done
	for how in range array single; do
		check "$policy: runs, how=$how" runs $policy $how
	done
	check "$policy: runs of other lengths" odd_runs $policy
	check "$policy: runs that cannot be" too_large $policy
done
for policy in pcp owner split; do
	check "$policy: an array takes a lock once" one_hold_an_array $policy
done
check "memory is given back" memory_is_back

finish
