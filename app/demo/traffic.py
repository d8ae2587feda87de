"""What the people of the demo do: a plan made from a seed, nothing but values.

Every text carries a reference that occurs nowhere else, so that a judge can follow it from the
phone to the model and back.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias

import msgspec

FIRST_PHONE: Final = 15_550_200_000
REFERENCE: Final = re.compile(r"ref-[a-z2-7]{10}")

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_LONGEST_BURST: Final = 3
_LONGEST_PAUSE: Final = 0.3
_LATEST_BEGIN: Final = 4.0
_FIRST_NAMES: Final = ("Alba", "Bruno", "Clara", "Diego", "Elisa", "Fabio", "Gema", "Hugo", "Inés")
SURNAMES: Final = (
    "Ficticia",
    "Inventado",
    "Imaginaria",
    "Supuesto",
    "Quimérica",
    "Soñador",
    "Fabulosa",
)
SENTENCES: Final = (
    "Hola, ¿a qué hora abrís mañana?",
    "Quería saber si ha llegado mi pedido",
    "¿Tenéis mesa para dos esta noche?",
    "Necesito cambiar la dirección de envío",
    "¿Cuánto cuesta el plan familiar?",
    "Se me olvidó deciros que soy alérgico",
    "¿Podéis llamarme por la tarde?",
    "Gracias, y una cosa más",
    "El enlace de ayer no me funciona",
    "¿Hay aparcamiento cerca del local?",
)

Deed: TypeAlias = Literal[
    "say",  # a text
    "image",  # a picture with a caption
    "voice",  # a voice note with a caption
    "typing",  # the bot's gateway sees that the person is typing
    "edit",  # a message of before gets another text, and keeps its reference
    "delete",  # a message of before is taken back
    "repeat",  # the gateway delivers a message of before once more
    "agent",  # a human answers from the bot's own phone
    "group",  # the person writes in a group that the bot is in
    "unknown",  # a kind of message that no release has seen
    "system",  # WhatsApp's own noise
]
Expect: TypeAlias = Literal["answer", "maybe", "silence"]


class Person(msgspec.Struct, frozen=True):
    """Somebody who writes to the bot."""

    phone: str
    name: str


class Step(msgspec.Struct, frozen=True):
    """One thing that a person does."""

    deed: Deed
    reference: str = ""
    """Of the message that is made; of an earlier one for an edit, a delete and a repeat."""
    text: str = ""
    expect: Expect = "silence"
    """`maybe`: it is taken back at once, and the bot may have been faster."""
    form: str = ""
    """As which of Whapi's events an edit or a delete arrives."""


Burst: TypeAlias = tuple[Step, ...]


class Script(msgspec.Struct, frozen=True):
    """What one person does: bursts of steps, with an answer awaited after each burst."""

    person: Person
    bursts: tuple[Burst, ...]
    pauses: tuple[float, ...]
    """Seconds before each burst: people do not all write at once."""

    def steps(self) -> Iterator[Step]:
        """Yield every step, in order."""
        for burst in self.bursts:
            yield from burst


class Plan(msgspec.Struct, frozen=True):
    """What everybody does."""

    scripts: tuple[Script, ...]

    @property
    def messages(self) -> int:
        """How many messages want an answer."""
        return len(self.expecting("answer"))

    def expecting(self, expect: Expect) -> dict[str, str]:
        """Return the phone of each reference of which so much is expected."""
        return {
            step.reference: script.person.phone
            for script in self.scripts
            for step in script.steps()
            if step.expect == expect and step.deed in _MAKING
        }

    def deeds(self, deed: Deed) -> int:
        """How often something is done."""
        return sum(step.deed == deed for script in self.scripts for step in script.steps())


_MAKING: Final = frozenset({"say", "image", "voice", "agent", "group", "unknown", "system"})


