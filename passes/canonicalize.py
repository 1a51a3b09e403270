"""The pass `canonicalize` and its rules: simplifications that are always valid and change no bit of a result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from irc.dims import Dim
from irc.dtypes import BF16, BOOL, F16, F32, I64, holds, limits
from irc.index_map import IndexMap, compose, is_empty
from irc.ir import Block, Operation, Region, Value, dims_in
from irc.module import Module
from irc.op import Builder, is_constant, literal, yield_
from irc.ops import (
    add,
    bitwise_not,
    cast,
    concat,
    dim,
    div,
    exp,
    expand,
    if_,
    loop,
    maximum,
    minimum,
    mul,
    neg,
    pad,
    reduce_max,
    reduce_sum,
    refine,
    reshape,
    select,
    slice_,
    split,
    sub,
    transpose,
)  # fmt: skip
from irc.ops import pow_ as power
from irc.ops.view import map_of
from irc.pass_manager import Pass, PassContext
from irc.passes._inlining import inline_block
from irc.pattern import constant_of
from irc.rewrite import Rule, RuleStatistics, apply_rules, rewrite
from irc.shape_analysis import ShapeAnalysis
from irc.simplify import simplify
from irc.types import TensorType


@dataclass
class Canonicalize(Pass):
    """Convert operations to a canonical form: remove redundant views, casts, constants and dims.

    Every rewrite is a named rule in this file; `irc check passes/canonicalize.py` tests them. A rule keeps every bit of
    the results, -0 and NaN included. The rules are applied until none matches, in linear time.
    """

    def run(self, module: Module, context: PassContext) -> bool:
        statistics: dict[str, RuleStatistics] = {}
        changed = False
        for function in module.functions.values():
            changed |= apply_rules(function, RULES, numerics="exact", statistics=statistics, maker="canonicalize")
        for name, record in statistics.items():
            if record.matched:
                context.count("canonicalize", name, record.matched)
        return changed


# -- views -----------------------------------------------------------------------------------------------------


LONGEST_CHAIN = 8  # views that one match composes; longer chains are shortened by several matches


@simplify("reshape", "transpose")
def view_chain(operation: Operation) -> Value | None:
    """A chain of reshape and transpose -> its source, or one reshape or transpose of the source"""
    result = operation.result
    for source, view in reversed(_viewed(result)):
        if view.is_reshape and source.type == result.type:
            return source
        alone = operation.inputs[0] is source
        if view.is_reshape and not (alone and operation.name == "reshape"):
            return reshape(source, shape=result.shape, inferred=operation.attributes.get("inferred"))
        if not alone and view.permutation is not None:
            return transpose(source, permutation=view.permutation)
    return None


def _viewed(value: Value) -> list[tuple[Value, IndexMap]]:
    """The sources of the chain of reshapes and transposes that ends with `value`, nearest first, each with its index
    map to `value`."""
    sources: list[tuple[Value, IndexMap]] = []
    view: IndexMap | None = None
    while (operation := value.operation) is not None and operation.name in ("reshape", "transpose"):
        step = map_of(value)
        view = step if view is None or step is None else compose(view, step)
        value = operation.inputs[0]
        if view is None or len(sources) == LONGEST_CHAIN or is_empty(value.shape):
            break
        sources.append((value, view))
    return sources


view_chain.example(lambda x: reshape(x, shape=(2, 6)), "f32[2, 6]")
view_chain.example(lambda x: reshape(reshape(x, shape=(3, 4)), shape=(6, 2)), "f32[2, 6]")
view_chain.example(lambda x: transpose(x, permutation=(0, 2, 1)), "f32[2, 1, 3]")
view_chain.example(lambda x: transpose(transpose(x, permutation=(1, 2, 0)), permutation=(1, 0, 2)), "f32[2, 3, 4]")
view_chain.example(
    lambda x: reshape(transpose(reshape(x, shape=(6, 4, 5)), permutation=(0, 2, 1)), shape=(2, 3, 5, 4)),
    "f32[2, 3, 4, 5]",
)
view_chain.near_miss(lambda x: reshape(transpose(x, permutation=(1, 0)), shape=(2, 3)), "f32[2, 3]")
view_chain.near_miss(lambda x: transpose(x, permutation=(1, 0)), "f32[3, 3]")


@simplify("expand")
def expand_of_same(operation: Operation) -> Value | None:
    """expand(x) to x's own shape -> x; expand(expand(x)) -> expand(x)"""
    (x,) = operation.inputs
    if x.type == operation.result.type:
        return x
    if x.operation is not None and x.operation.name == "expand":
        return expand(x.operation.inputs[0], shape=operation.result.shape)
    return None


