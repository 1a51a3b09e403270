"""bench: the time that a compiled model takes on this machine, beside what it was compiled from."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from irc.diagnostics import fail
from irc.driver.arrays import given_inputs
from irc.driver.checking import relative_error
from irc.driver.compiling import run_pipeline
from irc.driver.models import Settings, Source, find_backend, is_torch, load, module_of, program_of
from irc.driver.running import carrier, refusals_told
from irc.files import temporary_folder
from irc.ir import Module
from irc.passes._user_files import is_reference

WARM_UP = 3
LEAST_SECONDS = 5e-3  # of one timing, which repeats calls that are faster


@dataclass(frozen=True)
class Contender:
    """Seconds of one call: the median of all rounds. `ratio` is irc's time over its own, as the median of the rounds'
    ratios, between their quartiles: above 1, irc is the slower one. `error` is against irc's outputs."""

    seconds: float
    ratio: float
    quartiles: tuple[float, float]
    error: float


@dataclass(frozen=True)
class BenchReport:
    """Contenders by name: "irc" (its ONNX in ONNX Runtime) and what there is of "original" (the ONNX file in ONNX
    Runtime) and "eager" (the module in PyTorch)."""

    contenders: Mapping[str, Contender]
    rounds: int
    threads: int
    sizes: Mapping[str, tuple[int, ...]]
    machine: str
    versions: Mapping[str, str] = field(default_factory=dict)
    label: str = "timed on this machine's processor; Triton kernels are not, since interpreting them tells no time"
    schema: str = "irc.bench/1"


def bench(
    source: Source,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    rounds: int = 30,
    threads: int = 1,
    pipeline: str | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> BenchReport:
    """Time a model: irc's ONNX, the original in ONNX Runtime, and eager PyTorch, as far as there is each.

    All run on the same inputs (random where none are given), with their optimizations on, on `threads` threads. In
    each round each runs once, in an order that turns, so that what disturbs the machine disturbs all.
    """
    settings = settings or Settings()
    made = program_of(str(source)) if not isinstance(source, Module) and is_reference(str(source)) else None
    module = load(source if made is None else module_of(made, str(source)), specialize=settings.specialize)
    given = given_inputs(module.main, inputs, settings.dims, seed)
    for value in (*module.main.arguments, *module.main.returned):
        if carrier(value.dtype.numpy) != value.dtype.numpy:
            raise fail("usage.arguments", f"%{value.name} is {value.type}, which ONNX Runtime takes no arrays of")
    with temporary_folder() as folder:
        path = folder / "model.onnx"
        plain = Settings(**{**vars(settings), "specialize": {}})
        compiled, context = run_pipeline(module, pipeline or find_backend("onnx").PIPELINE, "onnx", plain)
        find_backend("onnx").save(compiled, path, target=context.target)
        with refusals_told():
            calls = {"irc": _call(str(path), given, threads, {})}
            if str(source).lower().endswith(".onnx") and not settings.specialize:
                calls["original"] = _original(Path(str(source)), given, threads)
            if isinstance(made, tuple) and is_torch(made[0]):
                calls["eager"] = _eager(made, list(given.values()), threads)
            return _compared(calls, given, rounds, threads)


Call = Callable[[], list[Any]]


def _original(path: Path, given: Mapping[str, Any], threads: int) -> Call:
    """A model's file, and the files that it names, as irc opens them: ONNX Runtime opens none itself."""
    from irc.files import open_file, open_inside
    from irc.frontends.onnx.messages import external_locations
    from irc.frontends.onnx.weights import read_onnx

    file = open_file(path)
    locations = external_locations(read_onnx(file))
    external = {location: open_inside(path.parent, location, "onnx.external_outside").data for location in locations}
    return _call(file.data.tobytes(), given, threads, external)


def _call(model: str | bytes, given: Mapping[str, Any], threads: int, external: Mapping[str, Any]) -> Call:
    """A model in ONNX Runtime, as its users have it but for the threads; `external` holds the files that it names."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # errors are raised, too
    if external:
        contents = [data.tobytes() for data in external.values()]
        options.add_external_initializers_from_files_in_memory(list(external), contents, list(map(len, contents)))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = dict(zip((entry.name for entry in session.get_inputs()), given.values(), strict=True))
    return lambda: session.run(None, feed)


def _eager(made: tuple[Any, ...], arrays: list[Any], threads: int) -> Call:
    """A module of PyTorch on tensors in the structure of its example inputs."""
    import torch
    from torch.utils import _pytree as pytree

    torch.set_num_threads(threads)
    program, inputs = made[0], made[1] if len(made) > 1 else ()
    _, structure = pytree.tree_flatten(inputs)
    filled = pytree.tree_unflatten([torch.from_numpy(array) for array in arrays[: structure.num_leaves]], structure)
    if isinstance(program, torch.nn.Module):
        program = program.eval()

    def call() -> list[Any]:
        with torch.no_grad():
            found = program(**filled) if isinstance(filled, Mapping) else program(*filled)
        return [leaf.numpy() for leaf in pytree.tree_leaves(found)]

    return call


def _compared(calls: Mapping[str, Call], given: Mapping[str, Any], rounds: int, threads: int) -> BenchReport:
    outputs, repeats = {}, {}
    for name, call in calls.items():
        for _ in range(WARM_UP):
            outputs[name] = call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(LEAST_SECONDS / max(time.perf_counter() - start, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            for _ in range(repeats[name]):
                calls[name]()
            seconds[name].append((time.perf_counter() - start) / repeats[name])
    contenders = {}
    for name, own in seconds.items():
        ratios = [irc / each for irc, each in zip(seconds["irc"], own, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
        pairs = zip(outputs[name], outputs["irc"], strict=False)
        error = max((relative_error(theirs, ours) for theirs, ours in pairs), default=0.0)
        contenders[name] = Contender(statistics.median(own), middle, (low, high), error)
    packages = ("irc-compiler", "onnxruntime", *(("torch",) if "eager" in calls else ()))
    machine = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    return BenchReport(contenders, rounds, threads, {name: array.shape for name, array in given.items()}, machine,
                       {package: version(package) for package in packages})  # fmt: skip
