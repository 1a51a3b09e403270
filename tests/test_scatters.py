"""Scatters as selections: to consecutive places, as a prompt is written to a cache, whose attention is read after."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

pytest.importorskip("triton")

import irc
from irc import interpreter, ops
from irc.backends.triton import compile_artefact, emit
from irc.backends.triton.compile import TARGETS
from irc.backends.triton.donation import in_place
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.dtypes import I32, I64
from irc.ir import Value
from irc.kernel import count, kernel_of
from irc.kernel.updates import most_nonzero
from irc.module import Module
from irc.op import const, trace
from irc.pass_manager import PassContext
from irc.passes.scatters import Scatters
from irc.verifier import verify
from irc.weights import Tensor
from tests import triton_harness as harness


def places(x: Value, updates: Value, start: Value) -> Value:
    return ops.add(ops.iota(shape=(updates.shape[0],), axis=0, dtype=I64), start)


def written(x: Value, indices: Value, updates: Value, **how: Any) -> Value:
    return ops.scatter(x, ops.reshape(indices, shape=(updates.shape[0], 1)), updates, **how)


def from_the_start(x: Value, indices: Value) -> Value:
    return ops.gather(ops.iota(shape=x.shape[:1], axis=0, dtype=I64), indices, axis=0, bounds="positive")


def inside_a_transpose(x: Value, updates: Value, start: Value) -> Value:
    """Along the last axis of what is transposed, which keeps its layout."""
    turned = ops.transpose(x, permutation=(1, 0))
    result = written(turned, places(turned, updates, start), updates)
    return ops.transpose(result, permutation=(1, 0))


X, START = "f32[T, 3]", "i64[1]"
WINDOWS: dict[str, Callable[[Value, Value, Value], Value]] = {
    "from the start": lambda x, u, s: written(x, from_the_start(x, places(x, u, s)), u),
    "from the start or the end": lambda x, u, s: written(x, places(x, u, s), u),
    "behind": lambda x, u, s: written(x, ops.sub(places(x, u, s), 1), u),
    "scalar": lambda x, u, s: written(x, places(x, u, ops.reshape(s, shape=())), u),
    "transposed": inside_a_transpose,
}
SIZES = [(0, 0), (0, 4), (1, 1), (1, 4), (3, 7), (4, 4)]


@pytest.mark.parametrize(("count", "extent"), SIZES)
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_selected(name: str, count: int, extent: int) -> None:
    """At every start, also of what is out of range, which stays an error; sizes are known, or open where that does."""
    for length in (str(count), "S") if name == "from the start" else (str(count),):
        shape = f"f32[3, {extent}]" if name == "transposed" else f"f32[{extent}, 3]"
        before = trace(WINDOWS[name], shape, f"f32[{length}, 3]", START)
        after = before.clone()
        assert Scatters().run(after, PassContext())
        verify(after)
        assert not any(each.name == "scatter" for each in after.walk())
        x, updates = np.arange(3.0 * extent, dtype=np.float32), -np.arange(3.0 * count, dtype=np.float32) - 1
        for start in range(-extent - 2, extent + 3):
            values = (x.reshape((3, extent) if name == "transposed" else (extent, 3)), updates.reshape(count, 3),
                      np.array([start]))  # fmt: skip
            inputs = {argument.name: value for argument, value in zip(before.main.arguments, values, strict=True)}
            actual, expected = outcome(after, inputs), outcome(before, inputs)
            assert isinstance(actual, str) == isinstance(expected, str), (start, actual, expected)
            np.testing.assert_array_equal(actual, expected, str(start))


def outcome(module: Module, inputs: dict[str, Any]) -> Any:
    try:
        return next(iter(interpreter.run(module, inputs).values()))
    except IrcError as error:
        return error.diagnostics[0].code


STAYING: dict[str, tuple[Callable[[Value, Value, Value], Value], tuple[str, ...]]] = {
    "given": (lambda x, u, p: written(x, p, u), ("f32[7, 3]", "f32[3, 3]", "i64[3]")),
    "apart": (lambda x, u, s: written(x, ops.mul(places(x, u, s), 2), u), ("f32[7, 3]", "f32[3, 3]", START)),
    "backwards": (lambda x, u, s: written(x, ops.sub(s, places(x, u, s)), u), ("f32[7, 3]", "f32[3, 3]", START)),
    "each by itself": (lambda x, u, s: written(x, ops.add(places(x, u, s), s), u),
                       ("f32[7, 3]", "f32[3, 3]", "i64[3]")),
    "a constant with a gap": (lambda x, u, s: written(x, ops.add(const(value=Tensor.of(np.array([0, 1, 3]))), s), u),
                              ("f32[7, 3]", "f32[3, 3]", START)),
    "narrow bytes that start again": (
        lambda x, u, s: written(x, const(value=Tensor.of(np.array([254, 255, 0], np.uint8))), u),
        ("f32[400, 3]", "f32[3, 3]", START)),
    "32 bits, which may wrap around": (
        lambda x, u, s: written(x, ops.add(ops.iota(shape=(3,), axis=0, dtype=I32), ops.cast(s, to=I32)), u),
        ("f32[7, 3]", "f32[3, 3]", START)),
    "added up": (lambda x, u, s: written(x, places(x, u, s), u, reduction="add"), ("f32[7, 3]", "f32[3, 3]", START)),
    "maybe twice": (lambda x, u, s: written(x, places(x, u, s), u), ("f32[7, 3]", "f32[S, 3]", START)),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYING)
def test_others_stay(name: str) -> None:
    program, types = STAYING[name]
    module = trace(program, *types)
    assert not Scatters().run(module, PassContext())


@pytest.mark.parametrize(("count", "extent"), [(0, 0), (0, 4), (1, 4), (3, 2), (3, 7)])
@pytest.mark.parametrize("is_turned", [False, True])
def test_rows_of_what_is_updated_are_selected(is_turned: bool, count: int, extent: int) -> None:
    """At any places, of which the last of several updates to one counts, and those out of range are an error."""
    def program(x: Value, updates: Value, places: Value) -> Value:
        turned = ops.transpose(x, permutation=(1, 0)) if is_turned else x
        result = written(turned, places, updates)
        return ops.transpose(result, permutation=(1, 0)) if is_turned else result

    shape = (3, extent) if is_turned else (extent, 3)
    before = trace(program, f"f32[{shape[0]}, {shape[1]}]", f"f32[{count}, 3]", f"i64[{count}]")
    before.main.updates = {0: before.main.arguments[0]}
    after = before.clone()
    assert Scatters().run(after, PassContext())
    verify(after)
    assert [each.operands[0].rank for each in after.walk() if each.name == "scatter"] == [1] * (count != 1)
    generator = np.random.default_rng(count)
    for _ in range(30):
        values = (generator.random(shape, np.float32), generator.random((count, 3), np.float32),
                  generator.integers(-extent - 1, extent + 1, count))  # fmt: skip
        inputs = {argument.name: value for argument, value in zip(before.main.arguments, values, strict=True)}
        actual, expected = outcome(after, inputs), outcome(before, inputs)
        assert isinstance(actual, str) == isinstance(expected, str), (values[2], actual, expected)
        np.testing.assert_array_equal(actual, expected, str(values[2]))


class Prompt(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Keys and values of a prompt are written to a cache from a position on, and its queries attend to the cache."""

    def __init__(self, form: str, dtype: Any, head: int = 64) -> None:
        super().__init__()
        self.form = form
        self.register_buffer("keys", torch.randn(2, 2, 96, head, dtype=dtype))
        self.register_buffer("values", torch.randn(2, 2, 96, head, dtype=dtype))

    def forward(self, q: Any, k: Any, v: Any, position: Any) -> Any:
        rows, length = q.shape[2], self.keys.shape[2]
        places = position if self.form == "given" else position + torch.arange(rows)
        if self.form in ("index_copy", "given"):
            self.keys.index_copy_(2, places, k)
            self.values.index_copy_(2, places, v)
        elif self.form == "index_put":
            self.keys[:, :, places] = k
            self.values[:, :, places] = v
        else:
            first = position.item()
            torch._check(first >= 0)
            torch._check(first + rows <= length)
            self.keys[:, :, first : first + rows] = k
            self.values[:, :, first : first + rows] = v
        visible = torch.arange(length)[None, :] <= places[:, None]
        keys, values = (x.repeat_interleave(2, 1) for x in (self.keys, self.values))
        scores = (q @ keys.transpose(-1, -2) * 0.125).masked_fill(~visible, float("-inf"))
        return torch.softmax(scores.float(), -1).to(q.dtype) @ values


