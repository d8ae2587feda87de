"""What the read API answers: pages, moments, causes, figures, and what is wrong with a question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from app import waiting
from app.api.v1 import paging, reading
from app.projections import MODELS, Follower
from app.projections.views import forget
from app.times import iso
from tests.integration.api.conftest import Client
from tests.integration.cli.house import ANA, BEN, House
from tests.integration.turns.stage import Stage


async def pages(client: Client, query: str) -> list[dict[str, Any]]:
    """Every page of a question."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await client.get(f"/v1/events?{query}{cursor}")
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        if found[-1]["next"] is None:
            return found
        cursor = f"&cursor={found[-1]['next']}"


async def test_pages_hold_every_event_once_and_never_split_an_append(local: Client) -> None:
    for query in ("limit=1&until=12", "limit=3&until=12"):
        found = [event for page in await pages(local, query) for event in page["events"]]
        assert [event["position"] for event in found] == list(range(1, 13))
        for page in await pages(local, query):
            assert page["events"]
        for one, other in pairwise(await pages(local, query)):
            assert one["events"][-1]["append_id"] != other["events"][0]["append_id"]


async def test_pages_stay_as_they_are_while_the_log_grows(stage: Stage, local: Client) -> None:
    first = (await local.get("/v1/events?limit=4")).json()
    await stage.outside.say("15550109999", "otra cosa")
    await stage.until(lambda: stage.bot.log.head().position > first["position"])
    again = (await local.get("/v1/events?limit=4")).json()
    assert again["events"] == first["events"]
    rest = (await local.get(f"/v1/events?limit=1000&cursor={first['next']}")).json()
    assert rest["events"][0]["position"] == first["events"][-1]["position"] + 1


