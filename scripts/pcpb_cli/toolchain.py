# SPDX-License-Identifier: GPL-2.0
"""The compiler, bindgen, libclang and Rust library source a kernel build needs.

A rustup toolchain is used where there is one that is new enough, Debian's own
packages otherwise. What neither brings goes into the cache, never into the
system.
"""

import glob
import os
import re
import shutil
import subprocess
from pathlib import Path

from pcpb_cli import apt, steps
from pcpb_cli.steps import Failed

# What Linux 7.3 asks for (scripts/min-tool-version.sh there).
RUSTC_MIN = (1, 85)
BINDGEN_MIN = (0, 71, 1)
LIBCLANG_MIN = 17

BINDGEN_FROM_CARGO = "0.72.1"
DEBIAN_RUST = ("rustc", "cargo", "rust-src", "rust-clippy", "rustfmt")
RUSTUP_COMPONENTS = ("rustfmt", "clippy")
RUSTUP_ADVICE = ("Rust 1.85 or newer is needed. Install it with rustup (https://rustup.rs) and run "
                 "the same command again; Debian 13 has it in its own packages.")


def search_path():
    """PATH for builds: our bindgen first, and what a plain user's PATH may lack."""
    own = [str(_own_bindgen() / "bin")]
    usual = [os.path.expanduser("~/.cargo/bin"), "/usr/sbin", "/sbin"]
    return ":".join(own + os.environ.get("PATH", "/usr/bin:/bin").split(":") + usual)


def which(tool):
    """The path of a tool on the search path, or None."""
    return shutil.which(tool, path=search_path())


def environment():
    """The environment in which kernels and modules are built."""
    env = os.environ | {"PATH": search_path(), "LC_ALL": "C"}
    libclang = _libclang()
    if libclang:
        env["LIBCLANG_PATH"] = libclang
    if not _sysroot_source().is_dir():
        env["RUST_LIB_SRC"] = str(_cached_source())
    return env


def identity():
    """A text that changes whenever another toolchain is used."""
    return "\n".join([_output("rustc", "-vV"), _output("bindgen", "--version"),
                      _output("gcc", "-dumpfullversion"), _libclang() or ""])


def problems():
    """What is missing, in words; empty when a kernel can be built."""
    missing = []
    if _version("rustc") < RUSTC_MIN:
        missing.append("rustc")
    else:
        missing += [tool for tool in ("cargo", "rustfmt", "clippy-driver") if not which(tool)]
        if not _sysroot_source().is_dir() and not _cached_source().is_dir():
            missing.append("Rust library source")
    if _version("bindgen") < BINDGEN_MIN:
        missing.append("bindgen")
    if not _libclang():
        missing.append("libclang")
    return missing


def prepare():
    """Installs whatever problems() names."""
    missing = problems()
    if not missing:
        return
    _prepare_packages(missing)
    if which("rustup"):
        _prepare_rustup()
    if not _sysroot_source().is_dir() and not _cached_source().is_dir():
        _fetch_library_source()
    if _version("bindgen") < BINDGEN_MIN:
        _build_bindgen()
    missing = problems()
    if missing:
        raise Failed("still missing after the installation: " + ", ".join(missing))


def _prepare_packages(missing):
    """The part that Debian's packages can bring."""
    reasons = {}
    if apt.available():
        apt.update()
    if not which("rustup") and set(missing) & {"rustc", "cargo", "rustfmt", "clippy-driver",
                                               "Rust library source"}:
        if _numbers(apt.candidate("rustc")) < RUSTC_MIN:
            raise Failed(RUSTUP_ADVICE)
        reasons |= {name: "the kernel's Rust code" for name in DEBIAN_RUST}
    elif "rustc" in missing:
        raise Failed(RUSTUP_ADVICE + " (`rustup update stable` updates the one here.)")
    if "bindgen" in missing and _numbers(apt.candidate("bindgen")) >= BINDGEN_MIN:
        reasons["bindgen"] = "Rust bindings of the kernel's C headers"
    if "libclang" in missing:
        reasons[_libclang_package()] = "bindgen parses C with it"
    if reasons:
        apt.install(reasons)