expand_of_same.example(lambda x: expand(x, shape=(2, 3)), "f32[2, 3]")
expand_of_same.example(lambda x: expand(expand(x, shape=(2, 3)), shape=(4, 2, 3)), "f32[3]")
expand_of_same.near_miss(lambda x: expand(x, shape=(2, 3)), "f32[1, 3]")


@simplify("slice")
def slice_of_all(operation: Operation) -> Value | None:
    """x[:, :] -> x"""
    (x,) = operation.inputs
    attributes = operation.attributes
    whole = all(start == 0 for start in attributes["starts"]) and all(step == 1 for step in attributes["steps"])
    return x if whole and x.type.is_ranked and attributes["stops"] == x.shape else None


slice_of_all.example(lambda x: slice_(x, starts=(0, 0), stops=(2, 3), steps=(1, 1)), "f32[2, 3]")
slice_of_all.near_miss(lambda x: slice_(x, starts=(0, 1), stops=(2, 3), steps=(1, 1)), "f32[2, 3]")


@simplify("slice")
def slices_of_other_axes(operation: Operation) -> Value | None:
    """x[a:b][:, c:d] -> x[a:b, c:d]"""
    (x,), inner = operation.inputs, operation.inputs[0].operation
    if inner is None or inner.name != "slice" or not inner.inputs[0].type.is_ranked:
        return None
    source = inner.inputs[0]
    parts = []
    for axis in range(x.rank):
        kept = [each for each in (inner, operation) if not _keeps_axis(each, axis)]
        if len(kept) > 1:
            return None
        chosen = kept[0] if kept else inner
        parts.append([chosen.attributes[name][axis] for name in ("starts", "stops", "steps")])
    starts, stops, steps = zip(*parts, strict=True)
    return slice_(source, starts=starts, stops=stops, steps=steps)


def _keeps_axis(operation: Operation, axis: int) -> bool:
    """Whether a slice takes all of an axis."""
    starts, stops, steps = (operation.attributes[name][axis] for name in ("starts", "stops", "steps"))
    return starts == 0 and steps == 1 and stops == operation.inputs[0].shape[axis]


slices_of_other_axes.example(
    lambda x: slice_(slice_(x, starts=(1, 0), stops=(3, 4), steps=(1, 1)), starts=(0, 0), stops=(2, 3), steps=(1, 2)),
    "f32[3, 4]",
)
slices_of_other_axes.near_miss(
    lambda x: slice_(slice_(x, starts=(1, 0), stops=(3, 4), steps=(1, 1)), starts=(1, 0), stops=(2, 3), steps=(1, 2)),
    "f32[3, 4]",
)


@simplify("pad")
def pad_by_nothing(operation: Operation) -> Value | None:
    """pad(x, low=0, high=0) -> x"""
    return operation.inputs[0] if not any(operation.attributes["low"] + operation.attributes["high"]) else None


pad_by_nothing.example(lambda x: pad(x, low=(0,), high=(0,)), "f32[3]")
pad_by_nothing.near_miss(lambda x: pad(x, low=(0,), high=(1,)), "f32[3]")


@simplify("reduce_sum", "reduce_prod", "reduce_max", "reduce_min")
def reduce_over_nothing(operation: Operation) -> Value | None:
    """reduce(x, axes=[]) -> x, except a sum of floats: it starts at 0.0, so that -0.0 becomes 0.0"""
    (x,) = operation.inputs
    changes = operation.name == "reduce_sum" and not x.dtype.is_integer
    return x if operation.attributes["axes"] == () and not changes else None


reduce_over_nothing.example(lambda x: reduce_max(x, axes=()), "f32[3]")
reduce_over_nothing.example(lambda x: reduce_sum(x, axes=()), "i32[3]")
reduce_over_nothing.near_miss(lambda x: reduce_sum(x, axes=()), "f32[3]")
reduce_over_nothing.near_miss(lambda x: reduce_sum(x, axes=(0,)), "f32[1]")