async def test_events_are_filtered_by_user_type_and_run(local: Client, house: House) -> None:
    ana = house.people[ANA]
    mine = (await local.get(f"/v1/events?user={ana}&limit=1000")).json()["events"]
    assert {event["stream"] for event in mine} == {f"user/{ana}"}
    tokens = (await local.get("/v1/events?type=TokensIncremented")).json()["events"]
    assert [event["type"] for event in tokens] == ["TokensIncremented"]
    run = tokens[0]["state"]["cor"]
    for query in (f"correlation={run}", f"correlation={run}&user={ana}"):
        found = [event for page in await pages(local, query) for event in page["events"]]
        assert {event["state"]["cor"] for event in found} == {run}
        assert len(found) == 4


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_a_page_looks_through_a_stretch_and_the_next_goes_on_behind_it(
    local: Client, house: House, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Whatever is rare is found by asking on; no request looks through the whole log."""
    log = (await local.get("/v1/events?limit=1000")).json()["events"]
    ana = house.people[ANA]
    begun = [one for one in log if one["type"] == "ThreadStarted" and one["stream"].endswith(ana)]
    run = next(event["state"]["cor"] for event in log if event["type"] == "TokensIncremented")
    for name in ("SEARCHED", "RUN_SEARCHED", "STREAM_SEARCHED"):
        monkeypatch.setattr(paging, name, most)
    kinds = {"TurnParked", "MessageReceived"}
    for query, wanted in (
        ("type=TurnParked&type=MessageReceived", lambda one: one["type"] in kinds),
        (f"correlation={run}", lambda one: one["state"].get("cor") == run),
        (
            f"user={ana}&type=ThreadStarted",
            begun.__contains__,
        ),
        (f"user={ana}&correlation={run}", lambda one: one["state"].get("cor") == run),
    ):
        answers = await pages(local, query)
        found = [event for page in answers for event in page["events"]]
        assert found == [event for event in log if wanted(event)]
        assert len(answers) > 1
        held = [page["events"] for page in answers if page["events"]]
        for one, other in pairwise(held):
            assert one[-1]["append_id"] != other[0]["append_id"]


async def test_one_event_names_its_causes_and_its_chain(local: Client, house: House) -> None:
    tokens = (await local.get("/v1/events?type=TokensIncremented")).json()["events"][0]
    detail = (await local.get(f"/v1/events/{tokens['position']}")).json()
    assert detail["event"] == tokens
    assert tokens["position"] in detail["chain"]
    assert len(detail["chain"]) > 2
    missing = await local.get("/v1/events/999999")
    assert (missing.status_code, missing.json()["type"]) == (404, "/problems/not-found")


async def test_a_user_is_told_as_of_any_moment(local: Client, house: House) -> None:
    ana = house.people[ANA]
    now = (await local.get(f"/v1/users/{ana}")).json()
    assert now["thread"]["tokens"] == 1_234
    events = (await local.get(f"/v1/events?user={ana}&type=ThreadStarted")).json()["events"]
    before = events[0]["position"] - 1
    then = (await local.get(f"/v1/users/{ana}?as_of={before}")).json()
    assert (then["thread"], then["position"]) == (None, before)
    at = events[0]["recorded_at"]
    assert (await local.get(f"/v1/users/{ana}", params={"as_of": at})).json()["thread"]
    assert (await local.get("/v1/users/nobody")).status_code == 404


async def test_a_user_is_told_with_what_they_call_themselves(
    local: Client, house: House, key: Callable[..., dict[str, str]]
) -> None:
    with House(house.data) as again:
        again.people = house.people
        before = again.write(BEN, "hola", name="Benny").last_position
        position = again.write(BEN, "otra", name="Benito").last_position
    url = f"/v1/users/{house.people[BEN]}"
    auditor, analyst = key("auditor"), key("analyst")
    now = (await local.get(f"{url}?min_position={position}", headers=auditor)).json()
    assert (now["name"], now["user_name"]) == (None, "Benito")
    then = (await local.get(f"{url}?as_of={before}", headers=auditor)).json()
    assert then["user_name"] == "Benny"
    masked = await local.get(url, headers=analyst)
    assert masked.json()["user_name"] == "•••"
    assert "Benito" not in masked.text


async def test_before_somebody_came_it_is_said_since_when_they_are_known(
    stage: Stage, local: Client, house: House, key: Callable[..., dict[str, str]]
) -> None:
    ben = house.people[BEN]
    first = stage.bot.log.read_stream(house.stream(BEN), limit=1)[0]
    analyst, hook = key("analyst"), key("hook")
    for path in (f"/v1/users/{ben}", f"/v1/users/{ben}/timeline"):
        early = await local.get(f"{path}?as_of=1", headers=analyst)
        assert (early.status_code, early.json()["type"]) == (404, "/problems/not-found")
        assert early.json()["title"] == "There was no such user yet"
        since = f"It is known since {iso(first.recorded_at)}, position {first.position}."
        assert early.json()["detail"] == since
        assert (await local.get(f"{path}?as_of={first.position}", headers=analyst)).is_success
        refused = await local.get(f"{path}?as_of=1", headers=hook)
        assert (refused.status_code, since in refused.text) == (403, False)
    nobody = await local.get("/v1/users/nobody?as_of=1", headers=analyst)
    assert (nobody.status_code, nobody.json()["title"]) == (404, "There is no such user")


async def test_the_timeline_pages_by_version(local: Client, house: House) -> None:
    ana = house.people[ANA]
    whole = (await local.get(f"/v1/users/{ana}/timeline")).json()["moments"]
    first = (await local.get(f"/v1/users/{ana}/timeline?limit=2")).json()
    rest = (await local.get(f"/v1/users/{ana}/timeline?after={first['next']}")).json()
    assert first["moments"] + rest["moments"] == whole
    assert whole[1]["facts"]["content"]["text"] == "hola, soy Ana"


async def test_the_read_models_answer_now_and_as_of_then(stage: Stage, local: Client) -> None:
    head = stage.bot.log.head().position
    now = (await local.get(f"/v1/threads?min_position={head}")).json()
    assert now["position"] >= head
    assert len(now["threads"]) == 3
    before = (await local.get("/v1/threads?as_of=1")).json()
    assert (before["position"], len(before["threads"])) == (1, 1)
    assert len((await local.get("/v1/users")).json()["users"]) == 3
    assert len((await local.get("/v1/users?as_of=1")).json()["users"]) == 1
    tokens = (await local.get("/v1/tokens")).json()
    assert (tokens["contacts"], tokens["with_tokens"]) == (3, 1)
    for path in ("usage", "latency", "thread-changes", "media", "gateway"):
        answer = await local.get(f"/v1/analytics/{path}?per=hour")
        assert answer.status_code == 200, path
    assert (await local.get("/v1/cleanups")).json()["cleanups"] == []
    names = {one["name"] for one in (await local.get("/v1/projections")).json()["projections"]}
    assert {"thread_map", "token_totals", "client_view"} <= names


async def test_read_models_that_are_not_built_say_so_or_are_waited_for(
    stage: Stage, local: Client
) -> None:
    views, log = stage.bot.views, stage.bot.log
    stage.bot.follower.stop()
    with views.transaction() as db:
        for model in MODELS:
            forget(db, model.name, set(model.tables))
    for path in ("threads", "tokens", "users", "cleanups", "analytics/usage"):
        answer = await local.get(f"/v1/{path}")
        assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True), path
        assert answer.json()["type"] == "/problems/not-built"
        assert f"try again in {answer.headers['retry-after']} s" in answer.json()["detail"]
    wanted = f"min_position={log.head().position}"
    asked = [asyncio.create_task(local.get(f"/v1/{p}?{wanted}")) for p in ("threads", "users")]
    again = Follower(log, views, MODELS, worker=False)
    again.start()
    try:
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200, 200]
    finally:
        again.stop()


async def test_rows_of_another_release_that_cannot_answer_are_being_built_anew(
    stage: Stage, local: Client
) -> None:
    stage.bot.follower.stop()
    with stage.bot.views.transaction() as db:
        db.execute("UPDATE cursors SET version = 0 WHERE model = 'token_totals'")
        db.execute("ALTER TABLE token_totals RENAME TO totals_of_before")
    answer = await local.get("/v1/tokens")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/not-built")
    assert "anew for this release" in answer.json()["detail"]


async def test_many_wait_for_what_is_said_next_and_too_many_are_told_to_come_again(
    stage: Stage, local: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST", 20)
    wanted = f"min_position={stage.bot.log.head().position + 1}"
    paths = ("threads", "events", "users", "tokens") * 5
    asked = [asyncio.create_task(local.get(f"/v1/{path}?{wanted}")) for path in paths]
    while 'hilo_reads_waiting{bot="default"} 20.0' not in (await local.get("/metrics")).text:
        await stage.news()
    more = await local.get(f"/v1/threads?{wanted}")
    assert (more.status_code, more.headers["retry-after"]) == (503, "1")
    assert more.json()["type"] == "/problems/too-many-waiting"
    assert (await local.get("/v1/threads")).status_code == 200, "others are served"
    await stage.outside.say("15550109999", "otra cosa")
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    assert 'hilo_reads_refused_total{bot="default"} 1.0' in (await local.get("/metrics")).text


async def test_what_is_not_there_in_time_is_not_there_yet(
    local: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WAIT_SECONDS", 0.01)
    for path in ("threads", "events"):
        answer = await local.get(f"/v1/{path}?min_position=999999")
        assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
        assert answer.json()["type"] == "/problems/not-yet"


async def test_readyz_tells_the_end_of_the_log_whoever_wrote_it(
    stage: Stage, local: Client, house: House
) -> None:
    with House(house.data) as again:
        again.people = house.people
        last = again.write(BEN, "noch da?").last_position
    await stage.until(lambda: stage.bot.todo.position >= last)
    assert (await local.get("/readyz")).json()["position"] == last


async def test_what_has_not_changed_is_not_sent_again(stage: Stage, local: Client) -> None:
    first = await local.get("/v1/events?until=5")
    tag = first.headers["etag"]
    again = await local.get("/v1/events?until=5", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    now = await local.get("/v1/users")
    await stage.outside.say("15550109999", "otra cosa")
    await stage.until(
        lambda: stage.bot.follower.progress.position == stage.bot.log.head().position > 12
    )
    changed = await local.get("/v1/users", headers={"if-none-match": now.headers["etag"]})
    assert changed.status_code == 200


async def test_whoever_is_not_named_by_a_whole_pseudonym_is_told_what_to_give(
    local: Client, house: House, key: Callable[..., dict[str, str]]
) -> None:
    """An empty page would say that somebody never wrote, though it was only the name that erred."""
    ana, roles = house.people[ANA], [key("auditor"), key("analyst"), key("operator")]
    nobody = "a" * 20
    for role in roles:
        for name in (ANA, f"%2B{ANA}", "nonsense!", ana[:8], ana.upper(), f"user/{ana}", ""):
            for path in ("/v1/events", "/v1/exports/log"):
                answer = await local.get(f"{path}?user={name}", headers=role)
                assert (answer.status_code, name in answer.text and name != "") == (422, False)
                assert answer.json()["type"] == "/problems/invalid-request"
                assert "`GET /v1/users`" in answer.json()["detail"]
        for path in ("/v1/events", "/v1/exports/log"):
            unknown = await local.get(f"{path}?user={nobody}", headers=role)
            assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/not-found")
        for path in ("users/{}", "users/{}/timeline", "users/{}/client", "threads/{}"):
            lost = await local.get(f"/v1/{path.format(ANA)}", headers=role)
            assert (lost.status_code, "whole pseudonym" in lost.json()["detail"]) == (404, True)
            unknown = await local.get(f"/v1/{path.format(nobody)}", headers=role)
            assert (unknown.status_code, "access logs" in unknown.text) == (404, False)
        early = await local.get(f"/v1/events?user={ana}&until=0", headers=role)
        assert (early.status_code, early.json()["events"]) == (200, [])
    refused = await local.get(f"/v1/events?user={ANA}", headers=key("hook"))
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/v1/threads?as_of=2026-11-20T14:00:00", 422, "unclear-moment"),
        ("/v1/threads?as_of=999999", 409, "not-yet"),
        ("/v1/users/x?as_of=2100-01-01T00:00:00Z", 409, "not-yet"),
        ("/v1/events?cursor=zz", 404, "bad-cursor"),
        ("/v1/events?type=Nothing", 422, "invalid-request"),
        ("/v1/events?limit=0", 422, "invalid-request"),
        ("/v1/tokens?bot=nobody", 404, "no-such-bot"),
        ("/v1/analytics/usage?since=12", 422, "unclear-moment"),
        ("/v1/nowhere", 404, "no-such-page"),
    ],
)
async def test_a_question_that_cannot_be_answered_says_why(
    local: Client, path: str, status: int, kind: str
) -> None:
    answer = await local.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"/problems/{kind}"


async def test_a_read_model_that_is_none_is_answered_with_those_there_are(local: Client) -> None:
    for answer in (
        await local.get("/v1/exports/nope"),
        await local.post("/v1/projections/nope/pause", json={"why": "a test"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
        for name in ("thread_map", "usage"):
            assert name in answer.json()["detail"]


async def test_a_cut_inside_an_append_is_refused(local: Client) -> None:
    events = (await local.get("/v1/events?limit=1000")).json()["events"]
    inside = next(a for a, b in pairwise(events) if a["append_id"] == b["append_id"])
    answer = await local.get(f"/v1/users/x?as_of={inside['position']}")
    assert answer.status_code == 422
    assert "were written together" in answer.json()["detail"]


async def test_a_cursor_of_another_question_is_refused(local: Client) -> None:
    page = (await local.get("/v1/events?limit=1")).json()
    other = await local.get(f"/v1/events?limit=1&type=MessageReceived&cursor={page['next']}")
    assert (other.status_code, other.json()["type"]) == (404, "/problems/bad-cursor")


async def sent(
    client: Client, count: int, *filters: str, **headers: str
) -> list[tuple[str, dict[str, Any]]]:
    """The first so many events of the stream: (id, event)."""
    found: list[tuple[str, dict[str, Any]]] = []
    place = ""
    query = "&".join([*filters, *([] if headers else ["after=0"])])
    async with client.stream("GET", f"/v1/events/stream?{query}", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                place = line[4:]
            elif line.startswith("data: "):
                found.append((place, json.loads(line[6:])))
                if len(found) == count:
                    break
    return found


async def test_the_stream_sends_what_is_there_then_what_comes(stage: Stage, local: Client) -> None:
    head = stage.bot.log.head().position
    following = asyncio.ensure_future(sent(local, head + 1))
    await stage.outside.say("15550109999", "en vivo")
    async with asyncio.timeout(10):
        found = await following
    assert [event["position"] for _, event in found] == list(range(1, head + 2))


async def test_the_stream_goes_on_where_a_reader_was(local: Client) -> None:
    first = await sent(local, 3)
    rest = await sent(local, 2, **{"last-event-id": first[-1][0]})
    assert [event["position"] for _, event in rest] == [4, 5]


async def test_the_stream_is_filtered_as_pages_are_and_goes_on_so(
    local: Client, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = f"user={house.people[ANA]}"
    tokens = (await local.get("/v1/events?type=TokensIncremented")).json()["events"]
    for name in ("SEARCHED", "RUN_SEARCHED", "STREAM_SEARCHED"):
        monkeypatch.setattr(paging, name, 2)
    run = f"correlation={tokens[0]['state']['cor']}"
    kinds = ["type=RunStarted", "type=MessageSent"]
    for filters in ([user], [run], [user, run], [user, *kinds], kinds):
        wanted = [
            one
            for page in await pages(local, "&".join([*filters, "limit=1000"]))
            for one in page["events"]
        ]
        async with asyncio.timeout(10):
            all_of_it = await sent(local, len(wanted), *filters)
            assert [event for _, event in all_of_it] == wanted
            rest = await sent(
                local, len(wanted) - 1, *filters, **{"last-event-id": all_of_it[0][0]}
            )
        assert rest == all_of_it[1:]


async def test_the_stream_of_one_user_goes_on_with_what_comes(
    stage: Stage, local: Client, house: House
) -> None:
    user = f"user={house.people[ANA]}"
    known = len((await local.get(f"/v1/events?{user}&limit=1000")).json()["events"])
    following = asyncio.ensure_future(sent(local, known + 1, user))
    await stage.outside.say("15550109999", "de otra")
    await stage.outside.say(ANA, "en vivo")
    async with asyncio.timeout(10):
        found = await following
    assert {event["stream"] for _, event in found} == {house.stream(ANA)}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (f"user={ANA}", 422),
        ("user=k7q2mzp4xw3abcde5fgh", 404),
        ("type=NoSuchThing", 422),
        ("since=0", 422),
    ],
)
async def test_the_stream_refuses_what_pages_refuse(local: Client, query: str, status: int) -> None:
    answer = await local.get(f"/v1/events/stream?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_texts_are_sealed_in_the_log_and_pages_compressed(
    local: Client, house: House
) -> None:
    answer = await local.get(f"/v1/events?user={house.people[BEN]}&limit=1000")
    assert answer.headers["content-encoding"] == "gzip"
    assert "is anybody there?" in answer.text


async def test_the_description_has_an_example_for_every_answer(local: Client) -> None:
    document = (await local.get("/v1/openapi.json")).json()
    for path, operations in document["paths"].items():
        if not path.startswith("/v1") or path.endswith("/stream") or "/exports/" in path:
            continue
        for operation in operations.values():
            good = operation["responses"].get("200") or operation["responses"]["202"]
            content = good["content"]["application/json"]
            assert "example" in content, path
            assert operation["summary"], path
    refs = json.dumps(document)
    for part in refs.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in document["components"]["schemas"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/analytics/usage?since=0001-01-01T00:00:00%2b14:00",
        "/v1/analytics/usage?until=9999-12-31T23:59:59-14:00",
        "/v1/users/x?as_of=1969-12-31T23:59:59Z",
    ],
)
async def test_a_time_that_no_log_reaches_is_refused(local: Client, path: str) -> None:
    answer = await local.get(path)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/unclear-moment")


async def test_a_forged_cursor_leads_nowhere(local: Client) -> None:
    forged = msgspec.msgpack.encode((1, 2**63, b"", b"")).hex()
    answer = await local.get(f"/v1/events?cursor={forged}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/bad-cursor")
