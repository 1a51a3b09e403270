"""Compiled code and what runs it: a model for ONNX Runtime or an artefact of Triton, in a folder.

`write_code` writes the code of a module after a backend's passes, `interface_of` states what else a run needs, and
`runner_of` runs it on PyTorch's tensors.
"""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irc import dims
from irc.diagnostics import fail
from irc.driver.models import Backend, Settings, find_backend, reproducing
from irc.driver.running import as_backend_failed
from irc.driver.sessions import confined_session, session_at
from irc.driver.size_assertions import SizeAssertions
from irc.interpreter import check_inputs
from irc.ir import Function, Operation, Value
from irc.module import Module
from irc.op import return_
from irc.ops.extern import extern
from irc.types import TensorType

MODEL, ARTEFACT = "model.onnx", "artefact"


class Runner(NamedTuple):
    """What runs a module: `run` takes tensors in the order of its arguments to those of its results, and `label` says
    how. `plain` does so for the tensors that it takes without conversion, and gives NotImplemented for others."""

    run: Callable[[Sequence[Any]], list[Any]]
    label: str
    plain: Callable[[Sequence[Any]], Any] | None = None


def write_code(module: Module, folder: Path, backend: Backend, settings: Settings) -> None:
    """Write the code of a module after all passes into a folder: `model.onnx`, or an artefact."""
    with reproducing(settings, module, f"emit-{backend}"):
        if backend == "triton":
            find_backend("triton").emit(module, folder / ARTEFACT)
        elif module.main.returned:  # ONNX Runtime takes no model without outputs, and there is nothing to compute
            find_backend("onnx").save(module, folder / MODEL, target=settings.target_of("onnx"))


def interface_of(module: Module) -> Module:
    """What is known of a module without its code: the arguments, the types of the results, and the assertions about
    sizes. One operation `extern` stands for all that is computed; sizes that only it determines are its own symbols."""
    copy = Module(module.name, [module.clone().main], module.edge_cases)
    main = copy.main
    names = main.output_names
    kept = set(SizeAssertions(main).operations)
    returned = list(main.returned)
    for operation in reversed(list(main.block)):
        if operation not in kept:
            operation.erase()
    known = {*main.symbols.values(), *(symbol for operation in kept for symbol in operation.symbols)}
    main.defined_symbols = {symbol.name: symbol for symbol in known if symbol.name in main.defined_symbols}
    computed = list(dict.fromkeys(value for value in returned if value.operation is not None))
    defined: list[dims.Symbol] = []

    def shape_of(value: Value) -> list[dims.Dim]:
        shape = []
        for dim in value.shape:
            if not known.issuperset(dims.free_symbols(dim)):
                defined.append(main.fresh_symbol("size"))
                dim = defined[-1].expr
            shape.append(dim)
        return shape

    types = [TensorType(value.dtype, shape_of(value)) for value in computed]
    values = {value: value for value in main.arguments}
    if computed:
        attributes = {"domain": "irc", "op_type": "compiled", "version": 1, "attributes": {}}
        code = Operation(extern, main.arguments, attributes, types, symbols=defined)
        main.block.append(code)
        values |= dict(zip(computed, code.results, strict=True))
    main.block.append(Operation(return_, [values[value] for value in returned]))
    main.result_names = tuple(names)
    return copy


def runner_of(main: Function, backend: Backend, folder: Path, called: Mapping[str, str], *, kept: object = None,
              trusted: bool = True) -> Runner:  # fmt: skip
    """What runs the code that `write_code` has written of a module whose entry, or whose interface's, is `main`.

    `called` is what callers know the arguments by. `kept` keeps an artefact's folder, which must stay; of models
    nothing is read later. A folder that is not `trusted` may be another's; raises ValueError where its code does not
    fit its interface, and KeyError for a type that PyTorch lacks.
    """
    if backend == "triton":
        return in_triton(main, folder / ARTEFACT, called, kept)
    if not main.returned:
        return in_onnx_runtime(main, None, called)
    with as_backend_failed():
        session = session_at(folder / MODEL) if trusted else confined_session(folder, MODEL)
    if not trusted:
        _check_names(main, session)
    return in_onnx_runtime(main, session, called)


def _check_names(main: Function, session: Any) -> None:
    for kind, entries, stated in (("inputs", session.get_inputs(), [each.name for each in main.arguments]),
                                  ("outputs", session.get_outputs(), main.output_names)):  # fmt: skip
        if {entry.name for entry in entries} != set(stated):
            raise ValueError(f"the model has other {kind} than the interface")


def in_onnx_runtime(main: Function, session: Any, called: Mapping[str, str]) -> Runner:
    """A function whose model a session of ONNX Runtime has read; without results it has none."""
    from irc.driver.onnx_binding import BoundProgram
    from irc.driver.plain_calls import PlainCalls
    from irc.frontends.torch.tensors import stand_in

    program = BoundProgram(main, session)
    plain = PlainCalls(program)
    names = [argument.name for argument in main.arguments]

    def run(tensors: Sequence[Any]) -> list[Any]:
        results = plain(tensors)
        if results is not NotImplemented:
            return list(results)
        if not program.accepts(tensors):
            check_inputs(main, dict(zip(names, map(stand_in, tensors), strict=True)), called)
        results = program(tensors)
        for position, _ in program.passed:
            results[position] = results[position].clone()
        return results

    return Runner(run, "ONNX Runtime", plain)


def in_triton(main: Function, folder: Path, called: Mapping[str, str], kept: object) -> Runner:
    """A function of an artefact, whose kernels run on the tensors' GPU, or in Triton's interpreter without one."""
    from irc.frontends.torch.tensors import stand_in

    package = import_artefact(folder)
    model = package.load()

    def run(tensors: Sequence[Any], kept: object = kept) -> list[Any]:
        try:
            return list(model(*tensors).values())
        except package.runtime.ArtefactError as error:
            arrays = zip((argument.name for argument in main.arguments), map(stand_in, tensors), strict=True)
            check_inputs(main, dict(arrays), called)
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

