"""Targets: which operators of ONNX a model may use, on which element types."""

from __future__ import annotations

from dataclasses import dataclass, replace

from irc.backends.onnx.runtime import KERNELS_SINCE, OLDEST_OPSET, carriers, newest_opset, runs
from irc.diagnostics import fail
from irc.dtypes import DType
from irc.kernel_costs import CostTable
from irc.module import EdgeCases

TARGETS = ("portable", "cpu")


@dataclass(frozen=True)
class Target:
    """Where a model is to run.

    portable: operators of the default domain only. cpu: also what ONNX Runtime's CPU provider runs fastest, such
    as Attention and operators of com.microsoft. The opset, where none is given, is the lowest from 18 on that has all
    operators used, on all element types used. edge_cases: those of the module, which the emitter sets. Where they are
    "defined" and ONNX Runtime does something else, rows emit further nodes: docs/numerics.md lists them. without:
    operators that the opset rules out. costs: times of the runtime's kernels, which say where a rewrite pays,
    at `sizes` of symbols by name; None: the default's.
    """

    name: str = "portable"
    edge_cases: EdgeCases = "defined"
    without: frozenset[str] = frozenset()
    opset: int | None = None
    costs: CostTable | None = None
    sizes: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.name not in TARGETS:
            raise fail("usage.backend", f"the onnx backend has no target `{self.name}`", expected=" or ".join(TARGETS))
        if self.opset is not None and not OLDEST_OPSET <= self.opset <= newest_opset():
            raise fail("usage.backend", f"the onnx backend writes no models of opset {self.opset}",
                       expected=f"{OLDEST_OPSET} to {newest_opset()}")

    @property
    def newest_opset(self) -> int:
        """The newest opset that may be used."""
        return newest_opset() if self.opset is None else self.opset

    def runs(self, op_type: str, dtype: DType) -> bool:
        """Whether ONNX Runtime runs the operator on elements of this type, in the requested opset."""
        from irc.backends.onnx.schemas import takes_type

        if self.opset is None or not runs(op_type, dtype):
            return runs(op_type, dtype)
        return self.opset >= KERNELS_SINCE.get((op_type, dtype.name), 0) and takes_type(op_type, dtype, self.opset)

    def allows(self, op_type: str, dtype: DType, position: int = 0) -> bool:
        """Whether an input of the operator may have elements of this type in the requested opset."""
        from irc.backends.onnx.schemas import takes_type

        return self.opset is None or takes_type(op_type, dtype, self.opset, position)

    def is_before(self, opset: int) -> bool:
        """Whether an older opset than this one is requested."""
        return self.opset is not None and self.opset < opset

    def carrier(self, op_type: str, dtype: DType, *, wraps: bool = False, compares: bool = False) -> DType | None:
        """The type in which to compute the operator exactly (see `carriers`); None where there is none."""
        candidates = carriers(dtype, wraps=wraps, compares=compares)
        return next((candidate for candidate in candidates if self.runs(op_type, candidate)), None)

    def newer_opset(self, op_type: str, *dtypes: DType, **allowed: bool) -> int | None:
        """The first opset, newer than the requested one, in which the operator can be computed on all these types."""
        later = range(self.newest_opset + 1, newest_opset() + 1)
        return next((opset for opset in later
                     if all(replace(self, opset=opset).carrier(op_type, dtype, **allowed) for dtype in dtypes)), None)

    @property
    def keeps_edges(self) -> bool:
        """Whether results at the edges of operations must be those that irc defines."""
        return self.edge_cases == "defined"
