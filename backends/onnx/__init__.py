"""The ONNX backend: a module as a model for ONNX Runtime.

Each operation that ONNX has whole becomes one node; the others are written by their bodies. The package is light to
import: onnx itself is loaded when a model is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irc.backends.onnx.legality import RowTarget as Target
from irc.backends.onnx.target import TARGETS
from irc.module import Module
from irc.stages import stage

if TYPE_CHECKING:
    import onnx

__all__ = ["KERNELS_PIPELINE", "PIPELINE", "TARGETS", "Target", "count_nodes", "emit", "save"]

PIPELINE = (
    "canonicalize,fold,cse,complex_parts{transforms=onnx},raise,fold{cap=1048576},canonicalize,visible_rows,"
    "attention_scale,grouped_heads,early_slices,canonicalize,rotary,cached_attention,attention_rows,flatten_rows,bias,"
    "canonicalize,cse,row_gathers,blocked_layout,products_as_conv,legalize,canonicalize,fold{views},cse,dce"
)
KERNELS_PIPELINE = f"{PIPELINE},fuse,dce"


def emit(module: Module, *, target: Target | None = None, keep_kernels: bool = False) -> onnx.ModelProto:
    """The model of a module's entry function.

    With `keep_kernels` each kernel becomes a local function, so that viewers show fusion as boxes; otherwise braces
    are erased. Assertions are left out, since ONNX has none. Raises `backend.unsupported`, listing all operations
    that the target cannot express.
    """
    from irc.backends.onnx.emitter import emit_model

    with stage("emission"):
        return emit_model(module, target or Target(), keep_kernels)


def save(module: Module, path: Path, *, target: Target | None = None, keep_kernels: bool = False) -> None:
    """Emit into a file, whole or not at all; weights of 2 GB and more lie beside it, in `NAME.data`."""
    from irc.backends.onnx.saving import save_model

    with stage("emission"):
        save_model(module, Path(path), target or Target(), keep_kernels)


def count_nodes(path: Path) -> int:
    """How many operators a model file has, those in subgraphs and local functions included."""
    from irc.backends.onnx.saving import count_nodes as count

    return count(Path(path))
