# SPDX-License-Identifier: GPL-2.0
"""Jobs side by side: as many at a time as there are cores and memory for."""

import concurrent.futures
import os
import sys
import threading
import time
from dataclasses import dataclass

from pcpb_cli import steps

# More guests at a time than this need more memory than they save time.
SLOTS_MAX = 4
RESERVE_BYTES = 1 << 30


@dataclass
class Job:
    """Something to do, and what it takes to begin with it."""

    name: str
    run: callable  # returns whether all went well
    unmet: callable  # called instead, with the name of a job that is needed and went wrong
    needs: tuple = ()  # names of jobs that have to go well before
    lane: str = ""  # one job at a time of those with the same word
    alone: bool = False  # nothing else may run meanwhile; after all others
    mem_bytes: int = 0


class Schedule:
    """Starts jobs in their order, as far as they can start."""

    def __init__(self, jobs, show):
        self.waiting = list(jobs)
        self.total = len(self.waiting)
        self.show = show
        self.running = {}  # future -> (job, when it began)
        self.went_well = {}  # name -> bool
        self.slots = max(1, min(os.cpu_count(), SLOTS_MAX))
        self.mem_bytes = _memory_bytes()

    def run(self):
        """Goes through all jobs."""
        with concurrent.futures.ThreadPoolExecutor(self.slots) as pool:
            try:
                while self.waiting or self.running:
                    self._start(pool)
                    done, _ = concurrent.futures.wait(
                        self.running, timeout=steps.TICK_TTY_S,
                        return_when=concurrent.futures.FIRST_COMPLETED)
                    for future in done:
                        job, _ = self.running.pop(future)
                        self.went_well[job.name] = future.result()
                    self.show.tick(self)
            except BaseException:
                self.waiting.clear()
                steps.end_children()
                raise
            finally:
                self.show.clear()

    def _start(self, pool):
        for job in list(self.waiting):
            bad = next((need for need in job.needs if self.went_well.get(need) is False), None)
            if bad:
                self.waiting.remove(job)
                self.went_well[job.name] = False
                job.unmet(bad)
            elif self._may_start(job):
                self.waiting.remove(job)
                self.running[pool.submit(job.run)] = (job, time.monotonic())

    def _may_start(self, job):
        running = [other for other, _ in self.running.values()]
        if not all(need in self.went_well for need in job.needs):
            return False
        if job.alone:
            return not running and all(other.alone for other in self.waiting)
        if any(other.alone or job.lane and other.lane == job.lane for other in running):
            return False
        mem_bytes = sum(other.mem_bytes for other in running) + job.mem_bytes
        return len(running) < self.slots and (not running or mem_bytes <= self.mem_bytes)


def _memory_bytes():
    """What guests side by side may have: the memory of UML is a file in /dev/shm."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) << 10
    limits = [free - RESERVE_BYTES]
    if os.path.isdir("/dev/shm"):
        shm = os.statvfs("/dev/shm")
        limits.append(shm.f_bavail * shm.f_frsize)
    return min(limits)


class Display:
    """What is running, while it runs: a line at the bottom of a terminal, else one now and then."""

    def __init__(self):
        self.tty = sys.stderr.isatty()
        self.start = self.shown = time.monotonic()
        self.lock = threading.Lock()

    def tick(self, schedule):
        """Shows the line where it is due."""
        now = time.monotonic()
        if now - self.shown < (steps.TICK_TTY_S if self.tty else steps.TICK_PLAIN_S):
            return
        self.shown = now
        running = ", ".join(f"{job.name} ({now - start:.0f} s)"
                            for job, start in schedule.running.values())
        text = (f"{len(schedule.went_well)} of {schedule.total} done in {now - self.start:.0f} s; "
                f"running: {running or 'nothing'}")
        with self.lock:
            if self.tty:
                width = os.get_terminal_size(sys.stderr.fileno()).columns
                print(f"\r\033[K{text[:width - 1]}", end="", file=sys.stderr, flush=True)
            else:
                print(f"pcpb: {text}", file=sys.stderr, flush=True)

    def clear(self):
        """Takes the line away."""
        if self.tty:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def tell(self, text):
        """Results, in one piece, on stdout."""
        with self.lock:
            self.clear()
            print(text, flush=True)
