#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Bad input is refused with the fitting errno and a reason in last_error that has
# the offending word, and changes nothing.
# A table of refused commands; zones and counters are compared around each.
# Needs a kernel with the module and 1 GiB of memory.
#
# pcpb: cpus=2 mem=2G
. "$(dirname "$0")/lib.sh"

# There is no CPU of this number, but a CPU set holds it.
NO_CPU=999
# A node that does not exist.
NO_NODE=1000

# Errno, word in last_error, file, command. A command may be empty.
table() {
	cat <<-END
		EINVAL|no command|zones|
		EINVAL|no command|zones|   
		EINVAL|'make'|zones|make t-b
		EINVAL|'ADD'|zones|ADD t-b
		EINVAL|'name' is missing|zones|add
		EINVAL|'name' is missing|zones|del
		EINVAL|'a/b'|zones|add a/b
		EINVAL|'..'|zones|add ..
		EINVAL|'.'|zones|add .
		EINVAL|'zones'|zones|add zones
		EINVAL|'last_error'|zones|add last_error
		EINVAL|'policy=pcp'|zones|add policy=pcp
		EINVAL|'b?c'|zones|add bäc
		EINVAL|1 to 32|zones|add t-3456789012345678901234567890123
		EEXIST|t-a|zones|add t-a size=64M
		ENOENT|t-b|zones|del t-b
		EINVAL|'now'|zones|del t-a now
		EINVAL|'colour'|zones|add t-b colour=blue
		EINVAL|'Size'|zones|add t-b Size=64M
		EINVAL|'size'|zones|add t-b size=64M size=64M
		EINVAL|'64M'|zones|add t-b 64M
		EINVAL|'lru'|zones|add t-b policy=lru
		EINVAL|policy ''|zones|add t-b policy=
		EINVAL|size ''|zones|add t-b size=
		EINVAL|'64Q'|zones|add t-b size=64Q
		EINVAL|'64MM'|zones|add t-b size=64MM
		EINVAL|'-64M'|zones|add t-b size=-64M
		EINVAL|'0x1000000'|zones|add t-b size=0x1000000
		EINVAL|'0'|zones|add t-b size=0
		EINVAL|'1M'|zones|add t-b size=1M
		EINVAL|'3M'|zones|add t-b size=3M
		EINVAL|'64M'|zones|add t-b size=64M ranges=3
		EINVAL|ranges '3'|zones|add t-b ranges=3
		EINVAL|power of two|zones|add t-b size=6M
		EINVAL|'9000G'|zones|add t-b size=9000G
		EINVAL|'99999999999999999999'|zones|add t-b size=99999999999999999999
		EINVAL|'18446744073709551616'|zones|add t-b size=18446744073709551616
		EINVAL|'18014398509481984K'|zones|add t-b size=18014398509481984K
		EINVAL|ranges '0'|zones|add t-b ranges=0
		EINVAL|ranges '65'|zones|add t-b ranges=65
		EINVAL|block_order '5'|zones|add t-b block_order=5
		EINVAL|block_order '11'|zones|add t-b block_order=11
		EINVAL|batch '0'|zones|add t-b batch=0
		EINVAL|'16777217'|zones|add t-b high=16777217
		EINVAL|'10'|zones|add t-b batch=20 high=10
		EINVAL|cma '101'|zones|add t-b cma=101
		EINVAL|node '-1'|zones|add t-b node=-1
		EINVAL|node $NO_NODE|zones|add t-b size=64M node=$NO_NODE
		EINVAL|node $NO_NODE|zones|add t-b size=64M node=$NO_NODE policy=stock
		EINVAL|'on'|zones|add t-b spb=on
		EINVAL|'maybe'|zones|add t-b spb=maybe
		EINVAL|no command|t-a/drain|
		EINVAL|'some'|t-a/drain|some
		EINVAL|'1-0'|t-a/drain|1-0
		EINVAL|'0,'|t-a/drain|0,
		EINVAL|'twice'|t-a/drain|all twice
		EINVAL|CPU $NO_CPU|t-a/drain|0,$NO_CPU
		EINVAL|'99999'|t-a/drain|99999
		EINVAL|reset|t-a/stats|
		EINVAL|reset|t-a/stats|clear
		EINVAL|reset|t-a/stats|reset all
		EINVAL|'workload' is missing|t-a/run|
		EINVAL|'workload' is missing|t-a/run|cpus=0
		EINVAL|'cpus' is missing|t-a/run|workload=pair
		EINVAL|'walk'|t-a/run|workload=walk cpus=0
		EINVAL|'replay'|t-a/run|workload=replay cpus=0
		EINVAL|'colour'|t-a/run|workload=pair cpus=0 colour=blue
		EINVAL|'cpus'|t-a/run|workload=pair cpus=0 cpus=1
		EINVAL|'fast'|t-a/run|workload=pair cpus=0 fast
		EINVAL|cpus ''|t-a/run|workload=pair cpus=
		EINVAL|'0-'|t-a/run|workload=pair cpus=0-
		EINVAL|'1-0'|t-a/run|workload=pair cpus=1-0
		EINVAL|'a-b'|t-a/run|workload=pair cpus=a-b
		EINVAL|'99999'|t-a/run|workload=pair cpus=99999
		EINVAL|CPU $NO_CPU|t-a/run|workload=pair cpus=0,$NO_CPU
		EINVAL|CPU $NO_CPU|t-a/run|workload=purge cpus=0 free_cpus=$NO_CPU
		EINVAL|free_cpus|t-a/run|workload=pair cpus=0 free_cpus=1
		EINVAL|order '19'|t-a/run|workload=pair cpus=0 order=19
		EINVAL|order '9-0'|t-a/run|workload=pair cpus=0 order=9-0
		EINVAL|order '0-'|t-a/run|workload=pair cpus=0 order=0-
		EINVAL|order|t-owner/run|workload=pair cpus=0 order=11
		EINVAL|'sticky'|t-a/run|workload=pair cpus=0 mt=sticky
		EINVAL|ops '0'|t-a/run|workload=pair cpus=0 ops=0
		EINVAL|'1e6'|t-a/run|workload=pair cpus=0 ops=1e6
		EINVAL|'9000000m'|t-a/run|workload=pair cpus=0 ops=9000000m
		EINVAL|ms '0'|t-a/run|workload=pair cpus=0 ms=0
		EINVAL|ms '5'|t-a/run|workload=pair cpus=0 ops=1 ms=5
		EINVAL|ops '5'|t-a/run|workload=hog cpus=0 ops=5
		EINVAL|pages '5'|t-a/run|workload=pair cpus=0 pages=5
		EINVAL|pages '0'|t-a/run|workload=bulk cpus=0 pages=0
		EINVAL|16384|t-a/run|workload=bulk cpus=0 pages=16385
		EINVAL|seed '-1'|t-a/run|workload=pair cpus=0 seed=-1
		EINVAL|'some'|t-a/run|workload=pair cpus=0 touch=some
		EINVAL|verify '2'|t-a/run|workload=pair cpus=0 verify=2
		EINVAL|'nmi'|t-a/run|workload=pair cpus=0 context=nmi
		EINVAL|repeat '0'|t-a/run|workload=pair cpus=0 repeat=0
		EINVAL|repeat '1001'|t-a/run|workload=pair cpus=0 repeat=1001
		EINVAL|'filo'|t-a/run|workload=bulk cpus=0 free=filo
		EINVAL|free 'fifo'|t-a/run|workload=pair cpus=0 free=fifo
		EINVAL|last_error|last_error|forget it
		EINVAL|t-a/policy|t-a/policy|owner
		EINVAL|t-a/result|t-a/result|reset
		EINVAL|t-a/check|t-a/check|ok
		EINVAL|t-a/buddyinfo|t-a/buddyinfo|x
		EINVAL|t-a/pageblocks|t-a/pageblocks|x
	END
}

