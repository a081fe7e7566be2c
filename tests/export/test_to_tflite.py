"""A module becomes a TFLite file that answers as the module does, through the runtime that gateways have; what cannot is
refused with the reason. The conversions need litert-torch, here or by MILLWRIGHT_TFLITE_PYTHON."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor, nn

from export import to_tflite as lite
from export.bounds import FORECASTER, Bound
from export.parity import compare
from export.to_tflite import Converter, LiteFile, LiteRows, LiteTokens, converter, lengths_up_to, proven, to_tflite
from export.trials import Trial, trial_of_rows
from protocol.errors import BadBundle, BadSettings

STEPS, CHANNELS, HORIZON, WIDTH = 6, 3, 2, 16


class Forecaster(nn.Module):
    """A recurrent layer, and an identity that shifts its answer: what the project's forecaster is made of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.lstm = nn.LSTM(CHANNELS, 32, 2, batch_first=True)
        self.name, self.head = nn.Embedding(4, 32), nn.Linear(32, HORIZON)

    def forward(self, x: Tensor, who: Tensor) -> Tensor:
        state, _ = self.lstm(x)
        answer: Tensor = self.head(state[:, -1] + self.name(who[:, 0]))
        return answer


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.token, self.mix = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(self.mix(self.token(ids)))
        weight = mask.to(x.dtype)[:, :, None]
        mean = (x * weight).sum(dim=1) / weight.sum(dim=1)
        return x, mean / mean.norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def by() -> Converter:
    try:
        return converter()
    except BadSettings as why:
        pytest.skip(str(why))


def windows(rows: int = 12) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(5)
    return drawn.normal(size=(rows, STEPS, CHANNELS)).astype(np.float32), drawn.integers(0, 4, (rows, 2))


def in_torch(net: nn.Module, *arrays: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        answer: np.ndarray = net.eval()(*(torch.from_numpy(one) for one in arrays)).numpy()
    return answer


def forecaster_file(by: Converter, recipe: str) -> LiteFile:
    x, who = windows(2)
    return to_tflite(
        Forecaster(), {"x": torch.from_numpy(x), "who": torch.from_numpy(who)}, ["q"], recipe=recipe, by=by
    )


def trial(exact: np.ndarray, x: np.ndarray, who: np.ndarray) -> Trial:
    def cost(run: object) -> object:
        return compare(exact, run(x, who), 1.0, 1.0, lower_is_better=True)  # type: ignore[operator]

    return trial_of_rows(cost, x, who)  # type: ignore[arg-type]


def test_a_forecaster_answers_through_the_shipped_runtime_as_it_does_in_torch(by: Converter) -> None:
    net = Forecaster()
    x, who = windows()
    exact = in_torch(net, x, who)
    file = forecaster_file(by, "w8")
    assert (file.inputs, file.outputs) == (["x", "who"], ["q"])
    assert file.content[4:8] == b"TFL3"
    assert "ai-edge-litert" in file.versions
    told = proven(file, LiteRows(file, by), lambda *rows: in_torch(net, *rows), FORECASTER, trial(exact, x, who))
    assert told.recipe == "w8"
    assert told.size == len(file.content)
    assert 0 < told.parity.rel_rms < 0.02


def test_a_file_beyond_its_familys_bound_is_not_packed(by: Converter) -> None:
    net = Forecaster()
    x, who = windows()
    file = forecaster_file(by, "w8")
    narrow = Bound("task error", 0.005, most_rms=1e-9)
    with pytest.raises(BadBundle, match="is not packed: element rms"):
        proven(
            file,
            LiteRows(file, by),
            lambda *rows: in_torch(net, *rows),
            narrow,
            trial(in_torch(net, x, who), x, who),
        )


def test_an_encoder_takes_texts_of_any_length_up_to_its_context(by: Converter) -> None:
    net = Encoder().eval()
    example = torch.zeros((2, 5), dtype=torch.int64)
    examples = {"ids": example, "mask": torch.ones_like(example)}
    file = to_tflite(net, examples, ["tokens", "whole"], recipe="float32", lengths=lengths_up_to(40), by=by)
    rows = [[1, 2, 3], list(range(16)), list(range(17)), list(range(40))]
    said = LiteTokens(file, by)(rows)
    for row, vector in zip(rows, said, strict=True):
        ids = torch.tensor([row])
        np.testing.assert_allclose(vector, net(ids, torch.ones_like(ids))[1][0].detach().numpy(), atol=1e-5)


def test_lengths_double_up_to_the_context() -> None:
    assert lengths_up_to(128) == (16, 32, 64, 128)
    assert lengths_up_to(40) == (16, 32, 40)
    assert lengths_up_to(9) == (9,)


def test_a_language_model_stays_on_onnx() -> None:
    past = torch.zeros((1, 2, 1, 2, 0, 8))
    with pytest.raises(BadBundle, match="a language model stays on ONNX"):
        to_tflite(nn.Identity(), {"ids": torch.zeros((1, 1), dtype=torch.int64), "past": past}, ["logits"])


def test_an_unknown_recipe_is_refused_before_anything_is_made() -> None:
    with pytest.raises(BadSettings, match="w4"):
        to_tflite(nn.Identity(), {"x": torch.zeros(1, 1)}, ["q"], recipe="w4")


def test_without_a_converter_two_commands_say_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lite.VARIABLE, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadSettings, match=r"millwright\[tflite-export\]") as told:
        converter()
    assert "pip install torch" in str(told.value)
    assert f"export {lite.VARIABLE}=" in str(told.value)


def test_an_interpreter_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(lite.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(BadSettings, match="which is no file"):
        converter()


def test_a_converter_that_fails_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match=r"(?s)ended with status 1: .*KeyError: 'dance'"):
        Converter(Path(sys.executable)).call({"task": "dance"}, tmp_path)


def test_a_converter_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="was stopped"):
        Converter(Path(sys.executable), limit_s=0.001).call({"task": "dance"}, tmp_path)
