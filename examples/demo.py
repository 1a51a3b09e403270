"""`make demo`: compile a trained model for both backends and run it on real files.

The model is magika's (bytes to file type), from the PyPI package of that name. Each step prints what it does; the
labels at the end are those of the compiled programs and of magika's own runtime.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

import irc
from irc.driver.running import run_onnx
from irc.module import Module

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "magika/models/standard_v3_3"
BLOCK, WINDOW, PADDING = 4096, 1024, 256  # magika's config.min.json: block_size, beg_size = end_size, padding_token


def features(path: Path) -> list[int]:
    """The model's input for a file: the first and last 1024 bytes, without surrounding white space."""
    content = path.read_bytes()
    begin = content[:BLOCK].lstrip()[:WINDOW]
    end = content[-BLOCK:].rstrip()[-WINDOW:]
    return [*begin, *[PADDING] * (WINDOW - len(begin)), *[PADDING] * (WINDOW - len(end)), *end]


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def excerpt(text: str, lines: int) -> str:
    shown = text.splitlines()[:lines]
    return "\n".join(line if len(line) <= 118 else line[:117] + "…" for line in shown)


def main(arguments: Sequence[str]) -> int:
    start = time.perf_counter()
    package = distribution("magika")
    model = Path(str(package.locate_file(f"{FOLDER}/model.onnx")))
    labels = json.loads(Path(str(package.locate_file(f"{FOLDER}/config.min.json"))).read_text())["target_labels_space"]
    files = [Path(argument) for argument in arguments] or [
        *(ROOT / name for name in ("irc/ir.py", "README.md", "pyproject.toml", "Makefile", "constraints.txt")),
        model,
    ]
    batch = np.array([features(file) for file in files], dtype=np.int32)

    step(f"import: {model.name} of magika {package.version}, {model.stat().st_size / 1e6:.1f} MB")
    module = irc.load(model)
    name = module.main.arguments[0].name
    constants = sum(operation.name == "const" for operation in module.main.block)
    count = len(module.main.block) - constants - 1  # `return` is the last
    print(f"{count} operations and {constants} constants; input %{name}: {module.main.arguments[0].type}")
    gelu = show_fusion(module)

    with tempfile.TemporaryDirectory(prefix="irc-demo-") as temporary:
        folder = Path(temporary)
        step("compile for ONNX Runtime, and run")
        onnx_report = irc.compile(module, output=folder / "magika.irc.onnx")
        print(f"{onnx_report.nodes} nodes, where the original has {original_nodes(model)}")
        by_onnx = next(iter(run_onnx(irc.opt(module, onnx_pipeline(), backend="onnx"), {name: batch}).values()))
        by_triton = run_triton(module, name, batch, folder)

    step("labels: of the model compiled for ONNX Runtime, compiled to Triton, and in magika's own runtime")
    agreed = labels_agree(files, labels, by_onnx, by_triton)
    largest = float(np.abs(by_onnx - by_triton).max() / np.abs(by_onnx).max())
    verdict = "all labels agree" if agreed else "LABELS DIFFER"
    seconds = time.perf_counter() - start
    print(f"{verdict}; the backends differ by {largest:.1e}, relative to the largest score; {seconds:.0f} s in all")

    step("next commands (docs/first_hour.md explains them)")
    print(f"""{activation()}model={shorten(model)}
irc print $model --after fuse | less
irc kernels $model
irc explain $model %{gelu}
irc compile $model --backend triton -o magika_triton""")
    return 0 if agreed and largest < 1e-4 else 1


def show_fusion(module: Module) -> str:
    """Print the module around its first gelu, then its kernels; returns the name of the gelu's result."""
    step("before fusion: where the first gelu is (irc print MODEL --after raise --around %VALUE)")
    raised = irc.opt(module, "clean")
    gelu = next(operation for operation in raised.main.block if operation.name == "gelu")
    print(irc.print(raised, around=gelu.results[0].name, distance=2))

    step("after fusion: kernels, library calls, host operations (irc print MODEL --after fuse --summary)")
    fused = irc.opt(module, "default")
    print(irc.print(fused, summary=True))
    return str(gelu.results[0].name)


def run_triton(module: Module, name: str, batch: np.ndarray, folder: Path) -> np.ndarray:
    """Compile into the folder and run the artefact on the input of this name; returns its only output."""
    step("compile to Triton, and run (interpreted when there is no GPU; a minute at most)")
    report = irc.compile(module, backend="triton", output=folder / "magika_triton")
    print(f"{report.kernels} kernels, {report.host_calls} host calls")
    np.savez(folder / "in.npz", allow_pickle=False, **{name: batch})
    command = [sys.executable, "-m", "magika_triton", "--input", "in.npz", "--output", "out.npz"]
    subprocess.run(command, cwd=folder, check=True)
    with np.load(folder / "out.npz") as outputs:
        output = outputs[outputs.files[0]]

    step("one generated kernel: the last one, a bias and a softmax (magika_triton/kernels.py)")
    source = (folder / "magika_triton" / "kernels.py").read_text()
    print(excerpt(source[source.rindex("@triton.jit") :], 45))
    return output


def labels_agree(files: Sequence[Path], labels: Sequence[str], by_onnx: np.ndarray, by_triton: np.ndarray) -> bool:
    """Print the label of each file by both backends and by magika; returns whether all are equal."""
    from magika import Magika

    reference = Magika()
    agreed = True
    for row, file in enumerate(files):
        ours = labels[int(by_onnx[row].argmax())], labels[int(by_triton[row].argmax())]
        expected = str(reference.identify_path(file).dl.label)
        expected = ours[0] if expected == "undefined" else expected  # of files under 8 bytes
        agreed &= ours == (expected, expected)
        print(f"  {file.name:16} onnx {ours[0]:10} triton {ours[1]:10} magika {expected}")
    return agreed


def activation() -> str:
    """The line that puts `irc` on the search path, if this environment is not activated."""
    here = Path(sys.executable).parent
    return "" if shutil.which("irc") == str(here / "irc") else f". {shorten(here)}/activate\n"


def onnx_pipeline() -> str:
    from irc.backends import onnx as backend

    return backend.PIPELINE


def original_nodes(model: Path) -> int:
    import onnx

    return len(onnx.load(model, load_external_data=False).graph.node)


def shorten(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
