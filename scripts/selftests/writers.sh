#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Many write to the same files at the same time: each command is done as if it were
# alone, or refused.
# Adds, uses, drains, reads and removes one zone from 8 shells at once. Preemption
# anywhere makes it interesting.
#
# pcpb: kernel=x86 cpus=4 mem=2G
. "$(dirname "$0")/lib.sh"

WRITERS=8
ROUNDS=15
CHECKS=300

# tell FILE COMMAND: counts it if it was accepted.
tell() {
	echo "$2" >"$ROOT/$1" && echo "${2%% *}"
}

writer() {
	for _ in $(seq $ROUNDS); do
		tell zones "add t-w policy=$1 size=16M"
		tell t-w/run "workload=stress cpus=0-3 ms=20 order=0-4"
		tell t-w/drain all
		tell t-w/stats reset
		cat "$ROOT/t-w/result" "$ROOT/t-w/stats" "$ROOT/t-w/pageblocks" "$ROOT/zones" >/dev/null
		tell zones "del t-w"
	done 2>/dev/null
}

accepted() {
	grep -c "^$1" "$WORK"/accepted
}

at_once() {
	JOBS=
	for i in $(seq $WRITERS); do
		writer "$1" >"$WORK/writer$i" &
		JOBS="$JOBS $!"
	done
	wait $JOBS
	JOBS=
	cat "$WORK"/writer* >"$WORK/accepted"
	holds "zones added" "$(accepted add)" -gt 3 && holds "runs" "$(accepted workload)" -gt 3 &&
		holds "zones added at a time" $(($(accepted add) - $(accepted del))) -ge 0 &&
		holds "zones added at a time" $(($(accepted add) - $(accepted del))) -le 1 || return 1
	# The last one to remove it may have come during a run.
	if [ "$(accepted add)" = "$(accepted del)" ]; then
		add t-w policy="$1" size=16M || return 1
	fi
	settled t-w && del t-w
}

# A check waits for a drain that is on: what moves is in neither place for a moment.
checked() {
	add t-w policy="$1" size=64M && run t-w "bulk cpus=0-3 pages=3000 order=0-2" || return 1
	while :; do
		echo all >"$ROOT/t-w/drain"
	done &
	JOBS=$!
	for _ in $(seq $CHECKS); do
		# No process each time: they are slow where these tests run.
		read -r said <"$ROOT/t-w/check"
		echo "$said"
	done >"$WORK/checks"
	kill $JOBS
	wait $JOBS 2>/dev/null
	JOBS=
	same "checks that said ok" $CHECKS "$(grep -c '^ok$' "$WORK/checks")" &&
		settled t-w && del t-w
}

begin 11 cpus=4 mib=500

check "memory can be measured" remember_memory
for policy in $ALL_POLICIES; do
	check "$policy: $WRITERS writers at once" at_once $policy
done
for policy in $RANGE_POLICIES; do
	check "$policy: checks beside drains" checked $policy
done
check "memory is given back" memory_is_back
finish
