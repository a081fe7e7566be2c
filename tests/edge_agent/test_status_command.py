"""A gateway says how it is: for people, for programs, for Prometheus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import millwright
from edge_agent.once.status import Certificate, certificate
from tests.edge_agent.test_outbox_and_agent import Gateway


def test_the_command_says_what_the_agent_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('site = "s"\ngateway = "g"\ndata_dir = "data"\n')
    command = ["status", "--config", str(config)]
    assert millwright.main(command) == 1
    assert "has not run here yet" in capsys.readouterr().err
    gateway = Gateway(tmp_path)
    for _ in range(12):
        gateway.tell(20.0)
    gateway.broker.deliver("plant/P-101/v", b"[", False)
    gateway.tell(20.0)
    gateway.agent.close()
    status = json.loads((tmp_path / "data" / "status.json").read_text())
    status["time_ms"] += 10 * 366 * 86_400_000  # the agent of the test lives in its own time
    (tmp_path / "data" / "status.json").write_text(json.dumps(status))
    assert millwright.main(command) == 0
    said = capsys.readouterr().out
    assert "plant     connected" in said
    assert "quarantine.malformed_json" in said
    assert millwright.main([*command, "--metrics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'millwright_agent_refusals_total{where="quarantine",reason="malformed_json"} 1' in lines
    assert 'millwright_agent_connected{link="uplink"} 1' in lines
    assert any(line.startswith('millwright_agent_outbox_messages{class="metric"} ') for line in lines)
    assert millwright.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gateway"] == "g"
    (tmp_path / "data" / "status.json").write_text('{"time_ms": 1')
    assert millwright.main(command) == 2
    assert "an agent that runs writes it anew" in capsys.readouterr().err


def test_the_command_says_until_when_the_certificate_holds_and_why_there_is_no_new_one() -> None:
    told = Certificate(not_after_ms=1_790_000_000_000, failures=3, last_error="the server is away")
    assert certificate(told) == [
        "  certificate until 2026-09-21 14:13 UTC",
        "  certificate NOT renewed, 3 time(s): the server is away",
    ]
    assert certificate(Certificate(not_after_ms=told.not_after_ms)) == ["  certificate until 2026-09-21 14:13 UTC"]
    assert certificate(None) == []