def prompt(form: str, dtype: Any, rows: int) -> tuple[Any, tuple[Any, ...], Module]:
    torch.manual_seed(rows)
    model = Prompt(form, dtype)
    q, k, v = (torch.randn(2, heads, rows, 64, dtype=dtype) for heads in (4, 2, 2))
    positions = {"slice": torch.tensor(7), "given": torch.randperm(96)[:rows]}
    inputs = (q, k, v, positions.get(form, torch.tensor([7])))
    settings = Settings(products="irc")
    return model, inputs, irc.opt(irc.from_torch(model, inputs), "default", backend="triton", settings=settings)


def as_array(x: Any) -> Any:
    return x.view(torch.uint16).numpy().view(ml_dtypes.bfloat16) if x.dtype is torch.bfloat16 else x.numpy()


@pytest.mark.parametrize("rows", [5, 33, 89])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 1.6e-2)])
@pytest.mark.parametrize("form", ["index_copy", "index_put", "slice", "given"])
def test_a_prompt_is_written_to_its_positions_of_a_cache_alone(form: str, dtype: str, tolerance: float, rows: int,
                                                              tmp_path: Path) -> None:  # fmt: skip
    """One launch writes the keys and values and nothing else of the cache, which attention reads after."""
    model, (q, k, v, position), module = prompt(form, getattr(torch, dtype), rows)
    arrays = {"keys": model.keys, "values": model.values, "q": q, "k": k, "v": v, "position": position}
    inputs = {each.name: as_array(arrays[each.name]).copy() for each in module.main.arguments}
    run = harness.run(module, folder=tmp_path / "a", inputs=inputs, fuse=False, real_tiles=True)
    calls = re.findall(r"host\.(\w+)", (tmp_path / "a" / "program.py").read_text())
    assert not run.program.rejected and calls == (["reshape", "expand", "scatter"] if form == "given" else [])
    expected = model.double()(q.double(), k.double(), v.double(), position)
    assert harness.relative_error(next(iter(run.outputs.values())), expected.numpy()) <= tolerance
    for name in ("keys", "values"):
        after = getattr(model, name).to(q.dtype)
        np.testing.assert_array_equal(run.outputs[f"{name}.updated"], as_array(after))
    *_, cache, attention = run.launches
    each = k.numel() * k.element_size()
    assert sum(access.bytes for access in cache.accesses if access.store) == 2 * each
    assert 4 * each <= cache.counted <= 4 * each + 8192  # with positions
    assert attention.predicted is not None and attention.counted == attention.predicted.loaded_bytes


