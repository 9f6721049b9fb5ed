# SPDX-License-Identifier: GPL-2.0
"""`pcpb test`: every check and test there is, side by side where that harms none of them.

What each test says is shown when it ends; its full output is below build/test-logs/.
The last line counts all results. A test that runs in a guest also fails when the
guest's kernel complained about anything.

A selftest is an executable scripts/selftests/NAME.sh that writes KTAP. A comment in
its first lines says which guest it wants, or that it runs on the host and boots
guests itself; and whether nothing else may run beside it:

    # pcpb: cpus=4 mem=6G timeout=300 kernel=uml-debug
    # pcpb: host alone

Selftests on the same debug kernel share a boot, because that takes long there and
because its proof does, the planted bugs at its end.
"""

import fnmatch
import functools
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass

from pcpb_cli import fuzz, jobs, kernel, kernel_log, module, setup, soak, steps, toolchain, vm
from pcpb_cli.steps import BUILD, PROJECT, SCRIPTS, Failed, tell

LOGS = BUILD / "test-logs"
SELFTESTS = SCRIPTS / "selftests"
HOST_PACKAGE = PROJECT / "rust" / "host"
RUST_FOLDERS = ("rust", "samples")
RUST_EDITION = "2021"

GUEST_DEFAULTS = {"cpus": "2", "mem": "4G", "timeout": "300", "kernel": kernel.DEFAULT}
OTHER_WISHES = {"host", "numa", "alone"}

# Selftests that run on debug kernels as well: those that neither measure nor count what
# debugging changes. Only x86 has locks that an interrupt may not take.
DEBUG_WISHES = {"mem": "6G", "timeout": "900"}
ON_DEBUG_KERNELS = {
    "uml-debug": ("batch", "contexts", "cross_cpu", "drain", "exhaustion", "frag", "policies",
                  "zones"),
    "x86-debug": ("contexts",),
}
PLANTING_S = 300

# Where a short soak is part of the tests, always the same.
SOAKED_KERNELS = ("x86-debug", "uml-debug", "uml")
SOAK_MINUTES = 1
SOAK_SEED = 1
SOAK_CPUS = 4
SOAK_MEM = "4G"

# --quick: each part of the module on the kernel that boots at once, and what reads the source.
QUICK = ("rustfmt", "build", "clippy-module", "clippy-host", "host", "kunit",
         *(f"selftest-{name}" for name in ("bad_input", "batch", "contexts", "cross_cpu", "drain",
                                           "exhaustion", "orders", "policies", "zones")))

SLOWEST_SHOWN = 10
HEADER_LINES = 20
KUNIT_ARGS = ("--append", "kunit.enable=1", "--append", "kunit.autorun=1")

KTAP_RESULT = re.compile(r"(not )?ok\b")
SECTION = re.compile(r"# pcpb: (begin|end) (\S+) ?(\d*)$")


@dataclass
class Tally:
    """The results of one test, or of all."""

    passed: int = 0
    failed: int = 0

    def add(self, other):
        """Adds the results of another."""
        self.passed += other.passed
        self.failed += other.failed


@dataclass
class Test:
    """One entry of the run: a name, what to call, and what it needs."""

    name: str
    run: callable = None
    args: tuple = ()
    needs: tuple = ()  # names of steps, or of tests
    lane: str = ""  # one at a time of those with the same word
    alone: bool = False
    mem: str = "0"
    # Instead of `run`: a selftest on a debug kernel, in a boot that it shares.
    debug: str = ""
    path: object = None


