"""Numbers for people: counts, durations, bytes. Pure."""

from __future__ import annotations

NOTHING = "–"


def count(value: float | None) -> str:
    """`1,000,000`; three digits where it is a fraction."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.3g}"


def short(value: float) -> str:
    """`1M`, `250k`, `0.5`: for the ticks of an axis."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Three digits and the unit that fits: `410 µs`, `4.3 ms`, `1.2 s`, `4 min`."""
    if seconds is None:
        return NOTHING
    if seconds == 0:
        return "0 s"
    if seconds >= 120:
        return f"{seconds / 60:.3g} min"
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def size(value: float | None) -> str:
    """`8,123 B`, `23.5 GiB`."""
    if value is None:
        return NOTHING
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:,.0f} B"


def microseconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g} µs"


def ratio(part: float, whole: float) -> str:
    """A share in per cent that says 100 % only when it is all."""
    if not whole:
        return NOTHING
    share = 100 * part / whole
    if part != whole and share > 99.9:
        return "over 99.9 %"
    return f"{share:.3g} %"
