"""The paths of a PyTorch program: exported and imported once, then by the interpreter and compiled, each called as
the program itself is, with arguments that it may update."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch._dynamo.exc import UserError

from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver.callables import compiled_module, imported_program
from irc.driver.compiled_programs import CompiledProgram
from irc.driver.running import OnnxProgram
from irc.frontends.torch.programs import ImportableProgram
from irc.frontends.torch.tensors import to_array
from irc.module import Module
from irc.torch_arrays import to_tensor
from tests.fuzz.judging import first_difference
from tests.fuzz.paths import Outcome, described, passed, path_outcomes, quiet
from tests.fuzz.torch_programs import TorchProgram, judged
from tests.fuzz.torch_source import EAGER_ERRORS
from tests.fuzz.triton_path import Artefact, merged
from tests.triton_harness import bind_symbols


def torch_outcomes(program: TorchProgram) -> list[Outcome]:
    try:
        with quiet():
            imported, convention = imported_as_exported(program)
    except Exception as error:
        return [Outcome("import", *described(error))]
    makers: dict[str, Callable[[], CompiledProgram]] = {
        "interpreter": lambda: CompiledProgram(imported, "interpreter", convention, interpreted(imported), ""),
        "onnx off": lambda: CompiledProgram(imported, "onnx", convention, in_onnx_runtime(imported, False), ""),
        "onnx on": lambda: compiled_module(imported, convention, "onnx"),
        "triton": lambda: in_triton(passed(imported, "triton"), convention),
        "triton merged": lambda: in_triton(merged(imported), convention),
    }
    outcomes = outcomes_of(makers, program)
    if any(outcome.is_failure and outcome.feed is not None for outcome in outcomes):
        with quiet():
            program.leave_out(exported_otherwise(program))
        outcomes = outcomes_of(makers, program)
    return outcomes


def outcomes_of(makers: Mapping[str, Callable[[], CompiledProgram]], program: TorchProgram) -> list[Outcome]:
    return [outcome for path, make in makers.items()
            for outcome in path_outcomes(path, make, program.feeds, program.truths, called)]  # fmt: skip


def exported_otherwise(program: TorchProgram) -> Callable[[Sequence[torch.Tensor]], bool]:
    """Whether PyTorch's own export computes something else than the program, or fails, at these inputs: whether
    flatten() copies is decided once, by the first sizes, and sizes are simplified as if none were 1. A program that
    PyTorch exports with irc's decompositions alone is exported with those."""
    first = tuple(tensor.clone() for tensor in program.feeds[0])
    try:
        graph = torch.export.export(program.module, first, dynamic_shapes=program.dynamic_shapes)
    except UserError:
        graph = ImportableProgram.of(program.module, first, {}, program.dynamic_shapes).exported
    exported = graph.run_decompositions().module()

    def differs(feed: Sequence[torch.Tensor]) -> bool:
        arguments = [tensor.clone() for tensor in feed]
        (expected,) = (values for other, values in zip(program.feeds, program.truths, strict=True) if other is feed)
        try:
            results = exported(*arguments)
        except (*EAGER_ERRORS, AssertionError):  # the last: sizes for which it was not exported
            return True
        return first_difference(expected, judged(results, arguments)) is not None

    return differs


def imported_as_exported(program: TorchProgram) -> tuple[Module, Any]:
    """The program with dynamic dims, or, where PyTorch needs one of their sizes, at its first sizes. Sizes that PyTorch
    does not export, as a warning says, are left out."""
    arguments = tuple(tensor.clone() for tensor in program.feeds[0])
    if program.dynamic_shapes is not None:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                imported, convention = imported_program(program.module, arguments, program.dynamic_shapes)
            if any("for larger sizes only" in str(warning.message) for warning in caught):
                program.leave_out(partial(below_range, imported))
            return imported, convention
        except IrcError as error:
            if error.diagnostics[0].code != "torch.export":
                raise
            program.become_static()
    return imported_program(program.module, arguments)


def below_range(imported: Module, feed: Sequence[torch.Tensor]) -> bool:
    """Whether a size of the inputs is below the range of its symbol."""
    named = {argument.name: tensor for argument, tensor in zip(imported.main.arguments, feed, strict=True)}
    return any(size < symbol.low for symbol, size in bind_symbols(imported, named).items())


def called(compiled: CompiledProgram, feed: Sequence[torch.Tensor]) -> dict[str, Any]:
    """What a compiled program makes of copies of its arguments, which are judged too."""
    arguments = [tensor.clone() for tensor in feed]
    return judged(compiled(*arguments), arguments)


def in_triton(compiled: Module, convention: Any) -> CompiledProgram:
    return CompiledProgram(compiled, "triton", convention, Artefact(compiled).on_tensors, "")


def interpreted(module: Module) -> Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]:
    return on_arrays(module, lambda arrays: interpreter.run(module, arrays))


def in_onnx_runtime(module: Module, optimized: bool) -> Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]:
    compiled = passed(module, "onnx")
    return on_arrays(compiled, OnnxProgram(compiled, optimized=optimized))


def on_arrays(module: Module, run: Any) -> Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]:
    """A function of arrays by name as one of tensors in order."""
    names = [argument.name for argument in module.main.arguments]

    def function(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        outputs = run(dict(zip(names, map(to_array, tensors), strict=True)))
        return [to_tensor(array.copy(), value.dtype)  # which may have negative strides
                for array, value in zip(outputs.values(), module.main.returned, strict=True)]  # fmt: skip

    return function
