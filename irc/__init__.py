"""irc: a small, readable compiler for studying fusion.

PyTorch and ONNX graphs in, ONNX Runtime models or Triton kernels out. Importing this module is
cheap: it loads no numpy, no onnx, no torch. Each public function is loaded when first used.
"""

from __future__ import annotations

from pathlib import Path as _Path
from typing import Any

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
    "allow": "irc.limits",
    "bench": "irc.driver",
    "check": "irc.driver",
    "compile": "irc.driver",
    "experiment": "irc.driver",
    "explain": "irc.driver",
    "extract": "irc.driver",
    "from_torch": "irc.driver",
    "kernels": "irc.driver",
    "load": "irc.driver",
    "opt": "irc.driver",
    "print": "irc.driver",
    "reduce": "irc.driver",
    "report": "irc.driver",
    "run": "irc.driver",
    "trace": "irc.driver",
}

__all__ = ["__version__", *_exports]


def __getattr__(name: str) -> Any:
    if name not in _exports:
        raise AttributeError(f"module 'irc' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_exports[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_exports})