@simplify("concat")
def concat_of_split(operation: Operation) -> Value | None:
    """concat(x) -> x; concat(*split(x)) -> x"""
    first = operation.inputs[0]
    if len(operation.inputs) == 1:
        return first
    source = first.operation
    if source is None or source.name != "split" or operation.inputs != source.results:
        return None
    rank = first.rank
    same = source.attributes["axis"] % rank == operation.attributes["axis"] % rank
    return source.inputs[0] if same and source.inputs[0].type == operation.result.type else None


concat_of_split.example(lambda x: concat(x, axis=0), "f32[3]")
concat_of_split.example(lambda x: concat(*split(x, axis=1, sizes=(1, 3)), axis=-1), "f32[2, 4]")
concat_of_split.near_miss(lambda x: concat(*split(x, axis=1, sizes=(2, 2)), axis=0), "f32[2, 4]")
concat_of_split.near_miss(lambda x: concat(*split(x, axis=0, sizes=(2, 2))[::-1], axis=0), "f32[4]")


@simplify("split")
def split_of_concat(operation: Operation) -> Sequence[Value] | None:
    """split(concat(a, b)) into the same pieces -> a, b; split(x) into one piece -> x"""
    (x,) = operation.inputs
    source = x.operation
    if len(operation.results) == 1 and operation.result.type == x.type:
        return [x]
    if source is None or source.name != "concat" or not x.type.is_ranked:
        return None
    same_axis = source.attributes["axis"] % x.rank == operation.attributes["axis"] % x.rank
    same_types = [value.type for value in source.inputs] == [value.type for value in operation.results]
    return source.inputs if same_axis and same_types else None


split_of_concat.example(lambda x: split(x, axis=0, sizes=(3,)), "f32[3]")
split_of_concat.example(lambda x, y: split(concat(x, y, axis=0), axis=0, sizes=(3, 2)), "f32[3]", "f32[2]")
split_of_concat.near_miss(lambda x, y: split(concat(x, y, axis=0), axis=0, sizes=(2, 3)), "f32[3]", "f32[2]")


# -- casts -----------------------------------------------------------------------------------------------------


@simplify("cast")
def cast_to_same(operation: Operation) -> Value | None:
    """cast(x) to x's own type -> x; cast(cast(x, to=wider), to) -> cast(x, to)"""
    (x,) = operation.inputs
    to = operation.attributes["to"]
    if x.dtype is to:
        return x
    inner = x.operation
    if inner is None or inner.name != "cast" or not holds(x.dtype, inner.inputs[0].dtype):
        return None
    origin = inner.inputs[0]
    return origin if origin.dtype is to else cast(origin, to=to, saturate=operation.attributes["saturate"])


cast_to_same.example(lambda x: cast(x, to=x.dtype), "f32[3]")
cast_to_same.example(lambda x: cast(cast(x, to=F32), to=F16), "f16[3]")
cast_to_same.example(lambda x: cast(cast(x, to=I64), to=F32), "i32[3]")
cast_to_same.near_miss(lambda x: cast(cast(x, to=F16), to=F32), "f32[3]")
cast_to_same.near_miss(lambda x: cast(cast(x, to=BF16), to=F16), "f16[3]")


# -- arithmetic ------------------------------------------------------------------------------------------------


@simplify(
    "add", "mul", "minimum", "maximum", "equal", "not_equal", "bitwise_and", "bitwise_or", "bitwise_xor"
)
def constant_to_the_right(operation: Operation) -> Value | None:
    """add(1, x) -> add(x, 1), so that other rules match the constant on one side only"""
    x, y = operation.inputs
    if not is_constant(x) or is_constant(y):
        return None
    definition = operation.definition
    return definition(y, x, **operation.attributes)


constant_to_the_right.example(lambda x: add(1.5, x), "f32[3]")
constant_to_the_right.near_miss(lambda x: add(x, 1.5), "f32[3]")


def _is_number(value: Value, expected: float) -> bool:
    """Whether all elements of a value are this constant, with the same sign of zero."""
    number = constant_of(value)
    if number is None:
        return False
    has_same_sign = value.dtype.kind != "float" or np.signbit(number) == np.signbit(expected)
    return bool(number == expected) and bool(has_same_sign)


