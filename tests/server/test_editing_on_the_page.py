"""People edit reports and answer new wordings on the console's page, in a real browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn
from fastapi.testclient import TestClient

from protocol.clocks import ClockConfidence
from protocol.names import MessageClass
from protocol.reports import Report
from protocol.sync import Batch, encode, envelope
from server import intake
from server.__main__ import migrate
from server.app import create_app
from server.catalogues import Catalogues
from server.config import Settings
from server.database import Database
from tests import written

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

TOKEN, GATEWAY_TOKEN = "k3Jx9QmW2vLs8RtZ5yBn7CdF", "pQ8wE2rT6yU1iO9aS4dF7gHj"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
OWN = (
    "Since 2026-09-21 14:13 UTC the vibration of Feed pump P-101 has been higher than it should be:"
    " 8.14 mm/s [1] where 2.00 mm/s to 4.50 mm/s was expected."
)
pytestmark = pytest.mark.browser


class Plant:
    """A server on loopback that has one report, and a browser that looks at it."""

    def __init__(self, settings: Settings, database: Database, browser: WebDriver) -> None:
        self.database, self.browser, self.seq = database, browser, 0
        self.client = TestClient(create_app(settings, database), headers=ADMIN)

    def tell(self, report: Report) -> None:
        """A gateway delivers one more report."""
        self.seq += 1
        told = envelope(
            report, site="s", gateway="g", seq=self.seq, boot="b", clock=ClockConfidence.SYNCED, time_ms=written.T0
        )
        with self.database.begin() as session:
            batch = encode(Batch(envelopes=[told]))
            ack = intake.store_batch(session, "s", "g", MessageClass.REPORT, batch, written.T0, Catalogues())
        assert ack.nack == []

    def all(self, css: str) -> list[WebElement]:
        """Everything that the page shows under a selector now."""
        return self.browser.find_elements("css selector", css)

    def one(self, css: str, containing: str = "", timeout_s: float = 15.0) -> WebElement:
        """The first thing under a selector with this text; waits for it."""
        until = time.monotonic() + timeout_s
        while True:
            # by the browser, at once: an element read piece by piece may be drawn anew in between
            found = self.browser.execute_script(
                "return [...document.querySelectorAll(arguments[0])].find((e) => e.textContent.includes(arguments[1]))",
                css,
                containing,
            )
            if found is not None:
                return found
            assert time.monotonic() < until, f"no {css} with {containing!r} after {timeout_s} s"
            time.sleep(0.05)

    def click(self, css: str, containing: str = "") -> None:
        """Presses what `one` finds, in the middle of the window: the page's header lies over what is at the top."""
        found = self.one(css, containing)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        found.click()

    def gone(self, css: str, timeout_s: float = 15.0) -> None:
        """Waits until nothing is under a selector."""
        until = time.monotonic() + timeout_s
        while self.all(css):
            assert time.monotonic() < until, f"{css} is still there after {timeout_s} s"
            time.sleep(0.05)

    def text(self, css: str) -> str:
        """What the first thing under a selector says."""
        return str(self.one(css).text)

    def rewrite(self, clause: str, text: str) -> WebElement:
        """Puts own words into a clause's row, as a person types them."""
        row = f"[data-clause='{clause}']"
        if not self.all(f"{row} textarea"):
            self.click(f"{row} .own")
        field = self.one(f"{row} textarea")
        field.clear()
        field.send_keys(text)
        return field

    def two_polls(self) -> None:
        """Time enough for the page to ask the server twice."""
        time.sleep(4.5)


