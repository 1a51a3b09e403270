"""Hostile inputs for tests: commands under the audit hook of `tests/audit`, and models whose names attack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.command_line import ROOT, Result

SYSTEM = (sys.prefix, sys.base_prefix, str(Path(np.__file__).parents[1]), str(ROOT), "/usr", "/lib", "/etc", "/proc",
          "/sys", "/dev")  # fmt: skip
# Names that lead out of a folder, end strings and docstrings, format, change what a terminal shows, or break code.
NAMES = [
    "../../outside/x", "/tmp/outside", "..", ".", "a\\..\\b", "C:x", "x" * 300, "", " ", "-o", "$(touch pwned)",
    "`touch pwned`", "; touch pwned #", "{0.__class__}", "%s%n", '"""', "'''", '"); import os; os.mkdir("pwned") #',
    "a(b, [c", "a, b)], c", "\\", "\\N{BULLET}", "<script>alert(1)</script>", "&amp;", "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07", "\x9b31m", "\u202eevil\u202c", "\u2066x", "two\nlines", "a\rb", "\u2028", "\ufeff", "\x7f",
    "class", "import", "None", "__import__", "main", "torch", "weights", "host", "CON", "名前", "é",
]  # fmt: skip


def audited(folder: Path, *commands: Sequence[object], read: Sequence[Path] = (), write: Sequence[Path] = (),
            swap: Mapping[str, tuple[Path, Path]] | None = None,
            limits: Mapping[str, str] | None = None) -> list[Result]:  # fmt: skip
    """Run commands of `irc` one after another in a process that may read and write only this folder, and what the
    installation needs; anything else it tries fails the test. See `tests/audit/sitecustomize.py` for `swap`."""
    temporary = folder.parent / f"{folder.name}-temporary"
    temporary.mkdir(exist_ok=True)
    report, settings = temporary.parent / f"{folder.name}-report", temporary.parent / f"{folder.name}-audit"
    report.unlink(missing_ok=True)
    swaps = {name: [str(path), str(target)] for name, (path, target) in (swap or {}).items()}
    settings.write_text(json.dumps({
        "read": [*SYSTEM, str(settings), *map(str, read)], "write": [str(folder), str(temporary), *map(str, write)],
        "report": str(report), "swap": swaps,
    }))  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "audit"), str(ROOT)]),
        "AUDIT": str(settings), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(temporary),
        "TORCHINDUCTOR_CACHE_DIR": str(temporary),  # which PyTorch makes, and names in the environment of this process
        **(limits or {}),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.audit.batch", str(folder)], cwd=ROOT, env=environment, check=False,
        input=json.dumps([list(map(str, command)) for command in commands]).encode(), capture_output=True,
    )  # fmt: skip
    assert not report.exists() or not report.read_text(), report.read_text()
    assert done.returncode == 0, done.stderr.decode()
    return [Result(**result) for result in json.loads(done.stdout)]


def named_model(name: str) -> onnx.ModelProto:
    """A model in which this is the name of all that has one: an operator and its domain, nodes, tensors, dims."""
    names = {kind: f"{name}{kind}" for kind in ("", "k", "w", "o", "d", "v")}
    nodes = [
        helper.make_node("Exp", [names[""]], [names["k"]], name=name),
        helper.make_node("Add", [names["k"], names["w"]], [names["v"]], name=name),
        helper.make_node(name or "Empty", [names["v"]], [names["o"]], name=name, domain=f"d{name}"),
    ]
    graph = helper.make_graph(
        nodes, name,
        [helper.make_tensor_value_info(names[""], TensorProto.FLOAT, [names["d"], 128])],
        [helper.make_tensor_value_info(names["o"], TensorProto.FLOAT, [names["d"], 128])],
        [numpy_helper.from_array(np.arange(128, dtype=np.float32), names["w"])], doc_string=name,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(f"d{name}", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name=name, doc_string=name)
