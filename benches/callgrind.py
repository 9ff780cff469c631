"""Instruction counts of the hot calls against the budgets of budgets.toml: a gate without noise.

Wall time on a shared machine moves by 2x; the number of instructions does not. Each case runs
under callgrind with N and with M turns of the same loop; the difference of the two totals, divided
by M - N, is the cost of one turn, start-up cancelled out. Repeats differ by under one instruction.

    python benches/callgrind.py            judge: exit 1 when a case is over its budget
    python benches/callgrind.py --update   write the measured counts plus the allowance as budgets

Not seen here: cache misses, locks and system calls. An instruction more is not always a nanosecond.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

BUDGETS = Path(__file__).with_name("budgets.toml")
FEW, MANY = 2_000, 12_000
# What a budget allows over the count it was made from: another patch release of Python or libc.
ALLOWANCE = 1.03

# Each case: what happens once, and the line that is counted.
CASES = {
    "empty_loop": ("", "pass"),
    "c_method": ("import io; tell = io.BytesIO().tell", "tell()"),
    "counter_inc": ("c = agent.Counter('c', 'C.'); inc = c.inc", "inc()"),
    "labels_inc": (
        "c = agent.Counter('c', 'C.', ['a', 'b', 'c']); x, y, z = 'GET', '/orders', '200'",
        "c.labels(x, y, z).inc()",
    ),
    "gauge_set": ("set_ = agent.Gauge('g', 'G.').set", "set_(0.125)"),
    "histogram_observe": ("observe = agent.Histogram('h', 'H.').observe", "observe(0.125)"),
}
PROGRAM = """\
import sys, itertools
import agent
def main(turns):
    {setup}
    for _ in itertools.repeat(None, 500 + turns):
        {line}
main(int(sys.argv[1]))
"""


def instructions(case: str, turns: int) -> int:
    """The instructions of a whole run with that many turns."""
    setup, line = CASES[case]
    with tempfile.TemporaryDirectory(prefix="agent-callgrind-") as folder:
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "AGENT_METRICS_DIR": folder,
            "AGENT_METRICS_APP": "callgrind",
        }
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                sys.executable,
                # In private memory, after a failure, the counts would be of something else.
                "-Werror",
                "-c",
                PROGRAM.format(setup=setup, line=line),
                str(turns),
            ],
            env=env,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or collected is None:
        raise RuntimeError(f"{case} did not run under callgrind:\n{done.stderr}")
    return int(collected[1])


def per_turn(case: str) -> float:
    return (instructions(case, MANY) - instructions(case, FEW)) / (MANY - FEW)


def measured() -> dict[str, float]:
    """The count of every case, less the empty loop (which is reported as it is)."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(CASES, pool.map(per_turn, CASES), strict=True))
    loop = counts["empty_loop"]
    return {case: count - (case != "empty_loop") * loop for case, count in counts.items()}


def interpreter() -> str:
    """Budgets hold for a Python minor version on one architecture."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}-{os.uname().machine}"


def judge(counts: dict[str, float], budgets: dict[str, float]) -> bool:
    """Prints the table; true when nothing is over its budget."""
    good = True
    print(f"instructions a call, Python {interpreter()} ({sysconfig.get_config_var('CC')}):")
    for case, count in counts.items():
        budget = budgets.get(case)
        over = budget is not None and count > budget
        good &= not over
        verdict = "OVER" if over else "ok" if budget else "-"
        print(f"  {case:18} {count:8.1f}  budget {budget or '-':>6}  {verdict}")
    return good


def update(counts: dict[str, float], budgets: dict[str, dict[str, float]]) -> None:
    budgets[interpreter()] = {
        case: round(count * ALLOWANCE + 1)
        for case, count in counts.items()
        if case not in {"empty_loop", "c_method"}
    }
    lines = [
        "# Instructions a call, at most, by Python minor version and architecture, the empty loop",
        "# taken off. Written by `make callgrind ARGS=--update`; raise one only with the reason.",
    ]
    for name, table in sorted(budgets.items()):
        lines += ["", f'["{name}"]', *(f"{case} = {count}" for case, count in table.items())]
    BUDGETS.write_text("\n".join(lines) + "\n")


def main() -> int:
    from build import require_release

    require_release()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed; as root, `make callgrind` installs it", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    budgets = tomllib.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    counts = measured()
    if "--update" in sys.argv:
        update(counts, budgets)
        budgets = tomllib.loads(BUDGETS.read_text())
    table = budgets.get(interpreter(), {})
    good = judge(counts, table)
    if not table:
        print(f"no budget for {interpreter()}: nothing was judged")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
