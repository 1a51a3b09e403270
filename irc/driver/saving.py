"""Saving a stage of a program: as text, or as an ONNX model in which each kernel is a local function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from irc.driver.models import Settings, find_backend, reproducing
from irc.driver.text_files import save_text
from irc.files import check_model_file
from irc.module import Module


def check_stage_file(path: Path) -> None:
    """Raise what `save_stage` raises for its file, before the work is done."""
    check_model_file(path, ".irc", ".onnx", help="without -o the text is printed, and > writes it anywhere")


def save_stage(module: Module, path: Path, settings: Settings) -> None:
    """Write a module, by the suffix of the file: ONNX for `.onnx`, text with its weights beside it for `.irc`.

    In ONNX each kernel is a local function of the domain `irc.kernels`, which Netron shows as one node and ONNX Runtime
    inlines; operations that ONNX does not have are written by their bodies. Raises `backend.unsupported`, and
    `usage.value` for another suffix.
    """
    check_stage_file(path)
    if path.suffix.lower() != ".onnx":
        save_text(module, path)
        return
    target = replace(settings, target=None, products="host").target_of("onnx")
    with reproducing(settings, module, "emit-onnx"):
        find_backend("onnx").save(module, path, target=target, keep_kernels=True)
