"""`irc bench`: the time of a compiled model on this machine, and of the original."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from irc.diagnostics import fail
from irc.driver.arrays import given_inputs
from irc.driver.callables import imported_program
from irc.driver.measuring import relative_error
from irc.driver.models import Backend, Settings, Source, find_backend, module_of, program_of
from irc.driver.optimizing import run_pipeline
from irc.driver.runners import import_artefact
from irc.driver.running import as_backend_failed, carrier
from irc.driver.sessions import advised_by, check_threads, model_call, original_call
from irc.driver.timing import ratios, timed_in_turn
from irc.driver.tuning import as_tensors, gpu
from irc.files import temporary_folder
from irc.module import Module
from irc.partial import TemporaryFolder
from irc.user_files import is_reference

WARM_UP = 3
LEAST_SECONDS = 5e-3  # of one timing; faster calls are repeated


@dataclass(frozen=True)
class Contender:
    """Seconds of one call, the median of all rounds. `ratio` is irc's time divided by this one's: the median of the
    rounds' ratios, with their quartiles; above 1 irc is slower. `error` is against irc's outputs."""

    seconds: float
    ratio: float
    quartiles: tuple[float, float]
    error: float


@dataclass(frozen=True)
class BenchReport:
    """Contenders by name: "irc" (its ONNX model in ONNX Runtime), and "original" (the ONNX file in ONNX Runtime) or
    "eager" (the module in PyTorch)."""

    contenders: Mapping[str, Contender]
    rounds: int
    threads: int
    sizes: Mapping[str, tuple[int, ...]]
    machine: str
    versions: Mapping[str, str] = field(default_factory=dict)
    label: str = "timed on this machine's CPU; Triton kernels are not timed, since they would be interpreted"
    device: str = "cpu"
    schema: str = "irc.bench/1"


def bench(
    source: Source,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    rounds: int = 30,
    threads: int = 1,
    backend: Backend = "onnx",
    pipeline: str | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> BenchReport:
    """Time a model: irc's ONNX model, and the original in ONNX Runtime or in eager PyTorch, if there is one.

    All run on the same inputs (random where none are given), with their optimizations on, on `threads` threads. Each
    runs once in a round, in rotating order, so that disturbances affect all. With the backend "triton" the contenders
    are irc's kernels and eager PyTorch on this machine's GPU, each until the device is done; raises `device.missing`
    where there is none.
    """
    check_threads(threads)
    settings = Settings.of(settings)
    device = gpu("timing Triton kernels")[0] if backend == "triton" else "cpu"
    program = program_of(str(source)) if not isinstance(source, Module) and is_reference(str(source)) else None
    convention = None
    if isinstance(program, tuple):
        imported, convention = imported_program(*program)
        module = settings.load(imported)
    else:
        module = settings.load(source if program is None else module_of(program, str(source)))
    given = given_inputs(module.main, inputs, settings.dims, seed)
    if convention is not None and inputs is None:
        given |= convention.held_arrays()
    given = {argument.name: given[argument.name] for argument in module.main.arguments if argument.name in given}
    if backend == "triton":
        calls, arrays = gpu_calls(module, program, convention, given, "cuda", pipeline, settings)
        return replace(compared(calls, given, rounds, threads, arrays), device=device,
                       label=f"timed on {device}, until the device is done")  # fmt: skip
    for value in (*module.main.arguments, *module.main.returned):
        if carrier(value.dtype.numpy) != value.dtype.numpy:
            raise fail("usage.arguments", f"%{value.name} is {value.type}, of which ONNX Runtime accepts no arrays")
    with temporary_folder() as folder:
        path = folder / "model.onnx"
        plain = Settings(**{**vars(settings), "specialize": {}})
        compiled, context = run_pipeline(module, pipeline or find_backend("onnx").PIPELINE, "onnx", plain)
        find_backend("onnx").save(compiled, path, target=context.target)
        with as_backend_failed():
            advised = advised_by(source, settings.show_note)
            calls = {"irc": model_call(str(path), given, threads, advised=advised)}
            if str(source).lower().endswith(".onnx") and not settings.specialize:
                calls["original"] = original_call(Path(str(source)), given, threads, advised=advised)
            if isinstance(program, tuple):
                calls["eager"] = _eager(program[0], convention, given, threads)
            return compared(calls, given, rounds, threads)


Call = Callable[[], Any]  # a list of arrays, unless a function makes one of it
Arrays = Callable[[Any], list[Any]]


def gpu_calls(module: Module, program: Any, convention: Any, given: Mapping[str, Any], device: str,
              pipeline: str | None, settings: Settings) -> tuple[dict[str, Call], dict[str, Arrays]]:  # fmt: skip
    """The compiled module, and the program in eager PyTorch where there is one, on a device of PyTorch; and functions
    of what they return that give arrays."""
    import torch

    from irc.frontends.torch.tensors import to_array

    compiled, _ = run_pipeline(module, pipeline or find_backend("triton").PIPELINE, "triton", settings)
    compiled_call, _ = compiled_calls(compiled, given, device)

    def finished(result: Any) -> Any:
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    calls: dict[str, Call] = {"irc": lambda: finished(compiled_call())}
    arrays: dict[str, Arrays] = {"irc": lambda outputs: [to_array(each.cpu()) for each in outputs]}
    if isinstance(program, tuple):
        moved = partial(torch.utils._pytree.tree_map_only, torch.Tensor)
        args, kwargs = moved(lambda x: x.to(device), convention.example(given))
        original = program[0].module() if isinstance(program[0], torch.export.ExportedProgram) else program[0]
        original = original.to(device) if isinstance(original, torch.nn.Module) else original

        def eager() -> Any:
            with torch.no_grad():
                return finished(original(*args, **kwargs))

        calls["eager"] = eager
        arrays["eager"] = lambda result: convention.computed(moved(lambda x: x.cpu(), result))
    return calls, arrays


def compiled_calls(compiled: Module, given: Mapping[str, Any], device: str) -> tuple[Call, dict[str, str]]:
    """A call of a module after Triton's pipeline, on a device of PyTorch, and the function of each kernel by the name
    of its operation."""
    kept = TemporaryFolder()
    program = find_backend("triton").emit(compiled, kept.path / "artefact")
    model = import_artefact(kept.path / "artefact").load()
    tensors = {name: value.to(device) for name, value in as_tensors(compiled.main, given).items()}

    def call(kept: TemporaryFolder = kept) -> Any:  # keeps the folder
        return list(model.run(tensors).values())

    return call, dict(program.launches)


def _eager(program: Any, convention: Any, given: Mapping[str, Any], threads: int) -> Call:
    """A PyTorch program, in the mode in which it was exported."""
    import torch

    torch.set_num_threads(threads)
    args, kwargs = convention.example(given)
    program = program.module() if isinstance(program, torch.export.ExportedProgram) else program

    def call() -> list[Any]:
        with torch.no_grad():
            result = program(*args, **kwargs)
        computed: list[Any] = convention.computed(result)
        return computed

    return call


def compared(calls: Mapping[str, Call], given: Mapping[str, Any], rounds: int, threads: int,
             arrays: Mapping[str, Arrays] | None = None) -> BenchReport:  # fmt: skip
    """The times of calls in rotating order; `arrays` are functions of what a call returns that give arrays."""
    outputs = {}
    for name, call in calls.items():
        # The first: eager PyTorch may update its arguments.
        outputs[name] = (arrays or {}).get(name, list)(call())
        for _ in range(WARM_UP):
            call()
    seconds = timed_in_turn(calls, rounds, least=LEAST_SECONDS)
    contenders = {}
    for name, timings in seconds.items():
        low, middle, high = ratios(seconds["irc"], timings)
        pairs = zip(outputs[name], outputs["irc"], strict=False)
        error = max((relative_error(theirs, ours) for theirs, ours in pairs), default=0.0)
        contenders[name] = Contender(statistics.median(timings), middle, (low, high), error)
    packages = ("irc-compiler", "onnxruntime", *(("torch",) if "eager" in calls else ()))
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    return BenchReport(contenders, rounds, threads, {name: array.shape for name, array in given.items()}, machine,
                       {package: version(package) for package in packages})  # fmt: skip
