"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import onnx

from tests.command_line import TEXT, Result, model_proto


def working_folder(tmp_path: Path) -> Path:
    """A working directory with a model and a text in it."""
    onnx.save(model_proto(), tmp_path / "model.onnx")
    (tmp_path / "small.irc").write_text(TEXT)
    return tmp_path


def fine(result: Result) -> str:
    """The output of a command that must succeed, and say nothing beside it."""
    assert (result.code, result.err) == (0, "")
    return result.out
