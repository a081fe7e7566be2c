"""The people of a plant see exactly what left it, what stayed and why."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edge_agent.__main__ import main
from edge_agent.agent import build_agent
from edge_agent.config import AgentSettings, ShareSettings
from edge_agent.once import status as status_command
from edge_agent.panel import Panel, what_we_sent
from edge_agent.sent import COUNTS_EVERY_S, SentLog, summary
from protocol.reading.notes import Note
from protocol.sync import Batch, decode

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

T0 = 1_790_000_000_000
DAY_MS = 86_400_000
HARMFUL = "<img src=x onerror=document.title='broken'>"
_spec = importlib.util.spec_from_file_location("factory", Path(__file__).parent.parent / "factory.py")
assert _spec is not None
assert _spec.loader is not None
factory = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("factory", factory)
_spec.loader.exec_module(factory)


def test_counts_are_kept_by_day_and_examples_are_cut_but_told_whole(tmp_path: Path) -> None:
    clock = factory.FakeClock()
    log = SentLog(tmp_path, clock.now_ms, clock.monotonic_s)
    long = b"x" * 5000
    for payload in (b"one", b"two", long):
        log.sent("feedback", "note", payload)
    log.kept("note", "notes_not_shared")
    clock.pass_s(86_400)
    log.sent("bulk", "block", "温度".encode())
    log.keep()
    told = summary(tmp_path)
    assert told["days"] == ["2026-09-21", "2026-09-22"]
    assert [(r["type"], r["lane"], r["count"], r["bytes"]) for r in told["sent"]] == [
        ("note", "feedback", 3, 5006),
        ("block", "bulk", 1, 6),
    ]
    assert told["kept"] == [{"type": "note", "reason": "notes_not_shared", "count": 1}]
    second, third = told["examples"]["note"]
    assert second["text"] == "two"
    assert (third["bytes"], third["text"]) == (5000, "x" * 2000)
    assert third["sha256"] == hashlib.sha256(long).hexdigest()
    assert [r["type"] for r in summary(tmp_path, "2026-09-22")["sent"]] == ["block"]


def test_a_restart_counts_on_and_the_flash_is_spared(tmp_path: Path) -> None:
    clock = factory.FakeClock()
    log = SentLog(tmp_path, clock.now_ms, clock.monotonic_s)
    saved = 0
    for _ in range(720):  # an hour, a message each five seconds
        log.sent("metric", "heartbeat", b"h" * 2000)
        before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
        log.keep()
        saved += sum(p.stat().st_size for p in tmp_path.iterdir() if before.get(p.name) != p.stat().st_mtime_ns)
        clock.pass_s(5)
    assert saved < 720 * 2000 * 0.02
    log.keep(at_once=True)
    again = SentLog(tmp_path, clock.now_ms, clock.monotonic_s)
    again.sent("metric", "heartbeat", b"h")
    again.keep(at_once=True)
    assert summary(tmp_path)["sent"][0]["count"] == 721


def test_files_of_old_days_go_and_a_damaged_one_is_left_aside(tmp_path: Path) -> None:
    clock = factory.FakeClock()
    log = SentLog(tmp_path, clock.now_ms, clock.monotonic_s)
    for _ in range(40):
        log.sent("event", "e", b"x")
        clock.pass_s(max(86_400, COUNTS_EVERY_S))
        log.keep()
    assert len(list(tmp_path.glob("sent-*.json"))) == 31
    newest = max(tmp_path.glob("sent-*.json"))
    newest.write_text("{")
    assert len(summary(tmp_path)["days"]) == 30


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    """A gateway that heard notes and values, and shares neither a recipe nor names."""
    (tmp_path / "mapping.toml").write_text(
        '[[source]]\ntopic = "plant/{machine}/{signal}"\nvalue = "$"\n[[notes]]\ntopic = "notes"\n'
    )
    made = AgentSettings(
        site="s",
        gateway="g",
        data_dir=str(tmp_path / "data"),
        mapping=str(tmp_path / "mapping.toml"),
        step_ms=1000,
        share=ShareSettings(signals=("v",), block_steps=5),
    )
    broker, clock = factory.MemoryBroker(), factory.FakeClock(disciplined=True)
    agent = build_agent(
        made, clock=clock, plant=factory.MemoryLink(broker), uplink=factory.MemoryLink(broker), fetch=lambda _: b""
    )
    note = Note(
        id="n-1", machine="P-1", time_ms=T0, text=f"张师傅 13800138000 轴承 6204 {HARMFUL}", author="Maria Lopez"
    )
    broker.deliver("notes", msgspec.json.encode(note), False)
    for n in range(30):
        for signal in ("v", "recipe"):
            broker.deliver(f"plant/P-1/{signal}", msgspec.json.encode(20.0 + n % 3), False)
        agent.step(0)
        clock.pass_s(1)
    agent.close()
    (tmp_path / "up.json").write_bytes(b"\n".join(p for t, p in broker.published if "/up/" in t and "reply" not in t))
    return made


def test_what_is_told_is_what_was_on_the_wire(settings: AgentSettings, tmp_path: Path) -> None:
    told = what_we_sent(settings)
    rows = {r["type"]: r for r in told["sent"]}
    envelopes = {
        e.id: e for line in (tmp_path / "up.json").read_bytes().splitlines() for e in decode(line, Batch).envelopes
    }
    for name in ("millwright.note.v1", "millwright.signal_block.v1"):
        sent = [e for e in envelopes.values() if e.type == name]
        assert rows[name]["count"] == len(sent) > 0
        assert rows[name]["bytes"] == sum(len(msgspec.json.encode(e)) for e in sent)
    wire = b"".join(bytes(e.data) for e in envelopes.values()).decode()
    assert "Maria" not in wire
    assert "张" not in wire
    assert "13800138000" not in wire
    assert "6204" in wire
    assert '"recipe"' not in wire
    assert "6204" in told["examples"]["millwright.note.v1"][0]["text"]
    assert {"type": "millwright.forecast.v1", "reason": "signal_not_shared"}.items() <= told["kept"][0].items()
    assert rows["state"]["lane"] == "state"


def test_the_command_says_the_same_in_words_and_as_json(
    settings: AgentSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('site = "s"\ngateway = "g"\ndata_dir = "data"\n[share]\nsignals = ["v"]\n')
    assert main(["sent", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sent"] == what_we_sent(settings)["sent"]
    assert main(["sent", "--config", str(config)]) == 0
    words = capsys.readouterr().out
    assert "millwright.note.v1" in words
    assert "signal_not_shared" in words
    assert main(["sent", "--config", str(config), "--since", "2030-01-01"]) == 0
    assert "nothing yet" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["sent", "--config", str(config), "--since", "yesterday"])


@pytest.fixture
def panel(settings: AgentSettings) -> Iterator[Panel]:
    made = Panel(settings, "127.0.0.1", 0)
    yield made
    made.close()


def asked(panel: Panel, path: str, host: str = "", method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    link = http.client.HTTPConnection("127.0.0.1", panel.port, timeout=5)
    link.request(method, path, headers={"Host": host or f"127.0.0.1:{panel.port}"})
    answer = link.getresponse()
    body = answer.read()
    link.close()
    return answer.status, body, dict(answer.getheaders())


def test_the_page_answers_its_own_host_only_and_changes_nothing(panel: Panel) -> None:
    status, body, headers = asked(panel, "/")
    assert status == 200
    assert b"<!doctype html>" in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert asked(panel, "/", host="evil.example")[0] == 421
    assert asked(panel, "/../agent.toml")[0] == 404
    assert asked(panel, "/", method="POST")[0] == 501
    status, body, _ = asked(panel, "/api/sent?since=%3Cscript%3E")
    assert status == 200
    assert json.loads(body)["gateway"] == "g"


def test_prometheus_reads_at_the_page_what_the_command_prints_at_that_moment(
    panel: Panel, settings: AgentSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, body, headers = asked(panel, "/metrics")
    assert (code, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    (tmp_path / "agent.toml").write_text('site = "s"\ngateway = "g"\ndata_dir = "data"\n')
    status_command.main(["--config", str(tmp_path / "agent.toml"), "--metrics"])
    printed = capsys.readouterr().out
    aged = "millwright_agent_status_age_seconds "

    def but_the_age(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith(aged)]

    assert but_the_age(body.decode()) == but_the_age(printed)
    assert 'millwright_agent_connected{link="plant"} 1' in printed
    file = Path(settings.data_dir) / "status.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"dead_letters": 7}))
    assert b"\nmillwright_agent_dead_letters 7\n" in asked(panel, "/metrics")[1]


def test_metrics_keep_to_the_bounds_of_the_page(panel: Panel, settings: AgentSettings) -> None:
    assert asked(panel, "/metrics", host="evil.example")[0] == 421
    assert asked(panel, "/metrics", method="POST")[0] == 501
    for nothing in ("{", "[]", "{}", '{"time_ms": 1}'):
        (Path(settings.data_dir) / "status.json").write_text(nothing)
        assert asked(panel, "/metrics")[0] == 503
    (Path(settings.data_dir) / "status.json").unlink()
    assert asked(panel, "/metrics")[0] == 503
    assert asked(panel, "/api/sent")[0] == 200


@pytest.mark.browser
@pytest.mark.parametrize(
    ("language", "theme", "width", "title", "reason"),
    [
        ("en", "light", 1280, "What we sent", "the signal is not shared"),
        ("zh", "dark", 390, "我们发送了什么", "该信号不共享"),
        ("en", "dark", 390, "What we sent", "the signal is not shared"),
        ("zh", "light", 1280, "我们发送了什么", "该信号不共享"),
    ],
)
def test_the_page_shows_it_in_both_languages_wide_and_on_a_phone(
    panel: Panel, chromium: WebDriver, tmp_path: Path, language: str, theme: str, width: int, title: str, reason: str
) -> None:
    chromium.set_window_size(width, 900)
    chromium.get(f"http://127.0.0.1:{panel.port}/?lang={language}&theme={theme}")
    text: Any = ""
    for _ in range(100):
        text = chromium.execute_script("return document.querySelector('main').innerText")
        if "millwright.note.v1" in text:  # the examples have whole names, the tables short ones
            break
        time.sleep(0.1)
    assert chromium.execute_script("return document.querySelector('h1').textContent") == title
    assert reason in text
    chromium.execute_script("document.querySelector('details[data-type=\"millwright.note.v1\"]').open = true")
    shown = chromium.execute_script("return document.querySelector('#examples').innerText")
    assert "onerror" in shown  # as text
    assert "Maria" not in shown
    assert chromium.title == "Millwright"
    assert chromium.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    chromium.save_screenshot(str(tmp_path / f"sent-{language}-{theme}-{width}.png"))
