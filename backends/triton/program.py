"""Programs: what an artefact holds, as data. `program_writer` makes one of a module."""

from __future__ import annotations

from dataclasses import dataclass, field

from irc.backends.triton.bundles import Bundle
from irc.backends.triton.externs import Extern
from irc.backends.triton.source import KernelSource
from irc.diagnostics import Location
from irc.ir import Operation
from irc.kernel import Kernel, LegalityFailure
from irc.weights import Tensor


@dataclass
class Launched:
    """A kernel of the artefact: its source, the scalar DAG that the source computes, and the places that it is from, in
    the sources of the module, for all its launches."""

    source: KernelSource
    kernel: Kernel
    origins: dict[Location, None] = field(default_factory=dict)


@dataclass
class Program:
    """The text of the host program, with the kernels, weights and externs that it uses.

    parts: kernels that are not launched by themselves, but called by those of `bundles`. launches: by the name of each
    `kernel`, the name of the source that is launched. defaults: by inputs, the names of weights.
    rejected: kernels that run as host calls instead, with the reason. modules: the templates that the text imports,
    beside those of every artefact. lines: by line numbers of the text, the operations that they compute.
    """

    text: str = ""
    kernels: list[Launched] = field(default_factory=list)
    parts: list[Launched] = field(default_factory=list)
    bundles: list[Bundle] = field(default_factory=list)
    launches: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    externs: list[Extern] = field(default_factory=list)
    host_calls: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    derived: dict[Operation, Kernel | LegalityFailure] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    lines: dict[int, Operation] = field(default_factory=dict)
