"""The promises, judged from outside: pure functions over accounts, the log and raw bytes.

Each returns what it found broken, in words; nothing found is a promise kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from app.demo.accounts import ANSWERED, Ledger, OpenAIAccount, Usage, WhapiAccount
from app.demo.traffic import REFERENCE, Plan
from eventstore.types import AppendId, Recorded

_REFERENCE_BYTES: Final = re.compile(REFERENCE.pattern.encode())
_NUMBER_BYTES: Final = re.compile(rb"(?=(1555\d{7}))")
_ID_BYTES: Final = re.compile(rb"Sim\d{10}-[0-9a-f]{10}")

Dump = Mapping[str, Sequence[tuple[object, ...]]]
"""The rows of each table of the read models, in a fixed order."""


class Evidence(msgspec.Struct, frozen=True):
    """All that the judge looks at, besides the log itself and the files."""

    plan: Plan
    openai: OpenAIAccount
    whapi: WhapiAccount
    ledger: Ledger
    log_faults: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    live: Dump = {}
    rebuilt: Dump = {}
    exits: tuple[str, ...] = ()
    """What went wrong when processes were stopped in good order."""


class Promise(msgspec.Struct, frozen=True):
    """A promise, and what was found against it."""

    name: str
    found: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """True if nothing was found."""
        return not self.found


class Verdict(msgspec.Struct, frozen=True):
    """What the judge says."""

    promises: tuple[Promise, ...]
    lost: int
    answered_twice: int
    uncertain: int
    rebuild_equal: bool

    @property
    def broken(self) -> tuple[Promise, ...]:
        """The promises that were not kept."""
        return tuple(promise for promise in self.promises if not promise.kept)


def judge(evidence: Evidence) -> Verdict:
    """Judge every promise."""
    plan, openai, whapi, ledger = (
        evidence.plan,
        evidence.openai,
        evidence.whapi,
        evidence.ledger,
    )
    lost = lost_messages(plan, openai, whapi, ledger)
    twice = answered_twice(whapi)
    differing = tuple(rebuild_differences(evidence.live, evidence.rebuilt))
    promises = (
        Promise("every webhook was acknowledged", tuple(unacknowledged(whapi))),
        Promise("no acknowledged message is lost", lost),
        Promise("no message is answered twice", twice),
        Promise("nobody reads an answer that is not theirs", tuple(misdirected(plan, whapi))),
        Promise("what is not for the bot is not answered", tuple(unasked(plan, openai))),
        Promise("every token OpenAI reports is accounted for", tuple(usage_faults(openai, ledger))),
        Promise("the log is gapless and in order", evidence.log_faults),
        Promise("personal data is not readable on disk", evidence.readable),
        Promise("the read models can be rebuilt from the log", differing),
        Promise("the server stops in good order", evidence.exits),
    )
    return Verdict(
        promises=promises,
        lost=len(lost),
        answered_twice=len(twice),
        uncertain=sum(ledger.uncertain.values()),
        rebuild_equal=not differing,
    )


# -- messages and answers --------------------------------------------------------------------------


def unacknowledged(whapi: WhapiAccount) -> Iterator[str]:
    """Yield what the gateway could not hand over until the end."""
    if whapi.webhooks.pending:
        yield f"{whapi.webhooks.pending} webhooks still wait for a 200"
    if whapi.webhooks.dropped:
        yield f"the gateway gave {whapi.webhooks.dropped} webhooks up"


def lost_messages(
    plan: Plan, openai: OpenAIAccount, whapi: WhapiAccount, ledger: Ledger
) -> tuple[str, ...]:
    """Return the messages that no answer on their sender's phone goes back to.

    What the log itself calls uncertain is not lost: it is recorded as what it is.
    """
    answered: set[str] = set()
    doubtful: set[str] = set()
    for response in openai.responses:
        if response.status in ANSWERED:
            asked = set(REFERENCE.findall(" ".join(response.input_texts)))
            (doubtful if response.run in ledger.uncertain else answered).update(asked)
    shown = {
        (phone, reference)
        for phone, bodies in whapi.by_phone().items()
        for body in bodies
        for reference in REFERENCE.findall(body)
    }
    return tuple(
        f"{reference} of {phone}"
        for reference, phone in plan.expecting("answer").items()
        if not (reference in answered and (phone, reference) in shown)
        and not (reference in doubtful and (phone, reference) not in shown)
    )


def answered_twice(whapi: WhapiAccount) -> tuple[str, ...]:
    """Return the references that more than one message on a phone answers, and parts shown twice.

    A part without a reference (an apology) may be said again; with one, never.
    """
    times: Counter[tuple[str, str]] = Counter()
    for phone, bodies in whapi.by_phone().items():
        for body in bodies:
            times.update({(phone, reference) for reference in REFERENCE.findall(body)})
    return tuple(
        f"{reference} of {phone}: {count} times"
        for (phone, reference), count in times.items()
        if count > 1
    )


def misdirected(plan: Plan, whapi: WhapiAccount) -> Iterator[str]:
    """Yield the references that were shown to somebody else, or that nobody wrote."""
    owner = plan.expecting("answer") | plan.expecting("maybe") | plan.expecting("silence")
    for phone, bodies in whapi.by_phone().items():
        for reference in REFERENCE.findall(" ".join(bodies)):
            if owner.get(reference) != phone:
                yield f"{phone} reads {reference}, of {owner.get(reference, 'nobody')}"


def unasked(plan: Plan, openai: OpenAIAccount) -> Iterator[str]:
    """Yield what reached the model although it was noise, or not said to the bot."""
    silent = plan.expecting("silence")
    for response in openai.responses:
        for reference in REFERENCE.findall(" ".join(response.input_texts)):
            if reference in silent:
                yield f"{reference} of {silent[reference]} was given to the model"


# -- tokens ----------------------------------------------------------------------------------------


def usage_faults(openai: OpenAIAccount, ledger: Ledger) -> Iterator[str]:
    """Yield where the log's tokens and OpenAI's differ, run by run and in the sum."""
    reported: dict[str, Usage] = {}
    for response in openai.responses:
        if response.usage is not None:
            before = reported.get(response.run, Usage())
            reported[response.run] = before.plus(response.usage)
    for run, usage in reported.items():
        recorded = ledger.recorded.get(run)
        if recorded is None and run not in ledger.unknown:
            yield f"{run or 'a response without a run'}: {usage.total_tokens} tokens not recorded"
        elif recorded is not None and recorded != usage:
            yield f"{run}: recorded {recorded.total_tokens}, reported {usage.total_tokens}"
    for run in ledger.recorded.keys() - reported.keys():
        yield f"{run}: recorded, and never reported"
    for run in ledger.recorded.keys() & ledger.unknown:
        yield f"{run}: recorded, and said to be unknown"
    of_unknown = sum(usage.total_tokens for run, usage in reported.items() if run in ledger.unknown)
    if ledger.tokens + of_unknown != openai.reported.total_tokens:
        yield (
            f"recorded {ledger.tokens} + unknown {of_unknown} is not the "
            f"{openai.reported.total_tokens} that OpenAI reports"
        )


# -- the log ---------------------------------------------------------------------------------------


def log_faults(events: Iterable[Recorded], *, head: int) -> Iterator[str]:
    """Yield what is wrong with a log read from its start: gaps, disorder, appends torn apart."""
    versions: dict[str, int] = {}
    seen: set[AppendId] = set()
    position, last_at, open_append = 0, 0, AppendId(b"")
    for event in events:
        position += 1
        if event.position != position:
            yield f"position {event.position} follows {position - 1}"
            position = event.position
        version = versions.get(event.stream, 0) + 1
        if event.version != version:
            yield f"{event.stream}: version {event.version} follows {version - 1}"
        versions[event.stream] = event.version
        if event.append_id != open_append:
            if event.append_id in seen:
                yield f"position {event.position}: its append was interrupted by another"
            if event.recorded_at <= last_at:
                yield f"position {event.position}: recorded no later than the append before"
            open_append = event.append_id
            seen.add(event.append_id)
        elif event.recorded_at != last_at:
            yield f"position {event.position}: one append has two times"
        last_at = event.recorded_at
    if position != head:
        yield f"the head says {head}, and the last event is at {position}"


# -- the files -------------------------------------------------------------------------------------


def readable(content: bytes, *, phones: frozenset[str], words: Sequence[str]) -> Iterator[str]:
    """Yield what personal data can be read in a file's raw bytes: one of each kind is enough."""
    found = _REFERENCE_BYTES.search(content)
    if found:
        yield f"a text ({found[0].decode()})"
    number = next((n for n in _NUMBER_BYTES.findall(content) if n.decode() in phones), None)
    if number:
        yield f"a phone number ({number.decode()})"
    named = _ID_BYTES.search(content)
    if named:
        yield f"a message id of the gateway ({named[0].decode()})"
    for word in words:
        if word.encode() in content:
            yield f"{word!r}"


def rebuild_differences(live: Dump, rebuilt: Dump) -> Iterator[str]:
    """Yield how the read models that followed live differ from those rebuilt from the log."""
    if not live:
        yield "there are no read models"
    for table in sorted({*live, *rebuilt}):
        if table not in live or table not in rebuilt:
            yield f"{table} is only in the {'live' if table in live else 'rebuilt'} views"
            continue
        before, after = live[table], rebuilt[table]
        if len(before) != len(after):
            yield f"{table}: {len(before)} rows live, {len(after)} rebuilt"
        elif before != after:
            count = sum(a != b for a, b in zip(before, after, strict=True))
            yield f"{table}: {count} of {len(before)} rows differ"
