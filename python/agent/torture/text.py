"""A report of torture on a terminal: the verdict last, where the eye is. Pure."""

from __future__ import annotations

import shlex

from agent.report.quantity import count, duration, size

from .outcome import Outcome, Report

COLOURS = {"held": "1;32", "not held": "1;31", "not run": "1;33"}
SENTENCES = {
    "held": "Held: everything that ran.",
    "not held": "NOT held.",
    "not run": "Nothing could run here.",
}


def text(report: Report, *, colour: bool = False) -> str:
    """The whole report, with a newline at its end."""
    lines = [f"torture, {report.started}, seed {report.seed}, {duration(report.seconds)}", ""]
    lines += [f"  {name:12} {value}" for name, value in method(report)]
    lines.append("")
    for one in report.outcomes:
        lines += _row(one, colour)
    not_run = len(report.having("not run"))
    lines += ["", f"{_paint(SENTENCES[report.verdict], COLOURS[report.verdict], colour)}"]
    lines[-1] += f" {headline(report)}"
    if not_run:
        lines.append(
            f"{not_run} of {len(report.outcomes)} cases did not run: not held, not refuted."
        )
    if report.status == "interrupted":
        lines.append("Interrupted: what came later did not run.")
    return "".join(f"{line}\n" for line in lines)


def headline(report: Report) -> str:
    return (
        f"{len(report.having('held'))} cases held, {len(report.having('not held'))} did not;"
        f" {count(report.kills)} kills, {count(report.operations)} updates acknowledged,"
        f" {count(report.pages)} pages checked."
    )


def method(report: Report) -> list[tuple[str, str]]:
    """What somebody who repeats the run must know."""
    machine = report.machine
    memory = size(machine.get("memory_bytes"))
    rows = [
        ("kernel", f"Linux {machine.get('kernel')}"),
        ("machine", f"{machine.get('cores')} x {machine.get('cpu')}, {memory}"),
        ("file system", str(machine.get("file_system"))),
        ("container", f"{machine.get('container')}, user {machine.get('user')}"),
        ("versions", f"Agent {machine.get('agent_version')}, Python {machine.get('python')}"),
        ("repeat", repeat(report)),
    ]
    return rows + ([("sabotage", report.sabotage)] if report.sabotage else [])


def repeat(report: Report) -> str:
    """The command that makes the same run again, for a shell."""
    words = ["agent-metrics", "torture", *(report.kinds if report.is_named else [])]
    words += ["--time", f"{report.planned_s:.15g}s", "--seed", str(report.seed)]
    if report.folder:
        words += ["--dir", report.folder]
    if report.sabotage:
        words += ["--sabotage", report.sabotage]
    return shlex.join(words)


def details(one: Outcome) -> str:
    """What was done in a case and how far it was off."""
    parts = []
    if one.kills:
        parts.append(f"{count(one.kills)} kills")
    if one.operations:
        parts.append(f"{count(one.operations)} updates")
    if one.pages:
        parts.append(f"{count(one.pages)} pages")
    if one.difference is not None:
        room = "" if one.in_flight is None else f" of at most {count(one.in_flight)} in flight"
        parts.append(f"difference {count(one.difference)}{room}")
    parts += [f"{name} {count(value)}" for name, value in one.figures.items()]
    return ", ".join(parts)


def _row(one: Outcome, colour: bool) -> list[str]:
    status = _paint(f"{one.status:8}", COLOURS[one.status], colour)
    lines = [f"  {status}  {one.kind}/{one.name:12} {duration(one.seconds):>8}  {details(one)}"]
    return lines + [f"{'':12}- {_printable(reason)}" for reason in one.why]


def _paint(words: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{words}\x1b[0m" if colour else words


def _printable(line: str) -> str:
    """Reasons quote what programs wrote: nothing of it may steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in line)
