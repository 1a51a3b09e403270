"""The versions, here and nowhere else: pyproject.toml reads irc's from this file."""

__version__ = "0.1.0"
FORMAT_VERSION = 1  # of the text format: the number in the first line of a text
