#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# pcpb: host
#
# `pcpb bench` measures what it is told to, as often as it is told to, keeps
# the records, and makes of them a page that needs nothing from outside; and it
# says so when it is asked for something that does not exist. Nothing here
# looks at times.

if ! [ -r "${KTAP_HELPERS:-}" ]; then
	echo "Bail out! KTAP_HELPERS must name the kernel's" \
	     "tools/testing/selftests/kselftest/ktap_helpers.sh"
	exit 1
fi
. "$KTAP_HELPERS"

PCPB=${PCPB:-$(dirname "$0")/../pcpb}
REPEAT=3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# check DESCRIPTION COMMAND...: passes if the command succeeds.
check() {
	description=$1
	shift
	if "$@"; then
		ktap_test_pass "$description"
	else
		ktap_test_fail "$description"
	fi
}

# refused WORD ARGUMENT...: fails, and names the word that is wrong.
refused() {
	word=$1
	shift
	if "$PCPB" bench --quick "$@" >"$work/refused" 2>&1; then
		ktap_print_msg "'bench $*' succeeded"
		return 1
	fi
	grep -q "'$word'" "$work/refused" || {
		ktap_print_msg "nothing about '$word' in: $(cat "$work/refused")"
		return 1
	}
}

# Every policy in every workload and boot has the rounds that were asked for,
# each with figures, a zone in order and its pageblocks.
complete() {
	/usr/bin/python3 - "$work/records" $REPEAT <<-'END'
		import json, sys
		data, repeat = json.load(open(sys.argv[1])), int(sys.argv[2])
		assert [boot["cpus"] for boot in data["boots"]] == [1, 2], "CPUs"
		for boot in data["boots"]:
		    rounds = {}
		    for run in boot["runs"]:
		        where = run["policy"], run["name"]
		        assert run["result"]["ops"] > 0, where
		        assert run["result"]["ns_per_op"] > 0, where
		        assert run["check"] == "ok", where
		        assert run["blocks"]["all"] > 0, where
		        if not run["warm_up"]:
		            rounds.setdefault(where, set()).add(run["round"])
		    workloads = {name.split(",")[0] for _, name in rounds}
		    assert workloads == {"pair", "purge"}, workloads
		    assert {policy for policy, _ in rounds} == {"pcp", "owner"}, rounds
		    assert all(len(found) == repeat for found in rounds.values()), rounds
	END
}

# Nothing that a browser would fetch, and no program.
self_contained() {
	! grep -iE '(src|href|srcset|poster|action) *=|url\(|@import|<script|<link|http-equiv' \
		"$work/page.html"
}

# All figures are there, and each says how it is made.
explained() {
	figures=$(grep -c '<figure>' "$work/page.html")
	commands=$(grep -o 'Reproduce with<pre>./scripts/pcpb bench --kernel uml --cpus 1,2[^<]*' \
		"$work/page.html" | wc -l)
	ktap_print_msg "$figures figures, $commands commands"
	[ "$figures" -ge 5 ] && [ "$figures" = "$commands" ]
}

# The second report is not empty, and is the first.
same() {
	[ -s "$work/text" ] && cmp "$work/text" "$work/text-again"
}

ktap_print_header
ktap_set_plan 9

check "an unknown policy is refused in words" refused lru --policies pcp,lru
check "an unknown workload is refused in words" refused walk --workloads walk
check "a number of CPUs that the kernel cannot have is refused" refused 99 --cpus 1,99

"$PCPB" bench --quick --repeat $REPEAT --cpus 1,2 --mem 1G --policies pcp,owner \
	--workloads pair,purge --output "$work/page.html" >"$work/text" 2>"$work/messages"
status=$?
cat "$work/messages" >&2
check "a short comparison runs to its end" [ $status = 0 ]
records=$(sed -n 's/^pcpb: records: //p' "$work/messages")
cp "$records" "$work/records"
check "the records are complete" complete
check "the terminal shows both policies" grep -q "owner against pcp: time" "$work/text"
check "the page needs nothing from outside" self_contained
check "every figure has its command" explained

"$PCPB" report "$work/records" --output "$work/again.html" >"$work/text-again" 2>/dev/null
check "a report made again says the same" same

# It was only a test: no reason to keep what it measured.
case $records in
*.json)	rm -r "$records" "${records%.json}" ;;
esac

ktap_finished
