# SPDX-License-Identifier: GPL-2.0
"""`pcpb bench`: all policies on all workloads, side by side, and a report.

What makes the comparison honest: all policies are measured in the same boot,
each in a zone of its own; for every workload they take turns, round by round,
so that whatever drifts hits all alike, and who is first changes from round to
round; memory has been touched, and a round gone through, before anything
counts. Absolute times belong to this machine; the ratios are the result.
"""

import argparse
import datetime
import os
import re
import resource
import shlex
import subprocess
import sys
import time

from pcpb_cli import core, kernel, kernel_log, module, records, report, setup, steps
from pcpb_cli.records import POLICIES
from pcpb_cli.steps import PROJECT, SCRIPTS, Failed

WORKLOADS = PROJECT / "samples" / "workloads"
WORKLOAD_ORDER = ("pair", "bulk", "rand", "purge", "fanout", "exit", "hog", "frag", "contig",
                  "latency", "stress")
GUEST_SCRIPT = SCRIPTS / "bench-guest.sh"

PAGE_BYTES = 4096
MEM_CHOICES_G = (4, 2, 1)
HOST_RESERVE_BYTES = 1 << 30
# What a zone may take of the guest's memory: five zones fit, and the kernel.
ZONE_SHARE = 8
# Working sets of all CPUs together may take this part of a zone.
SETS_SHARE = 3 / 4
# --quick does this part of the operations, and fewer rounds.
QUICK_PART = 20
QUICK_REPEAT = 2
REPEAT = 5
# A guest that takes longer than this for a run is stuck.
RUN_LIMIT_S = 20
BOOT_LIMIT_S = 120


def command(argv):
    """Measures, prints the tables, writes the page."""
    args = _arguments(argv)
    if args.core:
        return core.measure()
    policies = _chosen("--policies", args.policies, list(POLICIES))
    lines = _workload_lines(_chosen("--workloads", args.workloads, _workload_names()))
    wanted = kernel.KERNELS[args.kernel]
    cpu_counts = _cpu_counts(args.cpus, wanted)
    mem_g = args.mem or _memory_g()
    setup.ensure(wanted)
    module.ensure(wanted)

    started = datetime.datetime.now().astimezone()
    data = {
        "format": records.FORMAT,
        "command": _own_command(args, cpu_counts, mem_g),
        "date": started.isoformat(timespec="seconds"),
        "commit": _commit(),
        "host": _host(),
        "policies": policies,
        "repeat": args.repeat,
        "quick": args.quick,
        "kernel": _kernel_facts(wanted),
        "mem_bytes": mem_g << 30,
        "zone_bytes": _zone_bytes(mem_g),
        "boots": [],
    }
    folder = records.FOLDER / started.strftime("%Y%m%d-%H%M%S")
    plans = [Plan(cpus, lines, policies, args, data["zone_bytes"]) for cpus in cpu_counts]
    progress = Progress(sum(len(plan.runs) for plan in plans))
    for plan in plans:
        data["boots"].append(_boot(plan, args.kernel, mem_g, folder, progress))
    progress.finish()
    path = folder.with_suffix(".json")
    records.save(data, path)
    report.present(path, args.output)


def _arguments(argv):
    parser = argparse.ArgumentParser(
        prog="pcpb bench", description="Measures all policies on all workloads in a test kernel, "
        "prints tables, and writes a page with plots.")
    parser.add_argument("--kernel", choices=list(kernel.KERNELS), default=kernel.DEFAULT)
    parser.add_argument("--cpus", type=_words, metavar="LIST",
                        help="numbers of CPUs, a boot each; default: 1, 2, 4 and so on up to the "
                        "machine's own number")
    parser.add_argument("--mem", type=_gigabytes, metavar="SIZE",
                        help="memory of the guest, such as 4G; default: what the machine has room "
                        "for, at most 4G")
    parser.add_argument("--repeat", type=int, metavar="N",
                        help=f"rounds that count, after one that does not; default: {REPEAT}")
    parser.add_argument("--quick", action="store_true",
                        help=f"a {QUICK_PART}th of the operations and {QUICK_REPEAT} rounds: to see "
                        "that it works, not to compare")
    parser.add_argument("--policies", type=_words, metavar="LIST", help="default: all")
    parser.add_argument("--workloads", type=_words, metavar="LIST",
                        help="names of files in samples/workloads; default: all")
    parser.add_argument("--output", metavar="FILE",
                        help=f"the page; default: {report.default_page()}")
    parser.add_argument("--core", action="store_true",
                        help="instead: instructions and time of the allocators alone, on this "
                        "machine, without a kernel")
    args = parser.parse_args(argv)
    if args.repeat is None:
        args.repeat = QUICK_REPEAT if args.quick else REPEAT
    if args.repeat < 1:
        parser.error("--repeat: at least 1")
    return args


