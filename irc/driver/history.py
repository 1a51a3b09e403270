"""The history of a value in a pipeline: which passes removed or replaced it, and by which value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from irc.driver.counting import describe
from irc.ir import Value, watching_replacements
from irc.module import Module

MOST_FOLLOWED = 200  # users of a removed value, searched for its successor


class History:
    """Follows one value of the entry, by its name, through the stages of a pipeline.

    `lines` has a line for each removal: the pass, and the value that replaces it, which is followed from there on.
    """

    def __init__(self, module: Module, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.was_found = False
        self._remember(module)

    def after(self, stage: str, module: Module, replaced: Mapping[Value, Value]) -> None:
        """Record what a stage, which replaced these values, did to the value."""
        self._replaced = replaced
        if self.value is not None and module.main.named(self.name) is None:
            how, successor = self._successor(module)
            self.lines.append(f"by {stage}: %{self.name} {how}")
            self.name = successor.name if successor is not None else self.name
        self._remember(module)

    def _remember(self, module: Module) -> None:
        self.value = module.main.named(self.name)
        self.was_found |= self.value is not None
        # Values computed from it, nearest first.
        self.followers = [] if self.value is None else [self.value]
        for value in self.followers:
            if len(self.followers) > MOST_FOLLOWED:
                break
            results = (result for user in value.users() for result in user.results)
            self.followers += [result for result in dict.fromkeys(results) if result not in self.followers]

    def _successor(self, module: Module) -> tuple[str, Value | None]:
        """How the value was removed, and the value that replaces or contains it now."""
        for index, value in enumerate(self.followers):
            now = self._now(value, module)
            if now is None:
                continue
            described = "an input" if now.operation is None else describe(now.operation)
            if index:
                absorbed = f"is absorbed: %{now.name} = {described}"
                if now is value:
                    return f"{absorbed} is computed without it now", now
                return f"{absorbed} replaces it and %{value.name}, which was computed from it", now
            if described == "const":
                return f"is folded: the constant %{now.name} replaces it", now
            return f"is replaced: %{now.name} = {described} replaces it", now
        return "is removed: no remaining operation reads it", None

    def _now(self, value: Value, module: Module) -> Value | None:
        """The value that has replaced another, or the value itself, if it is still in the entry function."""
        seen: set[Any] = set()
        while value in self._replaced and value not in seen:
            seen.add(value)
            value = self._replaced[value]
        return value if module.main.named(value.name) is value else None


@contextmanager
def following(histories: Sequence[History]) -> Iterator[Callable[[str, Module], None]]:
    """A context in which passes run over the module of these histories; yields a function to call after each pass."""
    replaced: dict[Value, Value] = {}

    def after(stage: str, module: Module) -> None:
        for history in histories:
            history.after(stage, module, replaced)
        replaced.clear()

    with watching_replacements(replaced.__setitem__):
        yield after
