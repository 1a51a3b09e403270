"""Raising operations of several operands: attention in every form, and what is no attention."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from irc.diagnostics import IrcError
from irc.dtypes import by_name
from irc.ir import Function, Value
from irc.op import Float, op, trace
from irc.ops import (
    add,
    attention,
    cast,
    div,
    dot,
    exp,
    iota,
    is_nan,
    less_equal,
    matmul,
    mul,
    reshape,
    select,
    softmax,
    tanh,
    transpose,
)
from irc.passes import _raise_skeletons
from irc.passes._raise_forms import forms_of
from irc.passes._raise_functions import forms as function_forms
from irc.passes._raise_proof import attribute_choices
from irc.passes._raise_skeletons import matching_operation, possible_operations, skeleton_of, skeletons
from irc.types import TensorType
from tests.raising import raised, raised_names, same_numbers

Q, K, V = "f32[B, 2, S, 8]", "f32[B, 2, T, 8]", "f32[B, 2, T, 5]"
SCALE = 1 / math.sqrt(8)


def turned(k: Any) -> Any:
    return transpose(k, permutation=(0, 1, 3, 2))


def check_attention(program: Any, *types: str, beside: tuple[str, ...] = (), **required: Any) -> None:
    """The program is one attention with these attributes; `beside` are operations that stay."""
    before, after = raised(program, *types)
    operations = [o for o in after.main.block if o.name not in ("const", "return")]
    assert sorted(o.name for o in operations) == sorted(["attention", *beside])
    (operation,) = [o for o in operations if o.name == "attention"]
    assert {name: operation.attributes[name] for name in required} == required
    same_numbers(before, after)


SEVERAL = [skeleton.form for group in skeletons().values() for skeleton in group]


@pytest.mark.parametrize("form", [
    pytest.param(form, id=f"{form.definition.name}-{len(form.samples)}-{form.samples[-1]}-{dict(form.fixed)}")
    for form in SEVERAL
])  # fmt: skip
def test_each_form_of_several_operands_is_raised(form: Any):
    attributes = form.definition.normalize(dict(form.fixed))
    assert form.spelling is None
    before, after = raised(lambda *operands: form.definition.source_function(*operands, **attributes), *form.samples)
    (operation,) = [o for o in after.main.block if o.name not in ("const", "return")]
    assert operation.definition is form.definition and operation.inputs == after.main.arguments
    assert operation.attributes == attributes
    same_numbers(before, after)


def test_attention_with_its_scale_anywhere():
    check_attention(lambda q, k, v: matmul(softmax(mul(matmul(q, turned(k)), SCALE), axis=-1), v), Q, K, V, scale=None)
    check_attention(lambda q, k, v: matmul(softmax(div(matmul(q, turned(k)), math.sqrt(8))), v), Q, K, V, scale=None)
    root = math.sqrt(SCALE)
    check_attention(
        lambda q, k, v: matmul(softmax(matmul(mul(q, root), mul(turned(k), root))), v), Q, K, V, scale=None
    )
    check_attention(lambda q, k, v: matmul(softmax(matmul(q, turned(k))), v), Q, K, V, scale=1.0)
    check_attention(lambda q, k, v: matmul(softmax(mul(matmul(q, turned(k)), 0.3)), v), Q, K, V)


def test_any_number_of_soft_operations_stands_between():
    """No depth is counted, only operations: a product of many numbers, in two element types."""

    def program(q, k, v, m):
        scores = cast(matmul(q, turned(k)), to=by_name("f64"))
        for number in (2.0, 0.7, 3.0, 0.5, 1.3, 0.9, 0.2, 5.0):
            scores = div(mul(scores, number), number + 0.1)
        scores = cast(scores, to=by_name("f32"))
        return matmul(softmax(add(scores, add(m, m))), v)

    check_attention(program, Q, K, V, "f32[B, 1, S, T]", beside=("add",))


@pytest.mark.parametrize("behind_leaves", [True, False])
def test_soft_operations_beyond_the_limit(behind_leaves: bool):
    """Terms are made by recursion, which must end long before Python's limit, however long the graph is."""

    def scaled(x, times):
        for _ in range(times):
            x = mul(x, 1.01)
        return x

    def program(q, k, v, m):
        times = 300 if behind_leaves else 39
        scores = matmul(scaled(q, times), scaled(turned(k), times))
        if not behind_leaves:  # five regions, each within the limit
            scores = scaled(select(m, scaled(scores, 39), -math.inf), 39)
            weights = scaled(softmax(scores), 39)
            return matmul(scaled(select(is_nan(weights), 0.0, weights), 39), scaled(v, times))
        return matmul(softmax(select(m, scores, -math.inf)), scaled(v, times))

    assert raised_names(program, Q, K, V, "bool[B, 1, S, T]").count("attention") == behind_leaves


