"""Constants in a text: inline elements, or names of tensors in the file of weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from irc import weights
from irc.diagnostics import did_you_mean, fail
from irc.limits import check_limit
from irc.literals import read_elements
from irc.module import Module
from irc.parser.parts import Part
from irc.parser.source import Source
from irc.parser.types import TypeReader
from irc.types import TensorType
from irc.weights import Tensor

if TYPE_CHECKING:
    from irc.parser.source import At


class TensorReader:
    """Reads constants of `module`, whose header names the file of weights; `folder` is where that file is."""

    def __init__(self, source: Source, types: TypeReader, module: Module, folder: Path,
                 readers: Mapping[str, weights.Reader]) -> None:  # fmt: skip
        self.source, self.types, self.module = source, types, module
        self.folder, self.readers = folder, readers
        self.weights: Mapping[str, Tensor] | None = None
        self.spread = 0  # bytes of constants that are written as one element for many

    def read_typed(self, written: Part) -> Tensor:
        literal, *stated = written.split(":")
        if not stated:
            expected = "for example `const 0.5 : f32[]`"
            raise self.source.error("text.syntax", "a constant without a type", literal, expected)
        return self.read(literal, *stated)

    def read(self, literal: Part, stated: Part) -> Tensor:
        (type_,) = self.types.read(stated, None)
        with self.source.blaming(stated):
            shape = type_.static_shape()
        if literal[0] == "@":
            return self._named(self.source.name(literal), type_, literal)
        is_splat = not literal.startswith(("[", "{", "?"))
        if is_splat:
            self.spread += prod(shape) * max(type_.dtype.itemsize, 1)
            with self.source.blaming(literal):
                check_limit("literals", self.spread, "the text has constants of one element for many, of {}")
        elements = [literal] if is_splat else list(self._elements(literal, shape))
        with self.source.blaming(literal, what=f"a constant whose elements are no {type_.dtype}: "):
            array = read_elements(elements, type_.dtype)
        return Tensor.of((array.repeat(prod(shape)) if is_splat else array).reshape(shape), type_.dtype)

    def _elements(self, literal: Part, shape: tuple[int, ...]) -> Iterator[Part]:
        """The elements of nested lists that must have the shape."""
        parts = literal.inside() if literal.startswith("[") else None
        if not shape and parts is None and not literal.startswith(("{", "@", "?")):
            yield literal
        elif shape and parts is not None and len(parts) == shape[0]:
            for part in parts:
                yield from self._elements(part, shape[1:])
        else:
            message = "the elements do not have the shape that the type states"
            raise self.source.error("type.shape", message, literal, f"[{', '.join(map(str, shape))}]")

    def _named(self, name: str, type_: TensorType, at: At) -> Tensor:
        """A constant of the weights file, which is opened when the first one is met."""
        with self.source.blaming(at):
            if self.weights is None:
                self.weights = self._open_weights()
            what, tensor = f"constant @{json.dumps(name)}", self.weights.get(name)
            if tensor is None:
                message = f"{self.module.source} has no {what}"
                raise fail("weights.absent", message, help=did_you_mean(name, self.weights))
            actual = TensorType(tensor.dtype, tensor.shape)
            if actual != type_:
                raise fail("weights.absent", f"the {what} is {actual}, not {type_}")
        return tensor

    def _open_weights(self) -> Mapping[str, Tensor]:
        source, digest = self.module.source, self.module.source_digest
        if source is None:
            raise fail("weights.missing", "the module names no file that holds its constants",
                       help='write `module @name {weights = "FILE"}`')
        return weights.open_weights(self.folder, source, digest, self.readers)
