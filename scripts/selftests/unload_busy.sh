#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# While a run is on, its zone and the module stay; its files can be read; a signal
# ends it with EINTR, and then nothing is allocated and nothing is wrong.
# Starts endless runs in the background, does all of that, and stops them.
# Needs 512 MiB of memory, no zones of others, and the file that the module is from.
#
# pcpb: cpus=2 mem=2G
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/module.sh"

# start_run POLICY COMMAND: in the background, until stop_run.
start_run() {
	add t-a policy=$1 size=128M || return 1
	dd of="$ROOT/t-a/run" bs=4096 2>"$WORK/run" <<-END &
		workload=$2
	END
	job=$!
	JOBS=$job
	tries=0
	# A signal while the threads are being made leaves no result.
	while [ "$(sum t-a/stats '[a-z_]*_order[0-9]*')" = 0 ]; do
		tries=$((tries + 1))
		sleep 0.02
		[ $tries -lt 1000 ] || { echo "no run has started: $(cat "$WORK/run")"; return 1; }
	done
}

# stop_run SIGNAL: the run ends at once, and says why. Not SIGINT: a shell has the jobs
# in its background ignore it.
stop_run() {
	kill -"$1" $job
	wait $job
	JOBS=
	same "busy" no "$(zone_column t-a busy)" &&
		contains "$(cat "$ROOT/last_error")" "stopped by a signal" &&
		has t-a/result status "stopped by a signal" free_errors 0 && balanced t-a &&
		settled t-a
}

endless() {
	case $1 in
	hog|bulk|exit)	echo "$1 cpus=0-1 ms=600000 verify=1" ;;
	*)		echo "$1 cpus=0-1 ms=600000 order=0-3 verify=1" ;;
	esac
}

# stopped POLICY WORKLOAD SIGNAL
stopped() {
	start_run $1 "$(endless $2)" && stop_run $3 && run t-a "pair cpus=0-1 ops=100" && del t-a
}

# The errno of the interrupted write, for who handles the signal.
errno_is_eintr() {
	add t-a size=128M || return 1
	same "errno" 4 "$(perl -e '
		open(F, ">", $ARGV[0]) or die;
		$SIG{ALRM} = sub {};
		alarm 1;
		syswrite(F, "workload=pair cpus=0 ms=600000") and die "written";
		print $! + 0' "$ROOT/t-a/run")" && settled t-a && del t-a
}

stays() {
	start_run $1 "$(endless stress)" && unload_is_refused &&
		refused EBUSY "t-a" zones "del t-a" &&
		refused EBUSY "t-a" t-a/run "workload=pair cpus=0 ops=1" &&
		same "busy" yes "$(zone_column t-a busy)" && stop_run TERM && del t-a
}

# All files, again and again. Whether all is in order cannot be said during a run.
readable() {
	start_run $1 "$(endless stress)" || return 1
	for round in 1 2 3 4 5; do
		for file in zones last_error t-a/policy t-a/result t-a/stats t-a/buddyinfo \
			t-a/pageblocks t-a/check; do
			cat "$ROOT/$file" >"$WORK/read" || return 1
			case $file in
			t-a/check)	grep -qE '^busy|^n/a' "$WORK/read" || { cat "$WORK/read"; return 1; } ;;
			last_error)	;;
			*)		[ -s "$WORK/read" ] || { echo "$file is empty"; return 1; } ;;
			esac
		done
		put t-a/stats reset && put t-a/drain all || return 1
	done
	same "busy" yes "$(zone_column t-a busy)" || return 1
	kill -TERM $job
	wait $job
	JOBS=
	settled t-a && del t-a
}

# Other zones come and go meanwhile.
others_come_and_go() {
	start_run economy "$(endless stress)" || return 1
	for policy in $ALL_POLICIES; do
		add t-b policy=$policy size=64M && run t-b "bulk cpus=0-1 pages=1024" && settled t-b &&
			del t-b || return 1
	done
	stop_run TERM && del t-a
}

unloads_after_that() {
	add t-a size=128M && unload && reload
}

begin_with_module $((1 + 5 + 5 + 7 + 1 + 1 + 2)) cpus=2 mib=500

check "memory can be measured" remember_memory
for policy in $ALL_POLICIES; do
	check "$policy: neither zone nor module go during a run" stays $policy
	check "$policy: all files can be read during a run" readable $policy
done
check "pcp: SIGTERM stops hog" stopped pcp hog TERM
check "owner: SIGUSR2 stops purge" stopped owner purge USR2
check "split: SIGKILL stops fanout" stopped split fanout KILL
check "economy: SIGKILL stops exit" stopped economy exit KILL
check "economy: SIGHUP stops rand" stopped economy rand HUP
check "stock: SIGTERM stops pair" stopped stock pair TERM
check "owner: SIGALRM stops bulk" stopped owner bulk ALRM
if command -v perl >/dev/null; then
	check "errno is EINTR" errno_is_eintr
else
	ktap_test_skip "errno is EINTR: needs perl to handle a signal"
fi
check "other zones come and go during a run" others_come_and_go
check "memory is given back" memory_is_back
check "the module can be unloaded after that" unloads_after_that

finish
