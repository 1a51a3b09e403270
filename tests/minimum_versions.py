"""The lowest versions that pyproject.toml accepts, as constraints of pip: `make test-minimum` installs exactly these.

    python tests/minimum_versions.py [NAME=VERSION ...]

Other versions may be given for some packages: the lowest torch is a download of gigabytes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
REQUIREMENT = re.compile(r"""["']([A-Za-z][\w.-]*)\s*>=\s*([\d.]+)""")


def minimum_versions(text: str, other: Mapping[str, str]) -> dict[str, str]:
    """The version of each package that irc or an extra of it requires, by name; `other` have precedence. The tools of
    the tests may be newer. A requirement that is stated twice has to state the same version."""
    versions: dict[str, str] = {}
    begin, end = text.index("\ndependencies = ["), text.index("\ntest = [")
    for name, version in REQUIREMENT.findall(text[begin:end]):
        if versions.setdefault(name, version) != version:
            raise ValueError(f"{name} is required from {versions[name]} and from {version}")
    return {name: other.get(name, version) for name, version in versions.items()}


def main() -> None:
    other = dict(argument.split("=", 1) for argument in sys.argv[1:])
    for name, version in minimum_versions(PROJECT.read_text(), other).items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
