"""The PyTorch frontend: modules, exported programs and `.pt2` files become a module with one function, `@main`.

`exporting` converts a program to the form that `importer` reads, node by node, by the rows of the ATen table:
`pointwise`, `reduction`, `view`, `indexing`, `linear`, `normalization`, `recurrent` and `symbolic`. Adding an operation
is one row. `control` reads what has graphs inside: `torch.cond`, loops and scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from irc.module import Module

__all__ = ["from_torch"]


def from_torch(source: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, *,
               dynamic_shapes: Any = None, name: str | None = None) -> Module:
    """Read a PyTorch program: a torch.nn.Module, a GraphModule, a function of tensors, or an ExportedProgram.

    `args`, `kwargs` and `dynamic_shapes` are those of `torch.export.export`; an ExportedProgram needs none. Constants
    share memory with the parameters, and are not read once these are written to (`weights.changed`). Buffers that the
    program writes become inputs, and what it writes further results, called NAME.updated.
    Raises `torch.export` where PyTorch cannot export the program, and `torch.unsupported`, which lists all operations
    that irc cannot read.
    """
    from irc.frontends.torch.programs import ImportableProgram

    return ImportableProgram.of(source, args, kwargs, dynamic_shapes).module(name or type(source).__name__)
