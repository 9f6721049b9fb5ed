# SPDX-License-Identifier: GPL-2.0
"""The test kernels: which there are, and how one gets into the cache.

A built kernel is an O= folder of its own, named after everything that went
into it (source version, config, patches, toolchain). A stamp file, written
last, marks it complete; without the stamp it is built again from scratch.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass

from pcpb_cli import apt, steps, toolchain
from pcpb_cli.steps import Failed, SCRIPTS

SOURCE_PACKAGE = r"linux-source-7\.([0-9]+)"
SOURCE_MINOR_MIN = 3
RECIPES = SCRIPTS / "kernel"
STAMP = ".pcpb-complete"


@dataclass(frozen=True)
class Kernel:
    """How one test kernel is made. The files are in scripts/kernel/."""

    name: str
    about: str
    arch: str
    configs: tuple  # options on top of `base`
    image: str  # what is booted, relative to the O= folder
    max_cpus: int
    base: str = "allnoconfig"
    patches: tuple = ()
    build_args: tuple = ()  # make arguments for the kernel
    module_args: tuple = ()  # make arguments a module needs for this kernel
    packages: tuple = ()  # Debian packages, and a program of each
    emulator: str = ""  # what runs the image; "" if it is a program itself


# Of User Mode Linux only: what interrupts cost, and more CPUs than the host has cores.
UML_PATCHES = ("uml-soft-ipi.patch", "uml-yield.patch")

# ARCH=um builds Rust as position independent code, which the module loader,
# knowing no GOT relocations, would refuse.
UML_MODULE_ARGS = ("RUSTFLAGS_MODULE=-Crelocation-model=static -Ccode-model=large",)

# Rust with KASAN needs clang. In User Mode Linux, its statics beyond the end of the
# image would make lockdep switch itself off.
LLVM = ("LLVM=-19",)
LLVM_ARGS = (*LLVM, "KCFLAGS=-mlarge-data-threshold=1000000000 "
             "-Wno-unused-command-line-argument")
# With frame pointers, the stub that system calls go through would not survive.
STUB_ARGS = ("CFLAGS_stub.o=-fno-PIC -fno-pic -fno-stack-protector -fomit-frame-pointer",)
QEMU_X86 = (("qemu-system-x86", "qemu-system-x86_64"),)
LLVM_PACKAGES = (("clang-19", "clang-19"), ("lld-19", "ld.lld-19"), ("llvm-19", "llvm-ar-19"))

KERNELS = {kernel.name: kernel for kernel in (
    Kernel("uml", "User Mode Linux that masks IPIs softly and yields as it spins; the default",
           arch="um", configs=("uml.config",), image="linux", max_cpus=64,
           patches=UML_PATCHES, module_args=UML_MODULE_ARGS),
    Kernel("uml-plain", "User Mode Linux without a patch",
           arch="um", configs=("uml.config",), image="linux", max_cpus=64,
           module_args=UML_MODULE_ARGS),
    Kernel("uml-debug", "User Mode Linux with KASAN, lockdep and their kind",
           arch="um", configs=("uml.config", "uml-debug.config"),
           image="linux", max_cpus=64, patches=(*UML_PATCHES, "uml-debug-stack.patch"),
           build_args=(*LLVM_ARGS, *STUB_ARGS),
           module_args=(*LLVM_ARGS, *UML_MODULE_ARGS), packages=LLVM_PACKAGES),
    Kernel("x86", "x86-64 under QEMU, emulated",
           arch="x86_64", configs=("x86.config",), image="vmlinux", max_cpus=64,
           packages=QEMU_X86, emulator="qemu-system-x86_64"),
    Kernel("x86-debug", "the same with KASAN, lockdep and their kind",
           arch="x86_64", configs=("x86.config", "x86-debug.config"),
           image="vmlinux", max_cpus=64, build_args=LLVM,
           module_args=LLVM, packages=(*QEMU_X86, *LLVM_PACKAGES),
           emulator="qemu-system-x86_64"),
)}
DEFAULT = "uml"
# Those that look for bugs.
DEBUG = ("uml-debug", "x86-debug")


def source():
    """The newest unpacked kernel source in the cache, or None."""
    found = [path for path in _sources().glob("linux-*") if path.suffix != ".tmp"]
    return max(found, key=lambda path: _version_key(path.name), default=None)


def build_dir(kernel):
    """The kernel's O= folder, whether it is there yet or not."""
    return steps.cache_root() / "kernels" / f"{kernel.name}-{_key(kernel)}"


def ready(kernel):
    """Whether the kernel is built."""
    return source() is not None and (build_dir(kernel) / STAMP).exists()


