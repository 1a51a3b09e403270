"""The host program: allocations, launches and host calls, as a Python function for each function of the module."""

from __future__ import annotations

import re
from collections.abc import Mapping

from irc.backends.triton import control_flow, host_calls, kernel_calls, runtime_checks
from irc.backends.triton.function_writer import FunctionWriter, Write
from irc.backends.triton.program import Program
from irc.backends.triton.program_builder import ProgramBuilder
from irc.diagnostics import IrcError
from irc.module import Module

WRITERS: dict[str, Write] = {
    "const": host_calls.write_const, "dim": host_calls.write_dim, "extern": host_calls.write_extern,
    "kernel": kernel_calls.write_kernel_operation, "bind": runtime_checks.write_bind,
    "refine": runtime_checks.write_refine, "assert": runtime_checks.write_assert,
    "assume": runtime_checks.write_assume, "trap": runtime_checks.write_trap, "call": control_flow.write_call,
    "if": control_flow.write_if, "loop": control_flow.write_loop,
}  # fmt: skip


def write_program(module: Module, operations: Mapping[str, Write] = WRITERS) -> Program:
    """The host program of a module; raises `backend.unsupported`, listing all operations that PyTorch lacks.
    `operations` write those that are no host calls, by name."""
    builder = ProgramBuilder(module)
    program = builder.program
    writers = [FunctionWriter(builder, function, builder.functions[name], operations,
                              host_calls.write_host_call)
               for name, function in builder.module.functions.items()]  # fmt: skip
    parts = ["\n".join(writer.lines()) for writer in writers]
    if builder.problems:
        raise IrcError(builder.problems)
    for argument, tensor in builder.module.main.defaults.items():
        program.defaults[argument.name] = builder.weight(tensor, argument.name)
    body = "\n\n\n".join(parts)
    runtime = ("Each", "Grid", "Loop", "Whole", "bcast", "check", "check_dim", "launch", "launch_bundle", "member",
               "nonzero", "refine")  # fmt: skip
    used_functions = [name for name in runtime if re.search(rf"(?<![\w.]){name}\(", body)]
    imports = ["import torch", "", f"from . import {', '.join(sorted({'host', 'kernels', *program.modules}))}"]
    if used_functions:
        imports.append(f"from .runtime import {', '.join(used_functions)}")
    head = '"""The host program: what runs, in order. Tensors are named as in the source model."""'
    program.text = "\n".join([head, "", *imports, "", "", body, ""])
    start = len(imports) + 5
    for writer, part in zip(writers, parts, strict=True):
        program.lines |= {start + line: operation for line, operation in writer.operation_of_line.items()}
        start += part.count("\n") + 3
    return program
