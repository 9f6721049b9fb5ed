#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Zones of tens of GiB, of all policies: every page of them can be had, and comes back.
# Needs 36 GiB of memory; a guest is given that much of its host only where it is used.
#
# pcpb: cpus=2 mem=40G
. "$(dirname "$0")/lib.sh"

GIB=32
PAGES=$((GIB << 18))

served() {
	add t-l policy=$1 size=${GIB}G ranges=$((GIB / 2)) &&
		same "pages" $PAGES "$(zone_column t-l pages)" &&
		run t-l "stress cpus=0-1 order=0-9 mt=mixed ms=500" &&
		has t-l/result status ok verify_errors 0 free_errors 0 &&
		run t-l "hog cpus=0-1 order=9" && same "pages" $PAGES "$(key t-l/result pages)" &&
		run t-l "hog cpus=1 mt=mixed" && same "pages" $PAGES "$(key t-l/result pages)" &&
		settled t-l && del t-l
}

begin 6 cpus=2 mib=$(((GIB + 4) * 1024))

check "memory can be measured" remember_memory
for policy in $RANGE_POLICIES; do
	check "$policy: a zone of $GIB GiB" served $policy
done
check "memory is given back" memory_is_back
finish
