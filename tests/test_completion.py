"""Shell completion: of commands, options, files, names that irc declares, and names in the model on the line; what it
imports; and that it neither fails nor prints anything else."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import irc
from irc.cli import model_names, reference_names
from irc.cli.completion import SHELLS, VARIABLE
from irc.cli.main import cli
from irc.driver.documentation import RULES
from irc.driver.keeping import FIGURES, read_property
from irc.driver.pipelines import find_pass, pass_names
from irc.kernel.rules import LEGALITY_RULES
from irc.named_pipelines import ALIASES
from tests.cli_reports import fine, working_folder
from tests.command_line import BODIES, EXAMPLES, irc_here

IRC = Path(sys.executable).with_name("irc")
BREAKS = " \t\n\"'@><=;|&(:"  # what Bash has in COMP_WORDBREAKS
BLOCK = f"{EXAMPLES}/block.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    working_folder(tmp_path)
    fine(irc_here("opt", "small.irc", "-p", "fuse", "-o", "fused.irc", folder=tmp_path))
    fine(irc_here("plan", f"{BLOCK}:block", "-o", "plan.json", folder=tmp_path))
    return tmp_path


def answered(folder: Path, line: str, **environment: str) -> list[str]:
    """What irc answers to Bash, which completes the end of a line."""
    request = {VARIABLE: "bash_complete", "COMP_LINE": line, "COMP_WORDBREAKS": BREAKS, **environment}
    done = subprocess.run([IRC], cwd=folder, env={**os.environ, **request}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [each.removeprefix("plain,") for each in done.stdout.splitlines() if each]


@pytest.mark.parametrize(
    ("line", "included"),
    [
        ("irc comp", ["compile", "completion"]),
        ("irc compile --ba", ["--backend"]),
        ("irc compile m.onnx --backend ", ["onnx", "triton"]),
        ("irc compile m.onnx --target sm_", ["sm_80", "sm_90", "sm_100"]),
        ("irc compile m.onnx --quantize ", ["weights=int8", "weights=int4"]),
        ("irc compile mod", ["file,mod"]),
        ("irc reduce m.onnx -o red", ["dir,red"]),
        ("irc doc layer", ["layer_norm"]),
        ("irc kernels m.onnx --limit mem", ["memory="]),
        ("irc experiment m.onnx --device h", ["h100", "h200"]),
        ("irc calibrate --kind Softm", ["Softmax"]),
        (f"irc print {BLOCK}:", ["block", "nucleus", "scaled", "scores"]),
        # pipelines
        ("irc opt m.onnx -p fold,cs", ["fold,cse"]),
        ("irc opt m.onnx -p 'fold,fuse{po", ["fold,fuse{policy="]),
        ("irc opt m.onnx -p 'fuse{policy=none,pl", ["fuse{policy=none,plan=", "fuse{policy=none,planner="]),
        ('irc opt m.onnx -p "default{fuse.po', ["default{fuse.policy="]),
        (f"irc opt m.onnx -p default{{fuse.policy={EXAMPLES}/rules.py:fr", ["frugal"]),
        (f"irc opt m.onnx --load {EXAMPLES}/planted_bug.py -p fold,sh", ["fold,sharpen"]),
        ("irc experiment m.onnx -p base=default -p mine=fold,fu", ["fold,fuse"]),
        ("irc experiment m.onnx -p mine=default --base ", ["mine", "eager", "none"]),
        # values, kernels and symbols
        ("irc explain model.onnx %s", ["%scaled", "%shifted"]),
        ("irc explain model.onnx %scaled ", ["%x", "%w", "%y"]),
        ("irc explain fused.irc @", ["y"]),
        ("irc explain fused.irc ", ["%p", "@y"]),
        ("irc explain type.br", ["type.broadcast"]),
        ("irc explain F1", ["F1", "F10"]),
        ("irc print small.irc --around %", ["%scaled", "%p"]),
        ("irc print small.irc --around=%", ["%scaled", "%p"]),
        ("irc print small.irc --around sc", ["scaled"]),
        ("irc extract model.onnx --from %sc", ["%scaled"]),
        ("irc extract model.onnx --from %scaled --to %s", ["%shifted"]),
        ("irc check small.irc --why-tolerance ", ["%half", "%p"]),
        ("irc run model.onnx --dim ", ["B="]),
        ("irc experiment small.irc model.onnx --dim ", ["N=", "B="]),
        ("irc kernels small.irc --specialize ", ["N="]),
        ("irc reduce m.onnx --keep la", ["launches>="]),
        ("irc reduce m.onnx --keep refused:F1", ["F1", "F10"]),
        ("irc reduce m.onnx --keep error:type.br", ["type.broadcast"]),
        # plans
        ("irc plan ed", ["edit"]),
        ("irc plan edit plan.json --merge ln_1,at", ["ln_1,attended"]),
        ("irc plan edit plan.json --split ln_2:%", ["%ln_2", "%hidden"]),
    ],
)
def test_completions(folder: Path, line: str, included: list[str]) -> None:
    completions = answered(folder, line)
    assert set(included) <= set(completions), completions


def test_options_that_take_a_text_complete_it(tmp_path: Path) -> None:
    """Numbers and choices aside, each option and argument has its function."""
    for name, command in cli.commands.items():
        for parameter in command.params:
            if isinstance(parameter.type, click.types.StringParamType) and not getattr(parameter, "is_flag", False):
                assert parameter._custom_shell_complete is not None, f"{name} {parameter.opts}"


# -- names in models -------------------------------------------------------------------------------------------


def test_names_in_a_text_are_those_of_the_program(folder: Path) -> None:
    (folder / "bodies.irc").write_text(BODIES)
    (folder / "odd.irc").write_text(BODIES.replace("%x", '%"a b/c"').replace("%n", "%n.0/m-1"))
    for name in ("small.irc", "fused.irc", "bodies.irc", "odd.irc"):
        module = irc.load(folder / name)
        names = model_names.names_in(str(folder / name))
        assert set(names.values) == set(module.main.value_names()), name
        kernels = [each.attributes["name"] for each in module.walk() if each.name == "kernel"]
        assert list(names.kernels) == kernels and list(names.symbols) == list(module.main.symbols)


def branches() -> onnx.ModelProto:
    """A model with a branch, an Identity, weights, and symbols in several inputs."""
    then, other = (
        helper.make_graph([helper.make_node(op, ["x"], [f"{op}_out"])], op, [],
                          [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, ["A", "B"])])
        for op in ("Exp", "Neg")
    )  # fmt: skip
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("If", ["c"], ["chosen"], then_branch=then, else_branch=other),
        helper.make_node("Mul", ["chosen", "w"], ["scaled"]),
        helper.make_node("Add", ["scaled", "same"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("c", TensorProto.BOOL, []),
              helper.make_tensor_value_info("x", TensorProto.FLOAT, ["A", "B"])]  # fmt: skip
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["A", "B"])
    weight = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    graph = helper.make_graph(nodes, "branches", inputs, [output], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_names_in_an_onnx_file_are_those_that_are_imported(folder: Path) -> None:
    onnx.save(branches(), folder / "branches.onnx")
    for name in ("model.onnx", "branches.onnx"):
        main = irc.load(folder / name).main
        names = model_names.names_in(str(folder / name))
        assert set(names.values) == set(main.value_names()), name
        assert list(names.symbols) == list(main.symbols)


def test_names_of_irc_are_those_that_it_has() -> None:
    assert reference_names.stage_names() == [*ALIASES, *sorted(pass_names())]
    for name in pass_names():
        options = [*find_pass(name).__dataclass_fields__]
        assert sorted(reference_names.pass_options(name, {})) == sorted(options), name
    assert set(reference_names.legality_rules()) == set(LEGALITY_RULES) < set(RULES)
    from irc.cli.completion import PROPERTIES

    for text in PROPERTIES:
        value = {"=": "3", ":": "F10" if text.startswith("refused") else "type.rank"}.get(text[-1], "")
        read_property("slower-than=eager" if text == "slower-than=" else text + value)
    assert set(FIGURES) == {text.removesuffix(">=") for text in PROPERTIES if text.endswith(">=")}


# -- what it imports, and what goes wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["irc explain model.onnx %", "irc print small.irc --around ", "irc explain fused.irc @", "irc com",
     "irc run model.onnx --dim ", "irc opt model.onnx -p fold,fu", "irc opt model.onnx -p 'fuse{po",
     "irc plan edit plan.json --split ", "irc compile --"],
)  # fmt: skip
def test_completion_imports_nothing_large(folder: Path, line: str) -> None:
    request = {VARIABLE: "bash_complete", "COMP_LINE": line, "COMP_WORDBREAKS": BREAKS}
    done = subprocess.run([sys.executable, "-X", "importtime", IRC], cwd=folder, env={**os.environ, **request},
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.startswith("plain,")
    imported = {each.split("|")[-1].strip().split(".")[0] for each in done.stderr.splitlines() if "|" in each}
    assert not imported & {"numpy", "onnx", "onnxruntime", "torch", "triton", "sympy", "lark", "ml_dtypes"}


def damaged(folder: Path) -> Iterator[str]:
    """Files that are no models, by all of the suffixes."""
    (folder / "folder.onnx").mkdir()
    yield "folder.onnx"
    whole = (folder / "model.onnx").read_bytes()
    for suffix in (".onnx", ".irc", ".pt2", ".json", ".py"):
        for number, content in enumerate((b"", whole[: len(whole) // 2], b"\xff" * 100, b"[]", b"{}", b"def (")):
            name = f"damaged{number}{suffix}"
            (folder / name).write_bytes(content)
            yield name


def test_damaged_files_have_no_completions_and_no_errors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, as there are many: `answer` is what the process calls."""
    from irc.cli import completion

    monkeypatch.chdir(folder)
    monkeypatch.setenv(VARIABLE, "bash_complete")
    for name in [*damaged(folder), "missing.onnx", "missing.py"]:
        for line in (
            f"irc explain {name} %",
            f"irc kernels {name} --dim ",
            f"irc plan edit {name} --split ",
            f"irc print {name}:",
            f"irc opt m.onnx --load {name} -p fo",
            f"irc explain {name} %a --remarks @",
        ):
            monkeypatch.setenv("COMP_LINE", line)
            assert completion.answer(cli) == 0, line


