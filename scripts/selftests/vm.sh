#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pcpb: host
#
# `pcpb vm` runs a command in the guest as if it ran here: its exit status, its
# arguments, its bytes on stdout, its folder; on as many CPUs as asked for; and
# it says so when the guest dies or takes too long. No module is needed.

if ! [ -r "${KTAP_HELPERS:-}" ]; then
	echo "Bail out! KTAP_HELPERS must name the kernel's" \
	     "tools/testing/selftests/kselftest/ktap_helpers.sh"
	exit 1
fi
. "$KTAP_HELPERS"

PCPB=${PCPB:-$(dirname "$0")/../pcpb}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

vm() {
	"$PCPB" vm --no-module "$@"
}

# Guests that are meant to fail keep their console to themselves.
vm_quiet() {
	vm "$@" 2>"$work/console"
}

# check DESCRIPTION EXPECTED GOT
check() {
	if [ "$2" = "$3" ]; then
		ktap_test_pass "$1"
	else
		ktap_print_msg "expected '$2', got '$3'"
		ktap_test_fail "$1"
	fi
}

ktap_print_header
ktap_set_plan 21

for status in 0 1 42 255; do
	vm -- sh -c "exit $status"
	check "exit status $status" $status $?
done

vm_quiet -- sh -c 'kill -TERM $$'
check "a signal is 128 plus its number" 143 $?

vm_quiet -- no-such-command
check "a command that is not there is 127" 127 $?

vm_quiet -- cd /
check "a word of the shell is no command" 127 $?

vm_quiet --timeout 2 -- sleep 60
check "a guest that takes too long is 124" 124 $?

vm_quiet --append init=/no-such-init -- true
check "a kernel panic is 125" 125 $?

vm_quiet --cpus 65 -- true
check "too many CPUs are refused" 1 $?

check "arguments arrive as they are" "<a b><it's><\"q\"><\$HOME><><*><\\>" \
	"$(vm -- printf '<%s>' 'a b' "it's" '"q"' '$HOME' '' '*' '\')"

check "the folder is the caller's" "$work" "$(cd "$work" && vm -- pwd)"

head -c 5000000 /dev/urandom >"$work/bytes"
check "stdout is exact to the byte" "$(sha256sum <"$work/bytes")" \
	"$(cd "$work" && vm -- cat bytes | sha256sum)"

for cpus in 1 2 4 8 16 32 64; do
	check "$cpus CPUs" $cpus "$(vm --cpus $cpus -- grep -c ^processor /proc/cpuinfo)"
done

# See Documentation/testing.rst: UML loses what is written to pages that are migrated meanwhile.
check "processes stay where they keep their memory" 0 \
	"$(vm --cpus 4 -- sh -c "sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status")"

ktap_finished
