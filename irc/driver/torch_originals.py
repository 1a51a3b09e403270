"""Original PyTorch programs: the exported program, run by PyTorch operation by operation."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import ConstantArgument, SymIntArgument

from irc import dtypes
from irc.diagnostics import fail
from irc.driver.arrays import Arrays
from irc.driver.original import Original
from irc.dtypes import DType
from irc.frontends.torch.exporting import quiet
from irc.frontends.torch.importer import argument_names
from irc.frontends.torch.parameters import example_inputs
from irc.frontends.torch.programs import ImportableProgram
from irc.frontends.torch.signatures import given_results
from irc.frontends.torch.tensors import element_type, to_array
from irc.module import Module
from irc.stages import stage
from irc.torch_arrays import to_tensor
from irc.verifier import verify


class Recorder(torch.fx.Interpreter):  # type: ignore[misc]
    """Runs a graph and records the value of each node by its name."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, node: torch.fx.Node) -> Any:
        self.values[node.name] = super().run_node(node)
        return self.values[node.name]


class TorchOriginal(Original):
    """An exported program, and its decomposition into the operations that irc reads."""

    def __init__(self, importable: ImportableProgram, name: str) -> None:
        self.importable, self.name = importable, name
        self.program, self.functional = importable.exported, importable.functional

    @classmethod
    def exported(cls, source: Any, more: Sequence[Any], name: str) -> TorchOriginal:
        """From the arguments of `from_torch`: a program, and optionally inputs, dynamic shapes and keyword inputs."""
        given: list[Any] = [*more, None, None, None]
        args, shapes, kwargs = given[:3]
        positional, named = example_inputs(args, kwargs)
        return cls(ImportableProgram.of(source, positional, named, shapes), name)

    @cached_property
    def imported(self) -> tuple[Module, dict[str, str]]:
        """The imported module, and the names of its values by those of nodes."""
        module, names = self.importable.module_and_values(self.name)
        verify(module)
        return module, names

    @property
    def declared(self) -> dict[str, DType]:
        values = {node.name: node.meta["val"] for node in self.functional.graph.nodes if node.op == "placeholder"}
        return {name: dtypes.I64 if isinstance(values[placeholder], torch.SymInt)
                else element_type(values[placeholder].dtype)
                for placeholder, name in argument_names(self.functional.graph_signature).items()}  # fmt: skip

    def module(self) -> Module:
        return self.imported[0]

    @property
    def items(self) -> list[Any]:
        return [node.name for node in self.functional.graph.nodes if node.op == "call_function"]

    @cached_property
    def values(self) -> dict[str, Any]:
        """The value of each node in a run."""
        signature = self.functional.graph_signature
        held = {**self.functional.constants, **self.functional.state_dict}
        names, arguments = argument_names(signature), list[Any]()
        for spec in signature.input_specs:
            array = self.inputs.get(names.get(spec.arg.name, ""))
            if array is not None and isinstance(spec.arg, SymIntArgument):
                arguments.append(int(array))
            elif array is not None:
                arguments.append(to_tensor(np.array(array), dtypes.from_numpy(np.asarray(array).dtype)))
            else:
                arguments.append(spec.arg.value if isinstance(spec.arg, ConstantArgument) else held[spec.target])
        recorder = Recorder(self.functional.graph_module)
        with stage("run in PyTorch"), torch.no_grad(), quiet(), as_torch_failed():
            recorder.run(*arguments)
        return recorder.values

    def outputs(self) -> list[Any]:
        return [as_array(self.values[spec.arg.name]) for spec in given_results(self.functional.graph_signature)]

    def values_by_name(self) -> Arrays:
        names = self.imported[1]
        return {names[node]: to_array(value) for node, value in self.values.items()
                if node in names and isinstance(value, torch.Tensor)}  # fmt: skip

    def part(self, items: Collection[Any]) -> TorchOriginal:
        graph, copies = torch.fx.Graph(), {}
        nodes = [node for node in self.functional.graph.nodes if node.name in items]
        # The selection of one of several results belongs to the operation that returns them.
        chosen = {node for node in nodes if node.target is not operator.getitem or node.args[0] in nodes}
        captured: list[torch.fx.Node] = []

        def read(node: torch.fx.Node) -> Any:
            if node not in copies:
                value = self.values[node.name]
                if node.op == "get_attr":
                    copies[node] = graph.node_copy(node)
                elif isinstance(value, torch.Tensor):
                    captured.append(node)
                    copies[node] = graph.placeholder(node.name)
                elif isinstance(value, (int, float, bool)):
                    return value
                else:
                    raise fail("extract.not_computed", f"{node.name} is not a tensor")
            return copies[node]

        ordered = [node for node in nodes if node in chosen]
        for outside in dict.fromkeys(each for node in ordered for each in node.all_input_nodes if each not in chosen):
            read(outside)  # placeholders come first
        for node in ordered:
            copies[node] = graph.node_copy(node, read)
        leaves = [node for node in ordered if not node.users or any(user not in chosen for user in node.users)]
        graph.output(tuple(copies[node] for node in leaves if isinstance(self.values[node.name], torch.Tensor)))
        module = torch.fx.GraphModule(self.functional.graph_module, graph)
        tensors = [self.values[node.name] for node in captured]
        original = TorchOriginal.exported(module, (tuple(tensors),), self.name)
        original.inputs = dict(zip(original.declared, map(to_array, tensors), strict=True))
        return original

    def save(self, folder: Path) -> str:
        torch.export.save(self.program, folder / "program.pt2")
        return "program.pt2"


@contextmanager
def as_torch_failed() -> Iterator[None]:
    """Raise `backend.failed` for any exception of PyTorch."""
    try:
        yield
    except Exception as error:
        raise fail(
            "backend.failed",
            f"PyTorch fails in the program: {type(error).__name__}",
            notes=[line for line in str(error).splitlines() if line.strip()][:6],
        ) from error


def as_array(value: Any) -> Any:
    return to_array(value) if isinstance(value, torch.Tensor) else np.asarray(value)