def _words(text):
    return [word for word in text.split(",") if word]


def _gigabytes(text):
    if not (match := re.fullmatch(r"(\d+)[gG]", text)) or int(match[1]) < 1:
        raise argparse.ArgumentTypeError(f"whole gigabytes such as 4G, not {text!r}")
    return int(match[1])


def _chosen(option, words, names):
    """The named ones, in the order of `names`; all if none are named."""
    for word in words or []:
        if word not in names:
            raise Failed(f"{option}: there is no {word!r}; there are: {', '.join(names)}")
    return [name for name in names if not words or name in words]


def _cpu_counts(words, wanted):
    if not words:
        most = min(os.cpu_count(), wanted.max_cpus)
        powers = {1 << bit for bit in range(most.bit_length())}
        return sorted(powers | {most})
    for word in words:
        if not word.isdecimal() or not 1 <= int(word) <= wanted.max_cpus:
            raise Failed(f"--cpus: {wanted.name} has 1 to {wanted.max_cpus} CPUs, not {word!r}")
    return sorted({int(word) for word in words})


def _memory_g():
    """The most memory that a guest may use up here."""
    free = _meminfo("MemAvailable") - HOST_RESERVE_BYTES
    fitting = [size for size in MEM_CHOICES_G if size << 30 <= free]
    if not fitting:
        raise Failed("less than 2 GiB of memory are free: free some, or insist with --mem 1G")
    return fitting[0]


def _zone_bytes(mem_g):
    """Zones have powers of two, because contiguous ranges are aligned to their size."""
    return 1 << ((mem_g << 30) // ZONE_SHARE).bit_length() - 1


def _meminfo(key):
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(key + ":"))


def _own_command(args, cpu_counts, mem_g):
    """The command that does all of this again, with everything said that was chosen here."""
    words = ["./scripts/pcpb", "bench", "--kernel", args.kernel,
             "--cpus", ",".join(map(str, cpu_counts)), "--mem", f"{mem_g}G",
             "--repeat", str(args.repeat)]
    for option, chosen in (("--policies", args.policies), ("--workloads", args.workloads)):
        words += [option, ",".join(chosen)] if chosen else []
    return shlex.join(words + (["--quick"] if args.quick else []))


# Where it is measured


