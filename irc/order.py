"""Order labels: whether one element of a linked list precedes another, in constant time under insertions anywhere.

Each element has an integer label, increasing along the list. An element inserted between two others gets the label
halfway between theirs; where no integer is left, the smallest aligned range of labels around it that is sparse enough
is relabeled at equal distances. A range of 2^i labels is sparse enough while it has at most (2 / DENSITY)^i elements:
the wider a range, the emptier it must be. An insertion into a list of n elements relabels O(log n) of them, amortized.
Labels are unbounded integers, so a list may have any length.

Source: Bender, Cole, Demaine, Farach-Colton, Zito: Two Simplified Algorithms for Maintaining Order in a List (2002),
after Dietz and Sleator (1987).
"""

from __future__ import annotations

from typing import Protocol

GAP = 1 << 20  # between the labels of elements appended one after another
DENSITY = 1.5  # between 1 and 2: the nearer to 2, the fewer elements are relabeled and the longer labels get
SMALLEST = 2  # the logarithm of the smallest range at whose density two elements stand at least 2 labels apart


class Element(Protocol):
    """An element of a linked list with a label."""

    order_label: int

    @property
    def previous(self) -> Element | None: ...
    @property
    def next(self) -> Element | None: ...


def label(element: Element) -> int:
    """Label an element that has just been linked between its neighbors; returns how many others are relabeled."""
    before, after = element.previous, element.next
    if before is None:
        element.order_label = 0 if after is None else after.order_label - GAP
    elif after is None:
        element.order_label = before.order_label + GAP
    else:
        element.order_label = (before.order_label + after.order_label) // 2
        if element.order_label == before.order_label:
            return _relabel(element) - 1
    return 0


def _relabel(element: Element) -> int:
    """Spread the labels of the smallest range around an element that is sparse enough; returns its element count."""
    first = last = element
    count = 1
    exponent = SMALLEST
    while True:
        start = element.order_label >> exponent << exponent
        stop = start + (1 << exponent)
        while (other := first.previous) is not None and other.order_label >= start:
            first, count = other, count + 1
        while (other := last.next) is not None and other.order_label < stop:
            last, count = other, count + 1
        if count * DENSITY**exponent <= 2.0**exponent:
            break
        exponent += 1
    current: Element | None = first
    for position in range(count):
        assert current is not None
        current.order_label = start + (position << exponent) // count
        current = current.next
    return count
