# SPDX-License-Identifier: GPL-2.0
"""What a comparison says, in words: ratios, and what a reader has to know to judge them."""

import statistics

from pcpb_cli import records
from pcpb_cli.records import BASELINE, CONTROL, POLICIES

# From this many irq-off sections per operation on, a policy is said to pay for them.
IRQ_OFF_PAID = 0.1


def ratios(comparison):
    """A sentence on the time of each policy against each base, and one on the zone lock."""
    found = []
    for policy in comparison.policies:
        if POLICIES[policy].control:
            continue
        for base in (CONTROL, BASELINE):
            if base != policy and base in comparison.policies:
                found.append(_sentence(comparison, _time, policy, base,
                                       f"{policy} against {base}: time per operation"))
        if BASELINE in comparison.policies and policy != BASELINE:
            found.append(_sentence(comparison, _zone_lock, policy, BASELINE,
                                   f"{policy} against {BASELINE}: zone lock acquisitions per operation"))
    return [text for text in found if text]


def _sentence(comparison, clause, policy, base, beginning):
    """One clause for each number of CPUs."""
    clauses = [(cpus, clause(comparison, cpus, policy, base)) for cpus in comparison.cpus]
    said = [f"with {cpu_word(cpus)} {text}" for cpus, text in clauses if text]
    return f"{beginning} {'; '.join(said)}." if said else None


def _time(comparison, cpus, policy, base):
    by_workload = comparison.ratios(records.TIME, cpus, policy, base)
    return by_workload and _range(records.geometric_mean(by_workload.values()), by_workload)


def _zone_lock(comparison, cpus, policy, base):
    """Ratios of counts may be 0, so there is no geometric mean; nor one where the base has none."""
    by_workload = comparison.ratios(records.ZONE_LOCK, cpus, policy, base)
    return by_workload and _range(statistics.median(by_workload.values()), by_workload)


def _range(middle, by_workload):
    """A ratio over all workloads, and where it is least and most."""
    least = min(by_workload, key=by_workload.get)
    most = max(by_workload, key=by_workload.get)
    text = times(middle)
    if least != most:
        text += (f" ({times(by_workload[least])} in '{least}' to "
                 f"{times(by_workload[most])} in '{most}')")
    return text


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
            "costs a few ns as on hardware, instead of 500.")
    elif data["kernel"]["name"].startswith("uml"):
        found.append(
            "The kernel is User Mode Linux without a patch: with more than one CPU each section "
            "with interrupts off costs about 500 ns, where hardware takes a few. Compare times "
            "only where the column irq-off/op says about the same.")
    found += _irq_off(comparison)
    host_cpus = data["host"]["cpus"]
    if comparison.cpus[-1] > host_cpus:
        found.append(f"The host has {host_cpus} CPUs; in guests with more, CPUs wait for their turn "
                     "on the host, and times and scaling say little.")
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
