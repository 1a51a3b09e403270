"""The paths of a program of PyTorch: exported and imported once, then by the interpreter and compiled, each called as
the program itself is, with arguments that it may update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from irc import interpreter
from irc.diagnostics import IrcError
from irc.driver.callables import CompiledProgram, compiled_module, imported_program
from irc.driver.running import OnnxProgram
from irc.frontends.torch.tensors import to_array, to_tensor
from irc.ir import Module
from tests.fuzz.paths import Outcome, described, passed, path_outcomes, quiet
from tests.fuzz.torch_programs import TorchProgram, judged
from tests.fuzz.triton_path import Artefact, merged


def torch_outcomes(program: TorchProgram) -> list[Outcome]:
    arguments = tuple(tensor.clone() for tensor in program.feeds[0])
    try:
        with quiet():
            imported, convention = imported_program(program.module, arguments, program.dynamic_shapes)
    except IrcError as error:
        if program.dynamic_shapes is None or error.diagnostics[0].code != "torch.export":
            return [Outcome("import", *described(error))]
        # PyTorch needs a size that was to be dynamic: the program is one of its first sizes.
        program.become_static()
        try:
            with quiet():
                imported, convention = imported_program(program.module, arguments)
        except Exception as other:
            return [Outcome("import", *described(other))]
    except Exception as error:
        return [Outcome("import", *described(error))]
    makers: dict[str, Callable[[], Any]] = {
        "interpreter": lambda: CompiledProgram(imported, "interpreter", convention, interpreted(imported), ""),
        "onnx off": lambda: CompiledProgram(imported, "onnx", convention, in_onnx_runtime(imported, False), ""),
        "onnx on": lambda: compiled_module(imported, convention, "onnx"),
        "triton": lambda: in_triton(passed(imported, "triton"), convention),
        "triton merged": lambda: in_triton(merged(imported), convention),
    }
    found = []
    for path, make in makers.items():
        found += path_outcomes(path, lambda make=make: called(make()), program.feeds, program.truths)  # type: ignore[misc]
    return found


def called(compiled: CompiledProgram) -> Callable[[Sequence[torch.Tensor]], dict[str, Any]]:
    """A compiled program on copies of its arguments, which are judged too."""

    def run(feed: Sequence[torch.Tensor]) -> dict[str, Any]:
        arguments = [tensor.clone() for tensor in feed]
        return judged(compiled(*arguments), arguments)

    return run


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
        found = run(dict(zip(names, map(to_array, tensors), strict=True)))
        return [to_tensor(array.copy(), value.dtype)  # which may have negative strides
                for array, value in zip(found.values(), module.main.returned, strict=True)]  # fmt: skip

    return function
