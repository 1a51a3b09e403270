"""Measurements of `irc experiment`, kept in a store as JSON, by the content of all that they depend on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irc.device import Device
from irc.driver.content_keys import content_key
from irc.driver.experiment_report import Measurement, Part
from irc.driver.models import Settings
from irc.driver.store import Store

TYPES: dict[Any, Any] = {"int": int, "float": (int, float), "str": str, "float | None": (int, float, type(None))}


class Cache:
    """The measurements in a folder, which is made if it is missing."""

    def __init__(self, folder: str | Path) -> None:
        self.store = Store(folder)

    def key(self, model: str, pipeline: str, settings: Settings, device: Device, options: tuple[Any, ...],
            others: Sequence[str] = ()) -> str:  # fmt: skip
        """The name of a measurement; `model` is the result of `content_of`, and `others` are files beside those that
        the pipeline names."""
        return content_key(model, pipeline, settings, device, options, others)

    def get(self, key: str) -> Measurement | None:
        """The measurement, or None. What another program has left there under this name counts as none."""
        content = self.store.read(f"{key}.json")
        if content is None:
            return None
        try:
            fields = json.loads(content)
            groups = {name: tuple(map(_text, values)) for name, values in fields["groups"].items()}
            parts = tuple(_made(Part, each) for each in fields["parts"])
            measurement: Measurement = _made(Measurement, fields | {"groups": groups, "parts": parts})
            return measurement
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def put(self, key: str, measurement: Measurement) -> None:
        """Keep a measurement; one that fails is made again the next time, since what was missing may be there."""
        if not measurement.failure:
            self.store.write(f"{key}.json", json.dumps(dataclasses.asdict(measurement)).encode())


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
