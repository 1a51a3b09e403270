"""What the functions of a program share while it is written: names, weights, kernels, and problems."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace

from irc.backends.triton.bundles import Bundle
from irc.backends.triton.helpers import helper_sources
from irc.backends.triton.naming import kernel_name
from irc.backends.triton.program import Launched, Program
from irc.backends.triton.source import KernelSource, content
from irc.backends.triton.text import Names
from irc.backends.triton.writing import write_kernel
from irc.diagnostics import Diagnostic
from irc.ir import Operation, Value
from irc.kernel import Kernel, members_of
from irc.module import Module
from irc.weights import Tensor

BUILTINS = frozenset({"weights", "externs", "device", "host", "kernels", "aten", "drawing", "strings", "torch",
                      "launch", "launch_bundle", "member", "Each", "Grid", "Loop", "Whole", "check", "check_dim",
                      "refine", "bcast", "empty", "nonzero"})  # fmt: skip


class ProgramBuilder:
    """A program under construction.

    functions: by names of the module's functions, their names in Python. problems: what PyTorch lacks.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.program = Program()
        self.kernel_names = Names({"triton", "tl", *helper_sources()})  # all stand in kernels.py
        self.function_names = Names({*BUILTINS, "main"})
        self.extern_names = Names()  # files are called by them
        self.functions = {
            name: "main" if function is module.main else self.function_names.fresh(name, "function")
            for name, function in module.functions.items()
        }
        self.problems: list[Diagnostic] = []
        self.launched: dict[Hashable, Launched] = {}

    def weight(self, tensor: Tensor, hint: str) -> str:
        """The name of a constant among the weights."""
        name = tensor.name or f"const.{hint}"
        count = 1
        while name in self.program.weights and self.program.weights[name] != tensor.renamed(name):
            count += 1
            name = f"{tensor.name or f'const.{hint}'}.{count}"
        self.program.weights[name] = tensor.renamed(name)
        return name

    def module_of(self, name: str) -> str:
        """The name of a template, which the program then imports."""
        self.program.modules |= {name} - {"host"}
        return name

    def kernel(self, kernel: Kernel, operation: Operation, labels: Mapping[Value, str],
               is_bundled: bool = False) -> KernelSource:  # fmt: skip
        """The source of the kernel that a `kernel` operation is; kernels with equal content share one source."""
        key = content(kernel), is_bundled
        if key in self.launched:
            source = replace(self.launched[key].source, buffers=(*kernel.inputs, *kernel.outputs))
        else:
            source = write_kernel(kernel, self.kernel_names.fresh(kernel_name(operation)), labels, is_bundled)
            self.launched[key] = Launched(source, kernel)
            (self.program.parts if is_bundled else self.program.kernels).append(self.launched[key])
        self.launched[key].origins |= dict.fromkeys(member.location for member in members_of(operation))
        self.program.launches[operation.attributes["name"]] = source.name
        return source

    def bundle(self, bundle: Bundle) -> None:
        """Write a bundle whose members are written."""
        bundle.write(self.kernel_names.fresh(f"{kernel_name(bundle.operations[0])}_bundle"))
        self.program.bundles.append(bundle)
        self.program.launches |= {each.attributes["name"]: bundle.name for each in bundle.operations}