def _libclang_package():
    """Debian's newest libclang; an old release has newer ones under numbered names."""
    if _numbers((apt.candidate("libclang-dev") or "0").split(":")[-1]) >= (LIBCLANG_MIN,):
        return "libclang-dev"
    return "libclang-19-dev"


def _prepare_rustup():
    """Components of the active rustup toolchain; the source may be had elsewhere."""
    lacking = [tool for tool in RUSTUP_COMPONENTS if not which(_program_of(tool))]
    if lacking:
        _rustup(lacking)
    if not _sysroot_source().is_dir():
        try:
            _rustup(["rust-src"])
        except Failed:
            steps.say("rustup cannot get rust-src; trying Debian's package of the same version")


def _program_of(component):
    return {"clippy": "clippy-driver"}.get(component, component)


def _rustup(components):
    steps.run(f"rustup component add {' '.join(components)}",
              [which("rustup"), "component", "add", *components],
              steps.log_file("rustup"), advice="Check the network, then run the same command again.")


def _fetch_library_source():
    """Rust's library source out of Debian's rust-src of the same version."""
    wanted = _numbers(_output("rustc", "--version"))
    archive = apt.Backports()
    archive.update()
    fitting = [version for _, version in archive.versions("rust-src")
               if _numbers(version) == wanted]
    text = ".".join(map(str, wanted))
    if not fitting:
        raise Failed(f"the library source of rustc {text} is missing: "
                     "rustup component add rust-src")
    target = _cached_source().parent
    unpacked = target.with_name(target.name + ".tmp")
    shutil.rmtree(unpacked, ignore_errors=True)
    archive.unpack("rust-src", fitting[0], unpacked)
    [source] = unpacked.glob("usr/src/rustc-*")
    shutil.rmtree(target, ignore_errors=True)
    source.rename(target)
    shutil.rmtree(unpacked)


def _build_bindgen():
    """bindgen from its published source, into the cache."""
    steps.run(f"build bindgen {BINDGEN_FROM_CARGO}",
              [which("cargo"), "install", "--locked", "bindgen-cli",
               "--version", BINDGEN_FROM_CARGO, "--root", str(_own_bindgen())],
              steps.log_file("bindgen"), advice="Check the network, then run the same command again.",
              env=os.environ | {"PATH": search_path()})


def _own_bindgen():
    return steps.cache_root() / "tools" / f"bindgen-{BINDGEN_FROM_CARGO}"


def _cached_source():
    """Where a library source that rustup does not have is kept."""
    version = ".".join(map(str, _numbers(_output("rustc", "--version"))))
    return steps.cache_root() / "rust-src" / version / "library"


def _sysroot_source():
    """Where rustc itself would look for its library source."""
    return Path(_output("rustc", "--print", "sysroot")) / "lib/rustlib/src/rust/library"


def _libclang():
    """The folder of the newest libclang that is new enough, or None."""
    found = [(int(match[1]), match[0]) for path in glob.glob("/usr/lib/llvm-*/lib/libclang.so")
             if (match := re.match(r"/usr/lib/llvm-(\d+)/lib", path))]
    return next((path for number, path in sorted(found, reverse=True)
                 if number >= LIBCLANG_MIN), None)


_outputs = {}


def _output(*argv):
    """What a tool prints, asked once; empty if there is no such tool."""
    if argv not in _outputs or not _outputs[argv]:
        tool = which(argv[0])
        result = tool and subprocess.run([tool, *argv[1:]], capture_output=True, text=True)
        _outputs[argv] = result.stdout.strip() if result and result.returncode == 0 else ""
    return _outputs[argv]


def _version(tool):
    return _numbers(_output(tool, "--version"))


def _numbers(text):
    """The first dotted number in a text as a tuple; () if there is none."""
    match = re.search(r"\d+(\.\d+)+", text or "")
    return tuple(map(int, match[0].split("."))) if match else ()
