"""An application of the `eventsourcing` library runs on a Hilo log unchanged."""

from __future__ import annotations

import unittest
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, StoredEvent, Tracking
from eventsourcing.popo import POPOTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.tests import persistence as published
from eventsourcing.utils import get_topic

from eventstore.types import Micros
from tests.conformance.appends import append, check, grow, whole, write
from tests.conformance.appends import event as said
from tests.conformance.held import PATIENCE
from tests.conformance.stores import FakeClock, StoreFactory

PUBLISHED: dict[type[unittest.TestCase], str] = {
    published.AggregateRecorderTestCase: "aggregate_recorder",
    published.ApplicationRecorderTestCase: "application_recorder",
    published.NonInterleavingNotificationIDsBaseCase: "application_recorder",
}
CASES: list[tuple[type[unittest.TestCase], str]] = [
    *((case, name) for case in PUBLISHED for name in unittest.TestLoader().getTestCaseNames(case)),
    (published.ApplicationRecorderTestCase, "optional_test_insert_subscribe"),
]


def test_the_library_still_publishes_the_cases_we_run() -> None:
    assert len(CASES) >= 8


@pytest.mark.parametrize(("case", "name"), CASES, ids=[f"{c.__name__}-{n}" for c, n in CASES])
def test_the_recorders_pass_what_the_library_publishes(
    store_factory: StoreFactory, case: type[unittest.TestCase], name: str
) -> None:
    make = getattr(store_factory, PUBLISHED[case])
    held: Any = type(case.__name__, (case,), {"create_recorder": lambda _: make()})
    result = unittest.TestResult()
    held(name).run(result)
    assert result.testsRun == 1
    assert not result.failures + result.errors


# -- an application ----------------------------------------------------------------------------


FIDO = UUID(int=7)


class Dog(Aggregate):
    """A dog that learns tricks: the library's own first example."""

    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event("TrickAdded")
    def add_trick(self, trick: str) -> None:
        self.tricks.append(trick)


class DogSchool(Application[UUID]):
    """Its application service, with snapshots every third version."""

    is_snapshotting_enabled = True
    snapshotting_intervals = {Dog: 3}  # noqa: RUF012 - as the library's documentation shows

    def register(self, name: str) -> UUID:
        dog = Dog(name)
        self.save(dog)
        return dog.id

    def teach(self, dog_id: UUID, trick: str) -> None:
        dog: Dog = self.repository.get(dog_id)
        dog.add_trick(trick)
        self.save(dog)

    def tricks(self, dog_id: UUID) -> list[str]:
        dog: Dog = self.repository.get(dog_id)
        return dog.tricks


class TrickCount(POPOTrackingRecorder):
    """A view: how many tricks all dogs know."""

    def __init__(self) -> None:
        super().__init__()
        self.tricks = 0

    def add_one(self, tracking: Tracking) -> None:
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            self._insert_tracking(tracking)
            self.tricks += 1


class TrickCounting(Projection[TrickCount]):
    """Counts tricks from the log."""

    name = "tricks"
    topics = (get_topic(Dog.TrickAdded),)  # type: ignore[attr-defined]

    def process_event(self, domain_event: object, tracking: Tracking) -> None:
        self.view.add_one(tracking)


@pytest.fixture
def school(store_factory: StoreFactory) -> DogSchool:
    return DogSchool(env=store_factory.library_environment())


def test_an_application_saves_and_gets_its_aggregates(school: DogSchool) -> None:
    fido, rex = school.register("Fido"), school.register("Rex")
    school.teach(fido, "roll over")
    school.teach(rex, "sit")
    school.teach(fido, "play dead")
    assert school.tricks(fido) == ["roll over", "play dead"]
    assert school.tricks(rex) == ["sit"]


def test_an_application_started_again_finds_everything(
    store_factory: StoreFactory, school: DogSchool
) -> None:
    fido = school.register("Fido")
    school.teach(fido, "roll over")
    school.close()
    again = DogSchool(env=store_factory.library_environment())
    assert again.tricks(fido) == ["roll over"]
    again.close()


def test_an_application_takes_snapshots_and_starts_from_them(school: DogSchool) -> None:
    fido = school.register("Fido")
    for trick in "abcd":
        school.teach(fido, trick)
    assert school.snapshots is not None
    taken = [snapshot.originator_version for snapshot in school.snapshots.get(fido)]
    assert taken == [3]
    assert school.tricks(fido) == list("abcd")


