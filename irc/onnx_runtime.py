"""ONNX Runtime, imported here and nowhere else: whose official builds write and send telemetry.

They read ORT_DISABLE_TELEMETRY when they are imported (Privacy.md in their packages). A value that the user has set
stays: ORT_DISABLE_TELEMETRY=0 allows it.
"""

from __future__ import annotations

import os
from typing import Any


def onnx_runtime() -> Any:
    """The package `onnxruntime`."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
