"""What the supervisor's plan is told (events) and what it answers (actions).

Purpose: the whole vocabulary between `plan`, which decides, and `arbiter`, which acts. Plain data,
no behaviour.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# --- events ---


class Start(msgspec.Struct, frozen=True):
    """The segment and the listeners exist."""


class Spawned(msgspec.Struct, frozen=True):
    """A child was forked."""

    name: str
    pid: int


class SpawnFailed(msgspec.Struct, frozen=True):
    """The kernel refused to fork."""

    name: str


class Ready(msgspec.Struct, frozen=True):
    """A child said `ready`."""

    name: str


class Exited(msgspec.Struct, frozen=True):
    """A child is gone; `code` is negative for a signal."""

    name: str
    code: int


class Hangup(msgspec.Struct, frozen=True):
    """SIGHUP."""


class Renew(msgspec.Struct, frozen=True):
    """SIGUSR2: replace all workers, one after the other."""


class Checked(msgspec.Struct, frozen=True):
    """The settings were read again; `why` says what is wrong with them, or is empty."""

    why: str = ""


class Reloaded(msgspec.Struct, frozen=True):
    """A child took the new settings."""

    name: str


class Refused(msgspec.Struct, frozen=True):
    """A child cannot use the new settings."""

    name: str
    why: str


class Terminate(msgspec.Struct, frozen=True):
    """SIGTERM or SIGINT."""

    signal: int


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


Event = (
    Start
    | Spawned
    | SpawnFailed
    | Ready
    | Exited
    | Hangup
    | Renew
    | Checked
    | Reloaded
    | Refused
    | Terminate
    | Tick
)


# --- actions ---


class Spawn(msgspec.Struct, frozen=True):
    """Fork this child with the settings in force."""

    name: str


class Rename(msgspec.Struct, frozen=True):
    """A running child makes room for its successor: from now on it is called `alias`."""

    name: str
    alias: str


class Settle(msgspec.Struct, frozen=True):
    """Book what the dead worker had received and not applied."""

    name: str


class Send(msgspec.Struct, frozen=True):
    """Write a line to a child."""

    name: str
    line: str


class SendSettings(msgspec.Struct, frozen=True):
    """Write `reload` with the new settings, or with those in force, to a child."""

    name: str
    new: bool


class Kill(msgspec.Struct, frozen=True):
    """Send a signal to a child."""

    name: str
    pid: int
    signal: int


class CheckSettings(msgspec.Struct, frozen=True):
    """Read and check the settings; answer with `Checked`."""


class CommitSettings(msgspec.Struct, frozen=True):
    """The new settings are in force."""


class RejectSettings(msgspec.Struct, frozen=True):
    """The old settings stay in force."""

    why: str


class Announce(msgspec.Struct, frozen=True):
    """Tell the service manager, the children and the log that the phase has changed."""

    what: Literal["ready", "reloading", "stopping"]


class Log(msgspec.Struct, frozen=True):
    """One log record."""

    level: Literal["info", "warning", "error"]
    message: str
    fields: dict[str, str | float] = {}


class Exit(msgspec.Struct, frozen=True):
    """Leave with this code."""

    code: int


Action = (
    Spawn
    | Rename
    | Settle
    | Send
    | SendSettings
    | Kill
    | CheckSettings
    | CommitSettings
    | RejectSettings
    | Announce
    | Log
    | Exit
)
