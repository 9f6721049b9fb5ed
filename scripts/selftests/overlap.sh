#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in several zones at once do not disturb each other, and a run may have as
# many CPUs as there are, in a zone of several ranges.
# Stamps every page, and counts operations.
# Needs 16 CPUs and 4 GiB of memory.
#
# pcpb: cpus=16 mem=5G timeout=300
. "$(dirname "$0")/lib.sh"

# In the background: what `run` says goes to a file of its own.
start() {
	run "$1" "$2" >"$WORK/$1.run" 2>&1 &
	JOBS="$JOBS $!"
}

# all_end ZONE...: as planned, with every operation and no damage.
all_end() {
	bad=0
	for job in $JOBS; do
		wait "$job" || bad=1
	done
	JOBS=
	for zone; do
		cat "$WORK/$zone.run"
		has "$zone/result" ops $OPS verify_errors 0 free_errors 0 status ok && balanced "$zone" &&
			settled "$zone" || bad=1
	done
	return $bad
}
OPS=20000

# A test machine may have fewer CPUs than its guest. The kernel's spinlocks are fair:
# a CPU that is not running is waited for by all behind it. So the more CPUs, the fewer
# operations.
FEW=2000

# One run in each, of all policies, on the same CPUs.
each_policy() {
	for policy in $ALL_POLICIES; do
		add t-$policy policy=$policy size=128M || return 1
	done
	for policy in $ALL_POLICIES; do
		start t-$policy "$1 cpus=$2 ops=$OPS verify=1"
	done
	all_end $(own_zones) || return 1
	for policy in $ALL_POLICIES; do
		del t-$policy || return 1
	done
}

# Several zones of the same policy.
same_policy() {
	for nr in 0 1 2 3; do
		add t-$nr policy=$1 size=64M || return 1
	done
	for nr in 0 1 2 3; do
		start t-$nr "stress cpus=$nr,$((nr + 1)) ops=$OPS order=0-3 pages=1024"
	done
	all_end t-0 t-1 t-2 t-3 || return 1
	for nr in 0 1 2 3; do
		del t-$nr || return 1
	done
}

# purge POLICY OPS CPUS FREE_CPUS: in 2 GiB of two ranges.
purge() {
	[ -d "$ROOT/t-two" ] || add t-two policy=$1 size=2G ranges=2 || return 1
	run t-two "purge cpus=$3 free_cpus=$4 ops=$2 verify=1" &&
		has t-two/result ops $2 failures 0 verify_errors 0 status ok \
			alloc_movable_order0 $2 free_movable_order0 $2 &&
		settled t-two
}

# Both ranges, to the last page, and each page with its own stamp.
both_ranges() {
	run t-two "hog cpus=0-3 verify=1 order=0-9" && has t-two/result pages 524288 verify_errors 0 &&
		settled t-two && del t-two
}

all_cpus() {
	add t-a policy=$1 size=256M || return 1
	for workload in pair "rand pages=512" fanout "stress pages=512 order=0-3"; do
		run t-a "$workload cpus=0-15 ops=$FEW verify=1" || return 1
		has t-a/result ops $FEW verify_errors 0 && balanced t-a || return 1
	done
	settled t-a && del t-a
}

begin $((3 + 4 + 4 * 5 + 5)) cpus=16 mib=3500

check "a stress in a zone of each policy" each_policy "stress pages=512" 0-1
check "a purge in a zone of each policy" each_policy "purge" 0-3
check "a rand in a zone of each policy" each_policy "rand order=0-3 pages=1024" 0-1
for policy in $RANGE_POLICIES; do
	check "$policy: 4 runs in 4 zones, on CPUs that they share" same_policy $policy
done
for policy in $RANGE_POLICIES; do
	check "$policy: purge in 2 GiB of two ranges, 2 CPUs" purge $policy 1000000 0 1
	check "$policy: purge in 2 GiB of two ranges, 4 CPUs" purge $policy 200000 0-2 3
	check "$policy: purge in 2 GiB of two ranges, 8 CPUs" purge $policy 50000 0-5 6-7
	check "$policy: purge in 2 GiB of two ranges, 16 CPUs" purge $policy 20000 0-11 12-15
	check "$policy: hog in 2 GiB of two ranges, 4 CPUs" both_ranges $policy
done
for policy in $ALL_POLICIES; do
	check "$policy: pair, rand, fanout, stress on 16 CPUs" all_cpus $policy
done

finish
