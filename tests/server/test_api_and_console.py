"""The admin API and the console: closed to strangers, clear when they refuse, harmless to what a plant may be called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.command import check
from alembic.config import Config
from fastapi.testclient import TestClient
from sqlalchemy import select

from protocol.bundles import digest, pack, with_files
from protocol.clocks import ClockConfidence
from protocol.names import MessageClass
from protocol.observations import SignalBlock
from protocol.sync import Batch, encode, envelope
from server import intake, registry
from server.__main__ import migrate
from server.app import create_app
from server.config import Settings
from server.database import Database, Gateway, Model
from server.signing import make_keys
from tests.bundles import small

TOKEN, GATEWAY_TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF", "pQ8wE2rT6yU1iO9aS4dF7gHj"
NOW = 1_790_000_000_000


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(
        database=f"sqlite:///{tmp_path}/server.db",
        artifacts=str(tmp_path / "artifacts"),
        admin_token=TOKEN,
        gateway_token=GATEWAY_TOKEN,
    )
    migrate(settings)
    database = Database(settings.database)
    block = SignalBlock(
        machine="<script>alert(1)</script>".replace("/", "|"),
        signal="温度",
        start_ms=NOW,
        step_ms=1000,
        values=[1.0, None],
    )
    one = envelope(block, site="s", gateway="g", seq=1, boot="b", clock=ClockConfidence.SYNCED, time_ms=NOW)
    with database.begin() as session:
        intake.store_batch(session, "s", "g", MessageClass.BULK, encode(Batch(envelopes=[one])), NOW)
    with TestClient(create_app(settings, database)) as made:
        yield made
    database.close()


def test_the_signed_list_names_what_gateways_shall_run(client: TestClient, tmp_path: Path) -> None:
    gateway = {"Authorization": f"Bearer {GATEWAY_TOKEN}"}
    assert client.get("/api/v1/trust/timestamp.json").status_code == 401
    unready = client.get("/api/v1/trust/timestamp.json", headers=gateway)
    assert (unready.status_code, unready.json()["remedy"]) == (503, "millwright server keys")
    root = make_keys(tmp_path / "keys")
    assert client.get("/api/v1/trust/root.json", headers=gateway).content == root.read_bytes()
    assert client.get("/api/v1/trust/1.root.json", headers=gateway).content == root.read_bytes()
    for secret in ("root.key", "..%2Fkeys%2Ftargets.key", "9.targets.json"):
        assert client.get(f"/api/v1/trust/{secret}", headers=gateway).status_code == 404
    assert client.get("/api/v1/trust/timestamp.json", headers=gateway).json()["signed"]["version"] == 1
    assert client.get("/api/v1/trust/1.targets.json", headers=gateway).json()["signed"]["targets"] == {}
    named = {"models": [{"digest": "d" * 64}]}
    with Database(f"sqlite:///{tmp_path}/server.db").begin() as session:
        session.scalars(select(Gateway)).one().desired = named
        for digest, status in (("d" * 64, "candidate"), ("e" * 64, "champion"), ("f" * 64, "retired")):
            row = {"slot": "s", "path": "p", "size": 5, "verdict": "v", "dataset": "x", "passport": {}, "created_ms": 1}
            session.add(Model(**row, version=ord(digest[0]), digest=digest, status=status))
    assert client.get("/api/v1/trust/timestamp.json", headers=gateway).json()["signed"]["version"] == 2
    listed = client.get("/api/v1/trust/2.targets.json", headers=gateway).json()["signed"]["targets"]
    assert sorted(listed) == [f"{'d' * 64}.bundle", f"{'e' * 64}.bundle"]


def test_a_models_card_is_told_in_both_languages_as_data_and_as_markdown(client: TestClient, tmp_path: Path) -> None:
    bundle = small()
    archive, passport = pack(bundle), with_files(bundle)
    with Database(f"sqlite:///{tmp_path}/server.db").begin() as session:
        row = registry.register(session, archive, passport, tmp_path / "artifacts", "x", "a test", NOW)
        session.scalars(select(Gateway)).one().reported = {"models": [{"slot": row.slot, "digest": row.digest}]}
        number = row.id
    assert client.get(f"/api/v1/models/{number}/card").status_code == 401
    english, chinese = (
        client.get(f"/api/v1/models/{number}/card?lang={lang}", headers=ADMIN).json() for lang in ("en", "zh")
    )
    assert english["digest"] == chinese["digest"] == digest(archive)
    assert [one["name"] for one in english["sections"]] == [one["name"] for one in chinese["sections"]]
    assert english["sections"][-1]["tables"][0]["rows"] == [list(pair) for pair in sorted(passport.files.items())]
    told = client.get(f"/api/v1/models/{number}/card.md?lang=zh", headers=ADMIN)
    assert told.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "## 结论" in told.text
    assert client.get(f"/api/v1/models/{number}/card?lang=xx", headers=ADMIN).status_code == 422
    assert client.get("/api/v1/models/999/card", headers=ADMIN).json()["remedy"]
    state = client.get("/console/state.json", headers=ADMIN).json()
    assert state["cards"] == {digest(archive): number}
    assert state["models"][0]["number"] == number


ADMIN = {"Authorization": f"Bearer {TOKEN}"}
PATHS = [
    "gateways",
    "ledger",
    "counters",
    "signals",
    "events",
    "reports",
    "models",
    "jobs",
    "rollouts",
    "quarantine",
    "feedback",
    "purchases",
    "schedules",
    "notes",
]


@pytest.mark.parametrize("path", PATHS)
def test_the_api_is_closed_to_strangers_and_open_to_admins(client: TestClient, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {GATEWAY_TOKEN}"}):
        refused = client.get(f"/api/v1/{path}", headers=headers)
        assert refused.status_code == 401
        assert set(refused.json()) == {"error", "remedy"}
    assert client.get(f"/api/v1/{path}", headers=ADMIN).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "reports/99", None, 404),
        ("GET", "reports?limit=100000", None, 422),
        ("GET", "bundles/nope", None, 404),
        ("POST", "feedback", {"target": "nothing", "verdict": "accepted"}, 404),
        ("POST", "feedback", {"target": "nothing", "verdict": "perhaps"}, 422),
        ("POST", "jobs", {"kind": "conquer"}, 422),
        ("POST", "jobs/7/cancel", None, 404),
        ("POST", "rollouts", {"model": 7}, 404),
    ],
)
def test_what_cannot_be_done_is_refused_with_fact_and_remedy(
    client: TestClient, method: str, path: str, body: object, status: int
) -> None:
    refused = client.request(method, f"/api/v1/{path}", headers=ADMIN, json=body)
    assert refused.status_code == status
    assert set(refused.json()) == {"error", "remedy"}


def test_a_body_too_large_is_refused(client: TestClient) -> None:
    assert client.post("/api/v1/feedback", headers=ADMIN, content=b"x" * 100_000).status_code == 413


def test_a_job_can_be_asked_for_and_cancelled_once(client: TestClient) -> None:
    job = client.post("/api/v1/jobs", headers=ADMIN, json={"kind": "forecast"}).json()
    assert client.post(f"/api/v1/jobs/{job['id']}/cancel", headers=ADMIN).json()["status"] == "cancelled"
    assert client.post(f"/api/v1/jobs/{job['id']}/cancel", headers=ADMIN).status_code == 409


def test_the_documentation_needs_no_internet(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "/api/v1/ledger" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_console_asks_for_the_token_and_keeps_a_proof_of_it(client: TestClient) -> None:
    assert client.get("/", headers={"Accept": "text/html"}).status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    assert 'id="reports"' in client.get(f"/?token={TOKEN}").text
    assert TOKEN not in str(client.cookies)
    state = client.get("/console/state.json").json()
    assert state["machines"][0]["signals"] == 1
    assert client.post("/console/feedback", json={"target": "x", "verdict": "accepted"}).status_code == 403


def test_no_markup_from_a_plant_reaches_the_page(client: TestClient) -> None:
    assert "alert(1)" not in client.get(f"/?token={TOKEN}").text
    scripts = "".join(
        client.get(f"/console/assets/{name}.js").text
        for name in (
            "console",
            "chart",
            "because",
            "buying",
            "claims",
            "edits",
            "elements",
            "gantt",
            "life",
            "notes",
            "plans",
            "reasons",
            "wordings",
            "words",
        )
    )
    assert "innerHTML" not in scripts
    assert client.get("/console/assets/..%2F__init__.py").status_code == 404


@pytest.mark.parametrize(
    "word",
    ["stale_inputs", "one_value", "constant", "short_history", "no_model_answer", "combined", "bandHeld"],
)
def test_every_stopgap_and_the_measured_coverage_have_words_in_both_languages(client: TestClient, word: str) -> None:
    assert client.get("/console/assets/words.js").text.count(f" {word}: ") == 2


def test_migrations_say_what_the_tables_say(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/fresh.db"
    migrate(Settings(database=url, admin_token=TOKEN, gateway_token=GATEWAY_TOKEN))
    alembic = Config()
    alembic.set_main_option("script_location", str(Path(__file__).parents[2] / "server" / "migrations"))
    alembic.attributes["url"] = url
    check(alembic)
