"""`millwright export`: a model that someone brings becomes the smallest graph that is still right, and anything that is not a
model is refused with the fact and the remedy, never a traceback."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import millwright
from export.compact import bare
from export.from_onnx import MOST_OPSET, read_float_graph
from export.quantize import operators
from export.to_onnx import exported, to_onnx
from protocol.errors import BadBundle, BadSettings, MillwrightError, Reason
from server.algorithms import bert, byte_pairs, word_pieces
from server.algorithms.bert import BertSettings
from server.algorithms.gpt import Gpt, GptSettings
from server.checkpoints import save_gpt
from server.checkpoints_bert import save_bert
from server.training.brought import smallest
from server.workbench.exporting import ExportReport, export_model

TEXTS = ["The pump stands still.", "Bearing noisy, replaced bearing", "泵漏油，更换密封"] * 5


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 3))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.body(x)
        return answer


@pytest.fixture(scope="module")
def graph() -> bytes:
    torch.manual_seed(5)
    return to_onnx(Net(), torch.randn(2, 16))


@pytest.fixture
def file(graph: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(graph)
    return path


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_pairs.written(byte_pairs.learn(TEXTS, 320))
    folder = tmp_path_factory.mktemp("gpt") / "in"
    folder.mkdir()
    torch.manual_seed(5)
    save_gpt(Gpt(GptSettings(vocabulary=320, context=64, layers=2, heads=4, width=64)), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = word_pieces.learn(TEXTS, 120)
    folder = tmp_path_factory.mktemp("bert") / "in"
    folder.mkdir()
    sizes = BertSettings(vocabulary=tokenizer.get_vocab_size(), width=64, layers=2, heads=4, inner=128, context=32)
    save_bert(bert.fresh(sizes, 5), tokenizer, folder)
    return folder


def told(out: Path) -> ExportReport:
    return msgspec.json.decode((out / "report.json").read_bytes(), type=ExportReport)


def test_a_float_graph_of_ones_own_becomes_smaller_and_is_proven(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert millwright.main(["export", "--model", str(file), "--target", "onnx", "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    report = told(out)
    assert (said["chosen"], said["folder"]) == (report.chosen, str(out))
    small = (out / "model.onnx").read_bytes()
    assert len(small) == report.bytes < 0.6 * report.float_bytes
    assert {form.name for form in report.forms} == {
        "float32", "float16", "int8", "int8_static", "int8_blocks", "int4_blocks"
    }  # fmt: skip
    assert "drawn at random" in report.judged_on
    x = np.random.default_rng(9).normal(size=(8, 16)).astype(np.float32)
    exact, packed = (
        onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for body in (file.read_bytes(), small)
    )
    assert np.sqrt(np.mean((packed - exact) ** 2)) <= 0.06 * exact.std()
    table = (out / "report.md").read_text()
    assert f"| {report.chosen} |" in table
    assert "**taken**" in table
    assert "could not be made: it has no convolution" in table


def test_rows_that_are_given_judge_it(file: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.random.default_rng(1).normal(size=(20, 16)))
    report = export_model(file, tmp_path / "out", rows=rows)
    assert report.judged_on.startswith("every second of 20 rows, given")
    assert next(form for form in report.forms if form.name == "int8").parity.n == 10  # type: ignore[union-attr]


def test_a_graph_of_several_inputs_and_whole_numbers_is_asked_by_given_rows(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(10, 32), nn.Linear(36, 4)

        def forward(self, who: Tensor, x: Tensor) -> Tensor:
            answer: Tensor = self.head(torch.cat([self.table(who[:, 0]), x], dim=1))
            return answer

    free = {0: torch.export.Dim.DYNAMIC}
    example = (torch.zeros((2, 1), dtype=torch.int64), torch.zeros((2, 4)))
    path, rows = tmp_path / "two.onnx", tmp_path / "rows.npz"
    path.write_bytes(exported(Two(), example, (free, free), ["who", "x"], ["q"]))
    with pytest.raises(BadSettings, match="who cannot be made up: give rows"):
        export_model(path, tmp_path / "out")
    chance = np.random.default_rng(1)
    np.savez(rows, x=chance.normal(size=(20, 4)), who=chance.integers(0, 10, (20, 1)))
    assert export_model(path, tmp_path / "out", rows=rows).eligible


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"y": np.zeros((4, 16))}, "holds y: two rows or more of each of x"),
        ({"x": np.zeros((4, 17))}, r"rows of \(17,\); the graph wants \(16,\)"),
        ({"x": np.full((4, 16), np.nan)}, "no finite number"),
        ({"x": np.zeros((1, 16))}, "two rows or more"),
        ({"x": np.array(["a"] * 4)}, "no .npz file of arrays of numbers: x.npy has a header"),
    ],
)
def test_rows_that_do_not_fit_are_told_why(file: Path, tmp_path: Path, made: dict[str, np.ndarray], words: str) -> None:
    rows = tmp_path / "rows.npz"
    np.savez(rows, **made)
    with pytest.raises(BadSettings, match=words):
        export_model(file, tmp_path / "out", rows=rows)
    assert not (tmp_path / "out").exists()


def test_a_form_that_breaks_its_bound_leaves_a_report_and_no_graph(tmp_path: Path) -> None:
    class Loud(nn.Module):
        """What is small beside a weight of its own row is lost in 4 bits."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(32, 4, bias=False)
            with torch.no_grad():
                self.head.weight[:, 0], self.head.weight[:, 1:] = 7.0, 0.4

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.head(x * torch.tensor([0.0] + [1.0] * 31))
            return answer

    path, out = tmp_path / "loud.onnx", tmp_path / "out"
    path.write_bytes(to_onnx(Loud(), torch.randn(2, 32)))
    command = ["export", "--model", str(path), "--out", str(out)]
    assert millwright.main([*command, "--quantize", "int4"]) == 1
    assert not (out / "model.onnx").exists()
    report = told(out)
    assert report.verdict.startswith("Refused: int4_blocks: element rms")
    assert "at most 0.05" in report.verdict
    assert millwright.main(command) == 0
    assert told(out).chosen != "int4_blocks"


