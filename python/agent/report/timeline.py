"""Long time lines made short enough to draw, without losing what matters in them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .model import Moment

POINTS_MAX = 400


def condense(moments: Sequence[Moment], points: int = POINTS_MAX) -> list[Moment]:
    """At most `points` moments. Each stands for a stretch of time: counts are those at its end,
    rates and CPU its mean, and what must not be averaged away (p99, failures, losses) its highest.
    """
    if len(moments) <= points:
        return list(moments)
    each = -(-len(moments) // points)
    return [_merge(moments[at : at + each]) for at in range(0, len(moments), each)]


def _merge(group: Sequence[Moment]) -> Moment:
    def mean(name: str) -> float | None:
        values = [value for one in group if (value := getattr(one, name)) is not None]
        return sum(values) / len(values) if values else None

    p99 = [one.p99_s for one in group if one.p99_s is not None]
    return Moment(
        t=group[-1].t,
        open=group[-1].open,
        opening=max(one.opening for one in group),
        opened_per_s=mean("opened_per_s") or 0.0,
        sent_per_s=mean("sent_per_s") or 0.0,
        acked_per_s=mean("acked_per_s") or 0.0,
        failed_per_s=max(one.failed_per_s for one in group),
        lost_per_s=max(one.lost_per_s for one in group),
        p50_s=mean("p50_s"),
        p99_s=max(p99) if p99 else None,
        client_cpu=mean("client_cpu"),
        server_cpu=mean("server_cpu"),
    )
