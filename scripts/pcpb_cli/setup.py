# SPDX-License-Identifier: GPL-2.0
"""`pcpb setup`: brings in whatever this machine lacks, then the test kernel."""

import glob

from pcpb_cli import apt, kernel, steps, toolchain

# (Debian package, who needs it, how to see that it is there): a program on the
# search path, or a file pattern.
REQUIREMENTS = (
    ("make", "kernel and module build", "make"),
    ("gcc", "kernel and module build", "gcc"),
    ("libc6-dev", "kernel build", "/usr/include/stdio.h"),
    ("flex", "kernel build", "flex"),
    ("bison", "kernel build", "bison"),
    ("bc", "kernel build", "bc"),
    ("perl", "kernel build", "perl"),
    ("patch", "kernel build", "patch"),
    ("libelf-dev", "kernel build", "/usr/include/libelf.h"),
    ("libssl-dev", "kernel build", "/usr/include/openssl/ssl.h"),
    ("cpio", "kernel build", "cpio"),
    ("xz-utils", "unpacking the kernel source", "xz"),
    ("kmod", "loading modules", "insmod"),
    ("busybox-static", "the guest's first process", "busybox"),
    ("debian-archive-keyring", "checking Debian's kernel source",
     "/usr/share/keyrings/debian-archive-keyring.*"),
    ("ca-certificates", "downloads", "/etc/ssl/certs/ca-certificates.crt"),
    ("git", "naming the commit in reports", "git"),
)


def command():
    """Runs the setup of the default kernel and says what happened."""
    if ensure(kernel.KERNELS[kernel.DEFAULT]):
        steps.say(f"everything is ready in {steps.cache_root()}")
    else:
        steps.say(f"everything is in place already ({steps.cache_root()}); nothing to do")


def ensure(wanted):
    """Makes one kernel available; returns whether anything had to be done."""
    if _complete(wanted):
        return False
    with steps.locked(steps.cache_root() / "lock", "the test kernel"):
        missing = _missing_packages(wanted)
        if missing:
            apt.install(missing)
        toolchain.prepare()
        kernel.prepare(wanted)
    return True


def ensure_tools(kernels):
    """Installs what these kernels are built and run with, all of it at once."""
    missing = {}
    for wanted in kernels:
        missing |= _missing_packages(wanted)
    if not missing and not toolchain.problems():
        return
    with steps.locked(steps.cache_root() / "lock", "the tools"):
        if missing:
            apt.install(missing)
        toolchain.prepare()


def ensure_packages(wanted):
    """Installs packages, given as package -> (who needs it, a program of it), where missing."""
    missing = {package: reason for package, (reason, probe) in wanted.items() if not _present(probe)}
    if missing:
        apt.install(missing)


def _complete(wanted):
    return not _missing_packages(wanted) and not toolchain.problems() and kernel.ready(wanted)


def _missing_packages(wanted):
    """Package -> who needs it, of the packages whose content is not there."""
    own = ((package, f"the {wanted.name} kernel", probe) for package, probe in wanted.packages)
    return {package: reason for package, reason, probe in (*REQUIREMENTS, *own)
            if not _present(probe)}


def _present(probe):
    if probe.startswith("/"):
        return bool(glob.glob(probe))
    return toolchain.which(probe) is not None
