# SPDX-License-Identifier: GPL-2.0
"""`pcpb report`: tables in the terminal and a page with plots, from a file of records."""

import argparse
import textwrap
from pathlib import Path

from pcpb_cli import findings, page, records, steps
from pcpb_cli.chart import si
from pcpb_cli.records import BASELINE, CONTROL

TEXT_WIDTH = 100


def command(argv):
    """Makes the report again."""
    parser = argparse.ArgumentParser(
        prog="pcpb report", description="Makes the report of a benchmark again from its records.")
    parser.add_argument("records", nargs="?", type=Path, metavar="FILE",
                        help=f"default: the newest in {records.FOLDER}")
    parser.add_argument("--output", metavar="FILE", help=f"the page; default: {default_page()}")
    args = parser.parse_args(argv)
    present(args.records or records.newest(), args.output)


def default_page():
    """Where the page goes."""
    return records.FOLDER / "report.html"


def present(path, output):
    """Prints the tables and writes the page."""
    comparison = records.load(path)
    target = Path(output) if output else default_page()
    print(text(comparison))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page.render(comparison, path, columns(comparison), table), encoding="utf-8")
    except OSError as error:
        raise steps.Failed(f"{target}: {error.strerror}") from None
    steps.say(f"records: {path}")
    steps.say(f"the page with plots: {target}")


def columns(comparison):
    """(heading, unit, what is in a cell) of the table; the first two columns are its rows."""
    def median(metric, form=si):
        def cell(*where):
            figure = comparison.figure(metric, *where)
            return form(figure.median) if figure else "-"
        return cell

    def timed(cell):
        """Of a guest with more CPUs than the host has cores, this is no result."""
        def marked(cpus, *where):
            text = cell(cpus, *where)
            return f"~{text}" if text != "-" and findings.crowded(comparison, cpus) else text
        return marked

    def spread(*where):
        figure = comparison.figure(records.TIME, *where)
        return f"{si(figure.low)}..{si(figure.high)}" if figure else "-"

    def against(base):
        def cell(cpus, workload, policy):
            figure = comparison.ratio(records.TIME, cpus, workload, policy, base)
            return f"{figure.median:.2f}" if figure else "-"
        return cell

    bases = [base for base in (CONTROL, BASELINE) if base in comparison.policies]
    return [
        ("time", "ns/op", timed(median(records.TIME))),
        ("min..max", "ns/op", timed(spread)),
        ("alloc", "ns/page", timed(median(records.ALLOC))),
        ("free", "ns/page", timed(median(records.FREE))),
        ("pages", "/s", timed(median(records.THROUGHPUT))),
        ("alloc", "p99, ns", timed(median(records.ALLOC_P99))),
        ("free", "p99, ns", timed(median(records.FREE_P99))),
        *(("time", f"/ {base}", timed(against(base))) for base in bases),
        ("zone lock", "/M ops", median(records.ZONE_LOCK)),
        ("contended", "/M ops", timed(median(records.CONTENDED))),
        ("irq-off", "/op", median(records.IRQ_OFF)),
        ("whole", "blocks", median(records.BLOCKS, lambda share: f"{share * 100:.1f}%")),
        ("2 MiB", "75% full", median(records.HUGE_75, lambda percent: f"{percent:.1f}%")),
        ("2 MiB", "90% full", median(records.HUGE_90, lambda percent: f"{percent:.1f}%")),
    ]


def table(comparison, cpus, wanted):
    """(workload, policy, cells) of every row."""
    for workload in comparison.workloads:
        for policy in comparison.policies:
            yield workload, policy, [cell(cpus, workload, policy) for _, _, cell in wanted]


def text(comparison):
    """The report for a terminal."""
    data = comparison.data
    out = []
    for cpus in comparison.cpus:
        out += [f"{findings.cpu_word(cpus)}, {data['mem_bytes'] >> 30} GiB, zones of "
                f"{data['zone_bytes'] >> 20} MiB; medians of {data['repeat']} rounds, "
                f"policies in turns", *_counting(comparison, cpus), "",
                *_text_table(comparison, cpus), ""]
    out += ["In words:", *("  " + findings.in_words(found) for found in findings.ratios(comparison)), ""]
    out += ["To be kept in mind:", *("  " + line for line in findings.notes(comparison)), ""]
    out.append(f"Again: {data['command']}")
    return "\n".join(out)


def _counting(comparison, cpus):
    said = findings.what_counts(comparison, cpus)
    return textwrap.wrap(said, TEXT_WIDTH) if said else []


def _text_table(comparison, cpus):
    wanted = columns(comparison)
    heads = [["workload", "policy", *(head for head, _, _ in wanted)],
             ["", "", *(unit for _, unit, _ in wanted)]]
    rows = [[workload, policy, *cells] for workload, policy, cells
            in table(comparison, cpus, wanted)]
    widths = [max(len(row[i]) for row in heads + rows) for i in range(len(heads[0]))]

    def line(row):
        return "  ".join(cell.ljust(width) if i < 2 else cell.rjust(width)
                         for i, (cell, width) in enumerate(zip(row, widths))).rstrip()

    out = [line(row) for row in heads]
    shown = None
    for row in rows:
        if row[0] == shown:
            row = ["", *row[1:]]
        else:
            shown = row[0]
            out.append("")
        out.append(line(row))
    return out
