"""Seeds bugs into the shared memory, one at a time, and requires that a test catches each.

    python scripts/mutants.py [--only NAME ...] [--by CHECKER] [--share I/N] [--folder FOLDER]

The bugs stand in rust/agent-shm/tests/mutants.toml: a text of one source file, what takes its
place, why that is wrong, and the test that must fail. The sources are copied to the folder,
changed and built there; the project's own files stay as they are, and what was built of them.
Every test first runs without a bug and must pass. Then each mutant is

    caught      its test failed, by an assertion of ours or a refused access
    survived    its test passed: a test is missing
    stuck       its test did not end, or only the checker's limit of steps ended it
    unbuilt     it does not compile, or the build failed

--only takes beginnings of names. --share 2/7 takes the second seventh of the table, for a run by
turns. A text that is not in its file exactly once is an error that names the mutant. Exit code: 0
when all are caught, 1 when not, 64 for wrong usage or a table that is out of date.

Beside a mutant that is caught stands the assertion that did it: one that fails for another reason
than the seeded bug proves nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = "rust/agent-shm/tests/mutants.toml"
SOURCES = "rust/agent-shm/src"
CHECKERS = ("loom", "shuttle", "cargo", "unit")
BUILD_S = 1200
# A test takes seconds of a processor, one of them a minute: limits for those that never end.
# By the clock a busy machine may need ten times as long.
TEST_CPU_S = 300
TEST_S = 3000
OURS = re.compile(r"panicked at (rust/agent-(?:shm|metric)/\S+):\n(.*)")
ENVIRONMENT = {"AGENT_SCHEDULES": "20000", "RUST_BACKTRACE": "0"}


@dataclass(frozen=True)
class Mutant:
    name: str
    why: str
    file: str
    old: str
    new: str
    by: str
    test: str
    preemptions: int | None = None

    def environment(self) -> dict[str, str]:
        bound = self.preemptions
        return {} if bound is None else {"LOOM_MAX_PREEMPTIONS": str(bound)}


class OutOfDateError(Exception):
    """The table and the sources do not belong together."""


def read_table(root: Path) -> list[Mutant]:
    rows = tomllib.loads((root / TABLE).read_text())["mutant"]
    try:
        mutants = [Mutant(**row) for row in rows]
    except TypeError as error:
        raise OutOfDateError(f"{TABLE}: {error}") from error
    names = [mutant.name for mutant in mutants]
    for mutant in mutants:
        where = f"{TABLE}: {mutant.name}"
        if names.count(mutant.name) > 1:
            raise OutOfDateError(f"{where}: two mutants have this name")
        if mutant.by not in CHECKERS:
            raise OutOfDateError(f"{where}: by = {mutant.by!r} is none of {', '.join(CHECKERS)}")
        path = root / SOURCES / mutant.file
        found = path.read_text().count(mutant.old) if path.is_file() else 0
        if found != 1:
            raise OutOfDateError(
                f"{where}: its text stands {found} times in {mutant.file}, not once"
            )
    return mutants


def copy_sources(folder: Path) -> None:
    """The workspace as it is now; files that are the same stay untouched."""
    for file in sorted(folder.glob("rust/**/*")):
        if file.is_file() and not (ROOT / file.relative_to(folder)).is_file():
            file.unlink()
    for name in ("Cargo.toml", "Cargo.lock", "rust"):
        source = ROOT / name
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        for file in files:
            target = folder / file.relative_to(ROOT)
            if file.is_dir() or (target.is_file() and target.read_bytes() == file.read_bytes()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


class Bench:
    """Builds and runs tests in the copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build(self, by: str, test: str) -> tuple[Path | None, str]:
        """The test program; nothing and the compiler's words when it cannot be built."""
        # Of its own: cargo knows packages by their paths inside of the workspace, and would take
        # what was built of a mutant for what the project's own, older sources give.
        kind = by if by in ("loom", "shuttle") else "plain"
        target = self.folder / "target" / kind
        environment = dict(os.environ, CARGO_TERM_COLOR="never", CARGO_TARGET_DIR=str(target))
        command = ["cargo", "test", "-p", "agent-shm", "--locked", "--no-run"]
        if by in ("cargo", "unit"):
            command += ["--test", test] if by == "cargo" else ["--lib"]
        else:
            command += ["--profile", "model", "--test", "orders"]
            environment["RUSTFLAGS"] = f"--cfg model --cfg {by}"
            # Of our own crates only: what takes the time is to build them, not to run them.
            environment["CARGO_PROFILE_MODEL_OPT_LEVEL"] = "0"
        command += ["--message-format", "json-render-diagnostics"]
        try:
            done = subprocess.run(
                command,
                check=False,
                cwd=self.folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=BUILD_S,
            )
        except subprocess.TimeoutExpired:
            return None, f"the build took more than {BUILD_S} s"
        program = None
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                message = json.loads(line)
                if message.get("profile", {}).get("test") and message.get("executable"):
                    program = Path(message["executable"])
        return (program if done.returncode == 0 else None), done.stderr

    def run(self, program: Path, mutant: Mutant) -> tuple[str, str]:
        """How the test ended, `passed`, `failed` or `stuck`, and what it said."""
        limit = ["prlimit", f"--cpu={TEST_CPU_S}"]
        command = [*limit, str(program), "--test-threads", "1", "--include-ignored"]
        if mutant.by != "cargo":
            command.append(mutant.test)
        try:
            done = subprocess.run(
                command,
                check=False,
                cwd=self.folder,
                env=ENVIRONMENT | os.environ | mutant.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=TEST_S,
            )
        except subprocess.TimeoutExpired:
            return "stuck", f"no end after {TEST_S} s"
        if done.returncode == 0:
            ran = re.search(r"test result: ok\. (\d+) passed", done.stdout)
            if ran is None or ran[1] == "0":
                raise OutOfDateError(f"{TABLE}: {mutant.name}: no test is called {mutant.test!r}")
            return "passed", done.stdout
        return ("failed" if OURS.search(done.stdout) else "stuck"), done.stdout

    def change(self, file: str, text: str) -> None:
        path = self.folder / SOURCES / file
        before = path.stat().st_mtime
        path.write_text(text)
        # Never older than what was built of it.
        now = max(time.time(), before + 1)
        os.utime(path, (now, now))


