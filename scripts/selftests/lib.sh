# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the selftests share. To be sourced, not run; needs a POSIX shell, awk and
# dd, which busybox has too.
#
#     begin NUMBER [cpus=N] [mib=N]   plan NUMBER results, or skip with a reason
#     check DESCRIPTION COMMAND...    one result; what COMMAND says is shown if
#                                     it fails
#     finish                          the kernel's log as last result, and out
#
# Everything else is made to be such a COMMAND: silent and true, or it says what
# it has read and is false. Files are named from the module's folder on.
#
# Zones of a test are called t-SOMETHING, and are removed at the end. On failure
# and on a signal too: a test leaves nothing behind.

ROOT=/sys/kernel/debug/pcp_buddy
ALL_POLICIES="stock pcp owner split economy"
# Those that have memory of their own, and so pageblocks.
RANGE_POLICIES="pcp owner split economy"
# All but frag, which has a test of its own.
WORKLOADS="pair bulk rand purge fanout exit hog contig stress"

TEST_NAME=$(basename "$0" .sh)
WORK=$(mktemp -d)
JOBS=

# Debian has them, a guest with nothing but busybox has these.
for tool in awk dd; do
	command -v $tool >/dev/null || eval "$tool() { busybox $tool \"\$@\"; }"
done

bail() {
	echo "Bail out! $*"
	exit 1
}

# The kernel's own KTAP helpers, from wherever its source is.
find_ktap_helpers() {
	for helpers in "${KTAP_HELPERS:-}" \
		"/lib/modules/$(uname -r)"/build/tools/testing/selftests/kselftest/ktap_helpers.sh \
		"${XDG_CACHE_HOME:-$HOME/.cache}"/pcp_buddy/source/*/*/tools/testing/selftests/kselftest/ktap_helpers.sh
	do
		[ -r "$helpers" ] && echo "$helpers" && return
	done
}

helpers=$(find_ktap_helpers)
[ -n "$helpers" ] || bail "KTAP_HELPERS must name the kernel's" \
	"tools/testing/selftests/kselftest/ktap_helpers.sh"
. "$helpers"

clean_up() {
	for job in $JOBS; do
		kill "$job" 2>/dev/null
	done
	wait
	own_zones | while read -r zone; do
		echo "del $zone" 2>/dev/null >"$ROOT/zones"
	done
	rm -rf "$WORK"
}

skip_all() {
	ktap_skip_all "$*"
	exit "$KSFT_SKIP"
}

begin() {
	ktap_print_header
	[ "$(id -u)" = 0 ] || skip_all "must be run as root"
	[ -d "$ROOT" ] || skip_all "$ROOT is not there: load pcp_buddy and mount debugfs"
	for need in "$2" "$3"; do
		case $need in
		cpus=*)	[ "$(grep -c ^processor /proc/cpuinfo)" -ge "${need#*=}" ] ||
				skip_all "needs ${need#*=} CPUs" ;;
		mib=*)	[ "$(free_mib)" -ge "${need#*=}" ] ||
				skip_all "needs ${need#*=} MiB of free memory" ;;
		esac
	done
	trap clean_up EXIT
	trap 'exit 1' HUP INT TERM
	MARKER="pcp_buddy selftest $TEST_NAME $$"
	echo "$MARKER" >/dev/kmsg
	ktap_set_plan $(($1 + 1))
}

finish() {
	check "the kernel did not complain" quiet_log
	ktap_finished
}

# In this shell: a COMMAND may set variables. What it says must not be a pipe,
# or that would run it in another one.
check() {
	description=$1
	shift
	if "$@" >"$WORK/said" 2>&1; then
		ktap_test_pass "$description"
	else
		head -n 40 "$WORK/said" | sed 's/^/# /'
		ktap_test_fail "$description"
	fi
}

# What the kernel has written since `begin`; all of its log if that is no longer
# in it.
log_since_begin() {
	dmesg | awk -v marker="$MARKER" '
		index($0, marker) { nr = 0; next }
		{ line[nr++] = $0 }
		END { for (i = 0; i < nr; i++) print line[i] }'
}

quiet_log() {
	complaints='WARNING:|BUG:|KASAN|KFENCE:|UBSAN:|possible circular|INFO: |Oops|Call Trace'
	complaints="$complaints|bad unlock balance|DEBUG_LOCKS_WARN|rust_kernel:|panic"
	! log_since_begin | grep -E "$complaints"
}

# Commands

# put FILE TEXT: one write that must succeed.
put() {
	echo "$2" 2>/dev/null >"$ROOT/$1" && return
	echo "'$2' written to $1 was refused: $(cat "$ROOT/last_error")"
	return 1
}

