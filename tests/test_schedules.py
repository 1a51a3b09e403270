"""Schedule options: as an attribute, in plans and from functions of users; what they change, and what they do not."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

import irc
from irc import ops
from irc.backends.triton import compile_artefact, emit
from irc.diagnostics import IrcError
from irc.driver.models import Settings
from irc.kernel import kernel_of
from irc.kernel.rules import LEGALITY_RULES
from irc.module import Module
from irc.op import trace
from irc.parser import parse
from irc.schedule_options import NAMES, ScheduleOptions
from tests import triton_harness as harness
from tests.command_line import irc_here
from tests.triton_cases import check, the_kernel, the_operation

PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "softmax": (lambda x: ops.softmax(x, axis=1), ("f32[B, 300]",)),
    "layer_norm": (lambda x, w, b: ops.layer_norm(x, w, b, axis=1), ("f32[B, 40]", "f32[40]", "f32[40]")),
    "flat": (lambda x, y: ops.tanh(ops.add(x, y)), ("f32[B, 77]", "f32[B, 77]")),
    "biased": (lambda x, y: ops.add(x, y), ("f32[B, 130]", "f32[130]")),
    "turned": (lambda x: ops.exp(ops.transpose(x, permutation=(1, 0))), ("f32[B, 65]",)),
    "columns": (lambda x: ops.reduce_sum(x, axes=(0,)), ("f32[B, 50]",)),
    "half": (lambda x: ops.reduce_max(ops.neg(x), axes=(1,), keep_dims=True), ("f16[B, 90]",)),
}


def with_schedule(module: Module, stated: dict[str, int]) -> Module:
    """The module, whose kernel states these options."""
    operation = the_operation(module)
    operation.attributes["schedule"] = stated
    return module


def kernelized(name: str) -> Module:
    function, types = PROGRAMS[name]
    return harness.kernelize(trace(function, *types))


def random_options(draw: random.Random, module: Module) -> dict[str, int]:
    operation = the_operation(module)
    tiles = [tile.name for tile in kernel_of(operation).schedule.tiles]
    options = {name: 1 << draw.randint(0, 9) for name in tiles if draw.random() < 0.7}
    options |= {"warps": 1 << draw.randint(0, 3)} if draw.random() < 0.5 else {}
    options |= {"index_bits": 64} if draw.random() < 0.3 else {}
    return options | ({"stages": draw.randint(1, 4)} if draw.random() < 0.5 else {})


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("seed", range(4))
def test_options_change_no_result(name: str, seed: int, tmp_path: Path) -> None:
    """And the byte model counts what a kernel with these blocks loads."""
    module, draw = kernelized(name), random.Random(f"{name} {seed}")
    stated = random_options(draw, module)
    module = parse(str(with_schedule(module, stated)))
    operation = the_operation(module)
    assert (operation.attributes["schedule"] or {}) == stated
    run = harness.run(module, folder=tmp_path / "a", sizes={"B": draw.choice([1, 3, 17])}, fuse=False, real_tiles=True)
    check(run, 2e-3 if name == "half" else 1e-5)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())["kernels"][0]
    schedule = kernel_of(operation).schedule
    assert manifest["warps"] == schedule.warps == stated.get("warps", schedule.warps)
    assert manifest.get("stages") == stated.get("stages")
    for tile in schedule.tiles:
        assert tile.block == stated.get(tile.name, tile.block) or tile.whole


def test_a_reduced_row_is_whole_where_the_block_covers_it() -> None:
    for block, looped in ((256, True), (512, False)):
        module = with_schedule(kernelized("softmax"), {"n": block})
        assert the_kernel(module).looped is looped


def test_options_reach_the_launch_and_the_compiler(tmp_path: Path) -> None:
    emit(with_schedule(kernelized("softmax"), {"m": 4, "n": 128, "warps": 2, "stages": 3}), tmp_path / "a")
    program = (tmp_path / "a" / "program.py").read_text()
    assert "m=Grid(B, 4), n=Loop(300, 128), warps=2, stages=3, extent=300 * B)" in program
    for resources in compile_artefact(tmp_path / "a", ("sm_90", "gfx942")):
        assert resources.fits and not resources.error and not resources.spilled_bytes


WRONG = [
    ({"block": 4}, "a schedule has no option `block`"),
    ({"k": 16}, "F15: @fused: the schedule has a block of `k`, and the tile axes are m, n"),
    ({"n": 3}, "`n` of a schedule is 3"),
    ({"n": 0}, "`n` of a schedule is 0"),
    ({"n": -2}, "`n` of a schedule is -2"),
    ({"n": 2.0}, "`n` of a schedule is 2.0"),
    ({"n": "64"}, "`n` of a schedule is '64'"),
    ({"n": True}, "`n` of a schedule is True"),
    ({"n": 1 << 40}, "`n` of a schedule is"),
    ({"warps": 64}, "`warps` of a schedule is 64"),
    ({"warps": 3}, "`warps` of a schedule is 3"),
    ({"stages": 9}, "`stages` of a schedule is 9"),
    ({"order": 0}, "`order` of a schedule is 0"),
    ({"order": 4}, "F15: @fused: the schedule has an `order` of blocks, and the tile axes are m, n, without k"),
    ({"index_bits": 16}, "`index_bits` of a schedule is 16"),
    ({"index_bits": 32}, "F15: @fused: indices have 32 bits in the schedule, and they may run up to 300*B"),
    ({"i": 64}, "F15: @fused: the schedule has a block of `i`, and the tile axes are m, n"),
    ({"m": 65536, "n": 1024}, "F15: @fused: the schedule has tiles of 33554432 elements, at most 1048576"),
]


@pytest.mark.parametrize("stated, message", WRONG, ids=lambda value: str(value)[:20])
def test_options_that_do_not_fit_are_errors(stated: dict[str, Any], message: str, tmp_path: Path) -> None:
    """In the text of a program, with the place, as in a program that is built."""
    text = str(kernelized("softmax"))
    written = ", ".join(f"{name} = {json.dumps(value)}" for name, value in stated.items())
    text = text.replace('kind = "kernel"', f'kind = "kernel", schedule = {{{written}}}')
    (tmp_path / "m.irc").write_text(text)
    result = irc_here("compile", "m.irc", "--backend", "triton", "-o", "out", folder=tmp_path)
    assert result.code in (3, 4) and re.search(r"error\[fuse\.schedule\]: .*F15: ", result.err), result.err
    assert message.partition(" is True")[0] in result.err and not (tmp_path / "out").exists()
    with pytest.raises(IrcError, match=re.escape(message)):
        emit(with_schedule(kernelized("softmax"), stated), tmp_path / "built")


def test_the_example_of_the_rule_breaks_it(tmp_path: Path) -> None:
    text = LEGALITY_RULES["F15"].example.partition(" of\n")[2]
    with pytest.raises(IrcError, match=r"fuse\.schedule.*F15: @y: the schedule has a block of `m`"):
        emit(parse(f"irc text 1\nmodule @m {{\n{text}\n}}\n"), tmp_path / "a")


# -- plans and functions ---------------------------------------------------------------------------------------

SCORES = """irc text 1
module @m {
  func @main<M, N>(%x: f32[M, N], %b: f32[N]) -> f32[M, N] {
    %p = softmax %x {axis = 1} : f32[M, N]
    %y = add %p, %b : f32[M, N]
    return %y
  }
}
"""
FUNCTIONS = """from irc.scheduling import schedule

