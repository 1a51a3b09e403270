"""Run mypy on an installed wheel, from outside the root, and count what it checked; then on a user's script.

On an editable install `mypy -p irc` sees one file and reports success; from the root, `./irc` shadows
the installed package and hides `irc.frontends`. So: build a wheel, install it into a folder of its own,
check it there, and insist that every module of the wheel was checked. tests/typed_script.py is what a user writes: it
states the types of the public functions, and has mistakes that must be found.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

from installing import ROOT, build_wheel, install_into, modules_of


def run_together(folder: Path, environment: dict[str, str], *commands: list[str]) -> list[CompletedProcess[str]]:
    """What commands print that run at the same time."""
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(partial(subprocess.run, cwd=folder, env=environment, capture_output=True, text=True),
                             commands))  # fmt: skip


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        wheel = build_wheel(work)
        target = work / "installed"
        install_into(target, wheel)
        environment = {**os.environ, "MYPYPATH": str(target)}
        mypy = [sys.executable, "-m", "mypy", "-p", "irc"]
        mypy += ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
        script = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache_script")]
        script += ["--follow-imports", "silent", str(ROOT / "tests/typed_script.py")]
        done, of_script = run_together(target, environment, mypy, script)
        module_count = len(modules_of(wheel))
    home = {"irc/frontends/": "frontends/", "irc/passes/": "passes/", "irc/backends/": "backends/"}
    report = done.stdout
    for installed, source in home.items():
        report = re.sub(f"^{installed}", source, report, flags=re.MULTILINE)
    sys.stdout.write(report)
    sys.stderr.write(done.stderr)
    # "Success: no issues found in 40 source files", "Found 3 errors in 2 files (checked 40 source files)"
    counted = re.search(r"(?:found in|checked) (\d+) source files?", done.stdout)
    if counted is None or int(counted[1]) != module_count:
        checked = counted[1] if counted else "no"
        print(f"mypy checked {checked} files; the wheel has {module_count} modules")
        return 1
    sys.stdout.write(of_script.stdout)
    sys.stderr.write(of_script.stderr)
    return done.returncode or of_script.returncode


if __name__ == "__main__":
    sys.exit(main())
