"""The backend "irc" of torch.compile: parts of captured graphs compiled by irc, the rest run by PyTorch.

PyTorch imports this module by the entry point of the group `torch_dynamo_backends`. AOTAutograd gives graphs of ATen
operations, for inference or for the forward and the backward pass, in which weights are inputs. Random operators run in
PyTorch, or in kernels by seeds that it draws, so that torch.manual_seed holds. Start reading with `Compiler`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any, Literal

import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.registry import register_backend
from torch._guards import TracingContext
from torch.fx import GraphModule

from irc.diagnostics import IrcError, check_argument, fail
from irc.driver.compile_cache import compiled_code
from irc.driver.compile_report import GraphRecord, GraphReport, add_graph
from irc.driver.models import Backend, Settings, read_pipeline
from irc.frontends.torch.captured import (
    copy_written_arguments,
    divided,
    import_part,
    is_computed,
    program_of,
    ranges_of,
)
from irc.frontends.torch.exporting import EXPORTING, decompositions
from irc.frontends.torch.results import Results, placeholders_of
from irc.frontends.torch.tensors import state_of
from irc.passes.complex_parts import WRITTEN
from irc.passes.random_numbers import DRAWN
from irc.user_code import warn_caller
from irc.verifier import verify

MODES = (None, "default")
# By backend the operators of ATen, of those that irc leaves to PyTorch, that passes write as operations of irc.
CALLS = {"onnx": WRITTEN["onnx"], "triton": WRITTEN["torch"] | DRAWN}
KINDS: dict[str, tuple[Any, str]] = {  # types of options
    "backend": (str, '"auto", "onnx" or "triton"'), "pipeline": ((str, type(None)), 'a text, such as "default"'),
    "target": ((str, type(None)), "the name of a target"), "freeze": (bool, "True or False"),
}  # fmt: skip
LEFT_TO_PYTORCH = ("torch.", "backend.", "limit.")  # codes of errors for which PyTorch runs a part


@dataclass(frozen=True)
class Options:
    """What `torch.compile(..., backend="irc", options={...})` accepts.

    `backend` "auto" is "triton" for tensors on a GPU and "onnx" for others; `pipeline` and `target` are those of
    `irc.compile`. With `freeze`, a graph for inference has the weights that it does not write itself as constants: all
    until one of them is changed, then the others, and none once one of these is changed, too. A write of which PyTorch
    keeps no count (`weight.data.mul_(2)`, an array of NumPy that shares memory) is not seen then: give `freeze` False
    where a program does that.
    """

    backend: Backend | Literal["auto"] = "auto"
    pipeline: str | None = None
    target: str | None = None
    freeze: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any] | None, inputs: Sequence[Any]) -> Options:
        """The options for such inputs, with a backend that is not "auto". Raises `usage.value` and `usage.backend`, and
        `pass.*` for a pipeline that cannot be read."""
        known = cls.__dataclass_fields__
        given = {} if given is None else given
        check_argument("options", given, Mapping, "a dictionary")
        for name, value in given.items():
            if name not in known:
                raise fail("usage.value", f"the backend irc has no option `{name}`", expected=", ".join(known))
            check_argument(name, value, *KINDS[name])
        options = cls(**given)
        if options.backend == "auto":
            on_gpu = any(isinstance(each, torch.Tensor) and each.is_cuda for each in inputs)
            options = replace(options, backend="triton" if on_gpu else "onnx")
        context = options.settings.context(options.backend)
        if options.pipeline is not None:
            read_pipeline(options.pipeline, context)
        return options

    @property
    def settings(self) -> Settings:
        return Settings(target=self.target)


def compile_graph(graph: GraphModule, inputs: Sequence[Any], *, mode: str | None = None,
                  options: Mapping[str, Any] | None = None) -> Callable[..., Any]:  # fmt: skip
    """Compile a graph that torch.compile has captured: what PyTorch calls for `backend="irc"`.

    Operations that irc cannot read or compile run in PyTorch; a warning counts them, and `irc.report()` lists them.
    Raises `usage.value` for a mode of torch.compile, none of which irc has, and what `Options.of` raises.
    """
    if mode not in MODES:
        raise fail("usage.value", f"irc has no mode `{mode}`", expected='no mode, or "default"',
                   help="say what irc should do by options, as in options={'backend': 'triton'}")  # fmt: skip
    compiler = Compiler(Options.of(options, inputs))
    compiled = aot_autograd(
        fw_compiler=partial(compiler, "forward"), bw_compiler=partial(compiler, "backward"),
        inference_compiler=partial(compiler, "inference"), decompositions=lambda: decompositions()[0],
        partition_fn=partitioned)  # fmt: skip
    # oneDNN's LSTM layer keeps nothing for gradients where AOTAutograd runs it: PyTorch's own cells do.
    # `torch.backends.mkldnn.flags` would set TF32 too, of which PyTorch warns.
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(enabled and not torch.is_grad_enabled())
    try:
        result: Callable[..., Any] = compiled(graph, inputs)
    finally:
        torch._C._set_mkldnn_enabled(enabled)
    return result


def partitioned(joint: GraphModule, inputs: Sequence[Any], **options: Any) -> tuple[GraphModule, GraphModule]:
    """The graphs of the forward and the backward pass."""
    copy_written_arguments(joint)
    graphs: tuple[GraphModule, GraphModule] = min_cut_rematerialization_partition(joint, inputs, **options)
    return graphs


class Compiler:
    """Compiles the graphs of AOTAutograd, one call each."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, kind: str, graph: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        ranges = ranges_of(graph)
        frozen = self._weights(graph) if kind == "inference" and self.options.freeze else set()
        # PyTorch calls this for a backward graph at its first run, when another thread may be tracing.
        with EXPORTING:
            division = divided(graph, CALLS[self.options.backend])
        report = GraphReport(kind, division.total, dict(division.unreadable))
        record = add_graph(report)
        for name in division.parts:
            setattr(graph, name, Part(graph.get_submodule(name), ranges, frozen, self.options, record))
        if report.in_pytorch:
            warn_caller(str(report))
        graph.recompile()
        run: Callable[..., Any] = make_boxed_func(graph.forward)
        return run

    def _weights(self, graph: GraphModule) -> set[str]:
        """The placeholders that are parameters and buffers of the module that is compiled, and not written by it."""
        context = TracingContext.try_get()
        metadata = context.fw_metadata if context is not None else None
        placeholders = graph.graph.find_nodes(op="placeholder")
        if metadata is None:
            return set()
        written = {index for index, each in enumerate(metadata.input_info) if each.mutates_data}
        return {placeholders[index].name for index in metadata.static_input_indices
                if index < len(placeholders) and index not in written}  # fmt: skip


