"""What the readers of higher-order operators may use of the importer that calls them.

`irc.frontends.torch.importer` implements the protocol; a reader imports GraphModules by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from irc.ir import Function, Value
from irc.op import Builder


class GraphImporter(Protocol):
    """An import in progress: the function under construction, and where operations are inserted."""

    function: Function
    builder: Builder

    def import_graph(self, module: torch.fx.GraphModule, operands: Sequence[Any]) -> list[Any]:
        """Append the operations of a graph at the builder; returns its outputs."""

    def number(self, example: Any, value: Value, carried: bool = False) -> Any:
        """The value of a symbolic number, or of a tensor, as the importer represents it."""
