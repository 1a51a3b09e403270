"""How long commands take from start to end, as processes: medians of five, one kind of command after the other.

    python tests/benchmarks/startup.py [MODEL.onnx]

The bare interpreter and `import onnx` stand beside, taken in the same rounds, since machines differ: `irc print` of
an ONNX model should stay under 0.8 s, of which most is importing numpy and onnx.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS = 5


def seconds(command: list[str | Path]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.command_line import TEXT, model_proto

    irc = Path(sys.executable).with_name("irc")
    with tempfile.TemporaryDirectory() as folder:
        model, text = Path(folder, "small.onnx"), Path(folder, "small.irc")
        onnx.save(model_proto(), model)
        text.write_text(TEXT)
        commands: dict[str, list[str | Path]] = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
            "python -c 'import onnx'": [sys.executable, "-c", "import onnx"],
            "irc --help": [irc, "--help"],
            "irc --version": [irc, "--version"],
            "irc print small.irc": [irc, "print", text],
            "irc print small.onnx": [irc, "print", model],
        }
        for name in sys.argv[1:]:
            commands[f"irc print {Path(name).name}"] = [irc, "print", Path(name).resolve()]
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                times[name].append(seconds(command))
    for name, values in times.items():
        print(f"{name:32} {statistics.median(values):6.2f} s   ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