def test_names_that_a_terminal_would_act_on_are_left_out(folder: Path) -> None:
    names = ["plain", '"red\x1b[31m"', '"turned\u202e"']
    (folder / "named.irc").write_text("".join(f"%{name} = neg %x : f32[2]\n" for name in names), encoding="utf-8")
    assert {"%x", "%plain"} == set(answered(folder, "irc explain named.irc %"))


def test_lines_that_are_wrong_have_no_errors(folder: Path) -> None:
    for line in ("irc nothing ", "irc print --nothing ", "irc kernels small.irc --dim N --limit ", "irc print 'small",
                 "irc print \\", "irc", "irc kernels small.irc --dim N=1=2,x --dim "):  # fmt: skip
        answered(folder, line)
    assert answered(folder, "irc print small.irc", COMP_WORDBREAKS="") == ["file,small.irc"]


def test_a_tab_runs_no_program(folder: Path) -> None:
    source = "print('ran')\nopen('ran', 'w')\ndef model(): ...\nclass Kept: ...\n_inner = 1\nx: int = 2\n"
    (folder / "mine.py").write_text(source)
    assert answered(folder, "irc print mine.py:") == ["model", "Kept", "x"]
    assert answered(folder, "irc explain mine.py:model %") == []
    assert not (folder / "ran").exists()


