"""What a model says of itself (documentation, properties, versions, denotations) is kept: in text, in the models that
irc writes, and in artefacts."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import irc.driver
from irc._version import __version__
from irc.backends.onnx import saving
from irc.diagnostics import IrcError
from irc.driver.models import find_backend
from irc.driver.text_files import READERS, save_text
from irc.frontends.onnx import from_model
from irc.metadata import FIELDS, GRAPH, MODEL
from irc.module import Module
from irc.op import trace
from irc.parser import parse
from tests.onnx_backend_cases import CASES
from tests.onnx_models import NO_FOLDER

TEXTS = ("plain", "", "two\nlines\tand a tab", 'quotes " and \\', "// no comment", "#1 = loc(_)", "字典 ✓ é",
         "\u2028\x00", "{a: [1, 2]}", "metadata node \"x\" {}", "x" * 70_000)  # fmt: skip
DETAILED = """
<ir_version: 10, opset_import: ["": 17]>
g (float[N, 4] x, bool c) => (float[N, 4] y) <float[4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7}> {
    [product] t = MatMul(x, w)
    [activation] r = Relu(t)
    [choice] y = If (c) <then_branch = a () => (float[N, 4] u) { [inner] u = Sin(r) },
                         else_branch = b () => (float[N, 4] v) { [other] v = Exp(r) }>
}
"""


def properties(message: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in message.metadata_props}


def nodes_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The nodes of a model by name, those of subgraphs too."""
    nodes, waiting = {}, list(model.graph.node)
    while waiting:
        node = waiting.pop()
        nodes[node.name] = node
        waiting += [inner for attribute in node.attribute for inner in attribute.g.node]
    return nodes


def detailed_model() -> onnx.ModelProto:
    """A model that says something of everything of which it can."""
    model = onnx.parser.parse_model(DETAILED)
    model.producer_name, model.producer_version, model.model_version = "pytorch", "2.9", 3
    model.domain, model.doc_string = "ai.me", "of the model"
    model.metadata_props.add(key="names", value="{0: 'person'}")
    model.metadata_props.add(key="character", value="\n".join("字典é"))
    for about, message in [("graph", model.graph), ("x", model.graph.input[0]), ("y", model.graph.output[0]),
                           ("w", model.graph.initializer[0]), *nodes_of(model).items()]:  # fmt: skip
        message.doc_string = f"doc of {about}"
        message.metadata_props.add(key="about", value=about)
    for value, denotation in (model.graph.input[0], "IMAGE"), (model.graph.output[0], "TENSOR"):
        value.type.denotation = denotation
        value.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    return model


def summary(model: onnx.ModelProto) -> dict[str, Any]:
    """All that a model says of itself, without what irc says."""
    facts: dict[str, Any] = {name: (node.doc_string, properties(node)) for name, node in nodes_of(model).items()}
    for kind, message in [("graph", model.graph), *((value.name, value) for value in
                          (*model.graph.input, *model.graph.output, *model.graph.initializer))]:  # fmt: skip
        facts[kind] = (message.doc_string, properties(message))
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        facts[f"type of {value.name}"] = (value.type.denotation, [dim.denotation for dim in dims])
    foreign = {key: text for key, text in properties(model).items() if not key.startswith("irc_") and text != "irc"}
    producer = (model.producer_name, model.producer_version)
    facts["model"] = (*producer, model.model_version, model.domain, model.doc_string, foreign)
    facts["graph"] += (model.graph.name,)
    return facts


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "original.onnx"
    onnx.save(detailed_model(), path)
    return path


@pytest.mark.parametrize("through", ["file", "text", "twice", "kernels"])
def test_a_model_that_irc_writes_says_what_the_original_says(original: Path, through: str, tmp_path: Path) -> None:
    source = original
    if through == "text":
        source = tmp_path / "model.irc"
        save_text(irc.driver.opt(original), source)
    elif through == "twice":
        source = tmp_path / "first.onnx"
        irc.driver.compile(original, output=source)
    irc.driver.compile(source, output=tmp_path / "out.onnx", keep_kernels=through == "kernels")
    written, given = onnx.load(tmp_path / "out.onnx"), detailed_model()
    onnx.checker.check_model(written, full_check=True)
    expected, actual = summary(given), summary(written)
    if through == "kernels":  # nodes of functions stand elsewhere
        expected = {subject: facts for subject, facts in expected.items() if subject in actual}
        assert len(expected) > 5
    assert {subject: actual[subject] for subject in expected} == expected
    about = properties(written)
    assert (about["producer"], about["irc_version"], about["irc_target"]) == ("irc", __version__, "portable")


