# SPDX-License-Identifier: GPL-2.0
"""Charts as inline SVG: rows of dots with their spread, and small panels of lines.

Colours come from the page's style sheet by class: a series that is called NAME
has the class s-NAME, so that a policy looks the same everywhere, and a dark
page needs no other chart.
"""

import math
from html import escape

WIDTH = 1080
TOP, BOTTOM = 30, 24
LABEL_WIDTH = 190
PANEL_GAP = 26
# Room right of a panel's plot for the value of a dot at its end.
VALUE_WIDTH = 62
LANE, ROW_GAP = 14, 10


def si(value):
    """A number as it is said: three digits and a unit."""
    if value == 0:
        return "0"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


class Linear:
    """A scale from 0."""

    def __init__(self, high, form=si):
        self.high, self.form = high or 1, form

    def place(self, value):
        """Where a value is, 0 to 1."""
        return value / self.high

    def ticks(self):
        """(value, label) of the grid lines."""
        step = 10 ** math.floor(math.log10(self.high))
        while self.high / step < 3:
            step /= 2 if self.high / step >= 1.5 else 5
        return [(step * i, self.form(step * i)) for i in range(int(self.high / step + 1e-9) + 1)]


class Log:
    """A logarithmic scale; with `zero`, a place of its own for 0 left of all others."""

    ZERO_WIDTH = 0.08

    def __init__(self, low, high, form=si, zero=False, steps=(1,)):
        self.low, self.high = low, max(high, low * 1.01)
        self.form, self.zero, self.steps = form, zero, steps

    def place(self, value):
        """Where a value is, 0 to 1."""
        if self.zero and value <= 0:
            return 0
        span = math.log(self.high / self.low)
        part = math.log(max(value, self.low) / self.low) / span
        return self.ZERO_WIDTH + part * (1 - self.ZERO_WIDTH) if self.zero else part

    def ticks(self):
        """(value, label) of the grid lines."""
        found = [(0, "0")] if self.zero else []
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            for step in self.steps:
                value = step * 10.0 ** power
                if self.low * 0.999 <= value <= self.high * 1.001:
                    found.append((value, self.form(value)))
        return found


def decades(values, zero=False):
    """A logarithmic scale of whole decades around these values."""
    positive = [value for value in values if value > 0] or [1]
    low = 10.0 ** math.floor(math.log10(min(positive)) + 1e-9)
    high = 10.0 ** math.ceil(math.log10(max(positive)) - 1e-9)
    return Log(low, max(high, low * 10), zero=zero)


def dots(title, panels, rows, series, figure, scale, form=si, mark=None):
    """A row per workload, in it a lane per policy with a dot and its spread; panels side by side.

    `panels` are (key, caption); `figure(panel, row, name)` gives something with median, low and
    high, or None. `mark` is a value with a line of its own, such as 1 for ratios.
    """
    row_height = len(series) * LANE + ROW_GAP
    height = TOP + len(rows) * row_height + BOTTOM
    width = (WIDTH - LABEL_WIDTH) / len(panels)
    out = [_open(title, WIDTH, height)]
    for i, row in enumerate(rows):
        y = TOP + i * row_height
        if i % 2 == 0:
            out.append(f'<rect class="band" x="0" y="{y}" width="{WIDTH}" height="{row_height}"/>')
        middle = y + row_height / 2 + 4
        out.append(_text(8, middle, row, "row"))
        for lane, name in enumerate(series):
            out.append(_text(LABEL_WIDTH - 14, _lane_y(y, lane) + 3.5, name,
                             f"lane s-{name}", "end"))
    for at, (key, caption) in enumerate(panels):
        left = LABEL_WIDTH + at * width
        plot = _Plot(left, left + width - PANEL_GAP - VALUE_WIDTH, scale)
        out.append(_text(left, 13, caption, "panel"))
        out.append(plot.grid(TOP, height - BOTTOM, mark))
        for i, row in enumerate(rows):
            for lane, name in enumerate(series):
                y = _lane_y(TOP + i * row_height, lane)
                out.append(plot.dot(y, figure(key, row, name), name, form))
    return "\n".join([*out, "</svg>"])


def _lane_y(row_y, lane):
    return row_y + ROW_GAP / 2 + (lane + 0.5) * LANE


