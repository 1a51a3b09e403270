"""Is every step linear? `python -m tests.benchmarks.scaling` prints CPU seconds for programs of two sizes, and ratios.

First a chain of 10,000 and of 100,000 operations that alternates additions, products and negations, so that nothing
folds away; the ratio of a linear step is about 10. Parsing and building 100,000 together should stay under 20 s.
Inserting INSERTED operations at one place takes as long in a long block as in a short one: the ratio is about 1.
Then generated ONNX models from `tests/chains.py`, each imported, through the passes of PASSES, and emitted; fusing
gets models a tenth as long. Python's garbage collector is off: which step a full collection falls on is chance.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

import irc
from irc.backends.onnx import emit
from irc.driver.pipelines import parse_pipeline
from irc.frontends.onnx import from_model
from irc.module import Module
from irc.op import Builder, trace
from irc.ops import add, mul, neg
from irc.parser import parse
from irc.pass_manager import PassContext, PassManager
from irc.verifier import verify
from tests import chains
from tests.onnx_models import NO_FOLDER

INSERTED = 400
PASSES = ("canonicalize", "fold", "cse", "raise", "dce")
NODES = {  # of ONNX at each stage, about
    "pointwise": 1, "reductions": 2, "SAME pools": 30, "nested branches": 2, "branches with sizes": 63,
    "wide concatenation": 1, "joined inputs": 1, "summed inputs": 1,
    "transformer": 40,
}  # fmt: skip
DEEPEST = 24  # graphs in graphs: protobuf takes 100 messages in messages


def chain(length: int) -> Module:
    def body(x, y):  # type: ignore[no-untyped-def]
        for index in range(length):
            x = neg(x) if index % 3 == 2 else (add, mul)[index % 3](x, y)
        return x

    return trace(body, "f32[B, 8]", "f32[8]")


def insertions(length: int) -> float:
    """Seconds to insert INSERTED operations before one in the middle of a chain."""
    block = chain(length).main.block
    operations = list(block)
    middle, x = operations[length // 2], operations[0].result
    start = time.process_time()
    with Builder(block, middle):
        for _ in range(INSERTED):
            neg(x)
    return time.process_time() - start


def measure(length: int) -> dict[str, float]:
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], object]) -> object:
        start = time.process_time()
        result = step()
        seconds[name] = time.process_time() - start
        return result

    module = timed("build", lambda: chain(length))
    assert isinstance(module, Module)
    text = timed("print", lambda: str(module))
    parsed = timed("parse", lambda: parse(str(text)))
    assert isinstance(parsed, Module)
    timed("verify", lambda: verify(parsed))
    for name in ("canonicalize", "cse", "dce"):
        timed(name, lambda name=name: PassManager(parse_pipeline(name), PassContext()).run(parsed))  # type: ignore[misc]
    return seconds


def measure_model(name: str, nodes: int, fuses: bool) -> dict[str, float]:
    """Seconds of each step for a model of about so many nodes."""
    proto = {**chains.SIZES, **chains.STRUCTURE}[name](max(nodes // NODES[name], 1))
    gc.collect()  # the model before
    seconds: dict[str, float] = {}
    start = time.process_time()
    module = from_model(proto, NO_FOLDER)
    seconds["import"] = time.process_time() - start
    for step in ("fuse",) if fuses else PASSES:
        start = time.process_time()
        PassManager(parse_pipeline(step), PassContext()).run(module)
        seconds[step] = time.process_time() - start
    if not fuses:
        start = time.process_time()
        emit(module)
        seconds["emit"] = time.process_time() - start
    return seconds


def print_table(title: str, sizes: tuple[int, int], small: dict[str, float], large: dict[str, float]) -> None:
    print(f"{title:20}{sizes[0]:>10,}{sizes[1]:>12,}   ratio")
    for name, seconds in small.items():
        print(f"{name:20}{seconds:>9.2f}s{large[name]:>11.2f}s{large[name] / max(seconds, 1e-9):>8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--only", help="one of: chain, " + ", ".join(NODES))
    options = parser.parse_args()
    gc.disable()
    sizes = options.small, options.large
    print(f"irc {irc.__version__}")
    if options.only in (None, "chain"):
        measure_chain(*sizes)
    for name in NODES if options.only is None else [options.only] if options.only in NODES else []:
        few, many = (min(size, DEEPEST * NODES[name]) if name == "nested branches" else size for size in sizes)
        for title, fuses, length in (("", False, (few, many)), (", fused", True, (few // 10, many // 10))):
            small, large = (measure_model(name, size, fuses) for size in length)
            print_table(name + title, length, small, large)


def measure_chain(few: int, many: int) -> None:
    small, large = measure(few), measure(many)
    print_table("chain", (few, many), small, large)
    before, after = insertions(few), insertions(many)
    print(f"{f'insert {INSERTED}':20}{before:>9.4f}s{after:>11.4f}s{after / before:>8.1f}")
    print(f"parse and build {many:,}: {large['parse'] + large['build']:.1f} s")


if __name__ == "__main__":
    main()
