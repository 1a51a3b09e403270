"""All messages of a model's file, whatever they stand in: their strings, and the files that tensors lie in.

Protobuf gives strings that are not UTF-8 as bytes. Source: protobuf, "Scalar Value Types" (proto2 does not check them);
onnx.proto3, in which tensors' strings and attributes of kind STRING are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from irc.diagnostics import Location, fail

if TYPE_CHECKING:
    import onnx

FREE_TEXT = ("doc_string", "value")  # of messages: what names nothing may hold any character


def fields(model: onnx.ModelProto) -> Iterator[tuple[Any, Any, Any]]:
    """Each message of a model with each field that is set and is no message, and the field's value."""
    waiting: list[Any] = [model]
    while waiting:
        message = waiting.pop()
        for field, value in message.ListFields():
            if field.cpp_type != field.CPPTYPE_MESSAGE:
                yield message, field, value
            elif field.is_repeated:
                waiting.extend(value)
            else:
                waiting.append(value)


def check_strings(model: onnx.ModelProto, file: str | None) -> None:
    """Raise `onnx.invalid` for a string that is not UTF-8, and for a name with a NUL, anywhere in a model."""
    for message, field, value in fields(model):
        if field.type != field.TYPE_STRING:
            continue
        texts: Iterable[Any] = value if field.is_repeated else (value,)
        for text in texts:
            if isinstance(text, bytes) or ("\0" in text and field.name not in FREE_TEXT):
                what = "is not UTF-8" if isinstance(text, bytes) else "holds a NUL"
                name = f"{message.DESCRIPTOR.name}.{field.name}"
                raise fail("onnx.invalid", f"the string {name} {what}: {text[:40]!r}", at=Location(file=file),
                           expected="text in UTF-8")


def external_locations(model: onnx.ModelProto) -> list[str]:
    """The files in which tensors lie, as the model names them."""
    entries = [entry for message, field, value in fields(model)
               if field.name == "data_location" and value == message.EXTERNAL for entry in message.external_data]
    return list(dict.fromkeys(entry.value for entry in entries if entry.key == "location"))
