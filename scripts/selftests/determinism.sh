#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The same command in a new zone does exactly the same, so that a comparison of
# policies compares like with like, and another seed does something else.
# Compares all counters of runs on one CPU, and requests across policies.
# Needs 512 MiB of memory.
#
# pcpb: cpus=2 mem=2G
. "$(dirname "$0")/lib.sh"

# counters_of POLICY COMMAND FILE: what changed in a new zone over a run.
counters_of() {
	add t-a policy=$1 size=128M && run t-a "$2" || return 1
	sed -n 's/^failures:/&/p; /^alloc_failed:/,/^pcp_lock_irq_off:/p' "$ROOT/t-a/result" >"$WORK/$3"
	holds "counters" "$(wc -l <"$WORK/$3")" -gt 100 &&
		holds "allocations" "$(awk '/^alloc_.*_order/ { sum += $2 } END { print sum }' "$WORK/$3")" \
			-gt 0 && settled t-a && del t-a
}

requests() {
	grep -E '^(alloc|free)_[a-z]*_order' "$WORK/$1"
}

# Every counter, those of locks, refills and merges too.
repeatable() {
	counters_of $1 "$2" first && counters_of $1 "$2" second && diff "$WORK/first" "$WORK/second"
}

another_seed() {
	counters_of $1 "rand cpus=0 order=0-5 mt=mixed ops=5000 seed=1" first &&
		counters_of $1 "rand cpus=0 order=0-5 mt=mixed ops=5000 seed=2" second || return 1
	if cmp -s "$WORK/first" "$WORK/second"; then
		echo "seeds 1 and 2 give the same counters"
		return 1
	fi
}

# All policies are asked for the same.
same_requests() {
	command=$1
	counters_of stock "$command" stock || return 1
	for policy in $RANGE_POLICIES; do
		counters_of $policy "$command" $policy && requests $policy >"$WORK/requests" || return 1
		requests stock | diff - "$WORK/requests" || return 1
	done
}

begin $((5 * 5 + 3)) cpus=1 mib=400

for policy in $ALL_POLICIES; do
	check "$policy: pair" repeatable $policy "pair cpus=0 ops=5000 order=0-4 mt=mixed"
	check "$policy: bulk" repeatable $policy "bulk cpus=0 pages=4096 order=0-3 free=shuffled repeat=2"
	check "$policy: rand" repeatable $policy "rand cpus=0 ops=5000 order=0-5 mt=mixed seed=3"
	check "$policy: stress" repeatable $policy "stress cpus=0 ops=5000 pages=8192 seed=4"
	check "$policy: another seed" another_seed $policy
done
check "all policies get the same requests of bulk" same_requests \
	"bulk cpus=0 pages=4096 order=0-3 free=shuffled mt=mixed"
check "all policies get the same requests of rand" same_requests \
	"rand cpus=0 pages=4096 order=0-3 ops=5000 mt=mixed"
check "all policies get the same requests of pair" same_requests "pair cpus=0 ops=5000 order=0-9"

finish
