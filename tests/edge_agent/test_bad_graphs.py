"""A graph that an engine may not be shown, or does not take, is refused with the fact; what it names outside is not read."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_agent.runtimes import load
from edge_agent.runtimes.engine import session
from protocol.bundles import Bundle, Runtime, digest, pack
from protocol.errors import BadBundle, Reason
from protocol.graphs import check_graph, graph_facts
from tests.bundles import small

WEIGHTS = numpy_helper.from_array(np.eye(4, dtype=np.float32).reshape(1, 4, 4), "w")


def model(
    weights: TensorProto = WEIGHTS, operator: str = "MatMul", domain: str = "", opset: int = 20, ir: int = 10
) -> bytes:
    """x [1, 2, 4] -> q [1, 2, 4]."""
    node = helper.make_node(operator, ["x", "w"], ["q"], domain=domain)
    return written([node], [weights], opset, domain, ir)


def written(nodes: list[Any], weights: list[Any], opset: int = 20, domain: str = "", ir: int = 10) -> bytes:
    x, q = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4]) for name in ("x", "q"))
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    made = helper.make_model(helper.make_graph(nodes, "g", [x], [q], weights), opset_imports=opsets)
    made.ir_version = ir
    return bytes(made.SerializeToString())


def outside(location: str) -> TensorProto:
    """Weights in a file of this name."""
    tensor = TensorProto()
    tensor.CopyFrom(WEIGHTS)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def bundle(graph: bytes, answer: float = 1.0) -> bytes:
    ones = np.ones((1, 2, 4), dtype=np.float32)
    passport = msgspec.structs.replace(small().passport, runtime=Runtime.ONNX, items=[])
    return pack(Bundle(passport=passport, graph=graph, golden_inputs={"x": ones}, golden_outputs={"q": answer * ones}))


def refused(graph: bytes, answer: float = 1.0) -> BadBundle:
    archive = bundle(graph, answer)
    with pytest.raises(BadBundle) as why:
        load(archive, digest(archive))
    return why.value


def test_the_graph_that_the_others_are_made_from_is_right() -> None:
    archive = bundle(model())
    assert load(archive, digest(archive)).proof[0].error == 0.0


def test_golden_vectors_that_do_not_come_out_here_are_refused() -> None:
    why = refused(model(), answer=1.5)
    assert why.reason is Reason.GOLDEN_MISMATCH
    assert "'q' is off by 0.5 on this CPU" in why.detail


def test_golden_vectors_that_are_no_numbers_are_refused() -> None:
    for answer in (np.nan, np.inf):
        assert refused(model(), answer).reason is Reason.GOLDEN_MISMATCH


def test_an_opset_from_the_future_is_refused_by_its_number() -> None:
    why = refused(model(opset=999))
    assert why.reason is Reason.UNSUPPORTED_RUNTIME
    assert "opset 999" in why.detail


def test_a_format_from_the_future_is_refused() -> None:
    assert "IR 60" in refused(model(ir=60)).detail


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "sub/../../weights.bin", ""])
def test_weights_in_a_file_are_refused_and_the_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "here").mkdir()
    for folder in (tmp_path, tmp_path / "here"):
        (folder / "weights.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path / "here")
    why = refused(model(outside(place)))
    assert why.reason is Reason.BAD_ARCHIVE
    assert "keeps weights in other files" in why.detail
    with pytest.raises(BadBundle, match="other files"):
        session(model(outside(place)))


def test_weights_in_a_file_are_found_wherever_they_hide() -> None:
    constant = helper.make_node("Constant", [], ["w"], value=outside("w.bin"))
    inner = helper.make_graph(
        [constant, helper.make_node("Identity", ["w"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4])],
    )
    choice = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
    yes = numpy_helper.from_array(np.array(True), "yes")
    for nodes, weights in (
        ([constant, helper.make_node("MatMul", ["x", "w"], ["q"])], []),
        ([choice, helper.make_node("MatMul", ["x", "y"], ["q"])], [yes]),
    ):
        assert "other files" in refused(written(nodes, weights)).detail


@pytest.mark.parametrize("domain", ["evil", "ai.onnx.training", "com.microsoft.nchwc"])
def test_an_operator_that_no_engine_of_ours_brings_is_named(domain: str) -> None:
    why = refused(model(operator="Do", domain=domain))
    assert why.reason is Reason.UNSUPPORTED_RUNTIME
    assert f"{domain}.Do" in why.detail


def test_an_operator_that_the_file_defines_itself_is_its_own_affair() -> None:
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    opsets = [helper.make_opsetid("", 20)]
    own = helper.make_function("own", "Product", ["a", "b"], ["c"], body, opsets)
    node = helper.make_node("Product", ["x", "w"], ["q"], domain="own")
    x, q = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4]) for name in ("x", "q"))
    graph = helper.make_graph([node], "g", [x], [q], [WEIGHTS])
    made = helper.make_model(graph, opset_imports=[*opsets, helper.make_opsetid("own", 1)], functions=[own])
    made.ir_version = 10
    archive = bundle(made.SerializeToString())
    assert load(archive, digest(archive)).proof[0].error == 0.0


def test_a_graph_of_other_inputs_or_shapes_is_refused() -> None:
    node = helper.make_node("MatMul", ["z", "w"], ["q"])
    z, q = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4]) for name in ("z", "q"))
    made = helper.make_model(
        helper.make_graph([node], "g", [z], [q], [WEIGHTS]), opset_imports=[helper.make_opsetid("", 20)]
    )
    made.ir_version = 10
    assert refused(made.SerializeToString()).detail
    short = numpy_helper.from_array(np.ones((1, 3, 4), dtype=np.float32), "w")
    assert refused(model(short)).detail
    assert refused(model(operator="Add")).detail


def test_what_a_graph_says_of_itself_is_read_without_an_engine() -> None:
    facts = graph_facts(model(operator="MatMulInteger", domain="com.microsoft"))
    assert (facts.ir, facts.opsets, facts.outside) == (10, {"": 20, "com.microsoft": 1}, [])
    assert facts.operators == {("com.microsoft", "MatMulInteger"): 1}


@settings(
    max_examples=200, derandomize=True
)  # the engine is native code: what it makes of the same bytes stays the same
@given(st.data())
def test_a_graph_with_an_altered_byte_is_refused_or_still_right(data: st.DataObject) -> None:
    graph = bytearray(model())
    for _ in range(data.draw(st.integers(1, 3))):
        graph[data.draw(st.integers(0, len(graph) - 1))] = data.draw(st.integers(0, 255))
    archive = bundle(bytes(graph))
    with contextlib.suppress(BadBundle):
        assert load(archive, digest(archive)).proof[0].share <= 1


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_graph_are_refused(body: bytes) -> None:
    with pytest.raises(BadBundle):
        check_graph(body)
