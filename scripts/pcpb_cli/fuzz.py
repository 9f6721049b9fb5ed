# SPDX-License-Identifier: GPL-2.0
"""`pcpb fuzz`: coverage-guided fuzzing of the commands and of the allocators, on this machine.

The targets are in rust/host/fuzz, where cargo-fuzz finds them too. This builds them with
the stable compiler: libFuzzer needs nothing but the counters that LLVM's own pass puts in.
"""

import re
import subprocess

from pcpb_cli import setup, steps, toolchain
from pcpb_cli.steps import BUILD, PROJECT, Failed

PACKAGE = PROJECT / "rust" / "host" / "fuzz"
TARGETS = ("commands", "operations")
# Inputs that `pcpb test` tries beside the corpus.
TEST_RUNS = {"commands": 300_000, "operations": 20_000}
INPUT_BYTES = {"commands": 400, "operations": 2000}
TRIPLE = "x86_64-unknown-linux-gnu"
COVERAGE = ("-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 "
            "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters "
            "-Cllvm-args=-sanitizer-coverage-pc-table "
            "-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing")


def command(target, minutes):
    """Looks for new inputs for some time; those that show something new are kept in build/fuzz."""
    build()
    for name in [target] if target else TARGETS:
        subprocess.run(_argv(name, f"-max_total_time={int(minutes * 60)}"), check=False)
        artifacts = list(_folder(name).parent.glob(f"{name}-crash-*"))
        if artifacts:
            raise Failed(f"{name}: it fails with {artifacts[0]}")


def build():
    """Builds the targets."""
    setup.ensure_packages({"g++": ("building libFuzzer", "g++")})
    toolchain.prepare()
    env = toolchain.environment() | {"RUSTFLAGS": COVERAGE, "CARGO_TERM_COLOR": "never",
                                     "CARGO_TARGET_DIR": str(BUILD / "fuzz-target")}
    steps.run("build the fuzz targets",
              [toolchain.which("cargo"), "build", "--locked", "--release", "--target", TRIPLE],
              BUILD / "fuzz" / "build.log", cwd=PACKAGE, env=env,
              advice="The log says what is wrong.")


def bounded(name, log):
    """A fixed number of inputs from a fixed seed; returns how many were tried."""
    steps.run(f"fuzz {name}", _argv(name, f"-runs={TEST_RUNS[name]}", "-seed=1", "-verbosity=0",
                                    "-print_final_stats=1"), log,
              advice="The input is the artifact that the log names; give it to the program as its "
                     "argument to see it again.")
    return int(re.search(r"number_of_executed_units: (\d+)", log.read_text(errors="replace"))[1])


def _folder(name):
    return BUILD / "fuzz" / name


def _argv(name, *options):
    folder = _folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    program = BUILD / "fuzz-target" / TRIPLE / "release" / name
    # What is found goes to the first folder.
    return [str(program), str(folder), str(PACKAGE / "corpus" / name), *options,
            f"-max_len={INPUT_BYTES[name]}", "-timeout=60",
            f"-artifact_prefix={folder.parent}/{name}-"]
