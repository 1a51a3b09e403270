"""ONNX Runtime, and its sessions, imported here and nowhere else: whose official builds write and send telemetry.

They read ORT_DISABLE_TELEMETRY when they are imported (Privacy.md in their packages). A value that the user has set
stays: ORT_DISABLE_TELEMETRY=0 allows it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from irc.stages import stage

CPU = ("CPUExecutionProvider",)


def onnx_runtime() -> Any:
    """The package `onnxruntime`."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def start_session(model: str | bytes, options: Any, providers: Sequence[str] = CPU) -> Any:
    """A session for a model, of a file or its bytes."""
    with stage("session"):
        return onnx_runtime().InferenceSession(model, options, providers=list(providers))
