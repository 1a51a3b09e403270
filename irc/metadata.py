"""What a model says of itself and of its parts beyond what it computes: documentation, properties, versions.

A module keeps it by subject, which is a kind and a name (none for the model and the graph). Passes leave it alone: what
is said of a node or a value that is gone is not written. Source: onnx.proto3, the fields of these names.
"""

from __future__ import annotations

from typing import Any

Subject = tuple[str, str]  # a kind and a name
Facts = dict[str, Any]  # by field: a text, an integer, a tuple or a dictionary of texts; extents in a `shape`
Metadata = dict[Subject, Facts]

_COMMON: dict[str, type] = {"doc_string": str, "metadata_props": dict}
_VALUE = {**_COMMON, "denotation": str, "dim_denotations": tuple}
MODEL: Subject = ("model", "")
GRAPH: Subject = ("graph", "")
# By kind, the fields and the types of what they hold.
FIELDS: dict[str, dict[str, type]] = {
    "model": {"producer_name": str, "producer_version": str, "domain": str, "model_version": int, **_COMMON},
    "graph": _COMMON,
    "input": _VALUE,
    "output": {**_VALUE, "shape": tuple},  # stated by the model, where irc knows no rank
    "value": _VALUE,
    "node": _COMMON,
    "initializer": _COMMON,
}
LIMIT = 1 << 63  # of a version


def misfit(subject: Subject, facts: Facts) -> str | None:
    """Why these are no facts of a subject, or None."""
    kind, name = subject
    if kind not in FIELDS or (kind in ("model", "graph")) != (not name):
        return f"there is no such subject: {kind}{f' {name!r}' if name else ''}"
    for field, fact in facts.items():
        expected = FIELDS[kind].get(field)
        parts = (*fact, *fact.values()) if isinstance(fact, dict) else fact if isinstance(fact, tuple) else ()
        if expected is None:
            return f"a {kind} has no field {field!r}"
        held = (str, int) if field == "shape" else (str,)
        if type(fact) is not expected or not all(type(part) in held for part in parts):
            return f"{field} of a {kind} holds {type(fact).__name__}"
        if any(isinstance(number, int) and not -LIMIT <= number < LIMIT for number in (fact, *parts)):
            return f"{field} has more than 64 bits"
    return None
