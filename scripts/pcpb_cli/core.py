# SPDX-License-Identifier: GPL-2.0
"""`pcpb bench --core`: the allocator core alone, on this machine, without a kernel.

Two tables: how many instructions each operation costs, counted by callgrind,
which is the same on a busy machine; and the time that the module's workloads
take on threads. Documentation/budget.rst explains both.
"""

import json
import subprocess
import tomllib

from pcpb_cli import setup, steps, toolchain
from pcpb_cli.steps import BUILD, PROJECT, Failed

PACKAGE = PROJECT / "rust" / "host"
HARNESS = "gungraun"
RUNNER = f"{HARNESS}-runner"
# What `OPS` is in benches/instructions.rs.
OPS = 4096


def measure():
    """Runs both benchmarks and prints their tables."""
    env = _environment()
    instructions, over = _instructions(env)
    _print_instructions(instructions)
    _print_times(_times(env))
    if over:
        raise Failed(f"more instructions than the limits allow, see {_log('core-instructions')}")


def _environment():
    """Installs what the benchmarks need; returns the environment to run them in."""
    setup.ensure_packages({"valgrind": ("counting instructions", "valgrind")})
    toolchain.prepare()
    version = _harness_version()
    root = steps.cache_root() / "tools" / f"{RUNNER}-{version}"
    runner = root / "bin" / RUNNER
    env = toolchain.environment()
    if not runner.exists():
        steps.run(f"build {RUNNER} {version}",
                  [toolchain.which("cargo"), "install", "--locked", RUNNER, "--version", version,
                   "--root", root],
                  steps.log_file(RUNNER), advice="Check the network, then run the same command again.",
                  env=env)
    return env | {"GUNGRAUN_RUNNER": str(runner), "CARGO_TARGET_DIR": str(BUILD / "host"),
                  "CARGO_TERM_COLOR": "never"}


def _harness_version():
    with open(PACKAGE / "Cargo.lock", "rb") as file:
        packages = tomllib.load(file)["package"]
    return next(entry["version"] for entry in packages if entry["name"] == HARNESS)


def _log(name):
    return BUILD / "bench" / f"{name}.log"


def _bench(name, env, *words):
    """Runs one benchmark; returns its status and its standard output."""
    log = _log(f"core-{name}")
    log.parent.mkdir(parents=True, exist_ok=True)
    steps.say(f"measuring {name} ...")
    with open(log, "w", encoding="utf-8") as err:
        ended = subprocess.run(["cargo", "bench", "--locked", "--bench", name, "--", *words],
                               cwd=PACKAGE, env=env, stdout=subprocess.PIPE, stderr=err, text=True,
                               check=False)
    if not ended.stdout:
        raise Failed(f"cargo bench --bench {name}: status {ended.returncode}. The end of its log:\n\n"
                     f"{steps.log_tail(log, steps.LOG_TAIL_LINES)}\n\nThe whole log: {log}")
    return ended.returncode, ended.stdout


def _instructions(env):
    """{benchmark: {policy: instructions an operation}}, and whether a limit was exceeded."""
    status, text = _bench("instructions", env, "--output-format=json")
    table = {}
    for line in text.splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            table.setdefault(entry["function_name"], {})[entry["id"]] = _total(entry) / OPS
    return table, status != 0


def _total(entry):
    """Instructions of one benchmark, of the newest run."""
    summary = entry["profiles"][0]["summaries"]["total"]["summary"]["Callgrind"]
    metrics = summary["Ir"]["metrics"]
    newest = metrics["Left"] if "Left" in metrics else metrics["Both"][0]
    return newest["Int"]


def _print_instructions(table):
    policies = list(next(iter(table.values())))
    print("Instructions an operation")
    print(f"{'':20}" + "".join(f"{policy:>10}" for policy in policies))
    for name, row in table.items():
        print(f"{name:20}" + "".join(f"{row[policy]:10.1f}" for policy in policies))


def _times(env):
    """The rows of the benchmark of workloads, its header first."""
    _, text = _bench("workloads", env)
    return [line.split("\t") for line in text.splitlines() if "\t" in line]


def _print_times(rows):
    """A row for each workload and list of CPUs, a column for each policy."""
    table = {}
    for workload, cpus, policy, alloc, free, operation in rows[1:]:
        shown = operation if alloc == "n/a" else f"{alloc}+{free}"
        table.setdefault((workload, cpus), {})[policy] = shown
    policies = list(next(iter(table.values())))
    print("\nNanoseconds a page of allocating + freeing, or an operation; all CPUs together")
    print(f"{'':46}{'CPUs':>5}" + "".join(f"{policy:>13}" for policy in policies))
    for (workload, cpus), row in table.items():
        print(f"{workload:46}{cpus:>5}" + "".join(f"{row[policy]:>13}" for policy in policies))