# All that a command could have changed.
state() {
	cat "$ROOT/zones" "$ROOT"/t-*/stats "$ROOT"/t-*/result "$ROOT"/t-*/pageblocks
	ls "$ROOT"
}

unchanged() {
	state >"$WORK/after"
	diff "$WORK/before" "$WORK/after"
}

row_is_refused() {
	refused "$@" && unchanged
}

# A command of more bytes than the limit, which is said.
too_long() {
	{ printf 'add t-b size=64M'; head -c 70000 /dev/zero | tr '\0' ' '; } >"$WORK/long"
	refused E2BIG 65536 zones "$(cat "$WORK/long")x" && unchanged
}

# As long as it may be, mostly blanks: all is read, so the end counts too.
long() {
	blanks=$(head -c 60000 /dev/zero | tr '\0' ' ')
	refused EINVAL "'x'" zones "add t-b size=64M$blanks x" && unchanged &&
		put zones "add t-b size=64M$blanks" && del t-b
}

# A word of many characters is cut in the reason.
long_word() {
	word=$(head -c 5000 /dev/zero | tr '\0' w)
	refused EINVAL "'wwwwwwww" zones "add t-b policy=$word" &&
		holds "characters of last_error" "$(wc -c <"$ROOT/last_error")" -lt 300 && unchanged
}

