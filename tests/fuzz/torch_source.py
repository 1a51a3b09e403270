"""A PyTorch program that is built line by line, each line run eagerly as soon as it is there.

Lines are Python over tensors in named variables, so that a failure prints as the program. A step that adds
lines sees the tensors of all variables, for each assignment of sizes to the dims of its inputs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from tests.fuzz.judging import Array, is_float, other_zeros, overflowed, overflowing, perturbed
from tests.fuzz.steps import MOST_AXES, MOST_ELEMENTS, Argument, Reject
from tests.oracles import from_torch, to_torch

Kind = Literal["exact", "rounded", "accumulated", "absolute"]
NARROW = (torch.float16, torch.bfloat16)
EAGER_ERRORS = (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, ZeroDivisionError, OverflowError)
# Lines in which a whole number, such as the 1 of x / |x|, is a rounded one.
INEXACT = re.compile(r"rsqrt|\.std\(|normalize|_norm\(")
# Logarithms of sums of exponentials: where the sum is about 1 they have the absolute error of its rounding.
LOG_SUMS = re.compile(r"log_softmax|logsumexp|logaddexp|cross_entropy")
# Functions of which 0 is a limit: there 1 + tanh(x), say, is 0 or a unit of 1, as they are rounded.
TO_0 = re.compile(r"gelu|silu|mish|softplus|logsigmoid|\.sigmoid|\.erfc")
PRODUCTS = re.compile(r" @ |F\.linear|F\.conv\d|torch\.einsum")
# Of 0 and -0 either is the larger.
CHOOSING = re.compile(r"relu|clamp|hardtanh|hardswish|hardsigmoid|max|min")
PRELUDE = """import torch
import torch.nn.functional as F

nan, inf = float("nan"), float("inf")
"""
COND = '''

def cond(condition, then, otherwise, operands):
    """torch.cond where a program is exported; eager, Python's own, which needs no compiler."""
    if torch.compiler.is_exporting():
        return torch.cond(condition, then, otherwise, operands)
    return (then if condition else otherwise)(*operands)
