"""Kernels: what one launch computes, as a scalar DAG over named axes.

    kernel = derive(members)                   # raises LegalityFailure
    kernel = kernel_of(operation)              # of a `kernel` operation, with the schedule that it states
    kernel.inputs, kernel.outputs              # Values read from outside, Values stored; in order of the members
    kernel.kind                                # "pointwise", "reduction", "scan" or "product"
    kernel.parallel, kernel.bound              # its axes: those of the results, and those that are reduced
    kernel.across                              # and those of rows that are reduced across, beside reductions of each
    kernel.numerics                            # "exact", or "keeps_more_precision": roundings are skipped, or elsewhere
    kernel.recomputes_reduction                # only with derive(..., recompute=True)
    kernel.looped                              # whether a row does not fit in registers, so that it is read again
    kernel.schedule.nest                       # scopes that `count` and every emitter walk
    count(kernel, {symbol: size, ...})         # Bytes(distinct_bytes, loaded_bytes, flops, programs, exact)

`derive(members, *, outputs=None, recompute=False, expansion=None, options=NO_OPTIONS)`: `members` are operations of one
block, in any order: pointwise, view, reduction and scan primitives, `gather`, scalar constants (those may stand in a
block around it), and named operations whose bodies are made of these (they are traced through `definition.body`).
Inputs are operands defined outside the group; `outputs`, unless given, are the results used by an operation outside of
it, a terminator included, in order of the members: so the operations of a `kernel` region (less its `yield`) give the
same kernel again. An `Expansion` of the block shares the copies of primitives among the groups that are tried on it.
`options` are stated of the schedule (`irc.schedule_options`).

`LegalityFailure(rule, message, values)`, such as ("F6", ...), is an exception; `values` is a tuple of the values that
its message mentions. It is no IrcError, since planners catch it and try other groups; `failure.error(location)` gives
the IrcError to report. The rules are in `irc.kernel.rules`. A `derive` costs about a millisecond.
"""

from __future__ import annotations

from irc.kernel.derivation import Kernel, derive, kernel_of
from irc.kernel.failure import LegalityFailure
from irc.kernel.nest import Accumulate, Carry, Loop, Placed, Schedule, Scope, Tile
from irc.kernel.steps import Expansion, members_of
from irc.kernel.traces import Traces
from irc.kernel.traffic import Bytes, count

__all__ = ["Accumulate", "Bytes", "Carry", "Expansion", "Kernel", "LegalityFailure", "Loop", "Placed", "Schedule",
           "Scope", "Tile", "Traces", "count", "derive", "kernel_of", "members_of"]  # fmt: skip
