"""The console shows how every gateway's certificate stands, shows a token once, and revokes when asked twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from protocol.enrolment import TokenFile
from protocol.errors import BadIdentity, Reason
from server import enrolment
from server.database import Gateway
from server.identity import CA
from tests.identities import request
from tests.server.test_editing_on_the_page import Plant, plant  # noqa: F401 - a fixture
from tests.server.test_enrolment import DAY, HOUR, Member
from tests.tls_broker import until

pytestmark = pytest.mark.browser
AGES = {"gw-new": 0, "gw-due": 22, "gw-ended": 40, "gw-lost": 400, "gw-stolen": 5}


def row(gateway: str) -> str:
    return f"#identities [data-gateway='{gateway}']"


class Books:
    """The page's server with gateways of every standing, a token that waits and somebody who was not believed."""

    def __init__(self, plant: Plant) -> None:  # noqa: F811
        self.page = plant
        self.client: TestClient = plant.client
        app: Any = plant.client.app
        now = datetime.now(UTC)
        self.ca = CA.make(app.state.settings.authority_folder, now - 500 * DAY)
        for name, days in AGES.items():
            member = Member(plant.database, self.ca, name)
            member.enrol(member.invited(now - days * DAY), now - days * DAY)
        member.revoke(now - HOUR)
        with plant.database.begin() as session:
            session.add(Gateway(id="gw-bare", site="s", desired={}, reported={}, heartbeat={}))
            enrolment.make_token(session, "gw-soon", timedelta(hours=2), now)
            enrolment.count_refusal(session, BadIdentity(Reason.TOKEN_UNKNOWN, "no such token <b>"), now, 3)

    def look(self, language: str = "en", theme: str = "light", width: int = 1280) -> None:
        browser = self.page.browser
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get(browser.current_url.split("?")[0] + f"?lang={language}&theme={theme}")
        self.page.one(row("gw-new"))

    def identity(self, gateway: str) -> dict[str, Any]:
        told = self.client.get("/api/v1/identities").json()["identities"]
        (found,) = [one for one in told if one["gateway"] == gateway]
        return dict(found)


@pytest.fixture
def books(plant: Plant) -> Iterator[Books]:  # noqa: F811
    made = Books(plant)
    made.look()
    yield made
    plant.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


WORDS = {
    "en": {
        "title": "Gateways' identities",
        "gw-new": ("valid", "29 d left", "renews itself from"),
        "gw-due": ("renewal due", "7 d left", "not renewed yet"),
        "gw-ended": ("ended", "ended 10 d ago", "renews itself until"),
        "gw-lost": ("ended, enrol again", "too long ago"),
        "gw-stolen": ("revoked", "revoked on", "stolen"),
        "gw-bare": ("no certificate",),
    },
    "zh": {
        "title": "网关身份",
        "gw-new": ("有效", "剩余 29 天", "起自动续期"),
        "gw-due": ("待续期", "剩余 7 天", "尚未续期"),
        "gw-ended": ("已到期", "已到期 10 天", "连上服务器即可自动续期"),
        "gw-lost": ("需重新注册", "到期过久"),
        "gw-stolen": ("已吊销", "吊销于", "stolen"),
        "gw-bare": ("无证书",),
    },
}


