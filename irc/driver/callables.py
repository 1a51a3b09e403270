"""Programs of PyTorch, compiled, as functions: they take what the module takes and give what it gives."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irc.diagnostics import fail
from irc.driver.models import Settings, find_backend, require, require_triton
from irc.driver.optimizing import run_pipeline
from irc.driver.running import OnnxProgram
from irc.interpreter import check_inputs
from irc.module import Module
from irc.partial import TemporaryFolder
from irc.verifier import verify


class CompiledProgram:
    """A program of PyTorch that a backend runs. Call it as the program; results are in the program's own structure.

    `module` is what was compiled, after all passes; `label` says how it runs. What the program writes, buffers of its
    own and arguments, each call writes; what it puts into lists and
    dictionaries is lost, of which compiling warns. Gradients do not flow through it.

    Arguments are bound as Python binds them. Constants of Python (numbers, strings, None) must be those of the example
    inputs, apart from integers that `dynamic_shapes` lets vary. Raises `run.input_missing`, `run.input_unknown`,
    `run.input_shape`, `run.input_dtype`, `run.dim_range`, `run.dim_conflict`, `run.input_alias` and `torch.tensor`,
    naming the argument: `past["k"][0]`.

    A result that is an argument, a parameter or a buffer, or a view of one or of another result, is that again where
    exporting shows it. Any other has memory of its own, without gaps, its dims in the order in memory that they had for
    the example inputs. Results are on the device of the arguments.

    Weights are those of the time of compiling. When the module's have changed since, a call warns, once.
    """

    def __init__(self, module: Module, backend: str, convention: Any, run: Any, label: str) -> None:
        self.module = module
        self.backend = backend
        self.label = label
        self._convention = convention
        self._run = run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._convention.call(args, kwargs)
        return self._convention.result(self._run(call.tensors), call)

    def __repr__(self) -> str:
        return f"<{self.module.name} compiled for {self.backend}: {self.label}>"


def compile_program(
    program: Any,
    inputs: Any,
    backend: str,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    pipeline: str | None = None,
    settings: Settings | None = None,
) -> CompiledProgram:
    """Compile a torch.nn.Module, a GraphModule, a function of tensors or an ExportedProgram into a function.

    `inputs` are example inputs: a tuple of positional ones, a dictionary of keyword ones, or one tensor; `kwargs` are
    keyword ones beside positional ones; `dynamic_shapes` as in torch.export. With "onnx" ONNX Runtime runs it on the
    processor; with "triton" kernels run on the inputs' GPU, or interpreted where there is none. Raises what
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
    """The module of a program, and the convention by which it is called; arguments are those of `compile_program`."""
    require("torch", "torch", "compiling a program of PyTorch")
    from irc.frontends.torch.calling import Convention
    from irc.frontends.torch.exporting import decomposed, exported, names_of_symbols
    from irc.frontends.torch.importer import import_program
    from irc.frontends.torch.parameters import Parameters, example_inputs

    args, named = example_inputs(inputs, kwargs)
    source = exported(program, args, named, dynamic_shapes)
    functional = decomposed(source)  # in which buffers are written by results
    parameters = Parameters.of_program(program, source)
    names = names_of_symbols(source, parameters, dynamic_shapes)
    imported = import_program(functional, names, type(program).__name__)
    verify(imported)
    return imported, Convention(program, parameters, source, functional, imported.main)


def compiled_module(
    imported: Module, convention: Any, backend: str, *, pipeline: str | None = None, settings: Settings | None = None
) -> CompiledProgram:
    """What `imported_program` gave, through a backend's pipeline or another, as a function."""
    settings = settings or Settings()
    module, _ = run_pipeline(imported, pipeline or find_backend(backend).PIPELINE, backend, settings)
    make = _in_onnx_runtime if backend == "onnx" else _in_triton
    run, label = make(module, convention.names, settings)
    return CompiledProgram(module, backend, convention, run, label)


def _in_onnx_runtime(module: Module, called: Mapping[str, str], settings: Settings) -> tuple[Any, str]:
    from irc.frontends.torch.tensors import to_array, to_tensor

    program = OnnxProgram(module, settings.target_of("onnx"))
    names = [argument.name for argument in module.main.arguments]

    def run(tensors: Sequence[Any]) -> list[Any]:
        arrays = dict(zip(names, map(to_array, tensors), strict=True))
        check_inputs(module.main, arrays, called)
        found = program(arrays)
        return [to_tensor(array, value.dtype)
                for array, value in zip(found.values(), module.main.returned, strict=True)]

    return run, "ONNX Runtime"


def _in_triton(module: Module, called: Mapping[str, str], settings: Settings) -> tuple[Any, str]:
    from irc.frontends.torch.tensors import stand_in

    kept = TemporaryFolder()
    folder = kept.path / "artefact"
    find_backend("triton").emit(module, folder)
    package = _imported(folder)
    model = package.load()

    def run(tensors: Sequence[Any], kept: Any = kept) -> list[Any]:  # the folder lives as long as the function
        try:
            return list(model(*tensors).values())
        except package.runtime.ArtefactError as error:
            arrays = zip((argument.name for argument in module.main.arguments), map(stand_in, tensors), strict=True)
            check_inputs(module.main, dict(arrays), called)
            raise fail("backend.failed", "the compiled program refuses its inputs", notes=[str(error)]) from None

    return run, "interpreted" if package.runtime.INTERPRETED else "device"


def _imported(folder: Path) -> Any:
    """The package in a folder, under a name that no other has."""
    name = f"irc_compiled_{uuid.uuid4().hex}"
    start = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    importlib.import_module(f"{name}.runtime")
    return package

