# SPDX-License-Identifier: GPL-2.0
"""`pcpb vm`: boots a test kernel and runs one command in it.

A guest is a process of the host: User Mode Linux, or QEMU. It gets three sockets as
terminal lines: one for its console and the command's stderr, one for the command's
stdout, one for the exit status. scripts/vm-init.sh is the other end of this in the
guest.
"""

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

from pcpb_cli import kernel, module, setup, steps
from pcpb_cli.steps import Failed, PROJECT, SCRIPTS

STATUS_TIMEOUT = 124
STATUS_GUEST_FAILED = 125
COPY_BYTES = 1 << 16
STATUS_BYTES = 100
SIZE_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PR_SET_PDEATHSIG = 1


def command(args):
    """Boots, runs args.words, returns the exit status."""
    wanted = kernel.KERNELS[args.kernel]
    if not 1 <= args.cpus <= wanted.max_cpus:
        raise Failed(f"--cpus: {wanted.name} has 1 to {wanted.max_cpus} CPUs, not {args.cpus}")
    nodes = [size(word) for word in args.numa.split(",")] if args.numa else []
    if nodes and not wanted.emulator:
        raise Failed(f"--numa: {wanted.name} has one node; x86 has as many as you like")
    mem_bytes = sum(nodes) or size(args.mem)
    setup.ensure(wanted)
    insmod = []
    if not args.no_module:
        insmod = ["insmod", str(module.ensure(wanted)), *args.modparam]
    with _scratch() as scratch:
        job = scratch / "job"
        machine = _qemu if wanted.emulator else _user_mode
        lines, user_cpus, program, parameters = machine(wanted, args.cpus, mem_bytes, nodes, scratch)
        job.write_text(_job(args.words, insmod, lines, user_cpus), encoding="utf-8")
        parameters += ["ro", f"init={SCRIPTS / 'vm-init.sh'}", f"pcpb_job={job}",
                       # Warnings and worse on the console, and no chatter.
                       "quiet", "loglevel=5", "oops=panic", "panic=-1", *args.append]
        return _run(lambda fds: program(fds, parameters), mem_bytes, args.timeout)


# The kinds of machine. Each says which of its terminal lines take the command's output
# and its status, on which CPUs processes may run, how the program is called with the
# file descriptors of the console and these lines and the kernel's parameters, and which
# parameters it needs itself.


def _user_mode(wanted, cpus, mem_bytes, _nodes, scratch):
    def program(fds, parameters):
        lines = [f"con{n}=fd:{fd}" for n, fd in enumerate(fds)]
        return [str(kernel.build_dir(wanted) / wanted.image), *parameters, "con=null", *lines]

    # A page that is migrated while its process runs on another CPU loses what is written
    # to it meanwhile: on UML flush_tlb_page() is heeded when that process next enters the
    # kernel (arch/um/kernel/tlb.c). Taking a zone migrates pages; so all processes stay
    # on the CPU on which that is done.
    return ("/dev/tty1", "/dev/tty2"), "0", program, [
        f"mem={mem_bytes}", f"ncpus={cpus}", "seccomp=on", f"uml_dir={scratch}/",
        "root=/dev/root", "rootfstype=hostfs", "rootflags=/"]


def _qemu(wanted, cpus, mem_bytes, nodes, _scratch):
    def program(fds, parameters):
        argv = [wanted.emulator, "-nodefaults", "-no-user-config", "-no-reboot",
                "-display", "none", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off",
                "-smp", f"{cpus},sockets={cpus}", "-m", f"{mem_bytes}B",
                "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
                "-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot",
                "-kernel", str(kernel.build_dir(wanted) / wanted.image),
                "-append", " ".join(parameters), *_qemu_nodes(cpus, nodes)]
        for n, fd in enumerate(fds):
            argv += ["-chardev", f"socket,id=line{n},fd={fd}", "-serial", f"chardev:line{n}"]
        return argv

    # On a busy host the emulated HPET loses interrupts, and CPUs that sleep wait for them.
    return ("/dev/ttyS1", "/dev/ttyS2"), f"0-{cpus - 1}", program, [
        "console=ttyS0", "hpet=disable", "tsc=reliable", "root=hostroot", "rootfstype=9p",
        "rootflags=trans=virtio,version=9p2000.L,msize=262144,cache=mmap"]


