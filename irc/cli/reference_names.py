"""Names that irc declares, for shell completion, read from sources without importing what they are the names of."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from irc.cli.model_names import passes_in
from irc.named_pipelines import ALIASES


def pass_files() -> dict[str, Path]:
    """The files of irc's passes by their names in pipelines."""
    spec = find_spec("irc.passes")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    return {entry.name.rstrip("_"): Path(place, f"{entry.name}.py") for place in places
            for entry in pkgutil.iter_modules([place]) if not entry.name.startswith("_")}  # fmt: skip


def loaded_passes(paths: Iterable[str]) -> dict[str, list[str]]:
    """The passes of a user's files, with their options."""
    passes = {}
    for path in paths:
        for name, options in passes_in(Path(path).read_text("utf-8")).items():
            passes[re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()] = options
    return passes


def stage_names(loads: Iterable[str] = ()) -> list[str]:
    """Named pipelines, passes, and those of a user's files."""
    return [*ALIASES, *sorted(pass_files()), *sorted(loaded_passes(loads))]


def option_names(stage: str, loads: Iterable[str] = ()) -> Iterator[str]:
    """The options of a pass; of a named pipeline, those of its passes after the pass's name."""
    if stage in ALIASES:
        for name in dict.fromkeys(re.findall(r"[a-z_]+", re.sub(r"\{[^}]*\}", "", ALIASES[stage]))):
            yield from (f"{name}.{option}" for option in pass_options(name, {}))
    else:
        yield from pass_options(stage, loaded_passes(loads))


def pass_options(name: str, loaded: Mapping[str, list[str]]) -> list[str]:
    """The options of a pass; one of a user's file has precedence."""
    if name in loaded or name not in pass_files():
        return loaded.get(name, [])
    return [option for options in passes_in(pass_files()[name].read_text("utf-8")).values() for option in options]


def codes() -> list[str]:
    """All error codes."""
    from irc.diagnostics import CODES

    return list(CODES)


def legality_rules() -> list[str]:
    """The numbers of the legality rules of fusion."""
    from irc.kernel.rules import LEGALITY_RULES

    return list(LEGALITY_RULES)
