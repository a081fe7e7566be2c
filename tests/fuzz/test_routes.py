"""Every route is fuzzed from examples that it answers, so that what is changed in them comes further than its door."""

from __future__ import annotations

import pytest

from tests.fuzz.http_targets import Site, routes


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def test_every_route_answers_an_example_and_lets_only_those_in_whom_it_should(site: Site) -> None:
    told = {(method, path): answers(site, method, path) for path, method in routes(site.app)}
    assert [route for route, by in told.items() if min(by) >= 400] == []
    assert {path for (_, path), by in told.items() if by[-1] < 400} == OPEN


def test_an_input_meets_what_the_one_before_has_not_changed(site: Site) -> None:
    path = "/api/v1/jobs/{number}/cancel"
    assert {site.ask("POST", path, site.examples(path)[0]) for _ in range(3)} == {200}


def answers(site: Site, method: str, path: str) -> list[int]:
    """To an admin, a gateway and nobody."""
    return [site.ask(method, path, one) for one in site.examples(path)]


OPEN = {
    "/api/v1/enrol", "/api/v1/renew", "/api/v1/health", "/api/v1/seal.pub", "/console/assets/{name}", "/docs",
    "/openapi.json",
}  # fmt: skip
"""What needs no token in a header: enrolment and renewal carry their own proof."""