# Bytes that are no text, and control characters, do not get into last_error.
no_text() {
	printf 'add \377\376\n' >"$WORK/bytes"
	dd if="$WORK/bytes" of="$ROOT/zones" 2>/dev/null && echo "accepted" && return 1
	contains "$(cat "$ROOT/last_error")" "not text" || return 1
	printf 'add t-b \033[2J\n' >"$WORK/bytes"
	dd if="$WORK/bytes" of="$ROOT/zones" 2>/dev/null && echo "accepted" && return 1
	same "escapes in last_error" 0 "$(tr -d '[:print:]\n' <"$ROOT/last_error" | wc -c)" &&
		unchanged
}

# write(2) of no bytes at all.
empty_write() {
	! said=$(perl -e 'open(F, ">", $ARGV[0]) or die; defined(syswrite(F, "", 0)) or die "$!\n"' \
		"$ROOT/zones" 2>&1) || { echo "accepted"; return 1; }
	contains "$said" "Invalid argument" && contains "$(cat "$ROOT/last_error")" "no command" &&
		unchanged
}

# The first lines are a command, the rest is not another.
two_lines() {
	refused EINVAL t-b zones "del t-b
del t-a" && unchanged
}

# More than the machine has: those ranges that could be had go back.
too_much() {
	range_mib=64
	while [ $((range_mib * 32)) -lt "$(free_mib)" ]; do
		range_mib=$((range_mib * 2))
	done
	remember_memory &&
		refused ENOMEM "t-b" zones "add t-b policy=$1 size=$((range_mib * 64))M ranges=64" &&
		contains "$(cat "$ROOT/last_error")" "of 64" && unchanged && memory_is_back
}

# A second run in the same zone, and its removal, while one is on.
busy() {
	echo "workload=pair cpus=1 ms=600000" >"$ROOT/t-a/run" 2>/dev/null &
	job=$!
	JOBS=$job
	tries=0
	while [ "$(zone_column t-a busy)" = no ] && [ $tries -lt 1000 ]; do
		sleep 0.02
		tries=$((tries + 1))
	done
	refused EBUSY t-a t-a/run "workload=pair cpus=0 ops=1" && refused EBUSY t-a zones "del t-a" &&
		same "busy" yes "$(zone_column t-a busy)"
	status=$?
	kill $job
	wait $job
	JOBS=
	return $status
}

no_cpu_offline() {
	for online in /sys/devices/system/cpu/cpu*/online; do
		[ -w "$online" ] || return 0
		return 1
	done
}

offline_cpu() {
	online=/sys/devices/system/cpu/cpu1/online
	echo 0 >$online || return 1
	refused EINVAL "CPU 1 is not online" t-a/run "workload=pair cpus=0-1"
	status=$?
	echo 1 >$online
	return $status
}

rows=$(table | wc -l)
begin $((rows + 14)) cpus=2 mib=700

# With a result and counters that could be lost.
setup() {
	add t-a size=64M && add t-owner size=64M policy=owner && add t-stock policy=stock &&
		run t-a "stress cpus=0-1 ops=1000 pages=1024" && run t-owner "bulk cpus=0-1 pages=1024"
}
check "zones to be left alone" setup
state >"$WORK/before"

table >"$WORK/table"
while IFS='|' read -r errno word file command; do
	check "$file: '$(echo "$command" | tr '#*' '..')'" \
		row_is_refused "$errno" "$word" "$file" "$command"
done <"$WORK/table"

check "a command of 70000 bytes" too_long
check "a command of 60000 blanks" long
check "a word of 5000 characters" long_word
check "bytes that are no text" no_text
check "one write is one command" two_lines
if command -v perl >/dev/null; then
	check "a write of no bytes" empty_write
else
	ktap_test_skip "a write of no bytes: needs perl to make one"
fi
for policy in $RANGE_POLICIES; do
	check "$policy: more memory than there is" too_much $policy
done
check "a second run, and removal, while a run is on" busy
if no_cpu_offline; then
	ktap_test_skip "a CPU that is offline: this kernel cannot take CPU 1 offline"
else
	check "a CPU that is offline" offline_cpu
fi
good_input() {
	run t-a "pair cpus=0 ops=100" && settled t-a && settled t-owner && del t-a
}
check "good input after all that" good_input

finish
