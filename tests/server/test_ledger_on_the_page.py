"""The console draws what arrived from every gateway, class by class, and says which numbers are missing."""

from __future__ import annotations

import pytest

from protocol.names import MessageClass
from protocol.sync import Batch, Refusal, encode
from server import intake
from tests import written
from tests.server.test_editing_on_the_page import Plant, plant  # noqa: F401 - a fixture
from tests.server.test_ledger import order, poison

pytestmark = pytest.mark.browser
WORDS = {
    "en": ("Delivery ledger", "complete from 1 to 2 · 2 of 40 missing", "missing 3–4", "dead 38–40 (server_fails)"),
    "zh": ("交付账本", "1 至 2 完整 · 40 条中缺 2 条", "缺失 3–4", "死信 38–40 (server_fails)"),
}


@pytest.mark.parametrize(("language", "theme", "width"), [("en", "light", 1280), ("zh", "dark", 390)])
def test_the_page_draws_what_arrived_and_names_what_is_missing(
    plant: Plant,  # noqa: F811
    language: str,
    theme: str,
    width: int,
) -> None:
    title, verdict, missing, dead = WORDS[language]
    dead_letters = [Refusal(n, "server_fails") for n in (38, 39, 40)]
    told = Batch(envelopes=[order(1), poison(2), *map(order, range(5, 30))], shed=[(30, 37)], dead=dead_letters)
    with plant.database.begin() as session:
        intake.store_batch(session, "s", "g", MessageClass.EVENT, encode(told), written.T0)
    plant.browser.set_window_size(width, 900)
    plant.browser.get(plant.browser.current_url.split("?")[0] + f"?lang={language}&theme={theme}")
    assert plant.one("#ledger-title", title)
    lane = "#ledger [data-gateway=g] [data-lane=event]"
    for words in (verdict, missing, dead, "2 (wrong_type)", "30–37"):
        assert plant.one(lane, words)
    drawn = "return [...document.querySelectorAll(arguments[0])].map((r) => r.getBoundingClientRect().width)"
    (stored,) = plant.browser.execute_script(drawn, f"{lane} .range.stored[height='16']")
    assert plant.browser.execute_script(drawn, f"{lane} > svg .missing") == [pytest.approx(stored * 2 / 40, abs=2)]
    assert plant.browser.execute_script(drawn, f"{lane} > svg .shed") == [pytest.approx(stored * 8 / 40, abs=2)]
    assert plant.all(f"{lane} > svg .quarantined")
    assert plant.one("#ledger [data-lane=report]", "1")
    assert plant.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    with plant.database.begin() as session:
        batch = encode(Batch(envelopes=[order(3), order(4)]))
        intake.store_batch(session, "s", "g", MessageClass.EVENT, batch, written.T0)
    assert plant.one(lane, {"en": "complete from 1 to 40", "zh": "1 至 40 完整"}[language])
