"""ONNX models as originals: run by ONNX Runtime without optimizations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from irc import dtypes
from irc.diagnostics import fail
from irc.driver.arrays import Arrays
from irc.driver.original import Original
from irc.driver.running import as_backend_failed
from irc.dtypes import DType
from irc.module import Module
from irc.onnx_runtime import onnx_runtime, start_session
from irc.stages import stage

NARROW = ("bfloat16", "float8", "float6", "float4", "int4", "int2")  # ONNX element types that NumPy lacks


class OnnxOriginal(Original):
    """An ONNX model."""

    def __init__(self, model: Any, folder: Path, inputs: Arrays) -> None:
        self.model, self.folder, self.inputs = model, folder, inputs

    @classmethod
    def read(cls, path: Path) -> OnnxOriginal:
        import onnx

        return cls(onnx.load(path, load_external_data=False), path.parent, {})

    @property
    def items(self) -> list[Any]:
        return list(range(len(self.model.graph.node)))

    @property
    def size(self) -> int:
        return count_of(self.model.graph)

    @property
    def declared(self) -> dict[str, DType]:
        from irc.frontends.onnx.scope import DEFAULTS_SINCE

        constant = () if self.model.ir_version >= DEFAULTS_SINCE else self.optional
        given = [info for info in self.model.graph.input if info.name not in constant]
        return {info.name: dtypes.from_onnx(info.type.tensor_type.elem_type) for info in given}

    @property
    def optional(self) -> Collection[str]:
        graph = self.model.graph
        return {each.name for each in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer))}

    def module(self) -> Module:
        from irc.frontends.onnx import from_model
        from irc.verifier import verify

        module = from_model(self.model, self.folder)
        verify(module)
        return module

    def outputs(self) -> list[Any]:
        arrays = self._run(self.model)
        narrow = [info.name for info in self.model.graph.output if info.name not in arrays]
        if narrow:
            raise fail("backend.failed", f"NumPy has no arrays of the type of {narrow[0]}")
        return list(arrays.values())

    def _run(self, model: Any) -> Arrays:
        """The outputs by name, without those that NumPy cannot hold."""
        import numpy as np

        onnxruntime = onnx_runtime()
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        # Paths of external data are relative to this folder.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.folder))
        with as_backend_failed():
            session = start_session(model.SerializeToString(), options)
            taken = {value.name for value in (*session.get_inputs(), *session.get_overridable_initializers())}
            feeds = {name: array if isinstance(array, (list, dict)) else np.asarray(array)
                     for name, array in self.inputs.items() if name in taken}  # fmt: skip
            names = [value.name for value in session.get_outputs() if not any(map(value.type.count, NARROW))]
            with stage("run in ONNX Runtime"):
                return dict(zip(names, session.run(names, feeds), strict=True))

    @cached_property
    def arrays(self) -> Arrays:
        """The values of a run, except those in subgraphs."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.output[:]
        names = [name for node in model.graph.node for name in node.output if name]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        return {**self.inputs, **self._run(model)}

    def values_by_name(self) -> Arrays:
        return self.arrays

    @cached_property
    def types(self) -> dict[str, Any]:
        """The declared or inferred types of values."""
        import onnx

        graph = self.model.graph
        with suppress(onnx.shape_inference.InferenceError):
            graph = onnx.shape_inference.infer_shapes(self.model).graph
        return {info.name: info for info in (*graph.value_info, *graph.output, *graph.input)}

    def part(self, items: Collection[Any]) -> OnnxOriginal:
        graph = self.model.graph
        nodes = [graph.node[index] for index in sorted(items)]
        others = [node for index, node in enumerate(graph.node) if index not in items]
        elsewhere = {name for node in others for name in read_by(node)} | {info.name for info in graph.output}
        inside = {name for node in nodes for name in read_by(node)}
        outputs = [name for node in nodes for name in node.output if name and (name in elsewhere or name not in inside)]
        return self._of(nodes, graph.initializer, [self._info(name) for name in outputs])

    def insides(self) -> Iterator[Callable[[], OnnxOriginal]]:
        """The branch that an If takes, and the first iteration of a Loop, each as a model."""
        for node in self.model.graph.node:
            graphs = {attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")}
            if node.op_type == "If" and node.input[0] in self.arrays:
                body, arguments = graphs["then_branch" if self.arrays[node.input[0]] else "else_branch"], {}
            elif node.op_type == "Loop":
                import numpy as np

                body = graphs["body"]
                started = {value.name: self.arrays.get(name) for value, name in zip(
                    body.input[2:], node.input[2:], strict=True)}  # fmt: skip
                arguments = {body.input[0].name: np.int64(0), body.input[1].name: np.bool_(True), **started}
            else:
                continue
            yield lambda body=body, arguments=arguments: self._of(  # type: ignore[misc]
                body.node, [*self.model.graph.initializer, *body.initializer], body.output, body.input, arguments
            )

    def _of(self, nodes: Sequence[Any], initializers: Iterable[Any], outputs: Sequence[Any],
            declared: Iterable[Any] = (), arrays: Mapping[str, Any] = {}) -> OnnxOriginal:  # fmt: skip
        """Some nodes as a model: a value that they read and do not compute is an initializer, or an input with its
        array in the run; `declared` and `arrays` are for inputs that the run does not have."""
        import onnx

        computed = {name for node in nodes for name in node.output}
        read = dict.fromkeys(name for node in nodes for name in read_by(node) if name not in computed)
        held = [tensor for tensor in initializers if tensor.name in read and tensor.name not in self.inputs]
        captured = [name for name in read if name not in {tensor.name for tensor in held}]
        types = {info.name: info for info in declared}
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.CopyFrom(onnx.helper.make_graph(
            nodes, self.model.graph.name, [types.get(name) or self._info(name) for name in captured], outputs, held
        ))  # fmt: skip
        known = {**self.arrays, **arrays}
        return OnnxOriginal(model, self.folder, {name: known[name] for name in captured})

    def _info(self, name: str) -> Any:
        """The type of a value: as declared, or that of its array."""
        import onnx

        if name in self.types:
            return self.types[name]
        if name not in self.arrays or not hasattr(self.arrays[name], "shape"):
            raise fail("extract.not_computed", f"the run did not compute {name} as an array")
        array = self.arrays[name]
        dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        return onnx.helper.make_tensor_value_info(name, dtype, [None] * array.ndim)

    def save(self, folder: Path) -> str:
        import onnx

        # External data is written into the file, since the files it refers to are in another folder.
        onnx.load_external_data_for_model(self.model, str(self.folder))
        onnx.save(self.model, folder / "program.onnx")
        return "program.onnx"


def graphs_of(node: Any) -> list[Any]:
    """The subgraphs of a node."""
    return [graph for attribute in node.attribute
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else []))]  # fmt: skip


def count_of(graph: Any) -> int:
    """The number of nodes of a graph, including those in subgraphs."""
    return sum(1 + sum(map(count_of, graphs_of(node))) for node in graph.node)


def read_by(node: Any) -> list[str]:
    """The values that a node reads, including outer values that its subgraphs read."""
    names = [name for name in node.input if name]
    for graph in graphs_of(node):
        inner_names = {value.name for value in (*graph.input, *graph.initializer)}
        inner_names |= {name for inner in graph.node for name in inner.output}
        names += [name for inner in graph.node for name in read_by(inner) if name not in inner_names]
        names += [value.name for value in graph.output if value.name not in inner_names]
    return list(dict.fromkeys(names))
