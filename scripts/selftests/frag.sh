#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What `frag` says of the free memory: all levels, figures that fit each other, and
# those that are known beforehand because nothing can be in pieces.
# Needs a kernel with the module and 3 GiB of memory.
#
# pcpb: cpus=2 mem=5G
. "$(dirname "$0")/lib.sh"

LEVELS="25 50 75 90"
MIB=256
PAGES=$((MIB * 256))

# An integer out of a figure with two decimals.
hundredths() {
	key t-a/result $1 | tr -d .
}

# sane POLICY LEVEL: what is free is as much as the level says, up to a chunk a CPU.
sane() {
	free=$(key t-a/result fill$2_free_pages)
	most=$((PAGES * (100 - $2) / 100 + 1))
	holds "free pages at $2 %" $free -le $most &&
		holds "free pages at $2 %" $free -ge $((most - 32)) &&
		holds "success at $2 %" "$(hundredths fill$2_success_order9)" -le 10000 &&
		has t-a/result fill$2_success_order18 n/a || return 1
	for index in extfrag unusable; do
		same "orders in fill$2_${index}_index" 11 \
			"$(sed -n "s/^fill$2_${index}_index: //p" "$ROOT/t-a/result" | wc -w)" || return 1
	done
	[ $1 = stock ] && { has t-a/result fill$2_whole_order9 n/a; return; }
	# What lies whole already can be had; more comes together when it is asked for.
	whole=$(key t-a/result fill$2_whole_order9)
	got=$(($(hundredths fill$2_success_order9) * (free / 512) / 10000 + 1))
	holds "2 MiB runs at $2 %" "$got" -ge "$whole" &&
		same "what is unusable for order 0" 0.000 "$(sed -n \
			"s/^fill$2_unusable_index: \([^ ]*\).*/\1/p" "$ROOT/t-a/result")"
}

mixed() {
	add t-a policy=$1 size=${MIB}M &&
		run t-a "frag cpus=0-1 ops=100000 verify=1 repeat=3" &&
		has t-a/result status ok verify_errors 0 free_errors 0 || return 1
	for level in $LEVELS; do
		sane $1 $level || return 1
	done
	balanced t-a && settled t-a && del t-a
}

# Nothing but whole pageblocks: not one is in pieces. (`split` does not know of what
# has been handed over; of a stock zone's bound, CPUs keep a part to themselves.)
whole() {
	add t-a policy=$1 size=${MIB}M &&
		run t-a "frag cpus=0-1 order=9 mt=movable ops=20000" && has t-a/result status ok || return 1
	for level in $LEVELS; do
		has t-a/result fill${level}_success_order9 100.00 || return 1
		[ $1 = split ] || same "what is unusable for order 9" 0.000 "$(sed -n \
			"s/^fill${level}_unusable_index: //p" "$ROOT/t-a/result" | cut -d' ' -f10)" || return 1
	done
	settled t-a && del t-a
}

gigantic() {
	add t-a policy=economy size=2G &&
		run t-a "frag cpus=0 order=9 mt=movable ops=1000" &&
		has t-a/result status ok fill25_success_order18 100.00 fill75_success_order18 n/a &&
		settled t-a && del t-a
}

begin $((1 + 5 + 4 + 1 + 1)) cpus=2 mib=3000

check "memory can be measured" remember_memory
for policy in $ALL_POLICIES; do
	check "$policy: all levels, and figures that fit each other" mixed $policy
done
for policy in $RANGE_POLICIES; do
	check "$policy: whole pageblocks stay whole" whole $policy
done
check "economy: 1 GiB is to be had" gigantic
check "memory is given back" memory_is_back

finish
