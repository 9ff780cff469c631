"""The table of `apps list`, and the words for times and sizes in it. Pure: time is an argument."""

from __future__ import annotations

from .apps_found import Found

HEAD = ("APP", "PROCESSES", "SERIES", "MEMORY", "LAST ALIVE", "AGE", "WHERE")
# The columns of figures.
RIGHT = frozenset({1, 2, 3, 4, 5})


def table(found: list[Found], now_ms: int) -> str:
    """One line for each app; a file that cannot be read says why."""
    rows = [HEAD, *(_row(one, now_ms) for one in found if not one.error)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(_cell(row, column, widths) for column in range(len(HEAD))) for row in rows]
    lines += [f"{one.path}: {one.error}" for one in found if one.error]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _row(one: Found, now_ms: int) -> tuple[str, ...]:
    return (
        one.app,
        str(len(one.pids)),
        str(one.series),
        size(one.bytes_committed),
        "now" if one.is_alive else f"{span(now_ms - one.last_alive_ms)} ago",
        span(now_ms - one.created_ms),
        f"{one.folder}  {one.path}" if one.folder else one.path,
    )


def _cell(row: tuple[str, ...], column: int, widths: list[int]) -> str:
    text = row[column]
    return text.rjust(widths[column]) if column in RIGHT else text.ljust(widths[column])


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def span(milliseconds: int) -> str:
    """A span of time in its two largest units."""
    seconds = max(0, milliseconds) // 1000
    units = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    for at, (unit_s, sign) in enumerate(units):
        if seconds >= unit_s or sign == "s":
            text = f"{seconds // unit_s}{sign}"
            if at + 1 < len(units):
                below_s, below = units[at + 1]
                text += f" {seconds % unit_s // below_s}{below}"
            return text
    raise AssertionError("the last unit takes everything")