@simplify("mul", "div", "pow", "add", "sub", "minimum", "maximum")
def neutral_element(operation: Operation) -> Value | None:
    """x * 1, x / 1, x ** 1, x - 0, x + (-0), max(x, -inf), min(x, inf) -> x

    x + 0 is x only for integers: -0.0 + 0.0 is 0.0.
    """
    x, y = operation.inputs
    if x.type != operation.result.type or x.dtype.is_complex:
        return None
    name, is_float = operation.name, x.dtype.is_float
    if name in ("mul", "div", "pow"):
        neutral = 1.0
    elif name in ("add", "sub"):
        neutral = -0.0 if name == "add" and is_float else 0.0
    else:
        sign = -1.0 if name == "maximum" else 1.0
        ends = limits(x.dtype) if not is_float else None
        neutral = sign * np.inf if ends is None else (ends.smallest if name == "maximum" else ends.largest)
    return x if _is_number(y, neutral) else None


neutral_element.example(lambda x: mul(x, 1), "f32[3]")
neutral_element.example(lambda x: div(x, 1), "i32[3]")
neutral_element.example(lambda x: power(x, 1), "f32[3]")
neutral_element.example(lambda x: sub(x, 0), "f16[3]")
neutral_element.example(lambda x: add(x, -0.0), "f32[3]")
neutral_element.example(lambda x: add(x, 0), "i64[3]")
neutral_element.example(lambda x: maximum(x, -np.inf), "f32[3]")
neutral_element.example(lambda x: minimum(x, 127), "i8[3]")
neutral_element.near_miss(lambda x: add(x, 0), "f32[3]")
neutral_element.near_miss(lambda x: sub(x, -0.0), "f32[3]")
neutral_element.near_miss(lambda x: mul(x, 2), "f32[3]")
neutral_element.near_miss(lambda x: maximum(x, 0), "f32[3]")


@rewrite(numerics="exact")
def neg_of_neg(x):
    """-(-x) -> x"""
    return neg(neg(x)), x


@rewrite(numerics="exact")
def not_of_not(x):
    """~(~x) -> x"""
    return bitwise_not(bitwise_not(x)), x


@simplify("select")
def select_known(operation: Operation) -> Value | None:
    """select(true, x, y) -> x; select(c, x, x) -> x"""
    condition, x, y = operation.inputs
    chosen = constant_of(condition)
    taken = x if x is y else None if chosen is None else x if chosen else y
    if taken is None:
        return None
    return taken if taken.type == operation.result.type else expand(taken, shape=operation.result.shape)


select_known.example(lambda x, y: select(True, x, y), "f32[3]", "f32[3]")
select_known.example(lambda x, y: select(False, x, y), "f32[3]", "f32[]")
select_known.example(lambda c, x: select(c, x, x), "bool[2, 3]", "f32[3]")
select_known.near_miss(lambda c, x, y: select(c, x, y), "bool[3]", "f32[3]", "f32[3]")


# -- dims and control flow -------------------------------------------------------------------------------------

SHAPE_ARITHMETIC = (
    "dim", "add", "sub", "mul", "div", "mod", "neg", "minimum", "maximum", "concat", "gather", "slice", "reshape",
    "cast", "select", "reduce_prod", "reduce_sum", "expand",
)  # fmt: skip


@simplify(*SHAPE_ARITHMETIC)
def known_dims(operation: Operation) -> Value | None:
    """An i64 scalar or vector whose elements are known dims -> one `dim`, or a constant if all are integers"""
    (result, *more) = operation.results
    if more or result.dtype.name != "i64" or not result.type.is_static or result.rank > 1:
        return None
    if not all(value.operation is not None and value.operation.name in ("const", "dim") for value in operation.inputs):
        return None  # operands are visited first: known ones are a `dim` or a constant by now
    if operation.name == "dim" and dims_in(operation.attributes):
        return None
    return ShapeAnalysis().normal_form(result)


known_dims.example(lambda: dim(value=3))
known_dims.example(lambda x: add(dim(value=x.shape[0]), 1), "f32[B]")
known_dims.example(lambda x: mul(dim(value=x.shape), 2), "f32[B, 4]")
known_dims.near_miss(lambda x: dim(value=x.shape[0]), "f32[B]")
known_dims.near_miss(lambda n: add(n, n), "i64[]")


@simplify("if")
def if_known(operation: Operation) -> Sequence[Value] | None:
    """if true { a } else { b } -> a"""
    chosen = constant_of(operation.inputs[0])
    if chosen is None:
        return None
    region = operation.regions[0 if chosen else 1]
    terminator = region.block.terminator
    if [value.type for value in terminator.inputs] != [result.type for result in operation.results]:
        return None
    if any(inner.symbols for inner in operation.walk()):
        return None  # the inlined copy would define its symbols again
    return inline_block(region.block, [], operation)


