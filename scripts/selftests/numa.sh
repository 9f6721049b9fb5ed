#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# A zone has its memory from the node that was asked for and from no other; CPUs
# without memory of their own use it like everybody else.
# Looks at the free memory of each node around zones and runs.
# Needs three nodes with a CPU each: two with 1 GiB of memory or more, one without.
#
# pcpb: kernel=x86 cpus=3 numa=2G,1500M,0
. "$(dirname "$0")/lib.sh"

NODES=/sys/devices/system/node
MIB=256
# The kernel's own use moves by much less.
SLACK_MIB=48

free_on() {
	awk '/MemFree:/ { printf "%d\n", $4 / 1024 }' $NODES/node$1/meminfo
}

# taken NODE MIB COMMAND...: COMMAND takes that much from NODE and nothing from the other.
taken() {
	node=$1 mib=$2
	shift 2
	echo 1 2>/dev/null >/proc/sys/vm/stat_refresh
	before=$(free_on $node) other=$(free_on $((1 - node)))
	"$@" || return 1
	echo 1 2>/dev/null >/proc/sys/vm/stat_refresh
	least=$((mib - SLACK_MIB))
	holds "MiB taken from node $node" $((before - $(free_on $node))) -ge $least &&
		holds "MiB taken from the other" $((other - $(free_on $((1 - node))))) -le $SLACK_MIB
}

# The range lies on its node; all CPUs use it.
on_node() {
	taken $2 $MIB add t-n policy=$1 size=${MIB}M node=$2 &&
		same "node of the zone" $2 "$(zone_column t-n node)" &&
		run t-n "stress cpus=0-2 order=0-4 mt=mixed ms=300" && settled t-n && del t-n
}

# What the kernel counts as allocated on node 1 by CPUs of other nodes.
allocated_for_others() {
	echo 1 2>/dev/null >/proc/sys/vm/stat_refresh
	sed -n 's/^other_node //p' $NODES/node1/numastat
}

# The kernel's own pages, too.
stock_on_node() {
	before=$(allocated_for_others)
	add t-n policy=stock size=${MIB}M node=1 && run t-n "pair cpus=0 ops=100000" && del t-n &&
		holds "pages of node 1 allocated on CPU 0" \
			$(($(allocated_for_others) - before)) -ge 100000
}

# More than the node has, though the other has ranges of that size: refused, and nothing
# kept.
strict() {
	before="$(free_on 0) $(free_on 1)"
	refused ENOMEM "on node 1" zones "add t-n policy=$1 size=1536M ranges=24 node=1" &&
		same "zones left" "" "$(own_zones)" || return 1
	echo 1 2>/dev/null >/proc/sys/vm/stat_refresh
	set -- $before "$(free_on 0)" "$(free_on 1)"
	holds "MiB free on node 0" $(($3 + SLACK_MIB)) -ge $1 &&
		holds "MiB free on node 1" $(($4 + SLACK_MIB)) -ge $2
}

no_memory_there() {
	refused EINVAL "node 2" zones "add t-n policy=$1 size=64M node=2" &&
		refused EINVAL "node 3" zones "add t-n policy=$1 size=64M node=3"
}

# The CPU of node 2 alone, with memory from wherever there is some.
cpu_without_memory() {
	add t-n policy=$1 size=${MIB}M && same "node of the zone" any "$(zone_column t-n node)" &&
		run t-n "stress cpus=2 order=0-9 mt=mixed ms=200" &&
		run t-n "hog cpus=2" && settled t-n && del t-n
}

if ! [ -d $NODES/node2 ] || [ "$(free_on 2)" != 0 ]; then
	ktap_print_header
	skip_all "needs three nodes, the last without memory"
fi
begin 25 cpus=3

check "memory can be measured" remember_memory
for policy in $RANGE_POLICIES; do
	check "$policy: a zone on node 0" on_node $policy 0
	check "$policy: a zone on node 1" on_node $policy 1
	check "$policy: more than node 1 has" strict $policy
done
for policy in $ALL_POLICIES; do
	check "$policy: nodes without memory" no_memory_there $policy
	check "$policy: a CPU without memory" cpu_without_memory $policy
done
check "stock: pages of node 1" stock_on_node
check "memory is given back" memory_is_back
finish