def prepare(kernel):
    """Fetches, patches, configures and builds the kernel where that is missing."""
    if source() is None:
        _fetch_source()
    if not ready(kernel):
        _build(kernel, _patched_source(kernel), build_dir(kernel))


def make_args(kernel):
    """The make arguments that name this kernel for a module build."""
    return [f"ARCH={kernel.arch}", f"KDIR={build_dir(kernel)}", *kernel.module_args]


def _sources():
    return steps.cache_root() / "source"


def _version_key(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def _key(kernel):
    """A short name for everything that determines the built kernel."""
    parts = [source().name, kernel.arch, kernel.base, *kernel.build_args, _config_text(kernel),
             _patch_text(kernel), toolchain.identity()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _config_text(kernel):
    return "".join((RECIPES / name).read_text(encoding="utf-8") for name in kernel.configs)


def _patch_text(kernel):
    return "".join((RECIPES / name).read_text(encoding="utf-8") for name in kernel.patches)


def _fetch_source():
    """Debian's newest kernel source package of a version that fits."""
    archive = apt.Backports()
    archive.update()
    fitting = [(package, version) for package, version in archive.versions(SOURCE_PACKAGE)
               if int(re.fullmatch(SOURCE_PACKAGE, package)[1]) >= SOURCE_MINOR_MIN]
    if not fitting:
        raise Failed(f"{apt.BACKPORTS} has no linux-source-7.{SOURCE_MINOR_MIN} or newer at the "
                     f"moment: unpack a kernel source of your own in {_sources()}/linux-VERSION")
    package, version = max(fitting, key=lambda row: _version_key(row[1]))
    unpacked = _sources() / "package.tmp"
    shutil.rmtree(unpacked, ignore_errors=True)
    archive.unpack(package, version, unpacked)
    [tarball] = unpacked.glob("usr/src/linux-source-*.tar.*")
    tree = unpacked / "tree"
    tree.mkdir()
    steps.run("unpack the kernel source",
              ["tar", "-xf", tarball, "-C", tree, "--strip-components=1"],
              steps.log_file("unpack"), advice="Is the disk full?")
    tree.rename(_sources() / f"linux-{version}")
    shutil.rmtree(unpacked)


def _patched_source(kernel):
    """The source tree with the kernel's patches; a hard-linked copy if it has any."""
    plain = source()
    if not kernel.patches:
        return plain
    digest = hashlib.sha256(_patch_text(kernel).encode()).hexdigest()[:12]
    patched = _sources() / "patched" / f"{plain.name}-{digest}"
    if patched.exists():
        return patched
    copy = patched.with_suffix(".tmp")
    shutil.rmtree(copy, ignore_errors=True)
    copy.parent.mkdir(exist_ok=True)
    steps.run("copy the kernel source", ["cp", "-al", plain, copy], steps.log_file("copy"),
              advice="Is the disk full?")
    for name in kernel.patches:
        # patch writes a new file and renames it: the linked original stays as it is.
        steps.run(f"apply {name}", ["patch", "-p1", "--no-backup-if-mismatch", "--input", RECIPES / name],
                  steps.log_file("patch"), cwd=copy,
                  advice="The patch has to be adapted to this kernel version.")
    copy.rename(patched)
    return patched


def _build(kernel, tree, out):
    """Configures and builds into `out`, and stamps it when all went well."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    make = ["make", "-C", tree, f"O={out}", f"ARCH={kernel.arch}", *kernel.build_args]
    env = toolchain.environment()
    wanted = out / "pcpb.config"
    wanted.write_text(_config_text(kernel), encoding="utf-8")
    steps.run(f"configure the {kernel.name} kernel",
              [*make, f"KCONFIG_ALLCONFIG={wanted}", kernel.base, "rustavailable"],
              steps.log_file(f"configure-{kernel.name}"), env=env,
              advice="`rustavailable` in the log says which Rust tool does not fit.")
    _check_config(kernel, out)
    steps.run(f"build the {kernel.name} kernel", [*make, f"-j{os.cpu_count()}"],
              steps.log_file(f"build-{kernel.name}"), env=env,
              advice="If a tool is missing or too old, the log names it; otherwise run the same "
                     "command again.")
    (out / STAMP).touch()


def _check_config(kernel, out):
    """Fails if an option that was asked for did not make it into the config."""
    got = set((out / ".config").read_text(encoding="utf-8").splitlines())
    lost = [line for line in _config_text(kernel).splitlines()
            if line.startswith("CONFIG_") and line not in got]
    if lost:
        raise Failed(f"the {kernel.name} kernel cannot be configured with {', '.join(lost)}: "
                     f"a dependency is missing in {', '.join(kernel.configs)}, or a tool "
                     f"(see {steps.log_file(f'configure-{kernel.name}')})")
