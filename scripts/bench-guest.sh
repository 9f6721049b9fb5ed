#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# bench-guest.sh PLAN - runs a list of workloads on a kernel that has the module
# loaded, and writes what came out of each to stdout. `pcpb bench` makes the
# plan and runs this in its test kernel; it works as well on any machine.
#
# A plan has one command a line:
#
#     zones COMMAND       write COMMAND to the file `zones`
#     warm ZONE COMMAND   run a workload, nothing is reported
#     run ZONE COMMAND    run a workload
#     drain ZONE          empty the per-CPU sets
#
# and each `run` gives
#
#     @run
#     (the zone's file `result`)
#     @blocks             pageblocks by where their pages are, a `key: number` a line
#     @check TEXT         the zone's file `check`
#     @end
#
# The first thing that goes wrong ends it, with the reason on stderr and status 1.
set -u

root=/sys/kernel/debug/pcp_buddy

die() {
	echo "bench-guest: $*" >&2
	exit 1
}

# Debian has an awk, a guest with nothing but busybox has this one.
command -v awk >/dev/null || awk() { busybox awk "$@"; }

# put FILE COMMAND: one write, or the module's reason why not.
put() {
	echo "$2" 2>/dev/null >"$root/$1" ||
		die "'$2' written to $1 was refused: $(cat "$root/last_error")"
}

report() {
	echo "@run"
	cat "$root/$1/result"
	echo "@blocks"
	awk 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "where") where = i; next }
	     where   { blocks[$where]++; total++ }
	     END     { if (total) print "all: " total
	               for (place in blocks) print place ": " blocks[place] }' \
		"$root/$1/pageblocks"
	echo "@check $(cat "$root/$1/check")"
	echo "@end"
}

[ -d "$root" ] || die "$root: not there: is the module loaded and debugfs mounted?"
[ -r "${1:-}" ] || die "usage: bench-guest.sh PLAN"

echo "@kernel $(uname -r)"
while read -r verb zone rest; do
	case $verb in
	zones)	put zones "$zone $rest" ;;
	drain)	put "$zone/drain" all ;;
	warm)	put "$zone/run" "$rest" ;;
	run)	put "$zone/run" "$rest"
		report "$zone" ;;
	*)	die "$1: unknown command '$verb'" ;;
	esac
done <"$1"
echo "@done"