# -- shells ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(tmp_path: Path, shell: str) -> None:
    script = irc_here("completion", shell, folder=tmp_path).out
    assert f"{VARIABLE}={shell}_complete" in script and "irc" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    if shell == "fish":  # a list of passes has commas
        assert 'string split --max 1 ","' in script and 'string split ","' not in script


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_answered(folder: Path, shell: str) -> None:
    words = ["irc", "explain", "model.onnx", "%sc"]
    request = {VARIABLE: f"{shell}_complete", "COMP_WORDS": shlex.join(words),
               "COMP_CWORD": "3" if shell == "zsh" else words[-1]}  # fmt: skip
    done = subprocess.run([IRC], cwd=folder, env={**os.environ, **request}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "%scaled" in done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("irc ex", ["experiment", "explain", "extract"]),
        ("irc explain model.onnx %s", ["%scaled", "%shifted"]),
        ("irc explain fused.irc @", ["y"]),
        (f"irc print {BLOCK}:sca", ["scaled"]),
        ("irc extract model.onnx --from=%sc", ["%scaled"]),
        ("irc opt model.onnx -p fold,cs", ["fold,cse"]),
    ],
)
def test_bash_completes_by_the_script(folder: Path, line: str, expected: list[str]) -> None:
    """The whole way: Bash evaluates the script, and calls the function that it registers."""
    script = irc_here("completion", "bash", folder=folder).out
    probe = f'COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; _irc_completion irc; echo "${{COMPREPLY[@]}}"'
    path = os.pathsep.join([str(IRC.parent), os.environ["PATH"]])
    done = subprocess.run(["bash", "-c", f"{script}\nCOMP_WORDBREAKS={shlex.quote(BREAKS)}\n{probe}"], cwd=folder,
                          env={**os.environ, "PATH": path}, capture_output=True, text=True)  # fmt: skip
    assert done.stdout.split() == expected, done.stderr