@schedule
def narrow(kernel):
    assert kernel.name == "y" and kernel.kind == "reduction" and list(kernel.extents) == ["m", "n"]
    assert kernel.bytes(m=1).programs > kernel.bytes(m=64).programs and {"m", "n", "warps"} == set(kernel.chosen)
    return {"n": 16}

@schedule
def nothing(kernel):
    return None

@schedule
def number(kernel):
    return 16

@schedule
def unknown(kernel):
    return {"block": 16}

@schedule
def wrong_axis(kernel):
    return {"i": 16}

@schedule
def raises(kernel):
    return kernel.block

def plain(kernel):
    return {"n": 16}
"""


NEST = """\
  schedule  n = 16
@y: reduction, 4 warps
  axis m: m of M; blocks of 64, a program each
  axis n: n of N; blocks of 16, in a loop
  for blocks of n:
    %x = load x[N*m + n]
    carry %0 = max %x over n
    %1 = sub %x, %0
    %2 = exp %1
    accumulate %3 = sum %2 over n with %0
  %0 = max %x over n
  %3 = sum %2 over n
  for blocks of n:
    %x = load x[N*m + n]
    %1 = sub %x, %0
    %2 = exp %1
    %p = div %2, %3
    %b = load b[n]
    %y = add %p, %b
    store y[N*m + n] = %y
