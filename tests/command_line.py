"""The command line for tests: as a process, and in this process where a process of its own would add nothing."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

# A program with kernels in a loop and in a branch.
BODIES = """irc text 1
module @bodies {
  func @main(%c: bool[], %n: i64[], %x: f32[4]) -> f32[4] {
    %half = const 0.5 : f32[]
    %a = exp %x : f32[4]
    %r = loop %n, %c, %a : f32[4] { (%i: i64[], %going: bool[], %s: f32[4])
      %t = mul %s, %half : f32[4]
      %u = add %t, %a : f32[4]
      %v = if %going : f32[4] {
        %e = neg %u : f32[4]
        %f = abs %e : f32[4]
        yield %f
      } else {
        yield %u
      }
      yield %going, %v
    }
    %d = neg %r : f32[4]
    return %d
  }
}
"""


@dataclass(frozen=True)
class Result:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


def irc_process(
    *arguments: object, folder: Path, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> Result:
    """Run `irc` as its users do."""
    done = subprocess.run(
        [Path(sys.executable).with_name("irc"), *map(str, arguments)],
        cwd=folder,
        input=stdin,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        check=False,
    )
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in result.err, result.err
    return result


def irc_here(*arguments: object, folder: Path, stdin: bytes = b"") -> Result:
    """Run the same code in this process, with the working directory, the streams and the exit code of a process."""
    from irc.cli import entry

    before, out, err, code = Path.cwd(), io.StringIO(), io.StringIO(), 0
    os.chdir(folder)
    try:
        with (
            mock.patch.object(entry, "gc"),  # settings for a process that ends
            mock.patch.object(sys, "argv", ["irc", *map(str, arguments)]),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            entry.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        os.chdir(before)
    assert "Traceback" not in err.getvalue(), err.getvalue()
    return Result(code, out.getvalue(), err.getvalue())


def model_proto(weight_length: int = 64) -> onnx.ModelProto:
    """y = softmax(relu(x @ w) * 0.5 + b) with x [B, 64], and a constant sum that folding takes away."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((weight_length, 32)).astype(np.float32)
    bias = generator.standard_normal(32).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="/fc/MatMul"),
        helper.make_node("Relu", ["product"], ["active"], name="/fc/Relu"),
        helper.make_node("Add", ["quarter", "quarter"], ["half"], name="/scale/Add"),
        helper.make_node("Mul", ["active", "half"], ["scaled"], name="/scale/Mul"),
        helper.make_node("Add", ["scaled", "b"], ["shifted"], name="/bias/Add"),
        helper.make_node("Softmax", ["shifted"], ["y"], name="/out/Softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 32])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(bias, "b"),
            numpy_helper.from_array(np.float32(0.25), "quarter"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def model_outputs(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime says."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


TEXT = """irc text 1
module @small {
  func @main<N in [1, 4096]>(%x: f32[N, 8], %b: f32[8]) -> f32[N, 8] {
    %half = const 0.5 : f32[]
    %scaled = mul %x, %half : f32[N, 8]
    %p = softmax %scaled {axis = -1} : f32[N, 8]
    %y = add %p, %b : f32[N, 8]
    return %y
  }
}
"""
