#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Any allocation of the kernel may fail: then a command is refused, or done as if
# nothing had happened, and nothing is left over.
# Fails each slab allocation of each command in turn (/proc/self/fail-nth).
# Needs a kernel with CONFIG_FAILSLAB and CONFIG_FAULT_INJECTION_DEBUG_FS.
#
# pcpb: kernel=uml-debug cpus=2 mem=2G timeout=900
. "$(dirname "$0")/lib.sh"

FAILSLAB=/sys/kernel/debug/failslab

# More than any command does.
MOST=400

# each_failing AFTER COMMAND...: COMMAND, in a shell of its own, once for each of its
# allocations, which fails; AFTER cleans up. COMMAND may start no process: each process
# has a count of its own.
each_failing() {
	after=$1 nth=1 failures=0
	shift
	while [ $nth -le $MOST ]; do
		(
			trap - EXIT
			echo $nth >/proc/self/fail-nth
			"$@" 2>/dev/null
			status=$?
			# A failure from here on is none of COMMAND's, and must not pass for one.
			read -r left </proc/self/fail-nth
			echo 0 >/proc/self/fail-nth
			echo $status >"$WORK/status"
			echo "$left" >"$WORK/left"
		) 2>/dev/null
		read -r status <"$WORK/status"
		read -r left <"$WORK/left"
		[ "$status" = 0 ] || failures=$((failures + 1))
		$after || return 1
		# It was not reached.
		[ "$left" = 0 ] || break
		nth=$((nth + 1))
	done
	holds "allocations" $nth -lt $MOST && holds "allocations" $nth -gt 3
}

refused_sometimes() {
	holds "refusals" $failures -gt 0
}

adding() { echo "add t-f policy=$POLICY size=4M" >$ROOT/zones; }
added() {
	if [ "$status" = 0 ]; then
		settled t-f && del t-f
	else
		same "zones left over" "" "$(own_zones)"
	fi
}

running() { echo "workload=$WORKLOAD cpus=0-1 order=0-2 ops=100 pages=64 verify=1" >$ROOT/t-f/run; }
ran() { settled t-f; }

reading() {
	while read -r line; do
		:
	done <$ROOT/$FILE
}

draining() { echo all >$ROOT/t-f/drain; }
deleting() { echo "del t-f" >$ROOT/zones; }
deleted() {
	[ -d $ROOT/t-f ] || add t-f policy=$POLICY size=4M
}

add_each() { POLICY=$1; each_failing added adding && refused_sometimes; }

run_each() {
	POLICY=$1
	add t-f policy=$1 size=4M || return 1
	for WORKLOAD in stress "rand context=hardirq" bulk fanout; do
		each_failing ran running && refused_sometimes || return 1
	done
	run t-f "stress cpus=0-1 ops=1000 order=0-2" && del t-f
}

read_each() {
	POLICY=$1
	add t-f policy=$1 size=4M && run t-f "stress cpus=0-1 ops=1000 order=0-2" || return 1
	for FILE in zones last_error t-f/policy t-f/result t-f/stats t-f/buddyinfo t-f/pageblocks \
		t-f/check; do
		each_failing healthy_now reading || return 1
	done
	del t-f
}
healthy_now() { healthy t-f; }

others_each() {
	POLICY=$1
	add t-f policy=$1 size=4M && each_failing healthy_now draining &&
		each_failing deleted deleting && del t-f
}

if ! [ -w $FAILSLAB/ignore-gfp-wait ] || ! [ -w /proc/self/fail-nth ]; then
	ktap_print_header
	skip_all "needs a kernel with CONFIG_FAILSLAB and CONFIG_FAULT_INJECTION_DEBUG_FS"
fi
echo 0 >$FAILSLAB/verbose
echo 0 >/sys/kernel/debug/fail_page_alloc/verbose
echo N >$FAILSLAB/ignore-gfp-wait
begin 22

for policy in $ALL_POLICIES; do
	add t-f policy=$policy size=4M && run t-f "stress cpus=0-1 ops=1000" && del t-f
done >/dev/null
check "memory can be measured" remember_memory
for policy in $ALL_POLICIES; do
	check "$policy: adding a zone" add_each $policy
	check "$policy: running workloads" run_each $policy
	check "$policy: reading files" read_each $policy
	check "$policy: draining and deleting" others_each $policy
done
check "memory is given back" memory_is_back
finish
