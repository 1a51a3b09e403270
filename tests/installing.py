"""Build irc's wheel and install it elsewhere, for the tests that must not see the source checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"irc": "irc", "frontends": "irc/frontends", "passes": "irc/passes", "backends": "irc/backends"}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def build_wheel(work: Path) -> Path:
    """A wheel of the checkout, built from a copy: setuptools would reuse stale files of `build/`."""
    source = work / "source"
    source.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    command(*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", work / "dist", source)
    [wheel] = (work / "dist").glob("irc_compiler-*.whl")
    return wheel


def modules_of(wheel: Path) -> list[str]:
    """Paths of the Python modules in a wheel; templates are data that is copied into artefacts."""
    names = zipfile.ZipFile(wheel).namelist()
    return sorted(n for n in names if n.endswith(".py") and "/templates/" not in n)


def fresh_environment(folder: Path) -> Path:
    """An environment of its own that sees this one's dependencies; returns its Python."""
    venv.create(folder, symlinks=True, with_pip=False)
    [packages] = folder.glob("lib/python*/site-packages")
    dependencies = [p for p in sys.path if Path(p).name == "site-packages"]
    # .pth files of those folders are not read again, so the checkout does not leak in. pip still sees
    # the record of its editable install there; it reinstalls over such a one, and removes nothing outside
    # the new environment.
    (packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return folder / "bin" / "python"


def install(python: Path, *what: str | Path) -> None:
    command(*PIP, "--python", python, "install", "--no-deps", *what)


def install_into(folder: Path, wheel: Path) -> None:
    """Install a wheel into a folder of its own, for tools that look for packages there."""
    command(*PIP, "install", "--no-deps", "--target", folder, wheel)


def command(
    *words: str | Path, cwd: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done
