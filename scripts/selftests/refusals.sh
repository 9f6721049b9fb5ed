#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# No request is refused that can be met, on any policy: while another CPU asks for
# more than there is, when hardly anything is left, and in zones of odd sizes, whose
# chunks of every order are where they should be in memory.
# Needs 3 GiB of memory.
#
# pcpb: cpus=2 mem=6G
. "$(dirname "$0")/lib.sh"

# Of stock nobody knows what is free.
no_spurious_failures() {
	case $1 in
	stock)	has t-a/result status ok spurious_failures n/a ;;
	*)	has t-a/result status ok spurious_failures 0 &&
			holds "failures" "$(key t-a/result total_failures)" -gt 0 ;;
	esac
}

# in_vain POLICY ORDER ORDERS VERIFY: CPU 0 asks for chunks of ORDER, each of which has a page
# in use.
in_vain() {
	add t-a policy=$1 size=64M &&
		run t-a "stress cpus=0-1 vain=$2 order=$3 verify=$4 ms=400" &&
		no_spurious_failures $1 && balanced t-a && settled t-a && del t-a
}

# A zone that is nearly always full.
little() {
	add t-a policy=$1 size=4M &&
		run t-a "stress cpus=0-1 pages=1024 order=0-4 ms=400" &&
		no_spurious_failures $1 && balanced t-a && settled t-a && del t-a
}

# shown PAGES: the tables of t-a show that many free pages.
shown() {
	pages=$(awk 'NR == 1 { next }
		{ for (i = 3; i <= NF; i++) sum += $i * 2 ^ (i - 3) }
		END { printf "%d\n", sum }' "$ROOT/t-a/buddyinfo")
	same "free pages in buddyinfo" $1 $pages && same "free pages in pageblocks" $1 \
		"$(pages_in_blocks t-a)"
}

# What the header of buddyinfo ends with.
largest_order() {
	awk '{ print $NF; exit }' "$ROOT/t-a/buddyinfo"
}

# odd POLICY MIB WORDS: chunks of all orders that there are are aligned in memory, the largest ones too.
odd() {
	add t-a policy=$1 size=${2}M $3 && shown $(($2 * 256)) || return 1
	largest=$(largest_order)
	for order in 9 10 $largest; do
		run t-a "pair cpus=1 order=$order ops=5 verify=1" &&
			has t-a/result status ok failures 0 align_errors 0 || return 1
	done
	run t-a "stress cpus=0-1 order=0-10 ops=2000" &&
		has t-a/result status ok align_errors 0 spurious_failures 0 &&
		run t-a "hog cpus=0-1 order=0-$largest" &&
		has t-a/result status ok spurious_failures 0 pages $(($2 * 256)) &&
		balanced t-a && settled t-a && shown $(($2 * 256)) && del t-a
}

begin $((5 * 4 + 4 * 3 + 4 + 2)) cpus=2 mib=3000

check "memory can be measured" remember_memory
for policy in $ALL_POLICIES; do
	check "$policy: small ones beside order 9 in vain" in_vain $policy 9 0-3 1
	check "$policy: the same without stamps" in_vain $policy 9 0 0
	check "$policy: all below order 5 in vain" in_vain $policy 5 0-4 1
	check "$policy: little memory" little $policy
done
for policy in $RANGE_POLICIES; do
	check "$policy: 3 ranges of 20 MiB" odd $policy 60 ranges=3
	check "$policy: 12 MiB in small blocks" odd $policy 12 block_order=6
	check "$policy: 3 ranges of 100 MiB, a third CMA" odd $policy 300 "ranges=3 cma=33 block_order=8"
done
check "economy: 1000 MiB" odd economy 1000
check "economy: 1536 MiB" odd economy 1536
check "economy: 2 GiB in large blocks" odd economy 2048 block_order=10
check "owner: 1536 MiB in large blocks" odd owner 1536 block_order=10
check "memory is given back" memory_is_back

finish
