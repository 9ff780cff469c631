"""Ways to make what is tortured wrong on purpose, since it must be seen to fail. Pure.

Purpose: the names for `--sabotage`, and what each does. Programs of a case read their own from
VARIABLE; `work` has what they do wrong, `collector` what its senders do, `damage` what its witness
does, and `Ground.shown` what is done to pages. A case that cannot see one of them says why in
`cases`, and does not run with it.
"""

from __future__ import annotations

VARIABLE = "TORTURE_SABOTAGE"
LOST, TWICE, LABEL, EARLY, DOUBLED = "lost", "twice", "label", "early", "doubled"
KINDS = {
    LOST: "leaves out one update of a hundred and acknowledges it",
    TWICE: "counts one update of each process twice",
    LABEL: "counts one update of a hundred under another label",
    EARLY: "acknowledges before it counts",
    DOUBLED: "shows a series of each page twice",
}
# One of so many is wrong, where not each is.
EVERY = 100
# The round of a process in which it counts twice, and how long `early` is before its updates.
TWICE_AT = 20
EARLY_S = 0.02


def doubled(page: bytes) -> bytes:
    """The last sample once more."""
    lines = page.splitlines(keepends=True)
    samples = [line for line in lines if not line.startswith(b"#")]
    return page + samples[-1] if samples else page
