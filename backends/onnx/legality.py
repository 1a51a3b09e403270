"""Legality of operations for a target: which are emitted as operators of ONNX, rather than by their bodies.

The table of rows is imported when a target is first asked, since it imports onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from irc.backends.onnx.runtime import WRITTEN_OPSET
from irc.backends.onnx.target import Target
from irc.ir import Operation
from irc.module import EdgeCases
from irc.op import OperationDefinition


class RowTarget(Target):
    """A target that decides by the table of rows, for the passes `legalize` and `raise`."""

    def takes(self, operation: Operation, edge_cases: EdgeCases = "defined") -> bool:
        """Whether the operation is emitted by its row, rather than by its body."""
        from irc.backends.onnx.table import ROWS

        row = ROWS.get(operation.name)
        return row is not None and row.applies(operation, replace(self, edge_cases=edge_cases))

    def calls(self, operation: Operation) -> bool:
        """Whether ONNX Runtime computes the operation."""
        return self.takes(operation)

    def raises(self, definition: OperationDefinition) -> bool:
        """Whether a subgraph is replaced by the operation that computes the same. A portable model keeps the subgraph
        where the operator would need a newer opset than the model needs so far."""
        from irc.backends.onnx.table import ROWS

        row = ROWS.get(definition.name)
        return self.name == "cpu" or row is None or row.opset <= (self.opset or WRITTEN_OPSET)

    def pays(self, rewrite: str, operations: Sequence[Operation], replacements: Sequence[Operation] = ()) -> bool:
        """Whether ONNX Runtime is faster after a rewrite; a portable model is for other runtimes, too."""
        from irc.backends.onnx.gains import gains
        from irc.kernel_costs import find_costs

        table = self.costs or find_costs()
        return self.name == "cpu" and gains(rewrite, operations, table, dict(self.sizes), replacements)