class Part(torch.nn.Module):  # type: ignore[misc]  # PyTorch's own types are not read
    """A part of a captured graph. It is compiled at its first call, whose weights it has as constants. It is compiled
    again when some have changed, which then are arguments, and a last time when more have: then all are."""

    def __init__(self, graph: GraphModule, ranges: dict[Any, Any], frozen: set[str], options: Options,
                 record: GraphRecord) -> None:  # fmt: skip
        super().__init__()
        self.__dict__["graph"] = graph  # no submodule: its parameters are none of the caller's
        self.ranges, self.options, self.record = ranges, options, record
        nodes = graph.graph.find_nodes(op="placeholder")
        self.frozen = [index for index, node in enumerate(nodes) if node.name in frozen]
        self.is_changed = False
        (given,) = graph.graph.output_node().args
        self.gives_tuple = isinstance(given, (tuple, list))
        self.results = Results.of_graph(graph.graph, given if self.gives_tuple else (given,),
                                        placeholders_of(graph.graph))  # fmt: skip
        self.compiled: tuple[Callable[..., Any], dict[int, tuple[int, int | None]]] | None = None
        self.lock = Lock()

    def __call__(self, *arguments: Any) -> Any:  # no `forward`: what calls that takes a microsecond, for hooks
        return (self._current(arguments) or self._compiled(arguments))(*arguments)

    def _current(self, arguments: Sequence[Any]) -> Callable[..., Any] | None:
        """The compiled function, unless a weight that is a constant in it has changed."""
        compiled = self.compiled  # read once: another thread may put another in its place
        if compiled is None:
            return None
        run, states = compiled
        try:
            for index, (address, version) in states.items():  # by hand, since a call costs microseconds
                argument = arguments[index]
                if argument.data_ptr() != address or argument._version != version:
                    return None
        except RuntimeError:  # an inference tensor
            return None
        return run

    def _compiled(self, arguments: Sequence[Any]) -> Callable[..., Any]:
        with self.lock:
            if (run := self._current(arguments)) is not None:  # another thread has compiled it
                return run
            if self.compiled is not None:  # weights have changed
                same = [index for index, state in self.compiled[1].items() if state_of(arguments[index]) == state]
                self.compiled, self.frozen, self.is_changed = None, [] if self.is_changed else same, True
            # PyTorch does not count the writes to inference tensors.
            self.frozen = [index for index in self.frozen if not arguments[index].is_inference()]
            states = {index: state_of(arguments[index]) for index in self.frozen}
            try:
                run = self._compile(arguments)
            except IrcError as error:
                if not error.code.startswith(LEFT_TO_PYTORCH):
                    raise
                self.record.add_failure(sum(map(is_computed, self.graph.graph.nodes)), error.diagnostics[0].message)
                warn_caller(str(self.record.report))
                run, states = self.graph, {}
            self.compiled = run, states
            return run

    def _compile(self, arguments: Sequence[Any]) -> Callable[..., Any]:
        nodes = self.graph.graph.find_nodes(op="placeholder")
        held = {nodes[index].name: arguments[index] for index in self.frozen}
        program = program_of(self.graph, self.ranges, held)
        imported = import_part(program, self.record.report.kind)
        verify(imported)
        name, settings = self.options.backend, self.options.settings
        assert name != "auto"  # chosen by `Options.of`
        shown = {argument.name: argument.name for argument in imported.main.arguments}
        runner = compiled_code(imported, name, self.options.pipeline, settings, shown).runner
        plain = runner.plain if self.results.are_plain else None
        names = [node.name for node in nodes]
        taken = [names.index(argument.name) for argument in imported.main.arguments]
        dtypes = [getattr(nodes[index].meta["val"], "dtype", None) for index in taken]

        def call(*arguments: Any) -> Any:
            results = plain([arguments[index] for index in taken]) if plain is not None else NotImplemented
            if results is not NotImplemented:
                return tuple(results) if self.gives_tuple else results[0]
            with torch.no_grad():
                tensors = [as_tensor(arguments[index], dtype) for index, dtype in zip(taken, dtypes, strict=True)]
                results = self.results.of(runner.run(tensors), dict(zip(names, arguments, strict=True)))
            return tuple(results) if self.gives_tuple else results[0]

        return call


def as_tensor(argument: Any, dtype: torch.dtype | None) -> torch.Tensor:
    """An argument of a part: a tensor whose elements are its memory's, or a number as one, of 64 bits. Without elements
    it may be of another dtype than the graph says: PyTorch's native_dropout gives such a mask of floats."""
    if isinstance(argument, torch.Tensor):
        if dtype is not None and argument.dtype != dtype and not argument.numel():
            return argument.to(dtype)
        return argument.resolve_conj().resolve_neg()
    return torch.tensor(argument, dtype=torch.float64 if isinstance(argument, float) else None)


# Threads that look the backend up at once all load its entry point, and PyTorch calls `register_backend` with what each
# of them gets, which fails for a second one. Of None that registers nothing, and what the import, which is one for all
# threads, has registered is there.
register_backend(compile_graph, name="irc")
backend = None  # what the entry point names
