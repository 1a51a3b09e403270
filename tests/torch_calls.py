"""Compiled PyTorch programs beside eager ones: what their results must have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

import irc
from irc.driver.callables import imported_program
from irc.driver.compiled_programs import CompiledProgram
from tests.fuzz.torch_paths import interpreted

BACKENDS = ("onnx", "triton")


def interpret(program: Any, inputs: Any, **options: Any) -> CompiledProgram:
    """A program as `irc.compile` makes it, but run by the interpreter: for what no backend has a part in."""
    imported, convention = imported_program(program, inputs, **options)
    return CompiledProgram(imported, "interpreter", convention, interpreted(imported), "")


def compiled(program: Any, inputs: Any, backend: str, **options: Any) -> Any:
    if backend == "interpreter":
        return interpret(program, inputs, **options)
    return irc.compile(program, inputs, backend=backend, **options)


def sharing(leaves: list[Any]) -> list[Any]:
    """For each leaf what else it is: the first that is the same object, and the first with the same memory."""
    memory = [x.untyped_storage().data_ptr() if isinstance(x, torch.Tensor) and x.numel() else id(x) for x in leaves]
    same = [next(index for index, other in enumerate(leaves) if other is leaf) for leaf in leaves]
    return [(one, memory.index(each)) if isinstance(leaf, torch.Tensor) else None
            for one, each, leaf in zip(same, memory, leaves, strict=True)]


def assert_like(actual: Any, expected: Any) -> None:
    leaves, structure = pytree.tree_flatten(actual)
    others, other = pytree.tree_flatten(expected)
    assert structure == other
    for one, reference in zip(leaves, others, strict=True):
        assert type(one) is type(reference)
        if isinstance(reference, torch.Tensor):
            assert (one.dtype, one.shape) == (reference.dtype, reference.shape)
            torch.testing.assert_close(one, reference, rtol=1e-5, atol=1e-5, equal_nan=True)
        else:
            assert one == reference and repr(one) == repr(reference)
