"""Recurrent layers as single operations: PyTorch would unroll them, one copy for each step of the example.

While a program is exported, calls of `torch.lstm`, `torch.gru`, `torch.rnn_tanh` and `torch.rnn_relu` (which the
modules of `torch.nn` make) go to one operation of our own, `irc::recurrent`, whose row is below. A program that was
exported before is read as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from irc import ops
from irc.dims import Dim
from irc.frontends.torch.reading import unsupported
from irc.frontends.torch.table import reads
from irc.ir import Value

# The order of torch's gates in the weights, by irc's: i f g o for i o f g, and r z n for z r n.
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}
LAYERS = {getattr(torch, kind): kind for kind in GATES}
ONEDNN_LSTM = 2  # the mode of mkldnn_rnn_layer


@torch.library.custom_op("irc::recurrent", mutates_args=())
def recurrent_layers(kind: str, input: Tensor, states: list[Tensor], parameters: list[Tensor], has_biases: bool,
                     layers: int, bidirectional: bool, batch_first: bool) -> list[Tensor]:  # fmt: skip
    """What torch's function of this name gives without dropout: the outputs, then each last state."""
    given = tuple(states) if kind == "lstm" else states[0]
    function = getattr(torch, kind)
    return list(function(input, given, parameters, has_biases, layers, 0.0, False, bidirectional, batch_first))


@recurrent_layers.register_fake
def _(kind: str, input: Tensor, states: list[Tensor], parameters: list[Tensor], has_biases: bool, layers: int,
      bidirectional: bool, batch_first: bool) -> list[Tensor]:  # fmt: skip
    width = states[0].shape[2] * (2 if bidirectional else 1)
    steps, batch = (input.shape[1], input.shape[0]) if batch_first else input.shape[:2]
    outputs = input.new_empty((steps, batch, width))
    return [outputs.transpose(0, 1) if batch_first else outputs, *(torch.empty_like(state) for state in states)]


class KeptWhole(TorchFunctionMode):
    """Calls of recurrent layers become `irc::recurrent`, but for those with dropout, projections or packed inputs."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind, kwargs = LAYERS.get(function), kwargs or {}
        packed = len(args) == 9 and isinstance(args[3], (list, tuple))  # their sizes come before the states
        if kind is None or kwargs or len(args) != 9 or packed:
            return function(*args, **kwargs)
        input, states, parameters, has_biases, layers, dropout, train, bidirectional, batch_first = args
        every = layers * (2 if bidirectional else 1) * (4 if has_biases else 2)
        if (dropout and train) or len(parameters) != every:
            return function(*args)
        states = list(states) if kind == "lstm" else [states]
        return tuple(torch.ops.irc.recurrent(kind, input, states, list(parameters), has_biases, layers, bidirectional,
                                             batch_first))  # fmt: skip


@reads("irc::recurrent")
def recurrent(kind, input, states, parameters, has_biases, layers, bidirectional, batch_first):
    """A layer reads the outputs of the one before it; states are [layers * directions, B, H]."""
    directions, each = (2 if bidirectional else 1), (4 if has_biases else 2)
    x = ops.transpose(input, permutation=(1, 0, 2)) if batch_first else input
    steps, batch, _ = x.shape
    last: list[list[Value]] = [[] for _ in states]
    for layer in range(layers):
        first = layer * directions
        parts = [parameters[(first + index) * each : (first + index + 1) * each] for index in range(directions)]
        weights = [_of_directions([reordered(kind, part[place]) for part in parts]) for place in range(2)]
        biases = [ops.concat(*(reordered(kind, bias) for bias in part[2:]), axis=0) for part in parts if has_biases]
        initial = [_rows(state, first, first + directions) for state in states]
        outputs, *after = _layer(kind, [x, *weights, _of_directions(biases) if has_biases else None], initial,
                                 "bidirectional" if bidirectional else "forward")  # fmt: skip
        x = ops.reshape(ops.transpose(outputs, permutation=(0, 2, 1, 3)),
                        shape=(steps, batch, directions * outputs.shape[3]))  # fmt: skip
        for collected, state in zip(last, after, strict=True):
            collected.append(state)
    return [ops.transpose(x, permutation=(1, 0, 2)) if batch_first else x,
            *(states[0] if len(states) == 1 else ops.concat(*states, axis=0) for states in last)]


@reads("mkldnn_rnn_layer")
def mkldnn_rnn_layer(input, weight0, weight1, weight2, weight3, hx_, cx_, reverse, batch_sizes, mode, hidden_size,
                     num_layers, has_biases, bidirectional, batch_first, train):  # fmt: skip
    """A layer of an LSTM in one direction: for inference PyTorch has oneDNN run these. Steps are the first axis."""
    if mode != ONEDNN_LSTM or batch_sizes or num_layers != 1 or bidirectional or batch_first or train:
        unsupported("it is no layer of one direction for inference")
    weights = [_of_directions([reordered("lstm", weight)]) for weight in (weight0, weight1)]
    biases = [ops.concat(*(reordered("lstm", bias) for bias in (weight2, weight3)), axis=0)] if has_biases else []
    outputs, *states = _layer("lstm", [input, *weights, _of_directions(biases) if has_biases else None], [hx_, cx_],
                              "reverse" if reverse else "forward")  # fmt: skip
    steps, _, batch, width = outputs.shape
    return [ops.reshape(outputs, shape=(steps, batch, width)), *states, None]


def _layer(kind: str, operands: Sequence[Value | None], initial: Sequence[Value], direction: Any) -> Sequence[Value]:
    if kind == "lstm":
        return ops.lstm(*operands, None, *initial, direction=direction)
    if kind == "gru":
        return ops.gru(*operands, None, *initial, direction=direction, reset_after=True)
    return ops.rnn(*operands, None, *initial, direction=direction, activation=kind.removeprefix("rnn_"))


def reordered(kind: str, x: Value) -> Value:
    """The rows of weights or of a bias, with the gates in the order of the IR's operations."""
    order = GATES[kind]
    size = x.shape[0] // len(order)
    return ops.concat(*(_rows(x, gate * size, (gate + 1) * size) for gate in order), axis=0)


def _rows(x: Value, start: Dim, stop: Dim) -> Value:
    """x[start:stop]."""
    return ops.slice_(x, starts=(start, *[0] * (x.rank - 1)), stops=(stop, *x.shape[1:]), steps=(1,) * x.rank)


def _of_directions(parts: Sequence[Value]) -> Value:
    """Those of each direction, along a first axis."""
    stacked = [ops.reshape(part, shape=(1, *part.shape)) for part in parts]
    return stacked[0] if len(stacked) == 1 else ops.concat(*stacked, axis=0)
