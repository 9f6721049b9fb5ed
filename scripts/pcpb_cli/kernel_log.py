# SPDX-License-Identifier: GPL-2.0
"""What a kernel's log says of bugs: those that nobody made, and those that were planted."""

import re

MODULE_LOADED = "pcp_buddy: loading out-of-tree module"

# What a kernel writes when something is wrong.
SPLAT = re.compile(r"WARNING:|BUG:|KASAN|KFENCE:|UBSAN:|possible circular|INFO: |Oops|(?<!=)panic(?!=)"
                   r"|Call Trace|bad unlock balance|rust_kernel: panicked|DEBUG_LOCKS_WARN"
                   r"|kmemleak")

# What it says of the planted bugs, and how often, between these two lines.
PLANTED_FROM, PLANTED_TO = "planted bugs from here", "planted bugs to here"
PLANTED_FOUND = {"BUG: KASAN: slab-out-of-bounds": 1, "BUG: sleeping function": 1,
                 "possible circular locking dependency": 1,
                 # A free page of each kind of zone.
                 "BUG: KASAN: use-after-free": 2, PLANTED_TO: 1}


def complaint(text):
    """The first line of a log that tells of a bug, or None."""
    return next((line.strip() for line in text.splitlines() if SPLAT.search(line)), None)


def problem_of_planted(text, boot=None):
    """What is wrong with the log of a boot that ended with planted bugs, in words, or None.

    `boot` is the log of the boot, where that is not in `text`.
    """
    before, _, after = text.partition(PLANTED_FROM)
    _, loaded, own = (before if boot is None else boot).partition(MODULE_LOADED)
    if not loaded:
        return f"{MODULE_LOADED!r} is not there"
    found = complaint(own) or boot and complaint(before)
    if found:
        return f"the kernel complained: {found}"
    missing = [what for what, times in PLANTED_FOUND.items() if after.count(what) < times]
    return f"a planted bug went unnoticed: {missing}" if missing else None
