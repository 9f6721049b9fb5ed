# SPDX-License-Identifier: GPL-2.0
"""The report as one HTML file that needs nothing else: text, tables, charts, light and dark."""

from html import escape

from pcpb_cli import chart, findings, records
from pcpb_cli.records import BASELINE, CONTROL, POLICIES

# Panels side by side in a chart.
PANELS = 2
# Beside the times of a guest with more CPUs than the host has cores.
NO_RESULT = " (no result: CPUs waited for the host)"

STYLE = """
:root { color-scheme: light dark;
  --back: #ffffff; --band: #f6f7f9; --text: #1c2128; --soft: #59636e; --line: #dde1e6;
  --mark: #8b949e; --box: #f6f7f9; }
@media (prefers-color-scheme: dark) { :root {
  --back: #14171c; --band: #1a1e25; --text: #e4e7eb; --soft: #9aa4af; --line: #2e353e;
  --mark: #6b7681; --box: #1c2129; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1128px; padding: 28px 24px 60px; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 25px; margin: 0 0 2px } h2 { font-size: 19px; margin: 42px 0 4px }
h3 { font-size: 15px; margin: 22px 0 6px }
p { margin: 4px 0 10px; max-width: 78ch } .soft, figcaption { color: var(--soft) }
code, pre { font: 13px/1.45 ui-monospace, monospace }
pre { background: var(--box); padding: 8px 12px; border-radius: 6px; overflow-x: auto; margin: 6px 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 14px 0 }
dt { color: var(--soft) } dd { margin: 0 }
ul { margin: 6px 0; padding-left: 20px; max-width: 96ch } li { margin: 3px 0 }
figure { margin: 10px 0 0; overflow-x: auto } figcaption { font-size: 13px; margin-top: 6px }
figcaption pre { margin: 4px 0 }
svg { width: 100%; min-width: 820px; height: auto; display: block; margin: 8px 0 }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg .row, svg .panel { font-weight: 600; font-size: 12px; fill: var(--text) }
svg .value { fill: var(--text) } svg .none { font-style: italic; font-size: 10px }
svg .grid { stroke: var(--line) } svg .mark { stroke: var(--mark); stroke-width: 1.5 }
svg .band { fill: var(--band) } svg .spread { stroke-width: 2; opacity: .55 }
svg polyline { fill: none; stroke-width: 2 }
svg .ideal { stroke: var(--mark); stroke-width: 1; stroke-dasharray: 3 3 }
td small { color: var(--soft); display: block }
.left th, .left td { text-align: left; vertical-align: top }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 2px 9px; text-align: right; white-space: nowrap }
th { font-weight: 600; border-bottom: 1px solid var(--mark); vertical-align: bottom }
th small { font-weight: 400; color: var(--soft); display: block }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left }
tr.first td { border-top: 1px solid var(--line) } td:first-child { font-weight: 600 }
"""


def render(comparison, path, columns, table):
    """The whole page; `columns` and `table` are those of the terminal's report."""
    data = comparison.data
    title = "Page allocators side by side"
    body = [
        f"<h1>{title}</h1>",
        f'<p class="soft">{_words_of(comparison)}</p>',
        _facts(comparison, path),
        "<h3>In short</h3>", _list(findings.headlines(comparison)),
        _ratio_table(comparison),
        "<h3>To be kept in mind</h3>", _list(findings.notes(comparison)),
        *_figures(comparison),
        "<h2>All figures</h2>",
        f"<p>Medians of {data['repeat']} rounds. An operation is one allocation together with its "
        "free; times are elapsed time over the operations of all CPUs.</p>",
    ]
    for cpus in comparison.cpus:
        said = findings.what_counts(comparison, cpus)
        body += [f"<h3>{findings.cpu_word(cpus)}</h3>", f"<p>{escape(said)}</p>" if said else "",
                 _table(comparison, cpus, columns, table)]
    body += ["<h2>Workloads</h2>", _commands(comparison)]
    styles = STYLE + "".join(_colours(POLICIES[name]) for name in comparison.policies)
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>pcp_buddy: {title.lower()}</title>", f"<style>{styles}</style></head><body>",
        *body, "</body></html>", ""])


def _colours(policy):
    """The style of everything that is about a policy."""
    light, dark = policy.colours
    name = policy.name
    return (f":root {{ --{name}: {light} }}\n"
            f"@media (prefers-color-scheme: dark) {{ :root {{ --{name}: {dark} }} }}\n"
            f".s-{name} circle, svg text.s-{name}, .s-{name}.word {{ fill: var(--{name}); "
            f"color: var(--{name}) }}\n"
            f".s-{name} .spread, .s-{name} polyline {{ stroke: var(--{name}) }}\n")


