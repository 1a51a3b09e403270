"""What became of a value in a pipeline: the passes after which no value has its name, and what stands for it then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from irc.driver.counting import describe
from irc.ir import Value, watching_replacements
from irc.module import Module

MOST_FOLLOWED = 200  # values computed from one that is gone, among which what computes it now is looked for


class History:
    """Follows one value of the entry, by its name, through the stages of a pipeline.

    `lines` says of each disappearance after which pass it was and what stands for the value then; that is followed on.
    """

    def __init__(self, module: Module, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.was_found = False
        self._remember(module)

    def after(self, stage: str, module: Module, replaced: Mapping[Value, Value]) -> None:
        """Note what a stage, in which these values were replaced, has done to the value."""
        self._replaced = replaced
        if self.value is not None and module.main.named(self.name) is None:
            how, successor = self._successor(module)
            self.lines.append(f"by {stage}: %{self.name} {how}")
            self.name = successor.name if successor is not None else self.name
        self._remember(module)

    def _remember(self, module: Module) -> None:
        self.value = module.main.named(self.name)
        self.was_found |= self.value is not None
        # What is computed from it, nearest first.
        self.followers = [] if self.value is None else [self.value]
        for value in self.followers:
            if len(self.followers) > MOST_FOLLOWED:
                break
            made = (result for user in value.users() for result in user.results)
            self.followers += [result for result in dict.fromkeys(made) if result not in self.followers]

    def _successor(self, module: Module) -> tuple[str, Value | None]:
        """How the value went, in words, and what stands for it or computes it now."""
        for index, value in enumerate(self.followers):
            now = self._now(value, module)
            if now is None:
                continue
            made = "an input" if now.operation is None else describe(now.operation)
            if index:
                absorbed = f"is absorbed: %{now.name} = {made}"
                if now is value:
                    return f"{absorbed} is computed without it now", now
                return f"{absorbed} stands for it and %{value.name}, which was computed from it", now
            if made == "const":
                return f"is folded: the constant %{now.name} stands for it now", now
            return f"is replaced: %{now.name} = {made} stands for it now", now
        return "is removed: nothing that is left reads it", None

    def _now(self, value: Value, module: Module) -> Value | None:
        """The value that has replaced another, or it itself, if that is in the entry still."""
        seen: set[Any] = set()
        while value in self._replaced and value not in seen:
            seen.add(value)
            value = self._replaced[value]
        return value if module.main.named(value.name) is value else None


@contextmanager
def following(histories: Sequence[History]) -> Iterator[Callable[[str, Module], None]]:
    """Around the run of passes over the module of these histories; gives what is to be called after each pass."""
    replaced: dict[Value, Value] = {}

    def after(stage: str, module: Module) -> None:
        for history in histories:
            history.after(stage, module, replaced)
        replaced.clear()

    with watching_replacements(replaced.__setitem__):
        yield after
