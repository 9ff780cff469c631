"""Charts as SVG: time lines with their phases, and a distribution. Pure.

Purpose: the few kinds of picture that a report needs, drawn without a library, so that the file
needs nothing from elsewhere. Colours and fonts are classes of `style`; the numbers behind a chart
are told a second time as data, for the cursor of the page.

Limits: all charts of a page share one width and one time scale, so that what happened at the same
time stands above each other. A value of None is a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

import msgspec

from .model import Phase
from .quantity import count, duration, short

WIDTH, HEIGHT = 1000, 230
LEFT, RIGHT, TOP, BOTTOM = 64, 992, 26, 204
BARS = 64
# What is less is drawn as nothing: below a nanosecond nothing is measured.
LEAST = 1e-9
# Below this share of the width a phase has no room for its name.
LABEL_SHARE = 0.05
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21_600, 43_200, 86_400)

Values = Sequence[float | None]


class Line(msgspec.Struct, frozen=True):
    """One series of a chart: its name, its class in the style sheet, a value for each time."""

    name: str
    colour: str
    values: Values
    # An area below it; or wide and pale, for what another line will cover.
    is_area: bool = False
    is_wide: bool = False


class Scale(msgspec.Struct, frozen=True):
    """From values to a height, and the ticks."""

    low: float
    high: float
    ticks: list[float]
    is_log: bool = False

    def y(self, value: float) -> float:
        if self.is_log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return BOTTOM - min(max(share, 0.0), 1.0) * (BOTTOM - TOP)


def linear(values: Iterable[float | None], least: float = 0.0) -> Scale:
    """From 0 to a round number above the highest value, or above `least`."""
    highest = max([least, *(v for v in values if v is not None)])
    if highest < LEAST:
        return Scale(0.0, 1.0, [0.0, 1.0])
    step = _nice(highest / 4)
    steps = max(1, math.ceil(highest / step - 1e-9))
    return Scale(0.0, steps * step, [i * step for i in range(steps + 1)])


def logarithmic(values: Iterable[float | None]) -> Scale:
    """Whole decades around the values, with a tick at each."""
    known = [max(value, LEAST) for value in values if value]
    low = math.floor(math.log10(min(known, default=0.001)) + 1e-9)
    high = max(low + 1, math.ceil(math.log10(max(known, default=0.01)) - 1e-9))
    return Scale(10.0**low, 10.0**high, [10.0**i for i in range(low, high + 1)], is_log=True)


def time_chart(
    times: Sequence[float],
    lines: Sequence[Line],
    scale: Scale,
    phases: Sequence[Phase],
    *,
    name: str,
    title: str,
    tick: Callable[[float], str] = short,
    mark: tuple[float, str] | None = None,
) -> str:
    """Lines over time. `mark` is a value to compare with, and its name."""
    end = max(times, default=1.0) or 1.0
    parts = [_opening(title, f' data-chart="{escape(name)}"')]
    parts += _phases(phases, end)
    parts += _grid(scale, tick)
    parts += [_time_tick(at, end) for at in _time_ticks(end)]
    if mark and scale.low < mark[0] <= scale.high:
        y = scale.y(mark[0])
        parts.append(f'<line class="mark" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f'<text class="marked" x="{RIGHT - 4}" y="{y + 14:.1f}">{escape(mark[1])}</text>'
        parts.append(label)
    xs = [_x(at, end) for at in times]
    for line in lines:
        parts += _series(xs, line, scale)
    parts.append(f'<line class="cursor" x1="0" x2="0" y1="{TOP}" y2="{BOTTOM}"/></svg>')
    return "".join(parts)


def distribution_chart(
    buckets: Sequence[tuple[float, int]], marks: Sequence[tuple[str, float]], *, title: str
) -> str:
    """How many durations fell where, on a logarithmic axis; `marks` are lines with a name."""
    bars, edges = rebin(buckets)
    scale = linear(bars)
    low, high = edges[0], max([edges[-1], *(seconds for _, seconds in marks)])

    def x(seconds: float) -> float:
        share = math.log(max(seconds, low) / low) / math.log(high / low)
        return LEFT + share * (RIGHT - LEFT)

    parts = [_opening(title)]
    parts += _grid(scale, short)
    parts += [_x_label(x(seconds), duration(seconds)) for seconds in _log_ticks(low, high)]
    for number, n in enumerate(bars):
        if not n:
            continue
        left, right, y = x(edges[number]), x(edges[number + 1]), scale.y(n)
        told = f"{duration(edges[number])} to {duration(edges[number + 1])}: {count(n)}"
        parts.append(
            f'<rect class="bar" x="{left:.1f}" y="{y:.1f}" width="{max(right - left - 1, 0.5):.1f}"'
            f' height="{BOTTOM - y:.1f}"><title>{escape(told)}</title></rect>'
        )
    parts += _marks([(name, x(seconds)) for name, seconds in marks])
    return "".join([*parts, "</svg>"])


def rebin(buckets: Sequence[tuple[float, int]]) -> tuple[list[int], list[float]]:
    """The buckets as at most BARS bars of one width on a logarithmic axis, and the bars' edges."""
    uppers = [max(upper, LEAST) for upper, n in buckets if n]
    low, high = min(uppers, default=1e-3) / 1.05, max(uppers, default=1e-2)
    high = max(high, low * 1.5)
    bars = min(BARS, max(8, len(uppers)))
    width = math.log(high / low) / bars
    counts = [0] * bars
    for upper, n in buckets:
        at = math.ceil(math.log(max(upper, LEAST) / low) / width - 1e-9) - 1 if n else 0
        counts[min(max(at, 0), bars - 1)] += n
    return counts, [low * math.exp(i * width) for i in range(bars + 1)]


