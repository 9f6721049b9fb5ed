# SPDX-License-Identifier: GPL-2.0
"""`pcpb plant`: plants bugs in a copy of the source and looks whether the tests find them.

scripts/planted_bugs.toml says which bugs, and which test has to find each.
"""

import re
import shutil
import subprocess
import tomllib

from pcpb_cli import steps
from pcpb_cli.steps import BUILD, PROJECT, SCRIPTS, Failed

BUGS = SCRIPTS / "planted_bugs.toml"
COPY = BUILD / "planted"
LOGS = BUILD / "planted-logs"
DOES_NOT_BUILD = re.compile(r"error: could not compile|error\[E\d+\]|build the module .*: FAILED")


def command(names):
    """Plants the bugs of these names, or all; Failed unless all are found."""
    bugs = tomllib.loads(BUGS.read_text(encoding="utf-8"))
    unknown = [name for name in names if name not in bugs]
    if unknown:
        raise Failed(f"no such bug: {unknown[0]}; there are: {', '.join(bugs)}")
    missed = []
    for name in names or bugs:
        _copy()
        problem = _plant(name, bugs[name])
        print(f"{'FAILED' if problem else 'ok'}: {name}: "
              f"{problem or 'found by ' + bugs[name]['test']}", flush=True)
        if problem:
            missed.append(name)
    if missed:
        raise Failed(f"{len(missed)} went unnoticed: {', '.join(missed)}")


def _copy():
    """Makes the copy like the source. What has not changed keeps its time, so little is built."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    for file in filter(None, listed.split("\0")):
        source, copy = PROJECT / file, COPY / file
        if not source.exists() or copy.exists() and copy.read_bytes() == source.read_bytes():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        shutil.copymode(source, copy)


def _plant(name, bug):
    """Why the bug was not found, or None."""
    file = COPY / bug["file"]
    text = file.read_text(encoding="utf-8")
    if text.count(bug["find"]) != 1:
        return f"{bug['file']} has {text.count(bug['find'])} places that it could be in, not one"
    file.write_text(text.replace(bug["find"], bug["put"]), encoding="utf-8")
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    steps.say(f"{name}: {bug['test']} ...")
    with open(log, "w", encoding="utf-8") as out:
        subprocess.run([COPY / "scripts" / "pcpb", "test", "--only", bug["test"]],
                       stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False)
    said = log.read_text(encoding="utf-8", errors="replace")
    if DOES_NOT_BUILD.search(said):
        return f"it does not build, see {log}"
    if not re.search(r", [1-9]\d* failed$", said):
        return f"{bug['test']} passes, see {log}"
    if not re.search(bug["sign"], said):
        return f"{bug['test']} fails, but says nothing like '{bug['sign']}', see {log}"
    return None
