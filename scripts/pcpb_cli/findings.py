# SPDX-License-Identifier: GPL-2.0
"""What a comparison says, in words: ratios, and what a reader has to know to judge them."""

import statistics
from dataclasses import dataclass

from pcpb_cli import records
from pcpb_cli.records import BASELINE, CONTROL, POLICIES

# From this many irq-off sections per operation on, a policy is said to pay for them.
IRQ_OFF_PAID = 0.1
# From this part of the host's CPU time on that went elsewhere, it is said.
BUSY_NOTED = 0.05


@dataclass(frozen=True)
class Range:
    """A ratio over all workloads, and where it is least and most."""

    middle: float
    least: float
    least_in: str
    most: float
    most_in: str


@dataclass(frozen=True)
class Finding:
    """What one policy is against another in one respect."""

    policy: str
    base: str
    what: str
    by_cpus: dict  # number of CPUs -> Range


TIME = "time per operation"
ZONE_LOCK = "zone lock acquisitions per operation"


def ratios(comparison):
    """The time of each policy against each base, and how often it takes the zone lock."""
    found = []
    for policy in comparison.policies:
        if POLICIES[policy].control:
            continue
        bases = [base for base in (CONTROL, BASELINE)
                 if base != policy and base in comparison.policies]
        for base in bases:
            found.append(_finding(comparison, policy, base, TIME))
        if BASELINE in bases:
            found.append(_finding(comparison, policy, BASELINE, ZONE_LOCK))
    return [finding for finding in found if finding.by_cpus]


def crowded(comparison, cpus):
    """Whether a guest had more CPUs than the host has cores: then its times are no result."""
    return cpus > comparison.data["host"]["cpus"]


def what_counts(comparison, cpus):
    """Which figures of such a guest are results and which are not, or None for others."""
    if not crowded(comparison, cpus):
        return None
    return (f"{cpu_word(cpus)} on {comparison.data['host']['cpus']} of the host: counts are results "
            "(acquisitions of locks, sections with interrupts off, remote frees, drains and steals with "
            "their IPIs, blocks). Times "
            "are not, and neither is whatever comes of them (pages per second, ratios of times, "
            "contention): CPUs wait for their turn on the host. These have a '~'.")


def _finding(comparison, policy, base, what):
    metric = {TIME: records.TIME, ZONE_LOCK: records.ZONE_LOCK}[what]
    by_cpus = {}
    for cpus in comparison.cpus:
        if what == TIME and crowded(comparison, cpus):
            continue
        by_workload = comparison.ratios(metric, cpus, policy, base)
        if by_workload:
            by_cpus[cpus] = _range(by_workload, what)
    return Finding(policy, base, what, by_cpus)


def _range(by_workload, what):
    values = by_workload.values()
    least = min(by_workload, key=by_workload.get)
    most = max(by_workload, key=by_workload.get)
    # Counts may be 0: they have no geometric mean.
    middle = records.geometric_mean(values) if what == TIME else statistics.median(values)
    return Range(middle, by_workload[least], least, by_workload[most], most)


def in_words(finding):
    """A finding as a sentence."""
    clauses = []
    for cpus, found in finding.by_cpus.items():
        text = f"{times(found.middle)} with {cpu_word(cpus)}"
        if found.least_in != found.most_in:
            text += (f" ({times(found.least)} in '{found.least_in}' to "
                     f"{times(found.most)} in '{found.most_in}')")
        clauses.append(text)
    return f"{finding.policy} against {finding.base}: {finding.what} {', '.join(clauses)}."


def headlines(comparison):
    """A sentence for each policy, on the largest number of CPUs."""
    cpus = comparison.cpus[-1]
    clauses = {}
    for finding in ratios(comparison):
        if cpus in finding.by_cpus:
            ratio = times(finding.by_cpus[cpus].middle)
            text = (f"{ratio} the time of {finding.base}" if finding.what == TIME
                    else f"the zone lock {ratio} as often as {finding.base}")
            clauses.setdefault(finding.policy, []).append(text)
    return [f"{policy} with {cpu_word(cpus)} takes {_enumeration(said)}."
            for policy, said in clauses.items()]


