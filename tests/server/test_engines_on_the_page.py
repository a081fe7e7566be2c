"""The console's page says which engine runs a model on each gateway, and why that one, in the language of the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from edge_agent.config import RuntimeSettings
from edge_agent.runtimes.choice import choose
from protocol.errors import BadBundle, Reason
from protocol.twin import ModelStatus, Reported, Role, RunningModel
from server import intake
from tests import written
from tests.server.test_editing_on_the_page import Plant, plant  # noqa: F401 - a fixture

pytestmark = pytest.mark.browser
ONNX, LITE = "onnxruntime 1.32.0 on CPU", "tflite by ai-edge-litert 2.3.0"
HARMFUL = "<img src=x onerror=document.title='broken'>"
WRONG = BadBundle(Reason.GOLDEN_MISMATCH, f"golden output 'q' is off by 3.1 {HARMFUL}")
FASTEST = choose({"tflite": 472.0, "onnxruntime": 611.0}, {}, RuntimeSettings()).why
PASSED_OVER = choose({"onnxruntime": 611.0}, {"tflite": WRONG}, RuntimeSettings()).why
ALONE = choose({"onnxruntime": 611.0}, {}, RuntimeSettings(engines=("onnxruntime",))).why
PREFERRED = choose({"tflite": 0.0}, {}, RuntimeSettings(engines=("tflite", "onnxruntime"))).why
ONLY = choose({"onnxruntime": 611.0}, {}, RuntimeSettings()).why


def report(plant: Plant, gateway: str, *models: Mapping[str, Any]) -> None:  # noqa: F811
    """A gateway says what runs there."""
    usual = {"role": Role.SERVING, "version": 3, "status": ModelStatus.SERVING, "since_ms": written.T0, "results": 7}
    running = [RunningModel(**{**usual, **told}) for told in models]
    told = Reported(applied_version=1, boot_id="b", time_ms=written.T0, models=running)
    with plant.database.begin() as session:
        intake.take_reported(session, "s", gateway, msgspec.json.encode(told))


def lines(plant: Plant, gateway: str, slot: str) -> list[str]:  # noqa: F811
    """What stands below a model's row, for a gateway."""
    rows = plant.browser.execute_script(
        "return [...document.querySelectorAll('#models tbody tr:not(.below)')].map((tr) => [tr.cells[0].textContent,"
        " tr.cells[1].textContent, tr.nextSibling?.className === 'below'"
        " ? [...tr.nextSibling.querySelectorAll('.line')].map((one) => one.textContent) : []])"
    )
    (found,) = [told for at, name, told in rows if (at, name) == (gateway, slot)]
    return list(found)


@pytest.mark.parametrize(
    ("language", "width", "runs", "why", "passed_over", "others", "tables"),
    [
        (
            "en",
            1280,
            "runs on {0}",
            "the fastest here (tflite 472 us, onnxruntime 611 us for the golden inputs)",
            "tflite does not serve: golden output 'q' is off by 3.1",
            ["the settings allow no other", "the settings prefer it", "the only form that there is"],
            "tables, answered without an engine",
        ),
        (
            "zh",
            390,
            "由 {0} 运行",
            "此处最快（黄金向量耗时：tflite 472 微秒，onnxruntime 611 微秒）",
            "tflite 未启用：golden output 'q' is off by 3.1",
            ["设置不允许其他引擎", "按设置优先选用", "仅有这一种形式"],
            "数值表，无需推理引擎",
        ),
    ],
)
def test_each_gateways_row_says_what_runs_the_model_there(
    plant: Plant,  # noqa: F811
    language: str,
    width: int,
    runs: str,
    why: str,
    passed_over: str,
    others: list[str],
    tables: str,
) -> None:
    report(
        plant,
        "g-1",
        {"slot": "forecast.lstm", "engine": LITE, "engine_why": FASTEST},
        {"slot": "forecast.ridge"},
        {"slot": "fault.life", "status": ModelStatus.REFUSED, "error": "golden_mismatch: off"},
        {"slot": "supply.demand", "engine": LITE, "engine_why": PREFERRED, "status": ModelStatus.SHADOW},
    )
    report(
        plant,
        "g-2",
        {"slot": "forecast.lstm", "engine": ONNX, "engine_why": PASSED_OVER},
        {"slot": "notes.reader", "engine": ONNX, "engine_why": ALONE},
        {"slot": "report.writer", "engine": "onnxruntime", "engine_why": ONLY},
    )
    plant.browser.set_window_size(width, 900)
    plant.browser.get(plant.browser.current_url.split("?")[0] + f"?lang={language}")
    plant.one("#models .engine", runs.format(LITE))
    assert lines(plant, "g-1", "forecast.lstm") == [runs.format(LITE), why]
    assert lines(plant, "g-2", "forecast.lstm") == [runs.format(ONNX), f"{passed_over} {HARMFUL}"]
    assert lines(plant, "g-2", "notes.reader") == [runs.format(ONNX), others[0]]
    assert lines(plant, "g-1", "supply.demand") == [runs.format(LITE), others[1]]
    assert lines(plant, "g-2", "report.writer") == [runs.format("onnxruntime"), others[2]]
    assert lines(plant, "g-1", "forecast.ridge") == [tables]
    assert lines(plant, "g-1", "fault.life") == []
    assert plant.browser.title == "Millwright"
    assert plant.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_gateway_that_changes_its_engine_is_shown_without_a_reload(plant: Plant) -> None:  # noqa: F811
    report(plant, "g-1", {"slot": "forecast.lstm", "engine": ONNX, "engine_why": ONLY})
    plant.one("#models .engine", ONNX)
    report(plant, "g-1", {"slot": "forecast.lstm", "engine": LITE, "engine_why": FASTEST})
    plant.one("#models .engine", LITE)
    assert lines(plant, "g-1", "forecast.lstm") == [f"runs on {LITE}", FASTEST]
