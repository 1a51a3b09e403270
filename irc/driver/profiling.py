"""`irc profile`: where a compiled model spends its time, by value of the IR and by line of the source.

Of an ONNX model, ONNX Runtime's profiler measures the nodes. irc names nodes after values; nodes that ONNX Runtime
makes of several are known by their outputs, from the model as it optimizes it. On a GPU PyTorch's profiler measures the
kernels.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from irc.diagnostics import fail
from irc.driver.arrays import given_inputs
from irc.driver.counting import describe
from irc.driver.models import Backend, Settings, Source, find_backend
from irc.driver.optimizing import opt
from irc.driver.profile_page import profile_page
from irc.driver.running import OnnxProgram
from irc.driver.sessions import check_threads
from irc.driver.view_graph import prefix_of
from irc.files import check_file, guarded, replacing, temporary_folder
from irc.ir import Operation
from irc.module import Module
from irc.stages import stage, step

SUFFIX = "_kernel_time"  # of the names of a profile's events: the node's name stands before it


@dataclass(frozen=True)
class ProfileRow:
    """The time of a value: the median of its nodes' or kernels' time in a run, in microseconds.

    `value` is "" for what no value of the IR stands for: what the runtime adds. `op` is the operation of the IR,
    `operators` what ran, and `source` where the operation is from. `function` is "" for values of the entry.
    """

    value: str
    op: str
    operators: tuple[str, ...]
    microseconds: float
    share: float
    source: str = ""
    function: str = ""


@dataclass(frozen=True)
class ProfileReport:
    """Rows by value and by kind of operation, the longest time first.

    `microseconds` is the median time of a run: with the backend "onnx" the time from start to end, of which the nodes
    take the share `in_nodes` and the runtime the rest; with "triton" the sum of the kernels' times, so that `in_nodes`
    is about 1. `label` says what measured them.
    """

    microseconds: float
    in_nodes: float
    rows: tuple[ProfileRow, ...]
    kinds: tuple[ProfileRow, ...]
    rounds: int
    warmup: int
    threads: int
    sizes: Mapping[str, tuple[int, ...]]  # shapes of inputs
    label: str
    schema: str = "irc.profile/1"


@guarded()
def profile(
    source: Source,
    inputs: Mapping[str, Any] | str | Path | None = None,
    *,
    html: str | Path | None = None,
    backend: Backend = "onnx",
    pipeline: str | None = None,
    rounds: int = 20,
    warmup: int = 3,
    threads: int = 1,
    seed: int = 0,
    settings: Settings | None = None,
) -> ProfileReport:
    """Compile a model, run it, and map the measured times to the values of its IR.

    `html` is a page to write, the graph of the compiled program with these times. Inputs are random where none are
    given. The first `warmup` runs do not count; times are medians of `rounds` runs.
    With the backend "triton" kernels are measured on this machine's GPU; raises `device.missing` where there is none.
    """
    settings = Settings.of(settings)
    check_threads(threads)
    if rounds < 1 or warmup < 0:
        raise fail("usage.value", f"{rounds} rounds after {warmup}", expected="at least one round")
    if html is not None:
        check_file(Path(html))  # before the work is done
    if backend == "triton":
        from irc.driver.tuning import gpu

        device = gpu("profiling Triton kernels")[0]
    module = settings.load(source)
    given = given_inputs(module.main, inputs, settings.dims, seed)
    plain = replace(settings, specialize={})
    compiled = opt(module, pipeline or find_backend(backend).PIPELINE, backend=backend, settings=plain)
    if backend == "triton":
        runs, nodes = on_device(compiled, given, rounds, warmup)
        label = f"measured on {device} by PyTorch's profiler, PyTorch {version('torch')}"
    else:
        runs, nodes = in_onnx_runtime(compiled, given, rounds, warmup, threads, plain)
        label = f"measured on this machine's CPU by ONNX Runtime's profiler, ONNX Runtime {version('onnxruntime')}"
    sizes = {name: tuple(getattr(array, "shape", ())) for name, array in given.items()}
    base = replace(EMPTY, rounds=rounds, warmup=warmup, threads=threads, sizes=sizes, label=label)
    report = report_of(compiled, runs, nodes, base)
    if html is not None:
        times = {f"{prefix_of(row.function or compiled.main.name, compiled)}{row.value}": row.microseconds
                 for row in report.rows if row.value}  # fmt: skip
        text = profile_page(compiled, times, label, plain)
        with replacing(Path(html)) as file:
            file.write(text.encode())
    return report


EMPTY = ProfileReport(0.0, 0.0, (), (), 0, 0, 0, {}, "")


@dataclass(frozen=True)
class Run:
    """One run: its time, and those of its nodes or kernels by name, in microseconds."""

    microseconds: float
    nodes: Mapping[str, float]


@dataclass(frozen=True)
class Node:
    """What runs under a name: its operator, and names that it may have in the IR, the best first. `function` has the
    values of these names; "" where only their names are known."""

    operator: str
    names: tuple[str, ...]
    function: str = ""


def report_of(module: Module, runs: Sequence[Run], nodes: Mapping[str, Node], base: ProfileReport) -> ProfileReport:
    """The rows of a profile; `base` has the rest."""
    operations = _operations_of(module)
    medians = {name: statistics.median([run.nodes.get(name, 0.0) for run in runs])
               for name in dict.fromkeys(name for run in runs for name in run.nodes)}  # fmt: skip
    total = sum(medians.values())
    by_value: dict[tuple[str, str], list[str]] = defaultdict(list)
    functions = _functions_of(operations, module.main.name)
    for name in medians:
        node = nodes.get(name, Node("", (name,)))
        places = ((node.function or functions.get(each, ""), each) for known in node.names for each in prefixes(known))
        by_value[next((each for each in places if each in operations), ("", ""))].append(name)

    def row(key: tuple[str, str], names: Sequence[str]) -> ProfileRow:
        operation, time = operations.get(key), sum(medians[name] for name in names)
        function, value = key
        function = "" if function == module.main.name else function
        operators = tuple(dict.fromkeys(nodes[name].operator for name in names if name in nodes))
        share = time / total if total else 0.0
        return ProfileRow(value, _kind(operation), operators, time, share, _place(operation), function)

    rows = sorted((row(*item) for item in by_value.items()), key=lambda each: -each.microseconds)
    by_kind: dict[str, list[ProfileRow]] = defaultdict(list)
    for each in rows:
        by_kind[each.op].append(each)
    kinds = [ProfileRow("", kind, tuple(dict.fromkeys(name for each in some for name in each.operators)),
                        sum(each.microseconds for each in some), sum(each.share for each in some))
             for kind, some in by_kind.items()]  # fmt: skip
    whole = statistics.median([run.microseconds for run in runs])
    return replace(base, microseconds=whole, in_nodes=total / whole if whole else 0.0, rows=tuple(rows),
                   kinds=tuple(sorted(kinds, key=lambda each: -each.microseconds)))  # fmt: skip


Operations = Mapping[tuple[str, str], Operation]


def _operations_of(module: Module) -> Operations:
    """The operations of a module by the names of functions and of their values: functions may use equal names."""
    return {(function.name, result.name): operation for function in module.functions.values()
            for operation in function.walk() for result in operation.results}  # fmt: skip


def _functions_of(operations: Operations, main: str) -> dict[str, str]:
    """The function in which a name is that of a value: the entry where it has one, else the only one that has."""
    functions: dict[str, str] = {}
    for function, name in operations:
        if functions.get(name) != main:
            functions[name] = function if name not in functions or function == main else ""
    return functions


def prefixes(name: str) -> Iterator[str]:
    """A name, then without its last parts: irc names a further node of %y `y/Shape`."""
    while name:
        yield name
        name = name.rpartition("/")[0]


def _kind(operation: Operation | None) -> str:
    if operation is None:
        return "added by the runtime"
    if operation.name == "kernel":
        return f"kernel ({operation.attributes['kind']})"
    return describe(operation)


def _place(operation: Operation | None) -> str:
    return str(operation.location) if operation is not None and operation.location.known else ""


# -- ONNX Runtime ----------------------------------------------------------------------------------------------


def in_onnx_runtime(module: Module, inputs: Mapping[str, Any], rounds: int, warmup: int, threads: int,
                    settings: Settings) -> tuple[list[Run], dict[str, Node]]:  # fmt: skip
    """The runs of a module in ONNX Runtime, and the nodes of the model that ONNX Runtime makes of it."""
    with temporary_folder() as folder:
        program = OnnxProgram(module, settings.target_of("onnx"), profile=folder, threads=threads)
        if not module.main.returned:
            return [Run(0.0, {})], {}
        with stage("profile"):
            for number in range(warmup + rounds):
                step(f"run {number + 1} of {warmup + rounds}")
                program(inputs)
        events = json.loads(Path(program.session.end_profiling()).read_text("utf-8"))
        return runs_of(events)[warmup:], nodes_of(folder)


def runs_of(events: Iterable[Mapping[str, Any]]) -> list[Run]:
    """The runs in a profile of ONNX Runtime. The time of a node is without that of the nodes in its subgraphs."""
    complete = sorted((each for each in events if each.get("ph") == "X"), key=lambda each: (each["ts"], -each["dur"]))
    whole = [each for each in complete if each["name"] == "model_run"]
    runs = [(each["ts"], each["ts"] + each["dur"], defaultdict[str, float](float)) for each in whole]
    current, around = 0, list[tuple[float, str]]()
    for event in complete:
        if event["cat"] != "Node" or not event["name"].endswith(SUFFIX):
            continue
        while current < len(runs) and event["ts"] > runs[current][1]:
            current, around = current + 1, []
        if current == len(runs):
            break
        times, name = runs[current][2], event["name"].removesuffix(SUFFIX)
        while around and event["ts"] >= around[-1][0]:
            around.pop()
        if around:
            times[around[-1][1]] -= event["dur"]
        times[name] += event["dur"]
        around.append((event["ts"] + event["dur"], name))
    return [Run(float(end - start), times) for start, end, times in runs]


def nodes_of(folder: Path) -> dict[str, Node]:
    """The nodes of the optimized model that a session has written, those in subgraphs included."""
    import onnx

    from irc.driver.onnx_originals import graphs_of
    from irc.driver.running import OPTIMIZED

    nodes: dict[str, Node] = {}
    waiting = [onnx.load(folder / OPTIMIZED, load_external_data=False).graph]
    while waiting:
        for node in waiting.pop().node:
            nodes[node.name] = Node(node.op_type, (*(name for name in node.output if name), node.name))
            waiting += graphs_of(node)
    return nodes


# -- GPUs ------------------------------------------------------------------------------------------------------


def on_device(module: Module, inputs: Mapping[str, Any], rounds: int, warmup: int) -> tuple[list[Run], dict[str, Node]]:
    """The runs of a module's kernels on this machine's GPU, each with the device's times."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    from irc.driver.benchmarking import compiled_calls

    call, functions = compiled_calls(module, inputs, "cuda")
    launches = {(function.name, operation.results[0].name): functions[operation.attributes["name"]]
                for function in module.functions.values() for operation in function.walk()
                if operation.name == "kernel" and operation.attributes["name"] in functions}  # fmt: skip
    for _ in range(warmup + 1):
        call()
    runs: list[Run] = []
    for number in range(rounds + 1):
        torch.cuda.synchronize()
        activities = [ProfilerActivity.CUDA]
        with stage("profile", f"run {number} of {rounds}"), torch_profile(activities=activities) as recorded:
            call()
            torch.cuda.synchronize()
        times = {event.key: event.self_device_time_total for event in recorded.key_averages()}
        runs.append(Run(sum(times.values()), times))
    del runs[0]  # the first also starts the profiler
    return runs, device_nodes({name: None for run in runs for name in run.nodes}, launches)


def device_nodes(names: Iterable[str], launches: Mapping[tuple[str, str], str]) -> dict[str, Node]:
    """The kernels of a program by the names of their Triton functions, with the values that they compute; others are of
    libraries. `launches` has the Triton function that computes each value, by its function and name."""
    values: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for value, kernel in launches.items():
        values[kernel].append(value)
    nodes: dict[str, Node] = {}
    for name in names:
        function = values[name][0][0] if name in values else ""
        same = tuple(value for owner, value in values.get(name, ()) if owner == function)
        nodes[name] = Node(name if name in values else "library", same, function)
    return nodes
