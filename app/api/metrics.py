"""What each number of `/metrics` is, in the text format of Prometheus (version 0.0.4).

The parts of a node give numbers by name. Here each name has its type and a sentence that says what
is counted, and in what: a counter only rises, and starts again at 0 with the process; a gauge is as
it is now. Names begin with `hilo_`, and those of counters end with `_total`:
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4"


class Numbers(NamedTuple):
    """What `/metrics` shows: numbers of the node, and of each bot by its name."""

    node: dict[str, float]
    bots: dict[str, dict[str, float]]


class Meaning(NamedTuple):
    """What a number is."""

    type: Literal["counter", "gauge"]
    help: str


def _counter(text: str) -> Meaning:
    return Meaning("counter", f"{text}, since the process started.")


def _gauge(text: str) -> Meaning:
    return Meaning("gauge", f"{text}.")


WEBHOOKS: Final = {
    "received": "answered 200: everything in them is durable",
    "disconnected": "whose client went away before their body had come",
    "unauthentic_webhook": "answered 401: the secret is missing or wrong",
    "no_such_webhook": "answered 404: there is no such path",
    "unknown_channel": "answered 404: no bot serves their channel",
    "method_not_allowed": "answered 405: not POST, PUT, PATCH or DELETE",
    "body_too_large": "answered 413: the body is larger than HILO_MAX_BODY",
    "too_many_items": "answered 413: the body holds too many items",
    "unreadable_webhook": "answered 400: the body is not JSON, or not an object",
    "unexpected": "answered 500: see WEBHOOK_ERROR in the technical log",
    "log_unavailable": "answered 503: the log or the keys could not be written, or took too long",
}
"""Webhooks by what became of them: `webhooks_OUTCOME` of the node."""

FACTS: Final = {
    "message_person": "Messages of people recorded",
    "message_human": "Messages recorded that somebody wrote from the bot's own phone or web",
    "message_bot": "Messages recorded that are echoes of the bot's own sends",
    "edit": "Edits of messages recorded",
    "delete": "Deletions of messages taken",
    "status": "Statuses of sent messages recorded",
    "presence": "Presences taken (most are not recorded)",
    "other": "Items recorded that belong to no person, or that nobody knows (OtherRecorded)",
    "rejected": "Items that could not be read, kept as they came (WebhookItemRejected)",
    "duplicate": "Items that the log had already",
}
"""Items of webhooks by what became of them: `facts_OUTCOME` of a bot."""

CLAIMS: Final = {
    "claims_won": "Turns that this node claimed",
    "claims_lost": "Turns that another node claimed first",
    "takeovers_won": "Turns left behind that this node took over",
    "takeovers_lost": "Turns left behind that another node took over first",
}
"""What became of attempts to claim a turn: numbers of a bot."""

REFUSALS: Final = {
    "no_key": "without a key",
    "wrong_key": "with a key that is not good",
    "too_often": "of a key that asks too often",
    "no_right": "of a key whose role may not ask that",
}
"""Requests that were not let in: `refused_REASON` of the node."""

CONNECTIONS: Final = {
    "head": "its head did not come in HILO_HEAD_SECONDS",
    "body": "its body did not come in HILO_BODY_SECONDS",
    "answer": "the client took nothing of its answer",
    "room": "others needed its place, and it had been waited for longest",
    "refused": "all HILO_CONNECTIONS were at work",
}
"""Connections that were ended: `connections_given_up_REASON` of the node."""

MEANINGS: Final = {
    **{f"webhooks_{name}": _counter(f"Webhooks {text}") for name, text in WEBHOOKS.items()},
    **{f"facts_{name}": _counter(text) for name, text in FACTS.items()},
    **{name: _counter(text) for name, text in CLAIMS.items()},
    **{f"refused_{name}": _counter(f"Requests refused {text}") for name, text in REFUSALS.items()},
    **{
        f"connections_given_up_{name}": _counter(f"Connections ended because {text}")
        for name, text in CONNECTIONS.items()
    },
    "connections_open": _gauge("Connections open at the last look, at most 2.5 s ago"),
    "bots_open": _gauge("Bots of this node that are open"),
    "logs_gone_back": _counter("Times that the log of a bot lost what this node had seen of it"),
    "appends_waiting": _gauge("Appends that are not durable yet"),
    "log_writer_restarts": _counter("Times that the process that writes the log was replaced"),
    "turns_waiting": _gauge("People who are owed something that nothing here is at work on"),
    "turns_running": _gauge("Turns that this node is at work on"),
    "open_streams": _gauge("People of whom something is left to be done"),
    "activities_waiting": _gauge("People whose last activity is still to be recorded"),
    "activities_recorded": _counter("Records of last activity that were made"),
    "nodes_alive": _gauge("Nodes that live, this one included"),
    "node_may_work": _gauge("1 while the others must think that this node lives, else 0"),
    "clock_skew_seconds": _gauge("Seconds that this machine's clock is before the store's"),
    "profiles_waiting": _gauge("People whose name and labels are to be read again"),
    "profiles_failed": _counter("Attempts to read a name and labels that failed"),
    "keys_failing": _gauge("1 while no key can be made, and new people get 503, else 0"),
    "keys_failures": _counter("People who got no key, counted each time"),
    "identity_clashes": _counter("Times that a phone and a lid led to two different people"),
    "read_models_restarts": _counter("Times that the process of the read models was replaced"),
    "read_models_visible_seconds": _gauge(
        "Seconds from the commit of the last batch's last event until it could be read"
    ),
    "reads_waiting": _gauge("Reads of the API that wait for their min_position"),
    "reads_refused": _counter("Reads answered 503 because too many waited for their min_position"),
    "thread_files_age_seconds": _gauge("Seconds since the thread files were written"),
    "thread_files_people": _gauge("People in the thread files"),
    "thread_files_writings": _counter("Times that the thread files were written"),
    "thread_files_failures": _counter("Times that the thread files could not be written"),
    "thread_files_failing": _gauge("1 if the last writing of the thread files failed, else 0"),
}

_CACHES: Final = {
    "size": _gauge("Items that the map {} holds"),
    "limit": _gauge("Most items that the map {} may hold; 0: it is bounded otherwise"),
    "ttl_seconds": _gauge("Seconds after which unused items leave the map {}; 0: never"),
    "hits": _counter("Look-ups in the map {} that found their item"),
    "misses": _counter("Look-ups in the map {} that did not find their item"),
    "evictions": _counter("Items that left the map {} to make room"),
    "expirations": _counter("Items that left the map {} because of their age"),
    "access_seconds": _gauge("Seconds that a look-up in the map {} takes on average; 0: unknown"),
}
_MODELS: Final = {
    "lag_events": _gauge("Events of the log that the read model {} does not reflect yet"),
    "stopped": _gauge("1 while the read model {} is parked or paused, else 0"),
}
_OF_A_CACHE: Final = re.compile(rf"cache_(?P<whose>\w+?)_(?P<figure>{'|'.join(_CACHES)})", re.ASCII)
_OF_A_MODEL: Final = re.compile(
    rf"read_model_(?P<figure>{'|'.join(_MODELS)})_(?P<whose>\w+)", re.ASCII
)


def meaning(name: str) -> Meaning | None:
    """Return what the number of a name is; None if nobody has said it."""
    known = MEANINGS.get(name)
    if known is not None:
        return known
    for form, figures in ((_OF_A_CACHE, _CACHES), (_OF_A_MODEL, _MODELS)):
        if found := form.fullmatch(name):
            kind, text = figures[found["figure"]]
            return Meaning(kind, text.format(found["whose"]))
    return None


class Metrics(Collector):
    """All numbers of a node, asked for anew each time."""

    def __init__(self, numbers: Callable[[], Numbers]) -> None:
        """Show what `numbers` returns, which is called at each request and never waits."""
        self._numbers = numbers
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the page for Prometheus, of `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Any]:
        """Give a family for each name: the registry's interface."""
        node, bots = self._numbers()
        for name, value in sorted(node.items()):
            family = _family(name, ())
            family.add_metric([], value)
            yield family
        for name in sorted({name for numbers in bots.values() for name in numbers}):
            family = _family(name, ("bot",))
            for bot, numbers in bots.items():
                if name in numbers:
                    family.add_metric([bot], numbers[name])
            yield family


def _family(name: str, labels: tuple[str, ...]) -> CounterMetricFamily | GaugeMetricFamily:
    kind, text = meaning(name) or Meaning("gauge", "Not described.")
    family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    return family(f"hilo_{name}", text, labels=labels)
