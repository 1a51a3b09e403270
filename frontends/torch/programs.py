"""PyTorch programs on their way to the importer: exported, decomposed, and what is known of their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.export import ExportedProgram

from irc.frontends.torch.dynamic_shapes import DynamicShapes
from irc.frontends.torch.exporting import decomposed, exported
from irc.frontends.torch.guards import Guards
from irc.frontends.torch.importer import import_with_values
from irc.frontends.torch.parameters import Parameters
from irc.module import Module


@dataclass(frozen=True)
class ImportableProgram:
    """What PyTorch has exported of a program, `exported`, and `functional`, the same in operations that irc reads,
    without anything done in place; `symbol_names` are the user's names of PyTorch's symbols."""

    exported: ExportedProgram
    functional: ExportedProgram
    parameters: Parameters
    symbol_names: dict[str, str]
    guards: Guards

    @classmethod
    def of(cls, source: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None,
           dynamic_shapes: Any = None) -> ImportableProgram:  # fmt: skip
        """Of the arguments of `from_torch`. Raises what `exported` and `decomposed` raise."""
        program = exported(source, args, kwargs, dynamic_shapes)
        parameters = Parameters.of_program(source, program)
        names = DynamicShapes(parameters, dynamic_shapes).names_of_symbols(program)
        return cls(program, decomposed(program), parameters, names, Guards.of(parameters, program))

    def module(self, name: str) -> Module:
        """The module of this name with the program as its function. Raises `torch.unsupported`."""
        return self.module_and_values(name)[0]

    def module_and_values(self, name: str) -> tuple[Module, dict[str, str]]:
        """The module, and the names of its values by those of the nodes of `functional`."""
        return import_with_values(self.functional, self.symbol_names, name, self.guards)