@pytest.fixture
def plant(tmp_path: Path, chromium: WebDriver) -> Iterator[Plant]:
    settings = Settings(
        database=f"sqlite:///{tmp_path}/server.db",
        artifacts=str(tmp_path / "artifacts"),
        admin_token=TOKEN,
        gateway_token=GATEWAY_TOKEN,
    )
    migrate(settings)
    database = Database(settings.database)
    server = uvicorn.Server(uvicorn.Config(create_app(settings, database), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 15
        while not server.started:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.02)
        made = Plant(settings, database, chromium)
        made.tell(written.report())
        port = server.servers[0].sockets[0].getsockname()[1]
        chromium.get(f"http://127.0.0.1:{port}/?token={TOKEN}")
        chromium.get(f"http://127.0.0.1:{port}/?lang=en")
        yield made
    finally:
        chromium.get("about:blank")
        server.should_exit = True
        thread.join(15)
        database.close()


def test_a_person_edits_a_report_in_his_own_words_and_accepts_them(plant: Plant) -> None:
    plant.click("[data-edit]")
    plant.one(".editor .author input").send_keys("Ada")
    field = plant.rewrite("what.above", "The pump shakes badly.")
    plant.one(".chip.missing", "8.14 mm/s")
    plant.click(".editor [type=submit]")
    assert "must still show" in plant.one("[data-clause='what.above'] [role=alert]").text
    assert plant.one("[data-clause='what.above'] textarea").get_attribute("value") == "The pump shakes badly."
    assert plant.client.get("/api/v1/wordings").json() == []

    field = plant.rewrite("what.above", OWN)
    assert plant.all(".chip.missing") == []
    plant.two_polls()
    assert plant.browser.switch_to.active_element == field
    plant.click(".editor [type=submit]")
    assert plant.one("#reports .tag", "edited").get_attribute("title").startswith("by Ada")
    assert OWN in plant.one("#reports p", "should be").text
    plant.one("#reports .waits", "waits for somebody to accept it")
    issued = plant.one("#reports details", "As it was issued")
    assert written.report().sections[0].text_en in issued.get_attribute("textContent")
    assert plant.browser.switch_to.active_element.get_attribute("data-edit") == "1"

    shown = plant.one(".wording")
    assert "peak" in [chip.text for chip in shown.find_elements("css selector", ".chip")]
    assert OWN in shown.text
    for button in (".good", ".despite")[: 2 if plant.all(".doubts") else 1]:
        plant.click(f".wording {button}")
    plant.gone(".wording")
    clauses = plant.client.get("/api/v1/catalogues/fault_report").json()["clauses"]
    assert any("than it should be" in text for c in clauses if c["id"] == "what.above" for text in c["en"])
    plant.gone("#reports .waits")


def test_doubtful_words_are_accepted_only_when_asked_twice_and_can_be_rejected(plant: Plant) -> None:
    plant.click("[data-edit]")
    plant.rewrite("what.above", OWN.replace("higher", "lower"))
    plant.click(".editor [type=submit]")
    assert "lower" in plant.one(".wording .doubts").text
    plant.click(".wording .good")
    plant.one(".wording [role=alert]", "despite the doubts")
    assert len(plant.client.get("/api/v1/wordings").json()) == 1
    plant.two_polls()
    plant.click(".wording .not")
    plant.click(".wording .no")
    plant.gone(".wording")
    assert [w["status"] for w in plant.client.get("/api/v1/wordings?status=").json()] == ["rejected"]


def test_another_wording_is_chosen_and_a_sentence_left_out_in_both_languages(plant: Plant) -> None:
    issued = written.report()
    plant.click("[data-edit]")
    select = plant.one("[data-clause='severity.warning'] select")
    select.find_elements("css selector", "option")[1].click()
    optional = plant.one(".clause .out").find_element("xpath", "./ancestor::*[@data-clause]")
    clause, sentence = optional.get_attribute("data-clause"), optional.find_element("css selector", ".sentence").text
    plant.rewrite(clause, "half a sen")
    plant.click(f"[data-clause='{clause}'] .out")
    plant.click(f"[data-clause='{clause}'] .back")
    assert plant.one(f"[data-clause='{clause}'] textarea").get_attribute("value") == "half a sen"
    plant.click(f"[data-clause='{clause}'] .out")
    plant.click(".editor [type=submit]")
    plant.one("#reports .tag", "edited")
    left = plant.client.get("/console/state.json").json()["reports"][0]["edited"]["sections"]
    assert left[0]["text_en"].startswith("This is a warning.")
    assert left[0]["text_zh"].startswith(issued.sections[0].text_zh[:3])
    assert all(sentence not in section["text_en"] for section in left)
    stands = plant.client.get("/api/v1/reports/1/wordings").json()["sections"]
    (gone,) = [c for s in stands for c in s["clauses"] if c["clause"] == clause]
    assert (gone["en"]["said"], gone["zh"]["said"]) == (None, None)


def test_an_open_editor_survives_a_newer_report_and_a_change_of_language(plant: Plant) -> None:
    plant.click("[data-edit]")
    field = plant.rewrite("what.above", "half a sen")
    plant.tell(written.report(event=written.event(id="event-2")))
    plant.one("[data-edit='2']")
    assert plant.browser.switch_to.active_element == field
    plant.click("#language")
    plant.one(".editor h4", "发生了什么")
    assert plant.all(".editor textarea") == []
    plant.click("#language")
    assert plant.one(".editor textarea").get_attribute("value") == "half a sen"
    plant.click(".editor .answers [type=button]")
    plant.gone(".editor")
    assert plant.all("#reports .tag.corrected") == []


def test_the_editor_can_be_used_by_keyboard_alone(plant: Plant) -> None:
    from selenium.webdriver.common.keys import Keys

    def press(key: str) -> WebElement:
        plant.browser.switch_to.active_element.send_keys(key)
        return plant.browser.switch_to.active_element

    plant.browser.execute_script("arguments[0].focus()", plant.one("[data-edit]"))
    press(Keys.ENTER)
    plant.one(".clause select")
    assert plant.browser.switch_to.active_element.get_attribute("aria-label") == "Wording of sentence 1"
    press(Keys.ARROW_DOWN)
    assert plant.text(".clause .sentence") == "This is a warning."
    own = press(Keys.TAB)
    assert own.text == "In my own words"
    press(Keys.ENTER)
    assert plant.browser.switch_to.active_element.get_attribute("aria-label") == "Sentence 1 in your own words"


def test_the_page_fits_a_phone_while_a_report_is_edited(plant: Plant) -> None:
    plant.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    )
    plant.click("[data-edit]")
    plant.rewrite("what.above", "x" * 200)
    assert plant.browser.execute_script("return document.documentElement.scrollWidth") == 390


