"""`irc compile --tune`: ONNX models with and without rewrites, timed on this machine, of which the fastest is taken.

Candidates are the pipeline as it is, without each of its rewrites, and without all of them, and the input itself. They
run in turn on one thread, in CPU time. `choose` decides from the times alone. Start at `tuned`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from irc.diagnostics import IrcError, fail
from irc.driver.arrays import given_inputs
from irc.driver.models import Settings, Source, find_backend
from irc.driver.optimizing import run_pipeline
from irc.driver.pipelines import leaving_out, read_stages, written
from irc.driver.running import as_backend_failed, as_pairs, carrier
from irc.driver.sessions import model_call, original_call
from irc.driver.timing import ratios, timed_in_turn
from irc.files import temporary_folder
from irc.module import Module
from irc.named_pipelines import ALIASES

# Passes that a model is not written without.
NEEDED = ("canonicalize", "fold", "cse", "complex_parts", "dce", "legalize", "fuse")
ROUNDS = 25
LEAST_SECONDS = 0.01  # of one timing
MOST_BYTES = 8 << 30  # of the weights of all candidates together, which are in memory at a time
INPUT, SAME, ALL = "input", "input again", "all rewrites"


@dataclass(frozen=True)
class Candidate:
    """Time of the input divided by that of a candidate: the median of rounds, with quartiles. Above 1 it is faster."""

    ratio: float
    low: float
    high: float
    nodes: int


@dataclass(frozen=True)
class GraphTuning:
    """Candidates by name, in the order in which they are preferred, the one that is taken, and the noise: how far the
    input differs from itself. `rounds` are those of all candidates, and `seconds` the limit that was given for them.
    `sizes` are the shapes of inputs, by name. `without` are candidates that were not timed, with the reason."""

    chosen: str
    noise: float
    candidates: Mapping[str, Candidate]
    rounds: int
    seconds: float
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    label: str = "CPU time on this machine, one thread"


@dataclass
class Compiled:
    """A candidate: its module after a pipeline, and its file."""

    module: Module
    pipeline: str
    path: Path


def tuned(source: Source, pipeline: str, settings: Settings, seconds: float, inputs: Any = None,
          progress: Callable[[str], None] | None = None, *, copy: bool = True
          ) -> tuple[GraphTuning, Compiled | None]:  # fmt: skip
    """Time the candidates of a model, after they are compiled; returns what was found, and the chosen one, None for the
    input itself, which is chosen only with `copy`. `inputs` are those of runs, by default random at `settings.dims`.

    Timing ends after `seconds` or ROUNDS rounds, but not before two rounds; candidates with several rewrites left out
    are timed for half as long again.

    The file of the result is gone when it is returned. Raises `usage.arguments` for a model whose inputs NumPy cannot
    hold, `backend.failed` for inputs that the model does not run on, and what compiling it raises.
    """
    report = progress or (lambda text: None)
    module = settings.load(source)
    for value in (*module.main.arguments, *module.main.returned):
        if carrier(value.dtype.numpy) != value.dtype.numpy:
            raise fail("usage.arguments", f"%{value.name} is {value.type}, of which ONNX Runtime accepts no arrays")
    given = given_inputs(module.main, inputs, settings.dims, 0)
    given = {argument.name: as_pairs(given[argument.name]) for argument in module.main.arguments
             if argument.name in given}  # fmt: skip
    with temporary_folder() as folder:
        compiled, without = _compiled(source, pipeline, settings, folder, report)
        calls, is_file = _calls(source, pipeline, settings, compiled, given, folder)
        copy = copy and is_file
        report("timing")
        deadline = time.monotonic() + seconds
        tuning = _timed(calls, compiled, deadline, seconds, copy)
        better = [name for name in tuning.candidates if name.startswith("without ") and "," not in name
                  and tuning.candidates[name].ratio > tuning.candidates[ALL].ratio * (1 + tuning.noise)]  # fmt: skip
        if len(better) > 1:
            names = [name.removeprefix("without ") for name in better]
            joined = "without " + ", ".join(names)
            try:
                number = len(compiled) + len(without)  # which no file of a candidate has
                compiled[joined] = _candidate(source, leaving_out(pipeline, names), settings, folder, number)
                calls[joined] = model_call(str(compiled[joined].path), given, 1)
                some = {name: calls[name] for name in dict.fromkeys((INPUT, SAME, ALL, tuning.chosen, joined))}
                second = _timed(some, compiled, time.monotonic() + seconds / 2, seconds, copy)
                merged = {**tuning.candidates, **second.candidates}
                noise = max(tuning.noise, second.noise)
                chosen = choose(_allowed(merged, copy), noise)
                tuning = replace(tuning, chosen=chosen, noise=noise, candidates=merged)
            except IrcError as error:
                without[joined] = error.diagnostics[0].message
        sizes = {name: tuple(getattr(array, "shape", ())) for name, array in given.items()}
        return replace(tuning, sizes=sizes, without=without), compiled.get(tuning.chosen)


def choose(candidates: Mapping[str, Candidate], noise: float) -> str:
    """The name of the candidate to take: the first that is within the noise of the fastest one. The input comes last,
    so that it is taken only where all others are slower beyond the noise."""
    fastest = max(candidates.values(), key=lambda each: each.ratio)
    order = [*(name for name in candidates if name not in (INPUT, SAME)), INPUT]
    return next(name for name in order if name in candidates and candidates[name].ratio * (1 + noise) >= fastest.ratio)


def noise_of(low: float, middle: float, high: float) -> float:
    """How far ratios of a model to itself are from 1."""
    return max(abs(middle - 1), (high - low) / 2, 0.005)


def rewrites_of(pipeline: str) -> list[str]:
    """The passes of a pipeline that may be left out, in their order."""
    names = dict.fromkeys(stage.name for stage in read_stages(pipeline, ALIASES))
    return [name for name in names if name not in NEEDED]


def _compiled(source: Source, pipeline: str, settings: Settings, folder: Path, report: Callable[[str], None]
              ) -> tuple[dict[str, Compiled], dict[str, str]]:  # fmt: skip
    """The candidates that differ, the first of them with all rewrites; and why others are left out."""
    rewrites = rewrites_of(pipeline)
    plans = {ALL: [], **{f"without {name}": [name] for name in rewrites}, "no rewrites": rewrites}
    compiled, without, known = dict[str, Compiled](), dict[str, str](), dict[bytes, str]()
    size = 0  # of the weights of candidates that are kept
    for number, (name, left_out) in enumerate(plans.items()):
        report(name)
        try:
            candidate = _candidate(source, leaving_out(pipeline, left_out), settings, folder, number)
        except IrcError as error:
            if name == ALL:
                raise
            without[name] = error.diagnostics[0].message
            continue
        with candidate.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if digest in known:
            without[name] = f"the same model as {known[digest]}"
        elif size + candidate.module.weight_bytes > MOST_BYTES and name != ALL:
            without[name] = f"the candidates would take more than {MOST_BYTES >> 30} GiB"
        else:
            compiled[name] = candidate
            known[digest] = name
            size += candidate.module.weight_bytes
    return compiled, without


def _candidate(source: Source, pipeline: str, settings: Settings, folder: Path, number: int) -> Compiled:
    module, context = run_pipeline(source, pipeline, "onnx", settings)
    path = folder / f"{number}.onnx"
    find_backend("onnx").save(module, path, target=context.target)
    return Compiled(module, pipeline, path)


def _calls(source: Source, pipeline: str, settings: Settings, compiled: Mapping[str, Compiled],
           given: Mapping[str, Any], folder: Path) -> tuple[dict[str, Callable[[], Any]], bool]:  # fmt: skip
    """Runs of the input, twice, and of the candidates; and whether the input is a file that may be copied. Else the
    module as it was imported stands for it, with complex numbers by their parts: ONNX Runtime has no others."""
    path = Path(str(source))
    is_file = not isinstance(source, Module) and path.suffix.lower() == ".onnx" and not settings.specialize
    is_file = is_file and not settings.fold_defaults
    if not is_file:
        path = folder / "input.onnx"
        parts = written(stage for stage in read_stages(pipeline, ALIASES) if stage.name == "complex_parts")
        module, context = run_pipeline(source, parts, "onnx", settings)
        find_backend("onnx").save(module, path, target=context.target)
    with as_backend_failed():
        calls = {name: original_call(path, given, 1) for name in (INPUT, SAME)}
        calls |= {name: model_call(str(candidate.path), given, 1) for name, candidate in compiled.items()}
    return calls, is_file


def _timed(calls: Mapping[str, Callable[[], Any]], compiled: Mapping[str, Compiled], deadline: float, seconds: float,
           copy: bool) -> GraphTuning:  # fmt: skip
    with as_backend_failed():
        times = timed_in_turn(calls, ROUNDS, clock=time.process_time, least=LEAST_SECONDS, deadline=deadline)
    noise = noise_of(*ratios(times[INPUT], times[SAME]))
    count = find_backend("onnx").count_nodes
    candidates = {}
    for name in sorted(calls, key=lambda name: name in (INPUT, SAME)):
        low, middle, high = ratios(times[INPUT], times[name])
        candidates[name] = Candidate(middle, low, high, count(compiled[name].path) if name in compiled else 0)
    return GraphTuning(choose(_allowed(candidates, copy), noise), noise, candidates, len(times[INPUT]), seconds)


def _allowed(candidates: Mapping[str, Candidate], copy: bool) -> dict[str, Candidate]:
    """The candidates that may be taken."""
    return {name: each for name, each in candidates.items() if copy or name not in (INPUT, SAME)}
