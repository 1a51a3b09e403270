"""A compiled model: `load()` gives it, `load()(x=...)` runs it.

Written by irc; this folder is yours. kernels.py holds the Triton kernels, program.py calls them in order, host.py
the PyTorch calls between them, runtime.py loads and launches, interpreting.py stands in for a GPU, partial.py writes
files, manifest.json says what is inside.
"""

from .runtime import ArtefactError, Model, load

__all__ = ["ArtefactError", "Model", "load"]
