"""What "not modified" is said of: just what the caller has, and nothing that is not there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.api.conftest import Client
from tests.integration.cli.house import ANA, BEN, House
from tests.integration.turns.stage import Stage

Key = Callable[..., dict[str, str]]


async def followed(stage: Stage) -> None:
    """Return when the read models are where the log ends."""
    await stage.until(lambda: stage.bot.follower.progress.position == stage.bot.log.head().position)


async def test_what_the_caller_has_is_not_sent_again_packed_or_not(
    stage: Stage, local: Client, house: House
) -> None:
    await followed(stage)
    for path in ("/v1/events", f"/v1/users/{house.people[ANA]}", "/v1/threads", "/v1/users"):
        first = await local.get(path, headers={"accept-encoding": "gzip"})
        tag = first.headers["etag"]
        strong = tag.removeprefix("W/")
        for sent in (tag, f'"x", {tag}', strong, "*", f'W/"1-2-ab-cd" , {strong}'):
            for encoding in ("gzip", "identity"):
                headers = {"if-none-match": sent, "accept-encoding": encoding}
                again = await local.get(path, headers=headers)
                assert (again.status_code, again.content) == (304, b""), (path, sent)
                assert again.headers["etag"] == tag
                assert {"Authorization", "Accept-Encoding"} <= set(
                    again.headers["vary"].split(", ")
                )
        for sent in ("", "W/", tag[:-2], tag[3:-1], f'"{tag}', 'W/"0-0--"'):
            answer = await local.get(path, headers={"if-none-match": sent})
            assert answer.status_code == 200, (path, sent)


async def test_no_tag_makes_what_is_not_there_unmodified(
    stage: Stage, local: Client, house: House
) -> None:
    await followed(stage)
    tags = [
        (await local.get(path)).headers["etag"]
        for path in ("/v1/events", f"/v1/users/{house.people[ANA]}", "/v1/threads")
    ]
    for path in ("/v1/users/nobody", "/v1/users/nobody/timeline", "/v1/users/nobody/client",
                 "/v1/threads/nobody", "/v1/events/99999", "/v1/users/nobody?as_of=1"):  # fmt: skip
        for sent in (*tags, "*"):
            answer = await local.get(path, headers={"if-none-match": sent})
            assert answer.status_code == 404, (path, sent)


async def test_a_tag_is_good_for_one_resource_and_one_role(
    stage: Stage, local: Client, house: House, key: Key
) -> None:
    await followed(stage)
    ana, ben = house.people[ANA], house.people[BEN]
    paths = ("/v1/threads", "/v1/threads?sort=tokens", f"/v1/users/{ana}", f"/v1/users/{ben}",
             "/v1/events?limit=5", "/v1/events?limit=6", "/v1/cleanups", "/v1/tokens")  # fmt: skip
    roles = [key("auditor"), key("analyst"), key("operator")]
    tags = {
        (await local.get(path, headers=role)).headers["etag"] for path in paths for role in roles
    }
    assert len(tags) == len(paths) * len(roles)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/v1/threads", "UPDATE thread_map SET messages_in = messages_in + 1"),
        ("/v1/tokens", "UPDATE token_totals SET tokens = tokens + 1"),
        ("/v1/users", "UPDATE client_view SET thread = 'conv_of_another_version'"),
    ],
)
async def test_rows_that_a_rebuild_changed_are_sent_though_no_event_came(
    stage: Stage, local: Client, path: str, change: str
) -> None:
    await followed(stage)
    before = await local.get(path)
    with stage.bot.views.transaction() as db:
        assert db.execute(change).rowcount > 0
    after = await local.get(path, headers={"if-none-match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["position"] == before.json()["position"]
    assert after.json() != before.json()
