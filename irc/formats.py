"""What a file is that is not what its name says, by its first bytes: often something else was downloaded."""

from __future__ import annotations

import codecs
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple


class Format(NamedTuple):
    """A format in words, and what to do about a file in it."""

    name: str
    help: str


DOWNLOAD = "download the file itself: this may be a page about it, or say that a login is needed"
UNPACK = "unpack it first"
EXPORT = "export the model to ONNX, or to a .pt2 file with torch.export.save"
ZIP = Format("a ZIP archive", "unpack it first; a program that torch.export.save wrote is named .pt2")
LFS = Format("a Git LFS pointer", "git lfs pull fetches the file that it stands for")
ORT = Format("a model in ONNX Runtime's own format", "use the .onnx file that it was made from")
ZEROS = Format("nothing but zeros", "the download did not end: fetch the file again")
EMPTY = Format("empty", "the download did not end: fetch the file again")
# Formats by the bytes at an offset.
SIGNS: tuple[tuple[int, bytes, Format], ...] = (
    (0, b"version https://git-lfs.github.com/spec/", LFS),
    (4, b"ORTM", ORT),
    (0, b"\x1f\x8b", Format("a gzip archive", UNPACK)),
    (0, b"BZh", Format("a bzip2 archive", UNPACK)),
    (0, b"\xfd7zXZ\0", Format("an xz archive", UNPACK)),
    (0, b"\x5d\0\0\x80\0\xff\xff\xff\xff", Format("an LZMA archive", UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Format("a Zstandard archive", UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Format("a 7z archive", UNPACK)),
    (0, b"PK\x03\x04", ZIP),
    (0, b"\x04\x22\x4d\x18", Format("an LZ4 archive", UNPACK)),
    (0, b"Rar!\x1a\x07", Format("a RAR archive", UNPACK)),
    (257, b"ustar", Format("a tar archive", UNPACK)),
    *((0, b"\x80" + bytes([protocol]), Format("a pickle", EXPORT)) for protocol in range(2, 6)),
    (4, b"TFL3", Format("a TensorFlow Lite model", EXPORT)),
    (0, b"\x89HDF\r\n\x1a\n", Format("an HDF5 file", EXPORT)),
    (0, b"GGUF", Format("a GGUF file", EXPORT)),
    (0, b"\x93NUMPY", Format("an array of NumPy", "give arrays with --input, in an .npz file")),
    (0, b"irc text ", Format("irc's text", "name it .irc")),
    (0, b"%PDF", Format("a PDF document", DOWNLOAD)),
    (0, b"\x89PNG\r\n\x1a\n", Format("a PNG image", DOWNLOAD)),
    (0, b"\xff\xd8\xff", Format("a JPEG image", DOWNLOAD)),
    (0, b"\x7fELF", Format("a program or library", EXPORT)),
    (0, b"ptrt", Format("an engine of TensorRT", "use the .onnx file that it was made from")),
)  # fmt: skip
# ... and of text, in lower case, after white space.
PAGE = Format("an HTML page", DOWNLOAD)
XML = Format("XML", DOWNLOAD)
ANNEX = Format("a pointer of git-annex", "git annex get fetches the file that it stands for")
TEXT_SIGNS: tuple[tuple[bytes, Format], ...] = (
    (b"<!doctype html", PAGE), (b"<html", PAGE), (b"<head", PAGE), (b"<body", PAGE), (b"<script", PAGE),
    (b"<!--", PAGE), (b"<?xml", XML), (b"<error>", XML), (b"/annex/objects/", ANNEX),
    (b"version https://hawser.github.com/spec/", LFS),
    (b"<ir_version", Format("ONNX in its text form", "onnx.parser.parse_model reads it")),
    (b"ir_version:", Format("ONNX in protobuf's text form", "google.protobuf.text_format reads it")),
    (b"{", Format("JSON", DOWNLOAD)),
)  # fmt: skip
PLAIN = Format("plain text", DOWNLOAD)
POINTERS_AND_PAGES = (LFS, ANNEX, PAGE, XML)  # whose signs are long enough that no weights begin so
LOOKED_AT = 4096  # bytes


def recognized(data: Any, *, is_text: bool = False) -> Format | None:
    """The format of a file's bytes, or None for one that is not among those that are taken for models by mistake. Text
    of no format is one, unless the file should be text."""
    head = bytes(data[:LOOKED_AT])
    if not head:
        return EMPTY
    text = _in_utf8(head).lstrip().lower()
    formats = [format for offset, sign, format in SIGNS if head[offset:].startswith(sign)]
    formats += [format for sign, format in TEXT_SIGNS if text.startswith(sign)]
    if head[8:9] == b"{":  # after its length, the header
        formats.append(Format("a safetensors file", EXPORT))
    if not formats and not is_text and _is_plain(head):
        return PLAIN
    return formats[0] if formats else ZEROS if not any(head) else None


def recognized_file(path: Path) -> Format | None:
    """The same of a file, None where it cannot be read or is no regular file."""
    with suppress(OSError, ValueError):
        if path.is_file():
            with path.open("rb") as file:
                return recognized(file.read(LOOKED_AT))
    return None


def _in_utf8(head: bytes) -> bytes:
    """Bytes without the mark of UTF-8, or those of UTF-16 recoded."""
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if head.startswith(mark):
            return head.decode("utf-16", "replace").encode("utf-8", "replace")
    return head.removeprefix(codecs.BOM_UTF8)


def _is_plain(head: bytes) -> bool:
    """Whether bytes are text in UTF-8, which may break off within a character."""
    controls = bytes(number for number in range(32) if chr(number) not in "\t\n\f\r\x1b")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not any(number in controls for number in head)
