"""Times of functions that are called in turn, so that disturbances of a machine affect all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from irc.stages import stage, step

Call = Callable[[], Any]
Clock = Callable[[], float]


def timed_in_turn(calls: Mapping[str, Call], rounds: int, *, clock: Clock = time.perf_counter, least: float = 5e-3,
                  deadline: float = math.inf) -> dict[str, list[float]]:  # fmt: skip
    """Seconds of a call by name, one for each round; every round begins with another call.

    Calls shorter than `least` seconds are repeated, and each is called once untimed before it is timed: others have
    filled the caches. Rounds end at `deadline` of time.monotonic, but not before the second.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with stage("timing"):
        repeats = {}
        for name, call in calls.items():
            start = clock()
            call()
            repeats[name] = max(1, math.ceil(least / max(clock() - start, 1e-7)))
        names = list(calls)
        for number in range(rounds):
            if number >= 2 and time.monotonic() > deadline:
                break
            step(f"round {number + 1} of {rounds}")
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                call = calls[name]
                call()
                start = clock()
                for _ in range(repeats[name]):
                    call()
                seconds[name].append((clock() - start) / repeats[name])
    return seconds


def ratios(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Of times of the same rounds, first / second: lower quartile, median and upper quartile."""
    each = [a / b for a, b in zip(first, second, strict=True)]
    if len(each) < 2:
        return each[0], each[0], each[0]
    low, middle, high = statistics.quantiles(each, n=4)
    return low, middle, high
