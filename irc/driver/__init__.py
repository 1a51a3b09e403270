"""The commands as Python functions: this package joins frontends, passes and backends.

Each function returns a dataclass or a module; the command line prints it and `--json` dumps it. MODEL is everywhere
a path to an `.onnx` or `.irc` file, `FILE.py:NAME` (a module, or a function without parameters that returns one),
`-` for text on standard input, or a `Module`. A command's module is imported when the command is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "OnnxOptions": "irc.driver.onnx_models",
    "Settings": "irc.driver.models",
    "bench": "irc.driver.benchmarking",
    "cache": "irc.driver.compile_cache",
    "calibrate": "irc.driver.calibrating",
    "check": "irc.driver.checking",
    "compare_plans": "irc.driver.planning",
    "compile": "irc.driver.compiling",
    "diff": "irc.driver.differing",
    "doc": "irc.driver.documentation",
    "edit_plan": "irc.driver.planning",
    "experiment": "irc.driver.experimenting",
    "explain": "irc.driver.explaining",
    "extract": "irc.driver.extracting",
    "from_torch": "irc.driver.models",
    "kernels": "irc.driver.kernel_listing",
    "load": "irc.driver.models",
    "load_compiled": "irc.driver.compiled_programs",
    "make_plan": "irc.driver.planning",
    "opt": "irc.driver.optimizing",
    "print": "irc.driver.printing",
    "profile": "irc.driver.profiling",
    "reduce": "irc.driver.reducing",
    "report": "irc.driver.compile_report",
    "run": "irc.driver.running",
    "session_options": "irc.driver.sessions",
    "to_fx": "irc.driver.fx_graphs",
    "trace": "irc.op",
    "tune": "irc.driver.tuning",
    "view": "irc.driver.viewing",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'irc.driver' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