@pytest.mark.parametrize(("form", "positions"), [("index_copy", 8), ("given", 96 * 8)])
def test_the_bytes_of_a_prompt_are_those_of_its_rows(form: str, positions: int) -> None:
    """By the model of cost: the positions are not known, the number of rows is."""
    _, _, module = prompt(form, torch.float32, 5)
    (kernel,) = (each for each in module.main.block if each.name == "kernel" and len(each.results) == 2
                 and each.results[0].rank == 4)  # fmt: skip
    updated = dict(zip(kernel.results, module.main.arguments, strict=False))
    assert count(in_place(kernel, kernel_of(kernel), updated), {}).distinct_bytes == 4 * 2 * 2 * 5 * 64 * 4 + positions


def test_elements_that_are_not_0_are_those_of_updates() -> None:
    """Of zeros that a scatter writes to, not of ones, of what it is not known of, or of sums."""
    def program(x: Value, places: Value, updates: Value) -> list[Value]:
        zeros, ones = (ops.expand(const(value=Tensor.of(np.array(each), I64)), shape=(9,)) for each in (0, 1))
        results = [written(each, places, updates) for each in (zeros, ones, x)]
        return [*results, written(zeros, places, updates, reduction="add"), zeros]

    module = trace(program, "i64[9]", "i64[T]", "i64[T]")
    (number,) = module.main.arguments[2].shape
    assert [most_nonzero(each) for each in module.main.block.terminator.inputs] == [number, None, None, None, None]


@pytest.mark.parametrize("form", ["index_copy", "index_put", "given"])
def test_prompts_compile(form: str, tmp_path: Path) -> None:
    """Of the products, matrix instructions; without spills on any target."""
    _, _, module = prompt(form, torch.bfloat16, 33)
    emit(module, tmp_path / "a")
    compiled = compile_artefact(tmp_path / "a", TARGETS)
    for resources in compiled:
        assert not resources.error and resources.fits, resources
        assert resources.spilled_bytes == resources.local_bytes == 0, resources
    assert sum(resources.matrix_instructions > 0 for resources in compiled) == len(TARGETS)
