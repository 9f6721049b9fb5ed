# SPDX-License-Identifier: GPL-2.0
"""The command line: what the commands are called and which arguments they take."""

import argparse

from pcpb_cli import kernel, steps


def main():
    """Runs one command; returns the exit status."""
    parser = _parser()
    args, rest = parser.parse_known_args()
    if rest and args.run not in (_bench, _report):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        return args.run(args) or 0
    except steps.Failed as problem:
        steps.say(str(problem))
        return 1
    except KeyboardInterrupt:
        steps.say("interrupted")
        return 130


def _parser():
    parser = argparse.ArgumentParser(
        prog="pcpb", description="pcp_buddy: test kernel, module, tests and benchmarks. Every "
        "command first brings in what it needs and does not find.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    setup = commands.add_parser("setup", help="install what this machine lacks, build the test kernel")
    setup.set_defaults(run=_setup)

    build = commands.add_parser("build", help="build the module")
    _add_kernel(build)
    build.add_argument("--kdir", help="build for this kernel tree of your own")
    build.add_argument("kdir_word", nargs="?", metavar="KDIR=DIR", type=_kdir_word,
                       help="the same, as kbuild spells it")
    build.set_defaults(run=_build)

    vm = commands.add_parser(
        "vm", help="boot a test kernel and run one command in it",
        description="Boots a test kernel with the host's file system read-only as root and /tmp "
        "writable, loads the module and runs COMMAND in the current directory. Its stdout is our "
        "stdout; its stderr and the kernel's console are our stderr. Exit status: COMMAND's own, "
        "128+N for signal N, 124 when the time is up, 125 when the guest fails or panics.")
    _add_kernel(vm)
    vm.add_argument("--cpus", type=int, default=2, metavar="N", help="default: 2")
    vm.add_argument("--mem", default="4G", metavar="SIZE", help="such as 512M; default: 4G")
    vm.add_argument("--numa", metavar="SIZE,SIZE...",
                    help="x86: NUMA nodes of these sizes instead of --mem, 0 for one without "
                    "memory; the CPUs are shared out in order")
    vm.add_argument("--no-module", action="store_true", help="do not load the module")
    vm.add_argument("--modparam", action="append", default=[], metavar="NAME=VALUE",
                    help="a parameter of the module")
    vm.add_argument("--append", action="append", default=[], metavar="ARG",
                    help="an argument for the kernel command line")
    vm.add_argument("--timeout", type=float, metavar="SECONDS", help="kill the guest after this time")
    vm.add_argument("words", nargs="+", metavar="COMMAND", help="after a --, with its arguments")
    vm.set_defaults(run=_vm)

    test = commands.add_parser("test", help="run all tests")
    test.add_argument("--only", metavar="PATTERN",
                      help="only tests whose name contains this or matches it as a shell pattern")
    test.add_argument("--quick", action="store_true",
                      help="only the most telling ones, for whoever is changing something")
    test.set_defaults(run=_test)

    fuzz = commands.add_parser("fuzz", help="look for input that breaks commands or allocators")
    fuzz.add_argument("target", nargs="?", choices=["commands", "operations"], help="default: both")
    fuzz.add_argument("--minutes", type=float, default=5, metavar="N", help="for each; default: 5")
    fuzz.set_defaults(run=_fuzz)

    soak = commands.add_parser(
        "soak", help="everything at random in a guest for a while",
        description="Zones, workloads, signals, drains, CPUs that go, unloading and nonsense at "
        "random. Prints the seed from which the same actions follow.")
    _add_kernel(soak)
    soak.add_argument("--minutes", type=float, default=10, metavar="N", help="default: 10")
    soak.add_argument("--cpus", type=int, default=4, metavar="N", help="default: 4")
    soak.add_argument("--seed", type=int, metavar="N", help="default: a new one")
    soak.add_argument("--actions", type=int, default=-1, metavar="N",
                      help="end after so many, such as the one that failed")
    soak.set_defaults(run=_soak)

    plant = commands.add_parser(
        "plant", help="plant bugs in a copy of the source, see the tests find them",
        description="scripts/planted_bugs.toml has the bugs.")
    plant.add_argument("names", nargs="*", metavar="BUG", help="default: all, which takes a while")
    plant.set_defaults(run=_plant)

    # These read the rest of their command line, --help too, themselves.
    commands.add_parser("bench", help="measure all policies and write the report",
                        add_help=False).set_defaults(run=_bench)
    commands.add_parser("report", help="make the report of a benchmark again from its records",
                        add_help=False).set_defaults(run=_report)
    return parser


def _add_kernel(parser):
    about = "; ".join(f"{entry.name}: {entry.about}" for entry in kernel.KERNELS.values())
    parser.add_argument("--kernel", choices=list(kernel.KERNELS), default=kernel.DEFAULT, help=about)


def _kdir_word(word):
    key, _, value = word.partition("=")
    if key != "KDIR" or not value:
        raise argparse.ArgumentTypeError(f"expected KDIR=DIR, not {word!r}")
    return value


def _setup(_args):
    from pcpb_cli import setup
    setup.command()


def _build(args):
    from pcpb_cli import module
    module.command(args.kernel, args.kdir or args.kdir_word)


def _vm(args):
    from pcpb_cli import vm
    return vm.command(args)


def _test(args):
    from pcpb_cli import test
    return test.command(args.only, args.quick)


def _fuzz(args):
    from pcpb_cli import fuzz
    fuzz.command(args.target, args.minutes)


def _soak(args):
    from pcpb_cli import soak
    soak.command(args.kernel, args.cpus, args.minutes, args.seed, args.actions)


def _plant(args):
    from pcpb_cli import plant
    plant.command(args.names)


def _bench(args):
    from pcpb_cli import bench
    return bench.command(args.rest)


def _report(args):
    from pcpb_cli import report
    return report.command(args.rest)
