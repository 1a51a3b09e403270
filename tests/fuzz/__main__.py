"""python -m tests.fuzz: random programs on every path; exit status 1 where one is different.

    python -m tests.fuzz --seed 3 --count 1000 --jobs 2 --save /tmp/failures
    python -m tests.fuzz --seed 3 --seconds 600
    python -m tests.fuzz --seed 3 --kind torch --only 1234 --print

Program N of a seed is of ONNX where N is even and of PyTorch where it is odd, unless --kind says which.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.features import ALL, OFF, chosen
from tests.fuzz.running import KINDS, Job, Result, commands, program_of, run_all, run_job


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--kind", choices=["both", *KINDS], default="both", help="which programs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="the number of the first program")
    parser.add_argument("--count", type=int, help="how many programs (default 100, or as --seconds allow)")
    parser.add_argument("--seconds", type=float, help="stop after so many")
    parser.add_argument("--only", type=int, metavar="N", help="program N alone, in this process")
    parser.add_argument("--print", action="store_true", help="with --only: print the program")
    parser.add_argument("--save", type=Path, metavar="DIR", help="where programs that fail are written")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    names = ", ".join(sorted(ALL))
    parser.add_argument("--features", type=chosen, default="default",
                        help=f"all, or names with commas between, -NAME to leave one out: {names}")  # fmt: skip
    return parser.parse_args(arguments)


def jobs_of(options: argparse.Namespace) -> Iterator[Job]:
    """The requested programs, within the time limit."""
    started = time.monotonic()
    count = options.count if options.count is not None else 100 if options.seconds is None else sys.maxsize
    for index in range(options.start, options.start + count):
        if options.seconds is not None and time.monotonic() - started > options.seconds:
            return
        kind = KINDS[index % 2] if options.kind == "both" else options.kind
        yield Job(kind, options.seed, index, options.features)


def report(result: Result) -> None:
    for outcome in result.failures:
        print(f"{result.job.name}: {outcome}", flush=True)
    for command in commands(result):
        print(f"    {command}", flush=True)


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    for feature in OFF.keys() - options.features:
        print(f"off: {feature}: {OFF[feature]}")
    if options.only is not None:
        kind = KINDS[options.only % 2] if options.kind == "both" else options.kind
        job = Job(kind, options.seed, options.only, options.features)
        if options.print:
            print(program_of(job).text)
        results = iter([run_job(job, options.save)])
    else:
        results = run_all(jobs_of(options), options.jobs, options.save)
    failed, done, compared, elements, started = [], 0, 0, 0, time.monotonic()
    unsupported: Counter[str] = Counter()
    for result in results:
        done, compared, elements = done + 1, compared + result.compared, elements + result.elements
        unsupported.update(
            f"{outcome.path}: {outcome.text[:100]}" for outcome in result.outcomes if not outcome.is_failure
        )
        if result.failures:
            failed.append(result)
            report(result)
        if done % 100 == 0:
            print(f"... {done} programs, {len(failed)} failed, {time.monotonic() - started:.0f} s", flush=True)
    for said, times in unsupported.most_common():
        print(f"unsupported {times}x {said}")
    for (path, how), times in Counter((o.path, o.kind) for r in failed for o in r.failures).most_common():
        print(f"{path}: {how} {times}x")
    share = f"{compared / elements:.2%} of {elements} elements compared" if elements else "nothing compared"
    print(f"{done} programs, {len(failed)} failed, {share}, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
