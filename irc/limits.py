"""Resource limits for untrusted input, and the folders whose files it may refer to.

Each limit has a name, a value and what it bounds in `LIMITS`; code that trusts an input raises it for a block,

    with irc.allow("/data/weights", memory=64 << 30):
        irc.run("model.irc")

or on the command line with `--limit memory=64G` and `--allow-folder /data/weights`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple, TypedDict, TypeVar, Unpack, cast

from irc.diagnostics import UNKNOWN, Location, did_you_mean, fail

Key = TypeVar("Key", bound=Hashable)
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Limit(NamedTuple):
    """A number that input may not exceed: of `unit`; `bounds` says what it is about."""

    value: int
    unit: str
    bounds: str


LIMITS = {
    "memory": Limit(8 * 10**9, "bytes", "the values that a run holds at a time; an .npz file, unpacked"),
    "rank": Limit(64, "axes", "a tensor (NumPy has no more)"),
    "literals": Limit(64 * 10**6, "bytes", "constants of one element many times, of a text together or of an operator"),
    "repeated": Limit(20_000, "nodes", "what is read again for the branches and iterations of an ONNX model"),
    "inlined": Limit(100_000, "nodes", "functions in the place of their calls"),
    "inlined_bytes": Limit(10**9, "bytes", "the same, with the constants in functions"),
    "size": Limit(4096, "bits", "a size in a .pt2 file: the largest number that it may come to, or its terms"),
    "unrolled": Limit(10**4, "parts", "elements of a sequence that become separate values; longer ones are one value"),
}


class Limits(TypedDict, total=False):
    """Values of limits by name, as type checkers see the keywords of `allow`; the names are those of `LIMITS`."""

    memory: int
    rank: int
    literals: int
    repeated: int
    inlined: int
    inlined_bytes: int
    size: int
    unrolled: int


@dataclass(frozen=True)
class Allowed:
    """What was allowed beyond the defaults."""

    folders: tuple[Path, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    replace_inputs: bool = False


NOTHING = Allowed()
_allowed: ContextVar[Allowed] = ContextVar("irc_allowed", default=NOTHING)


@contextmanager
def allow(*folders: str | Path, replace_inputs: bool = False, **limits: Unpack[Limits]) -> Iterator[None]:
    """In this block files that a model names may also lie in these folders, limits have these values, and, with
    `replace_inputs`, what is written may take the place of a file that was read for it.

    `irc doc limits` lists the limits. Raises `usage.value` for one that there is not.
    """
    for name in limits:
        if name not in LIMITS:
            raise fail("usage.value", f"there is no limit `{name}`", help=did_you_mean(name, LIMITS),
                       expected=", ".join(LIMITS))
    before = _allowed.get()
    values = cast(Mapping[str, int], limits)
    now = Allowed((*before.folders, *map(Path, folders)), (*before.limits, *values.items()),
                  before.replace_inputs or replace_inputs)
    token = _allowed.set(now)
    try:
        yield
    finally:
        _allowed.reset(token)


def limit(name: str) -> int:
    """The value of a limit here."""
    return dict(_allowed.get().limits).get(name, LIMITS[name].value)


def may_replace_inputs() -> bool:
    """Whether what is written may take the place of what was read for it."""
    return _allowed.get().replace_inputs


def allowed_folders() -> tuple[Path, ...]:
    """The folders in which files that a model names may lie, beside its own."""
    return _allowed.get().folders


def check_limit(name: str, amount: int, message: str, at: Location = UNKNOWN) -> None:
    """Raise `limit.exceeded` where an amount is over the limit; in the message, `{}` stands for the amount."""
    if amount > limit(name):
        in_digits = str(amount) if amount.bit_length() <= 64 else f"over 2^{amount.bit_length() - 1}"
        raise fail("limit.exceeded", message.replace("{}", f"{in_digits} {LIMITS[name].unit}"), at=at,
                   expected=f"at most {limit(name)}",
                   help=f"where you trust the input, raise the limit with --limit {name}=NUMBER")


def read_limit(text: str) -> tuple[str, int]:
    """`memory=64G` as a name and a number; raises `usage.value`."""
    match = re.fullmatch(r"(\w+)=([0-9]{1,18})([kMGT]?)", text)
    if match is None:
        raise fail("usage.value", f"--limit {text}", expected="NAME=NUMBER, such as memory=64G")
    return match[1], int(match[2]) * UNITS[match[3]]


def expanded(sizes_alone: Mapping[Key, int], calls: Mapping[Key, Mapping[Key, int]]) -> dict[Key, int]:
    """The size of each function with its calls expanded: its own, and that of each callee as often as it is called.

    Raises `graphlib.CycleError` where one calls itself.
    """
    sizes: dict[Key, int] = {}
    for key in TopologicalSorter({key: list(callees) for key, callees in calls.items()}).static_order():
        sizes[key] = sizes_alone[key] + sum(sizes[callee] * count for callee, count in calls[key].items())
    return sizes
