"""On the console's page a model's name opens its card, in the language of the page, wide or on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from protocol.bundles import Form, Parity, digest, pack, with_files
from server import registry
from server.database import Gateway
from tests import written
from tests.bundles import small
from tests.server.test_editing_on_the_page import Plant, plant  # noqa: F401 - a fixture

pytestmark = pytest.mark.browser
COST = Parity(max_abs=0.02, rel_rms=0.004, task_change=0.003, n=12, bound="task error at most 0.5 % worse")
HARMFUL = "<img src=x onerror=document.title='broken'>"


@pytest.mark.parametrize(("language", "width", "title"), [("en", 1280, "Verdict"), ("zh", 390, "结论")])
def test_a_models_name_opens_its_card(
    plant: Plant,  # noqa: F811
    tmp_path: Path,
    language: str,
    width: int,
    title: str,
) -> None:
    bundle = small(limits=HARMFUL, forms=[Form(name="int8", size=2048, latency_us=90.0, parity=COST)])
    archive = pack(bundle)
    with plant.database.begin() as session:
        row = registry.register(session, archive, with_files(bundle), tmp_path, "x", "a test", written.T0)
        told = {"slot": row.slot, "version": 1, "digest": row.digest, "status": "serving", "results": 3, "error": ""}
        session.scalars(select(Gateway)).one().reported = {"models": [told]}
    plant.browser.set_window_size(width, 900)
    plant.browser.get(plant.browser.current_url.split("?")[0] + f"?lang={language}")
    plant.click("#models [data-card]", "recommend.items")
    assert plant.text("dialog.card h2") == "recommend.items v1"
    assert plant.one("dialog.card h3", title)
    assert plant.one("dialog.card dd", digest(archive))
    assert plant.one("dialog.card dd", HARMFUL)
    assert plant.browser.title == "Millwright"
    wide = "const d = document.querySelector('dialog'); return d.scrollWidth <= d.clientWidth && d.clientWidth <= innerWidth"
    assert plant.browser.execute_script(wide)
    plant.two_polls()
    plant.click("dialog.card .close")
    plant.gone("dialog.card")
    assert plant.browser.execute_script("return document.activeElement.dataset.card") == str(row.id)
