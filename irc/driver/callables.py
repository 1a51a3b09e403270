"""Compiled PyTorch programs as functions with the module's calling convention."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irc.diagnostics import fail
from irc.driver.models import Backend, Settings, find_backend, require, require_triton
from irc.driver.optimizing import run_pipeline
from irc.interpreter import check_inputs
from irc.module import Module
from irc.partial import TemporaryFolder
from irc.verifier import verify


class Runner(NamedTuple):
    """What runs a module: `run` takes tensors in the order of its arguments to those of its results, and `label` says
    how. `plain` does so for the tensors that it takes without conversion, and gives NotImplemented for others."""

    run: Callable[[Sequence[Any]], list[Any]]
    label: str
    plain: Callable[[Sequence[Any]], Any] | None = None


class CompiledProgram:
    """A PyTorch program that a backend runs. It is called as the program is, and returns the program's structure.

    `module` is the module after all passes; `label` says how it runs. Each call writes the buffers and arguments that
    the program writes; what the program adds to lists and dictionaries is lost, and compiling warns of that. There are
    no gradients.

    Arguments are bound as Python binds them. Python constants (numbers, strings, None) must equal those of the example
    inputs, except integers that `dynamic_shapes` makes dynamic. Raises `run.input_missing`, `run.input_unknown`,
    `run.input_shape`, `run.input_dtype`, `run.dim_range`, `run.dim_conflict`, `run.input_alias` and `torch.tensor`,
    naming the argument: `past["k"][0]`.

    A result that is an argument, a parameter or a buffer, or a view of one or of another result, is returned as such
    where the exported program shows it. Any other has contiguous memory of its own, with its dims in the memory order
    that they had for the example inputs. Results are on the device of the arguments.

    The weights are those at compilation. If the module's weights have changed since, a call warns, once.
    """

    def __init__(self, module: Module, backend: Backend, convention: Any, run: Any, label: str,
                 plain: Any = None) -> None:  # fmt: skip
        self.module = module
        self.backend = backend
        self.label = label
        self._convention = convention
        self._run = run
        self._plain = plain if convention.is_plain else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._plain is not None and not kwargs:
            results = self._plain(args)
            if results is not NotImplemented:
                self._convention.weights.warn_if_changed(stacklevel=2)
                return self._convention.structured(results)
        call = self._convention.call(args, kwargs)
        return self._convention.result(self._run(call.tensors), call)

    def __repr__(self) -> str:
        return f"<{self.module.name} compiled for {self.backend}: {self.label}>"


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
    settings = settings or Settings()
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
    from irc.frontends.torch.dynamic_shapes import names_of_symbols
    from irc.frontends.torch.exporting import decomposed, exported
    from irc.frontends.torch.guards import Guards
    from irc.frontends.torch.importer import import_program
    from irc.frontends.torch.parameters import Parameters, example_inputs

    args, named = example_inputs(inputs, kwargs)
    source = exported(program, args, named, dynamic_shapes)
    functional = decomposed(source)  # writes to buffers have become results
    parameters = Parameters.of_program(program, source)
    names = names_of_symbols(program, source, dynamic_shapes)
    imported = import_program(functional, names, type(program).__name__, Guards.of(program, source))
    verify(imported)
    return imported, Convention.of(program, parameters, source, functional, imported.main)


def compiled_module(
    imported: Module, convention: Any, backend: Backend, *, pipeline: str | None = None,
    settings: Settings | None = None,
) -> CompiledProgram:  # fmt: skip
    """A function that runs the result of `imported_program`, compiled by a pipeline, by default the backend's."""
    settings = settings or Settings()
    module, _ = run_pipeline(imported, pipeline or find_backend(backend).PIPELINE, backend, settings)
    make = in_onnx_runtime if backend == "onnx" else in_triton
    return CompiledProgram(module, backend, convention, *make(module, convention.names, settings))


def in_onnx_runtime(module: Module, called: Mapping[str, str], settings: Settings) -> Runner:
    """A module that ONNX Runtime runs; `called` is what callers know its arguments by."""
    from irc.driver.onnx_binding import BoundProgram
    from irc.driver.plain_calls import PlainCalls
    from irc.frontends.torch.tensors import stand_in

    program = BoundProgram(module, settings.target_of("onnx"))
    plain = PlainCalls(program)
    names = [argument.name for argument in module.main.arguments]

    def run(tensors: Sequence[Any]) -> list[Any]:
        results = plain(tensors)
        if results is not NotImplemented:
            return list(results)
        if not program.accepts(tensors):
            check_inputs(module.main, dict(zip(names, map(stand_in, tensors), strict=True)), called)
        results = program(tensors)
        for position, _ in program.passed:
            results[position] = results[position].clone()
        return results

    return Runner(run, "ONNX Runtime", plain)


def in_triton(module: Module, called: Mapping[str, str], settings: Settings) -> Runner:
    """A module whose kernels Triton runs on the tensors' GPU, or its interpreter where there is none."""
    from irc.frontends.torch.tensors import stand_in

    kept = TemporaryFolder()
    folder = kept.path / "artefact"
    find_backend("triton").emit(module, folder)
    package = import_artefact(folder)
    model = package.load()

    def run(tensors: Sequence[Any], kept: Any = kept) -> list[Any]:  # keeps the folder until the function is deleted
        try:
            return list(model(*tensors).values())
        except package.runtime.ArtefactError as error:
            arrays = zip((argument.name for argument in module.main.arguments), map(stand_in, tensors), strict=True)
            check_inputs(module.main, dict(arrays), called)
            raise fail("backend.failed", "the compiled program rejects its inputs", notes=[str(error)]) from None

    return Runner(run, "interpreted" if package.runtime.INTERPRETED else "device")


def import_artefact(folder: Path) -> Any:
    """Import the package in a folder under a unique name."""
    name = f"irc_compiled_{uuid.uuid4().hex}"
    start = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    importlib.import_module(f"{name}.runtime")
    return package

