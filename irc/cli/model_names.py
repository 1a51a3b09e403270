"""Names in a model's file for shell completion: values, kernels and symbols, read without importing a framework.

The names are those that a user can mean, in the order of the file; a model is not checked. Programs in Python files are
not run, since a Tab runs nothing: of these only the names that they define are known. Importing a `.pt2` file names its
values, which needs PyTorch.

Sources: onnx.proto3 (the numbers of fields); protobuf, "Encoding"; the text format, docs/ir.md.
"""

from __future__ import annotations

import ast
import json
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_BYTES = 16 << 20  # of a text: what takes longer to read than a user waits
MOST_NAMES = 20_000
VALUE = re.compile(r'%(?:"([^"\\\n]*)"|([A-Za-z0-9_.$/-]+))')
KERNEL = re.compile(r'\bkernel @(?:"([^"\\\n]*)"|([A-Za-z0-9_.$/-]+))')
SIGNATURE = re.compile(r"\bfunc @\S+?<([^>]*)>")
RANGE = re.compile(r"\s+in\s+\[[^]]*\]|\s*%\s*[0-9]+")
MODEL_GRAPH, NODE, INITIALIZER, INPUT = 7, 1, 5, 11
OUTPUT, OPERATOR, ATTRIBUTE, SUBGRAPH, TENSOR_NAME = 2, 4, 5, 6, 8
DIM_PARAM = (2, 1, 2, 1, 2)  # a symbol in an input: its type, as a tensor's, shape, dim, name
WITHOUT_VALUES = (b"Identity",)  # of what they read

Span = tuple[int, int]


@dataclass
class Names:
    """Names without `%` and `@`, each once."""

    values: dict[str, None] = field(default_factory=dict)
    kernels: dict[str, None] = field(default_factory=dict)
    symbols: dict[str, None] = field(default_factory=dict)


def names_in(model: str) -> Names:
    """The names in a model's file; none of other files, whose programs would have to run or to be exported."""
    path = Path(model)
    readers = {".irc": of_text, ".onnx": of_onnx}
    reader = readers.get(path.suffix.lower())
    return Names() if reader is None or not path.is_file() else reader(path)


def of_text(path: Path) -> Names:
    with path.open("rb") as file:
        text = file.read(MOST_BYTES).decode("utf-8", "replace")
    names = Names()
    for pattern, group in ((VALUE, names.values), (KERNEL, names.kernels)):
        group.update(dict.fromkeys(match[1] or match[2] for match in pattern.finditer(text)))
    for match in SIGNATURE.finditer(text):
        parts = (part.strip().strip('"') for part in RANGE.sub("", match[1]).split(","))
        names.symbols.update(dict.fromkeys(filter(None, parts)))
    return names


# -- ONNX ------------------------------------------------------------------------------------------------------


def of_onnx(path: Path) -> Names:
    names = Names()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for graph in at(data, (0, len(data)), (MODEL_GRAPH,)):
            _of_graph(data, graph, names)
    return names


def _of_graph(data: mmap.mmap, graph: Span, names: Names) -> None:
    """The values of a graph and of its subgraphs, and the symbols of its inputs."""
    for number, span in fields(data, graph):
        if len(names.values) > MOST_NAMES:
            return
        if number == INPUT:
            names.values.update(dict.fromkeys(texts(data, span, 1)))
            for symbol in at(data, span, DIM_PARAM):
                names.symbols[data[slice(*symbol)].decode()] = None
        elif number == INITIALIZER:
            names.values.update(dict.fromkeys(texts(data, span, TENSOR_NAME)))
        elif number == NODE:
            if not any(data[slice(*each)] in WITHOUT_VALUES for each in at(data, span, (OPERATOR,))):
                names.values.update(dict.fromkeys(filter(None, texts(data, span, OUTPUT))))
            for subgraph in at(data, span, (ATTRIBUTE, SUBGRAPH)):
                _of_graph(data, subgraph, names)


def fields(data: mmap.mmap, message: Span) -> Iterator[tuple[int, Span]]:
    """The fields of a message that have a length, by number: texts, bytes and messages. Raises ValueError."""
    place, end = message
    while place < end:
        key, place = _varint(data, place, end)
        kind = key & 7
        if kind == 0:
            _, place = _varint(data, place, end)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        elif kind == 2:
            length, place = _varint(data, place, end)
            if length > end - place:
                raise ValueError("a field is longer than its message")
            yield key >> 3, (place, place + length)
            place += length
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    number = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
    raise ValueError("a number does not end")


def at(data: mmap.mmap, message: Span, numbers: Sequence[int]) -> Iterator[Span]:
    """The fields of these numbers, each in the one before."""
    for number, span in fields(data, message):
        if number == numbers[0]:
            if len(numbers) == 1:
                yield span
            else:
                yield from at(data, span, numbers[1:])


def texts(data: mmap.mmap, message: Span, number: int) -> list[str]:
    return [data[slice(*span)].decode() for span in at(data, message, (number,))]


# -- plans and Python files ----------------------------------------------------------------------------------


def of_plan(path: str) -> list[str]:
    """The entries of a plan file and their members."""
    with open(path, "rb") as file:
        plan = json.loads(file.read(MOST_BYTES))
    entries = [entry for key in ("groups", "siblings", "products", "bundles") for entry in plan.get(key, ())]
    names = [name for entry in entries for name in (entry.get("name"), *entry.get("members", ()))]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def defined_in(path: str) -> list[str]:
    """The names that a Python file defines for others: functions, classes and variables."""
    names: list[str] = []
    for statement in ast.parse(Path(path).read_bytes()).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.append(statement.name)
        elif isinstance(statement, ast.Assign):
            names += [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.append(statement.target.id)
    return [name for name in names if not name.startswith("_")]


def passes_in(source: str) -> dict[str, list[str]]:
    """The classes of a Python file that derive from `Pass`, with their fields."""
    return {
        each.name: [line.target.id for line in each.body
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
        for each in ast.parse(source).body
        if isinstance(each, ast.ClassDef) and any(ast.unparse(base).split(".")[-1] == "Pass" for base in each.bases)
    }  # fmt: skip
