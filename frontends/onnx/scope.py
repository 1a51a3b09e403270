"""What tensor names mean while a graph is imported."""

from __future__ import annotations

from dataclasses import dataclass

from irc.dtypes import DType
from irc.ir import Value

OLDEST_OPSET = 7  # of the default domain
DEFAULTS_SINCE = 4  # the version of ONNX's IR; before, initializers were constants, though they had to be inputs


class Unsupported:
    """Stands for a value that cannot be imported, so that the rest is still looked at and all is reported at once."""


@dataclass(frozen=True)
class TensorSequence:
    """A sequence whose length is known: several values under one name, of one element type."""

    values: tuple[Value, ...]
    dtype: DType


UNSUPPORTED = Unsupported()
Imported = Value | TensorSequence | Unsupported | None  # None: an optional input or output that is absent


class Scope:
    """Values by tensor name, in a graph and those around it."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.values: dict[str, Imported] = {}

    def find(self, name: str) -> Imported:
        if name in self.values or self.parent is None:
            return self.values[name]
        return self.parent.find(name)

    def has(self, name: str) -> bool:
        return name in self.values or (self.parent is not None and self.parent.has(name))


def normal_domain(domain: str) -> str:
    """The default domain has two names."""
    return "" if domain == "ai.onnx" else domain
