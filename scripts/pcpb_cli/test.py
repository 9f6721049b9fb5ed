# SPDX-License-Identifier: GPL-2.0
"""`pcpb test`: every check and test there is, one after the other.

Each test prints its results as they come, keeps its full output below
build/test-logs/, and adds to the count in the last line. A test that runs in
a guest also fails when the guest's kernel complained about anything.

A selftest is an executable scripts/selftests/NAME.sh that writes KTAP. A
comment in its first lines says which guest it wants, or that it runs on the
host and boots guests itself:

    # pcpb: cpus=4 mem=6G timeout=300 kernel=x86
    # pcpb: host
"""

import fnmatch
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

from pcpb_cli import fuzz, kernel, kernel_log, module, setup, soak, steps, toolchain
from pcpb_cli.steps import BUILD, PROJECT, SCRIPTS, Failed

LOGS = BUILD / "test-logs"
SELFTESTS = SCRIPTS / "selftests"
HOST_PACKAGE = PROJECT / "rust" / "host"
RUST_FOLDERS = ("rust", "samples")
RUST_EDITION = "2021"

GUEST_DEFAULTS = {"cpus": "2", "mem": "4G", "timeout": "300", "kernel": kernel.DEFAULT}
OTHER_WISHES = {"host", "numa"}

# Selftests that run on debug kernels as well: those that neither measure nor count what
# debugging changes. Only x86 has locks that an interrupt may not take.
DEBUG_WISHES = {"mem": "6G", "timeout": "900"}
ON_DEBUG_KERNELS = {
    "uml-debug": ("batch", "contexts", "cross_cpu", "drain", "exhaustion", "frag", "policies",
                  "zones"),
    "x86-debug": ("contexts",),
}

# Where a short soak is part of the tests, always the same.
SOAKED_KERNELS = ("uml", "uml-debug", "x86-debug")
SOAK_MINUTES = 1
SOAK_SEED = 1
SOAK_CPUS = 4

HEADER_LINES = 20
KUNIT_ARGS = ("--append", "kunit.enable=1", "--append", "kunit.autorun=1")

KTAP_RESULT = re.compile(r"(not )?ok\b")


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
    """One entry of the run: a name and what to call."""

    name: str
    run: callable
    args: tuple = ()


def command(pattern):
    """Runs the tests; the last line counts them, the exit status is 1 if any failed."""
    total = Tally()
    try:
        setup.ensure(_kernel())
        for test in _selected(pattern):
            total.add(_guarded(test))
    except Failed as problem:
        print(problem)
        total.failed += 1
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return 1 if total.failed or not total.passed else 0


def _kernel():
    return kernel.KERNELS[kernel.DEFAULT]


def _selected(pattern):
    tests = [test for test in _all_tests() if pattern is None or pattern in test.name
             or fnmatch.fnmatch(test.name, pattern)]
    if not tests:
        names = ", ".join(test.name for test in _all_tests())
        raise Failed(f"no test matches {pattern!r}; there are: {names}")
    return tests


def _all_tests():
    """Cheap ones first; building the module is one of them."""
    tests = [
        Test("rustfmt", _rustfmt),
        Test("build", _build_module),
        Test("clippy-module", _clippy_module),
        Test("clippy-host", _clippy_host),
        Test("host", _cargo_test, ("host", [], _host_env)),
        Test("loom", _cargo_test, ("loom", ["--release", "--lib", "models"], _loom_env)),
        *(Test(f"fuzz-{name}", _fuzz, (name,)) for name in fuzz.TARGETS),
        Test("kunit", _kunit),
    ]
    tests += [Test(f"selftest-{path.stem}", _selftest, (path,))
              for path in sorted(SELFTESTS.glob("*.sh")) if os.access(path, os.X_OK)]
    tests += [Test(f"{debug}-{name}", _debug_selftest, (debug, SELFTESTS / f"{name}.sh"))
              for debug, names in ON_DEBUG_KERNELS.items() for name in names]
    return tests + [Test(f"soak-{name}", _soak, (name,)) for name in SOAKED_KERNELS]


def _guarded(test):
    """Runs one test; one that cannot even be run has failed, the others go on."""
    print(f"== {test.name}", flush=True)
    try:
        return test.run(*test.args)
    except Failed as problem:
        print(problem)
        return _verdict(test.name, False)


