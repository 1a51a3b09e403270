"""The op table: every operation that irc knows, by name.

`TABLE` is built here, explicitly, from the modules listed; declaring an operation registers nothing. Each
operation is also an attribute of this package under its Python name (`from irc.ops import add, abs_, gelu`).
To add one, declare it in one of these modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from irc.diagnostics import did_you_mean, fail
from irc.ir import Definition
from irc.op import OperationDefinition, const, return_, yield_

PRIMITIVE_MODULES = ("pointwise", "functions", "random_bits", "reduction", "view", "indexing", "products", "control",
                     "extern")  # fmt: skip
NAMED_MODULES = (
    "named.activation", "named.normalization", "named.linear", "named.attention", "named.pooling",
    "named.quantization", "named.packed", "named.shape", "named.sampling", "named.recurrent",
)  # fmt: skip

TABLE: dict[str, OperationDefinition] = {}


def lookup(name: str, definitions: Mapping[str, OperationDefinition] | None = None) -> OperationDefinition:
    """The operation called `name`, of the table or of `definitions` (a user's); raises `text.unknown_op`."""
    known = {**(definitions or {}), **TABLE} if definitions else TABLE
    definition = known.get(name)
    if definition is None:
        load = "give the file that declares an operation of your own: --load FILE.py"
        close = did_you_mean(name, known)
        help = f"{close} Or {load}" if close else load
        raise fail("text.unknown_op", f"there is no operation `{name}`", help=help)
    return definition


def is_own(definition: Definition) -> bool:
    """Whether an operation is a user's own, rather than one of the table."""
    return TABLE.get(definition.name) is not definition


if TYPE_CHECKING:
    extern: OperationDefinition  # the name of a submodule, too

    def __getattr__(name: str) -> OperationDefinition: ...


def _add(python_name: str, definition: OperationDefinition) -> None:
    if TABLE.setdefault(definition.name, definition) is not definition:
        raise ValueError(f"two operations are called {definition.name}")
    # Binding by name also lets the op `extern` win over the submodule of that name.
    globals()[python_name] = definition


def _collect(modules: Iterable[str]) -> None:
    """Put the operations that each module itself declares into the table."""
    for name in modules:
        module = import_module(f"irc.ops.{name}")
        for python_name, definition in vars(module).items():
            if isinstance(definition, OperationDefinition) and definition.source_function.__module__ == module.__name__:
                _add(python_name, definition)


for _name, _definition in (("const", const), ("return_", return_), ("yield_", yield_)):
    _add(_name, _definition)
_collect(PRIMITIVE_MODULES)
_collect(NAMED_MODULES)  # after the primitives: bodies import them from here
