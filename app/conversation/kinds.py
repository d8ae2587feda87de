"""The kinds of aggregates of a bot's log, as the repository keeps them."""

from __future__ import annotations

from collections.abc import Sequence

from app.aggregates import gateway as gateways
from app.aggregates import jobs
from app.aggregates.events import USER_EVENTS
from app.aggregates.gateway import Gateway, GatewayState
from app.aggregates.gateway_events import GATEWAY_EVENTS
from app.aggregates.job_events import JOB_EVENTS
from app.aggregates.jobs import Job, JobState
from app.aggregates.user import User
from app.aggregates.user_state import BLANK, STATE_SHAPE, UserState, evolve, pack, unpack
from app.conversation.kind import Triggered
from eventstore.codec import Codec, Event
from eventstore.types import Micros, StreamName, Version

USER_CODEC = Codec(USER_EVENTS)
GATEWAY_CODEC = Codec(GATEWAY_EVENTS)
JOB_CODEC = Codec(JOB_EVENTS)
CODEC = Codec((*USER_EVENTS, *GATEWAY_EVENTS, *JOB_EVENTS))
"""Every event of a bot's log, for readers that follow all streams."""


class _Users:
    codec = USER_CODEC
    shape = STATE_SHAPE

    def blank(self, _stream: StreamName) -> UserState:
        return BLANK

    def evolve(
        self, state: UserState, event: Event, version: Version, recorded_at: Micros
    ) -> UserState:
        return evolve(state, event, version, recorded_at)

    def revive(
        self, stream: StreamName, state: UserState, version: Version, *, read_only: bool
    ) -> User:
        return User(stream, state, version, read_only=read_only)

    def collect(self, aggregate: User) -> Sequence[Triggered]:
        return aggregate.collect_events()

    def state_of(self, aggregate: User) -> UserState:
        return aggregate.state

    def pack(self, state: UserState) -> bytes:
        return pack(state)

    def unpack(self, state: bytes) -> UserState:
        return unpack(state)


USERS = _Users()


class _Gateways:
    codec = GATEWAY_CODEC
    shape = gateways.STATE_SHAPE

    def blank(self, _stream: StreamName) -> GatewayState:
        return gateways.BLANK

    def evolve(
        self, state: GatewayState, event: Event, version: Version, recorded_at: Micros
    ) -> GatewayState:
        return gateways.evolve(state, event, version, recorded_at)

    def revive(
        self, stream: StreamName, state: GatewayState, version: Version, *, read_only: bool
    ) -> Gateway:
        return Gateway(stream, state, version, read_only=read_only)

    def collect(self, aggregate: Gateway) -> Sequence[Triggered]:
        return aggregate.collect_events()

    def state_of(self, aggregate: Gateway) -> GatewayState:
        return aggregate.state

    def pack(self, state: GatewayState) -> bytes:
        return gateways.pack(state)

    def unpack(self, state: bytes) -> GatewayState:
        return gateways.unpack(state)


GATEWAYS = _Gateways()


class _Jobs:
    codec = JOB_CODEC
    shape = jobs.STATE_SHAPE

    def blank(self, _stream: StreamName) -> JobState:
        return jobs.BLANK

    def evolve(
        self, state: JobState, event: Event, version: Version, recorded_at: Micros
    ) -> JobState:
        return jobs.evolve(state, event, version, recorded_at)

    def revive(
        self, stream: StreamName, state: JobState, version: Version, *, read_only: bool
    ) -> Job:
        return Job(stream, state, version, read_only=read_only)

    def collect(self, aggregate: Job) -> Sequence[Triggered]:
        return aggregate.collect_events()

    def state_of(self, aggregate: Job) -> JobState:
        return aggregate.state

    def pack(self, state: JobState) -> bytes:
        return jobs.pack(state)

    def unpack(self, state: bytes) -> JobState:
        return jobs.unpack(state)


JOBS = _Jobs()
