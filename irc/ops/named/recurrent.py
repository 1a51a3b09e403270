"""Recurrent layers over whole sequences: the Elman cell, LSTM and GRU.

The product of all steps' inputs with the weights stands before the loop, which carries the states. Steps are computed
in the accumulator of x's type; states and outputs are rounded to x's type after each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from irc.diagnostics import fail
from irc.dims import Dim
from irc.dtypes import BOOL, I64
from irc.ir import Block, Region, Value
from irc.op import Builder, Float, Integer, literal, op, yield_
from irc.ops.control import dim, loop
from irc.ops.functions import tanh
from irc.ops.indexing import gather
from irc.ops.named.activation import relu, sigmoid
from irc.ops.named.common import convert, fitted, must_equal, widen
from irc.ops.pointwise import add, less, mul, select, sub
from irc.ops.products import dot
from irc.ops.rules import same_dtype
from irc.ops.view import concat, expand, reshape, reverse, slice_
from irc.types import TensorType

Direction = Literal["forward", "reverse", "bidirectional"]
# From the recurrent weights [G*H, H], their bias [G*H] or None, a step's inputs to all gates [B, G*H] and its states
# [B, H] to its next states; the first is the step's output.
Step = Callable[[Value, Value | None, Value, list[Value]], list[Value]]


@op
def rnn(
    x: Float, w: Float, r: Float, b: Float | None = None, lengths: Integer | None = None, initial: Float | None = None,
    /, *, direction: Direction = "forward", activation: Literal["tanh", "relu"] = "tanh",
) -> tuple[Value, Value]:  # fmt: skip
    """h' = activation(w x + r h + b): the Elman cell, for every step of sequences.

    Shapes: x [T, B, I], w [D, H, I], r [D, H, H], b [D, 2H] (of w, then of r), lengths [B], initial [D, B, H]; D is 1,
    or 2 where the direction is "bidirectional". Results: outputs [T, D, B, H] and last states [D, B, H].
    Attributes: direction, where "reverse" walks from the last step to the first; activation.
    Source: ONNX RNN-22; torch.nn.RNN.
    Edge cases: steps at or beyond a sequence's length give 0 and leave its state; states begin at 0.
    """
    function = tanh if activation == "tanh" else relu

    def step(weights: Value, bias: Value | None, inputs: Value, states: list[Value]) -> list[Value]:
        return [function(add(inputs, _product(states[0], weights, bias)))]

    outputs, last = _layers(x, w, r, b, lengths, [initial], direction, step)
    return outputs, last


@op
def lstm(
    x: Float, w: Float, r: Float, b: Float | None = None, lengths: Integer | None = None,
    initial_h: Float | None = None, initial_c: Float | None = None, /, *, direction: Direction = "forward",
) -> tuple[Value, Value, Value]:  # fmt: skip
    """Long short-term memory, for every step of sequences.

    With i, o, f, g of w x + r h + b: c' = σ(f) c + σ(i) tanh(g) and h' = σ(o) tanh(c').

    Shapes: x [T, B, I], w [D, 4H, I], r [D, 4H, H], b [D, 8H] (of w, then of r; gates in the order i, o, f, g),
    lengths [B], initial_h and initial_c [D, B, H]; D is 1, or 2 where the direction is "bidirectional". Results:
    outputs [T, D, B, H], last h and last c [D, B, H].
    Attributes: direction, where "reverse" walks from the last step to the first.
    Source: ONNX LSTM-22 without peepholes; torch.nn.LSTM (gates in the order i, f, g, o).
    Edge cases: steps at or beyond a sequence's length give 0 and leave its states; states begin at 0.
    """

    def step(weights: Value, bias: Value | None, inputs: Value, states: list[Value]) -> list[Value]:
        i, o, f, g = _parts(add(inputs, _product(states[0], weights, bias)), 4, r.shape[2])
        c = add(mul(sigmoid(f), states[1]), mul(sigmoid(i), tanh(g)))
        return [mul(sigmoid(o), tanh(c)), c]

    outputs, h, c = _layers(x, w, r, b, lengths, [initial_h, initial_c], direction, step)
    return outputs, h, c


@op
def gru(
    x: Float, w: Float, r: Float, b: Float | None = None, lengths: Integer | None = None, initial: Float | None = None,
    /, *, direction: Direction = "forward", reset_after: bool = False,
) -> tuple[Value, Value]:  # fmt: skip
    """Gated recurrent unit, for every step of sequences.

    With z, s of w x + r h + b: h' = (1 - σ(z)) n + σ(z) h, where n = tanh(w x + r (σ(s) h) + b).

    Shapes: x [T, B, I], w [D, 3H, I], r [D, 3H, H], b [D, 6H] (of w, then of r; gates in the order z, s, n), lengths
    [B], initial [D, B, H]; D is 1, or 2 where the direction is "bidirectional". Results: outputs [T, D, B, H] and last
    states [D, B, H].
    Attributes: direction, where "reverse" walks from the last step to the first; reset_after: n = tanh(w x + b_w +
    σ(s) (r h + b_r)), as in torch and cuDNN.
    Source: ONNX GRU-22 (reset_after is linear_before_reset); torch.nn.GRU (gates in the order s, z, n).
    Edge cases: steps at or beyond a sequence's length give 0 and leave its state; states begin at 0.
    """

    def step(weights: Value, bias: Value | None, inputs: Value, states: list[Value]) -> list[Value]:
        (h,), hidden = states, r.shape[2]
        gates, new = (0, 2 * hidden), (2 * hidden, 3 * hidden)
        both = _product(h, _between(weights, *gates), bias and _between(bias, *gates))
        z, s = map(sigmoid, _parts(add(_between(inputs, *gates, axis=1), both), 2, hidden))
        recurrent = _between(weights, *new), bias and _between(bias, *new)
        again = mul(s, _product(h, *recurrent)) if reset_after else _product(mul(s, h), *recurrent)
        n = tanh(add(_between(inputs, *new, axis=1), again))
        return [add(mul(sub(1.0, z), n), mul(z, h))]

    outputs, last = _layers(x, w, r, b, lengths, [initial], direction, step)
    return outputs, last


def _layers(x: Value, w: Value, r: Value, b: Value | None, lengths: Value | None, initial: Sequence[Value | None],
            direction: Direction, step: Step) -> list[Value]:
    """Outputs [T, D, B, H] and each last state [D, B, H], of one layer for each direction."""
    (steps, batch, _), (count, _, hidden) = x.shape, r.shape
    assert isinstance(count, int), "the type rule has seen it"
    scans = []
    for index in range(count):
        weights, recurrent = (widen(_at(operand, index)) for operand in (w, r))
        bias = None if b is None else widen(_at(b, index))
        inputs = dot(widen(x), weights, contract=((2, 1),))
        again = None
        if bias is not None:
            size = recurrent.shape[0]
            inputs, again = add(inputs, _between(bias, 0, size)), _between(bias, size, 2 * size)
        zero = expand(literal(0, x.dtype), shape=(batch, hidden))
        states = [zero if each is None else fitted(_at(each, index), (batch, hidden)) for each in initial]
        backwards = direction == "reverse" or index == 1
        scans.append(_scan(inputs, states, lengths, backwards, partial(step, recurrent, again)))
    outputs = [reshape(each[0], shape=(steps, 1, batch, hidden)) for each in scans]
    last = [[reshape(state, shape=(1, batch, hidden)) for state in each[1:]] for each in scans]
    if count == 1:
        return [outputs[0], *last[0]]
    return [concat(*outputs, axis=1), *(concat(*states, axis=0) for states in zip(*last, strict=True))]


def _scan(inputs: Value, states: list[Value], lengths: Value | None, backwards: bool,
          step: Callable[[Value, list[Value]], list[Value]]) -> list[Value]:
    """Outputs [T, B, H] in the order of time, and each last state."""
    steps, dtype = inputs.shape[0], states[0].dtype
    block = Block([TensorType(I64, ()), TensorType(BOOL, ()), *(state.type for state in states)])
    with Builder(block, location=Builder.active().location):
        iteration, going, *before = block.arguments
        time = sub(dim(value=steps - 1), iteration) if backwards else iteration
        after = step(gather(inputs, time, axis=0, bounds="promised"), [widen(state) for state in before])
        after = [convert(state, dtype) for state in after]
        output = after[0]
        if lengths is not None:
            within = reshape(less(time, convert(lengths, I64)), shape=(states[0].shape[0], 1))
            output = select(within, output, 0.0)
            after = [select(within, new, old) for new, old in zip(after, before, strict=True)]
        yield_(going, *after, output)
    types = [*(state.type for state in states), states[0].type.with_shape((steps, *states[0].shape))]
    operation = Builder.active().create(loop, [dim(value=steps), None, *states], types=types, regions=[Region(block)])
    *last, outputs = operation.results
    return [reverse(outputs, axes=(0,)) if backwards else outputs, *last]


def _product(h: Value, weights: Value, bias: Value | None) -> Value:
    """h [B, H] times weights [N, H], and a bias [N]."""
    product = dot(h, weights, contract=((1, 1),))
    return product if bias is None else add(product, bias)


def _at(x: Value, index: int) -> Value:
    """x[index]."""
    return reshape(_between(x, index, index + 1), shape=x.shape[1:])


def _between(x: Value, start: Dim, stop: Dim, axis: int = 0) -> Value:
    """x[start:stop] along an axis."""
    starts: list[Dim] = [0] * x.rank
    stops = list(x.shape)
    starts[axis], stops[axis] = start, stop
    return slice_(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank)


def _parts(x: Value, count: int, size: Dim) -> list[Value]:
    """The gates of [B, count*H]."""
    return [_between(x, index * size, (index + 1) * size, axis=1) for index in range(count)]


def _check(gates: int, x: TensorType, w: TensorType, r: TensorType, b: TensorType | None, lengths: TensorType | None,
           initial: dict[str, TensorType | None], direction: str) -> tuple[TensorType, TensorType]:
    """The types of outputs and of each last state."""
    ranks = {"x": (x, 3), "w": (w, 3), "r": (r, 3), "b": (b, 2), "lengths": (lengths, 1)}
    ranks |= {name: (state, 3) for name, state in initial.items()}
    for name, (operand, rank) in ranks.items():
        if operand is not None and operand.rank != rank:
            raise fail("type.rank", f"{name} is {operand}", expected=f"rank {rank}")
    same_dtype(x, w, r, *(operand for operand in (b, *initial.values()) if operand is not None))
    count, hidden = 2 if direction == "bidirectional" else 1, r.dims[2]
    (steps, batch, size), rows = x.dims, gates * hidden
    shapes = {"w": (w, (count, rows, size)), "r": (r, (count, rows, hidden)), "b": (b, (count, 2 * rows)),
              "lengths": (lengths, (batch,))}  # fmt: skip
    shapes |= {name: (state, (count, batch, hidden)) for name, state in initial.items()}
    for name, (operand, extents) in shapes.items():
        for axis, extent in enumerate(extents if operand is not None else ()):
            assert operand is not None
            must_equal(f"axis {axis} of {name}", operand.dims[axis], extent)
    if r.dims[0] != count:
        raise fail("type.shape", f"r is {r}", expected=f"a first extent of {count}, the number of directions")
    return x.with_shape((steps, count, batch, hidden)), x.with_shape((count, batch, hidden))


@rnn.types
def _(x: TensorType, w: TensorType, r: TensorType, b: TensorType | None = None, lengths: TensorType | None = None,
      initial: TensorType | None = None, *, direction: str, activation: str) -> tuple[TensorType, ...]:
    return _check(1, x, w, r, b, lengths, {"initial": initial}, direction)


@lstm.types
def _(x: TensorType, w: TensorType, r: TensorType, b: TensorType | None = None, lengths: TensorType | None = None,
      initial_h: TensorType | None = None, initial_c: TensorType | None = None, *,
      direction: str) -> tuple[TensorType, ...]:  # fmt: skip
    outputs, state = _check(4, x, w, r, b, lengths, {"initial_h": initial_h, "initial_c": initial_c}, direction)
    return outputs, state, state


@gru.types
def _(x: TensorType, w: TensorType, r: TensorType, b: TensorType | None = None, lengths: TensorType | None = None,
      initial: TensorType | None = None, *, direction: str, reset_after: bool) -> tuple[TensorType, ...]:
    return _check(3, x, w, r, b, lengths, {"initial": initial}, direction)
