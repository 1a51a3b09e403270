"""The ONNX frontend: a model file, or a model in memory, becomes a module with one function, `@main`.

Operators that irc has are read by the rows in `pointwise`, `reduction`, `tensor`, `linear`, `attention`,
`normalization`, `recurrent`, `quantization`, `sequences` and `contrib` (those of ONNX Runtime); `control` and
`scanning` read If, Loop and Scan. Every other operator is carried as `extern`, typed by ONNX's own inference, by the
rules in `contrib_types` or by what the model states. Adding an operator is one row (see `table`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irc.module import Module

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["from_model", "load"]


def load(path: Path, *, fold_defaults: bool = False) -> Module:
    """Read an ONNX file. Its constants stay in it, mapped; external data must lie in its folder.

    Inputs that have an initializer have that as a default, or, with `fold_defaults`, are constants and no inputs.

    Raises `file.*`, `onnx.*` and `type.*` errors; `onnx.unsupported` lists all that cannot be read.
    """
    from irc.files import open_file
    from irc.frontends.onnx.importer import import_model
    from irc.frontends.onnx.weights import read_onnx

    file = open_file(path)
    module = import_model(read_onnx(file), path.parent, path.name, fold_defaults=fold_defaults)
    module.source, module.source_digest = path.name, file.digest
    return module


def from_model(model: ModelProto, folder: Path, *, fold_defaults: bool = False) -> Module:
    """Read a model in memory; `folder` is where its external data may lie. Otherwise as `load`.

    The model must not be changed afterwards: its constants are read when they are needed.
    """
    from irc.frontends.onnx.importer import import_model

    return import_model(model, folder, None, fold_defaults=fold_defaults)