def test_attention_whose_products_have_other_axes():
    def program(q, k, v):  # as einsum writes it: bshd,bthd->bhst and bhst,bthd->bhsd
        scores = mul(dot(q, k, batch=((0, 0), (2, 2)), contract=((3, 3),)), 0.3)
        return dot(softmax(scores), v, batch=((0, 0), (1, 2)), contract=((3, 1),))

    types = "f32[B, S, 2, 8]", "f32[B, T, 2, 8]", "f32[B, T, 2, 5]"
    check_attention(program, *types, beside=("transpose",) * 3, scale=float(np.float32(0.3)))


@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize("mask", [(), ("f32[B, 1, S, T]",)])
def test_causal_attention(view: bool, mask: tuple[str, ...]):
    def program(q, k, v, *m):
        scores = mul(matmul(q, turned(k)), SCALE)
        counts = [iota(shape=(size,), axis=0, dtype=by_name("i64")) for size in scores.shape[2:]]
        if view:
            query, key = reshape(counts[0], shape=(scores.shape[2], 1)), counts[1]
        else:
            query, key = (iota(shape=scores.shape[2:], axis=axis, dtype=by_name("i64")) for axis in (0, 1))
        for each in m:
            scores = add(scores, each)
        return matmul(softmax(select(less_equal(key, query), scores, -math.inf)), v)

    check_attention(program, Q, K, V, *mask, causal=True, scale=None)


def test_a_mask_that_a_product_computes():
    def program(q, k, v, x, y):
        return matmul(softmax(add(mul(matmul(q, turned(k)), SCALE), mul(matmul(x, y), 2.0))), v)

    masks = "f32[B, 1, S, 3]", "f32[B, 1, 3, T]"
    check_attention(program, Q, K, V, *masks, beside=("matmul", "mul"), scale=None)


def test_numbers_of_leaves_that_no_attribute_expresses_stay():
    def program(q, k, v):
        return matmul(softmax(matmul(mul(q, 0.3), div(turned(k), 2.0))), mul(v, 0.7))

    check_attention(program, Q, K, V, beside=("mul",), scale=float(np.float32(0.3)) / 2)


@op
def _bounded(x: Float, y: Float, z: Float | None = None, /, *, factor: float = 1.0) -> Value:
    """tanh(x @ y * factor + z)"""
    scaled = mul(matmul(x, y), factor)
    return tanh(scaled if z is None else add(scaled, z))


def test_skeletons_are_those_of_any_operation(monkeypatch: pytest.MonkeyPatch):
    samples = ("f32[M, K]", "f32[K, N]"), ("f32[M, K]", "f32[K, N]", "f32[M, N]")
    monkeypatch.setattr(_raise_skeletons, "OPERATIONS", {_bounded: samples})
    known = {}
    for form in (form for types in samples for form in forms_of(_bounded, types)):
        known.setdefault("tanh", []).append(skeleton_of(form))
    monkeypatch.setattr(_raise_skeletons, "skeletons", lambda: known)

    def proof(program: Any, *types: str) -> Any:
        (returned,) = trace(program, *types).main.returned
        return matching_operation(returned.operation, frozenset({_bounded}))

    plain = proof(lambda x, y: tanh(matmul(mul(x, 3.0), div(y, 2.0))), *samples[0])
    assert plain.attributes == {"factor": 1.5} and [o.value.name for o in plain.candidate.operands] == ["x", "y"]
    swapped = proof(lambda z, y, x: tanh(add(z, matmul(x, transpose(y, permutation=(1, 0))))),
                    "f32[N]", "f32[N, K]", "f32[M, K]")  # fmt: skip
    assert swapped.attributes == {"factor": 1.0} and swapped.candidate.operands[2].value.name == "z"
    assert proof(lambda x, y: tanh(add(matmul(x, y), 1.0)), *samples[0]) is None
    assert proof(lambda x, y, z: tanh(mul(matmul(x, y), z)), *samples[1]) is None


