#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A zone is what was asked for: its row in `zones`, its pageblocks, its memory.
# Adds and removes zones of all policies, sizes, ranges, nodes, pageblock orders
# and shares of CMA, one or many at a time, and reads all that they say.
# Needs a kernel with the module and 3 GiB of memory.
#
# pcpb: cpus=2 mem=4G
. "$(dirname "$0")/lib.sh"

# row ZONE POLICY NODE SIZE RANGES BLOCK_ORDER: what `zones` says of a new zone.
row() {
	same "the row of $1" "$1 $2 $3 $4 $5 $6 $(($4 / 4096)) $(($4 / 4096)) no" \
		"$(awk -v zone="$1" '$1 == zone { $1 = $1; print }' "$ROOT/zones")"
}

gone() {
	same "rows of $1" "" "$(zone_column "$1" name)" &&
		same "folder of $1" "" "$(ls -d "$ROOT/$1" 2>/dev/null)"
}

defaults() {
	add t-a && row t-a economy any $((1 << 30)) 1 9 && del t-a && gone t-a
}

# A zone of each policy; the files say what they should about an untouched zone.
each_policy() {
	add t-a policy=$1 size=64M &&
		row t-a $1 any $((64 << 20)) 1 9 &&
		contains "$(cat "$ROOT/t-a/policy")" $1 &&
		contains "$(cat "$ROOT/t-a/result")" "n/a: no workload" &&
		same "counters that are not 0 in a new zone" 0 \
			"$(sum t-a/stats '[a-z_]*_order[0-9]*|refill.*|drain.*|zone_lock.*|pcp_lock.*')" &&
		settled t-a && del t-a && gone t-a
}

# Every pageblock has a row with sane columns, and buddyinfo knows all pages too.
sane_tables() {
	blocks=$(($(zone_column "$1" pages) >> $(zone_column "$1" block_order)))
	same "rows of $1/pageblocks" $blocks "$(column "$1/pageblocks" block | sort -un | wc -l)" &&
		same "types in $1/pageblocks" "movable" \
			"$(column "$1/pageblocks" migratetype | sort -u | grep -v '^cma$')" &&
		same "pages in $1/buddyinfo" "$(zone_column "$1" pages)" "$(awk '
			NR > 1 { for (i = 3; i <= NF; i++) sum += $i * 2 ^ (i - 3) }
			END { printf "%d\n", sum }' "$ROOT/$1/buddyinfo")" &&
		settled "$1"
}

block_order() {
	add t-a policy=$1 size=64M block_order=$2 &&
		row t-a $1 any $((64 << 20)) 1 $2 && sane_tables t-a &&
		run t-a "rand cpus=0-1 ops=20000 order=0-$2 mt=mixed verify=1" &&
		has t-a/result verify_errors 0 && settled t-a && del t-a
}

# Ranges smaller than the largest chunk, so with holes between them.
holes() {
	add t-a policy=$1 size=768K ranges=3 block_order=6 &&
		row t-a $1 any $((768 << 10)) 3 6 && sane_tables t-a &&
		run t-a "hog cpus=0-1 verify=1 repeat=3" && has t-a/result pages 192 &&
		settled t-a && del t-a
}

ranges() {
	add t-a policy=$1 size=$3 ranges=$2 &&
		same "ranges" $2 "$(zone_column t-a ranges)" && sane_tables t-a &&
		run t-a "hog cpus=0-1 verify=1 touch=first" &&
		has t-a/result pages "$(zone_column t-a pages)" && settled t-a && del t-a
}

cma() {
	add t-a policy=$1 size=128M cma=25 && sane_tables t-a &&
		same "CMA blocks of 64" 16 "$(column t-a/pageblocks migratetype | grep -c '^cma$')" &&
		run t-a "hog cpus=0-1" && has t-a/result pages 32768 &&
		run t-a "hog cpus=0-1 mt=unmovable" && has t-a/result pages 24576 &&
		settled t-a && del t-a
}

node() {
	add t-a policy=$1 size=64M node=0 && row t-a $1 0 $((64 << 20)) 1 9 &&
		run t-a "bulk cpus=0 pages=1024 verify=1" && settled t-a && del t-a
}