# A zone of that name is left over from a check that failed.
add() {
	[ ! -d "$ROOT/$1" ] || del "$1" || return
	put zones "add $*"
}

del() { put zones "del $1"; }

own_zones() {
	column zones name 2>/dev/null | grep '^t-'
}

# errno_of FILE TEXT: the errno of one write, by name, or 0. The words of dd are
# those of the C library.
errno_of() {
	printf '%s\n' "$2" >"$WORK/command"
	dd if="$WORK/command" of="$ROOT/$1" bs=1M 2>"$WORK/dd" && echo 0 && return
	case $(cat "$WORK/dd") in
	*"Invalid argument"*)		echo EINVAL ;;
	*"Device or resource busy"*)	echo EBUSY ;;
	*"No such file or directory"*)	echo ENOENT ;;
	*"File exists"*)		echo EEXIST ;;
	*"Cannot allocate memory"*)	echo ENOMEM ;;
	*"Argument list too long"*)	echo E2BIG ;;
	*"Input/output error"*)		echo EIO ;;
	*)				cat "$WORK/dd" ;;
	esac
}

# refused ERRNO WORD FILE TEXT: the write fails with ERRNO, and last_error has
# WORD.
refused() {
	same "errno of '$(echo "$4" | cut -c 1-70)' written to $3" "$1" "$(errno_of "$3" "$4")" &&
		contains "$(cat "$ROOT/last_error")" "$2"
}

# run ZONE COMMAND: a workload that ends as planned, which the write waits for.
run() {
	put "$1/run" "workload=$2" && healthy "$1"
}

# Of a stock zone there is nothing to check.
healthy() {
	read -r verdict <"$ROOT/$1/check"
	case $verdict in
	ok|"n/a: pages of a stock zone"*)	return 0 ;;
	esac
	echo "$1/check: $verdict"
	return 1
}

# Looking

# same WHAT EXPECTED GOT
same() {
	[ "$2" = "$3" ] && return
	echo "$1: expected '$2', got '$3'"
	return 1
}

# holds WHAT NUMBER OPERATOR NUMBER: as test(1) compares.
holds() {
	[ "$2" "$3" "$4" ] && return
	echo "$1: $2 $3 $4 does not hold"
	return 1
}

contains() {
	case $1 in
	*"$2"*)	return 0 ;;
	esac
	echo "'$2' is not in '$1'"
	return 1
}

# key FILE KEY: the value in a `KEY: value` line.
key() {
	sed -n "s/^$2: *//p" "$ROOT/$1"
}

# has FILE KEY VALUE [KEY VALUE]...
has() {
	file=$1
	shift
	awk -v file="$file" '
		BEGIN {
			for (i = 2; i < ARGC; i += 2) {
				expected[ARGV[i] ":"] = ARGV[i + 1]
				ARGV[i] = ARGV[i + 1] = ""
			}
		}
		$1 in expected {
			key = $1
			sub(/^[^:]*: */, "")
			if ($0 "" != expected[key] "") {
				print file ": " key " expected \047" expected[key] "\047, got \047" $0 "\047"
				bad = 1
			}
			delete expected[key]
		}
		END {
			for (key in expected) {
				print file ": there is no \047" key "\047"
				bad = 1
			}
			exit bad
		}' "$ROOT/$file" "$@"
}

# sum FILE REGEX: of the values of all keys that match.
sum() {
	awk -v keys="^($2):\$" '$1 ~ keys { sum += $2 } END { printf "%d\n", sum }' "$ROOT/$1"
}

# column FILE NAME: the values in a column of a table that begins the file.
column() {
	awk -v name="$2" '
		NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) nr = i; next }
		{ print $nr }' "$ROOT/$1"
}

# column_sum FILE NAME
column_sum() {
	column "$1" "$2" | awk '{ sum += $1 } END { printf "%d\n", sum }'
}

# zone_column ZONE NAME: a value in the row of a zone.
zone_column() {
	awk -v zone="$1" -v name="$2" '
		NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) nr = i; next }
		$1 == zone { print $nr }' "$ROOT/zones"
}

# Free pages in the pageblocks of a zone, wherever they are.
pages_in_blocks() {
	echo $(($(column_sum "$1/pageblocks" free_zone) + $(column_sum "$1/pageblocks" free_pcp)))
}

