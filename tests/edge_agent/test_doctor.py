"""`millwright doctor` tells what runs models here, what does not and why, and a [runtime] that the agent takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from edge_agent import doctor
from edge_agent.config import AgentSettings, RuntimeSettings
from edge_agent.runtimes import apart, machine
from edge_agent.runtimes.machine import Answered, recommended
from protocol.processors import processor

ROOT = Path(__file__).parents[2]
WORKS, FAILS = Answered(name="here", works=True), Answered(name="there", why="not installed")


def test_what_works_here_is_told_with_settings_that_the_agent_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    said = capsys.readouterr().out
    assert "onnxruntime  CPUExecutionProvider" in said
    assert ": right, " in said
    told = tomllib.loads(said[said.index("[runtime]") :])
    settings = msgspec.convert({"site": "s", "gateway": "g", "data_dir": "d", **told}, AgentSettings)
    assert settings.runtime.threads == 1


def test_a_program_reads_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["threads"] >= 1
    assert told["disk_free_mb"] > 0
    assert [one["name"] for one in told["tflite"]] == ["ai-edge-litert", "tflite-runtime"]
    assert all(one["works"] or one["why"] for one in (*told["onnxruntime"], *told["tflite"]))


def test_the_disk_of_the_agents_data_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('site = "s"\ngateway = "g"\ndata_dir = "not/there/yet"\n', encoding="utf-8")
    assert doctor.main(["--config", str(file)]) == 0
    assert "MiB of disk" in capsys.readouterr().out


def test_an_engine_that_ends_its_process_is_told_and_the_doctor_lives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "ASK", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    assert doctor.main([]) == 1
    said = capsys.readouterr().out
    assert "was ended by SIGILL: it cannot run on this machine" in said
    assert "no engine works: models of numbers and tables run" in said


@pytest.mark.parametrize(
    ("onnx", "tflite", "engines"),
    [
        ([WORKS], [WORKS, FAILS], "fastest"),
        ([WORKS], [FAILS], ("onnxruntime",)),
        ([FAILS], [FAILS, WORKS], ("tflite",)),
        ([FAILS], [FAILS], "fastest"),
    ],
)
def test_the_settings_name_what_works(onnx: list[Answered], tflite: list[Answered], engines: object) -> None:
    assert recommended(onnx, tflite)[0] == RuntimeSettings(engines=engines)  # type: ignore[arg-type]


def test_what_is_to_be_known_of_an_engine_that_works_is_told() -> None:
    short = Answered(name="CPUExecutionProvider", works=True, note="products of 8 bits overflow here")
    assert "CPUExecutionProvider: products of 8 bits overflow here" in recommended([short], [FAILS])[1]


@pytest.mark.parametrize(
    ("cpuinfo", "name", "features"),
    [
        (
            "model name\t: Some Xeon\nflags\t\t: fpu avx2 avx512f avx512_vnni\n",
            "Some Xeon",
            ["AVX2", "AVX512", "AVX512-VNNI"],
        ),
        ("model name : Cortex-A72\nFeatures : fp asimd crc32\n", "Cortex-A72", ["NEON"]),
        ("Hardware : BCM2711\nFeatures : half neon vfpv4\n", "BCM2711", ["NEON"]),
        ("processor : 0\nFeatures : fp asimd asimddp i8mm\n", "", ["NEON", "dot product", "I8MM"]),
    ],
)
def test_a_processors_features_are_read_on_intel_and_arm(cpuinfo: str, name: str, features: list[str]) -> None:
    told, found = processor(cpuinfo)
    assert found == features
    assert not name or told == name


def test_asking_loads_nothing_heavy() -> None:
    code = (
        "import sys; from edge_agent import doctor; doctor.main([]); "
        "print([m for m in ('torch', 'onnxruntime', 'ai_edge_litert', 'pandas', 'fastapi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_child_that_cannot_be_started_is_a_reason_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart.sys, "executable", "/no/such/python")
    (found,) = machine._asked("tflite")
    assert "cannot be started" in found.why
