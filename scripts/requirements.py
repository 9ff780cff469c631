"""Prints the requirements of the named groups of pyproject.toml, one a line, for `pip install -r`.

`pip` cannot install the dependencies of a project without the project; the Makefile needs just
that, because maturin builds the extension in a step of its own. Groups: `build`, `runtime`, and
any optional-dependency name.
"""

import sys
import tomllib
from pathlib import Path


def requirements(project: dict, group: str) -> list[str]:
    if group == "build":
        return project["build-system"]["requires"]
    if group == "runtime":
        return project["project"]["dependencies"]
    return project["project"]["optional-dependencies"][group]


def main() -> None:
    project = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text())
    wanted = {line for group in sys.argv[1:] for line in requirements(project, group)}
    print("\n".join(sorted(wanted)))


if __name__ == "__main__":
    main()
