"""PyTorch programs imported with their calling convention, and compiled into functions (`compiled_programs`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from irc.driver.compile_cache import compiled_code
from irc.driver.compiled_programs import CompiledProgram
from irc.driver.models import Backend, Settings, require, require_triton
from irc.module import Module
from irc.verifier import verify


def compile_program(
    program: Any,
    inputs: Any,
    backend: Backend,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    pipeline: str | None = None,
    settings: Settings | None = None,
) -> CompiledProgram:
    """Compile a torch.nn.Module, a GraphModule, a function of tensors or an ExportedProgram into a function.

    `inputs` are example inputs: a tuple of positional ones, a dictionary of keyword ones, or one tensor; `kwargs` are
    keyword ones in addition to positional ones; `dynamic_shapes` are as in torch.export, but arguments may be left out,
    and a dim may be a name: {"ids": {1: "S"}} has the range that the program allows. With "onnx" ONNX Runtime runs it
    on the CPU; with "triton" kernels run on the inputs' GPU, or are interpreted where there is none. Raises what
    `from_torch` raises, and `backend.failed`.
    """
    settings = Settings.of(settings)
    if backend == "triton":
        require_triton("running Triton kernels")
    imported, convention = imported_program(program, inputs, dynamic_shapes, kwargs)
    return compiled_module(imported, convention, backend, pipeline=pipeline, settings=settings)


def imported_program(
    program: Any, inputs: Any, dynamic_shapes: Any = None, kwargs: Mapping[str, Any] | None = None
) -> tuple[Module, Any]:
    """The module of a program, and its calling convention; arguments are those of `compile_program`."""
    require("torch", "torch", "compiling a PyTorch program")
    from irc.frontends.torch.calling import Convention
    from irc.frontends.torch.parameters import example_inputs
    from irc.frontends.torch.programs import ImportableProgram

    args, named = example_inputs(inputs, kwargs)
    importable = ImportableProgram.of(program, args, named, dynamic_shapes)
    read = partial(importable.module, type(program).__name__)
    imported = read()
    verify(imported)
    return imported, Convention.of(program, importable.parameters, importable.exported, importable.functional,
                                   imported.main, read)  # fmt: skip


def compiled_module(
    imported: Module, convention: Any, backend: Backend, *, pipeline: str | None = None,
    settings: Settings | None = None,
) -> CompiledProgram:  # fmt: skip
    """A function that runs the result of `imported_program`, compiled by a pipeline, by default the backend's."""
    settings = Settings.of(settings)
    compile_code = partial(compiled_code, backend=backend, pipeline=pipeline, settings=settings,
                           called=convention.names)  # fmt: skip
    code = compile_code(imported)
    # Weights that change will change again: what is compiled between would fill the cache.
    return CompiledProgram(code.module, backend, convention, *code.runner, name=imported.name, code=code.stored,
                           compile_code=partial(compile_code, cached=False))  # fmt: skip
