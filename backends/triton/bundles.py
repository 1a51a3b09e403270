"""Bundles in an artefact: a kernel function that branches, by the number of its program, to those of its members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from irc.backends.triton.launches import Derived
from irc.backends.triton.lines import wrapped
from irc.backends.triton.source import KernelSource
from irc.backends.triton.text import Names, quoted
from irc.ir import Block, Operation
from irc.kernel import Kernel, LegalityFailure
from irc.kernel.bundle_rules import kernels_run_at_once
from irc.kernel.bundles import bundles_of, check_neighbors, member_of


@dataclass
class Bundle:
    """A launch of several `kernel` operations: their kernels, and the sources of those, in order.

    text: the function that is launched. parameters: of all members, buffers and sizes, then `ends`, the numbers of the
    first programs after those of each member but the last. constants: those of the members, by the names here.
    """

    operations: list[Operation]
    kernels: list[Kernel] = field(default_factory=list)
    sources: list[KernelSource] = field(default_factory=list)
    name: str = ""
    text: str = ""
    parameters: list[list[str]] = field(default_factory=list)  # of each member
    ends: list[str] = field(default_factory=list)
    constants: dict[str, int | str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)  # the members in the host program

    @property
    def is_complete(self) -> bool:
        return len(self.sources) == len(self.operations)

    def write(self, name: str) -> None:
        """Write the function, under this name, once all members are written."""
        self.name, self.ends = name, [f"end_{number}" for number in range(len(self.sources) - 1)]
        constants = [[f"{each}_{number}" for each in source.constants] for number, source in enumerate(self.sources)]
        self.constants = {other: value for source, names in zip(self.sources, constants, strict=True)
                          for other, value in zip(names, source.constants.values(), strict=True)}  # fmt: skip
        names = Names({name, "program", *self.ends, *self.constants, *(source.name for source in self.sources)})
        self.parameters = [[names.fresh(parameter) for parameter in source.parameters] for source in self.sources]
        self.text = "\n".join(self._lines(constants)) + "\n"

    def _lines(self, constants: Sequence[Sequence[str]]) -> Iterator[str]:
        # Ends are no sizes that a kernel is compiled for: Triton would compile one for each that 16 divides, or is 1.
        yield from wrapped(f"@triton.jit(do_not_specialize=[{', '.join(map(quoted, self.ends))}])")
        parameters = [name for names in self.parameters for name in names]
        arguments = [*parameters, *self.ends, *(f"{name}: tl.constexpr" for name in self.constants)]
        *head, last = wrapped(f"def {self.name}({', '.join(arguments)})")
        yield from (*head, f"{last}:")
        yield f'    """{len(self.sources)} kernels in one launch, each with a range of the programs."""'
        yield "    program = tl.program_id(0)"
        for number, source in enumerate(self.sources):
            is_last = number == len(self.ends)
            yield "    else:" if is_last else f"    {'el' if number else ''}if program < {self.ends[number]}:"
            place = f"program - {self.ends[number - 1]}" if number else "program"
            yield from wrapped(
                f"        {source.name}({', '.join([place, *self.parameters[number], *constants[number]])})"
            )


def launched_together(block: Block, derived: Derived) -> list[list[Operation]]:
    """The kernels of each bundle of a block that are launched, two or more; those that run as host calls are in none.
    Raises `fuse.bundle` where they cannot be one launch (rule F20)."""
    together = []
    try:
        check_neighbors(block)
        for operations in bundles_of(block):
            kernels = [(each, kernel) for each in operations if isinstance(kernel := derived(each), Kernel)]
            if len(kernels) > 1:
                kernels_run_at_once([member_of(*each) for each in kernels])
                together.append([operation for operation, _ in kernels])
    except LegalityFailure as failure:
        raise failure.error(next(each.location for value in failure.values if (each := value.operation))) from None
    return together
