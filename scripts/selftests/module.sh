# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# For selftests that unload the module and load it again. To be sourced after
# lib.sh. PCPB_MODULE may name the file; otherwise it is looked for.

rm_module() {
	if command -v rmmod >/dev/null; then rmmod pcp_buddy; else busybox rmmod pcp_buddy; fi
}

ins_module() {
	if command -v insmod >/dev/null; then insmod "$1"; else busybox insmod "$1"; fi
}

hex() {
	od -An -v -tx1 "$1" | tr -d ' \n'
}

# The file that this very module was loaded from, by its build id; kernels that are
# configured differently may have the same version.
module_file() {
	id=$(hex /sys/module/pcp_buddy/notes/.note.gnu.build-id)
	for file in ${PCPB_MODULE:-"$(dirname "$0")"/../../build/*/rust/pcp_buddy.ko \
		/lib/modules/"$(uname -r)"/*/pcp_buddy.ko}; do
		if [ -r "$file" ] && hex "$file" | grep -q "$id"; then
			echo "$file"
			return
		fi
	done
}

# begin_with_module NUMBER [cpus=N] [mib=N]: like `begin`, and sets MODULE. What
# unloads the module takes everybody's zones, so there may be none of others.
begin_with_module() {
	[ -d "$ROOT" ] && MODULE=$(module_file)
	if [ -d "$ROOT" ] && [ -z "$MODULE" ]; then
		ktap_print_header
		skip_all "PCPB_MODULE must name the file that pcp_buddy was loaded from"
	fi
	others=$(column zones name 2>/dev/null | grep -v '^t-')
	[ -z "$others" ] || bail "unloading would remove these zones: $others"
	begin "$@"
}

loaded() {
	grep -q '^pcp_buddy ' /proc/modules
}

unload() {
	rm_module || return 1
	! loaded || { echo "still loaded"; return 1; }
	[ ! -e "$ROOT" ] || { echo "$ROOT is still there"; return 1; }
}

reload() {
	ins_module "$MODULE" && loaded && same "zones" "" "$(column zones name)"
}

# unload_is_refused: and the module works as before.
unload_is_refused() {
	if rm_module 2>"$WORK/rmmod"; then
		echo "the module was unloaded"
		reload
		return 1
	fi
	grep -qi "in use\|unavailable\|busy" "$WORK/rmmod" || { cat "$WORK/rmmod"; return 1; }
	loaded
}
