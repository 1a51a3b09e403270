"""`LegalityFailure`: why operations cannot be one kernel, with the number of the rule (`irc.kernel.rules`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

from irc.diagnostics import IrcError, Location, fail

P = ParamSpec("P")
# The codes of errors, by the numbers of rules.
CODES = {
    "F1": "fuse.depends_on_own_store",
    "F2": "fuse.impure_member",
    "F3": "fuse.unstored_value",
    "F4": "fuse.unreached_root",
    "F6": "fuse.shared_reduction_axis",
    "F10": "fuse.recomputed_reduction",
    "F13": "fuse.numerics",
    "F14": "fuse.resources",
    "F15": "fuse.schedule",
    "F16": "fuse.products",
    "F17": "fuse.softmax_product",
    "F18": "fuse.computed_twice",
    "F19": "fuse.siblings",
    "F20": "fuse.bundle",
    "F21": "fuse.scan",
}


class LegalityFailure(Exception):
    """Operations that cannot be one kernel, with the number of the rule that they break. `values` are those that the
    message mentions."""

    def __init__(self, rule: str, message: str, values: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.rule, self.message, self.values = rule, message, tuple(values)

    @property
    def code(self) -> str:
        return CODES[self.rule]

    def renamed(self, names: Mapping[str, str]) -> LegalityFailure:
        """The failure of an equal group, whose values have these names."""
        mentioned = sorted((each for each in self.values if each in names), key=len, reverse=True)
        if not mentioned:
            return self
        pattern = rf"%({'|'.join(map(re.escape, mentioned))})(?![\w.$/-])"
        message = re.sub(pattern, lambda match: f"%{names[match[1]]}", self.message)
        return type(self)(self.rule, message, [names.get(each, each) for each in self.values])

    def error(self, location: Location) -> IrcError:
        """The failure as an error at the operation that was to be a kernel."""
        return fail(self.code, f"{self.rule}: {self.message}", at=location)


def failure_of(rule: Callable[P, None], *arguments: P.args, **options: P.kwargs) -> LegalityFailure | None:
    """What a rule raises, for those who compare groups rather than derive a kernel."""
    try:
        rule(*arguments, **options)
    except LegalityFailure as failure:
        return failure
    return None
