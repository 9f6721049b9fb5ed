# SPDX-License-Identifier: GPL-2.0
"""`pcpb build`: the module, against a test kernel or a kernel of one's own.

The kbuild call itself is in the top-level Makefile, which works without pcpb.
"""

import os
import time
from pathlib import Path

from pcpb_cli import kernel, setup, steps, toolchain
from pcpb_cli.steps import BUILD, PROJECT

SOURCE_FOLDERS = ("rust", "samples")
NOT_SOURCES = ("host", "target")
ERROR_LINES = 200
PLANTED = "scripts/selftests/planted"


def command(kernel_name, kdir):
    """Builds and says where the module is."""
    if kdir:
        out = BUILD / "kdir"
        _make(out, [f"KDIR={os.path.abspath(kdir)}"], "your kernel")
    else:
        wanted = kernel.KERNELS[kernel_name]
        setup.ensure(wanted)
        out = output_dir(wanted)
        _make(out, kernel.make_args(wanted), wanted.name)
    steps.say(f"built {module_path(out)}")


def output_dir(wanted):
    """Where the objects for one test kernel go."""
    return BUILD / wanted.name


def module_path(out):
    """The module below an output folder."""
    return out / "rust" / "pcp_buddy.ko"


def ensure(wanted):
    """Builds the module for a test kernel if a source is newer; returns its path."""
    out = output_dir(wanted)
    if not _up_to_date(wanted, out):
        _make(out, kernel.make_args(wanted), wanted.name)
    return module_path(out)


def ensure_planted(wanted):
    """Builds the module of planted bugs for a test kernel; returns its path."""
    _make(_planted_dir(wanted), [*kernel.make_args(wanted), f"SRC={PLANTED}"],
          f"{wanted.name}: planted bugs")
    return planted(wanted)


def planted(wanted):
    """Where the module of planted bugs is."""
    return _planted_dir(wanted) / PLANTED / "planted.ko"


def _planted_dir(wanted):
    return BUILD / f"{wanted.name}-planted"


def lint(wanted):
    """Builds with the kernel's clippy lints, all warnings being errors."""
    out = BUILD / f"{wanted.name}-clippy"
    _make(out, [*kernel.make_args(wanted), "CLIPPY=1", "KRUSTFLAGS=-Dwarnings"],
          f"{wanted.name} with clippy")


def _make(out, args, what):
    """Runs the top-level Makefile's module build into `out`."""
    log = out / "build.log"
    argv = ["make", "-C", PROJECT, "modules", f"MO={out}", f"-j{os.cpu_count()}", *args]
    with steps.locked(out / "lock", f"{out}"):
        built_for = out / "kernel"
        built_for.unlink(missing_ok=True)
        start_ns = time.time_ns()
        steps.run(f"build the module for {what}", argv, log, env=toolchain.environment(),
                  tail=ERROR_LINES, advice="")
        built_for.write_text("\n".join(args), encoding="utf-8")
        # A source changed during the build may have been read before.
        os.utime(built_for, ns=(start_ns, start_ns))
    text = log.read_text(encoding="utf-8")
    if "warning:" in text:
        steps.say(text)


def _up_to_date(wanted, out):
    """Whether the module is newer than its sources and made for this very kernel."""
    built_for = out / "kernel"
    try:
        if built_for.read_text(encoding="utf-8") != "\n".join(kernel.make_args(wanted)):
            return False
        built_ns = built_for.stat().st_mtime_ns
        module_path(out).stat()
    except FileNotFoundError:
        return False
    return all(path.stat().st_mtime_ns < built_ns for path in _sources())


def _sources():
    yield PROJECT / "Makefile"
    for top in SOURCE_FOLDERS:
        for folder, subfolders, files in os.walk(PROJECT / top):
            subfolders[:] = [name for name in subfolders if name not in NOT_SOURCES]
            yield Path(folder)
            yield from (Path(folder, name) for name in files)