@pytest.mark.parametrize("quantize", ["auto", "int8"])
def test_a_language_model_goes_with_its_tokenizer(gpt: Path, tmp_path: Path, quantize: str) -> None:
    report = export_model(gpt, tmp_path / "out", quantize=quantize)
    assert (report.kind, report.family, report.beside) == ("decoder", "gpt2", ["tokenizer.json"])
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (gpt / "tokenizer.json").read_bytes()
    assert "wrote itself" in report.judged_on
    assert report.bytes < 0.45 * report.float_bytes
    assert "negative log-likelihood at most 1.00% worse" in report.bound
    assert quantize == "auto" or report.chosen == "int8"


def test_texts_that_are_given_judge_a_language_model(gpt: Path, tmp_path: Path) -> None:
    texts = tmp_path / "held.txt"
    texts.write_text("\n".join([*TEXTS[:3], ""]), encoding="utf-8")
    assert export_model(gpt, tmp_path / "out", texts=texts).judged_on == "3 texts that were given"


def test_an_encoder_keeps_its_vectors(encoder: Path, tmp_path: Path) -> None:
    report = export_model(encoder, tmp_path / "out")
    assert (report.kind, report.family) == ("encoder", "bert")
    assert report.chosen in ("int8", "int8_blocks")
    assert {"MatMulInteger", "MatMulNBits"} & operators((tmp_path / "out" / "model.onnx").read_bytes())
    assert report.judged_on == "texts made of its own vocabulary"


# --- what is not a model --------------------------------------------------------------------------------------------------


def edited(graph: bytes, edit: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(graph)
    edit(model)
    return bytes(model.SerializeToString())


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = MOST_OPSET + 20


def _domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "shop.custom"


def _hidden_domain(model: onnx.ModelProto) -> None:
    """In a branch."""
    odd = helper.make_graph([helper.make_node("Odd", [], ["o"], domain="shop.custom")], "branch", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("then_branch", odd))


def _outside(model: onnx.ModelProto, location: str = "weights.bin") -> None:
    one = next(one for one in model.graph.initializer if len(one.dims) == 2)
    one.ClearField("raw_data")
    one.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4096")):
        one.external_data.add(key=key, value=value)


def _climbing(model: onnx.ModelProto) -> None:
    _outside(model, "../../etc/passwd")


def _halves(model: onnx.ModelProto) -> None:
    one = next(one for one in model.graph.initializer if len(one.dims) == 2)
    one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one).astype(np.float16), one.name))


def _endless(model: onnx.ModelProto) -> None:
    one = next(one for one in model.graph.initializer if len(one.dims) == 2)
    one.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(one), np.inf), one.name))


def _packed(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["a", "b", "c"]))


