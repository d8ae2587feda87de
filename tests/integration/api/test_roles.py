"""Least privilege, route by route: every role, no key, and wrong ones (H4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.routing import APIRoute

from app import access
from app.aggregates.access import ROLES, Role
from app.api.callers import RIGHTS, Gate, rights_of
from app.api.metrics import Numbers
from app.api.server import Readiness, create_app
from tests.integration.api.conftest import Client
from tests.integration.cli.house import ANA, House
from tests.integration.turns.stage import Stage
from tests.unit.api.no_keys import NoKeys

Key = Callable[..., dict[str, str]]
OPEN = {"/healthz", "/readyz", "/metrics"}
"""What needs no key: it says nothing of anybody."""


APP = create_app(
    release="1",
    ready=lambda: Readiness(status="ready", position=0, waiting=0),
    numbers=lambda: Numbers({}, {}),
    bots=dict,
    gate=Gate(NoKeys()),
)


def routes() -> list[tuple[str, str, str]]:
    """Every route with a right: (method, path, right)."""
    return [
        (method, route.path, right)
        for route in APP.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
        for right in rights_of(route)
    ]


def test_every_route_asks_for_one_right() -> None:
    for route in APP.routes:
        if isinstance(route, APIRoute) and route.path not in OPEN:
            assert len(rights_of(route)) == 1, route.path


def concrete(path: str, user: str) -> str:
    return path.replace("{user}", user).replace("{position}", "1").replace("{name}", "thread_map")


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_reaches_what_it_may_and_nothing_else(
    role: Role, key: Key, local: Client, house: House
) -> None:
    headers = key(role)
    for method, path, right in routes():
        url = concrete(path, house.people[ANA])
        async with local.stream(method, url, headers=headers) as answer:
            allowed = right in RIGHTS[role]
            assert (answer.status_code != 403) == allowed, (role, method, path)
            assert answer.status_code not in {401, 500}, (role, method, path)


async def test_without_a_key_or_with_a_wrong_one_nothing_is_reached_once_there_are_keys(
    key: Key, local: Client, house: House
) -> None:
    good = key("auditor")["authorization"]
    for given in (None, "Bearer hilo_00_nothing", good[:-1] + "x", good.replace("Bearer", "Basic")):
        headers = {} if given is None else {"authorization": given}
        for method, path, _ in routes():
            answer = await local.request(method, concrete(path, house.people[ANA]), headers=headers)
            assert answer.status_code == 401, (given, path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert "bearer" in answer.headers["www-authenticate"].lower()


async def test_without_any_key_this_machine_alone_is_served(local: Client) -> None:
    assert (await local.get("/v1/bots")).status_code == 200
    behind_a_proxy = await local.get("/v1/bots", headers={"x-forwarded-for": "203.0.113.9"})
    assert behind_a_proxy.status_code == 401


@pytest.mark.parametrize("role", ROLES)
async def test_which_bots_are_ready_is_told_to_keys_that_may_ask_for_figures(
    role: Role, key: Key, local: Client
) -> None:
    away = {"host": "hilo.example"}
    told = (await local.get("/readyz", headers=away | key(role))).json()
    if "figures" not in RIGHTS[role]:
        assert told == {"status": "ready"}
        return
    assert [bot["bot"] for bot in told["bots"]] == ["default"]
    other = (await local.get("/readyz", headers=away | key(role, bot="other"))).json()
    assert (other["status"], other["bots"]) == ("ready", [])


async def test_a_revoked_key_and_an_expired_one_open_nothing(stage: Stage, local: Client) -> None:
    settings = stage.settings()
    key_id, token = access.create(settings, "auditor", by="t", expires_at=None)
    access.create(settings, "analyst", by="t", expires_at=None)
    past = access.create(settings, "auditor", by="t", expires_at=1)[1]
    access.revoke(settings, key_id, by="t", why="lost")
    for bad in (token, past):
        answer = await local.get("/v1/bots", headers={"authorization": f"Bearer {bad}"})
        assert answer.status_code == 401


async def test_a_key_of_one_bot_is_refused_for_another(key: Key, local: Client) -> None:
    other = key("auditor", bot="other")
    assert (await local.get("/v1/tokens", headers=other)).status_code == 404
    answer = await local.get("/v1/tokens?bot=default", headers=other)
    assert answer.status_code == 403
    assert (await local.get("/v1/bots", headers=other)).json() == {"bots": []}


async def test_who_people_are_and_what_they_wrote_is_for_those_who_may_see_it(
    key: Key, local: Client, house: House
) -> None:
    ana = house.people[ANA]
    seen = {}
    for role in ("auditor", "operator", "analyst"):
        headers = key(role)
        user = (await local.get(f"/v1/users/{ana}", headers=headers)).json()
        events = await local.get(f"/v1/events?user={ana}", headers=headers)
        seen[role] = (user["phone"], "hola, soy Ana" in events.text, f"{ANA}@" in events.text)
    assert seen == {
        "auditor": (ANA, True, True),
        "operator": (ANA, False, False),
        "analyst": ("•••", False, False),
    }


async def test_refusals_are_counted_and_uses_recorded(
    stage: Stage, key: Key, local: Client
) -> None:
    headers = key("hook")
    assert (await local.get("/v1/bots")).status_code == 401
    assert (await local.get("/v1/bots", headers=headers)).status_code == 403
    numbers = (await local.get("/metrics")).text
    assert "hilo_refused_no_key_total 1.0" in numbers
    assert "hilo_refused_no_right_total 1.0" in numbers
    (found,) = access.keys(stage.settings())
    assert found.used_at is not None


async def test_an_installation_does_not_open_by_itself(stage: Stage, local: Client) -> None:
    settings = stage.settings()
    key_id, _ = access.create(settings, "auditor", by="t", expires_at=None)
    access.revoke(settings, key_id, by="t", why="gone")
    assert (await local.get("/v1/bots")).status_code == 401
    assert access.KeyTable(settings).any()
    (settings.data / "control.db").unlink()
    assert access.KeyTable(settings).any()


async def test_a_key_is_good_as_soon_as_it_is_made_though_others_ask_all_the_time(
    key: Key, local: Client
) -> None:
    key("hook")  # from now on everybody needs one
    stranger = {"authorization": "Bearer hilo_0123456789_wrong"}
    for _ in range(5):
        assert (await local.get("/v1/bots", headers=stranger)).status_code == 401
        assert (await local.get("/v1/bots", headers=key("auditor"))).status_code == 200
