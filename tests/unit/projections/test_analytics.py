"""Figures over time, clean-ups and clients, as the functions answer them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from app.aggregates import events as e
from app.aggregates import gateway_events as g
from app.projections import (
    MODELS,
    OtherVersion,
    Span,
    Views,
    analytics,
    cleanups,
    clients,
    prices,
    rebuild,
)
from app.projections.errors import NotBuilt
from eventstore.codec import Event
from eventstore.kek import KeyEncryptionKey
from eventstore.keyring import Handle, Keyring
from eventstore.sealing import Sealer
from eventstore.sqlite import system_clock
from eventstore.types import StreamName
from tests.unit.aggregates.scenario import message, sealed
from tests.unit.projections.histories import CODEC, TestLog, received, reset, started

PRICES = prices.Prices(
    [
        prices.Price("m", date(2020, 1, 1), Decimal(1), Decimal(10), Decimal("0.1")),
        prices.Price("m", date(2025, 1, 1), Decimal(2), Decimal(20)),
    ]
)


def spent(total: int, model: str, *, read: int = 0, written: int = 0, cached: int = 0) -> Event:
    return e.TokensIncremented(
        thread="t", run="u", total=total, input=read, output=written, cached=cached, model=model
    )


def test_a_price_holds_from_its_day_on_and_for_dated_names_of_its_model() -> None:
    assert PRICES.of("m", date(2019, 12, 31)) is None
    old, new = PRICES.of("m", date(2024, 12, 31)), PRICES.of("m-2024-08-01", date(2025, 1, 1))
    assert old is not None
    assert new is not None
    assert old.cost(input=1_000_000, output=0, cached=500_000) == 550_000 * 10**6
    assert new.cost(input=1_000_000, output=1, cached=500_000) == 2_000_020 * 10**6
    assert PRICES.of("m-mini", date(2025, 1, 1)) is None


def test_the_prices_of_this_release_can_be_read() -> None:
    found = prices.standard().of("gpt-5-mini-2025-08-07", date(2026, 1, 1))
    assert found is not None
    assert found.cost(input=1_000_000, output=1_000_000, cached=0) == 225 * 10**10


def test_prices_that_cannot_be_used_say_where_they_are(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('[[price]]\nmodel = "m"\nfrom = 2025-01-01\ninput = "1"\n')
    with pytest.raises(prices.PricesError, match=r"prices\.toml are not as they should be"):
        prices.Prices.read(file)
    with pytest.raises(prices.PricesError, match="cannot be read"):
        prices.Prices.read(tmp_path / "nowhere.toml")


def test_cost_is_exact_and_what_cannot_be_priced_is_counted(history: TestLog, views: Views) -> None:
    history.append("a", spent(1_000_003, "m", read=3, written=1_000_000))
    history.append("b", spent(7, "nobody-knows", read=3, written=4))
    history.append("b", spent(9, "m"))
    history.append("b", e.UsageUnknown(run="u"))
    rebuild(views, history.log, MODELS)
    report = analytics.usage(views, Span(per="all"), PRICES)
    assert (report.runs, report.total) == (3, 1_000_019)
    assert report.cost == Decimal("20.000006")
    assert (report.unpriced_runs, report.unknown_runs) == (2, 1)
    assert [(row.model, row.cost, row.unpriced_runs) for row in report.rows] == [
        ("", Decimal(0), 0),
        ("m", Decimal("20.000006"), 1),
        ("nobody-knows", Decimal(0), 1),
    ]


def test_a_span_is_whole_hours(history: TestLog, views: Views) -> None:
    history.append("a", received())
    rebuild(views, history.log, MODELS)
    now = history.log.now()
    hour = 3_600_000_000
    assert analytics.media(views, Span(since=now)).rows != []
    assert analytics.media(views, Span(until=now - now % hour)).rows == []
    assert analytics.media(views, Span(since=now + hour)).rows == []
    (row,) = analytics.media(views, Span(per="month")).rows
    assert (len(row.period), row.kind, row.has_file, row.messages) == (7, "text", False, 1)


def test_thread_changes_are_told_by_reason_with_what_they_left_behind(
    history: TestLog, views: Views
) -> None:
    history.append("a", started("t"), reset("t", "expired", 600), started("u"))
    history.append("b", reset("t", "expired", 1500))
    rebuild(views, history.log, MODELS)
    rows = analytics.thread_changes(views).rows
    assert [(r.reason, r.started, r.resets, r.left_behind, r.most_left_behind) for r in rows] == [
        ("expired", 0, 2, 2100, 1500),
        ("first_time", 2, 0, 0, 0),
    ]


def test_the_gateways_health_tells_how_late_messages_came(history: TestLog, views: Views) -> None:
    late = history.log.now() - 60_000_000
    history.append("a", e.MessageReceived(ref=b"r", kind="text", content=sealed(), at=late))
    history.append("a", message(1))
    rejected = CODEC.encode(g.ItemRejected(reason="no id", body=sealed()))
    history.append_to(StreamName("gateway"), rejected)
    rebuild(views, history.log, MODELS)
    rows = {(row.what, row.detail): row for row in analytics.gateway_health(views).rows}
    received_ones = rows["message received", ""]
    assert (received_ones.events, rows["item rejected", "no id"].events) == (2, 1)
    assert received_ones.mean_late is not None
    assert 60_000_000 <= received_ones.mean_late < 120_000_000
    assert rows["item rejected", "no id"].mean_late is None


def test_cleanups_count_what_was_really_cleaned(history: TestLog, views: Views) -> None:
    for user, left in (("a", 1_000_000), ("b", 2_000_000)):
        history.append(
            user, e.ThreadReset(thread="t", reason="cleanup", left_behind=left, cor="c1")
        )
    history.clean_up("c1", 7, 7)  # whatever it says of itself
    history.append("c", e.ThreadReset(thread="t", reason="cleanup", left_behind=5, cor="c2"))
    rebuild(views, history.log, MODELS)
    second, first = cleanups.cleanups(views).cleanups
    assert (first.id, first.cleaned_count, first.total_tokens_cleared) == ("c1", 2, 3_000_000)
    assert [(thread.user, thread.tokens) for thread in first.details] == [
        ("a", 1_000_000),
        ("b", 2_000_000),
    ]
    assert (first.complete, first.limit, second.complete, second.limit) == (True, 100, False, None)
    with views.read() as db:
        rows = db.execute("SELECT id, cleaned_count, total_tokens_cleared FROM ThreadCleanupLog")
        assert rows.fetchall() == [("c2", 1, 5), ("c1", 2, 3_000_000)]


@pytest.fixture
def sealer(tmp_path: Path) -> Iterator[tuple[Sealer, str]]:
    kek = KeyEncryptionKey.from_file(tmp_path / "kek")
    keyring = Keyring.open(tmp_path / "keys.db", kek, clock=system_clock)
    (name,) = keyring.register([(Handle("phone", "573001112233"),)])
    yield Sealer(keyring), name
    keyring.close()


def test_a_client_is_opened_at_the_edge_and_moves_with_the_recorded_activity(
    history: TestLog, views: Views, sealer: tuple[Sealer, str]
) -> None:
    seal, name = sealer
    stream = StreamName(f"user/{name}")
    content = e.Content(message_id="m", chat_id="c", text="hola", name="Anita")
    history.append(
        name,
        e.UserRegistered(gateway="whapi", chat=seal.seal(name, stream, "chat", "57300@s")),
        e.ProfileUpdated(
            profile=seal.seal(name, stream, "profile", e.Profile(name="Ana", labels=("vip",)))
        ),
        e.MessageReceived(
            ref=b"r", kind="text", content=seal.seal(name, stream, "content", content)
        ),
        started("conv_1"),
        e.TokensIncremented(thread="conv_1", run="u", total=600),
    )
    rebuild(views, history.log, MODELS)
    before = clients.client(views, name)
    assert before is not None
    assert (before.thread_id, before.last_activity, before.thread_token_count) == (
        "conv_1",
        None,
        0,
    )
    history.append(name, e.ActivityRecorded(last_activity=77, tokens=600, thread="conv_1"))
    rebuild(views, history.log, MODELS)
    after = clients.client(views, name)
    assert after is not None
    assert clients.open_client(after, history.log, seal) == clients.Client(
        user_id=name,
        name="Ana",
        user_name="Anita",
        labels=("vip",),
        chat_id="57300@s",
        last_activity=77,
        thread_id="conv_1",
        thread_token_count=600,
    )
    assert clients.client(views, "nobody") is None
    with views.read() as db:
        rows = db.execute("SELECT userId, threadId, threadTokenCount FROM ClientView").fetchall()
    assert rows == [(name, "conv_1", 600)]
    assert b"Ana" not in views.path.read_bytes()


def test_the_name_of_a_message_comes_before_the_one_that_was_imported(
    history: TestLog, views: Views, sealer: tuple[Sealer, str]
) -> None:
    seal, name = sealer
    stream = StreamName(f"user/{name}")
    imported = e.Profile(name="Ana", user_name="Anita de antes")
    history.append(name, e.ProfileUpdated(profile=seal.seal(name, stream, "profile", imported)))

    def shown() -> tuple[str | None, str | None]:
        rebuild(views, history.log, MODELS)
        view = clients.client(views, name)
        assert view is not None
        client = clients.open_client(view, history.log, seal)
        return client.name, client.user_name

    assert shown() == ("Ana", "Anita de antes")
    for called, says in (("", "Anita de antes"), ("Anita", "Anita")):
        content = e.Content(message_id="m", chat_id="c", text="hola", name=called)
        sealed = seal.seal(name, stream, "content", content)
        history.append(name, e.MessageReceived(ref=b"r", kind="text", content=sealed))
        assert shown() == ("Ana", says)


def test_a_client_never_shows_one_threads_count_beside_anothers_id(
    history: TestLog, views: Views
) -> None:
    recorded = e.ActivityRecorded(last_activity=1, tokens=600, thread="old")
    history.append("a", started("old"), recorded)
    history.append("a", reset("old", "thread_changed", 600), started("new"))
    rebuild(views, history.log, MODELS)
    (client,) = clients.clients(views).clients
    assert (client.thread_id, client.thread_token_count, client.last_activity) == ("new", 0, 1)


def test_rows_of_another_release_that_cannot_answer_say_so(history: TestLog, views: Views) -> None:
    rebuild(views, history.log, MODELS)
    with views.transaction() as db:
        db.execute("UPDATE cursors SET version = 0 WHERE model = 'usage'")
        db.execute("ALTER TABLE usage_hours RENAME COLUMN hour TO since")
    with pytest.raises(OtherVersion, match="usage still has the rows of its version 0"):
        analytics.usage(views)
    with views.transaction() as db:
        db.execute("DELETE FROM cursors WHERE model = 'media'")
    with pytest.raises(NotBuilt):
        analytics.media(views)
