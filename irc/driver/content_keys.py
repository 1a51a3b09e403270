"""Names of entries in stores: the SHA-256 of all that an entry depends on.

These are the model with its weights, the pipeline, the options, the device, the files that these name (a Python file
with those beside it, which it may import), the resource limits, and irc itself with the versions of the packages that
it computes with. Nothing is looked up by time or by name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from irc.device import Device
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.driver.pipelines import options_of
from irc.files import open_file
from irc.limits import LIMITS, limit
from irc.module import Module
from irc.weights import Tensor

PACKAGES = ("numpy", "torch", "triton", "onnx", "onnxruntime", "ml_dtypes", "scipy")
SOURCES = (".py", ".lark", ".toml", ".json", ".md")  # suffixes of the files that irc consists of
# Those on which results depend, besides files.
SETTINGS = ("target", "numerics", "products", "dims", "opset", "specialize", "fold_defaults")


def content_key(model: str, pipeline: str, settings: Settings, device: Device, others: Sequence[Any] = (),
                files: Iterable[str] = ()) -> str:  # fmt: skip
    """The name of what a pipeline makes of a model; `model` is the result of `content_of`. `others` are further
    options, and `files` those beside the files that the pipeline and the settings name."""
    paths = (*named_files(pipeline), *files_named(settings.costs), *settings.loads, *files)
    named = [_file_content(path) for path in paths]
    chosen = {name: getattr(settings, name) for name in (*SETTINGS, "costs")}
    figures = {name: value for name, value in vars(device).items() if name != "name"}
    limits = {name: limit(name) for name in LIMITS}
    parts = (_implementation(), model, pipeline, chosen, figures, limits, tuple(others), named)
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def content_of(module: Module) -> str:
    """A digest of a module, its weights and its defaults."""
    state = hashlib.sha256(str(module).encode())
    for operation in module.walk():
        for value in operation.attributes.values():
            for tensor in _tensors(value):
                state.update(tensor.digest().encode())
    for function in module.functions.values():
        for tensor in function.defaults.values():
            state.update(tensor.digest().encode())
    return state.hexdigest()


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in an attribute, which may be a tuple or a dictionary."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def named_files(pipeline: str) -> list[str]:
    """The files that options of a pipeline name, alone or as FILE.py:NAME."""
    try:
        values = [option.value for option in options_of(pipeline)]
    except IrcError:  # what uses it fails, and is not kept
        return []
    return files_named(*values)


def files_named(*values: str | None) -> list[str]:
    """The files among values of options, alone or as FILE.py:NAME."""
    names = (value.rpartition(":")[0] if ".py:" in value else value for value in values if value is not None)
    return [name for name in names if Path(name).is_file()]


def _file_content(path: str) -> str:
    """A digest of a file; of a Python file, with those beside it."""
    place = Path(path)
    files = [place, *sorted(place.absolute().parent.glob("*.py"))] if place.suffix == ".py" else [place]
    return hashlib.sha256("".join(open_file(each).digest for each in files).encode()).hexdigest()


@cache
def _implementation() -> str:
    """A digest of irc's source, with the versions of what it computes with."""
    state = hashlib.sha256()
    for part in ("irc", "irc.frontends", "irc.passes", "irc.backends"):
        specification = importlib.util.find_spec(part)
        assert specification is not None and specification.submodule_search_locations
        for path in sorted(Path(specification.submodule_search_locations[0]).rglob("*")):
            if path.suffix in SOURCES:
                state.update(hashlib.sha256(path.read_bytes()).digest())
    state.update(sys.version.encode())
    for package in PACKAGES:
        try:
            state.update(f"{package} {metadata.version(package)}".encode())
        except metadata.PackageNotFoundError:
            state.update(package.encode())
    return state.hexdigest()
