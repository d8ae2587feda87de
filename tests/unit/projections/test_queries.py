"""What the command line asks of the read models."""

from __future__ import annotations

import pytest

from app.projections import (
    MODELS,
    NotBuilt,
    UnknownModel,
    Views,
    bands,
    models,
    named,
    rebuild,
    thread,
    threads,
    top,
)
from tests.unit.projections.histories import TestLog, received, registered, started, tokens


@pytest.fixture
def five(history: TestLog, views: Views) -> TestLog:
    for user, count in zip("abcde", (10, 50, 80, 100, 0), strict=True):
        history.append(user, registered(), started(f"conv_{user}"), received())
        history.append(user, tokens(f"conv_{user}", count))
    rebuild(views, history.log, MODELS)
    return history


def test_threads_are_listed_by_last_activity_with_their_tokens(five: TestLog, views: Views) -> None:
    answer = threads(views, limit=2)
    assert answer.position == five.log.head().position
    assert [(t.user, t.thread, t.tokens) for t in answer.threads] == [
        ("e", "conv_e", 0),
        ("d", "conv_d", 100),
    ]
    assert [t.user for t in threads(views, limit=2, offset=2).threads] == ["c", "b"]


def test_one_thread_is_found_by_pseudonym(five: TestLog, views: Views) -> None:
    found = thread(views, "c")
    assert found is not None
    assert (found.user, found.tokens, found.messages_in, found.band(100)) == ("c", 80, 1, "warning")
    assert thread(views, "nobody") is None


def test_the_largest_threads_come_first(five: TestLog, views: Views) -> None:
    assert [(t.user, t.tokens) for t in top(views, 2).threads] == [("d", 100), ("c", 80)]


def test_bands_count_threads_and_tokens_below_a_limit(five: TestLog, views: Views) -> None:
    answer = bands(views, limit=100)
    assert (answer.contacts, answer.with_tokens, answer.near_limit) == (5, 4, 2)
    assert [(b.band, b.threads, b.tokens) for b in answer.bands] == [
        ("normal", 1, 10),
        ("caution", 1, 50),
        ("warning", 1, 80),
        ("critical", 1, 100),
    ]


def test_models_say_how_far_behind_they_are(five: TestLog, views: Views) -> None:
    five.append("a", received())
    status = models(views, five.log, MODELS)
    assert [(s.name, s.state, s.lag, s.built) for s in status] == [
        (model.name, "live", 1, model.version) for model in MODELS
    ]
    assert all(s.lag_seconds > 0 for s in status)


def test_what_is_not_built_yet_says_so(history: TestLog, views: Views) -> None:
    with pytest.raises(NotBuilt, match="thread_map has not been built yet"):
        threads(views)
    assert [s.state for s in models(views, history.log, MODELS)] == ["building"] * 9


def test_a_model_is_found_by_name() -> None:
    assert named("thread_map", MODELS).name == "thread_map"
    with pytest.raises(UnknownModel, match="there are cleanup_log, client_view,"):
        named("nothing", MODELS)
