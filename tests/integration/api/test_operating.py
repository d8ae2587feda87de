"""What an operator does to read models over HTTP: done, refused, and recorded with who and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.aggregates.control import stream_of
from app.aggregates.control_events import OperatorActed
from app.control import CODEC
from app.stores import open_control_log
from eventstore.integrity import leaf_hash
from tests.integration.api.conftest import Client
from tests.integration.cli.house import BEN, EVA, House
from tests.integration.turns.stage import Stage
from tests.unit.projections.test_engine import BROKEN

Key = Callable[..., dict[str, str]]


def acts(stage: Stage) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """What the control log says of operators: (action, by, why, about)."""
    log = open_control_log(stage.settings())
    try:
        entries = log.read_stream(stream_of("default"))
        events = [CODEC.decode(entry.type, entry.state) for entry in entries]
    finally:
        log.close()
    return [(e.action, e.by, e.why, e.about) for e in events if isinstance(e, OperatorActed)]


def state_of(stage: Stage, model: str) -> str:
    return stage.bot.views.standings()[model].state


async def test_an_operator_pauses_and_resumes_and_the_control_log_says_who_and_why(
    stage: Stage, key: Key, local: Client
) -> None:
    headers = key("operator")
    me = f"key {headers['authorization'].split('_')[1]}"
    await stage.until(lambda: stage.bot.follower.progress.position == stage.bot.log.head().position)
    url = "/v1/projections/usage"
    paused = await local.post(f"{url}/pause", headers=headers, json={"why": "prices are wrong"})
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert paused.json()["error"] == f"paused by {me}: prices are wrong"
    resumed = await local.post(f"{url}/resume", headers=headers, json={"why": "mended"})
    assert (resumed.status_code, resumed.json()["state"]) == (200, "live")
    again = await local.post(f"{url}/resume", headers=headers, json={"why": "twice"})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/not-that-state")
    assert acts(stage)[:2] == [
        ("projections pause", me, "prices are wrong", ("usage",)),
        ("projections resume", me, "mended", ("usage",)),
    ]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/x-www-form-urlencoded"}, 415),  # curl's own
        ({"content-type": "text/plain"}, 415),
        ({}, 415),
        ({"content-type": "application/json"}, 200),
        ({"content-type": "Application/JSON; charset=utf-8"}, 200),
        ({"content-type": "application/merge-patch+json"}, 200),
    ],
)
async def test_a_reason_that_is_not_sent_as_json_is_told_how_to_be_sent(
    stage: Stage, key: Key, local: Client, headers: dict[str, str], status: int
) -> None:
    await stage.until(lambda: stage.bot.follower.progress.position == stage.bot.log.head().position)
    url, content = "/v1/projections/usage/pause", b'{"why": "x"}'
    answer = await local.post(url, headers=key("operator") | headers, content=content)
    assert answer.status_code == status, answer.text
    stranger = await local.post(url, headers=headers, content=content)
    assert stranger.status_code == 401
    assert len(acts(stage)) == (status == 200)
    if status == 415:
        assert answer.json()["type"] == "/problems/not-json"
        assert "content-type: application/json" in answer.json()["detail"]


async def test_an_event_is_not_skipped_where_none_has_stopped_the_model(
    stage: Stage, key: Key, local: Client
) -> None:
    headers = key("operator")
    url = "/v1/projections/usage/skip"
    await stage.until(lambda: stage.bot.follower.progress.position == stage.bot.log.head().position)
    refused = await local.post(url, headers=headers, json={"why": "bad", "position": 3})
    assert refused.status_code == 409
    assert acts(stage) == []


async def test_an_operator_lets_a_parked_model_pass_over_a_poisonous_event(
    stage: Stage, key: Key, local: Client, house: House
) -> None:
    with House(house.data) as again:
        again.people = house.people
        bad = again.append_stored(BEN, BROKEN).last_position
        again.write(EVA, "noch da?")
    headers = key("operator")
    me = f"key {headers['authorization'].split('_')[1]}"
    await stage.until(lambda: state_of(stage, "usage") == "parked")
    listed = (await local.get("/v1/projections", headers=headers)).json()["projections"]
    (usage,) = [one for one in listed if one["name"] == "usage"]
    assert (usage["state"], usage["position"]) == ("parked", bad - 1)
    url = "/v1/projections/usage/skip"
    wrong = await local.post(url, headers=headers, json={"why": "no", "position": bad + 1})
    assert wrong.status_code == 409
    skipped = await local.post(url, headers=headers, json={"why": "cut off", "position": bad})
    assert (skipped.status_code, skipped.json()["state"]) == (200, "live")
    end = stage.bot.log.head().position
    await stage.until(lambda: stage.bot.views.standings()["usage"].cursor.position == end)
    assert state_of(stage, "token_totals") == "parked"  # nobody said so of this one
    figures = await local.get(f"/v1/analytics/usage?min_position={end}", headers=headers)
    assert figures.status_code == 200  # the other one, which is parked, is not waited for
    event = stage.bot.log.event_at(bad)
    assert event is not None
    about = ("usage", str(bad), leaf_hash(event).hex())
    assert acts(stage) == [("projections skip", me, "cut off", about)]
    told = await local.post(url, headers=headers, json={"why": "twice", "position": bad})
    assert told.status_code == 409


async def test_an_operator_rebuilds_a_model_beside_the_server(
    stage: Stage, key: Key, local: Client
) -> None:
    await stage.until(lambda: stage.bot.follower.progress.position == stage.bot.log.head().position)
    before = stage.bot.views.standings()["usage"].updated_at
    url = "/v1/projections/usage/rebuild"
    headers = key("operator")
    answer = await local.post(url, headers=headers, json={"why": "to be sure"})
    assert (answer.status_code, answer.json()) == (202, {"name": "usage", "started": True})
    again = await local.post(url, headers=headers, json={"why": "at once"})
    assert again.status_code == 409
    await stage.until(lambda: stage.bot.views.standings()["usage"].updated_at > before)
    assert [act[0] for act in acts(stage)] == ["projections rebuild"]


async def test_nothing_is_done_without_a_reason(stage: Stage, key: Key, local: Client) -> None:
    headers = key("operator")
    url = "/v1/projections/usage/pause"
    for body in ({}, {"why": ""}, {"why": " "}, {"why": "x" * 501}):
        answer = await local.post(url, headers=headers, json=body)
        assert answer.status_code == 422, body
    unknown = await local.post(
        "/v1/projections/nothing/pause", headers=headers, json={"why": "because"}
    )
    assert unknown.status_code == 404
    assert acts(stage) == []
