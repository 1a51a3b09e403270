"""The package as installed: what the wheel holds, what importing costs, and the sentinel.

The PyPI distribution `irc` is a chat library with a package folder of the same name. pip lays it over
irc's files silently; the `irc` command must then say so, whatever is left.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from command_line import irc_here
from installing import PACKAGES, PIP, ROOT, build_wheel, command, fresh_environment, install, install_into
from minimum_versions import PROJECT, minimum_versions

import irc


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def python(tmp_path: Path, wheel: Path) -> Path:
    """The Python of an environment of its own, in which the wheel is installed."""
    python = fresh_environment(tmp_path / "environment")
    install(python, wheel)
    return python


def test_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    kept = {".py", ".lark", ".md", ".toml", ".json"}
    expected = {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        if path.suffix in kept or path.name == "py.typed" or {"templates", "pages"} & set(path.parts)
    }
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert held == expected, "a folder may be missing from `packages` in pyproject.toml"


def test_installed_wheel_is_one_package(python: Path, tmp_path: Path) -> None:
    program = "import irc.passes, irc.backends.triton as b; print(b.__file__, irc.__path__)"
    done = command(python, "-c", program, cwd=tmp_path)
    [environment] = (tmp_path / "environment").glob("lib/python*/site-packages")
    folder = environment / "irc"
    assert done.stdout == f"{folder}/backends/triton/__init__.py ['{folder}']\n"


@pytest.mark.parametrize("cwd", [ROOT, ROOT / "tests", Path("/")])
def test_checkout_is_one_package_from_any_folder(cwd: Path) -> None:
    program = "import irc.frontends.onnx as f, irc.passes as p; print(f.__file__); print(p.__file__)"
    done = command(sys.executable, "-c", program, cwd=cwd)
    assert done.stdout.split() == [f"{ROOT}/frontends/onnx/__init__.py", f"{ROOT}/passes/__init__.py"]


def test_importing_irc_loads_nothing_heavy() -> None:
    program = "import sys, json, irc; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(command(sys.executable, "-c", program).stdout))
    heavy = {"numpy", "onnx", "onnxruntime", "torch", "triton", "sympy", "lark", "rich", "click"}
    assert not loaded & heavy
    assert {m for m in loaded if m.startswith("irc.")} == {"irc._version", "irc.displays"}


def test_version_is_stated_once() -> None:
    assert irc.__version__ == importlib.import_module("irc._version").__version__
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", sorted(irc._exports))
def test_public_name_resolves_and_shadows_no_submodule(name: str) -> None:
    assert callable(getattr(irc, name))
    files = {entry.name for home in irc.__path__ for entry in Path(home).iterdir()}  # names as they are written
    assert not files & {f"{name}.py", name}


def run_command(python: Path) -> subprocess.CompletedProcess[str]:
    return command(python.with_name("irc"), "--version", cwd=python.parent, check=False)


def assert_overwritten(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error[install.overwritten]: ")
    assert "pip uninstall -y irc irc-compiler && pip install irc-compiler" in done.stderr
    assert "Traceback" not in done.stderr


def test_chat_library_installed_over_ours_is_noticed(python: Path, wheel: Path) -> None:
    done = run_command(python)
    assert (done.returncode, done.stderr) == (0, "")
    assert irc.__version__ in done.stdout

    install(python, "irc")
    assert_overwritten(run_command(python))

    # The chat library takes irc/__init__.py away with it: a package without one is no better.
    command(*PIP, "--python", python, "uninstall", "-y", "irc")
    done = run_command(python)
    assert_overwritten(done)
    assert "__init__.py (missing)" in done.stderr

    # The remedy works.
    command(*PIP, "--python", python, "uninstall", "-y", "irc", "irc-compiler")
    assert not python.with_name("irc").exists()
    install(python, wheel)
    assert run_command(python).returncode == 0


def test_ours_installed_over_the_chat_library_works(tmp_path: Path, wheel: Path) -> None:
    python = fresh_environment(tmp_path / "environment")
    install(python, "irc")
    install(python, wheel)
    done = run_command(python)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_dependency_has_a_lowest_version() -> None:
    """`make test-minimum` installs these; the newest release of a package satisfies each, as constraints.txt shows."""
    text = PROJECT.read_text()
    lowest = minimum_versions(text, {"torch": "2.13.0"})
    assert {"numpy", "onnx", "onnxruntime", "lark", "click", "ml_dtypes", "triton"} <= set(lowest)
    assert lowest["torch"] == "2.13.0"
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for name, version in lowest.items():
        if name in pinned:
            assert parts(version) <= parts(pinned[name]), name


def parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_examples_and_a_script_pass_pyright(wheel: Path, tmp_path: Path) -> None:
    """Every `type: ignore` of the script is a mistake that has to be found: one that is not needed is an error."""
    install_into(tmp_path / "installed", wheel)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "tests" / "typed_script.py", tmp_path)
    options = {"include": ["examples", "typed_script.py"], "extraPaths": ["installed"], "typeCheckingMode": "standard",
               "enableTypeIgnoreComments": True, "reportUnnecessaryTypeIgnoreComment": True}  # fmt: skip
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(options))
    pyright = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    report = json.loads(command(*pyright, cwd=tmp_path, check=False).stdout)
    mistakes = [each for each in report["generalDiagnostics"] if each["severity"] in ("error", "warning")]
    assert report["summary"]["filesAnalyzed"] >= 9 and mistakes == []


def test_source_distribution_has_what_its_tests_read(tmp_path: Path) -> None:
    files = tracked_files()
    if not files:
        pytest.skip("this is no clone: which files belong to irc is not known")
    for name in files:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    build = f"import setuptools.build_meta as backend; backend.build_sdist({str(tmp_path)!r})"
    command(sys.executable, "-c", build, cwd=tmp_path / "source")
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as held:
        names = {name.partition("/")[2] for name in held.getnames()}
    assert set(files) <= names, set(files) - names


def tracked_files() -> list[str]:
    """What git has of this folder, without what was deleted; nothing outside of a clone."""
    if not (ROOT / ".git").exists():
        return []
    listed = command("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


def test_commands_of_the_workflow_run(tmp_path: Path) -> None:
    """What runs on other systems after a push runs here first."""
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    commands = re.findall(r"- run: irc (.*)", workflow)
    assert len(commands) >= 4
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for each in commands:
        done = irc_here(*each.split(), folder=tmp_path)
        assert done.code == 0, done.err


def test_tests_of_the_workflows_need_no_torch() -> None:
    """What is tested on other systems, and of the source distribution, can be imported without PyTorch and Triton."""
    texts = [path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
    lines = [re.findall(r"python -m pytest -q ((?:tests/test_\w+\.py\s*)+)", text) for text in texts]
    files = sorted({name for runs in lines for each in runs for name in each.split()})
    assert len(files) >= 8
    program = "import sys, pytest; sys.modules |= {'torch': None, 'triton': None}; sys.exit(pytest.main(sys.argv[1:]))"
    command(sys.executable, "-c", program, "--collect-only", "-q", "-p", "no:cacheprovider", *files, cwd=ROOT)
