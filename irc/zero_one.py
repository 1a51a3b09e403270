"""0/1 programs, which HiGHS solves through SciPy (`pip install "irc-compiler[exact]"`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from irc.diagnostics import fail

TIME_LIMIT = 1  # the status of results of scipy.optimize.milp that a limit of time ended

Constraint = tuple[dict[int, float], float]  # weights by variable, and the least that their sum has to be


def solved(costs: Sequence[float], constraints: Sequence[Constraint], deadline: float) -> tuple[list[int], float]:
    """The variables that are 1 where the sum of costs is least, and the relative gap to the least that is possible,
    which is above 0 where the solver ended at `deadline` of time.monotonic().

    Raises `install.missing_extra` without SciPy, `planner.size` where the deadline comes before any solution, and
    `planner.result` where there is none.
    """
    try:
        import numpy as np
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_matrix
    except ImportError:
        raise fail("install.missing_extra", "the planner exact needs scipy, which is not installed",
                   help='pip install "irc-compiler[exact]"') from None  # fmt: skip
    places = [(row, column, weight) for row, (weights, _) in enumerate(constraints)
              for column, weight in weights.items()]  # fmt: skip
    data: Any = ([weight for *_, weight in places], ([row for row, *_ in places], [column for _, column, _ in places]))
    matrix = csr_matrix(data, shape=(len(constraints), len(costs)))
    limit = max(deadline - time.monotonic(), 1e-3)
    result = milp(np.array(costs), constraints=LinearConstraint(matrix, lb=[least for _, least in constraints]),
                  integrality=np.ones(len(costs)), bounds=Bounds(0, 1),
                  options={"time_limit": limit, "mip_rel_gap": 1e-9})  # fmt: skip
    help = "take the planner beam or anneal"
    if result.x is None and result.status == TIME_LIMIT:
        raise fail("planner.size", "the solver found no plan in its time", help=help)
    if result.x is None:
        raise fail("planner.result", f"the solver found no plan: {result.message}",
                   expected="kernels that compute all results", help=help)  # fmt: skip
    gap = 0.0 if result.status == 0 else float(result.mip_gap)
    return [index for index, value in enumerate(result.x) if value > 0.5], gap
