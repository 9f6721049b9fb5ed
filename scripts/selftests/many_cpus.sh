#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# With 16, 32 and 64 CPUs, which may be more than the machine has cores, a zone stays
# in order under stress.
# Stamps every page, and counts operations; looks at no times.
# Needs 64 CPUs and 2 GiB of memory.
#
# pcpb: cpus=64 mem=3G timeout=600
. "$(dirname "$0")/lib.sh"

# stressed POLICY CPUS: all of them at once, then everything is back. Two ranges, so that
# it matters in which of them a page is.
stressed() {
	add t-m policy=$1 size=512M ranges=2 || return 1
	run t-m "stress cpus=0-$(($2 - 1)) order=0-4 mt=mixed verify=1 pages=2048 ms=1000" &&
		has t-m/result status ok verify_errors 0 free_errors 0 &&
		holds "operations" "$(key t-m/result total_ops)" -gt $(($2 * 10)) &&
		balanced t-m && settled t-m && del t-m
}

begin 17 cpus=64 mib=1800

check "memory can be measured" remember_memory
for cpus in 16 32 64; do
	for policy in $ALL_POLICIES; do
		check "$policy: stress on $cpus CPUs" stressed $policy $cpus
	done
done
check "memory is given back" memory_is_back
finish