@pytest.mark.parametrize("program, possible", [
    (lambda q, k, v: matmul(softmax(matmul(q, turned(k))), v), True),
    (lambda q, k, v: matmul(tanh(softmax(matmul(q, turned(k)))), v), True),  # what is possible is not yet proven
    (lambda q, k, v: matmul(q, turned(k)), False),
    (lambda q, k, v: softmax(matmul(q, turned(k))), False),  # as classifiers end
    (lambda q, k, v: matmul(softmax(q), turned(q)), False),
])  # fmt: skip
def test_forms_are_traced_where_their_hard_operations_follow_one_another(program: Any, possible: bool):
    """As tracing them takes longer than all of `raise` does for a small model."""
    block = trace(program, Q, K, V).main.block
    assert possible_operations(block, frozenset({attention})) == (frozenset({attention}) if possible else frozenset())


def test_attention_with_masks():
    def additive(q, k, v, m):
        return matmul(softmax(add(mul(matmul(q, turned(k)), SCALE), m)), v)

    def boolean(q, k, v, m):
        return matmul(softmax(select(m, mul(matmul(q, turned(k)), SCALE), -math.inf)), v)

    check_attention(additive, Q, K, V, "f32[B, 1, S, T]", masked_rows="nan")
    check_attention(boolean, Q, K, V, "bool[B, 1, 1, T]", masked_rows="nan")


def test_attention_keeps_what_becomes_of_masked_rows():
    def program(q, k, v, m):
        weights = softmax(add(mul(matmul(q, turned(k)), SCALE), m))
        return matmul(select(is_nan(weights), 0.0, weights), v)

    check_attention(program, Q, K, V, "f32[B, 1, S, T]", masked_rows="nan_as_zero")


def test_what_is_no_attention():
    def other_axis(q, k, v):
        return matmul(softmax(mul(matmul(q, turned(k)), SCALE), axis=2), v)

    def finite_fill(q, k, v, m):
        return matmul(softmax(select(m, matmul(q, turned(k)), -1e9)), v)

    def mask_before_scale(q, k, v, m):
        return matmul(softmax(mul(add(matmul(q, turned(k)), m), SCALE)), v)

    def two_masks(q, k, v, m):
        return matmul(softmax(add(add(matmul(q, turned(k)), m), exp(m))), v)

    square = ("f32[B, 2, 8, 8]",) * 3
    mask = "f32[B, 1, S, T]"
    assert "attention" not in raised_names(other_axis, Q, K, "f32[B, 2, T, 5]")
    assert "attention" not in raised_names(finite_fill, Q, K, V, "bool[B, 1, S, T]")
    assert "attention" not in raised_names(mask_before_scale, Q, K, V, mask)
    assert "attention" not in raised_names(two_masks, Q, K, V, mask)
    keys_as_they_are = raised_names(lambda q, k, v: matmul(softmax(matmul(q, k)), v), *square)
    assert keys_as_they_are.count("transpose") == 1  # k stands as it is: attention gets it transposed
    assert attention.name in keys_as_they_are


SIZES = ("0", "1", "2", "3", "B", "S")