def judge(bench: Bench, mutant: Mutant) -> tuple[str, str]:
    text = (bench.folder / SOURCES / mutant.file).read_text()
    bench.change(mutant.file, text.replace(mutant.old, mutant.new))
    try:
        program, said = bench.build(mutant.by, mutant.test)
        if program is None:
            return "unbuilt", said
        ended, said = bench.run(program, mutant)
        return {"passed": "survived", "failed": "caught"}.get(ended, ended), said
    finally:
        bench.change(mutant.file, text)


def check_sound(bench: Bench, mutants: list[Mutant]) -> None:
    """Every test passes without a bug: else a failure says nothing."""
    tests = {(mutant.by, mutant.test, mutant.preemptions): mutant for mutant in mutants}
    for (by, test, _), mutant in tests.items():
        program, said = bench.build(by, test)
        if program is None:
            sys.exit(f"{by}: the sources do not build without a mutant:\n{said}")
        began = time.monotonic()
        ended, said = bench.run(program, mutant)
        print(f"without a mutant  {by:8} {test}: {ended}, {time.monotonic() - began:.1f} s")
        if ended != "passed":
            sys.exit(f"{by} {test} fails without a mutant:\n{said}")


def share_of(mutants: list[Mutant], share: str) -> list[Mutant]:
    match = re.fullmatch(r"(\d+)/(\d+)", share)
    index, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= parts:
        raise OutOfDateError(f"--share {share!r} is not of the form I/N with 1 <= I <= N")
    return mutants[index - 1 :: parts]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="beginnings of names")
    parser.add_argument("--by", choices=CHECKERS, help="only what this one catches")
    parser.add_argument("--share", default="1/1", metavar="I/N", help="every Nth, from the Ith")
    parser.add_argument("--folder", type=Path, default=ROOT / ".build" / "mutants")
    arguments = parser.parse_args()
    try:
        mutants = share_of(read_table(ROOT), arguments.share)
        if arguments.only:
            beginnings = tuple(arguments.only)
            mutants = [mutant for mutant in mutants if mutant.name.startswith(beginnings)]
        if arguments.by:
            mutants = [mutant for mutant in mutants if mutant.by == arguments.by]
        if not mutants:
            raise OutOfDateError("no mutant is called that")
        folder: Path = arguments.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        copy_sources(folder)
        bench = Bench(folder)
        check_sound(bench, mutants)
        began = time.monotonic()
        verdicts: dict[str, str] = {}
        for number, mutant in enumerate(mutants, 1):
            start = time.monotonic()
            verdict, said = judge(bench, mutant)
            verdicts[mutant.name] = verdict
            took = time.monotonic() - start
            print(f"{number:3}/{len(mutants)} {verdict:9} {mutant.name} ({took:.0f} s)", flush=True)
            if verdict == "caught" and (assertion := OURS.search(said)):
                print(f"        {assertion[1]}: {assertion[2]}")
            if verdict != "caught":
                print(f"    {mutant.why}\n    {mutant.by}: {mutant.test}")
                print("\n".join("    | " + line for line in said.splitlines()[-15:]))
    except OutOfDateError as error:
        print(error, file=sys.stderr)
        return 64
    counts = {v: list(verdicts.values()).count(v) for v in sorted(set(verdicts.values()))}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    print(f"{len(verdicts)} mutants: {summary}; {time.monotonic() - began:.0f} s")
    return 0 if set(verdicts.values()) == {"caught"} else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
