"""How a setting is documented: the base of every section and the words that go with a field.

Purpose: keep effect, bounds, edge value and audience of a setting beside its declaration, so that
the sample file, the error messages and `config show` cannot drift away from what is accepted.
"""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def doc(
    effect: str,
    *,
    edge: str = "",
    who: str,
    ge: float | None = None,
    le: float | None = None,
) -> msgspec.Meta:
    """The documentation and the bounds of one field. `edge` explains the special value, if there is
    one.
    """
    return msgspec.Meta(description=effect, ge=ge, le=le, extra={"edge": edge, "who": who})


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all sections share: immutable, no unknown keys, keyword arguments only."""
