"""irc: a small, readable compiler for studying fusion.

PyTorch and ONNX graphs in, ONNX Runtime models or Triton kernels out. Importing this module is
cheap: it loads no numpy, no onnx, no torch. Each public function is loaded when first used.
"""

from __future__ import annotations

from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

from irc import displays as _displays
from irc._version import __version__

# Marks this file as irc's. The PyPI package `irc` (a chat library) installs files into the same
# folder and overwrites this one; `irc/cli/sentinel.py` looks for the mark.
__irc_compiler__ = True

# In a source checkout `frontends/`, `passes/` and `backends/` lie beside this folder, not in it, and
# `irc/` itself is importable from the root as a plain folder. Looking for subpackages in the root too
# makes `irc.frontends` the same files there as in an installed wheel, however it was imported: an
# editable install, `python -c` or pytest in the root, a subprocess. (Tried: setuptools' editable finder
# alone is not asked when the root is on `sys.path`; its strict mode does not see new files.)
# An installed wheel has these folders inside `irc/`, and no pyproject.toml beside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "frontends").is_dir():
    __path__.append(str(_root))

# Public name -> the module that defines it. No name here may equal a submodule's.
_exports = {
    "IrcError": "irc.diagnostics",
    "Module": "irc.module",
    "Settings": "irc.driver.models",
    "OnnxOptions": "irc.driver.onnx_models",
    "allow": "irc.limits",
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

__all__ = ["__version__", *_exports]

# What type checkers and editors see; tests/test_install.py compares it with the table.
if TYPE_CHECKING:
    from irc.diagnostics import IrcError as IrcError
    from irc.driver.benchmarking import bench as bench
    from irc.driver.calibrating import calibrate as calibrate
    from irc.driver.checking import check as check
    from irc.driver.compile_cache import cache as cache
    from irc.driver.compile_report import report as report
    from irc.driver.compiled_programs import load_compiled as load_compiled
    from irc.driver.compiling import compile as compile
    from irc.driver.differing import diff as diff
    from irc.driver.documentation import doc as doc
    from irc.driver.experimenting import experiment as experiment
    from irc.driver.explaining import explain as explain
    from irc.driver.extracting import extract as extract
    from irc.driver.fx_graphs import to_fx as to_fx
    from irc.driver.kernel_listing import kernels as kernels
    from irc.driver.models import Settings as Settings
    from irc.driver.models import from_torch as from_torch
    from irc.driver.models import load as load
    from irc.driver.onnx_models import OnnxOptions as OnnxOptions
    from irc.driver.optimizing import opt as opt
    from irc.driver.planning import compare_plans as compare_plans
    from irc.driver.planning import edit_plan as edit_plan
    from irc.driver.planning import make_plan as make_plan
    from irc.driver.printing import print as print
    from irc.driver.profiling import profile as profile
    from irc.driver.reducing import reduce as reduce
    from irc.driver.running import run as run
    from irc.driver.sessions import session_options as session_options
    from irc.driver.tuning import tune as tune
    from irc.driver.viewing import view as view
    from irc.limits import allow as allow
    from irc.module import Module as Module
    from irc.op import trace as trace
else:

    def __getattr__(name: str) -> Any:
        if name not in _exports:
            raise AttributeError(f"module 'irc' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_exports[name]), name)
        globals()[name] = value
        return value


def _page_of(module: Any) -> str | None:
    from irc.driver.viewing import framed

    return framed(module)


_displays.page_of = _page_of


def __dir__() -> list[str]:
    return sorted({*globals(), *_exports})
