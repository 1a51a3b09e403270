"""Order labels of the operations of a block: right after any edit, and few of them change at an insertion."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from irc import order
from irc.dtypes import F32
from irc.ir import Block, Operation, dominates
from irc.op import const
from irc.types import TensorType
from irc.weights import Tensor

NUMBER = Tensor.of(1.0, F32)


def new_operation() -> Operation:
    return Operation(const, (), {"value": NUMBER}, [TensorType(F32, ())])


def block_of(length: int) -> Block:
    block = Block()
    for _ in range(length):
        block.append(new_operation())
    return block


@pytest.fixture
def relabeled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many operations each insertion relabels, in order."""
    counts: list[int] = []
    label = order.label

    def counted(element: order.Element) -> int:
        counts.append(label(element))
        return counts[-1]

    monkeypatch.setattr(order, "label", counted)
    return counts


def labels(block: Block) -> list[int]:
    return [operation.order_label for operation in block]


# Where the next operation is inserted, from the operation there before and the one inserted last.
PLACES: dict[str, Callable[[Operation, Operation, random.Random], Operation]] = {
    "before one operation": lambda start, last, chance: start,
    "before the last one inserted": lambda start, last, chance: last,
    "either way by chance": lambda start, last, chance: chance.choice((start, last)),
}


@pytest.mark.parametrize("place", PLACES)
def test_insertions_at_one_place_relabel_as_many_in_a_block_of_any_length(place: str, relabeled: list[int]) -> None:
    totals = {}
    for length in (100, 2_000, 8_000):
        block, chance = block_of(length), random.Random(0)
        start = last = list(block)[length // 2]
        relabeled.clear()
        for _ in range(400):
            last = block.insert(new_operation(), PLACES[place](start, last, chance))
        totals[length] = sum(relabeled)
        assert labels(block) == sorted(set(labels(block))) and len(block) == length + 400
    assert totals[2_000] == totals[8_000] <= 400 * 2 * math.log2(400), totals


@pytest.mark.parametrize("place", PLACES)
def test_many_insertions_relabel_logarithmically_many_each(place: str, relabeled: list[int]) -> None:
    for length in (500, 4_000):
        block, chance = block_of(length), random.Random(0)
        start = last = list(block)[length // 2]
        relabeled.clear()
        for _ in range(length):
            last = block.insert(new_operation(), PLACES[place](start, last, chance))
        assert sum(relabeled) <= 2 * length * math.log2(length)


def test_insertions_at_the_ends_relabel_nothing(relabeled: list[int]) -> None:
    block = Block()
    for index in range(1_000):
        block.insert(new_operation(), block.first if index % 3 else None)
    assert sum(relabeled) == 0 and labels(block) == sorted(set(labels(block)))


@pytest.mark.parametrize("seed", range(5))
def test_order_is_that_of_the_list_after_any_edits(seed: int) -> None:
    """Insertions mostly at a few places, and removals, against a Python list."""
    chance, block = random.Random(seed), Block()
    expected: list[Operation] = []
    for _ in range(3_000):
        places = [0, len(expected), len(expected) // 2, min(7, len(expected)), chance.randrange(len(expected) + 1)]
        at = chance.choice(places)
        if expected and chance.random() < 0.3:
            block.remove(expected.pop(min(at, len(expected) - 1)))
            continue
        operation = block.insert(new_operation(), expected[at] if at < len(expected) else None)
        expected.insert(at, operation)
    assert list(block) == expected
    for _ in range(500):
        one, other = chance.randrange(len(expected)), chance.randrange(len(expected))
        assert dominates(expected[one].result, expected[other]) is (one < other)
    assert labels(block) == sorted(set(labels(block)))