def test_an_application_s_notification_log_is_the_log_by_position(school: DogSchool) -> None:
    fido = school.register("Fido")
    for trick in "abcdefghijkl":
        school.teach(fido, trick)
    section = school.notification_log["1,10"]
    assert [item.id for item in section.items] == list(range(1, 11))
    assert section.next_id == "11,20"
    rest = school.notification_log.select(11, 10)
    assert [(item.id, item.originator_version) for item in rest] == [(11, 11), (12, 12), (13, 13)]
    assert {item.originator_id for item in rest} == {fido}


def test_an_application_is_told_of_a_conflict(school: DogSchool) -> None:
    fido = school.register("Fido")
    mine: Dog = school.repository.get(fido)
    school.teach(fido, "sit")
    mine.add_trick("stand")
    with pytest.raises(IntegrityError):
        school.save(mine)
    assert school.tricks(fido) == ["sit"]


def test_a_projection_of_the_library_follows_the_log(store_factory: StoreFactory) -> None:
    with ProjectionRunner(
        application_class=DogSchool,
        projection_class=TrickCounting,
        view_class=TrickCount,
        env=store_factory.library_environment()
        | {"TRICKS_PERSISTENCE_MODULE": "eventsourcing.popo"},
    ) as runner:
        fido = runner.app.register("Fido")
        runner.app.teach(fido, "sit")
        runner.app.teach(fido, "roll over")
        runner.wait(runner.app.recorder.max_notification_id(), timeout=PATIENCE)
        assert runner.view.tricks == 2


def test_what_an_application_of_the_library_wrote_is_read_as_the_log_s_own(
    store_factory: StoreFactory, school: DogSchool
) -> None:
    fido = school.register("Fido")
    school.teach(fido, "sit")
    log = store_factory.open()
    events = whole(log)
    assert [(e.position, e.stream, e.version) for e in events] == [
        (1, fido.hex, 1),
        (2, fido.hex, 2),
    ]
    assert events[0].recorded_at < events[1].recorded_at
    assert events[0].append_id != events[1].append_id
    write(log, append(fido.hex, 2, said()))
    assert school.recorder.max_notification_id() == 3


def test_a_writer_sees_at_once_what_the_library_appended_beside_it(
    store_factory: StoreFactory,
) -> None:
    log = store_factory.open()
    grow(log, [1], "a")
    recorder = store_factory.application_recorder()
    recorder.insert_events([StoredEvent("a", 2, "Said", b"")])
    grow(log, [1], "a")
    assert [(e.stream, e.version) for e in whole(log)] == [("a", 1), ("a", 2), ("a", 3)]


def test_events_saved_together_are_one_append_whatever_their_number(
    store_factory: StoreFactory,
) -> None:
    recorder = store_factory.application_recorder()
    recorder.insert_events([StoredEvent("a", n, "Said", b"") for n in range(1, 3001)])
    log = store_factory.open()
    page = log.read(limit=10)
    assert len(page) == 3000
    assert len({e.append_id for e in page}) == 1
    assert len({e.recorded_at for e in page}) == 1


def test_what_the_library_appends_is_later_than_all_before_it_whatever_the_clocks(
    store_factory: StoreFactory,
) -> None:
    log = store_factory.open(clock=FakeClock(Micros(4_000_000_000_000_000)))  # a day in 2096
    grow(log, [1], "a")
    recorder = store_factory.application_recorder()
    recorder.insert_events([StoredEvent("a", 2, "Said", b"")])
    recorder.insert_events([StoredEvent("a", 3, "Said", b"")])
    check(whole(log))


@pytest.mark.parametrize(("topics", "wanted"), [((), 1300), (("Even",), 650)])
def test_a_subscription_of_the_library_catches_up_over_many_pages(
    store_factory: StoreFactory, topics: tuple[str, ...], wanted: int
) -> None:
    recorder = store_factory.application_recorder()
    recorder.insert_events(
        [StoredEvent(FIDO, n, "Odd" if n % 2 else "Even", b"") for n in range(1, 1301)]
    )
    with recorder.subscribe(topics=topics) as subscription:
        ids = [next(subscription).id for _ in range(wanted)]
    assert ids == list(range(1, 1301) if not topics else range(2, 1301, 2))


def test_a_subscription_of_the_library_repeats_nothing_that_came_while_it_looked(
    store_factory: StoreFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = store_factory.application_recorder()
    ask = recorder.max_notification_id
    versions = iter(range(1, 6))

    def ask_and_then_grow() -> int | None:
        last = ask()
        for version in versions:
            recorder.insert_events([StoredEvent(FIDO, version, "Said", b"")])
            break
        return last

    monkeypatch.setattr(recorder, "max_notification_id", ask_and_then_grow)
    with recorder.subscribe() as subscription:
        assert [next(subscription).id for _ in range(5)] == [1, 2, 3, 4, 5]
