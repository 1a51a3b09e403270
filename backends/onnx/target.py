"""Targets: which operators a model may use, and so which operations are emitted whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

from irc.backends.onnx.runtime import LOWEST_OPSET, newest_opset
from irc.diagnostics import fail
from irc.ir import EdgeCases, Operation
from irc.op import OperationDefinition

TARGETS = ("portable", "cpu")


@dataclass(frozen=True)
class Target:
    """Where a model is to run.

    portable: operators of the default domain only. cpu: also what ONNX Runtime's CPU provider runs fastest, such
    as Attention and operators of com.microsoft. The opset is the lowest from 21 on that has all operators used.
    edge_cases: those of the module, which the emitter sets. Where they are "defined" and ONNX Runtime does something
    else, rows emit further nodes: docs/numerics.md lists them. without: operators that the opset rules out.
    """

    name: str = "portable"
    edge_cases: EdgeCases = "defined"
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.name not in TARGETS:
            raise fail("usage.backend", f"the onnx backend has no target `{self.name}`", expected=" or ".join(TARGETS))

    @property
    def newest_opset(self) -> int:
        """The newest opset that may be used."""
        return newest_opset()

    @property
    def keeps_edges(self) -> bool:
        """Whether results at the edges of operations must be those that irc defines."""
        return self.edge_cases == "defined"

    def takes(self, operation: Operation, edge_cases: EdgeCases = "defined") -> bool:
        """Whether the operation is emitted whole, rather than by its body."""
        from irc.backends.onnx.table import ROWS

        row = ROWS.get(operation.name)
        return row is not None and row.applies(operation, replace(self, edge_cases=edge_cases))

    def raises(self, definition: OperationDefinition) -> bool:
        """Whether a subgraph is replaced by the operation that it spells out. A portable model keeps the subgraph where
        the operator would need a newer opset than it needs so far."""
        from irc.backends.onnx.table import ROWS

        row = ROWS.get(definition.name)
        return self.name == "cpu" or row is None or row.opset <= LOWEST_OPSET
