# SPDX-License-Identifier: GPL-2.0
"""Where things live, and how one long step is run, shown and logged."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
PROJECT = SCRIPTS.parent
BUILD = PROJECT / "build"

TICK_TTY_S = 1
TICK_PLAIN_S = 30
LOG_TAIL_LINES = 30


class Failed(Exception):
    """Something the user has to know about; the text says what to do."""


def cache_root():
    """The folder for kernels and tools, outside the project."""
    if os.environ.get("PCPB_CACHE"):
        return Path(os.environ["PCPB_CACHE"]).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pcp_buddy"


def log_file(name):
    """Where a step of the setup writes its log."""
    return cache_root() / "logs" / f"{name}.log"


# Of each thread: where its lines go while others are at work beside it.
_own = threading.local()
# What is running for us, to be ended if we are.
_children = set()
_ending = threading.Event()


@contextlib.contextmanager
def collected(lines):
    """Puts what this thread says into `lines`, for who shows it later."""
    _own.lines = lines
    try:
        yield
    finally:
        del _own.lines


def say(text):
    """One line for the user. stdout belongs to results, so: stderr."""
    if hasattr(_own, "lines"):
        _own.lines.append(f"pcpb: {text}")
    else:
        print(f"pcpb: {text}", file=sys.stderr, flush=True)


def tell(text):
    """One line, or some, of a result."""
    if hasattr(_own, "lines"):
        _own.lines.append(text)
    else:
        print(text, flush=True)


@contextlib.contextmanager
def child(argv, **popen_args):
    """A process of ours, which does not outlive us."""
    if _ending.is_set():
        raise Failed("interrupted")
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **popen_args)
    _children.add(process)
    try:
        yield process
    except BaseException:
        process.terminate()
        raise
    finally:
        process.wait()
        _children.discard(process)


def ending():
    """Whether the processes have been ended, so that their results say nothing."""
    return _ending.is_set()


def end_children():
    """Ends the processes of all threads, and lets them start no more."""
    _ending.set()
    for process in list(_children):
        process.terminate()


def run(name, argv, log, *, advice, tail=LOG_TAIL_LINES, **popen_args):
    """Runs one long command with its output in `log`, showing that it lives.

    Raises Failed with the end of the log and `advice` if it does not succeed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as out:
        print("+", " ".join(map(str, argv)), file=out, flush=True)
        with child(argv, stdout=out, stderr=subprocess.STDOUT, **popen_args) as process:
            status = _watch(name, process)
    if status != 0:
        raise Failed(f"{name}: failed with status {status}. The end of its log:\n\n"
                     f"{log_tail(log, tail)}\n\nThe whole log: {log}\n{advice}")


def log_tail(log, lines):
    """The last lines of a log file, indented."""
    text = log.read_text(encoding="utf-8", errors="replace")
    return "\n".join("    " + line for line in text.splitlines()[-lines:])


def _watch(name, process):
    """Waits for a child; ticks every second on a terminal, rarely elsewhere."""
    if hasattr(_own, "lines"):
        # Who shows the lines shows that this lives.
        return process.wait()
    on_tty = sys.stderr.isatty()
    tick = TICK_TTY_S if on_tty else TICK_PLAIN_S
    start = time.monotonic()
    if not on_tty:
        say(f"{name} ...")
    while True:
        elapsed_s = time.monotonic() - start
        if on_tty:
            print(f"\rpcpb: {name} ... {elapsed_s:.0f} s ", end="", file=sys.stderr, flush=True)
        elif elapsed_s >= tick:
            say(f"{name} ... {elapsed_s:.0f} s so far")
        try:
            status = process.wait(timeout=tick)
            break
        except subprocess.TimeoutExpired:
            continue
    elapsed_s = time.monotonic() - start
    outcome = "done" if status == 0 else "FAILED"
    if on_tty:
        print("\r", end="", file=sys.stderr)
    say(f"{name}: {outcome} in {elapsed_s:.1f} s")
    return status


@contextlib.contextmanager
def locked(path, what):
    """Holds an exclusive lock file; says so if another run has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another pcpb that is at work on {what}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
