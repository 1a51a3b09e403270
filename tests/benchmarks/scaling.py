"""Is every step linear? `python tests/benchmarks/scaling.py` prints seconds for chains of 10,000 and 100,000 ops.

The chain alternates additions, products and negations, so that nothing folds away; the ratio of a linear step is
about 10. Parsing and building 100,000 together should stay under 20 s. Inserting INSERTED operations at one place takes
as long in a long block as in a short one: the ratio is about 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import irc
from irc.driver.pipelines import parse_pipeline
from irc.ir import Module
from irc.op import Builder, trace
from irc.ops import add, mul, neg
from irc.parser import parse
from irc.pass_manager import PassContext, PassManager
from irc.verifier import verify

INSERTED = 400


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
    start = time.perf_counter()
    with Builder(block, middle):
        for _ in range(INSERTED):
            neg(x)
    return time.perf_counter() - start


def measure(length: int) -> dict[str, float]:
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = step()
        seconds[name] = time.perf_counter() - start
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    sizes = parser.parse_args()
    print(f"irc {irc.__version__}")
    small, large = measure(sizes.small), measure(sizes.large)
    print(f"{'':14}{sizes.small:>10,}{sizes.large:>12,}   ratio")
    for name in small:
        print(f"{name:14}{small[name]:>9.2f}s{large[name]:>11.2f}s{large[name] / small[name]:>8.1f}")
    few, many = insertions(sizes.small), insertions(sizes.large)
    print(f"{f'insert {INSERTED}':14}{few:>9.4f}s{many:>11.4f}s{many / few:>8.1f}")
    print(f"parse and build {sizes.large:,}: {large['parse'] + large['build']:.1f} s")


if __name__ == "__main__":
    main()
