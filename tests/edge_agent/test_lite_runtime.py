"""TFLite beside ONNX on a gateway: what is damaged is refused, what is wrong on this machine does not serve, and of what is
right the fastest does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lite_files import CHANNELS, STEPS, encoder, forecast, forecaster, forecaster_graph, vectors, wide_integers

pytest.importorskip("ai_edge_litert", reason="pip install 'millwright[tflite]'")

from edge_agent import config, runtimes
from edge_agent.config import RuntimeSettings
from edge_agent.runtimes import apart, choice, lite, load
from edge_agent.runtimes.engine import OnnxEngine
from edge_agent.runtimes.lite import PROBE, LiteEngine, TfliteRuntime
from edge_agent.runtimes.text_graphs import GraphEncoder
from edge_agent.updates import Updates
from protocol.bundles import Bundle, Golden, Lineage, Lite, Parity, Passport, Runtime, digest, pack
from protocol.errors import BadBundle, BadSettings, Reason
from protocol.reading.tokens import tokenizer
from protocol.twin import Assignment, Desired, ModelStatus
from protocol.windows import WindowSpec

SLOT = "forecast.lstm"
NONE = Parity(max_abs=0, rel_rms=0, task_change=0, n=1, bound="")
TOKENS = msgspec.json.encode(
    {
        "model": {"type": "BPE", "vocab": {"a": 1, "b": 2, "ab": 3}, "merges": ["a b"]},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    }
)


def told(
    content: bytes, inputs: tuple[str, ...] = ("x", "who"), outputs: tuple[str, ...] = ("q",), **more: Any
) -> Lite:
    return Lite(recipe="float32", inputs=list(inputs), outputs=list(outputs), size=len(content), parity=NONE, **more)


def windows(rows: int = 3) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(1)
    return drawn.normal(size=(rows, STEPS, CHANNELS)).astype(np.float32), drawn.integers(0, 4, (rows, 2))


def sealed(graph: bytes = b"", file: bytes = b"", version: int = 1, lite_golden: Golden | None = None) -> bytes:
    """A forecaster with the forms that are given; its golden vectors are right."""
    x, who = windows()
    passport = Passport(
        slot=SLOT,
        family="forecast",
        algorithm="lstm",
        version=version,
        runtime=Runtime.ONNX,
        window=WindowSpec(step_ms=1000, length=STEPS, horizon=4),
        levels=[0.1, 0.5, 0.9],
        lineage=Lineage(dataset_digest="0" * 64, dataset_rows=1, code_version="0", seed=1, trained_ms=1),
        quality=[],
        eligible=True,
        verdict="made for a test",
        parity=NONE,
        lite=told(file, golden=lite_golden) if file else None,
        golden=Golden(atol=1e-4, rtol=0),
        float_bytes=1,
        packed_bytes=1,
        latency_us=1,
        intended_use="tests",
        limits="none",
    )
    return pack(
        Bundle(
            passport=passport,
            graph=graph,
            lite=file,
            golden_inputs={"x": x, "who": who},
            golden_outputs={"q": forecast(x, who)},
        )
    )


def loaded(archive: bytes, **changes: Any) -> runtimes.LoadedModel:
    return load(archive, digest(archive), RuntimeSettings(**changes))


class Garbage:
    """A runtime that takes every file without an error and answers nonsense, as tflite-runtime 2.14 does with some."""

    def __init__(self, content: bytes, _threads: int) -> None:
        real = lite.tflite_runtime().make(content, 1)
        self._real = real

    def get_signature_list(self) -> dict[str, Any]:
        return dict(self._real.get_signature_list())

    def get_signature_runner(self, name: str) -> Any:
        runner = self._real.get_signature_runner(name)

        class Wrong:
            get_input_details, get_output_details = runner.get_input_details, runner.get_output_details

            def __call__(self, **asked: np.ndarray) -> dict[str, np.ndarray]:
                return {key: value[..., ::-1] * 1.7 for key, value in runner(**asked).items()}

        return Wrong()


# the adapter ----------------------------------------------------------------------------------------------------------


def test_the_adapter_matches_by_name_and_narrows_integers() -> None:
    content = forecaster()
    engine = LiteEngine(content, told(content))
    x, who = windows(1)
    assert who.dtype == np.int64
    np.testing.assert_allclose(engine.run({"who": who, "x": x})["q"], forecast(x, who), atol=1e-5)
    assert engine.name.startswith("tflite by ai-edge-litert ")
    assert engine.lengths == ()


@pytest.mark.parametrize("asked", ["a batch", "a missing input", "a further input"])
def test_what_the_file_does_not_take_is_refused_with_its_shapes(asked: str) -> None:
    content = forecaster()
    engine = LiteEngine(content, told(content))
    x, who = windows(2)
    row = {"x": x[:1], "who": who[:1]}
    given = {"a batch": {"x": x, "who": who}, "a missing input": {"x": x[:1]}, "a further input": row | {"z": x[:1]}}
    with pytest.raises(BadBundle, match=r"takes \[\(\(1, 8, 5\), \(1, 2\)\)\]"):
        engine.run(given[asked])


@pytest.mark.parametrize("names", [(("x",), ("q",)), (("x", "who"), ("y",))])
def test_a_passport_with_other_names_is_refused(names: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    content = forecaster()
    with pytest.raises(BadBundle, match="the passport says"):
        LiteEngine(content, told(content, *names))


def test_inputs_of_another_kind_are_refused() -> None:
    content = wide_integers()
    with pytest.raises(BadBundle, match=r"float32 or int32, not \{'z': 'int64'\}"):
        LiteEngine(content, told(content, ("z",)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no TFLite flatbuffer"),
        (b"\x00" * 400, "no TFLite flatbuffer"),
        (PROBE[:4] + b"TFL2" + PROBE[8:], "no TFLite flatbuffer"),
        (b"\xff\xff\xff\x7f" + PROBE[4:], "cut or altered"),
    ],
)
def test_what_is_no_tflite_file_is_shown_to_no_runtime(content: bytes, words: str) -> None:
    def never(_content: bytes, _threads: int) -> Any:
        raise AssertionError("a runtime was asked")

    with pytest.raises(BadBundle, match=words):
        LiteEngine(content, told(content), runtime=TfliteRuntime("none", "0", never))


@settings(max_examples=60)
@given(cut=st.integers(1, 5000))
def test_a_cut_file_is_refused_by_its_size(cut: int) -> None:
    content = forecaster()
    with pytest.raises(BadBundle, match="pack it again"):
        LiteEngine(content[: -min(cut, len(content))], told(content))


def test_an_encoder_fills_texts_up_to_the_lengths_of_its_file() -> None:
    content = encoder((2, 4, 8))
    engine = LiteEngine(content, told(content, ("ids", "mask"), ("tokens", "whole")))
    assert engine.lengths == (2, 4, 8)
    read = GraphEncoder(engine, tokenizer(TOKENS), 4, context=8)
    table = vectors()
    for text, ids in {"a": [1], "ab": [3], "abaab": [3, 1, 3], "aaaaab": [1, 1, 1, 1, 3]}.items():
        said = read.encode(text)
        wanted = table[ids]
        total = wanted.sum(axis=0)
        np.testing.assert_allclose(said.tokens[-1], wanted[-1], atol=1e-6)
        np.testing.assert_allclose(said.whole, total / np.linalg.norm(total), atol=1e-6)
    assert read.encode("a" * 11).cut == 3


# finding a runtime ----------------------------------------------------------------------------------------------------


def test_a_runtime_that_loads_and_does_not_run_is_told_apart_from_one_that_is_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def __init__(self, **_: Any) -> None:
            raise SystemError("initialization of _pywrap_tensorflow_interpreter_wrapper raised")

    absent = lite.asked("tflite-runtime", "no_such_package.interpreter")
    assert "not installed" in absent.why
    found = _probe_of(Broken, monkeypatch)
    assert found.runtime is None
    assert "loads and does not run with numpy" in found.why


def test_a_runtime_whose_answer_to_the_probe_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _probe_of(lambda model_content, num_threads: Garbage(model_content, num_threads), monkeypatch)
    assert found.runtime is None
    assert "right is [[30.0, 20.0]]" in found.why


def _probe_of(interpreter: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> lite.Probe:
    class Module:
        Interpreter = staticmethod(interpreter)

    lite.tflite_runtime()  # the real one, before the name is another's
    monkeypatch.setattr(lite.importlib, "import_module", lambda _: Module)
    return lite.asked("ai-edge-litert", "a.test")


# choosing -------------------------------------------------------------------------------------------------------------


def test_of_two_right_forms_the_fastest_serves_and_says_so() -> None:
    model = loaded(sealed(forecaster_graph(), forecaster()))
    assert model.engine.split()[0] in ("onnxruntime", "tflite")
    assert model.engine_why.startswith("the fastest here (")
    assert "onnxruntime" in model.engine_why
    assert "tflite" in model.engine_why
    x, who = windows()
    np.testing.assert_allclose(model.quantiles(x, who), forecast(x, who), atol=1e-4)


def test_the_least_time_decides_not_the_first() -> None:
    found = choice.choose({"onnxruntime": 611.0, "tflite": 472.0}, {}, RuntimeSettings())
    assert found.engine == "tflite"
    assert found.why == "the fastest here (tflite 472 us, onnxruntime 611 us for the golden inputs)"
    assert choice.choose({"onnxruntime": 1.0, "tflite": 2.0}, {}, RuntimeSettings()).engine == "onnxruntime"
    assert choice.least_us(lambda: None) < choice.least_us(lambda: sum(range(200_000)))


def test_a_gateway_whose_other_engine_is_faster_loads_no_tflite_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a TFLite runtime was loaded")

    monkeypatch.setattr(runtimes, "proven_apart", lambda *_: 1e9)
    monkeypatch.setattr(runtimes, "LiteEngine", never)
    assert loaded(sealed(forecaster_graph(), forecaster())).engine.startswith("onnxruntime")


@pytest.mark.parametrize("order", [("tflite", "onnxruntime"), ("onnxruntime", "tflite")])
def test_settings_may_prefer_an_engine(order: tuple[str, str]) -> None:
    model = loaded(sealed(forecaster_graph(), forecaster()), engines=order)
    assert model.engine.startswith(order[0])
    assert model.engine_why == "the settings prefer it"


@pytest.mark.parametrize(
    ("graph", "file", "serves", "why"),
    [
        (
            forecaster_graph(),
            forecaster(scale=1.5),
            "onnxruntime",
            "tflite does not serve: golden output 'q' is off by",
        ),
        (
            forecaster_graph(scale=1.5),
            forecaster(),
            "tflite",
            "onnxruntime does not serve: golden output 'q' is off by",
        ),
        (b"no graph", forecaster(), "tflite", "onnxruntime does not serve: the graph is no ONNX file"),
        (forecaster_graph(), b"TFL3" * 40, "onnxruntime", "it is cut or altered"),
    ],
)
def test_a_form_that_is_wrong_here_is_passed_over_with_the_reason(
    graph: bytes, file: bytes, serves: str, why: str
) -> None:
    model = loaded(sealed(graph, file))
    assert model.engine.startswith(serves)
    assert why in model.engine_why


def test_a_bundle_of_which_every_form_is_wrong_here_is_refused_with_every_reason() -> None:
    with pytest.raises(BadBundle, match=r"onnxruntime: golden output .* tflite: golden output") as refused:
        loaded(sealed(forecaster_graph(scale=1.5), forecaster(scale=1.5)))
    assert refused.value.reason is Reason.GOLDEN_MISMATCH


def test_the_tflite_file_is_proven_by_a_tolerance_of_its_own() -> None:
    near = Golden(atol=3.0, rtol=0.0)
    model = loaded(sealed(forecaster_graph(), forecaster(scale=1.05), lite_golden=near), engines=("tflite",))
    assert model.engine.startswith("tflite")


def test_settings_that_allow_no_form_of_the_bundle_are_named() -> None:
    with pytest.raises(BadBundle, match=r"a form for onnxruntime, and \[runtime\] engines names none"):
        loaded(sealed(forecaster_graph()), engines=("tflite",))


def test_a_runtime_that_answers_garbage_without_an_error_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = sealed(forecaster_graph(), forecaster())
    garbage = TfliteRuntime("tflite-runtime", "2.14.0", Garbage)
    lite.tflite_runtime()
    monkeypatch.setattr(runtimes, "proven_apart", lambda *_: 0.0)
    monkeypatch.setattr(runtimes, "LiteEngine", lambda *given: LiteEngine(*given, runtime=garbage))
    model = loaded(archive)
    assert model.engine.startswith("onnxruntime")
    assert "tflite does not serve: golden output 'q' is off by" in model.engine_why


# a process of its own -------------------------------------------------------------------------------------------------


def test_a_file_is_proven_in_a_process_of_its_own() -> None:
    good, wrong = sealed(file=forecaster()), sealed(file=forecaster(scale=2.0))
    assert 0 < apart.proven_apart(good, digest(good), RuntimeSettings()) < 1e6
    with pytest.raises(BadBundle, match="off by") as refused:
        apart.proven_apart(wrong, digest(wrong), RuntimeSettings())
    assert refused.value.reason is Reason.GOLDEN_MISMATCH


@pytest.mark.parametrize(
    ("child", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("import time; time.sleep(60)", "was stopped"),
        ("raise RuntimeError('no such kernel')", "no such kernel"),
    ],
)
def test_a_runtime_that_dies_or_hangs_costs_the_gateway_nothing(
    child: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "START", child)
    with pytest.raises(BadBundle) as refused:
        apart.proven_apart(b"", "", RuntimeSettings(), limit_s=1.0)
    assert words in refused.value.detail


@settings(max_examples=12)
@given(bits=st.sets(st.integers(0, 8 * len(forecaster()) - 1), min_size=1, max_size=6))
def test_whatever_bits_are_flipped_in_a_tflite_file_the_gateway_answers(bits: set[int]) -> None:
    damaged = bytearray(forecaster())
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    model = loaded(sealed(forecaster_graph(), bytes(damaged)))
    x, who = windows()
    np.testing.assert_allclose(model.quantiles(x, who), forecast(x, who), atol=1e-3)


def test_the_twin_says_which_engine_serves_and_why_and_a_bundle_without_a_right_form_keeps_the_one_before(
    tmp_path: Path,
) -> None:
    first = sealed(forecaster_graph(), forecaster())
    second = sealed(forecaster_graph(scale=3.0), forecaster(scale=3.0), version=2)
    shelf = {digest(one): one for one in (first, second)}
    updates = Updates(
        tmp_path, lambda wanted: shelf[wanted.digest], lambda: 5, RuntimeSettings(engines=("tflite", "onnxruntime"))
    )
    for version, one in enumerate((first, second), start=1):
        name = digest(one)
        wish = Assignment(slot=SLOT, version=version, digest=name, size=len(one), path=f"/api/v1/bundles/{name}")
        updates.apply(Desired(version=version, models=[wish]))
    serving, refused = updates.status()
    assert (serving.status, serving.version) == (ModelStatus.SERVING, 1)
    assert serving.engine.startswith("tflite by ai-edge-litert ")
    assert serving.engine_why == "the settings prefer it"
    assert (refused.status, refused.version) == (ModelStatus.REFUSED, 2)
    assert "golden output" in refused.error


def test_no_secret_of_the_gateway_reaches_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLWRIGHT_GATEWAY_TOKEN", "secret")
    code = "import os; print([name for name in os.environ if name.startswith('MILLWRIGHT')])"
    assert apart.in_a_process(code, [], b"", 30.0, "a test").stdout.strip() == b"[]"


def test_what_native_parts_print_is_not_taken_for_the_childs_answer() -> None:
    code = (
        "import os; from edge_agent.runtimes.apart import answer_alone; out = answer_alone(); "
        "os.write(1, b'INFO: a delegate'); out.write(b'1.5'); out.close()"
    )
    assert apart.in_a_process(code, [], b"", 30.0, "a test").stdout == b"1.5"


# settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        "engines = []",
        'engines = ["tensorrt"]',
        'engines = "slowest"',
        "threads = 0",
        'providers = ["own.so"]',
        "arena_mb = -1",
        "text_lengths = [1]",
    ],
)
def test_settings_that_cannot_be_meant_are_refused(lines: str, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'site = "s"\ngateway = "g"\ndata_dir = "d"\n[runtime]\n{lines}\n', encoding="utf-8")
    with pytest.raises(BadSettings, match="runtime"):
        config.load(file)


# onnxruntime by settings ----------------------------------------------------------------------------------------------


def test_onnxruntime_takes_threads_providers_and_a_limit_of_memory_from_the_settings() -> None:
    asked = RuntimeSettings(threads=2, providers=("CUDAExecutionProvider", "CPUExecutionProvider"), arena_mb=64)
    engine = OnnxEngine(forecaster_graph(), asked)
    assert engine.name.endswith(" on CPU")
    x, who = windows(1)
    np.testing.assert_allclose(engine.run({"x": x, "who": who})["q"], forecast(x, who), atol=1e-5)


@pytest.mark.parametrize("given", [{}, {"x": np.zeros((1, 2, 3), np.float32), "who": np.zeros((1, 2), np.int64)}])
def test_a_graph_that_does_not_take_what_it_is_given_is_refused(given: dict[str, np.ndarray]) -> None:
    with pytest.raises(BadBundle, match="does not run"):
        OnnxEngine(forecaster_graph()).run(given)
