"""What tests of bad input and of internal errors share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from tests.command_line import TEXT, model_proto

OUTPUTS = ("out.onnx", "out.npz", "out.irc", "out.safetensors", "out.triton", "plan.json")


def working_folder(tmp_path: Path) -> Iterator[Path]:
    """A fixture: a working directory with a model, a text, and beside it a file that no command may read."""
    work = tmp_path / "work"
    work.mkdir()
    onnx.save(model_proto(), work / "model.onnx")
    (work / "small.irc").write_text(TEXT)
    (tmp_path / "secret.bin").write_bytes(bytes(8192))
    before = {path for path in work.rglob("*")}
    yield work
    new_names = {path.name for path in work.rglob("*")} - {path.name for path in before}
    assert not [name for name in new_names if name in OUTPUTS or name.endswith((".partial", ".old"))], new_names