def _loose_end(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nobody"


def _no_contribution(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type, model.graph.node[0].domain = "Nothing", "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)


def _unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Gemmm"


@pytest.mark.parametrize(
    ("edit", "reason", "words"),
    [
        (_opset, Reason.UNSUPPORTED_RUNTIME, f"opset {MOST_OPSET + 20}; 13 to {MOST_OPSET} are known"),
        (_domain, Reason.UNSUPPORTED_RUNTIME, "of the domain 'shop.custom'"),
        (_hidden_domain, Reason.UNSUPPORTED_RUNTIME, "operator Odd of the domain 'shop.custom'"),
        (_outside, Reason.BAD_ARCHIVE, "weights.bin, which is not beside it: bring both"),
        (_climbing, Reason.BAD_ARCHIVE, "a plain name beside net.onnx is read"),
        (_halves, Reason.WRONG_TYPE, "is float16: bring the graph with float32 weights"),
        (_endless, Reason.NOT_FINITE, "no finite number: train the model again"),
        (_packed, Reason.WRONG_TYPE, "quantized already"),
        (_loose_end, Reason.BAD_ARCHIVE, "no valid graph"),
        (_unknown_operator, Reason.BAD_ARCHIVE, "no valid graph"),
        (_no_contribution, Reason.UNSUPPORTED_RUNTIME, "onnxruntime cannot load the graph"),
    ],
)
def test_a_graph_that_cannot_be_trusted_is_refused_with_its_reason(
    graph: bytes, tmp_path: Path, edit: Callable[[onnx.ModelProto], None], reason: Reason, words: str
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(edited(graph, edit))
    with pytest.raises(BadBundle) as raised:
        smallest(path)
    assert raised.value.reason is reason
    assert words in raised.value.detail


def test_weights_that_lie_beside_are_read_and_truncated_ones_are_not(graph: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save_model(
        onnx.load_from_string(graph), str(path), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert smallest(path).choice.float_bytes > 20_000
    weights = tmp_path / "w.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BadBundle, match=r"w\.bin is truncated: .* reaches beyond its end"):
        smallest(path)


def test_local_functions_are_put_in_place(tmp_path: Path) -> None:
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    weights = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Twice", ["y"], ["q"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("q", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = helper.make_model(body, functions=[twice], opset_imports=opsets, ir_version=10)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert operators(read_float_graph(path)) == {"MatMul", "Add"}


@pytest.mark.parametrize("kept", [0, 1, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_ends(graph: bytes, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(graph[: int(kept * len(graph)) if kept < 1 else 1])
    with pytest.raises(BadBundle, match=r"truncated, or no ONNX file|no valid graph"):
        smallest(path)


def test_a_damaged_file_is_used_or_refused_and_never_a_traceback(graph: bytes, tmp_path: Path) -> None:
    path, chance, refused = tmp_path / "net.onnx", random.Random(3), 0
    whole = bare(graph)
    for _ in range(80):
        body = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 5])):
            body[chance.randrange(600 if chance.random() < 0.7 else len(body))] = chance.randrange(256)
        path.write_bytes(body)
        try:
            smallest(path)
        except MillwrightError:
            refused += 1
    assert refused > 20


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with path.open("wb") as stream:
        stream.truncate(600 * 1024 * 1024)
    with pytest.raises(BadBundle, match="the limit is") as raised:
        smallest(path)
    assert raised.value.reason is Reason.TOO_LARGE


def test_a_graph_with_a_frozen_batch_is_told_how_to_free_it(graph: bytes, tmp_path: Path) -> None:
    def freeze(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4

    path = tmp_path / "net.onnx"
    path.write_bytes(edited(graph, freeze))
    with pytest.raises(BadSettings, match="free first axis"):
        smallest(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.pt2", r"refused: write the same program with torch\.onnx\.export"),
        ("net.pt", "pickle, which can run code"),
        ("net.bin", "pickle, which can run code"),
        ("lstm.bundle", "packed already"),
        ("net.h5", "a Hugging Face folder or a float .onnx file is known"),
    ],
)
def test_a_file_of_another_kind_is_refused_without_being_read(tmp_path: Path, name: str, words: str) -> None:
    """A pickle that would tell of being opened."""
    path, mark = tmp_path / name, tmp_path / "opened"
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("data.pkl", b"cposix\nsystem\n(S'touch %s'\ntR." % str(mark).encode())
    path.write_bytes(body.getvalue())
    with pytest.raises((BadBundle, BadSettings), match=words):
        smallest(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("gone", "beside", "words"),
    [
        ("tokenizer.json", "", "holds no tokenizer.json"),
        ("config.json", "", "holds no config.json"),
        ("model.safetensors", "", "holds neither model.safetensors"),
        ("model.safetensors", "pytorch_model.bin", "pytorch_model.bin is a pickle"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused(gpt: Path, tmp_path: Path, gone: str, beside: str, words: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for part in gpt.iterdir():
        if part.name != gone:
            (folder / part.name).write_bytes(part.read_bytes())
    if beside:
        (folder / beside).write_bytes(b"\x80\x02.")
    with pytest.raises(BadBundle, match=words):
        smallest(folder)


def test_a_family_that_is_not_known_names_those_that_are(gpt: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for part in gpt.iterdir():
        (folder / part.name).write_bytes(part.read_bytes())
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(BadBundle, match=r"architecture 'mamba': known are bert, .*llama"):
        smallest(folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "tflite"], "TFLite files are made of torch modules, not of ONNX files"),
        (["--quantize", "int3"], "quantize 'int3': name one of auto, float32"),
        (["--quantize", "int8_static"], "int8_static could not be made: it has no convolution"),
        (["--rows", "absent.npz"], "cannot read absent.npz"),
        (["--texts", "absent.txt"], "cannot read absent.txt"),
        (["--out", "no/such/place"], "there is no folder no/such"),
        (["--model", "absent.onnx"], "there is no absent.onnx"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert millwright.main(["export", "--model", str(file), "--out", "out", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_elses_is_never_overwritten(file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(BadSettings, match="name another"):
        export_model(file, tmp_path / "mine")