def products_around_a_softmax(draw: random.Random) -> tuple[Any, list[str]]:
    """A program on operands of rank 0 to 6, whose axes are batch, contracted or free as drawn, and their types."""

    def shape(most: int) -> list[str]:
        return [draw.choice(SIZES) for _ in range(draw.randint(0, most))]

    batch, contracted, queries, keys = (shape(2) for _ in range(4))
    scores = [*batch, *queries, *keys]
    over = draw.sample(range(len(scores)), draw.randint(0, min(len(scores), 2)))  # axes of the scores that meet v
    kept = draw.randint(0, len(over))  # how many of these stay as batch axes
    shapes = [[*batch, *contracted, *free] for free in (queries, keys)]
    shapes.append([*(scores[each] for each in over), *shape(2)])
    if draw.random() < 0.4:
        shapes.append(scores[draw.randint(0, len(scores)) :])
    dtype = draw.choice(["f32", "f16", "f64"])

    def program(q: Any, k: Any, v: Any, *masks: Any) -> Any:
        pairs = [(axis, axis) for axis in range(len(batch) + len(contracted))]
        x = mul(dot(q, k, batch=tuple(pairs[: len(batch)]), contract=tuple(pairs[len(batch) :])), 0.3)
        weights = softmax(add(x, *masks) if masks else x, axis=-1) if scores else x
        pairs = [(axis, place) for place, axis in enumerate(over)]
        return dot(weights, v, batch=tuple(pairs[:kept]), contract=tuple(pairs[kept:]))

    return program, [f"{dtype}[{', '.join(each)}]" for each in shapes]


@pytest.mark.parametrize("seed", range(8))
def test_products_around_a_softmax_of_any_rank_keep_their_values(seed: int):
    draw = random.Random(seed)
    for _ in range(12):
        program, types = products_around_a_softmax(draw)
        before, after = raised(program, *types)
        assert str(after.main.returned[0].type) == str(before.main.returned[0].type)
        if not any("0" in type_ for type_ in types):
            same_numbers(before, after)


@pytest.mark.parametrize("unranked", range(4))
def test_operands_of_unknown_rank_are_left(unranked: int):
    """The product and the mask have a known rank only after a reshape."""

    def program(q: Any, k: Any, v: Any, mask: Any) -> Any:
        x = reshape(dot(q, k, batch=((0, 0), (1, 1)), contract=((3, 3),)), shape=(2, 3, 5, 4))
        x = add(x, reshape(add(mask, mask), shape=(2, 1, 5, 4)))
        return matmul(softmax(x), reshape(v, shape=(2, 3, 4, 6)))

    types = ["f32[2, 3, 5, 8]", "f32[2, 3, 4, 8]", "f32[2, 3, 4, 6]", "f32[2, 1, 5, 4]"]
    assert "attention" in raised_names(program, *types)
    types[unranked] = "f32[*]"
    has_ranked_leaves = unranked > 1  # what is reshaped stands beside the products
    assert ("attention" in raised_names(program, *types)) == has_ranked_leaves


def test_a_form_accepts_or_refuses_operands_of_any_types():
    """Of each operation that is raised: its type rule is asked before its body, which may assume what it checks."""
    draw = random.Random(0)
    symbolic = trace(lambda x: x, "f32[B, S, 2 * B, B + 1]").main.arguments[0].shape
    dtypes = [by_name(name) for name in ("f32", "f16", "bf16", "f64", "i64", "u8", "bool", "c64")]

    def some_type() -> TensorType:
        shape = [draw.choice([0, 1, 2, 8, *symbolic]) for _ in range(draw.randint(0, 6))]
        return TensorType(draw.choice(dtypes), None if draw.random() < 0.1 else shape)

    outcomes = set()
    for form in [*SEVERAL, *(form for group in function_forms().values() for form in group)]:
        for _ in range(6):
            types = [some_type() for _ in range(draw.randint(0, len(form.definition.operand_specs) + 1))]
            if types and draw.random() < 0.7:
                types = [types[0]] * len(types)
            axes = [tuple(draw.sample(range(-3, 7), draw.randint(0, 3)))]
            for attributes in attribute_choices(form, [0.5, 0.0], axes, draw.randint(-7, 7)):
                try:
                    outcomes.add(isinstance(form.body(types, attributes), Function))
                except IrcError:
                    outcomes.add(False)
    assert outcomes == {True, False}
