"""Detect that `pip install irc` has overwritten this package.

The PyPI distribution `irc` is a chat library that installs into the same folder. pip merges the two without a
warning: files with equal names are overwritten (`irc/__init__.py` is one), and uninstalling either removes shared
files. This module imports nothing of irc but the package itself, so that it works in such a mixture.
"""

from __future__ import annotations

import irc

MESSAGE = """\
error[install.overwritten]: another package has overwritten irc
  --> {place}
  the PyPI package "irc" is a chat library that installs into the same folder as "irc-compiler"
  help: pip uninstall -y irc irc-compiler && pip install irc-compiler
"""


def overwritten() -> str | None:
    """The error to print if `irc/__init__.py` is missing or of another package, else None."""
    if getattr(irc, "__irc_compiler__", False) is True:
        return None
    # Without an __init__.py (the chat library was uninstalled) irc is a namespace package: no __file__.
    place = getattr(irc, "__file__", None) or f"{next(iter(irc.__path__))}/__init__.py (missing)"
    return MESSAGE.format(place=place)