ZSH = r"""
autoload -Uz compinit && compinit -u -D
eval "$(irc completion zsh)"
probe() { zle expand-or-complete; print -r -- "LINE[$BUFFER]END"; BUFFER="" }
zle -N probe && bindkey '^G' probe
print -r -- REA''DY
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_by_the_script(folder: Path) -> None:
    """In a terminal: what Tab makes of a line. A space follows what is complete."""
    pexpect = pytest.importorskip("pexpect", reason="pexpect, which has no package for Windows, is not installed")
    path = os.pathsep.join([str(IRC.parent), os.environ["PATH"]])
    zsh = pexpect.spawn("zsh", ["-f", "-i"], cwd=folder, encoding="utf-8", timeout=60, dimensions=(60, 200),
                        env={**os.environ, "PATH": path, "TERM": "dumb", "HOME": str(folder)})  # fmt: skip
    for line in ZSH.strip().splitlines():
        zsh.sendline(line)
    zsh.expect("READY")
    for line, expected in (
        ("irc compl", "irc completion "),
        ("irc compile mod", "irc compile model.onnx "),
        ("irc compile --backend tr", "irc compile --backend triton "),
        ("irc explain model.onnx %pro", "irc explain model.onnx %product "),
        ("irc explain fused.irc @", "irc explain fused.irc @y "),
        ("irc run small.irc --dim ", "irc run small.irc --dim N="),
        ("irc opt small.irc -p fold,cse,fu", "irc opt small.irc -p fold,cse,fuse "),
        ("irc opt small.irc -p 'fuse{poli", "irc opt small.irc -p 'fuse{policy="),
        ("irc opt small.irc -p fuse{poli", "irc opt small.irc -p fuse{poli"),  # it would list alternatives
        (f"irc print {BLOCK}:blo", f"irc print {BLOCK}:block "),
        ("irc explain type.broad", "irc explain type.broadcast "),
    ):
        zsh.send(f"{line}\x07")
        zsh.expect(r"LINE\[(.*?)\]END")
        assert zsh.match[1] == expected
    zsh.close(force=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("irc compl", ["completion"]),
        ("irc compile mod", ["model.onnx"]),
        ("irc explain fused.irc @", ["@y"]),
        ("irc run small.irc --dim ", ["N="]),
        ("irc opt small.irc -p fold,cse,fu", ["fold,cse,fuse"]),
        ('irc opt small.irc -p "fuse{poli', ["fuse{policy="]),
        (f"irc print {BLOCK}:blo", [f"{BLOCK}:block"]),
    ],
)
def test_fish_completes_by_the_script(folder: Path, line: str, expected: list[str]) -> None:
    (folder / "irc.fish").write_text(irc_here("completion", "fish", folder=folder).out)
    path = os.pathsep.join([str(IRC.parent), os.environ["PATH"]])
    done = subprocess.run(["fish", "--no-config", "-c", f"source irc.fish; complete -C {shlex.quote(line)}"],
                          cwd=folder, env={**os.environ, "PATH": path, "HOME": str(folder)}, capture_output=True,
                          text=True)  # fmt: skip
    assert [each.split("\t")[0] for each in done.stdout.splitlines()] == expected, done.stderr
