# SPDX-License-Identifier: GPL-2.0
"""`pcpb soak`: everything at random in a guest for a while, see scripts/soak-guest."""

import random

from pcpb_cli import kernel, kernel_log, module, setup, steps
from pcpb_cli.steps import BUILD, SCRIPTS, Failed

# Time to boot, to come to rest and to end, on the slowest kernel.
SPARE_S = 600


def command(kernel_name, cpus, minutes, seed, actions):
    """Soaks, and says how it went; Failed if anything was wrong."""
    seed = random.randrange(1 << 32) if seed is None else seed
    steps.say(f"soak: seed {seed}")
    print(run(kernel_name, cpus, minutes, seed, actions, BUILD / f"soak-{kernel_name}.log"))


def run(kernel_name, cpus, minutes, seed, actions, log):
    """One line about a soak that went well; its log, and the console beside it, stay."""
    wanted = kernel.KERNELS[kernel_name]
    setup.ensure(wanted)
    built = module.ensure(wanted)
    console = log.with_suffix(".console")
    log.parent.mkdir(parents=True, exist_ok=True)
    repeat = f"pcpb soak --kernel {kernel_name} --cpus {cpus} --minutes {minutes:g} --seed {seed}"
    soak = (f"{SCRIPTS / 'soak-guest'} --seed {seed} --minutes {minutes} --actions {actions} "
            f"--module {built}; status=$?")
    append = []
    if kernel_name in kernel.DEBUG:
        append = ["--append", "kasan_multi_shot"]
        soak += f"; {SCRIPTS / 'selftests' / 'plant'} {module.ensure_planted(wanted)}"
    argv = [SCRIPTS / "pcpb", "vm", "--kernel", kernel_name, "--cpus", str(cpus), "--mem", "4G",
            "--timeout", str(minutes * 60 + SPARE_S), *append,
            "--", "sh", "-c", f"{soak}; exit $status"]
    with open(log, "w", encoding="utf-8") as out, open(console, "w", encoding="utf-8") as err:
        with steps.child(argv, stdout=out, stderr=err) as guest:
            status = guest.wait()
    text = log.read_text(encoding="utf-8", errors="replace")
    verdict, _, _ = text.partition("\n# [")
    problem = None
    if status != 0:
        problem = verdict.strip() or f"the guest ended with status {status}: {_complaint(console)}"
    elif kernel_name in kernel.DEBUG:
        problem = kernel_log.problem_of_planted(text)
    else:
        problem = _complaint(console)
    if problem:
        raise Failed(f"soak: {problem}\nThe whole log: {log}, {console}\nAgain: {repeat}")
    return f"{verdict.strip()} (seed {seed})"


def _complaint(console):
    return kernel_log.complaint(console.read_text(encoding="utf-8", errors="replace"))
