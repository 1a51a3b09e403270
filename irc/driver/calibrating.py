"""`irc calibrate`: times of ONNX Runtime's kernels on this machine's CPU, as a cost table for `--costs`.

A kind of kernel at a size is measured by two models, of one node and of several that are alike: the difference of
their times is that of nodes, without what a run takes besides. Times are CPU time of one thread, the least of several.
"""

from __future__ import annotations

import itertools
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from irc.diagnostics import IrcError, Location, fail
from irc.driver.calibrated import KINDS, MICROSOFT, NCHWC, Kind, Node
from irc.driver.running import as_backend_failed
from irc.files import check_file, guarded, replacing
from irc.kernel_costs import SCHEMA
from irc.onnx_runtime import onnx_runtime, start_session

NODES = 9  # in the larger of two models
LEAST_SECONDS = 1e-3  # of one timing; shorter runs are repeated
TIMINGS = 5
LEAST = 1e-8  # a node takes longer than this, whatever the clock says
OPSET = 24
VECTORS = ("avx512f", "avx2", "asimd", "neon")


@dataclass(frozen=True)
class CalibrationReport:
    """The file that was written, the machine, and how many kinds and sizes were measured, in how many seconds."""

    output: str
    machine: str
    kinds: int
    points: int
    seconds: float
    failures: Mapping[str, str]
    schema: str = "irc.calibrate/1"


@guarded()
def calibrate(output: str | Path, *, kinds: tuple[str, ...] = (), runs: int = 1, title: str | None = None,
              progress: Callable[[str], None] | None = None) -> CalibrationReport:  # fmt: skip
    """Measure kernels of ONNX Runtime on this machine and write the cost table, which takes one to two minutes a run.

    `kinds` are those to be measured, with the kinds that a table needs; by default all. Of several `runs` the least
    times are taken: other work of the machine makes those of one larger. `title` describes the machine, in place of
    what the system says. A kind that this version of ONNX Runtime has not is left out, and reported.
    Raises `usage.arguments` for an unknown kind, `usage.value` for no runs, `file.exists` and `file.missing`.
    """
    start, path = time.perf_counter(), Path(output)
    if path.is_dir() or not path.parent.is_dir():  # said before a minute has passed
        raise fail("file.exists" if path.is_dir() else "file.missing", f"{path} is not the place of a file",
                   at=Location(file=str(path)), expected="a file in a folder that exists")  # fmt: skip
    check_file(path)
    for name in kinds:
        if name not in KINDS:
            raise fail("usage.arguments", f"there is no kind of kernel `{name}`", expected=", ".join(KINDS))
    if runs < 1:
        raise fail("usage.value", f"{runs} runs measure nothing", expected="1 or more")
    chosen = [kind for kind in KINDS.values() if not kinds or kind.name in (*kinds, "Reshape")]
    grids, failures = {}, {}
    for kind in chosen:
        if progress is not None:
            progress(kind.name)
        try:
            with as_backend_failed():
                timed = [seconds_of_kind(kind) for _ in range(runs)]
        except IrcError as error:
            if error.code != "backend.failed":
                raise
            failures[kind.name] = str(error)
            continue
        least = map(min, zip(*timed, strict=True))
        grids[kind.name] = {"axes": kind.axes, "seconds": [float(f"{each:.3g}") for each in least]}
    machine = title or machine_title()
    method = (f"Measured by irc calibrate with onnxruntime {version('onnxruntime')}: CPU time of one thread, of a node "
            f"among {NODES} alike, the least of {TIMINGS} timings.")  # fmt: skip
    with replacing(path) as file:
        file.write(as_text(machine, method, grids).encode())
    count = sum(len(grid["seconds"]) for grid in grids.values())
    return CalibrationReport(str(output), machine, len(grids), count, time.perf_counter() - start, failures)


def seconds_of_kind(kind: Kind) -> list[float]:
    """Those of a node at each point of the grid, the last axis varying fastest."""
    sizes = (dict(zip(kind.axes, point, strict=True)) for point in itertools.product(*kind.axes.values()))
    return [seconds_of(kind.node(**each)) for each in sizes]


def as_text(machine: str, method: str, grids: Mapping[str, Any]) -> str:
    """The JSON of a cost table, a line for each kind."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(grid)}" for name, grid in grids.items())
    head = f'{{"schema": {json.dumps(SCHEMA)},\n "machine": {json.dumps(machine)},\n "method": {json.dumps(method)},'
    return f'{head}\n "kernels": {{\n{lines}\n }}}}\n'


def machine_title() -> str:
    """The processor by the name that the system has for it, and its widest vectors that matter here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    facts = {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    vectors = next((name for name in VECTORS if name in flags), platform.machine())
    return f"{facts.get('model name') or platform.processor() or platform.machine()} ({vectors})"


def seconds_of(node: Node) -> float:
    """CPU seconds of one node of a model, with its node back if it has one. Raises what ONNX Runtime raises."""
    one, several = runner(node, 1), runner(node, NODES)
    alone = timing(several, 1)
    repeats = max(1, min(1000, round(LEAST_SECONDS / max(alone, 1e-7))))
    timings = 2 if alone > 20 * LEAST_SECONDS else TIMINGS
    pairs = [(timing(one, repeats), timing(several, repeats)) for _ in range(timings)]
    of_one: float = min(first for first, _ in pairs)
    of_several: float = min(second for _, second in pairs)
    return max((of_several - of_one) / (NODES - 1), LEAST)


def timing(run: Callable[[], Any], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def runner(node: Node, count: int) -> Callable[[], Any]:
    """A run of a model of so many nodes, on random inputs, on one thread."""
    import numpy as np

    onnxruntime = onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    # Only a chain is optimized, for its layout: of nodes that are alike one would be left.
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if node.chain else levels.ORT_DISABLE_ALL
    model = model_of(node, count).SerializeToString()
    session = start_session(model, options)
    binding, generator = session.io_binding(), np.random.default_rng(0)
    for info in session.get_inputs():
        array = generator.random(info.shape, np.float32)
        binding.bind_ortvalue_input(info.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for info in session.get_outputs():
        binding.bind_output(info.name)
    session.run_with_iobinding(binding)
    return lambda: session.run_with_iobinding(binding)


def model_of(node: Node, count: int) -> Any:
    """An ONNX model of nodes that are alike: one after the other, or each of the same inputs."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    inputs = [helper.make_tensor_value_info(f"x{index}", TensorProto.FLOAT, shape)
              for index, shape in enumerate(node.inputs)]  # fmt: skip
    names, nodes = [info.name for info in inputs], []
    constants, outputs = dict[str, TensorProto](), list[str]()
    for index in range(count):
        for part, arrays in enumerate((node.constants, node.back) if node.back else (node.constants,)):
            suffix = f"_{index}_{part}" if node.back else ""
            stored = {f"c{number}{suffix}": array for number, array in enumerate(arrays)}
            for name, array in stored.items():
                if name not in constants:  # rolled, since the runtime makes one of constants whose elements are equal
                    constants[name] = numpy_helper.from_array(np.roll(np.asarray(array), 2 * index + part), name)
            results = [f"y{index}_{part}_{number}" for number in range(node.outputs)]
            nodes.append(helper.make_node(node.op_type, [*names, *stored], results,
                                          domain=node.domain, **node.attributes))  # fmt: skip
            names, outputs = (results, results) if node.chain else (names, [*outputs, *results])
    infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(nodes, "kernels", inputs, infos, list(constants.values()))
    opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in (MICROSOFT, NCHWC))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)
