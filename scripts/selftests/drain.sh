#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A drain gives what the sets of the named CPUs have back to the zone, of those CPUs
# and no others, and the zone merges it to whole blocks.
# Fills the sets, drains, and compares buddyinfo, pageblocks and stats.
# Needs 512 MiB of memory.
#
# pcpb: cpus=2 mem=2G
. "$(dirname "$0")/lib.sh"

PAGES=32768

# Pages in the rows of a place in buddyinfo.
in_place() {
	awk -v place="$2" '
		NR > 1 && $1 == place { for (i = 3; i <= NF; i++) sum += $i * 2 ^ (i - 3) }
		END { printf "%d\n", sum }' "$ROOT/$1/buddyinfo"
}

rows_of() {
	grep "^$2 " "$ROOT/$1/buddyinfo"
}

# A zone whose sets all have pages.
filled() {
	add t-a policy=$1 size=128M &&
		run t-a "bulk cpus=0-1 pages=4096 order=0-2 mt=mixed" &&
		run t-a "bulk cpus=0-1 pages=100 mt=mixed" &&
		holds "pages on cpu0" "$(in_place t-a cpu0)" -gt 0 &&
		holds "pages on cpu1" "$(in_place t-a cpu1)" -gt 0 || return 1
	# Every page is somewhere, and on the sets as many as pageblocks say.
	on_sets=$(($(in_place t-a cpu0) + $(in_place t-a cpu1) + $(in_place t-a shared)))
	same "pages in buddyinfo" $PAGES $((on_sets + $(in_place t-a zone))) &&
		same "free pages in pageblocks" $PAGES "$(pages_in_blocks t-a)"
}

one_cpu() {
	filled $1 || return 1
	others=$(rows_of t-a cpu1)
	put t-a/drain 0 &&
		same "pages on cpu0" 0 "$(in_place t-a cpu0)" &&
		same "rows of cpu1" "$others" "$(rows_of t-a cpu1)" &&
		has t-a/stats free_pages $PAGES && healthy t-a &&
		put t-a/drain 1 && same "pages on cpu1" 0 "$(in_place t-a cpu1)" && del t-a
}

cpu_list() {
	filled $1 && put t-a/drain 0-1 && settled t-a && del t-a
}

all_cpus() {
	filled $1 && settled t-a &&
		same "pages on cpu0" 0 "$(in_place t-a cpu0)" &&
		same "pages on cpu1" 0 "$(in_place t-a cpu1)" &&
		same "pages in the zone" $PAGES "$(in_place t-a zone)" || return 1
	# A zone that has all of its blocks whole has nothing below their order.
	same "chunks of order 0 in the zone" 0 \
		"$(rows_of t-a zone | awk '{ sum += $3 } END { print sum }')" && del t-a
}

# Again, and of sets that are empty: nothing changes.
twice() {
	filled $1 && put t-a/drain all || return 1
	before=$(cat "$ROOT/t-a/buddyinfo")
	put t-a/drain all && same "buddyinfo" "$before" "$(cat "$ROOT/t-a/buddyinfo")" &&
		settled t-a && del t-a
}

# What the zone got is as good as new: other CPUs and larger orders can have it.
usable() {
	filled $1 && put t-a/drain all && run t-a "bulk cpus=1 order=9 pages=$PAGES" &&
		has t-a/result failures 0 ops 64 && settled t-a && del t-a
}

# While a run is on: nothing is lost, and it goes on.
during_run() {
	add t-a policy=$1 size=128M || return 1
	echo "workload=stress cpus=0-1 ops=60000" >"$ROOT/t-a/run" 2>/dev/null &
	job=$!
	JOBS=$job
	drains=0
	while kill -0 $job 2>/dev/null && [ $drains -lt 200 ]; do
		put t-a/drain all || return 1
		drains=$((drains + 1))
	done
	wait $job
	status=$?
	JOBS=
	same "status of the run" 0 $status && holds "drains" $drains -gt 0 &&
		has t-a/result status ok verify_errors 0 free_errors 0 && balanced t-a &&
		settled t-a && del t-a
}

# A stock zone has no sets that could be drained from here, and says so to nobody.
stock() {
	add t-a policy=stock size=128M && run t-a "bulk cpus=0-1 pages=4096" &&
		put t-a/drain all && put t-a/drain 0 && settled t-a && del t-a
}

begin $((4 * 6 + 1)) cpus=2 mib=300

for policy in $RANGE_POLICIES; do
	check "$policy: one CPU" one_cpu $policy
	check "$policy: a CPU list" cpu_list $policy
	check "$policy: all CPUs" all_cpus $policy
	check "$policy: twice" twice $policy
	check "$policy: blocks are whole for others" usable $policy
	check "$policy: during a run" during_run $policy
done
check "stock: nothing to drain" stock

finish
