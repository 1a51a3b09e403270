"""Disjoint sets of things that are joined two by two (union-find, Tarjan 1975)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Element = TypeVar("Element", bound=Hashable)


class DisjointSets(Generic[Element]):
    """Sets of elements; one that was not seen before is alone in its set."""

    def __init__(self) -> None:
        self._above: dict[Element, Element] = {}

    def find(self, element: Element) -> Element:
        """The element that stands for the set of this one."""
        while (above := self._above.setdefault(element, element)) is not element:
            self._above[element] = self._above[above]
            element = above
        return element

    def join(self, one: Element, other: Element) -> None:
        """Make one set of the sets of both; the element of the second stands for it."""
        self._above[self.find(one)] = self.find(other)
