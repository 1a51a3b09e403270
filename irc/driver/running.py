"""`irc run`: run a program on arrays, in the interpreter or compiled by a backend."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irc import dtypes, interpreter
from irc.diagnostics import fail
from irc.driver.arrays import Arrays, given_inputs
from irc.driver.artefacts import LINK, is_artefact, run_artefact, run_in_process
from irc.driver.models import Backend, Settings, Source, find_backend, reproducing, require_triton
from irc.driver.optimizing import opt
from irc.driver.sessions import advised_by, providers_for, session_options
from irc.driver.size_assertions import SizeAssertions
from irc.files import temporary_folder
from irc.ir import Value
from irc.module import Module
from irc.onnx_runtime import onnx_runtime, start_session
from irc.ops.extern import runtime_errors
from irc.stages import stage

OPTIMIZED = "optimized.onnx"  # the model as ONNX Runtime optimizes it, in the folder of a profile


@dataclass(frozen=True)
class RunReport:
    """Outputs by name, the inputs, and how the outputs were computed."""

    outputs: Mapping[str, Any]
    inputs: Mapping[str, Any]
    label: str
    schema: str = "irc.run/1"


def run(
    source: Source,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    backend: Backend | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> RunReport:
    """Run a model: by the interpreter, or compiled by a backend. Arrays are keyed by input and output name.

    Where `inputs` is None, they are random within the declared ranges, at `settings.dims`; `seed` is the seed of these,
    and of the interpreter's random operators that have none. `source` may be a folder that `compile` has written.
    """
    settings = Settings.of(settings)
    if is_artefact(source):
        if backend not in (None, "triton"):
            raise fail("usage.backend", f"{source} has Triton kernels", expected="--backend triton, or no --backend")
        return RunReport(*run_artefact(Path(source), inputs, settings.dims, seed))
    module = settings.load(source)
    given = given_inputs(module.main, inputs, settings.dims, seed)
    if backend is None:
        with reproducing(settings, module, "interpret"):
            return RunReport(interpreter.run(module, given, draws=seed), given, "interpreted by NumPy")
    compiled = opt(module, find_backend(backend).PIPELINE, backend=backend, settings=replace(settings, specialize={}))
    advised = advised_by(source, settings.show_note) if backend == "onnx" else None
    outputs, label = run_compiled(compiled, given, backend, settings, advised)
    return RunReport(outputs, given, label)


def run_compiled(
    module: Module, inputs: Mapping[str, Any], backend: Backend, settings: Settings, advised: str | None = None
) -> tuple[Arrays, str]:
    """Run a module after a backend's pipeline; returns the outputs and a label. Advice for sessions beside the model
    `advised` applies."""
    interpreter.check_memory(module.main, inputs)
    with reproducing(settings, module, f"emit-{backend}"):
        if backend == "onnx":
            return run_onnx(module, inputs, settings.target_of("onnx"), advised), "ONNX Runtime"
        return run_triton(module, inputs)


def run_onnx(module: Module, inputs: Mapping[str, Any], target: Any = None, advised: str | None = None) -> Arrays:
    """Emit and run with ONNX Runtime."""
    return OnnxProgram(module, target, advised=advised)(inputs)


class OnnxProgram:
    """A module in ONNX Runtime, by default with its optimizations: from arrays by name to arrays by name.

    Without `threads` ONNX Runtime chooses their number; with a folder `profile` the session writes a profile and its
    optimized model there. Raises `backend.failed` with ONNX Runtime's message, if it rejects the model or fails in it,
    and `run.assert` where sizes break an assertion.
    """

    def __init__(self, module: Module, target: Any = None, *, optimized: bool = True, advised: str | None = None,
                 threads: int | None = None, profile: Path | None = None) -> None:  # fmt: skip
        self.main = module.main
        if not self.main.returned:
            return  # ONNX Runtime takes no model without outputs, and there is nothing to compute
        self.assertions = SizeAssertions(self.main)
        values = (*self.main.arguments, *self.main.returned)
        self.names = [argument.name for argument in self.main.arguments]
        self.carries = any(carrier(value.dtype.numpy) != value.dtype.numpy for value in values)
        if self.carries:
            model = with_carriers(find_backend("onnx").emit(module, target=target), module)
            self.names = [entry.name for entry in model.graph.input]
            save: Callable[[Path], object] = lambda path: path.write_bytes(model.SerializeToString())  # noqa: E731
        else:
            save = saving(module, target)
        self.session = session_of(save, optimized=optimized, advised=advised, threads=threads, profile=profile)

    def __call__(self, inputs: Mapping[str, Any]) -> Arrays:
        import numpy as np

        if not self.main.returned:
            return {}
        if self.assertions.operations:
            sizes = interpreter.check_inputs(self.main, inputs)
            complete = interpreter.with_defaults(self.main, inputs)
            self.assertions.check(sizes, [complete[argument.name] for argument in self.assertions.read])
        given = interpreter.with_defaults(self.main, inputs) if self.carries else inputs
        carried = {name: given[x.name] if is_opaque(x) else
                   as_pairs(np.asarray(given[x.name]).astype(carrier(x.dtype.numpy), copy=False))
                   for name, x in zip(self.names, self.main.arguments, strict=True) if x.name in given}  # fmt: skip
        with as_backend_failed(), stage("run in ONNX Runtime"):
            results = self.session.run(None, carried)
        outputs = zip(self.main.output_names, self.main.returned, results, strict=True)
        return {name: x if is_opaque(value) else x.view(value.dtype.numpy)[..., 0] if value.dtype.is_complex else
                x.astype(value.dtype.numpy, copy=False) for name, value, x in outputs}  # fmt: skip


def saving(module: Module, target: Any = None) -> Callable[[Path], object]:
    """Writes the ONNX model of a module to a path."""
    return lambda path: find_backend("onnx").save(module, path, target=target)


def session_of(save: Callable[[Path], object], *, optimized: bool = True, advised: str | None = None,
               threads: int | None = None, profile: Path | None = None) -> Any:  # fmt: skip
    """A session of ONNX Runtime on the CPU, for the model that `save` writes to a path; `threads` and `profile` as in
    `OnnxProgram`."""
    onnxruntime = onnx_runtime()
    options = session_options(advised)
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile / "profile")
        options.optimized_model_filepath = str(profile / OPTIMIZED)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
    with temporary_folder() as temporary:
        path = temporary / "model.onnx"
        save(path)
        with as_backend_failed():
            return start_session(str(path), options, providers_for(advised))


def is_opaque(value: Value) -> bool:
    """Whether a value is not a tensor but a list (a sequence), a dictionary (a map), or None."""
    return bool(value.dtype.kind == "opaque")


@contextmanager
def as_backend_failed() -> Iterator[None]:
    """Raise `backend.failed` for exceptions of ONNX Runtime."""
    try:
        yield
    except runtime_errors() as error:
        raise fail("backend.failed", "ONNX Runtime rejects the model or fails in it", notes=[str(error)]) from None


def carrier(dtype: Any) -> Any:
    """The NumPy type in which an array is passed to ONNX Runtime, which accepts no bf16, fp8 or int4 from NumPy."""
    import numpy as np

    element_type = dtypes.from_numpy(dtype)
    if hasattr(np, element_type.numpy_name):
        return dtype
    return np.dtype(np.float32 if element_type.is_float else np.int8 if element_type.is_signed else np.uint8)


def as_pairs(array: Any) -> Any:
    """Complex numbers as pairs on a last axis, which they are in ONNX models; other arrays as they are."""
    import numpy as np

    if array.dtype.kind != "c":
        return array
    return np.ascontiguousarray(array).reshape(*array.shape, 1).view(array.real.dtype)


def with_carriers(model: Any, module: Module) -> Any:
    """An ONNX model with a cast after each input and before each output whose element type NumPy lacks. These inputs
    and outputs get new names, so that inner names, also in subgraphs, are unchanged. Inputs have no defaults."""
    from onnx import helper

    graph, before, after = model.graph, [], []
    inputs = {info.name for info in graph.input}
    stored = [tensor for tensor in graph.initializer if tensor.name not in inputs]
    del graph.initializer[:]
    graph.initializer.extend(stored)
    infos, values = [*graph.input, *graph.output], [*module.main.arguments, *module.main.returned]
    taken = {info.name for info in infos}.union(*((*node.input, *node.output) for node in graph.node))
    for position, (info, value) in enumerate(zip(infos, values, strict=True)):
        dtype = carrier(value.dtype.numpy)
        if dtype == value.dtype.numpy:
            continue
        inner, to = info.name, helper.np_dtype_to_tensor_dtype(dtype)
        info.name = next(f"{inner}.{number}" for number in itertools.count() if f"{inner}.{number}" not in taken)
        taken.add(info.name)
        info.type.tensor_type.elem_type = to
        if position < len(graph.input):
            before.append(helper.make_node("Cast", [info.name], [inner], to=value.dtype.onnx))
        else:
            after.append(helper.make_node("Cast", [inner], [info.name], to=to))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def run_triton(module: Module, inputs: Mapping[str, Any]) -> tuple[Arrays, str]:
    """Write the artefact to a temporary folder and run it by `artefacts.run_in_process`."""
    require_triton("running Triton kernels")
    with temporary_folder() as folder:
        find_backend("triton").emit(module, folder / LINK)
        outputs = zip(module.main.output_names, module.main.returned, strict=True)
        return run_in_process(folder, inputs, {name: value.dtype for name, value in outputs})
