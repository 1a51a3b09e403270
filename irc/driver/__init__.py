"""The verbs as Python functions: this is where frontends, passes and backends are joined.

Each verb returns a dataclass or a module; the command line prints it and `--json` dumps it. MODEL is everywhere
a path to an `.onnx` or `.irc` file, `FILE.py:NAME` (a module, or a function without parameters that makes one),
`-` for text on standard input, or a `Module`. A verb's module is imported when the verb is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_rooms = {
    "Settings": "irc.driver.models",
    "bench": "irc.driver.benchmarking",
    "check": "irc.driver.checking",
    "compile": "irc.driver.compiling",
    "doc": "irc.driver.documentation",
    "experiment": "irc.driver.experimenting",
    "explain": "irc.driver.explaining",
    "extract": "irc.driver.extracting",
    "from_torch": "irc.driver.models",
    "kernels": "irc.driver.compiling",
    "load": "irc.driver.models",
    "opt": "irc.driver.compiling",
    "print": "irc.driver.printing",
    "reduce": "irc.driver.reducing",
    "run": "irc.driver.running",
    "trace": "irc.op",
}

__all__ = list(_rooms)


def __getattr__(name: str) -> Any:
    if name not in _rooms:
        raise AttributeError(f"module 'irc.driver' has no attribute {name!r}")
    return getattr(import_module(_rooms[name]), name)
