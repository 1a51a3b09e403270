"""Whole models through irc, onnxslim and onnxsim: seconds of a process, and nodes left, as a Markdown table.

    python -m tests.benchmarks.optimizers [--rounds 3] [MODEL.onnx ...]      # else: the models of `make slow`, and BERT

Needs `pip install onnxslim onnxsim`. Every tool reads a file and writes a file, each time in a process of its own, all
tools in turn; seconds are of a clock, from the first line that the process runs, so imports count, and are medians.
After irc's total follows the part of its passes. BERT is one of 15 small layers of transformers, exported by
torch.onnx without its own optimizer, with about 1,400 nodes. Whether a result still computes what its model computed is
not asked here: `make slow` asks it of irc.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx

from irc.backends.onnx import count_nodes
from tests.zoo import ENTRIES, zoo_path

IRC = """
import irc
from irc.driver.models import find_backend
backend = find_backend({backend!r})
module = irc.load(source)
before = time.perf_counter()
module = irc.opt(module, backend.PIPELINE, backend={backend!r})
passes = time.perf_counter() - before
backend.{write}(module, Path(target))
"""
TOOLS = {
    "irc, onnx": IRC.format(backend="onnx", write="save"),
    "irc, triton": IRC.format(backend="triton", write="emit"),
    "onnxslim": "import onnxslim; onnxslim.slim(source, target)",
    "onnxsim": "import onnx, onnxsim; onnx.save(onnxsim.simplify(source)[0], target)",
}
WORKER = """
import time
start = time.perf_counter()
import json, sys
from pathlib import Path
source, target, passes = sys.argv[1], sys.argv[2], 0.0
{tool}
print()
print(json.dumps([time.perf_counter() - start, passes]))
"""


def once(tool: str, source: Path, folder: Path) -> tuple[float, float, int] | None:
    """Seconds, those of the passes, and nodes of the result (0 of an artefact), or None for a tool that failed."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        target = Path(fresh, "out" if tool == "irc, triton" else "out.onnx")
        command = [sys.executable, "-c", WORKER.format(tool=TOOLS[tool]), source.resolve(), target]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not target.exists():
            print(f"{tool} failed on {source.name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
        seconds, passes = json.loads(done.stdout.splitlines()[-1])
        return seconds, passes, 0 if target.is_dir() else count_nodes(target)


def measure(source: Path, rounds: int, folder: Path) -> list[str]:
    attempts: dict[str, list[tuple[float, float, int] | None]] = {tool: [] for tool in TOOLS}
    for turn in range(rounds):
        for tool in list(TOOLS)[:: -1 if turn % 2 else 1]:
            attempts[tool].append(once(tool, source, folder))
    cells = [source.stem, str(count_nodes(source))]
    for tool, results in attempts.items():
        good = [result for result in results if result is not None]
        if not good:
            cells.append("failed")
            continue
        seconds, passes = (statistics.median(column) for column in list(zip(*good, strict=True))[:2])
        inside = f" ({passes:.2f})" if tool.startswith("irc") else ""
        cells.append(f"{seconds:.2f}{inside}" + (f", {good[0][2]}" if good[0][2] else ""))
    return cells


def bert(path: Path) -> None:
    """BERT of 15 layers, 64 wide, as torch.onnx writes it before it optimizes; batch and length are dynamic."""
    import torch
    from transformers import BertConfig, BertModel

    from tests.architectures import Tokens, last_hidden

    torch.manual_seed(0)
    module = Tokens(BertModel(BertConfig(vocab_size=100, hidden_size=64, num_hidden_layers=15, num_attention_heads=4,
                                         intermediate_size=128)), last_hidden).eval()  # fmt: skip
    tokens = torch.randint(0, 100, (2, 16))
    axes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("length", max=256)}
    with torch.no_grad():
        program = torch.onnx.export(module, (tokens, torch.ones_like(tokens)), dynamo=True, verbose=False,
                                    dynamic_shapes=(axes, axes), optimize=False)  # fmt: skip
    assert program is not None
    onnx.save(program.model_proto, path)


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="irc-optimizers-") as temporary:
        models = arguments.models
        if not models:
            models = [zoo_path(name) for name in ENTRIES] + [Path(temporary, "bert, 15 layers.onnx")]
            bert(models[-1])
        print(row(["seconds (of them passes), nodes", "nodes", *TOOLS]))
        print(row(["---"] * (2 + len(TOOLS))))
        for model in models:
            print(row(measure(model, arguments.rounds, Path(temporary))), flush=True)


if __name__ == "__main__":
    main()