def _choose(condition: Value | bool, x: Value) -> Value:
    """if condition { exp x } else { neg x }"""
    regions = [Region(), Region()]
    for region, function in zip(regions, (exp, neg), strict=True):
        with Builder(region.block) as builder:
            builder.create(yield_, [function(x)])
    chosen = literal(condition, BOOL) if isinstance(condition, bool) else condition
    return Builder.active().create(if_, [chosen], types=[x.type], regions=regions).result


if_known.example(lambda x: _choose(True, x), "f32[3]")
if_known.example(lambda x: _choose(False, x), "f32[3]")
if_known.near_miss(_choose, "bool[]", "f32[3]")


@simplify("loop")
def loop_condition_known(operation: Operation) -> Sequence[Value] | None:
    """loop n, true { (i, c) .. yield c } -> loop n, _ { .. }, with `true` for c in the body"""
    (trip, first, *carried), block = operation.operands, operation.regions[0].block
    end, condition = block.terminator, block.arguments[1]
    again = end.operands[0]
    if trip is None or not (first is None or constant_of(first)):
        return None
    if again is not condition and not constant_of(again):
        return None
    others = [use for use in condition.uses if use != (end, 0)]
    if first is None and again is condition and not others:
        return None
    end.set_operand(0, condition)
    always = literal(True, BOOL) if others else None
    for user, index in others:
        user.set_operand(index, always)
    moved, operation.regions = operation.regions, []
    defined, operation.symbols = operation.symbols, ()
    types = [result.type for result in operation.results]
    return Builder.active().create(loop, [trip, None, *carried], types=types, symbols=defined, regions=moved).results


def _loop(x: Value, first: Value | bool, again: Callable[[Value], Value], trip: Value | int = 3) -> Value:
    """loop trip, first { (i, c, a) yield again(c), exp a }"""
    region = Region(Block([TensorType(I64, ()), TensorType(BOOL, ()), x.type]))
    _, condition, state = region.block.arguments
    with Builder(region.block) as builder:
        builder.create(yield_, [again(condition), exp(state)])
    trip_count = literal(trip, I64) if isinstance(trip, int) else trip
    condition = literal(first, BOOL) if isinstance(first, bool) else first
    return Builder.active().create(loop, [trip_count, condition, x], types=[x.type], regions=[region]).result


loop_condition_known.example(lambda x: _loop(x, True, lambda c: c), "f32[3]")
loop_condition_known.example(lambda x: _loop(x, True, lambda _: literal(True, BOOL), 0), "f32[3]")
loop_condition_known.example(lambda x, n: _loop(x, True, lambda c: c, n), "f32[3]", "i64[]")
loop_condition_known.near_miss(lambda x, c: _loop(x, c, lambda c: c), "f32[3]", "bool[]")
loop_condition_known.near_miss(lambda x: _loop(x, False, lambda c: c), "f32[3]")
loop_condition_known.near_miss(lambda x: _loop(x, True, bitwise_not), "f32[3]")
loop_condition_known.near_miss(lambda x: _loop(x, True, lambda _: literal(False, BOOL)), "f32[3]")


@simplify("refine")
def refine_of_same(operation: Operation) -> Value | None:
    """refine(x) to x's own type -> x"""
    (x,) = operation.inputs
    return x if x.type == operation.result.type and not operation.symbols else None


def _refined(x: Value, shape: tuple[Dim, ...]) -> Value:
    return Builder.active().create(refine, [x], types=[x.type.with_shape(shape)]).result


refine_of_same.example(lambda x: _refined(x, x.shape), "f32[B, 4]")
refine_of_same.near_miss(lambda x, y: _refined(x, y.shape), "f32[B, 4]", "f32[C, 4]")


RULES: tuple[Rule, ...] = (
    view_chain, expand_of_same, slice_of_all, slices_of_other_axes, pad_by_nothing, reduce_over_nothing,
    concat_of_split, split_of_concat, cast_to_same, constant_to_the_right, neutral_element, neg_of_neg, not_of_not,
    select_known, known_dims, if_known, loop_condition_known, refine_of_same,
)  # fmt: skip
