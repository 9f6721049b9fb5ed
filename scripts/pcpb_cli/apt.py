# SPDX-License-Identifier: GPL-2.0
"""Debian packages: installed on the host, or only fetched and unpacked.

Fetching goes through an apt state of our own in the cache, so that packages of
another Debian release can be had without touching the system's apt sources.
"""

import functools
import os
import shutil
import subprocess

from pcpb_cli import steps
from pcpb_cli.steps import Failed

DEFAULT_MIRROR = "http://deb.debian.org/debian"
BACKPORTS = "trixie-backports"
ADVICE = "Check the network and the apt sources, then run the same command again."


def available():
    """Whether this is a system with apt and Debian's packages."""
    if not shutil.which("apt-get"):
        return False
    with open("/etc/os-release", encoding="utf-8") as file:
        return any("debian" in line for line in file if line.startswith(("ID=", "ID_LIKE=")))


def install(reasons):
    """Installs packages; `reasons` maps each package to what needs it."""
    names = sorted(reasons)
    for name in names:
        steps.say(f"missing: {name} ({reasons[name]})")
    if not available():
        raise Failed("please install these with your system's package manager "
                     "(the names are Debian's): " + " ".join(names))
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    update()
    steps.run("install packages",
              _as_root("apt-get", "-q", "-y", "install", "--no-install-recommends", *names),
              steps.log_file("apt-install"), advice=ADVICE, env=env)


@functools.cache
def update():
    """Refreshes the system's package lists, once in a run."""
    steps.run("refresh the package lists", _as_root("apt-get", "-q", "update"),
              steps.log_file("apt-update"), advice=ADVICE)


def candidate(name):
    """The version of a package that apt would install here, or None."""
    if not available():
        return None
    text = subprocess.run(["apt-cache", "policy", name], capture_output=True, text=True,
                          check=True, env=os.environ | {"LC_ALL": "C"}).stdout
    for line in text.splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "Candidate" and value != "(none)":
            return value
    return None


def _as_root(*argv):
    """A command as root runs it."""
    if os.geteuid() == 0:
        return argv
    if shutil.which("sudo"):
        return ("sudo", *argv)
    raise Failed(f"as root, run `{' '.join(argv)}`, then the same command again")



class Backports:
    """Packages of Debian's trixie-backports, through an apt state of our own."""

    def __init__(self):
        self.dir = steps.cache_root() / "apt"
        self.options = [
            "-o", f"Dir::Etc::sourcelist={self.dir}/sources.list",
            "-o", "Dir::Etc::sourceparts=-",
            "-o", "Dir::Etc::preferences=-",
            "-o", "Dir::Etc::preferencesparts=-",
            "-o", f"Dir::State::lists={self.dir}/lists",
            "-o", f"Dir::Cache={self.dir}/cache",
            "-o", "APT::Sandbox::User=",
        ]

    def update(self):
        """Fetches the list of packages."""
        for part in ("lists/partial", "cache/archives/partial"):
            (self.dir / part).mkdir(parents=True, exist_ok=True)
        (self.dir / "sources.list").write_text(
            f"deb [signed-by={_keyring()}] {_mirror()} {BACKPORTS} main\n", encoding="utf-8")
        steps.run(f"look up packages in {BACKPORTS}",
                  ["apt-get", "-q", *self.options, "update"],
                  steps.log_file("backports-update"), advice=ADVICE)

    def versions(self, pattern):
        """(package, version) of every package whose name matches the regex."""
        names = self._cache("search", "--names-only", f"^{pattern}$")
        packages = [line.split(" ", 1)[0] for line in names]
        if not packages:
            return []
        rows = (line.split("|") for line in self._cache("madison", *packages))
        return [(row[0].strip(), row[1].strip()) for row in rows]

    def _cache(self, *words):
        return subprocess.run(["apt-cache", *self.options, *words], capture_output=True,
                              text=True, check=True).stdout.splitlines()

    def unpack(self, package, version, target):
        """Downloads one package and unpacks its files into a new folder."""
        target.mkdir(parents=True)
        steps.run(f"download {package} {version}",
                  ["apt-get", "-q", *self.options, "download", f"{package}={version}"],
                  steps.log_file(f"download-{package}"), advice=ADVICE, cwd=target)
        [deb] = target.glob("*.deb")
        steps.run(f"unpack {package}", ["dpkg-deb", "-x", deb.name, "."],
                  steps.log_file(f"unpack-{package}"), advice="Is the disk full?", cwd=target)
        deb.unlink()


def _keyring():
    for suffix in ("gpg", "pgp"):
        path = f"/usr/share/keyrings/debian-archive-keyring.{suffix}"
        if os.path.exists(path):
            return path
    raise Failed("Debian's archive keys are missing: apt install debian-archive-keyring")


def _mirror():
    """The Debian mirror this system uses."""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)",
                             "Created-By: Packages"],
                            capture_output=True, text=True, check=True).stdout
    for uri in listed.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri
    return DEFAULT_MIRROR