class Results:
    """What has come out so far; shows it as it comes."""

    def __init__(self):
        self.total = Tally()
        self.seconds = {}
        self.display = jobs.Display()
        self.lock = threading.Lock()

    def add(self, name, tally, lines, seconds):
        """A test has ended."""
        if steps.ending():
            return
        with self.lock:
            self.total.add(tally)
            self.seconds[name] = seconds
        self.display.tell("\n".join([f"== {name} ({seconds:.1f} s)", *lines]))

    def guarded(self, name, run, *args):
        """Runs one test; one that cannot even be run has failed, the others go on."""
        lines, start = [], time.monotonic()
        with steps.collected(lines):
            tally = _caught(name, run, *args)
        self.add(name, tally, lines, time.monotonic() - start)
        return not tally.failed

    def unmet(self, names, need):
        """Tests that cannot be run."""
        for name in names:
            self.guarded(name, _verdict, name, False, f"it needs '{need}', which failed")

    def step(self, name, run, *args):
        """Runs something that is no test, but fails like one."""
        lines, start = [], time.monotonic()
        with steps.collected(lines):
            tally = _caught(name, _done, run, *args)
        if tally.failed:
            self.add(name, tally, lines, time.monotonic() - start)
        elif lines:
            self.display.tell("\n".join(lines))
        return not tally.failed

    def finish(self):
        """The last lines."""
        slowest = sorted(self.seconds.items(), key=lambda item: -item[1])[:SLOWEST_SHOWN]
        if slowest:
            tell("slowest: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in slowest))
        tell(f"{self.total.passed} passed, {self.total.failed} failed")


def command(pattern, quick):
    """Runs the tests; the last line counts them, the exit status is 1 if any failed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    results = Results()
    try:
        tests = _selected(pattern, quick)
        jobs.Schedule(_jobs(tests, results), results.display).run()
    except Failed as problem:
        tell(str(problem))
        results.total.failed += 1
    results.finish()
    return 1 if results.total.failed or not results.total.passed else 0


def _interrupt(_number, _frame):
    raise KeyboardInterrupt


def _caught(name, run, *args):
    try:
        return run(*args)
    except Failed as problem:
        tell(str(problem))
    except Exception:
        tell(traceback.format_exc())
    return _verdict(name, False)


def _done(run, *args):
    run(*args)
    return Tally()


def _kernel():
    return kernel.KERNELS[kernel.DEFAULT]


def _selected(pattern, quick):
    everything = _all_tests()
    tests = [test for test in everything if pattern is None or pattern in test.name
             or fnmatch.fnmatch(test.name, pattern)]
    if quick:
        tests = [test for test in tests if test.name in QUICK]
    if not tests:
        names = ", ".join(test.name for test in everything)
        raise Failed(f"no test matches {pattern!r}; there are: {names}")
    return tests


def _all_tests():
    """Those that take long first, so that nobody has to wait for the last one."""
    tests = [
        Test("rustfmt", _rustfmt, needs=("tools",)),
        Test("build", _build_module, needs=("kernel uml",)),
        *_debug_selftests(),
        *_soaks(),
        Test("host", _cargo_test, ("host", [], _host_env), needs=("tools",), lane="cargo"),
        Test("loom", _cargo_test, ("loom", ["--release", "--lib", "models"], _loom_env),
             needs=("tools",)),
        Test("clippy-host", _clippy_host, needs=("tools",), lane="cargo"),
        *(Test(f"fuzz-{name}", _fuzz, (name,), needs=("fuzz targets",)) for name in fuzz.TARGETS),
        Test("clippy-module", _clippy_module, needs=("kernel uml",)),
        Test("kunit", _kunit, needs=("build",), mem=GUEST_DEFAULTS["mem"]),
    ]
    for path in sorted(SELFTESTS.glob("*.sh")):
        if os.access(path, os.X_OK):
            tests.append(_selftest_entry(path))
    return tests


def _selftest_entry(path):
    name, wishes = f"selftest-{path.stem}", _wishes(path)
    return Test(name, _selftest, (path,), needs=(_modules(wishes["kernel"]),),
                alone="alone" in wishes or _takes_all_cores(wishes["kernel"]),
                mem=GUEST_DEFAULTS["mem"] if "host" in wishes else wishes["mem"])


def _debug_selftests():
    return [Test(f"{debug}-{name}", debug=debug, path=SELFTESTS / f"{name}.sh",
                 needs=(_modules(debug),), alone=_takes_all_cores(debug), mem=DEBUG_WISHES["mem"])
            for debug, names in ON_DEBUG_KERNELS.items() for name in names]


def _soaks():
    return [Test(f"soak-{name}", _soak, (name,), needs=(_modules(name),),
                 alone=_takes_all_cores(name), mem=SOAK_MEM)
            for name in SOAKED_KERNELS]


def _modules(kernel_name):
    """The step that builds what is loaded there."""
    return "build" if kernel_name == kernel.DEFAULT else f"modules {kernel_name}"


def _takes_all_cores(kernel_name):
    """Emulated CPUs wait for each other: none of them gets far beside other work."""
    return bool(kernel.KERNELS[kernel_name].emulator)


# What is done when


def _steps(tests):
    """What tests need that is no test: name -> (needs, lane, what to call and its arguments)."""
    wanted = {name for test in tests for name in kernel.KERNELS if _modules(name) in test.needs}
    found = {"tools": ((), "", (_tools, [kernel.KERNELS[name] for name in wanted])),
             "build": (("kernel uml",), "", (_build_module,)),
             "fuzz targets": (("tools",), "", (fuzz.build,))}
    for name in (kernel.DEFAULT, *kernel.DEBUG, *(wanted - {kernel.DEFAULT, *kernel.DEBUG})):
        found[f"kernel {name}"] = (("tools",), "kernel", (setup.ensure, kernel.KERNELS[name]))
        found[f"modules {name}"] = ((f"kernel {name}",), "", (_build_modules, kernel.KERNELS[name]))
    return found


def _tools(kernels):
    setup.ensure_tools(kernels or [_kernel()])


def _build_modules(wanted):
    module.ensure(wanted)
    if wanted.name in kernel.DEBUG:
        module.ensure_planted(wanted)


def _jobs(tests, results):
    """The tests as jobs, after the steps that they need."""
    chosen = {test.name for test in tests}
    listed = _steps(tests)
    needed, left = [], [need for test in tests for need in test.needs]
    while left:
        name = left.pop(0)
        if name not in chosen and name not in needed:
            needed.append(name)
            left += listed[name][0]
    # What everybody waits for comes first: the kernels, in the order of this table.
    found = []
    for name, (needs, lane, call) in listed.items():
        if name in needed:
            found.append(jobs.Job(name, functools.partial(results.step, name, *call),
                                  functools.partial(results.unmet, [name]), needs, lane))
    debug = {}
    for test in tests:
        if test.debug:
            debug.setdefault(test.debug, []).append(test)
    booted = set()
    for test in tests:
        if not test.debug:
            found.append(jobs.Job(test.name, functools.partial(results.guarded, test.name, test.run,
                                                               *test.args),
                                  functools.partial(results.unmet, [test.name]), test.needs,
                                  test.lane, test.alone, vm.size(test.mem)))
        elif test.debug not in booted:
            booted.add(test.debug)
            mine = debug[test.debug]
            found.append(jobs.Job(f"{test.debug} selftests",
                                  functools.partial(_shared_boots, test.debug, mine, results),
                                  functools.partial(results.unmet, [one.name for one in mine]),
                                  test.needs, alone=test.alone,
                                  mem_bytes=max(vm.size(one.mem) for one in mine)))
    return found


def _verdict(name, good, why=""):
    tell(f"{'ok' if good else 'FAILED'}: {name}{why and ': ' + why}")
    return Tally(passed=int(good), failed=int(not good))


# Checks of the source


def _rustfmt():
    files = [path for top in RUST_FOLDERS for path in sorted((PROJECT / top).rglob("*.rs"))
             if "target" not in path.parts]
    return _check("rustfmt", ["rustfmt", "--check", "--color=never", "--edition", RUST_EDITION, *files],
                  "run: rustfmt --edition 2021 on the files above")


def _build_module():
    module.ensure(_kernel())
    return _verdict("build", True)


def _clippy_module():
    module.lint(_kernel())
    return _verdict("clippy-module", True)


def _clippy_host():
    return _check("clippy-host", ["cargo", "clippy", "--locked", "--all-targets",
                                  "--", "-D", "warnings"], "")


def _check(name, argv, advice):
    """One command whose status decides; its output is shown if it fails."""
    steps.run(name, argv, LOGS / f"{name}.log", advice=advice, tail=200,
              cwd=HOST_PACKAGE, env=_host_env())
    return _verdict(name, True)


def _host_env():
    return toolchain.environment() | {"CARGO_TARGET_DIR": str(BUILD / "host"),
                                      "CARGO_TERM_COLOR": "never"}


# Tests on the host


def _loom_env():
    """For models of concurrent code, all of whose executions loom goes through, without a bound."""
    env = {key: value for key, value in _host_env().items() if not key.startswith("LOOM_")}
    return env | {"RUSTFLAGS": "--cfg loom", "CARGO_TARGET_DIR": str(BUILD / "loom")}


def _cargo_test(name, words, env):
    """cargo test; its 'test result' lines hold the counts."""
    total = Tally()

    def show(line):
        if match := re.match(r"test (.*) \.\.\. ignored(?:, )?(.*)", line):
            tell(f"  skip: {match[1]}: {match[2] or 'no reason given'}")
        elif line.startswith("test ") and " ... " in line:
            tell("  " + line)
        if match := re.match(r"test result: .* (\d+) passed; (\d+) failed;", line):
            total.add(Tally(int(match[1]), int(match[2])))

    log = LOGS / f"{name}.log"
    status = _stream(["cargo", "test", "--locked", *words], log, None, show,
                     cwd=HOST_PACKAGE, env=env())
    if status != 0 and not total.failed or not total.passed:
        total.failed += 1
        tell(steps.log_tail(log, steps.LOG_TAIL_LINES))
        _verdict(name, False, f"cargo test: status {status}, see {log}")
    return total


def _fuzz(name):
    nr = fuzz.bounded(name, LOGS / f"fuzz-{name}.log")
    return _verdict(f"fuzz-{name}", True, f"{nr} inputs")


# Tests in a guest


def _kunit():
    """The module's own suites, which run when it is loaded; results are in dmesg."""
    log = LOGS / "kunit.log"
    console = LOGS / "kunit.console"
    status = _stream([*_vm({}), *KUNIT_ARGS, "--", "dmesg"], log, console, lambda _line: None)
    if status != 0:
        return _verdict("kunit", False, f"the guest ended with status {status}, see {console}")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    # The kernel's own suites ran before the module came.
    start = next((at for at, line in enumerate(lines) if kernel_log.MODULE_LOADED in line), None)
    if start is None:
        return _verdict("kunit", False, f"{kernel_log.MODULE_LOADED!r} is not in {log}")
    if not any("# Subtest:" in line for line in lines[start:]):
        tell("  skip: kunit: the module has no KUnit suites")
        return _splats("kunit", log, console)
    result = _ktap_counts("kunit", lines[start:], show_cases=True)
    result.add(_splats("kunit", log, console))
    return result


def _selftest(path):
    """One selftest script, in a guest of its own or on the host."""
    name = f"selftest-{path.stem}"
    log, console = LOGS / f"{name}.ktap", LOGS / f"{name}.console"
    wishes = _wishes(path)
    words = _selftest_words(path)
    argv = words if "host" in wishes else [*_vm(wishes), "--", *words]
    status = _stream(argv, log, console, _show_ktap)
    result = _ktap_result(name, log.read_text(encoding="utf-8", errors="replace"), status, console)
    result.add(_splats(name, console))
    return result


def _ktap_result(name, text, status, console):
    """The results of a selftest by what it wrote and how it ended."""
    lines = text.splitlines()
    if reason := _skipped_whole(lines):
        tell(f"  skip: {name}: {reason}")
        return Tally()
    result = _ktap_counts(name, lines)
    if status != 0 and not result.failed:
        result.add(_verdict(name, False, f"exit status {status}, see {console}"))
    return result


# Selftests that share a boot of a debug kernel


def _shared_boots(debug, tests, results):
    """Selftests on a debug kernel, one after the other; returns whether all went well.

    One boot does for all, unless one of them ends it: the others go on in another one.
    Each boot that comes to its end proves that it would have found bugs.
    """
    good, number, left = True, 0, tests
    while left and not steps.ending():
        number += 1
        boot = SharedBoot(debug, left, results, number)
        good = boot.run() and good
        left = boot.left
    return good


class SharedBoot:
    """A boot of a debug kernel with some selftests, and planted bugs at its end."""

    def __init__(self, debug, tests, results, number):
        self.debug, self.results = debug, results
        self.left = list(tests)
        self.good = True
        self.proof = f"{debug}-planted" + (f"-{number}" if number > 1 else "")
        self.log = LOGS / f"{self.proof}.log"
        self.console = LOGS / f"{self.proof}.console"
        self.boot_log = ""
        self.lines = []  # since the last line that begins or ends something
        self.current = None
        self.start = time.monotonic()

    def run(self):
        """Boots, and goes through the tests as far as it gets; returns whether all was well."""
        LOGS.mkdir(parents=True, exist_ok=True)
        with open(self.log, "w", encoding="utf-8") as out, \
                open(self.console, "w", encoding="utf-8") as err, \
                steps.child(self._argv(), stdout=subprocess.PIPE, stderr=err, text=True,
                            errors="replace") as guest:
            timer = self._timer(guest, int(GUEST_DEFAULTS["timeout"]))
            for line in guest.stdout:
                out.write(line)
                match = SECTION.match(line)
                if not match:
                    self.lines.append(line)
                    continue
                timer.cancel()
                self._section(*match.groups())
                timer = self._timer(guest, self._limit_s())
            status = guest.wait()
            timer.cancel()
        if self.left:
            self._broken(status)
        else:
            self._end(self.proof, self._proven)
        return self.good

    def _argv(self):
        wanted = kernel.KERNELS[self.debug]
        wishes = [_debug_wishes(test) for test in self.left]
        shape = {"kernel": self.debug, "cpus": str(max(int(wish["cpus"]) for wish in wishes)),
                 "mem": max((wish["mem"] for wish in wishes), key=vm.size),
                 "timeout": str(sum(int(wish["timeout"]) for wish in wishes) + PLANTING_S)}
        shape |= {"numa": wish["numa"] for wish in wishes if "numa" in wish}
        scripts = [test.path for test in self.left]
        words = shlex.join(_selftest_words(SELFTESTS / "in_turn", *scripts))
        # The console drops lines when many come at once; the log does not.
        planting = f"FROM='pcpb: from here' {SELFTESTS / 'plant'} {module.planted(wanted)}"
        return [*_vm(shape), "--append", "kasan_multi_shot", "--", "sh", "-c",
                f"{words}; echo 'pcpb: from here' >/dev/kmsg; {planting}"]

    def _limit_s(self):
        return int(_debug_wishes(self.current)["timeout"]) if self.current else PLANTING_S

    @staticmethod
    def _timer(guest, seconds):
        timer = threading.Timer(seconds, guest.terminate)
        timer.daemon = True
        timer.start()
        return timer

    def _section(self, what, name, status):
        """One of the lines between which a test has its output."""
        if what == "end" and name == "boot":
            self.boot_log = "".join(self.lines)
        elif what == "end":
            test, self.current = self.left.pop(0), None
            self._end(test.name, self._judge, test, int(status))
        elif name != "boot":
            self.current, self.start = self.left[0], time.monotonic()
        self.lines = []

    def _end(self, name, judge, *args):
        """Shows the results of one test."""
        lines = []
        with steps.collected(lines):
            tally = _caught(name, judge, *args)
        self.results.add(name, tally, lines, time.monotonic() - self.start)
        self.good = self.good and not tally.failed
        self.start = time.monotonic()

    def _judge(self, test, status):
        text = "".join(self.lines)
        (LOGS / f"{test.name}.ktap").write_text(text, encoding="utf-8")
        for line in text.splitlines():
            _show_ktap(line)
        result = _ktap_result(test.name, text, status, self.log)
        if complaint := kernel_log.complaint(text):
            result.add(_verdict(test.name, False, f"the kernel complained: {complaint} "
                                                  f"(see {self.log})"))
        return result

    def _broken(self, status):
        """The guest has ended in the middle of a test, or before the first one."""
        ended = [self.left.pop(0)] if self.current else self.left
        for test in ended:
            self._end(test.name, _verdict, test.name, False,
                      f"the guest ended with status {status}, see {self.log} and {self.console}")
        if not self.current:
            self.left = []

    def _proven(self):
        problem = kernel_log.problem_of_planted("".join(self.lines), self.boot_log)
        return _verdict(self.proof, not problem, problem and f"{problem} (see {self.log})" or "")


def _debug_wishes(test):
    """What a selftest asks for in a boot that it shares."""
    wishes = _wishes(test.path)
    return wishes if wishes["kernel"] == test.debug else wishes | DEBUG_WISHES


def _soak(kernel_name):
    name = f"soak-{kernel_name}"
    result = soak.run(kernel_name, SOAK_CPUS, SOAK_MINUTES, SOAK_SEED, -1, LOGS / f"{name}.log")
    return _verdict(name, True, result)


def _selftest_words(*paths):
    helpers = kernel.source() / "tools/testing/selftests/kselftest/ktap_helpers.sh"
    return ["env", f"KTAP_HELPERS={helpers}", f"PCPB={SCRIPTS / 'pcpb'}", *map(str, paths)]


def _vm(wishes):
    options = [f"--{name}={value}" for name, value in (GUEST_DEFAULTS | wishes).items()
               if name != "alone"]
    return [str(SCRIPTS / "pcpb"), "vm", *options]


def _wishes(path):
    """What the header comment of a selftest asks for."""
    with open(path, encoding="utf-8") as file:
        head = [line for line, _ in zip(file, range(HEADER_LINES))]
    words = next((line.split()[2:] for line in head if line.startswith("# pcpb:")), [])
    wishes = dict(word.partition("=")[::2] for word in words)
    unknown = set(wishes) - {*GUEST_DEFAULTS, *OTHER_WISHES}
    if unknown:
        raise Failed(f"{path}: unknown word in '# pcpb:': {', '.join(sorted(unknown))}")
    return GUEST_DEFAULTS | wishes


def _show_ktap(line):
    if KTAP_RESULT.match(line) or line.startswith("Bail out!"):
        tell("  " + line)


def _skipped_whole(lines):
    """The reason of a script that skipped everything, or None."""
    for line in lines:
        if match := re.match(r"1\.\.0\s*#\s*SKIP\s*(.*)", line):
            return match[1] or "no reason given"
    return None


def _ktap_counts(name, lines, show_cases=False):
    """Counts KTAP results with the kernel's own parser."""
    parser, errors = _kernel_parser()
    tree = parser.parse_run_tests(lines, errors)
    if show_cases:
        _show_cases(parser, tree)
    if tree.expected_count is None:
        errors.found.append("no plan")
    # The parser stops where the plan ends.
    results = sum(bool(KTAP_RESULT.match(line)) for line in lines)
    if results > len(tree.subtests):
        errors.found.append(f"{results} results, but only {len(tree.subtests)} planned")
    for text in errors.found:
        tell(f"  FAILED: {name}: {text}")
    counts = tree.counts
    result = Tally(counts.passed, counts.failed + counts.crashed)
    if errors.found and not result.failed:
        result.failed = 1
    if not result.passed and not result.failed and not counts.skipped:
        result.add(_verdict(name, False, "no results"))
    return result


def _show_cases(parser, tree):
    """A line per test case of a parsed tree."""
    for test in tree.subtests:
        if test.subtests:
            _show_cases(parser, test)
        elif test.status == parser.TestStatus.SKIPPED:
            tell(f"  skip: {test.name}: {test.skip_reason or 'no reason given'}")
        else:
            tell(f"  {'ok' if test.ok_status() else 'not ok'} {test.name}")


def _kernel_parser():
    """The kernel's KTAP parser, and a printer for it that collects its errors."""
    folder = str(kernel.source() / "tools/testing/kunit")
    if folder not in sys.path:
        sys.path.append(folder)
    import kunit_parser
    import kunit_printer

    class Errors(kunit_printer.Printer):
        """Takes the place of the parser's terminal output."""

        def __init__(self):
            super().__init__(print=False)
            self.found = []

        def print_with_timestamp(self, message):
            if "[ERROR]" in message:
                self.found.append(message.replace("[ERROR] Test: ", ""))

    return kunit_parser, Errors()


def _splats(name, *logs):
    """Fails if a guest's kernel complained in one of these logs."""
    for log in logs:
        complaint = kernel_log.complaint(log.read_text(encoding="utf-8", errors="replace"))
        if complaint:
            return _verdict(name, False, f"the kernel complained: {complaint} (see {log})")
    return Tally()


def _stream(argv, log, console, show, **popen_args):
    """Runs a command with its stdout in `log` and, line by line, in `show`.

    stderr goes to `console`, or with stdout. Returns the exit status.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as out, open(console or os.devnull, "w") as err:
        with steps.child(argv, stdout=subprocess.PIPE,
                         stderr=err if console else subprocess.STDOUT, text=True,
                         errors="replace", **popen_args) as process:
            for line in process.stdout:
                print(line, end="", file=out)
                show(line.rstrip("\n"))
            return process.wait()
