#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The guest's first process, started by the test kernel on the host's file
# system (read-only). Makes the guest a usable system, loads the module, runs
# one command, reports its status and switches the machine off.
#
# pcpb_job (from the kernel command line) is a generated file with the shell
# functions job_environment, job_folders, job_insmod and job_command, and three
# variables: the lines below, and the CPUs on which processes may run.
#
# Lines to the outside: /dev/console is the kernel's console, and takes the
# command's stderr; $job_output is the command's stdout; one line with its exit
# status goes to $job_status.

# Read first: the file may be in a folder that gets covered below.
. "$pcpb_job"

# A folder of the host that one of the mounts below has covered comes back.
visible() {
	if ! [ -d "$1" ]; then
		mkdir -p "$1"
		busybox mount -o bind "/run/host$1" "$1"
	fi
}

# busybox: it is quick.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t debugfs debugfs /sys/kernel/debug
busybox mount -t devtmpfs devtmpfs /dev
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mkdir /dev/shm
busybox mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/host
busybox mount -o bind / /run/host
for folder in /dev/shm /tmp; do
	busybox mount -t tmpfs -o mode=1777 tmpfs "$folder"
done
job_folders
busybox taskset -pc "$job_cpus" $$ >/dev/null

# The lines carry bytes: no translation of newlines, no echo.
for line in /dev/console "$job_output" "$job_status"; do
	busybox stty raw -echo <"$line"
done
exec 3>"$job_output" 4>"$job_status"

finish() {
	echo "$1" >&4
	# Setting a line's attributes waits until all of its output is out.
	busybox stty raw -echo <&3
	busybox stty raw -echo <&4
	busybox poweroff -f
}

if ! job_insmod 2>/dev/console; then
	echo "pcpb: the module cannot be loaded" >/dev/console
	finish guest-failed
fi

# The command writes into a pipe, as it would on the host: it must not take
# our line for a terminal.
{
	(job_environment; job_command) </dev/null 2>/dev/console 3>&- 4>&-
	echo $? >/tmp/.pcpb-status
} | busybox cat >&3

read -r status </tmp/.pcpb-status
finish "$status"