def _words_of(comparison):
    policies = "; ".join(f'<b class="word s-{name}">{name}</b>, {escape(POLICIES[name].about)}'
                         for name in comparison.policies)
    return f"Compared by pcp_buddy within one boot per number of CPUs: {policies}."


def _facts(comparison, path):
    data = comparison.data
    kernel, host, commit = data["kernel"], data["host"], data["commit"]
    version = data["boots"][0]["kernel_version"]
    patches = ", ".join(kernel["patches"]) or "no patch"
    rows = [
        ("Kernel", f"Linux {version}, {kernel['name']} ({patches}), build {kernel['build']}"),
        ("CPUs", f"{', '.join(map(str, comparison.cpus))}, of {host['cpus']} of the host: "
                 f"{host['cpu']}"),
        ("Memory", f"{data['mem_bytes'] >> 30} GiB a guest, {data['zone_bytes'] >> 20} MiB a zone; "
                   f"the host has {host['mem_bytes'] / (1 << 30):.0f} GiB and runs {host['kernel']}"),
        ("Rounds", f"{data['repeat']} of every workload after a warm-up; policies take turns in "
                   "each, and who is first changes"),
        ("Commit", (commit["id"][:12] + (" with changes" if commit["dirty"] else ""))
                   if commit else "not a checkout"),
        ("Date", data["date"]),
        ("Records", path.name),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    return f"<dl>{listed}</dl>\n{_command(data['command'])}"


def _ratio_table(comparison):
    """Ratios over all workloads, with the workloads where they are least and most."""
    heads = "".join(f"<th>{findings.cpu_word(cpus)}</th>" for cpus in comparison.cpus)
    rows, shown = [], None
    for found in findings.ratios(comparison):
        first = found.policy != shown
        shown = found.policy
        cells = "".join(f"<td>{_ratio_cell(found.by_cpus.get(cpus))}</td>" for cpus in comparison.cpus)
        rows.append(f'<tr{" class=first" if first else ""}>'
                    f'<td class="word s-{shown}">{shown if first else ""}</td>'
                    f"<td>{found.what}, against {found.base}</td>{cells}</tr>")
    return (f'<div class="wide"><table class="left"><tr><th>policy</th><th>ratio over all workloads</th>{heads}'
            "</tr>" + "\n".join(rows) + "</table></div>")


def _ratio_cell(found):
    if not found:
        return "-"
    text = f"<b>{findings.times(found.middle)}</b>"
    if found.least_in != found.most_in:
        text += (f" <small>{findings.times(found.least)} in {escape(found.least_in)} to "
                 f"{findings.times(found.most)} in {escape(found.most_in)}</small>")
    return text


def _list(texts):
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def _command(text):
    return f"<pre>{escape(text)}</pre>"


# Figures


def _figures(comparison):
    policies = comparison.policies
    managed = [name for name in policies if not POLICIES[name].control]
    out = []
    for base in (BASELINE, CONTROL):
        others = [name for name in policies if name != base]
        if base in policies and others:
            out.append(_ratios(comparison, base, others))
    out.append(_throughput(comparison, policies))
    if managed:
        out.append(_zone_lock(comparison, managed))
        out.append(_blocks(comparison, managed))
    if len(comparison.cpus) > 1:
        out.append(_scaling(comparison, policies))
    return out


def _ratios(comparison, base, others):
    def figure(cpus, workload, policy):
        return comparison.ratio(records.TIME, cpus, workload, policy, base)
    known = _known(comparison, others, figure)
    low = min([0.5, *(one.low for one in known)]) / 1.05
    high = max([2, *(one.high for one in known)]) * 1.05
    scale = chart.Log(low, high, form=lambda value: f"×{value:g}",
                      steps=(1, 2, 5) if high / low < 50 else (1,))
    return _section(
        comparison, f"Time against {base}",
        f"Time per operation divided by that of {base} in the same round; left of ×1 is faster. "
        "Dot: median; bar: lowest to highest round. Logarithmic.",
        _dots(comparison, f"Time against {base}", others, figure, scale,
              form=findings.times, mark=1, timed=True))


def _throughput(comparison, policies):
    def figure(cpus, workload, policy):
        return comparison.figure(records.THROUGHPUT, cpus, workload, policy)
    known = _known(comparison, policies, figure)
    scale = chart.decades([value for one in known for value in (one.low, one.high)])
    return _section(
        comparison, "Throughput",
        "Pages per second, allocated and freed, all CPUs together. Dot: median; bar: lowest to "
        "highest round. Logarithmic; right is better.",
        _dots(comparison, "Throughput in pages per second", policies, figure, scale,
              timed=True))


def _zone_lock(comparison, policies):
    def figure(cpus, workload, policy):
        return comparison.figure(records.ZONE_LOCK, cpus, workload, policy)
    known = _known(comparison, policies, figure)
    scale = chart.decades([value for one in known for value in (one.low, one.high)], zero=True)
    return _section(
        comparison, "Zone lock",
        "Acquisitions of the zone lock per million operations. Logarithmic, with a place of its "
        "own for 0; left is better.",
        _dots(comparison, "Zone lock acquisitions per million operations", policies, figure, scale))


def _blocks(comparison, policies):
    def figure(cpus, workload, policy):
        return comparison.figure(records.BLOCKS, cpus, workload, policy)

    def percent(value):
        return f"{value * 100:.1f}%".replace(".0%", "%")
    return _section(
        comparison, "Free whole blocks after the run",
        "Pageblocks that are free as a whole, in the zone or on one CPU, of all pageblocks, right "
        "after a run that has freed everything and before any drain. What is missing is scattered "
        "over lists of several CPUs or of small orders. Right is better.",
        _dots(comparison, "Share of whole free pageblocks", policies, figure,
              chart.Linear(1, form=percent), form=percent))


def _scaling(comparison, policies):
    least = comparison.cpus[0]

    def value(cpus, workload, policy):
        figures = [comparison.figure(records.THROUGHPUT, nr, workload, policy) for nr in (cpus, least)]
        return figures[0].median / figures[1].median if all(figures) else None
    picture = chart.lines("Scaling", comparison.workloads, comparison.cpus, policies, value)
    return _section(
        comparison, "Scaling",
        f"Throughput of all CPUs together, in multiples of the same policy's with "
        f"{findings.cpu_word(least)}, over the number of CPUs; medians of different boots. The grey "
        "line is ideal scaling; where CPUs hand pages over to each other, it is not to be had. Beyond "
        f"the {findings.cpu_word(comparison.data['host']['cpus'])} of the host, it says nothing.",
        picture)


def _known(comparison, policies, figure):
    """All figures that there are, to find a scale for them."""
    found = (figure(cpus, workload, policy) for cpus in comparison.cpus
             for workload in comparison.workloads for policy in policies)
    return [one for one in found if one]


def _dots(comparison, title, policies, figure, scale, timed=False, **options):
    unit = title[0].lower() + title[1:]
    panels = [(cpus, f"{findings.cpu_word(cpus)}: {unit}"
               + (NO_RESULT if timed and findings.crowded(comparison, cpus) else ""))
              for cpus in comparison.cpus]
    return "\n".join(
        chart.dots(title, panels[at:at + PANELS], comparison.workloads, policies, figure, scale,
                   **options)
        for at in range(0, len(panels), PANELS))


def _section(comparison, title, about, picture):
    return (f"<h2>{title}</h2><p>{about}</p><figure>{picture}<figcaption>Reproduce with"
            f"{_command(comparison.data['command'])}</figcaption></figure>")


# Tables


def _table(comparison, cpus, columns, table):
    heads = "".join(f"<th>{escape(head)}<small>{escape(unit)}</small></th>"
                    for head, unit, _ in columns)
    rows, shown = [], None
    for workload, policy, cells in table(comparison, cpus, columns):
        first = workload != shown
        shown = workload
        rows.append(f'<tr{" class=first" if first else ""}><td>{escape(workload) if first else ""}'
                    f'</td><td class="word s-{policy}">{policy}</td>'
                    + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return (f'<div class="wide"><table><tr><th>workload</th><th>policy</th>{heads}</tr>'
            + "\n".join(rows) + "</table></div>")


def _commands(comparison):
    """What was run, word by word."""
    out = []
    for cpus in comparison.cpus:
        boot = comparison.boots[cpus]
        lines = dict.fromkeys(run["command"] for run in boot["runs"])
        out += [f"<h3>{findings.cpu_word(cpus)}</h3>", _command(boot["command"]),
                "<p>with the zones</p>", _command("\n".join(boot["zones"])),
                "<p>and, written to the <code>run</code> file of each,</p>",
                _command("\n".join(lines))]
    return "\n".join(out)
