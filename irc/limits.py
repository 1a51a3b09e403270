"""What input that is not trusted may take: limits on what it asks for, and the folders whose files it may name.

Each limit has a name, a value and what it bounds in `LIMITS`; whoever trusts an input raises it for a block,

    with irc.allow("/data/weights", memory=64 << 30):
        irc.run("model.irc")

or on the command line with `--limit memory=64G` and `--allow-folder /data/weights`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from irc.diagnostics import UNKNOWN, Location, did_you_mean, fail

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Limit(NamedTuple):
    """A number that input may not exceed: of `unit`; `bounds` says what it is about."""

    value: int
    unit: str
    bounds: str


LIMITS = {
    "memory": Limit(8 * 10**9, "bytes", "the values that a run holds at a time; an .npz file, unpacked"),
}


@dataclass(frozen=True)
class Allowed:
    """What was allowed beyond the defaults."""

    folders: tuple[Path, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()


NOTHING = Allowed()
_allowed: ContextVar[Allowed] = ContextVar("irc_allowed", default=NOTHING)


@contextmanager
def allow(*folders: str | Path, **limits: int) -> Iterator[None]:
    """In this block files that a model names may also lie in these folders, and limits have these values.

    Raises `usage.value` for a limit that there is not.
    """
    for name in limits:
        if name not in LIMITS:
            raise fail("usage.value", f"there is no limit `{name}`", help=did_you_mean(name, LIMITS),
                       expected=", ".join(LIMITS))
    before = _allowed.get()
    now = Allowed((*before.folders, *map(Path, folders)), (*before.limits, *limits.items()))
    token = _allowed.set(now)
    try:
        yield
    finally:
        _allowed.reset(token)


def limit(name: str) -> int:
    """The value of a limit here."""
    return dict(_allowed.get().limits).get(name, LIMITS[name].value)


def allowed_folders() -> tuple[Path, ...]:
    """The folders in which files that a model names may lie, beside its own."""
    return _allowed.get().folders


def check_limit(name: str, amount: int, what: str, at: Location = UNKNOWN) -> None:
    """Raise `limit.exceeded` where `what` takes more than the limit."""
    if amount > limit(name):
        unit = LIMITS[name].unit
        raise fail("limit.exceeded", f"{what}: {shown(amount)} {unit}", at=at, expected=f"at most {limit(name)} {unit}",
                   help=f"--limit {name}={shown(amount)} allows it, where the input is trusted")


def shown(amount: int) -> str:
    """A number, in digits where they are few."""
    return str(amount) if amount.bit_length() <= 64 else f"2^{amount.bit_length() - 1}"


def read_limit(text: str) -> tuple[str, int]:
    """`memory=64G` as a name and a number; raises `usage.value`."""
    match = re.fullmatch(r"(\w+)=([0-9]{1,18})([kMGT]?)", text)
    if match is None:
        raise fail("usage.value", f"--limit {text}", expected="NAME=NUMBER, such as memory=64G")
    return match[1], int(match[2]) * UNITS[match[3]]
