# SPDX-License-Identifier: GPL-2.0
"""What a benchmark has measured: a JSON file of raw records, and figures made of them.

The file has everything that a report says, so that a report can be made again
from it, or another one. Nothing in it is a median or a ratio: those are made
here, when asked for.
"""

import json
import math
import statistics
from dataclasses import dataclass

from pcpb_cli.steps import BUILD, Failed

FOLDER = BUILD / "bench"
FORMAT = 1


@dataclass(frozen=True)
class Policy:
    """A policy that can be measured, and what a reader must know of it."""

    name: str
    about: str
    colours: tuple  # on a light and on a dark page
    control: bool = False  # the running kernel's own allocator, without figures of its inside


# A new policy is one more line here. The order is that of tables and plots.
POLICIES = {policy.name: policy for policy in (
    Policy("stock", "the running kernel's own allocator", ("#6b7280", "#a3abb5"), control=True),
    Policy("pcp", "per-CPU lists over a locked zone buddy, as in mainline", ("#2563c9", "#6ea8ff")),
    Policy("owner", "the per-CPU pageblock buddy of April 2026", ("#c2570c", "#f59e4c")),
    Policy("split", "the same with the lock-free remote frees of May 2026", ("#a3247f", "#ee83cd")),
    Policy("economy", "ours: whole blocks only, free pages as bits", ("#10803f", "#4fcf82")),
)}
CONTROL = "stock"
BASELINE = "pcp"


@dataclass(frozen=True)
class Metric:
    """A figure of one run: how it is called, and how it is found in a record."""

    name: str
    unit: str
    of: callable

    def __call__(self, run):
        try:
            return self.of(run)
        except (KeyError, TypeError, ZeroDivisionError):
            return None  # this policy or workload has no such figure


def _result(key):
    return lambda run: float(run["result"][key])


def _per_op(*keys, scale=1):
    def rate(run):
        result = run["result"]
        return sum(result[key] for key in keys) * scale / result["ops"]
    return rate


def _whole_blocks(run):
    """Pageblocks without a used page, wherever they lie, as a share of all."""
    blocks = run["blocks"]
    return (blocks.get("zone", 0) + blocks.get("pcp", 0)) / blocks["all"]


MILLION = 1_000_000
TIME = Metric("time", "ns per operation", _result("ns_per_op"))
CPU_TIME = Metric("CPU time", "ns per operation", _result("cpu_ns_per_op"))
ALLOC = Metric("alloc", "ns per page", _result("alloc_ns_per_page"))
FREE = Metric("free", "ns per page", _result("free_ns_per_page"))
THROUGHPUT = Metric("throughput", "pages per second", _result("pages_per_s"))
ZONE_LOCK = Metric("zone lock", "acquisitions per million operations",
                   _per_op("zone_lock_acquired", scale=MILLION))
CONTENDED = Metric("contended", "contended acquisitions per million operations",
                   _per_op("zone_lock_contended", "pcp_lock_contended", scale=MILLION))
IRQ_OFF = Metric("irq-off", "sections with interrupts off per operation",
                 _per_op("zone_lock_irq_off", "pcp_lock_irq_off"))
BLOCKS = Metric("whole blocks", "share of pageblocks that are free as a whole", _whole_blocks)
ALLOC_P99 = Metric("alloc p99", "ns that 99 % of single calls do not exceed", _result("alloc_ns_p99"))
FREE_P99 = Metric("free p99", "ns that 99 % of single calls do not exceed", _result("free_ns_p99"))
HUGE_75 = Metric("2 MiB at 75 %", "percent of the 2 MiB runs that what is free would make",
                 _result("fill75_success_order9"))
HUGE_90 = Metric("2 MiB at 90 %", "percent of the 2 MiB runs that what is free would make",
                 _result("fill90_success_order9"))
FAILED = Metric("failures", "failed allocations per operation", _per_op("failures"))


@dataclass(frozen=True)
class Figure:
    """Median and spread over the rounds."""

    median: float
    low: float
    high: float


class Comparison:
    """A file of records, as something to ask."""

    def __init__(self, data):
        self.data = data
        self.boots = {boot["cpus"]: boot for boot in data["boots"]}
        self.cpus = sorted(self.boots)
        self.policies = data["policies"]
        self.workloads = list(dict.fromkeys(run["name"] for boot in data["boots"]
                                            for run in boot["runs"]))
        self._runs = {}
        for boot in data["boots"]:
            for run in boot["runs"]:
                if not run["warm_up"]:
                    cell = boot["cpus"], run["name"], run["policy"]
                    self._runs.setdefault(cell, []).append(run)

    def runs(self, cpus, workload, policy):
        """The records of one cell, in the order of the rounds."""
        return self._runs.get((cpus, workload, policy), [])

    def figure(self, metric, cpus, workload, policy):
        """A metric over the rounds, or None where there is none."""
        values = [metric(run) for run in self.runs(cpus, workload, policy)]
        if not values or None in values:
            return None
        return Figure(statistics.median(values), min(values), max(values))

    def ratio(self, metric, cpus, workload, policy, base):
        """A metric against another policy's, round by round: rounds were interleaved."""
        pairs = [(metric(mine), metric(other)) for mine, other
                 in zip(self.runs(cpus, workload, policy), self.runs(cpus, workload, base))]
        ratios = [mine / other for mine, other in pairs
                  if mine is not None and other]
        if not ratios or len(ratios) < len(pairs):
            return None
        return Figure(statistics.median(ratios), min(ratios), max(ratios))

    def ratios(self, metric, cpus, policy, base):
        """Workload -> median ratio, of the workloads that have one."""
        found = {name: self.ratio(metric, cpus, name, policy, base) for name in self.workloads}
        return {name: figure.median for name, figure in found.items() if figure}


def geometric_mean(values):
    """The mean of ratios."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def save(data, path):
    """Writes a file of records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def load(path):
    """Reads a file of records."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from None
    except ValueError:
        raise Failed(f"{path}: not a file of benchmark records") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise Failed(f"{path}: not a file of benchmark records of format {FORMAT}")
    return Comparison(data)


def newest():
    """The file that was written last."""
    files = sorted(FOLDER.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise Failed(f"no records in {FOLDER}: run `pcpb bench` first")
    return files[-1]
