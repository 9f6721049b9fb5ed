#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# CPUs go off- and online under load, and nothing is lost: no page, no block, no run.
# Every policy is under stress with frees on other CPUs meanwhile.
# Needs 4 CPUs of which all but the first can go offline, and 2 GiB of memory.
#
# pcpb: kernel=x86 cpus=4 mem=4G timeout=900
. "$(dirname "$0")/lib.sh"

CYCLES=100
CPUS=/sys/devices/system/cpu

turn() {
	echo "$2" 2>/dev/null >$CPUS/cpu$1/online && return
	echo "CPU $1 cannot be turned to $2"
	return 1
}

# Waits until NAME has a run.
wait_for_run() {
	for try in 1 2 3 4 5 6 7 8 9 10; do
		[ "$(zone_column $1 busy)" = yes ] && return
		sleep 0.2
	done
	echo "no run in $1"
	return 1
}

# The set of a CPU that has gone is empty, and its memory to be had by others.
emptied() {
	add t-h policy=$1 size=64M && run t-h "bulk cpus=1 ops=20000 order=0 mt=mixed" &&
		turn 1 0 && same "pages on the set of CPU 1" 0 \
		"$(awk '$1 == "cpu1" { for (i = 3; i <= NF; i++) sum += $i } END { print sum + 0 }' \
			"$ROOT/t-h/buddyinfo")" &&
		refused EINVAL "CPU 1 is not online" t-h/run "workload=pair cpus=0-1 ops=10" &&
		run t-h "hog cpus=0,2" && turn 1 1 &&
		run t-h "pair cpus=1 ops=1000" && settled t-h && del t-h
	verdict=$?
	turn 1 1 >/dev/null
	return $verdict
}

# All policies at once, each on all CPUs. The last to go comes back before the end.
under_stress() {
	for policy in $ALL_POLICIES; do
		add t-$policy policy=$policy size=256M || return 1
		(put t-$policy/run "workload=stress cpus=0-3 order=0-4 mt=mixed verify=1 pages=4096 \
ms=600000 $1" >"$WORK/stress.$policy") &
		eval "job_$policy=$!"
	done
	for policy in $ALL_POLICIES; do
		wait_for_run t-$policy || return 1
	done
	cycle=0
	while [ $cycle -lt $CYCLES ]; do
		cpu=$((1 + cycle % 3))
		turn $cpu 0 && turn $cpu 1 || return 1
		cycle=$((cycle + 1))
	done
}

# Interrupts all runs; each says so, and has found nothing wrong.
stopped() {
	for policy in $ALL_POLICIES; do
		eval "kill \$job_$policy"
		eval "wait \$job_$policy"
	done 2>/dev/null
	for policy in $ALL_POLICIES; do
		for try in 1 2 3 4 5 6 7 8 9 10; do
			[ "$(zone_column t-$policy busy)" = no ] && break
			sleep 0.5
		done
		has t-$policy/result status 'stopped by a signal' verify_errors 0 free_errors 0 &&
			holds "allocations of $policy" "$(key t-$policy/result total_ops)" -gt 1000 &&
			balanced t-$policy && settled t-$policy && del t-$policy || return 1
	done
}

# A run whose CPU has gone for good is still ended by a signal.
orphaned() {
	add t-o policy=$1 size=64M || return 1
	(put t-o/run "workload=stress cpus=1-2 verify=1 ms=600000") >/dev/null &
	job=$!
	wait_for_run t-o && turn 1 0 || return 1
	sleep 0.2
	kill $job
	wait $job 2>/dev/null
	for try in 1 2 3 4 5 6 7 8 9 10; do
		[ "$(zone_column t-o busy)" = no ] && break
		sleep 0.5
	done
	turn 1 1 && has t-o/result status 'stopped by a signal' verify_errors 0 free_errors 0 &&
		settled t-o && del t-o
}

if ! [ -w $CPUS/cpu1/online ]; then
	ktap_print_header
	skip_all "no CPU of this machine can go offline"
fi
begin 16 cpus=4 mib=1800

check "memory can be measured" remember_memory
for policy in $ALL_POLICIES; do
	check "$policy: the set of a CPU that goes" emptied $policy
done
check "$CYCLES times off and on under stress" under_stress
check "nobody has noticed" stopped
CYCLES=$((CYCLES / 4))
check "$CYCLES times with interrupts" under_stress context=hardirq
check "nobody has noticed that either" stopped
for policy in $ALL_POLICIES; do
	check "$policy: a signal for a run whose CPU has gone" orphaned $policy
done
check "memory is given back" memory_is_back
finish
