"""What a user's script sees of irc's types: checked by tests/check_types.py, never run.

A line with `type: ignore` has a mistake that a type checker must find: mypy reports ignores that are not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import irc

if TYPE_CHECKING:
    from typing import assert_type

    from torch.fx import GraphModule

    from irc.driver.benchmarking import BenchReport
    from irc.driver.checking import CheckReport
    from irc.driver.compile_report import CompileReport as GraphsReport
    from irc.driver.compiled_programs import CompiledProgram
    from irc.driver.compiling import CompileReport
    from irc.driver.differing import DiffReport
    from irc.driver.experiment_report import ExperimentReport
    from irc.driver.figures import KernelsReport
    from irc.driver.profiling import ProfileReport
    from irc.driver.reducing import ReduceReport
    from irc.driver.running import RunReport
    from irc.driver.viewing import ViewReport


def verbs(program: Any) -> None:
    settings = irc.Settings(dims={"B": 2}, numerics="exact", products="irc")
    module = irc.load("model.onnx")
    assert_type(module, irc.Module)
    assert_type(irc.from_torch(program, (1,)), irc.Module)
    assert_type(irc.opt(module, "default", settings=settings), irc.Module)
    assert_type(irc.compile(module, backend="triton", output="model.triton", figures=True), CompileReport)
    assert_type(irc.compile(program, (1,), dynamic_shapes=({0: "B"},)), CompiledProgram)
    assert_type(irc.load_compiled("saved"), CompiledProgram)
    assert_type(irc.run(module, {"x": 1}, backend="onnx"), RunReport)
    assert_type(irc.check(module, each=True), CheckReport)
    assert_type(irc.kernels(module, targets=("sm_90",)), KernelsReport)
    assert_type(irc.bench(module, rounds=3), BenchReport)
    assert_type(irc.experiment({"model": module}, {"mine": "default"}), ExperimentReport)
    assert_type(irc.check(module, blame=True, why_tolerance=["y"]), CheckReport)
    assert_type(irc.diff("a.onnx", "b.pt2", output="witness.npz", tries=8), DiffReport)
    assert_type(irc.view(module, {"mine": "default"}, output="view.html", check=True), ViewReport)
    assert_type(irc.profile(module, rounds=5, threads=2), ProfileReport)
    assert_type(irc.reduce("model.onnx", "reduced", keep=["launches>=3"]), ReduceReport)
    assert_type(irc.reduce("model.onnx", "reduced"), ReduceReport)
    assert_type(irc.print(module, summary=True), str)
    assert_type(irc.explain(module, "%y"), str)
    assert_type(irc.doc("ops"), str)
    assert_type(irc.report(clear=True), GraphsReport)
    assert_type(irc.trace(lambda x: x, "f32[B]"), irc.Module)
    assert_type(irc.to_fx(module, settings=settings), GraphModule)
    with irc.allow("weights", inlined=10):
        pass


def mistakes(module: irc.Module) -> None:
    irc.run(module, {}, bakend="onnx")  # type: ignore[call-arg]
    irc.run(module, {}, backend="onyx")  # type: ignore[arg-type]
    irc.print(module, summary="yes")  # type: ignore[arg-type]
    irc.Settings(numeric="exact")  # type: ignore[call-arg]
    irc.Settings(numerics="fast")  # type: ignore[arg-type]
    irc.chek(module)  # type: ignore[attr-defined]
    irc.allow(memry=1 << 30)  # type: ignore[call-arg]
    try:
        irc.load(module, specialise={"B": 1})  # type: ignore[call-arg]
    except irc.IrcError as error:
        assert_type(error.code, str)