def test_irc_names_itself_where_a_model_names_no_producer(tmp_path: Path) -> None:
    model = detailed_model()
    model.ClearField("producer_name")
    model.ClearField("producer_version")
    model.metadata_props.add(key="producer", value="a studio")
    model.metadata_props.add(key="irc_version", value="0")
    onnx.save(model, tmp_path / "model.onnx")
    irc.driver.compile(tmp_path / "model.onnx", output=tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    assert (written.producer_name, written.producer_version) == ("irc", __version__)
    assert properties(written)["producer"] == "a studio"  # not to be changed
    assert properties(written)["irc_version"] == __version__
    assert len(properties(written)) == len(written.metadata_props)


def test_nodes_that_share_a_name_are_not_described() -> None:
    """Names of nodes need not differ: what one of them says must not come to stand at the other."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 17]> g (float[3] x) => (float[3] y) { [n] t = Sin(x) [n] y = Cos(t) }'
    )
    model.graph.node[1].doc_string = "the second"
    assert not any(node.doc_string for node in find_backend("onnx").emit(from_model(model, NO_FOLDER)).graph.node)


def test_nodes_beside_calls_of_local_functions_keep_their_properties() -> None:
    """ONNX's inliner drops them."""
    model = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["": 17, "local": 1]> g (float[3] x) => (float[3] y) {
        [call] t = local.twice(x)
        [last] y = Cos(t)
    }
    <opset_import: ["": 17], domain: "local"> twice (a) => (b) { [add] b = Add(a, a) }
    """)
    model.graph.node[1].metadata_props.add(key="stack", value="main.py:3")
    model.graph.metadata_props.add(key="of", value="graph")
    model.functions[0].node[0].doc_string = "inner"
    written = find_backend("onnx").emit(from_model(model, NO_FOLDER))
    assert properties(nodes_of(written)["last"]) == {"stack": "main.py:3"}
    assert properties(written.graph) == {"of": "graph"}
    assert [node.doc_string for node in written.graph.node] == ["inner", ""]


def test_an_artefact_says_what_the_model_says(original: Path, tmp_path: Path) -> None:
    irc.driver.compile(original, backend="triton", output=tmp_path / "out")
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())["metadata"]
    assert about["metadata_props"] == {"names": "{0: 'person'}", "character": "字\n典\né"}
    assert (about["producer_name"], about["model_version"]) == ("pytorch", 3)


# -- text ------------------------------------------------------------------------------------------------------


def random_metadata(seed: int) -> dict[tuple[str, str], dict[str, Any]]:
    choose = random.Random(seed)

    def text() -> str:
        return choose.choice(TEXTS)

    def fact(field: str, kind: type) -> Any:
        extents = [choose.choice([*TEXTS, 0, 7, -1])] * choose.randrange(4)
        texts = {text(): text() for _ in range(choose.randrange(4))}
        drawn = {str: text(), int: choose.choice([0, -5, 2**63 - 1, -(2**63)]), dict: texts}
        return drawn[kind] if kind in drawn else tuple(extents if field == "shape" else [text()])

    facts_of = {}
    for kind, fields in FIELDS.items():
        for name in [""] if kind in ("model", "graph") else {text() for _ in range(3)} - {""}:
            facts = {field: fact(field, type_) for field, type_ in fields.items() if choose.random() < 0.7}
            facts_of[kind, name] = facts or {"doc_string": "d"}
    return facts_of


@pytest.mark.parametrize("seed", range(30))
def test_metadata_stands_in_text(seed: int) -> None:
    module = from_model(detailed_model(), NO_FOLDER)
    module.metadata = random_metadata(seed)
    read = parse(str(module), readers=READERS)
    assert read == module
    assert read.metadata == module.metadata
    changed = module.clone()
    assert changed == module
    subject = random.Random(seed).choice(list(changed.metadata))
    changed.metadata[subject] = {**changed.metadata[subject], "doc_string": "another"}
    assert changed != module
    onnx.checker.check_model(find_backend("onnx").emit(module))  # whatever a text says of whatever is not there


BAD = ('node {doc_string = "x"}', 'model "m" {doc_string = "x"}', 'thing "x" {doc_string = "x"}',
       'model {model_version = "3"}', 'model {model_version = 9223372036854775808}', 'model {model_version = true}',
       'model {metadata_props = {a = 3}}', 'model {metadata_props = ["a"]}', 'input "x" {dim_denotations = ["a", 3]}',
       'input "x" {shape = [3]}', 'output "y" {shape = [[3]]}', 'output "y" {shape = [9223372036854775808]}',
       'output "y" {shape = [true]}', 'node "n" {op_type = "Add"}', 'graph {producer_name = "x"}',
       'model {doc_string = 3}', 'model {doc_string = none}', 'model {doc_string = 1.5}',
       'model {doc_string = 1.0 : f32[]}', 'model {doc_string = "\\ud800"}')  # fmt: skip


@pytest.mark.parametrize("line", BAD)
def test_metadata_that_is_none_is_an_error_with_a_place(line: str) -> None:
    text = f"irc text 1\nmodule @m {{\n  func @main(%x: f32[]) -> f32[] {{\n    return %x\n  }}\n}}\nmetadata {line}\n"
    with pytest.raises(IrcError) as caught:
        parse(text)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code in ("text.syntax", "dim.syntax", "type.attribute"), diagnostic
    assert diagnostic.text is not None and diagnostic.text.line == 7


def test_metadata_is_given_once() -> None:
    text = str(Module("m", from_model(detailed_model(), NO_FOLDER).functions.values()))
    with pytest.raises(IrcError, match=r"text\.redefined_name"):
        parse(text.replace("\n#1 =", '\nmetadata graph {doc_string = "a"}\nmetadata graph {doc_string = "b"}\n#1 ='))


# -- outputs of unknown rank -----------------------------------------------------------------------------------


def model_of_two_ranks(shape: list[Any] | None) -> onnx.ModelProto:
    """Its output has the rank of x or none, and the model states a shape."""
    branches = {
        name: helper.make_graph([helper.make_node(op, ["x"], [name], **attributes)], name, [],
                                [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])
        for name, op, attributes in (("then_branch", "Sin", {}), ("else_branch", "ReduceMax", {"keepdims": 0}))
    }  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], **branches)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]), helper.make_tensor_value_info("c", 9, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("shape", [[], ["M"], [None, 3], [2, "N"]], ids=str)
@pytest.mark.parametrize("data_outside", [False, True])
def test_an_output_of_unknown_rank_keeps_the_stated_shape(shape: list[Any], data_outside: bool, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    if data_outside:
        monkeypatch.setattr(saving, "WHOLE_LIMIT", 0)
    onnx.checker.check_model(model_of_two_ranks(shape))
    module = parse(str(from_model(model_of_two_ranks(shape), NO_FOLDER)))
    assert not module.main.returned[0].type.is_ranked
    find_backend("onnx").save(module, tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(written)
    dims = written.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in dims] == shape


def test_nothing_is_said_of_a_rank_that_nothing_states() -> None:
    written = find_backend("onnx").emit(from_model(model_of_two_ranks(None), NO_FOLDER))
    assert not written.graph.output[0].type.tensor_type.HasField("shape")
    assert GRAPH not in from_model(model_of_two_ranks(None), NO_FOLDER).metadata
    assert MODEL not in from_model(model_of_two_ranks(None), NO_FOLDER).metadata


def names_of_nodes(model: onnx.ModelProto) -> list[str]:
    """Of all graphs and local functions."""
    pending = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in pending:  # which grows
        pending += [inner for attribute in node.attribute for inner in attribute.g.node]
    return [node.name for node in pending]


@pytest.mark.parametrize("name", CASES)
def test_names_of_nodes_are_distinct_whatever_the_source_calls_them(name: str) -> None:
    """Each node of the source has a name that a node or a tensor of the model has, or would have next."""
    draw = random.Random(name)
    for case in CASES[name]:
        types = [text.replace("$", case.dtypes.split()[0]) for text in case.types]
        module = trace(case.function, *types)
        once = find_backend("onnx").emit(module)
        tensors = [output for node in once.graph.node for output in node.output if output]
        names = [f"{each}{end}" for each in (*tensors, *names_of_nodes(once)) for end in ("", "_1", "_2")]
        for _ in range(3):
            for operation in module.walk():
                operation.location = replace(operation.location, name=draw.choice(names))
            given = names_of_nodes(find_backend("onnx").emit(module))
            assert all(given) and len(set(given)) == len(given), given