@pytest.mark.parametrize(
    ("language", "theme", "width"),
    [("en", "light", 1280), ("en", "dark", 390), ("zh", "light", 390), ("zh", "dark", 1280)],
)
def test_the_page_says_how_every_certificate_stands(books: Books, language: str, theme: str, width: int) -> None:
    books.look(language, theme, width)
    said = dict(WORDS[language])
    assert books.page.one("#identities-title", str(said.pop("title")))
    for gateway, words in said.items():
        text = books.page.text(row(gateway))
        for one in words:
            assert one in text
    order = [one.get_attribute("data-gateway") for one in books.page.all("#identities [data-standing]")]
    assert order == ["gw-lost", "gw-ended", "gw-due", "gw-new", "gw-stolen", "g", "gw-bare"]
    assert books.identity("gw-due")["serial"] in books.page.text(row("gw-due"))
    assert "no such token <b>" in books.page.text("#identities [data-reason=token_unknown]")
    colour = "return getComputedStyle(document.querySelector(arguments[0])).color"
    tags = [books.page.browser.execute_script(colour, f"{row(g)} .tag") for g in ("gw-new", "gw-due", "gw-ended")]
    assert len(set(tags)) == 3
    assert books.page.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_token_is_shown_once_and_enrols_its_gateway(books: Books, tmp_path: Path) -> None:
    page = books.page
    page.click(f"{row('gw-bare')} [data-enrol]")
    field = page.browser.switch_to.active_element
    assert (field.get_attribute("id"), field.get_attribute("value")) == ("token-gateway", "gw-bare")
    page.one("#token-valid").send_keys("7 days")
    page.click(".token-form [type=submit]")
    page.one("#issued", "millwright agent enrol")
    text = page.one("#issued textarea").get_attribute("value")
    assert text is not None
    page.two_polls()
    assert page.browser.switch_to.active_element.get_attribute("value") == text
    token = TokenFile.read(text)
    assert token.authority.strip() == books.ca.pem.decode().strip()
    downloads = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    page.click("#issued a")
    assert until(lambda: (tmp_path / "token-gw-bare.txt").exists() or (tmp_path / "token-gw-bare").exists())
    (file,) = tmp_path.glob("token-gw-bare*")
    assert file.read_text() == text
    page.click("#issued .have")
    page.gone("#issued")
    assert token.token not in page.browser.page_source
    assert page.one("#identities [data-token=gw-bare]")
    books.look()
    assert token.token not in page.browser.page_source
    body = {"token": token.token, "request": request("gw-bare").decode()}
    assert books.client.post("/api/v1/enrol", json=body).status_code == 200
    page.one(f"{row('gw-bare')}[data-standing=valid]")
    page.gone("#identities [data-token=gw-bare]")


def test_a_token_that_is_not_wanted_any_more_is_withdrawn(books: Books) -> None:
    books.page.click("#identities [data-token=gw-soon] button")
    books.page.gone("#identities [data-token]")
    assert books.client.get("/api/v1/identities").json()["tokens"] == []
    assert books.client.get("/api/v1/audit").json()[0]["what"] == "withdraw-token"


def test_a_name_that_no_gateway_may_have_is_refused_in_words(books: Books) -> None:
    books.page.one("#token-gateway").send_keys("millwright-server")
    books.page.click(".token-form [type=submit]")
    books.page.one(".token-form [role=alert]", "are the server's own")
    assert books.page.browser.switch_to.active_element.get_attribute("value") == "millwright-server"


def test_a_certificate_is_revoked_only_when_asked_twice_and_the_page_says_what_came_of_it(books: Books) -> None:
    page = books.page
    page.click(f"{row('gw-new')} .revoke")
    page.browser.switch_to.active_element.send_keys("lost on the train")
    page.two_polls()
    assert page.browser.switch_to.active_element.get_attribute("value") == "lost on the train"
    page.click("[data-revoke=gw-new] .not")
    page.gone("[data-revoke]")
    assert books.identity("gw-new")["standing"] == "valid"
    page.click(f"{row('gw-new')} .revoke")
    page.browser.switch_to.active_element.send_keys("lost on the train")
    page.click("[data-revoke=gw-new] .danger")
    page.one(
        "[data-revoke=gw-new] [role=status]", "1 certificate(s) revoked. Broker: not told: [identity] broker names no"
    )
    page.one(f"{row('gw-new')}[data-standing=revoked]", "lost on the train")
    assert books.identity("gw-new")["revoked_because"] == "lost on the train"
    page.click("[data-revoke=gw-new] .close")
    page.gone("[data-revoke]")
    assert books.client.get("/api/v1/audit").json()[0]["what"] == "revoke"


def test_a_broker_that_does_not_know_yet_is_told_again_from_the_page(books: Books) -> None:
    page = books.page
    page.one(row("gw-new"))
    page.browser.execute_script(
        "const real = fetch; window.fetch = (p, h) => h && p.includes('/revoke') && !window.second ? (window.second = true,"
        " Promise.resolve(new Response(JSON.stringify({error: 'the broker does not know', remedy: 'r'}), {status: 502})))"
        " : real(p, h)"
    )
    page.click(f"{row('gw-new')} .revoke")
    page.click("[data-revoke=gw-new] .danger")
    page.one("[data-revoke=gw-new] [role=alert]", "the broker does not know")
    page.click("[data-revoke=gw-new] button", "Tell the broker again")
    page.one("[data-revoke=gw-new] [role=status]", "revoked")


def test_without_an_authority_the_page_says_how_to_make_one_and_offers_nothing(plant: Plant) -> None:  # noqa: F811
    plant.one("#identities", "millwright server ca init")
    assert plant.all("#identities form, #identities button") == []