def _enumeration(texts):
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)


def notes(comparison):
    """What has to be said beside the figures."""
    data = comparison.data
    found = ["Ratios within one boot are the result; a ratio of times over all workloads is their "
             "geometric mean, one of counts their median. Absolute times belong to this machine and vary from boot to boot."]
    if CONTROL in comparison.policies:
        found.append(
            f"{CONTROL} prepares and checks every page (reference count, flags, watermarks, "
            "cpusets); the other policies only manage it. The like-for-like baseline is "
            f"{BASELINE}, which runs in the same frame as the others. The locks and blocks of "
            f"{CONTROL} are the kernel's own and not counted.")
    if any("soft-ipi" in name for name in data["kernel"]["patches"]):
        found.append(
            "The kernel is User Mode Linux with a patch that masks inter-processor interrupts "
            "softly (scripts/kernel/uml-soft-ipi.patch; nothing of mm/): switching interrupts off "
            "costs a few ns as on hardware, instead of 500. With uml-yield.patch a CPU that spins "
            "lets others run now and then.")
    elif data["kernel"]["name"].startswith("uml"):
        found.append(
            "The kernel is User Mode Linux without a patch: with more than one CPU each section "
            "with interrupts off costs about 500 ns, where hardware takes a few. Compare times "
            "only where the column irq-off/op says about the same.")
    found += _irq_off(comparison)
    found += filter(None, (what_counts(comparison, cpus) for cpus in comparison.cpus))
    found += _busy_host(comparison)
    found += _failures(comparison)
    if data["quick"]:
        found.append("Measured with --quick: far too short to compare times.")
    if (data["commit"] or {}).get("dirty"):
        found.append("The checkout had changes that are not in the commit.")
    return found


def _irq_off(comparison):
    """Which policies switch interrupts off for their operations."""
    paying = {}
    for policy in comparison.policies:
        figures = [comparison.figure(records.IRQ_OFF, cpus, workload, policy)
                   for cpus in comparison.cpus for workload in comparison.workloads]
        most = max((figure.median for figure in figures if figure), default=None)
        if most is not None and not POLICIES[policy].control:
            paying[policy] = most
    often = [f"{policy} up to {most:.2g}" for policy, most in paying.items()
             if most >= IRQ_OFF_PAID]
    if often:
        return ["Sections with interrupts off per operation, in the workload that has most: "
                + ", ".join(often) + "."]
    return ["No policy of ours switches interrupts off more than once in ten operations in any "
            "workload."] if paying else []


def _busy_host(comparison):
    """Boots during which the host had much else to do."""
    busy = [f"{boot['busy_elsewhere']:.0%} of its CPU time with {cpu_word(cpus)}"
            for cpus, boot in sorted(comparison.boots.items())
            if boot["busy_elsewhere"] >= BUSY_NOTED]
    return [f"The host was busy with other things ({', '.join(busy)}): where a CPU "
            "had to wait for its turn, and others for the lock that it held, times are too long. "
            "Measure again when it is idle."] if busy else []


def _failures(comparison):
    """Allocations that failed where the workload does not aim at that."""
    found = []
    for cpus in comparison.cpus:
        for workload in comparison.workloads:
            if workload.startswith("hog"):
                continue
            for policy in comparison.policies:
                figure = comparison.figure(records.FAILED, cpus, workload, policy)
                if figure and figure.median > 0:
                    found.append(f"{policy} in {workload} ({cpu_word(cpus)}): "
                                 f"{figure.median:.2g} per operation")
    return ["Allocations that failed: " + "; ".join(found) + "."] if found else []


def cpu_word(cpus):
    """A number of CPUs in words."""
    return "1 CPU" if cpus == 1 else f"{cpus} CPUs"


def times(ratio):
    """A ratio as it is said."""
    return f"×{ratio:.2f}" if 0.095 <= ratio < 9.95 else f"×{ratio:.2g}"
