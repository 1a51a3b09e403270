"""Rows of the recurrent operators."""

from __future__ import annotations

from collections.abc import Sequence

from irc import ops
from irc.frontends.onnx.reading import carry
from irc.frontends.onnx.table import Floats, Strings, reads
from irc.ir import Value
from irc.op import Builder


@reads("LSTM")
def lstm(
    x: Value, w: Value, r: Value, b: Value | None = None, sequence_lens: Value | None = None,
    initial_h: Value | None = None, initial_c: Value | None = None, p: Value | None = None, /, *,
    activation_alpha: Floats = (), activation_beta: Floats = (),
    activations: Strings = (), clip: float = 0.0, direction: str = "forward", hidden_size: int = 0,
    input_forget: int = 0, layout: int = 0,
):  # fmt: skip
    if p is not None or input_forget:
        carry("it has peepholes, or couples the input and forget gates")
    only_standard(("Sigmoid", "Tanh", "Tanh"), activations, clip)
    x, (initial_h, initial_c) = batch_second(x, (initial_h, initial_c), layout)
    return in_layout(ops.lstm(x, w, r, b, sequence_lens, initial_h, initial_c, direction=direction), layout)


@reads("GRU")
def gru(
    x: Value, w: Value, r: Value, b: Value | None = None, sequence_lens: Value | None = None,
    initial_h: Value | None = None, /, *, activation_alpha: Floats = (),
    activation_beta: Floats = (), activations: Strings = (), clip: float = 0.0,
    direction: str = "forward", hidden_size: int = 0, layout: int = 0, linear_before_reset: int = 0,
):  # fmt: skip
    only_standard(("Sigmoid", "Tanh"), activations, clip)
    x, (initial_h,) = batch_second(x, (initial_h,), layout)
    reset_after = bool(linear_before_reset)
    return in_layout(ops.gru(x, w, r, b, sequence_lens, initial_h, direction=direction, reset_after=reset_after),
                     layout)


@reads("RNN")
def rnn(
    x: Value, w: Value, r: Value, b: Value | None = None, sequence_lens: Value | None = None,
    initial_h: Value | None = None, /, *, activation_alpha: Floats = (),
    activation_beta: Floats = (), activations: Strings = (), clip: float = 0.0,
    direction: str = "forward", hidden_size: int = 0, layout: int = 0,
):  # fmt: skip
    activation = activations[0] if activations else "Tanh"
    only_standard(("Relu",) if activation == "Relu" else ("Tanh",), activations, clip)
    x, (initial_h,) = batch_second(x, (initial_h,), layout)
    return in_layout(ops.rnn(x, w, r, b, sequence_lens, initial_h, direction=direction,
                             activation=activation.lower()), layout)


def only_standard(expected: tuple[str, ...], activations: tuple[str, ...], clip: float) -> None:
    """Carry the node unless its activations are these, in each direction, and nothing is clipped."""
    if clip or any(name != expected[index % len(expected)] for index, name in enumerate(activations)):
        carry("it clips, or has activations of its own")


def batch_second(x: Value, states: Sequence[Value | None], layout: int) -> tuple[Value, list[Value | None]]:
    """Layout 1 has the batch first: x [B, T, I], states [B, D, H]."""
    if not layout:
        return of_one_batch(x, states), list(states)
    swapped = [None if state is None else ops.transpose(state, permutation=(1, 0, 2)) for state in states]
    return of_one_batch(ops.transpose(x, permutation=(1, 0, 2)), swapped), swapped


def of_one_batch(x: Value, states: Sequence[Value | None]) -> Value:
    """x [T, B, I] with the batch of initial states [D, B, H] where that is a number: others have no run in ONNX."""
    known = [state.shape[1] for state in states if state is not None and isinstance(state.shape[1], int)]
    if not known or isinstance(x.shape[1], int):
        return x
    type_ = x.type.with_shape((x.shape[0], known[0], x.shape[2]))
    refined: Value = Builder.active().create(ops.refine, [x], types=[type_]).result
    return refined


def in_layout(results: Sequence[Value], layout: int) -> Sequence[Value]:
    if not layout:
        return results
    outputs, *states = results
    return [ops.transpose(outputs, permutation=(2, 0, 1, 3)),
            *(ops.transpose(state, permutation=(1, 0, 2)) for state in states)]
