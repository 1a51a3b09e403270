"""The error of everything that can be wrong with what a program is given."""

from __future__ import annotations


class ArtefactError(ValueError):
    """What is wrong with the inputs, or with this folder, in a sentence."""
