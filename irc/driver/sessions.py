"""Sessions of ONNX Runtime: the options that are advised for a model, in a file beside it, and sessions with them.

`irc compile --session-advice` writes `model.session.json` beside `model.onnx`; `irc run` and `irc bench` apply it, as
`session_options` does for a program of one's own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irc.diagnostics import Location, fail
from irc.files import MappedFile, open_file, open_inside, replacing
from irc.kernel_costs import CostTable, find_costs
from irc.library_calls import product_flops
from irc.module import Module
from irc.onnx_runtime import onnx_runtime, start_session
from irc.sizes import representative_sizes
from irc.user_code import warn_caller

SCHEMA = "irc.session/1"
SUFFIX = ".session.json"
MOST_BYTES = 1 << 20  # of a file
SMALL = 3e-4  # seconds of a run, estimated: below, a second thread adds more overhead than it saves
THREADS_PER_CORE = 4  # at most
PROVIDERS = ("CPUExecutionProvider",)


@dataclass(frozen=True)
class SessionAdvice:
    """Options of a session. intra_op_num_threads: 0 is as many as the machine has cores. opset: that of the model, for
    those who choose a runtime; sessions do not read it. reasons: why, by option."""

    opset: int
    intra_op_num_threads: int = 0
    inter_op_num_threads: int = 1
    execution_mode: str = "sequential"
    graph_optimization_level: str = "all"
    enable_mem_pattern: bool = True
    enable_cpu_mem_arena: bool = True
    providers: tuple[str, ...] = PROVIDERS
    reasons: Mapping[str, str] = field(default_factory=dict)


def advice_for(module: Module, opset: int, sizes: Mapping[str, int], costs: CostTable | None = None) -> SessionAdvice:
    """Advice for the model of a module, at these sizes of symbols where they matter."""
    main = module.main
    known = representative_sizes(main, sizes)
    flops = sum(product_flops(operation, known) for operation in main.walk())
    table = costs or find_costs()
    peak = 4 * 196 * 1024 * 1024 / table.seconds("Gemm.pair", rows=196, inner=1024, columns=1024)
    seconds = flops / peak
    is_small = seconds < SMALL
    is_static = all(argument.type.is_static for argument in main.arguments)
    reasons = {
        "intra_op_num_threads": f"products take about {1e3 * seconds:.2g} ms on one thread: "
        + ("a second thread adds more overhead than it saves" if is_small else "as many as there are cores share them"),
        "inter_op_num_threads": "nodes run one after the other",
        "enable_mem_pattern": "the shapes of all inputs are known: a run's memory is planned once" if is_static else
        "shapes of inputs vary: a plan of memory would be made for each of them",
        "enable_cpu_mem_arena": "memory of a run is kept for the next one",
        "graph_optimization_level": "irc leaves to ONNX Runtime what only it can write: layouts of convolutions",
    }  # fmt: skip
    return SessionAdvice(opset, int(is_small), enable_mem_pattern=is_static, reasons=reasons)


def advice_path(model: str | Path) -> Path:
    """`model.session.json` of `model.onnx`."""
    return Path(model).with_suffix(SUFFIX)


def write_advice(advice: SessionAdvice, model: str | Path) -> Path:
    """Write advice beside a model; returns its place."""
    path = advice_path(model)
    stated = {"schema": SCHEMA, "model": Path(model).name, "sha256": _digest(model), **dataclasses.asdict(advice)}
    with replacing(path) as file:
        file.write((json.dumps(stated, indent=1) + "\n").encode())
    return path


def read_advice(model: str | Path) -> SessionAdvice | None:
    """The advice beside a model, None where there is none, or that of another file. Raises `file.format` for a file
    that is no advice."""
    path = advice_path(model)
    if not path.is_file():
        return None
    advice, digest = _read(path)
    return advice if digest == _digest(model) else None


def ignored_advice(model: str | Path) -> str:
    """A note where the advice beside a model is that of another file, else ""."""
    path = advice_path(model)
    if not path.is_file() or read_advice(model) is not None:
        return ""
    return f"{path} is ignored: it was written for another file than {model}; irc compile --session-advice writes it"


def advised_by(source: Any, show_note: Callable[[str], None] | None) -> str | None:
    """The model whose advice is to apply, None for a module; notes are shown of advice that is ignored."""
    if isinstance(source, Module):
        return None
    note = ignored_advice(str(source))
    if note and show_note is not None:
        show_note(note)
    return None if note else str(source)


def _digest(model: str | Path) -> str:
    """The SHA-256 of a model's file, without its external data."""
    path = Path(model)
    if not path.is_file():
        return ""
    data: Any = open_file(path).data
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> tuple[SessionAdvice, str]:
    """Advice, and the digest of its model's file."""
    content = bytes(open_file(path).data[:MOST_BYTES])
    try:
        stated = json.loads(content)
        if not isinstance(stated, dict) or stated.pop("schema", None) != SCHEMA:
            raise ValueError(f"there is no schema {SCHEMA}")
        stated.pop("model", None)
        digest = stated.pop("sha256", None)
        defaults = {each.name: each for each in dataclasses.fields(SessionAdvice)}
        for name, value in stated.items():
            if name not in defaults:
                raise ValueError(f"`{name}` is no option")
            if not is_valid(name, value):
                raise ValueError(f"`{name}` is {json.dumps(value)[:50]}")
            if name.endswith("_num_threads") and value > most_threads():
                raise ValueError(f"`{name}` is {value}, more than the {most_threads()} that this machine's cores allow")
        if "opset" not in stated:
            raise ValueError("`opset` is missing")
        if not isinstance(digest, str):
            raise ValueError("`sha256`, the digest of the model's file, is missing or no text")
        return SessionAdvice(**{**stated, "providers": tuple(stated.get("providers", PROVIDERS))}), digest
    except (ValueError, RecursionError) as error:
        raise fail(
            "file.format",
            str(error),
            at=Location(file=str(path)),
            expected="a file of --session-advice",
            help="write it again with irc compile --session-advice, or remove it",
        ) from None


