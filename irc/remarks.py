"""Remarks: every decision of fusion in the order in which it was made, for those who ask why a program is as it is.

A pass adds to the `Remarks` of its context; where there are none, which is the default, nothing is recorded. A
candidate is named as its kernel would be: by the first result of its last operation. `about` finds those on a value.

Verdicts of `fuse`: `candidate` (the operation can be a kernel alone), `library` (a library computes it), `illegal`
(with the rule), `rejected` (with the policy's reason), `scored` (a legal merge, which waits for those of larger
scores), `legal` and `priced` (a set that a planner asked about), `merged`, `kernel` (a group of the plan). Of other
passes: `joined` and `apart` (siblings), `ordered` (channels_last), `split` and `whole` (split), `bundled` (bundle),
`irc` and `host` (products=auto).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from irc.ir import Operation


@dataclass(frozen=True)
class Remark:
    """A decision: who made it, about which candidates, and how.

    by: a policy, a planner, a pattern, `plan` for a plan file, `seed` for operations by themselves, or a pass.
    kernel: the name of what the candidates become together, of a merge that is made or would be legal.
    score: the policy's. seconds: what a planner was given as the time of a set. bytes_saved: distinct bytes that a
        legal merge saves; of a kernel, None.
    places: where the candidates are in the source.
    """

    number: int
    function: str
    by: str
    verdict: str
    candidate: tuple[str, ...]
    kernel: str = ""
    rule: str = ""
    code: str = ""
    score: float | None = None
    bytes_saved: int | None = None
    reason: str = ""
    places: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def line(self) -> str:
        """A line of JSON, without what is not stated; a score that JSON has no number for is a text."""
        stated = {key: value for key, value in asdict(self).items() if value not in ("", None, ())}
        if self.score is not None and self.score in (float("inf"), float("-inf")):
            stated["score"] = str(self.score)
        return json.dumps(stated)

    def __str__(self) -> str:
        """The remark as text, with the places in the source below it."""
        names = ", ".join(f"@{name}" for name in self.candidate)
        to = f" -> @{self.kernel}" if self.kernel and self.candidate != (self.kernel,) else ""
        parts = [f"rule {self.rule}: {self.reason}" if self.rule else self.reason]
        parts += [f"score {self.score:g}"] if self.score is not None else []
        parts += [f"{1e6 * self.seconds:.2f} us"] if self.seconds is not None else []
        parts += [f"saves {self.bytes_saved:,} bytes"] if self.bytes_saved is not None else []
        why = ", ".join(filter(None, parts))
        lines = [f"{self.number:5}  {self.by:10} {self.verdict:9} {names}{to}{': ' if why else ''}{why}"]
        return "\n".join([*lines, *(f"{'':29}{place}" for place in self.places)])


class Remarks:
    """Remarks in the order in which decisions are made, on one function at a time."""

    def __init__(self, function: str = "") -> None:
        self.function = function
        self.all: list[Remark] = []

    def add(self, by: str, verdict: str, candidate: Sequence[Operation], *, kernel: str = "", rule: str | None = "",
            code: str | None = "", score: float | None = None, bytes_saved: int | None = None,
            reason: str = "", seconds: float | None = None) -> None:  # fmt: skip
        """A remark on candidates, each given by its last operation."""
        names = tuple(map(_name, candidate))
        known = (operation.location for operation in candidate if operation.location.known)
        places = tuple(dict.fromkeys(map(str, known)))
        self.all.append(Remark(len(self.all) + 1, self.function, by, verdict, names, kernel, rule or "", code or "",
                               score, bytes_saved, reason, places, seconds))  # fmt: skip

    def take(self, others: Remarks) -> None:
        """Add the remarks of others after these."""
        self.all += [replace(each, number=number) for number, each in enumerate(others.all, len(self.all) + 1)]

    @property
    def text(self) -> str:
        """A line of JSON for each remark."""
        return "".join(f"{remark.line}\n" for remark in self.all)


def _name(operation: Operation) -> str:
    """The name of a kernel, or that of the first result of another operation."""
    if operation.name == "kernel":
        return str(operation.attributes["name"])
    return operation.results[0].name if operation.results else operation.name


def about(remarks: Iterable[Remark], names: Iterable[str], function: str) -> Iterator[Remark]:
    """The remarks on values of a function, each given by its name: those on the groups that have them at that time."""
    current = set(names)
    for remark in remarks:
        if remark.function == function and not current.isdisjoint((*remark.candidate, remark.kernel)):
            yield remark
            if remark.verdict in ("merged", "joined"):
                current.add(remark.kernel)