class _Plot:
    """The area of one panel."""

    def __init__(self, left, right, scale):
        self.left, self.right, self.scale = left, right, scale

    def x(self, value):
        """Where a value is, in the picture."""
        return self.left + min(max(self.scale.place(value), 0), 1) * (self.right - self.left)

    def grid(self, top, bottom, mark):
        """Vertical lines with their labels."""
        out = []
        for value, label in self.scale.ticks():
            x = self.x(value)
            kind = "mark" if mark is not None and math.isclose(value, mark) else "grid"
            out.append(f'<line class="{kind}" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
            out.append(_text(x, bottom + 14, label, "tick", "middle"))
        return "\n".join(out)

    def dot(self, y, figure, name, form):
        """A median with its spread and its value in digits."""
        if figure is None:
            return _text(self.left + 4, y + 3.5, "not observable", "none")
        low, x, high = (self.x(value) for value in (figure.low, figure.median, figure.high))
        said = f"{name}: {form(figure.median)}, from {form(figure.low)} to {form(figure.high)}"
        return (f'<g class="s-{name}"><title>{escape(said)}</title>'
                f'<line class="spread" x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}"/>'
                f'<circle cx="{x:.1f}" cy="{y}" r="3.6"/>'
                + _text(max(x, high) + 7, y + 3.5, form(figure.median), "value") + "</g>")


# Small panels of lines
CELL_WIDTH, CELL_HEIGHT, CELLS = 262, 178, 4


def lines(title, rows, columns, series, value):
    """A small panel per workload: a line per policy over the columns, from 0, named at its end.

    `columns` are numbers of CPUs; `value(column, row, name)` is a number or None, 1 in the first
    column.
    """
    shelves = math.ceil(len(rows) / CELLS)
    height = shelves * CELL_HEIGHT
    out = [_open(title, WIDTH, height)]
    for i, row in enumerate(rows):
        left, top = i % CELLS * (CELL_WIDTH + 10), i // CELLS * CELL_HEIGHT
        curves = {name: [value(column, row, name) for column in columns] for name in series}
        out.append(_cell(left, top, row, columns, curves))
    return "\n".join([*out, "</svg>"])


def _cell(left, top, row, columns, curves):
    known = [value for curve in curves.values() for value in curve if value is not None]
    ideal = columns[-1] / columns[0]
    high = max([ideal, *known]) * 1.05
    x0, x1 = left + 40, left + CELL_WIDTH - 52
    y0, y1 = top + CELL_HEIGHT - 34, top + 26
    scale = Linear(high, form=lambda number: f"×{number:g}")

    def x(column):
        first, last = math.log(columns[0]), math.log(columns[-1])
        return x0 + 8 + (math.log(column) - first) / ((last - first) or 1) * (x1 - x0 - 16)

    def y(number):
        return y0 - scale.place(number) * (y0 - y1)

    out = [_text(left + 4, top + 13, row, "row")]
    for number, label in scale.ticks():
        out.append(f'<line class="grid" x1="{x0}" y1="{y(number):.1f}" x2="{x1}" '
                   f'y2="{y(number):.1f}"/>')
        out.append(_text(x0 - 5, y(number) + 3.5, label, "tick", "end"))
    for column in columns:
        out.append(_text(x(column), y0 + 14, column, "tick", "middle"))
    out.append(_text((x0 + x1) / 2, y0 + 28, "CPUs", "tick", "middle"))
    out.append(f'<line class="ideal" x1="{x(columns[0]):.1f}" y1="{y(1):.1f}" '
               f'x2="{x(columns[-1]):.1f}" y2="{y(ideal):.1f}"/>')
    ends = {}
    for name, curve in curves.items():
        points = [(x(column), y(number)) for column, number in zip(columns, curve)
                  if number is not None]
        if not points:
            continue
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        dots_ = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points)
        out.append(f'<g class="s-{name}"><polyline points="{path}"/>{dots_}</g>')
        ends[name] = points[-1][1]
    for name, label_y in _apart(ends, 12, y0).items():
        out.append(_text(x1 - 2, label_y + 3.5, name, f"lane s-{name}"))
    return "\n".join(out)


def _apart(places, distance, lowest):
    """Moves labels that would cover each other apart, around where they belong."""
    groups = []  # (names from top to bottom, place of the first)
    for name in sorted(places, key=places.get):
        groups.append(_group([name], places, distance, lowest))
        while len(groups) > 1 and _end(groups[-2], distance) > groups[-1][1]:
            names = groups[-2][0] + groups.pop()[0]
            groups[-1] = _group(names, places, distance, lowest)
    return {name: first + i * distance for names, first in groups for i, name in enumerate(names)}


def _group(names, places, distance, lowest):
    """Labels that touch each other, as a whole where their mean place is."""
    span = (len(names) - 1) * distance
    first = sum(places[name] for name in names) / len(names) - span / 2
    return names, min(first, lowest - span)


def _end(group, distance):
    return group[1] + len(group[0]) * distance


def _open(title, width, height):
    return (f'<svg viewBox="0 0 {width} {height:.0f}" role="img" '
            f'aria-label="{escape(title)}">')


def _text(x, y, text, kind, anchor="start"):
    return (f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(str(text))}</text>")