def _qemu_nodes(cpus, nodes):
    """NUMA nodes of these sizes, each with its share of the CPUs."""
    argv = []
    for n, size in enumerate(nodes):
        node = f"node,nodeid={n}"
        first, end = n * cpus // len(nodes), (n + 1) * cpus // len(nodes)
        if first < end:
            node += f",cpus={first}-{end - 1}"
        if size:
            argv += ["-object", f"memory-backend-ram,id=mem{n},size={size}"]
            node += f",memdev=mem{n}"
        argv += ["-numa", node]
    return argv


def size(text):
    """A size such as 512M in bytes."""
    number, unit = (text[:-1], text[-1].upper()) if text and text[-1].isalpha() else (text, "")
    if not number.isdecimal() or unit not in ("", *SIZE_UNITS):
        raise Failed(f"--mem: not a size: {text!r} (such as 512M or 4G)")
    return int(number) * SIZE_UNITS.get(unit, 1)


def _memory_folder(mem_bytes):
    """Where the guest's memory file goes: it is filled only as it is used."""
    try:
        shm = os.statvfs("/dev/shm")
    except FileNotFoundError:
        return "/tmp"
    fits = shm.f_bavail * shm.f_frsize >= mem_bytes and not shm.f_flag & os.ST_NOEXEC
    return "/dev/shm" if fits else "/tmp"


@contextlib.contextmanager
def _scratch():
    """A private folder for one guest, gone afterwards whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="pcpb-vm-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _job(words, insmod, lines, user_cpus):
    """The shell functions that tell scripts/vm-init.sh what to do."""
    cwd = os.getcwd()
    environment = {"PATH": GUEST_PATH, "HOME": "/root", "TERM": "dumb", "PWD": cwd}
    exports = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
    folders = {str(PROJECT), str(steps.cache_root()), cwd}
    return "\n".join([
        "job_output={} job_status={}".format(*lines) + f" job_cpus={user_cpus}",
        f"job_environment() {{ export {exports}; }}",
        "job_folders() {", *(f"visible {shlex.quote(folder)}" for folder in sorted(folders)), "}",
        f"job_insmod() {{ {shlex.join(insmod) or ':'}; }}",
        # exec: a program of the guest, never a word of the shell.
        f"job_command() {{ cd {shlex.quote(cwd)} && exec {shlex.join(words)}; }}", ""])


def _run(program, mem_bytes, timeout_s):
    """Runs one guest to its end; returns the command's status."""
    # Sockets, not pipes: the kernel wants to poll a line for input too.
    (err, guest_err), (out, guest_out), (status, guest_status) = (
        socket.socketpair() for _ in range(3))
    ends = [guest_err, guest_out, guest_status]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    argv = program([end.fileno() for end in ends])
    guest = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=guest_err,
                             stderr=guest_err, pass_fds=[end.fileno() for end in ends],
                             env=os.environ | {"TMPDIR": _memory_folder(mem_bytes)},
                             start_new_session=True, preexec_fn=_die_with_parent)
    for end in ends:
        end.close()
    copies = [_Copy(out, 1, guest), _Copy(err, 2, guest)]
    timed_out = False
    try:
        guest.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        # Also what is left of its processes after an orderly end.
        _kill(guest)
        guest.wait()
    for copy in copies:
        copy.join()
    text = status.recv(STATUS_BYTES).decode(errors="replace").strip()
    status.close()
    if timed_out:
        steps.say(f"the guest was killed after {timeout_s:g} s")
        return STATUS_TIMEOUT
    if any(copy.reader_gone for copy in copies):
        return 128 + signal.SIGPIPE
    if not text.isdecimal():
        steps.say("the guest ended without a status of the command: "
                  "see the kernel's messages above")
        return STATUS_GUEST_FAILED
    return int(text)


class _Copy(threading.Thread):
    """Copies one line of the guest to a file descriptor of ours, as it comes."""

    def __init__(self, source, target, guest):
        super().__init__(daemon=True)
        self.source, self.target, self.guest = source, target, guest
        self.reader_gone = False
        self.start()

    def run(self):
        while data := self.source.recv(COPY_BYTES):
            try:
                while data:
                    data = data[os.write(self.target, data):]
            except BrokenPipeError:
                self.reader_gone = True
                _kill(self.guest)
                break
        self.source.close()


def _kill(guest):
    """Ends all processes of a guest."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(guest.pid, signal.SIGKILL)


def _die_with_parent():
    """In the guest's process: if pcpb itself is killed, so is the guest."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _interrupt(_number, _frame):
    raise KeyboardInterrupt