'''


@dataclass(frozen=True)
class Line:
    """A statement; `results` are the variables that it sets or changes in place."""

    text: str
    results: tuple[str, ...]
    kind: Kind
    in_place: bool = False

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """The variables that it reads."""
        names = dict.fromkeys(re.findall(r"\b[vx]\d+\b", self.text))
        return tuple(name for name in names if self.in_place or name not in self.results)

    @property
    def wide(self) -> str:
        """The statement with f16 and bf16 held as f32; a cast to them still rounds."""
        return re.sub(r"\.to\(torch\.(float16|bfloat16)\)", r".to(torch.\1).to(torch.float32)", self.text)


@dataclass(eq=False)
class Variable:
    """A variable with its tensor for each assignment of sizes."""

    name: str
    source: Source

    @property
    def tensors(self) -> list[torch.Tensor]:
        return [space[self.name] for space in self.source.spaces]

    @property
    def dtype(self) -> torch.dtype:
        return self.tensors[0].dtype

    @property
    def rank(self) -> int:
        return self.tensors[0].ndim

    @property
    def shape(self) -> list[tuple[int, ...]]:
        return [tuple(tensor.shape[axis] for tensor in self.tensors) for axis in range(self.rank)]

    @property
    def is_float(self) -> bool:
        return self.dtype.is_floating_point

    @property
    def has_nan(self) -> bool:
        return any(bool(torch.isnan(tensor).any()) for tensor in self.tensors)

    @property
    def is_finite(self) -> bool:
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.tensors)

    @property
    def has_subnormal(self) -> bool:
        least = torch.finfo(self.dtype).tiny
        return any(bool(((tensor != 0) & (tensor.abs() < least)).any()) for tensor in self.tensors)

    @property
    def is_moderate(self) -> bool:
        """Whether a few times each finite element is in range."""
        if not self.is_float:
            return True
        most = torch.finfo(self.dtype).max / 4
        return not any(bool((tensor.isfinite() & (tensor.abs() > most)).any()) for tensor in self.tensors)

    @property
    def has_moderate_squares(self) -> bool:
        """Whether sums of squares of the finite elements are in range."""
        most = torch.finfo(self.dtype).max ** 0.5 / 64
        return not any(bool((tensor.isfinite() & (tensor.abs() > most)).any()) for tensor in self.tensors)

    @property
    def is_integer(self) -> bool:
        return not self.dtype.is_floating_point and self.dtype != torch.bool

    def __str__(self) -> str:
        return self.name


class Source:
    """A program under construction."""

    def __init__(self, assignments: int) -> None:
        self.inputs: dict[str, list[str | int]] = {}
        self.given: list[dict[str, torch.Tensor]] = [{} for _ in range(assignments)]
        self.lines: list[Line] = []
        self.globals: dict[str, Any] = {}
        exec(PRELUDE + COND, self.globals)
        self.spaces: list[dict[str, Any]] = [dict(self.globals) for _ in range(assignments)]
        self.count = 0

    def input(self, argument: Argument, transposed: bool) -> Variable:
        """Add an input, perhaps one whose last two axes lie in memory the other way round."""
        name = f"x{len(self.inputs)}"
        for array, given, space in zip(argument.arrays, self.given, self.spaces, strict=True):
            tensor = to_torch(array)
            given[name] = tensor.mT.contiguous().mT if transposed and tensor.ndim >= 2 else tensor
            space[name] = given[name].clone()
        self.inputs[name] = argument.dims
        return Variable(name, self)

    def fresh(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def line(self, expression: str, kind: Kind = "exact", outputs: int = 1) -> list[Variable]:
        """Set new variables to an expression. Raises Reject, and adds nothing, where eager PyTorch does."""
        names = tuple(self.fresh() for _ in range(outputs))
        self._add(Line(f"{', '.join(names)} = {expression}", names, kind))
        return [Variable(name, self) for name in names]

    def one(self, expression: str, kind: Kind = "exact") -> Variable:
        return self.line(expression, kind)[0]

    def change(self, statement: str, target: Variable, kind: Kind = "exact") -> None:
        """Change a variable's tensor in place."""
        self._add(Line(statement, (target.name,), kind, in_place=True))

    def _add(self, line: Line) -> None:
        try:
            for space in self.spaces:
                run(line.text, space)
                for name in line.results:
                    self._check(space[name])
            if len({space[line.results[0]].ndim for space in self.spaces}) > 1:
                raise Reject("the rank differs")
        except (*EAGER_ERRORS, Reject) as error:
            if line.in_place:
                self._run_again()
            raise Reject(str(error)) from None
        self.lines.append(line)

    def _check(self, value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            raise Reject("no tensor")
        if value.numel() > MOST_ELEMENTS or value.ndim > MOST_AXES:
            raise Reject("too large")
        if value.is_complex():
            raise Reject("complex")

    def _run_again(self) -> None:
        """Run what there is once more: a line may have failed after it changed a tensor."""
        for given, space in zip(self.given, self.spaces, strict=True):
            space.update({name: tensor.clone() for name, tensor in given.items()})
            for line in self.lines:
                run(line.text, space)

    def live(self, names: Sequence[str]) -> list[Line]:
        """The lines on which variables, and what the program does to its arguments, depend."""
        space = self.spaces[0]
        needed, stored = {*names}, {_storage(space[name]) for name in (*names, *self.inputs)}
        lines = []
        for line in reversed(self.lines):
            if needed.intersection(line.results) or (line.in_place and _storage(space[line.results[0]]) in stored):
                lines.append(line)
                needed.update(line.operands)
                stored.update(_storage(space[name]) for name in line.operands)
        return lines[::-1]

    # -- other roundings -----------------------------------------------------------------------------------------

    def samples(self, index: int, lines: Sequence[Line], names: Sequence[str], count: int) -> list[list[Array]]:
        """What the tensors of variables could be with other roundings: the first time with large numbers as
        infinities, the second time with sums and products of f32 in f64, and at last with f16 and bf16 held as f32,
        also where all or some views round them: ONNX Runtime holds a value as f32 for one reader and rounds it for
        another."""
        declared = [self.spaces[index][name].dtype for name in names]
        narrow = any(self.spaces[index][name].dtype in NARROW for line in lines for name in line.results)
        runs = []
        for number in range(count + (2 + count // 4) * narrow):
            wide, generator = number >= count, np.random.default_rng(number)
            space = dict(self.globals)
            for name, tensor in self.given[index].items():
                space[name] = tensor.to(torch.float32) if wide and tensor.dtype in NARROW else tensor.clone()
            for line in lines:
                if wide:
                    promoted = self._promoted(line, index)
                    before = {name: space[name] for name in promoted}
                    _round(space, promoted)
                    run(line.wide, space)
                    space.update(before)
                    rounds = number == count + 1 or (number > count + 1 and generator.random() < 0.5)
                    if rounds and line.kind == "exact" and not line.in_place:
                        _round(space, {name: self.spaces[index][name].dtype for name in line.results})
                else:
                    _sample(line, space, generator, number)
            runs.append([from_torch(space[name].to(dtype)) for name, dtype in zip(names, declared, strict=True)])
        return runs

    def _promoted(self, line: Line, index: int) -> dict[str, torch.dtype]:
        """The operands of f16 or bf16 that a line first makes its other type of 16 bits, with that type."""
        types = {name: self.spaces[index][name].dtype for name in (*line.operands, *line.results)}
        results = {types[name] for name in line.results}.intersection(NARROW)
        if line.in_place or len(results) != 1:
            return {}
        (result,) = results
        return {name: result for name in line.operands if types[name] in NARROW and types[name] is not result}


def _round(space: dict[str, Any], declared: Mapping[str, torch.dtype]) -> None:
    """Round what is held as f32 to the types that variables are declared with."""
    for name, dtype in declared.items():
        if dtype in NARROW:
            space[name] = space[name].to(dtype).to(space[name].dtype)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def run(text: str, space: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(text, space)


def _sample(line: Line, space: dict[str, Any], generator: np.random.Generator, number: int) -> None:
    """Run a line with other roundings: the first time with `overflowing` sums, the second time in f64, and with
    `other_zeros` of products and of what maxima and minima are chosen from."""
    operands = {name: space[name] for name in line.operands}
    if number == 1 and CHOOSING.search(line.text):
        _change_zeros(space, line, line.results if line.in_place else line.operands)
    if line.kind == "accumulated":
        assert not line.in_place, "what it adds up would change"
        space.update({name: _perturbed(tensor, generator, whole_too=True, overflows=number == 0)
                      for name, tensor in operands.items()})  # fmt: skip
    run(line.text, space)
    if ".frac()" in line.text:  # x - trunc(x), of which each may read another rounding of x
        x = operands[line.operands[0]]
        space.update({name: x - _perturbed(x, generator).trunc() for name in line.results})
    if line.kind == "accumulated" and number == 0 and "prod(" in line.text:
        _overflow(line, space)
    if line.kind == "accumulated" and number == 1:
        _run_in_f64(line, space)
    if number == 1 and PRODUCTS.search(line.text):
        _change_zeros(space, line, line.results)
    if not line.in_place:
        space.update(operands)
    if line.kind == "exact":
        return
    for name in line.results:
        whole_too = INEXACT.search(line.text) is not None
        absolute = line.kind == "absolute" or LOG_SUMS.search(line.text) is not None
        x = operands[line.operands[0]] if line.operands and TO_0.search(line.text) is not None else None
        limits = False if x is None else from_torch(x.isfinite() & (x != 0))
        _set(space, line, {name: _perturbed(space[name], generator, absolute=absolute, limits=limits,
                                            whole_too=whole_too)})  # fmt: skip


def _set(space: dict[str, Any], line: Line, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace operands or results of a line, those of one in place by what their memory holds."""
    for name, tensor in tensors.items():
        if line.in_place:
            space[name].copy_(tensor)
        else:
            space[name] = tensor


def _change_zeros(space: dict[str, Any], line: Line, names: Iterable[str]) -> None:
    _set(space, line, {name: to_torch(other_zeros(from_torch(space[name]))) for name in names})


def _overflow(line: Line, space: dict[str, Any]) -> None:
    """Make products infinite that some order of their factors makes so."""
    floats = {name: space[name] for name in line.operands if space[name].is_floating_point()}
    inner = {**space, **{name: tensor.abs().clamp(min=1) for name, tensor in floats.items()}}
    run(line.text, inner)
    for name in line.results:
        if space[name].is_floating_point():
            space[name] = to_torch(overflowed(from_torch(space[name]), from_torch(inner[name])))


def _run_in_f64(line: Line, space: dict[str, Any]) -> None:
    """Run a line again, with results as if sums and products of f32 were added up in f64: what overflows on the way in
    f32 alone is decided by their order. Nothing changes where eager PyTorch does not take f64 there."""
    wide = {name: space[name].double() for name in line.operands if space[name].dtype == torch.float32}
    inner = {**space, **wide}
    try:
        run(line.text, inner)
    except EAGER_ERRORS:
        return
    space.update({name: inner[name].to(space[name].dtype) for name in line.results})


def _perturbed(
    tensor: torch.Tensor, generator: np.random.Generator, overflows: bool = False, **how: Any
) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    array = perturbed(from_torch(tensor), generator, **how)
    assert is_float(array)
    return to_torch(overflowing(array) if overflows else array)


def literal(tensor: torch.Tensor) -> str:
    """A tensor as Python that makes it, bit by bit."""
    if tensor.numel() == 0:
        return f"torch.empty({tuple(tensor.shape)}, dtype={tensor.dtype})"
    values = tensor.to(torch.float64) if tensor.is_floating_point() else tensor
    if not tensor.is_contiguous():
        return f"torch.tensor({values.mT.tolist()}, dtype={tensor.dtype}).mT"
    return f"torch.tensor({values.tolist()}, dtype={tensor.dtype})"