watermarks() {
	add t-a policy=$1 size=64M batch=32 high=2048 &&
		same "batch of every set" 32 "$(sed -n '/^set /,/^$/p' "$ROOT/t-a/stats" |
			awk '/^cpu/ { print $3 }' | sort -u)" &&
		del t-a
}

# metadata POLICY BLOCK_ORDER LIMIT: bytes a page, as `stats` says them, and as the
# kernel sees them: zones are the only ones to ask for memory here.
metadata() {
	read_memory || return 1
	before=$VMALLOC_KB
	add t-a policy=$1 size=512M block_order=$2 || return 1
	bytes=$(key t-a/stats metadata_bytes) pages=$(key t-a/stats managed_pages)
	read_memory || return 1
	taken=$(((VMALLOC_KB - before) * 1024))
	del t-a
	holds "bytes of metadata for $pages pages" "$bytes" -gt 0 &&
		holds "bytes of metadata for $pages pages" "$bytes" -le $((pages * $3)) &&
		holds "bytes of vmalloc for $pages pages" $taken -le $((pages * $3 + (pages * $3) / 8))
}

# A table of 4096 rows is the same whatever the size of the reads.
long_table() {
	add t-a policy=$1 size=1G block_order=6 &&
		same "rows" 4096 "$(column t-a/pageblocks block | wc -l)" || return 1
	cat "$ROOT/t-a/pageblocks" >"$WORK/at-once"
	for size in 1000 4096 1M; do
		dd if="$ROOT/t-a/pageblocks" bs=$size 2>/dev/null | cmp - "$WORK/at-once" || return 1
	done
	del t-a
}

# A zone of each policy at the same time, each in its own rows, removed in another
# order than added.
several() {
	for policy in $ALL_POLICIES; do
		add t-$policy policy=$policy size=64M ranges=2 || return 1
	done
	same "zones" "$(echo $ALL_POLICIES)" "$(own_zones | sed 's/^t-//' | xargs)" || return 1
	for policy in $ALL_POLICIES; do
		run t-$policy "stress cpus=0-1 ops=5000 pages=2048" || return 1
	done
	for policy in split stock economy owner pcp; do
		settled t-$policy && del t-$policy && gone t-$policy || return 1
	done
}

# A hundred zones, as small as they get.
many() {
	nr=0
	while [ $nr -lt 100 ]; do
		add t-$nr size=256K block_order=6 || return 1
		nr=$((nr + 1))
	done
	same "zones" 100 "$(own_zones | wc -l)" || return 1
	while [ $nr -gt 0 ]; do
		nr=$((nr - 1))
		del t-$nr || return 1
	done
}

begin $((1 + 5 + 4 * 8 + 3 * 4 + 5 + 6)) cpus=2 mib=2500

check "memory can be measured" remember_memory
check "a zone by default is economy, 1 GiB, one range, any node" defaults
for policy in $ALL_POLICIES; do
	check "$policy: a new zone is as it was asked for" each_policy $policy
done
for policy in $RANGE_POLICIES; do
	for order in 6 7 8 9 10; do
		check "$policy: pageblocks of order $order" block_order $policy $order
	done
	check "$policy: holes between ranges" holes $policy
	check "$policy: 2 ranges" ranges $policy 2 256M
	check "$policy: 64 ranges" ranges $policy 64 256M
done
for policy in pcp owner split; do
	check "$policy: a quarter is CMA, for movable pages only" cma $policy
	check "$policy: a fixed batch" watermarks $policy
	check "$policy: at most 16 bytes of metadata a page, blocks of order 9" metadata $policy 9 16
	check "$policy: at most 16 bytes of metadata a page, blocks of order 6" metadata $policy 6 16
done
for policy in $ALL_POLICIES; do
	check "$policy: from node 0" node $policy
done
check "economy: at most a byte of metadata a page, blocks of order 9" metadata economy 9 1
check "a table of thousands of rows" long_table owner
check "a zone of each policy at once" several
check "a hundred zones at once" many
check "memory is given back to the page" memory_is_back

finish