# settled ZONE: the sets give back what they have, and then all is as it was when
# the zone was new: every page free and counted, every pageblock whole in the zone,
# without an owner, with nothing to recover.
settled() {
	put "$1/drain" all && healthy "$1" || return 1
	awk -v zone="$1" '
		FNR == 1 { file++ }
		file == 1 && FNR == 1 { for (i = 1; i <= NF; i++) if ($i == "block_order") nr = i; next }
		file == 1 { if ($1 == zone) block_pages = 2 ^ $nr; next }
		file == 2 { if (NF == 2) stats[$1] = $2; next }
		FNR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; stock = $1 == "n/a:"; next }
		{ blocks++; pages += $at["free_zone"] }
		$at["where"] != "zone" || $at["owner"] != "-" || $at["recovery"] != "no" ||
		$at["free_zone"] != block_pages || $at["free_pcp"] != 0 { wrong("not whole: " $0) }
		function wrong(what) { print zone ": " what; bad = 1 }
		END {
			all = stock ? stats["budget_pages:"] : stats["managed_pages:"]
			if (!all || stats["free_pages:"] != all)
				wrong("free pages: " stats["free_pages:"] " of " all)
			if (!stock && stats["uncounted_free_pages:"] != 0)
				wrong("uncounted pages: " stats["uncounted_free_pages:"])
			if (!stock && (!blocks || pages != all))
				wrong("free pages in " blocks " pageblocks: " pages " of " all)
			exit bad
		}' "$ROOT/zones" "$ROOT/$1/stats" "$ROOT/$1/pageblocks"
}

# Chunks that have been allocated and freed in the last run, by the counters.
balanced() {
	same "chunks freed of those allocated in $1" \
		"$(sum "$1/result" 'alloc_.*_order.*')" "$(sum "$1/result" 'free_.*_order.*')"
}

# Memory of the kernel

free_mib() {
	awk '/^MemAvailable:/ { printf "%d\n", $2 / 1024 }' /proc/meminfo
}

# Sets PAGES_KB, VMALLOC_KB and SLAB_KB: what nobody accounts for (ranges of zones,
# for one), vmalloc'ed memory, and slabs, in KiB.
#
# MemFree says little by itself: it leaves out what waits on the kernel's per-CPU
# lists, and moves with the page cache and every process. So this takes a small
# zone, because alloc_contig_pages() drains those lists, folds the counters, starts
# no process, and subtracts what belongs to processes and the page cache. What is
# left is the same to the page when nothing is on. Something may be on (a process
# that has just exited), so the least of some readings counts.
read_memory() {
	PAGES_KB=
	for reading in 1 2 3 4 5 6 7 8; do
		add t-mem size=4M policy=economy || return 1
		echo 1 2>/dev/null >/proc/sys/vm/stat_refresh
		total=0 others=0
		while read -r what kb unit; do
			case $what in
			MemTotal:)	total=$kb ;;
			VmallocUsed:)	vmalloc=$kb; others=$((others + kb)) ;;
			Slab:)		slab=$kb; others=$((others + kb)) ;;
			MemFree:|Buffers:|Cached:|SwapCached:|AnonPages:|KernelStack:|PageTables:|Percpu:)
					others=$((others + kb)) ;;
			esac
		done </proc/meminfo
		del t-mem || return 1
		pages=$((total - others))
		if [ -z "$PAGES_KB" ] || [ $pages -lt "$PAGES_KB" ]; then
			PAGES_KB=$pages
		fi
		VMALLOC_KB=$vmalloc SLAB_KB=$slab
	done
}

# Remembers how much memory is in use.
remember_memory() {
	read_memory && BEFORE="$PAGES_KB $VMALLOC_KB $SLAB_KB"
}

# The page tables of addresses that vmalloc() has used once stay. The smallest range
# has 256 KiB. KASAN keeps its shadow of such addresses and, for a while, what was
# freed; the zones of a test are larger than that.
TABLES_SLACK_KB=64
VMALLOC_SLACK_KB=0
! grep -qw kasan_poison /proc/kallsyms || TABLES_SLACK_KB=4096 VMALLOC_SLACK_KB=512

# memory_is_back [exactly]: no more is in use than was remembered: of vmalloc() nothing,
# of ranges no page. `exactly` is for who has done the same before: no more page
# tables either, and slabs within SLAB_SLACK_KB. What a busy machine has not yet got
# round to freeing gets a few seconds.
memory_is_back() {
	for second in 1 2 3 4; do
		memory_is_back_now "$1" >/dev/null && return
		sleep 1
	done
	memory_is_back_now "$1"
}

memory_is_back_now() {
	read_memory || return 1
	if [ "$1" = exactly ]; then
		holds "KiB in use that nobody accounts for" "$PAGES_KB" -le "${BEFORE%% *}" &&
			holds "KiB of slabs" "$SLAB_KB" -le $((${BEFORE##* } + SLAB_SLACK_KB)) || return 1
	fi
	set -- $BEFORE
	holds "KiB in use that nobody accounts for" "$PAGES_KB" -le $(($1 + TABLES_SLACK_KB)) &&
		holds "KiB of vmalloc in use" "$VMALLOC_KB" -le $(($2 + VMALLOC_SLACK_KB))
}