def plan(*, users: int, messages: int, seed: int) -> Plan:
    """Return what `users` people do, each with `messages` messages that want an answer.

    Whoever they are, everything in `SPECIALS` happens at least once.
    """
    rng = random.Random(seed)  # noqa: S311 - a plan is to be repeatable
    drafts = [_Draft(rng, index, users, messages) for index in range(users)]
    for index in range(max(users, len(SPECIALS))):
        SPECIALS[index % len(SPECIALS)](drafts[index % users])
    return Plan(tuple(draft.script() for draft in drafts))


class _Draft:
    """A script in the making."""

    def __init__(self, rng: random.Random, index: int, users: int, messages: int) -> None:
        self.rng = rng
        self._person = Person(
            phone=str(FIRST_PHONE + index),
            name=f"{rng.choice(_FIRST_NAMES)} {rng.choice(SURNAMES)}",
        )
        self._begins = rng.uniform(0, min(users * 0.05, _LATEST_BEGIN))
        self.bursts: list[list[Step]] = []
        while messages:
            size = min(messages, rng.randint(1, _LONGEST_BURST))
            self.bursts.append([self.message("say") for _ in range(size)])
            messages -= size

    def script(self) -> Script:
        pauses = [self.rng.uniform(0, _LONGEST_PAUSE) for _ in self.bursts]
        pauses[0] += self._begins
        return Script(self._person, tuple(map(tuple, self.bursts)), tuple(pauses))

    def message(self, deed: Deed, expect: Expect = "answer") -> Step:
        reference = "ref-" + "".join(self.rng.choices(_ALPHABET, k=10))
        return Step(deed, reference, f"{self.rng.choice(SENTENCES)} ({reference})", expect)

    def burst(self) -> list[Step]:
        return self.rng.choice(self.bursts)

    def place_of_text(self) -> tuple[list[Step], int]:
        """Return a burst and the place in it of a plain text that wants an answer."""
        places = [
            (burst, place)
            for burst in self.bursts
            for place, step in enumerate(burst)
            if step.deed == "say" and step.expect == "answer"
        ]
        if places:
            return self.rng.choice(places)
        # Everything this person says is a picture or a voice note already: it may be those.
        return self.bursts[0], 0


def _type(draft: _Draft) -> None:
    draft.burst().insert(0, Step("typing"))
    draft.burst().append(Step("typing"))


def _repeat(draft: _Draft) -> None:
    burst, place = draft.place_of_text()
    reference = burst[place].reference
    burst.insert(place + 1, Step("repeat", reference))
    draft.bursts[-1].append(Step("repeat", reference))


def _edit(draft: _Draft) -> None:
    burst, place = draft.place_of_text()
    step = burst[place]
    form = draft.rng.choice(("patch", "put", "action"))
    text = f"{step.text} (corregido)"
    burst.insert(place + 1, Step("edit", step.reference, text, form=form))


def _delete(draft: _Draft) -> None:
    taken_back = draft.message("say", "maybe")
    form = draft.rng.choice(("delete", "action"))
    draft.burst().extend((taken_back, Step("delete", taken_back.reference, form=form)))


def _image(draft: _Draft) -> None:
    burst, place = draft.place_of_text()
    burst[place] = msgspec.structs.replace(burst[place], deed="image")


def _voice(draft: _Draft) -> None:
    burst, place = draft.place_of_text()
    burst[place] = msgspec.structs.replace(burst[place], deed="voice")


def _unknown(draft: _Draft) -> None:
    draft.burst().append(draft.message("unknown", "silence"))


def _system(draft: _Draft) -> None:
    draft.burst().insert(0, draft.message("system", "silence"))


def _agent(draft: _Draft) -> None:
    draft.bursts[-1].append(draft.message("agent", "silence"))


def _group(draft: _Draft) -> None:
    draft.burst().append(draft.message("group", "silence"))


SPECIALS: Final[tuple[Callable[[_Draft], None], ...]] = (
    _repeat,
    _edit,
    _image,
    _delete,
    _voice,
    _unknown,
    _type,
    _system,
    _agent,
    _group,
)
"""What happens besides plain texts; each person does one of these, in turn."""
