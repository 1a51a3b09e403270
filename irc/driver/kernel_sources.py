"""The Triton source of a kernel of a module, and the line of it that computes a value."""

from __future__ import annotations

import re

from irc.driver.models import find_backend
from irc.ir import Operation, Value
from irc.kernel import LegalityFailure


def source_of(operation: Operation) -> str | LegalityFailure:
    """The Triton source of a `kernel` operation, or why it runs as host calls."""
    block = operation.regions[0].block
    outside = [*zip(block.arguments, operation.inputs, strict=True)]
    outside += zip(block.terminator.inputs, operation.results, strict=True)
    labels = {inner: "" if value.is_anonymous else value.name for inner, value in outside}
    source: str | LegalityFailure = find_backend("triton").kernel_source(operation, labels)
    return source


def line_of(source: str, operation: Operation, value: Value) -> int | None:
    """The index of the line of a kernel's source that stores a result of it, or assigns an inner value; None where the
    value is part of the expression that uses it."""
    lines = [line.strip() for line in source.splitlines()]
    if value in operation.results:
        stores = [number for number, line in enumerate(lines) if "tl.store(" in line]
        return stores[min(operation.results.index(value), len(stores) - 1)] if stores else None
    name = re.escape(re.sub(r"\W", "_", value.name))
    return next((number for number, line in enumerate(lines) if re.match(rf"{name}(_\d+)? = ", line)), None)