"""


def options_of(module: Module) -> list[dict[str, int] | None]:
    return [operation.attributes["schedule"] for operation in module.walk() if operation.name == "kernel"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.irc").write_text(SCORES)
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    return tmp_path


def fused(folder: Path, options: str) -> Module:
    return irc.opt(str(folder / "m.irc"), f"legalize,fuse{{{options}}}", settings=Settings())


def test_a_function_states_options(folder: Path) -> None:
    assert options_of(fused(folder, f"schedule={folder}/functions.py:narrow")) == [{"n": 16}]
    assert options_of(fused(folder, f"schedule={folder}/functions.py:nothing")) == [None]


@pytest.mark.parametrize("name, code, message", [
    ("number", "fuse.schedule", "returned 16"),
    ("unknown", "fuse.schedule", "no option `block`"),
    ("wrong_axis", "fuse.schedule", "F15: the schedule has a block of `i`"),
    ("raises", "policy.raised", "block"),
    ("plain", "pass.option", "@schedule"),
])  # fmt: skip
def test_mistakes_in_a_function_are_errors(name: str, code: str, message: str, folder: Path) -> None:
    with pytest.raises(IrcError) as caught:
        fused(folder, f"schedule={folder}/functions.py:{name}")
    assert caught.value.code == code and message in str(caught.value)
    assert code == "pass.option" or "functions.py:" in str(caught.value)


def test_plans_have_schedules(folder: Path) -> None:
    """Written, read again, edited; and errors with the line of the entry."""
    plan = folder / "plan.json"
    options = f"default{{fuse.schedule={folder}/functions.py:narrow}}"
    assert irc_here("opt", "m.irc", "-p", options, "--plan", "plan.json", "-o", "a.irc", folder=folder).code == 0
    assert json.loads(plan.read_text())["groups"][0]["schedule"] == {"n": 16}
    assert options_of(fused(folder, f"plan={plan}")) == [{"n": 16}]
    plan.write_text(plan.read_text().replace('"n": 16', '"n": 32,\n"warps": 2'))
    assert options_of(fused(folder, f"plan={plan}")) == [{"n": 32, "warps": 2}]
    for entry, code, message in (
        ({"members": ["y", "p"], "schedule": {"i": 4}}, "plan.refused", "rule F15"),
        ({"members": ["y", "p"], "schedule": {"n": 5}}, "plan.refused", "a power of two"),
        ({"members": ["y", "p"], "schedule": 4}, "plan.format", "`schedule` of an entry is 4"),
        ({"members": ["y"], "schedule": {"i": 64}}, "plan.refused", "merged with others"),
    ):
        plan.write_text(json.dumps({"groups": [entry]}))
        with pytest.raises(IrcError) as caught:
            fused(folder, f"plan={plan}" + (",policy=greedy" if entry["members"] == ["y"] else ""))
        assert caught.value.code == code and message in str(caught.value) and "plan.json:1" in str(caught.value)


def test_the_nest_is_printed(folder: Path) -> None:
    (folder / "s.irc").write_text(str(fused(folder, f"schedule={folder}/functions.py:narrow")))
    shown = irc_here("explain", "s.irc", "@y", "--nest", folder=folder).out
    assert shown.splitlines()[3:] == NEST.splitlines()
    for names in (["@z"], ["%y", "--nest"]):
        result = irc_here("explain", "s.irc", *names, folder=folder)
        assert result.code == 2 and "usage.arguments" in result.err


def test_names_of_options_are_those_that_are_documented() -> None:
    assert set(NAMES) == {name for line in (ScheduleOptions.__doc__ or "").splitlines() if ": " in line
                          for name in line.partition(":")[0].replace(" ", "").split(",")}  # fmt: skip
