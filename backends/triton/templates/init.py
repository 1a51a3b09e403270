"""A compiled model: `load()` gives it, `load()(x=...)` runs it.

Written by irc; this folder is yours. kernels.py holds the Triton kernels and program.py calls them in order; between
them it calls PyTorch by the functions of host.py (with elements.py, windows.py and, where they are needed, aten.py,
drawing.py and strings.py). runtime.py loads and launches, outputs.py finishes results, interpreting.py stands in for a
GPU, errors.py has the error, partial.py writes files, manifest.json says what is inside.
"""

from .errors import ArtefactError

try:
    from .runtime import Model, load
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    message = "this compiled model needs PyTorch, which is not installed: pip install torch triton"
    raise ModuleNotFoundError(message, name="torch") from None

__all__ = ["ArtefactError", "Model", "load"]
