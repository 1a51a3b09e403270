"""How the work of a function grows with the size of what it is given: by calls, or by time where calls hide it."""

from __future__ import annotations

import cProfile
import gc
import time
from collections.abc import Callable
from typing import Any

ATTEMPTS = 5


def calls_of(run: Callable[[], Any]) -> int:
    """How many functions, of Python and of C, are called in a run: the same on any machine."""
    profile = cProfile.Profile()
    profile.runcall(run)
    return sum(entry.callcount for entry in profile.getstats())


def seconds_of(run: Callable[[], Any]) -> float:
    """Seconds of the processor in a run, without the collections of garbage: those take as long as the process has
    objects."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        run()
        return time.process_time() - start
    finally:
        gc.enable()


def assert_linear_time(prepared: Callable[[int], Callable[[], Any]], small: int, large: int, slack: float = 2) -> None:
    """That a run of size `large` takes at most `slack` times as long, for its size, as one of size `small`.

    `prepared` gives the function to run for a size. What else a machine does can only spoil an attempt, so that one
    of several has to hold; time that grows with the square of the size fails in all of them, if `large / small` is
    well above `slack`.
    """
    assert large > 1.5 * slack * small, "a quadratic run would pass"
    prepared(small)()  # what is loaded once
    ratios: list[float] = []
    for _ in range(ATTEMPTS):
        ratios.append(seconds_of(prepared(large)) / seconds_of(prepared(small)))
        if ratios[-1] <= slack * large / small:
            return
    times = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    raise AssertionError(f"{large / small:g} times the size takes {times} times as long")
