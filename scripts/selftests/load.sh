#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The module can be unloaded and loaded at any time, removes its zones when it
# goes, gives back all memory, and does not go while one of its files is open.
# Does just that, in cycles, and reads how much memory is in use after each.
# Needs 1 GiB of memory, no zones of others, and the file that the module is from.
#
# pcpb: cpus=2 mem=2G
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/module.sh"

# Growth of slabs that is not a leak: the kernel keeps some that are empty. One
# page lost a cycle is more.
CYCLES=60
SLAB_SLACK_KB=192

private() {
	find "$ROOT" -type f ! -perm 600 >"$WORK/wrong"
	find "$ROOT" ! -user 0 >>"$WORK/wrong"
	same "files that are not root's alone" "" "$(cat "$WORK/wrong")"
}

root_files() {
	same "files" "last_error zones" "$(ls "$ROOT" | xargs)" && private
}

zone_files() {
	add t-a size=64M policy=$1 && private && same "files of a zone" \
		"buddyinfo check drain pageblocks policy result run stats" "$(ls "$ROOT/t-a" | xargs)" &&
		del t-a
}

zones_go() {
	for policy in $ALL_POLICIES; do
		add t-$policy size=64M policy=$policy && run t-$policy "bulk cpus=0-1 pages=4096" ||
			return 1
	done
	unload && reload
}

open_root_file() {
	exec 9<"$ROOT/zones" || return 1
	unload_is_refused
	status=$?
	exec 9<&-
	return $status
}

open_zone_file() {
	add t-a size=64M && exec 9<"$ROOT/t-a/pageblocks" || return 1
	read -r header <&9
	unload_is_refused && same "zones" t-a "$(column zones name)" && run t-a "pair cpus=0 ops=10"
	status=$?
	exec 9<&-
	del t-a && return $status
}

# The zone of an open file may go; the module may not.
open_file_of_no_zone() {
	add t-a size=64M && exec 9<"$ROOT/t-a/stats" && del t-a || return 1
	if read -r line <&9 2>/dev/null; then
		echo "read '$line' from a zone that is gone"
		false
	else
		unload_is_refused
	fi
	status=$?
	exec 9<&-
	return $status
}

closed() {
	unload && reload
}

# one_cycle POLICY: everything that takes memory.
one_cycle() {
	add t-a size=256M ranges=2 policy=$1 &&
		run t-a "purge cpus=0 free_cpus=1 ops=2000" && run t-a "hog cpus=0-1" &&
		cat "$ROOT"/t-a/stats "$ROOT"/t-a/pageblocks >/dev/null &&
		refused_to_add_again && del t-a
}

refused_to_add_again() {
	! echo "add t-a size=256M" 2>/dev/null >"$ROOT/zones"
}

cycles() {
	nr=0
	while [ $nr -lt "$2" ]; do
		one_cycle "$1" || return 1
		nr=$((nr + 1))
	done
}

# What the first cycles leave behind stays the same from then on: page tables,
# threads and slabs that the kernel keeps for the next time.
gives_back() {
	cycles "$1" 5 && remember_memory && cycles "$1" $CYCLES && memory_is_back exactly
}

gives_back_on_unload() {
	zones_go && zones_go && remember_memory && zones_go && zones_go && zones_go &&
		memory_is_back
}

begin_with_module $((1 + 5 + 2 + 3 + 1 + 6 + 1)) cpus=2 mib=700

check "files of the module" root_files
for policy in $ALL_POLICIES; do
	check "$policy: files of a zone" zone_files $policy
done
check "unloading removes everything, loading brings it back" closed
check "unloading removes zones of all policies" zones_go
check "no unloading while zones is open" open_root_file
check "no unloading while a file of a zone is open" open_zone_file
check "no unloading while a file of a removed zone is open" open_file_of_no_zone
check "unloading when they are closed" closed
check "one round of cycles, so that the kernel has what it keeps" cycles economy $CYCLES
for policy in $ALL_POLICIES; do
	check "$policy: $CYCLES cycles leave not a page behind" gives_back $policy
done
check "unloading gives back what zones had" gives_back_on_unload

finish
