"""The original of a source: the model that it names, as its own framework runs it.

`check` compares the module that irc imports with it; `reduce` takes it apart where they differ.
"""

from __future__ import annotations

from pathlib import Path

from irc.driver.models import Settings, Source, program_of, saved_program
from irc.driver.onnx_originals import OnnxOriginal
from irc.driver.original import Original
from irc.module import Module
from irc.user_files import is_reference


def original_of(source: Source) -> Original | None:
    """The model that a source names, without inputs; None for an irc module or text."""
    if isinstance(source, Module):
        return None
    text = str(source)
    suffix = Path(text).suffix.lower()
    if is_reference(text):
        source_program, name = program_of(text), text.rpartition(":")[2]
        if isinstance(source_program, Module):
            return None
    elif suffix == ".pt2":
        source_program, name = saved_program(Path(text)), Path(text).stem
    else:
        return OnnxOriginal.read(Path(text)) if suffix == ".onnx" else None
    from irc.driver.torch_originals import TorchOriginal

    program, *more = source_program if isinstance(source_program, tuple) else (source_program,)
    return TorchOriginal.exported(program, more, name)


def load_with_original(source: Source, settings: Settings) -> tuple[Module, Original | None]:
    """The module of a model, and its original."""
    if isinstance(source, Module) or not is_reference(str(source)):
        module = settings.load(source)  # checks the file first
        return module, original_of(source)
    with settings.advising(source):
        original = original_of(source)
        imported = source if original is None else original.module()
    return settings.load(imported), original
