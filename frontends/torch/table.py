"""How a row of the ATen table is written: a function whose signature is the overload's schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Row:
    """How the calls of some overloads ("add.Tensor") are read: values, dims and Python's own in, values out."""

    function: Callable[..., Any]
    overloads: tuple[str, ...]


def reads(*overloads: str) -> Callable[[Callable[..., Any]], Row]:
    """Declare the row of overloads of ATen, named without the namespace; ".default" may be left out."""
    full = tuple(name if "." in name else f"{name}.default" for name in overloads)
    return lambda function: Row(function, full)


class Table:
    """The rows of some modules by overload."""

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self.rows: dict[str, Row] = {}
        for module in modules:
            for item in vars(module).values():
                for row in item if isinstance(item, list) else [item]:
                    if isinstance(row, Row):
                        self.rows.update(dict.fromkeys(row.overloads, row))

    def find(self, target: Any) -> Row | None:
        """The row of an overload such as `torch.ops.aten.add.Tensor`, or None."""
        return self.rows.get(overload_name(target))


def overload_name(target: Any) -> str:
    """ "add.Tensor" of ATen's own; other namespaces are written out: "mylib::op.default"."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', target)}"
    namespace, _, name = str(schema.name).partition("::")
    full = f"{name}.{schema.overload_name or 'default'}"
    return full if namespace == "aten" else f"{namespace}::{full}"
