"""What the readers of control flow and of operators without a row may use of the importer that calls them.

`irc.frontends.onnx.importer` implements the protocol; a reader imports subgraphs, and nodes of function bodies, by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import onnx

from irc.frontends.onnx.scope import Imported, Scope
from irc.frontends.onnx.structure import Structure
from irc.ir import Function
from irc.op import Builder
from irc.shape_analysis import ShapeAnalysis


class GraphImporter(Protocol):
    """An import in progress.

    function: the function under construction; builder: where operations are inserted.
    opsets: the version of each domain. structure: locations of nodes. analysis: known elements of values.
    declared: the types that the graphs state of their values.
    unsupported: operator, node and reason of each node that cannot be read.
    """

    model: onnx.ModelProto
    function: Function
    builder: Builder
    opsets: dict[str, int]
    structure: Structure
    analysis: ShapeAnalysis
    declared: dict[str, onnx.TypeProto]
    unsupported: list[tuple[str, str, str]]

    def import_graph(self, graph: onnx.GraphProto, path: tuple[str, ...], scope: Scope) -> list[Imported]:
        """Append a graph's constants and nodes at the builder; returns its outputs. `path` as in OnnxConstant."""

    def import_node(self, node: onnx.NodeProto, path: tuple[str, ...], scope: Scope) -> None:
        """Read one node and bind its outputs; `path` ends with its number."""

    def read_row(self, node: onnx.NodeProto, operands: Sequence[Any]) -> Sequence[Imported]:
        """The results of a node by its operator's row, or as an `extern`."""

    def attribute(self, proto: onnx.AttributeProto, node: onnx.NodeProto) -> tuple[str, Any]:
        """The kind and the value of an attribute; None for a kind that no row accepts."""