def _verdict(name, good, why=""):
    print(f"{'ok' if good else 'FAILED'}: {name}{why and ': ' + why}", flush=True)
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
            print(f"  skip: {match[1]}: {match[2] or 'no reason given'}", flush=True)
        elif line.startswith("test ") and " ... " in line:
            print("  " + line, flush=True)
        if match := re.match(r"test result: .* (\d+) passed; (\d+) failed;", line):
            total.add(Tally(int(match[1]), int(match[2])))

    log = LOGS / f"{name}.log"
    status = _stream(["cargo", "test", "--locked", *words], log, None, show,
                     cwd=HOST_PACKAGE, env=env())
    if status != 0 and not total.failed or not total.passed:
        total.failed += 1
        print(steps.log_tail(log, steps.LOG_TAIL_LINES))
        _verdict(name, False, f"cargo test: status {status}, see {log}")
    return total


def _fuzz(name):
    fuzz.build()
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
        print("  skip: kunit: the module has no KUnit suites")
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
    if "host" in wishes:
        argv = words
    else:
        wanted = kernel.KERNELS[wishes.get("kernel", kernel.DEFAULT)]
        setup.ensure(wanted)
        module.ensure(wanted)
        argv = [*_vm(wishes), "--", *words]
    status = _stream(argv, log, console, _show_ktap)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if reason := _skipped_whole(lines):
        print(f"  skip: {name}: {reason}", flush=True)
        return _splats(name, console)
    result = _ktap_counts(name, lines)
    if status != 0 and not result.failed:
        result.add(_verdict(name, False, f"exit status {status}, see {console}"))
    result.add(_splats(name, console))
    return result


def _debug_selftest(debug, path):
    """The same on a debug kernel, which proves afterwards that it would have found bugs."""
    wanted = kernel.KERNELS[debug]
    setup.ensure(wanted)
    planted = module.ensure_planted(wanted)
    name = f"{debug}-{path.stem}"
    log, console = LOGS / f"{name}.ktap", LOGS / f"{name}.console"
    wishes = _wishes(path) | DEBUG_WISHES | {"kernel": debug}
    words = shlex.join(_selftest_words(path))
    argv = [*_vm(wishes), "--append", "kasan_multi_shot", "--",
            # The console drops lines when many come at once; the log does not.
            "sh", "-c", f"{words}; status=$?; {SELFTESTS / 'plant'} {planted}; exit $status"]
    status = _stream(argv, log, console, _show_ktap)
    text = log.read_text(encoding="utf-8", errors="replace")
    result = _ktap_counts(name, text.splitlines())
    if status != 0 and not result.failed:
        result.add(_verdict(name, False, f"exit status {status}, see {console}"))
    problem = kernel_log.problem_of_planted(text)
    if problem:
        result.add(_verdict(name, False, f"{problem} (see {log})"))
    return result


def _soak(kernel_name):
    name = f"soak-{kernel_name}"
    result = soak.run(kernel_name, SOAK_CPUS, SOAK_MINUTES, SOAK_SEED, -1, LOGS / f"{name}.log")
    return _verdict(name, True, result)


def _selftest_words(path):
    helpers = kernel.source() / "tools/testing/selftests/kselftest/ktap_helpers.sh"
    return ["env", f"KTAP_HELPERS={helpers}", f"PCPB={SCRIPTS / 'pcpb'}", str(path)]


def _vm(wishes):
    options = [f"--{name}={value}" for name, value in (GUEST_DEFAULTS | wishes).items()]
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
    return wishes


def _show_ktap(line):
    if KTAP_RESULT.match(line) or line.startswith("Bail out!"):
        print("  " + line, flush=True)


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
        print(f"  FAILED: {name}: {text}", flush=True)
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
            print(f"  skip: {test.name}: {test.skip_reason or 'no reason given'}")
        else:
            print(f"  {'ok' if test.ok_status() else 'not ok'} {test.name}", flush=True)


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
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=err if console else subprocess.STDOUT,
                                 text=True, errors="replace", **popen_args)
        for line in child.stdout:
            print(line, end="", file=out)
            show(line.rstrip("\n"))
        return child.wait()