def _commit():
    def git(*words):
        return subprocess.run(["git", "-C", PROJECT, *words], capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        changed = git("status", "--porcelain", "--", "rust", "scripts", "samples")
        return {"id": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None  # not a checkout


def _host():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {"cpu": models[0] if models else os.uname().machine, "cpus": os.cpu_count(),
            "mem_bytes": _meminfo("MemTotal"), "kernel": os.uname().release}


def _kernel_facts(wanted):
    return {"name": wanted.name, "about": wanted.about, "build": kernel.build_dir(wanted).name,
            "patches": list(wanted.patches)}


# What is measured


def _workload_names():
    """The files in their usual order, and whatever else there is after them."""
    names = sorted(path.name for path in WORKLOADS.iterdir() if path.name != "README")
    return sorted(names, key=lambda name: WORKLOAD_ORDER.index(name)
                  if name in WORKLOAD_ORDER else len(WORKLOAD_ORDER))


def _workload_lines(names):
    """The commands of the workload files."""
    return [line for name in names
            for line in (WORKLOADS / name).read_text(encoding="utf-8").splitlines()
            if line and not line.startswith("#")]


def _name(line):
    """What a workload is called in tables: what it is, and what is special about it."""
    words = dict(word.split("=", 1) for word in line.split())
    name = words["workload"]
    if words.get("order", "0") != "0" and name != "stress":
        name += f", order {words['order']}"
    if "how" in words:
        name += f", {words['how']}"
    if words.get("free", "lifo") != "lifo":
        name += f", {words['free']}"
    if "latency" in words:
        name += ", calls timed"
    return name


class Plan:
    """What one boot does: the lines for the guest's script, and what each of its runs is."""

    def __init__(self, cpus, lines, policies, args, zone_bytes):
        self.cpus = cpus
        self.zones = [f"add {policy} policy={policy} size={zone_bytes >> 20}M"
                      for policy in policies]
        self.lines = [f"zones {zone}" for zone in self.zones]
        self.runs = []
        # Memory that has never been touched costs microseconds a page.
        touch_all = f"workload=hog cpus={_cpu_list(cpus)} touch=first"
        self.lines += [f"warm {policy} {touch_all}" for policy in policies]
        for line in lines:
            filled_in = _fill_in(line, cpus, zone_bytes // PAGE_BYTES, args.quick)
            self._add(_name(line), filled_in, policies, args.repeat)

    def _add(self, name, line, policies, repeat):
        """One workload: a warm-up round, then the rounds that count."""
        self.lines += [f"drain {policy}" for policy in policies]
        for number in range(repeat + 1):
            first = number % len(policies)
            for policy in policies[first:] + policies[:first]:
                self.lines.append(f"run {policy} {line}")
                self.runs.append({"name": name, "policy": policy, "round": number,
                                  "warm_up": number == 0, "command": line})


def _cpu_list(cpus):
    return f"0-{cpus - 1}" if cpus > 1 else "0"


def _fill_in(line, cpus, zone_pages, quick):
    """A line for this number of CPUs and this size of a zone."""
    words = dict(word.split("=", 1) for word in line.split())
    words["cpus"] = _cpu_list(cpus)
    if "pages" in words:
        words["pages"] = min(int(words["pages"]), int(zone_pages * SETS_SHARE / cpus))
    for key in ("ops", "ms"):
        if quick and key in words:
            words[key] = max(int(words[key]) // QUICK_PART, 1)
    return " ".join(f"{key}={value}" for key, value in words.items())


# Measuring


class Progress:
    """Tells how far it is and how long it will take."""

    def __init__(self, total):
        self.total, self.done = total, 0
        self.start = self.shown = time.monotonic()
        self.tty = sys.stderr.isatty()
        steps.say(f"{total} runs to measure")

    def step(self, cpus, run):
        """One run is over."""
        self.done += 1
        now = time.monotonic()
        tick = steps.TICK_TTY_S if self.tty else steps.TICK_PLAIN_S
        if now - self.shown < tick:
            return
        self.shown = now
        left_s = (now - self.start) / self.done * (self.total - self.done)
        text = (f"{self.done} of {self.total} runs in {now - self.start:.0f} s, about {left_s:.0f} s "
                f"to go (CPUs: {cpus}, {run['name']})")
        if self.tty:
            print(f"\r\033[Kpcpb: {text}", end="", file=sys.stderr, flush=True)
        else:
            steps.say(text)

    def finish(self):
        """All is over."""
        if self.tty:
            print("\r\033[K", end="", file=sys.stderr)
        steps.say(f"{self.done} runs measured in {time.monotonic() - self.start:.0f} s")


def _boot(plan, kernel_name, mem_g, folder, progress):
    """Boots a guest that goes through the plan; returns its records."""
    folder.mkdir(parents=True, exist_ok=True)
    plan_file = folder / f"{plan.cpus}-cpus.plan"
    plan_file.write_text("\n".join(plan.lines) + "\n", encoding="utf-8")
    console = plan_file.with_suffix(".console")
    limit_s = BOOT_LIMIT_S + RUN_LIMIT_S * len(plan.lines)
    argv = ["vm", "--kernel", kernel_name, "--cpus", str(plan.cpus), "--mem", f"{mem_g}G",
            "--timeout", str(limit_s), "--", str(GUEST_SCRIPT), str(plan_file)]
    boot = {"cpus": plan.cpus, "kernel_version": None, "zones": plan.zones, "runs": [],
            "command": shlex.join(["./scripts/pcpb", *(_shown(word) for word in argv)])}
    load = _Load()
    with open(console, "w", encoding="utf-8") as err:
        guest = subprocess.Popen([SCRIPTS / "pcpb", *argv], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=err, text=True, errors="replace")
        try:
            boot["kernel_version"] = _collect(guest.stdout, plan, boot["runs"], progress)
        except BaseException:
            guest.terminate()
            guest.wait()
            raise
        status = guest.wait()
    if status != 0 or len(boot["runs"]) != len(plan.runs):
        raise Failed(f"the guest with {plan.cpus} CPUs stopped with status {status} after "
                     f"{len(boot['runs'])} of {len(plan.runs)} runs. The end of its console:\n\n"
                     f"{steps.log_tail(console, steps.LOG_TAIL_LINES)}")
    _look_for_complaints(console)
    return boot | {"busy_elsewhere": load.elsewhere()}


class _Load:
    """What the host's CPUs did other than our guest: it makes CPUs of the guest wait."""

    def __init__(self):
        self.start_s, self.busy_s, self.own_s = self._now()

    def elsewhere(self):
        """The part of the host's CPU time that went elsewhere since the beginning."""
        now_s, busy_s, own_s = self._now()
        other_s = (busy_s - self.busy_s) - (own_s - self.own_s)
        return max(other_s, 0) / ((now_s - self.start_s) * os.cpu_count())

    @staticmethod
    def _now():
        """The time, and the CPU time of the whole host and of our children that have ended."""
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, _idle, _wait, irq, softirq, steal = map(
                int, file.readline().split()[1:9])
        busy = user + nice + system + irq + softirq + steal
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (time.monotonic(), busy / os.sysconf("SC_CLK_TCK"),
                children.ru_utime + children.ru_stime)


def _shown(word):
    """A path as one types it at the top of the project."""
    return word.removeprefix(f"{PROJECT}/")


def _collect(lines, plan, runs, progress):
    """Reads what bench-guest.sh writes; returns the version of the guest's kernel."""
    version = None
    for line in lines:
        word, _, text = line.rstrip("\n").partition(" ")
        if word == "@kernel":
            version = text
        elif word == "@run":
            if len(runs) == len(plan.runs):
                raise Failed("the guest made more runs than were planned")
            runs.append(plan.runs[len(runs)] | _record(lines))
            _verify(runs[-1])
            progress.step(plan.cpus, runs[-1])
    return version


def _record(lines):
    """The rest of one run's output."""
    record = {"result": {}, "blocks": {}, "check": "", "per_cpu": []}
    part = record["result"]
    for line in lines:
        line = line.rstrip("\n")
        if line == "@end":
            return record
        if line == "@blocks":
            part = record["blocks"]
        elif line.startswith("@check "):
            record["check"] = line.removeprefix("@check ")
        elif match := re.fullmatch(r"(\w+): (.*)", line):
            part[match[1]] = _number(match[2])
        elif line:
            record["per_cpu"].append(line)
    raise Failed("the guest's output ends in the middle of a run")


def _number(text):
    """A value as a number where it is one; what is not applicable is nothing."""
    if text == "n/a":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _verify(run):
    """A run whose zone is not in order afterwards says nothing about speed."""
    in_order = run["check"] == "ok" or POLICIES[run["policy"]].control
    if not in_order:
        raise Failed(f"after '{run['command']}' the zone of policy {run['policy']} is not in "
                     f"order: {run['check']}")
    result = run["result"]
    if result.get("status") != "ok":
        raise Failed(f"'{run['command']}' on policy {run['policy']}: {result.get('status')}")
    said = result.get("workload"), result.get("policy")
    if said != (run["command"].split()[0].partition("=")[2], run["policy"]) \
            or not result.get("ops") or not result.get("ns_per_op"):
        raise Failed(f"'{run['command']}' on policy {run['policy']} gave no result: {result}")


def _look_for_complaints(console):
    found = kernel_log.complaint(console.read_text(encoding="utf-8", errors="replace"))
    if found:
        raise Failed(f"the guest's kernel complained: {found} (see {console})")