def _opening(title: str, more: str = "") -> str:
    return (
        f'<svg class="chart"{more} role="img" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' aria-label="{escape(title)}">'
    )


def _marks(marks: Sequence[tuple[str, float]]) -> list[str]:
    """Upright lines with names, each on the first level where it touches no other."""
    parts, taken = [], [LEFT - 100.0] * len(marks)
    for name, x in marks:
        is_left = x > RIGHT - 40
        start, end = (x - 40, x) if is_left else (x, x + 40)
        level = next((i for i, used in enumerate(taken) if start >= used), len(taken) - 1)
        taken[level] = end
        y = TOP - 10 + 14 * level
        side = f'x="{x - 4:.1f}" class="marked"' if is_left else f'x="{x + 4:.1f}"'
        parts.append(
            f'<line class="percentile" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{BOTTOM}"/>'
            f'<text {side} y="{y}">{escape(name)}</text>'
        )
    return parts


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade; over many decades only the decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 5 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _x(at: float, end: float) -> float:
    return LEFT + min(max(at / end, 0.0), 1.0) * (RIGHT - LEFT)


def _phases(phases: Sequence[Phase], end: float) -> list[str]:
    parts = []
    for number, phase in enumerate(phases):
        left, right = _x(phase.t0, end), _x(phase.t1, end)
        parts.append(
            f'<rect class="phase{number % 2}" x="{left:.1f}" y="{TOP}"'
            f' width="{max(right - left, 0):.1f}" height="{BOTTOM - TOP}"'
            f"><title>{escape(phase.name)}: {duration(phase.t1 - phase.t0)}</title></rect>"
        )
        if right - left >= max(LABEL_SHARE * (RIGHT - LEFT), 8 * len(phase.name)):
            x = (left + right) / 2
            parts.append(f'<text class="phase" x="{x:.1f}" y="{TOP - 8}">')
            parts.append(f"{escape(phase.name)}</text>")
    return parts


def _grid(scale: Scale, tick: Callable[[float], str]) -> list[str]:
    parts = []
    for value in scale.ticks:
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 8}" y="{y + 4:.1f}">{escape(tick(value))}</text>')
    return parts


def _time_ticks(end: float) -> list[float]:
    step = next((step for step in STEPS_S if end / step <= 12), 86_400 * math.ceil(end / 1e6))
    return [i * step for i in range(int(end / step) + 1)]


def _time_tick(at: float, end: float) -> str:
    if end < 300:
        return _x_label(_x(at, end), f"{at:g} s")
    if end < 3 * 3600:
        return _x_label(_x(at, end), f"{at / 60:g} min")
    return _x_label(_x(at, end), f"{at / 3600:g} h")


def _x_label(x: float, words: str) -> str:
    return (
        f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{BOTTOM}" y2="{BOTTOM + 4}"/>'
        f'<text class="x" x="{x:.1f}" y="{BOTTOM + 19}">{escape(words)}</text>'
    )


def _series(xs: Sequence[float], line: Line, scale: Scale) -> list[str]:
    """A path, broken where there is no value; a lone value is a dot."""
    runs: list[list[str]] = [[]]
    for x, value in zip(xs, line.values, strict=True):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{x:.1f} {scale.y(value):.1f}")
    runs = [run if len(run) > 1 else run * 2 for run in runs if run]
    parts = []
    if line.is_area:
        for run in runs:
            first, last = run[0].split()[0], run[-1].split()[0]
            shape = f"M{first} {BOTTOM}L{'L'.join(run)}L{last} {BOTTOM}Z"
            parts.append(f'<path class="area {line.colour}" d="{shape}"/>')
    path = "".join(f"M{'L'.join(run)}" for run in runs)
    if path:
        kind = "wide" if line.is_wide else "line"
        parts.append(f'<path class="{kind} {line.colour}" d="{path}"/>')
    return parts


def _nice(value: float) -> float:
    """The next of 1, 2, 5, 10, ... that is not below."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= value * (1 - 1e-9))
