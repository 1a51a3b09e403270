"""Measurements of `irc experiment`, kept in a folder by the content of all that they depend on.

A measurement is a JSON file that is named after the SHA-256 of: the model with its weights, the pipeline, the sizes,
the options, the device, the files that these name (a Python file with those beside it, which it may import), and irc
itself with the versions of the packages that it computes with. Nothing is looked up by time or by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from irc.device import Device
from irc.diagnostics import IrcError, Location, fail
from irc.driver.experiment_report import Measurement, Part
from irc.driver.models import Settings
from irc.driver.pipelines import options_of
from irc.files import open_file, replacing
from irc.module import Module
from irc.weights import Tensor

PACKAGES = ("numpy", "torch", "triton", "onnx", "ml_dtypes", "scipy")
SOURCES = (".py", ".lark", ".toml", ".json", ".md")  # suffixes of the files that irc consists of
SETTINGS = ("target", "numerics", "products", "dims", "opset")  # those that figures depend on, besides files
TYPES: dict[Any, Any] = {"int": int, "float": (int, float), "str": str, "float | None": (int, float, type(None))}


class Cache:
    """The measurements in a folder, which is made if it is missing."""

    def __init__(self, folder: str | Path, settings: Settings) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise fail("file.unreadable", error.strerror or str(error), at=Location(file=str(folder))) from None
        self._loads = [_file_content(path) for path in settings.loads]

    def key(self, model: str, pipeline: str, settings: Settings, device: Device, options: tuple[Any, ...],
            others: Sequence[str] = ()) -> str:  # fmt: skip
        """The name of a measurement; `model` is the result of `content_of`, and `others` are files beside those that
        the pipeline names."""
        files = [_file_content(path) for path in (*_named_files(pipeline), *others)]
        chosen = {name: getattr(settings, name) for name in SETTINGS}
        figures = {name: value for name, value in vars(device).items() if name != "name"}
        parts = (_implementation(), model, pipeline, chosen, figures, options, files, self._loads)
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def get(self, key: str) -> Measurement | None:
        """The measurement, or None. What another program has left there under this name counts as none."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            fields = json.loads(bytes(open_file(path, is_input=False).data))
            groups = {name: tuple(map(_text, values)) for name, values in fields["groups"].items()}
            parts = tuple(_made(Part, each) for each in fields["parts"])
            measurement: Measurement = _made(Measurement, fields | {"groups": groups, "parts": parts})
            return measurement
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def put(self, key: str, measurement: Measurement) -> None:
        """Keep a measurement; one that fails is made again the next time, since what was missing may be there."""
        if not measurement.failure:
            with replacing(self._path(key)) as file:
                file.write(json.dumps(dataclasses.asdict(measurement)).encode())

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def _made(kind: Any, fields: dict[str, Any]) -> Any:
    """A `Measurement` or `Part` of what JSON held; raises TypeError for other fields, and for values of other types."""
    for each in dataclasses.fields(kind):
        if each.type in TYPES and not isinstance(fields[each.name], TYPES[each.type]):
            raise TypeError(each.name)
    return kind(**fields)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def content_of(module: Module) -> str:
    """A digest of a module and its weights."""
    state = hashlib.sha256(str(module).encode())
    for operation in module.walk():
        for value in operation.attributes.values():
            if isinstance(value, Tensor):
                state.update(value.digest().encode())
    return state.hexdigest()


def _named_files(pipeline: str) -> list[str]:
    """The files that options of a pipeline name, alone or as FILE.py:NAME."""
    try:
        values = [option.value for option in options_of(pipeline)]
    except IrcError:  # measured, it fails, and is not kept
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