def check_threads(threads: int) -> None:
    """Raise `usage.value` for a number of threads that ONNX Runtime should not start on this machine."""
    if not 1 <= threads <= most_threads():
        raise fail("usage.value", f"{threads} threads", expected=f"1 to {most_threads()}, of this machine's cores")


def most_threads() -> int:
    """The most threads that advice may state on this machine."""
    return THREADS_PER_CORE * (os.cpu_count() or 1)


def is_valid(name: str, value: Any) -> bool:
    """Whether an option may have this value."""
    if name == "execution_mode":
        return value in ("sequential", "parallel")
    if name == "graph_optimization_level":
        return value in ("disable", "basic", "extended", "all")
    if name.startswith("enable_"):
        return isinstance(value, bool)
    if name == "providers":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if name == "reasons":
        return isinstance(value, dict)
    return type(value) is int and 0 <= value < 1 << 16


def providers_for(model: str | Path | None) -> list[str]:
    """The providers that are advised beside a model, else the CPU's. Raises `file.format` for one that the installed
    ONNX Runtime lacks."""
    onnxruntime = onnx_runtime()
    advice = read_advice(model) if model is not None else None
    providers = PROVIDERS if advice is None else advice.providers
    for name in providers:
        if model is not None and name not in onnxruntime.get_available_providers():
            raise fail("file.format", f"this ONNX Runtime has no provider {name}",
                       at=Location(file=str(advice_path(model))),
                       expected=" or ".join(onnxruntime.get_available_providers()))  # fmt: skip
    return list(providers)


def session_options(model: str | Path | None = None, *, threads: int | None = None) -> Any:
    """An onnxruntime.SessionOptions with what is advised beside a model, ONNX Runtime's defaults where nothing is.

    `threads` replaces the advised number. Providers are not options of ONNX Runtime's sessions: `read_advice` has
    those. Advice for another file than this one is ignored, with a warning. Raises `file.format` for a file that is no
    advice.
    """
    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, too
    advice = read_advice(model) if model is not None else None
    note = ignored_advice(model) if model is not None and advice is None else ""
    if note:
        warn_caller(note)
    if advice is not None:
        modes, levels = onnxruntime.ExecutionMode, onnxruntime.GraphOptimizationLevel
        options.execution_mode = modes.ORT_PARALLEL if advice.execution_mode == "parallel" else modes.ORT_SEQUENTIAL
        options.graph_optimization_level = {
            "disable": levels.ORT_DISABLE_ALL, "basic": levels.ORT_ENABLE_BASIC,
            "extended": levels.ORT_ENABLE_EXTENDED, "all": levels.ORT_ENABLE_ALL,
        }[advice.graph_optimization_level]  # fmt: skip
        options.intra_op_num_threads = advice.intra_op_num_threads
        options.inter_op_num_threads = advice.inter_op_num_threads
        options.enable_mem_pattern = advice.enable_mem_pattern
        options.enable_cpu_mem_arena = advice.enable_cpu_mem_arena
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return options


def model_call(model: str | bytes, given: Mapping[str, Any], threads: int, *, external: Mapping[str, Any] | None = None,
               advised: str | None = None) -> Callable[[], list[Any]]:  # fmt: skip
    """Runs of a model in ONNX Runtime on inputs by name, with its optimizations. `external` has the model's external
    data by location; advice beside `advised` applies, except for its threads."""
    options = session_options(advised, threads=threads)
    session = _session(model, options, providers_for(advised), external or {})
    feed = dict(given)  # by name: the session does not count inputs that have a default
    return lambda: list(session.run(None, feed))


def original_call(path: Path, given: Mapping[str, Any], threads: int, *, advised: str | None = None
                  ) -> Callable[[], list[Any]]:  # fmt: skip
    """As `model_call`, of a model's file and its external data, opened by irc's rules: ONNX Runtime opens no file."""
    file = open_file(path)
    return model_call(file.data.tobytes(), given, threads, external=_external_data(file), advised=advised)


def session_at(path: Path) -> Any:
    """A session of ONNX Runtime on the CPU for a model that irc has written."""
    return start_session(str(path), session_options())


def confined_session(folder: Path, name: str) -> Any:
    """As `session_at`, of a model that another may have written: its files are opened as those that a model names."""
    file = open_inside(folder, name)
    return _session(file.data.tobytes(), session_options(), PROVIDERS, _external_data(file))


def _external_data(file: MappedFile) -> dict[str, Any]:
    """The external data of a model by location."""
    from irc.frontends.onnx.messages import external_locations
    from irc.frontends.onnx.weights import read_onnx

    return {location: open_inside(file.path.parent, location, "onnx.external_outside").data
            for location in external_locations(read_onnx(file))}  # fmt: skip


def _session(model: str | bytes, options: Any, providers: Sequence[str], external: Mapping[str, Any]) -> Any:
    """A session for a model with its external data by location, which ONNX Runtime copies as it starts."""
    contents = [data.tobytes() for data in external.values()]
    if contents:
        options.add_external_initializers_from_files_in_memory(list(external), contents, list(map(len, contents)))
    return start_session(model, options, providers)
