"""Uses of the API that must type-check, and that `tests/test_stub.py` also runs."""

from __future__ import annotations

import array

import agent
from agent import Counter, Gauge, Histogram, Registry, Summary


def use(registry: Registry) -> bytes:
    """Every public call, as a user would write it."""
    requests = Counter("requests", "Requests.", ["method", "code"], registry=registry)
    child: Counter = requests.labels("GET", 200)
    child.inc()
    child.inc(2)
    requests.labels(method="GET", code="200").inc(amount=0.5)
    requests.labels("POST", "201").inc_many([1, 2.5])
    removed: bool = requests.remove("POST", "201")

    level = Gauge("level", "Level.", registry=registry, multiprocess_mode="livesum")
    level.set(1)
    level.inc()
    level.dec(0.5)
    level.set_to_current_time()
    with level.track_inprogress():
        pass

    took = Histogram("took", "Time.", unit="seconds", registry=registry)
    took.observe(0.1)
    took.observe_many(array.array("d", [0.1, 0.2]))
    Histogram("sizes", "Sizes.", buckets=(1, 2, 4), registry=registry).observe(3)
    Histogram("native", "Native.", native=True, registry=registry).observe(3)
    Histogram("fine", "Fine.", schema=5, registry=registry).observe(3)

    @took.time()
    def work(number: int) -> str:
        return str(number)

    text: str = work(1)

    waits = Summary("waits", "Waits.", ["queue"], quantiles=[0.5], registry=registry)
    with waits.labels(queue="a").time():
        pass

    faults = Counter("faults", "Faults.", registry=registry)
    with faults.count_exceptions(KeyError):
        pass
    try:
        child.inc(-1)
    except agent.AmountError as error:
        text += str(error)

    where: str | None = registry.path
    trouble: tuple[str, str] | None = registry.fallback
    assert removed
    assert text
    assert where is None
    assert trouble is None
    page: bytes = registry.render(format="openmetrics")
    return page


def name_it() -> None:
    """Not run by the tests: it would name their own process."""
    agent.configure(app="shop")
    agent.configure(strict=True)