def test_what_is_written_is_kept_while_the_server_does_not_answer(plant: Plant) -> None:
    def network(offline: bool) -> None:
        throttle = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        plant.browser.execute_cdp_cmd("Network.enable", {})
        plant.browser.execute_cdp_cmd("Network.emulateNetworkConditions", throttle)

    plant.click("[data-edit]")
    plant.rewrite("what.above", OWN)
    network(offline=True)
    plant.click(".editor [type=submit]")
    plant.one(".editor > [role=alert]", "The server does not answer")
    assert plant.one(".editor textarea").get_attribute("value") == OWN
    network(offline=False)
    plant.click(".editor [type=submit]")
    plant.one("#reports .tag", "edited")
    plant.click("[data-edit]")
    assert plant.one("[data-clause='what.above'] textarea").get_attribute("value") == OWN


def test_changes_in_the_other_language_are_not_lost_when_one_is_saved(plant: Plant) -> None:
    plant.click("[data-edit]")
    plant.one("[data-clause='severity.warning'] select").send_keys("2")
    plant.click("#language")
    plant.one(".editor h4", "发生了什么")
    plant.one("[data-clause='severity.warning'] select").send_keys("3")
    plant.click(".editor [type=submit]")
    plant.one(".editor > [role=alert]", "英文文本的更改尚未保存")
    plant.click("#language")
    plant.one(".clause .sentence", "This is a warning.")
    plant.click(".editor [type=submit]")
    plant.gone(".editor")
    (first, *_) = plant.client.get("/console/state.json").json()["reports"][0]["edited"]["sections"]
    assert first["text_en"].startswith("This is a warning.")
    assert first["text_zh"].startswith("级别：警告。")
