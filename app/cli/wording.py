"""What each event says to a person: a short clause, in the words that a reader would use.

It takes the event's fields as `app.cli.recorded` shows them: opened, or marked as sealed. Nothing
is lost by it: `--raw` and `--json` show every field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.cli.output import safe, when
from app.projections.presenting import veiled

Fields = dict[str, object]
_MOST_KEPT: Final = 500
"""Bytes of what a webhook brought that are shown on a line; `--json` has all of it."""


def worded(event_type: str, fields: Fields) -> str | None:
    """Return what an event of this type says; None for a type that has no words of its own."""
    words = _WORDS.get(event_type)
    return None if words is None else words(fields)


def _quoted(value: object, name: str) -> str:
    """Return one text of a sealed field, in quotation marks."""
    hidden = veiled(value)
    if hidden is not None:
        return hidden
    text = value.get(name) if isinstance(value, dict) else value
    lines = text if isinstance(text, list) else [text]
    return " / ".join(f"“{safe(str(line))}”" for line in lines if line)


def _written(fields: Fields) -> str:
    return _quoted(fields["content"], "text") or "no text"


def _kept(fields: Fields) -> str:
    """Show what a webhook brought, as it came; its beginning, if it is long."""
    body = fields["body"]
    if not isinstance(body, bytes):
        return veiled(body) or "nothing"
    text = safe(body[:_MOST_KEPT].decode(errors="replace"))
    return f"{text}…" if len(body) > _MOST_KEPT else text


def _received(fields: Fields) -> str:
    ending = "" if fields["answerable"] else " (recorded, not answered)"
    return f"{_came(fields, 'person')}{ending}"


def _imported(fields: Fields) -> str:
    of = _of_before(fields) or "imported: "
    return f"{of}{_came(fields, fields['sender'])}"


def _came(fields: Fields, sender: object) -> str:
    """Say who sent what; nobody sent what WhatsApp itself says in a chat."""
    kind = str(fields["kind"])
    if kind == "system":
        return f"WhatsApp noted: {_written(fields)}"
    noun = _NOUNS.get(kind, _plain(kind))
    return f"the {sender} sent {_article(noun)} {noun}: {_written(fields)}"


_NOUNS: Final = {
    "audio": "audio message",
    "gif": "GIF",
    "media": "file",  # an export that leaves files out does not tell their kind
    "unknown": "message of unknown kind",
    "voice": "voice message",
}
"""Kinds of messages that no sentence takes as they are."""


def _of_before(fields: Fields) -> str:
    """Say of which time an event is that an import has told; nothing of one that Hilo saw itself.

    Only for types whose `at` nobody but an import gives; 0: the file tells no time.
    """
    at = fields["at"]
    if not isinstance(at, int):
        return ""
    return f"imported of {when(at)}: " if at else "imported: "


def _started(fields: Fields) -> str:
    of = _of_before(fields)
    return f"{of}a {'' if of else 'new '}conversation at OpenAI ({_plain(fields['reason'])})"


def _left(fields: Fields) -> str:
    left = f"the conversation was left ({_plain(fields['reason'])})"
    return f"{_of_before(fields)}{left}, {fields['left_behind']} tokens with it"


def _active(fields: Fields) -> str:
    of = "imported: " if _of_before(fields) else ""  # its time is the activity's
    return f"{of}last active {when(fields['last_activity'])}, {fields['tokens']} tokens"


def _article(noun: str) -> str:
    return "an" if noun[:1] in set("aeiou") else "a"


def _early(fields: Fields) -> str:
    return " that had not arrived yet" if fields["early"] else ""


def _again(fields: Fields, otherwise: str) -> str:
    """Say when something is tried again."""
    at = fields["retry_at"]
    return f"; again at {when(at)}" if isinstance(at, int) else otherwise


def _part(fields: Fields) -> str:
    part = fields["part"]
    return f"part {part + 1 if isinstance(part, int) else part}"


def _attempt(fields: Fields) -> str:
    return "" if fields["attempt"] == 1 else f", attempt {fields['attempt']}"


def _plain(value: object) -> str:
    return str(value).replace("_", " ")


def _completed(fields: Fields) -> str:
    parts = "" if fields["parts"] == 1 else f" in {fields['parts']} parts"
    return f"the answer is here{parts}: {_quoted(fields['reply'], 'parts')}"


def _tokens(fields: Fields) -> str:
    cached = f" ({fields['cached']} cached)" if fields["cached"] else ""
    model = f", {fields['model']}" if fields["model"] else ""
    counted = f"{fields['input']} in{cached} + {fields['output']} out"
    return f"it cost {fields['total']} tokens: {counted}{model}"


def _sent(fields: Fields) -> str:
    found = f", found by its {fields['adopted']}" if fields["adopted"] else ""
    return f"WhatsApp took {_part(fields)} of the answer{found}"


def _profile(fields: Fields) -> str:
    profile = fields["profile"]
    name = _quoted(profile, "name") or _quoted(profile, "user_name")
    return f"{_of_before(fields)}name or labels are now {name or 'empty'}"


def _operator(fields: Fields, done: str) -> str:
    why = f": {safe(str(fields['why']))}" if fields["why"] else ""
    return f"{safe(str(fields['by']))} {done}{why}"


_WORDS: Final[dict[str, Callable[[Fields], str]]] = {
    "UserRegistered": lambda f: f"a new person, over {f['gateway']}",
    "ProfileUpdated": _profile,
    "MessageReceived": _received,
    "MessageEdited": lambda f: f"the person changed a message{_early(f)}: {_written(f)}",
    "MessageDeleted": lambda f: f"the person took back a message{_early(f)}",
    "TypingObserved": lambda f: f"the person is {f['presence']}",
    "HumanMessageSent": lambda f: f"a colleague wrote from the phone: {_written(f)}",
    "MessageImported": _imported,
    "MessageEchoed": lambda f: f"WhatsApp shows what the bot sent: {_written(f)}",
    "MessageStatusChanged": lambda f: f"the bot's message: {f['status']}",
    "ThreadStarted": _started,
    "ThreadReset": _left,
    "RunStarted": lambda f: f"the bot begins to answer{_attempt(f)}",
    "TurnTakenOver": lambda f: f"the node that was at it is gone: {f['node']} goes on",
    "RunSubmitted": lambda _: "OpenAI works on the answer",
    "RunCompleted": _completed,
    "RunFailed": lambda f: f"no answer: {f['code']}{_again(f, '')}",
    "RunCancelled": lambda f: f"stopped before an answer ({_plain(f['reason'])}){_again(f, '')}",
    "TokensIncremented": _tokens,
    "UsageUnknown": lambda _: "nobody can say what this run cost",
    "DeliveryStarted": lambda f: f"sending {_part(f)} of the answer{_attempt(f)}",
    "MessageSent": _sent,
    "DeliveryFailed": lambda f: f"{_part(f)} was not sent: {f['code']}{_again(f, '; given up')}",
    "DeliveryUncertain": lambda f: f"nobody can say whether {_part(f)} was sent: not sent again",
    "TurnParked": lambda f: (
        f"given up after {f['attempts']} attempts ({f['reason']}): see hilo turns list"
    ),
    "TurnRetried": lambda f: _operator(f, "made the turn due again"),
    "TurnDropped": lambda f: _operator(f, "closed the turn without an answer"),
    "ActivityRecorded": _active,
    "OtherRecorded": lambda f: f"something else came ({f['kind']}): {_kept(f)}",
    "WebhookItemRejected": lambda f: f"could not be read ({f['reason']}): {_kept(f)}",
    "EarlyDelete": lambda _: "a message was taken back that had not arrived yet",
    "JobRequested": lambda f: f"{f['by']} asked for a run",
    "JobStarted": lambda f: f"{f['node']} begins, due {when(f['slot'])}{_attempt(f)}",
    "JobEnded": lambda f: f"done: {f['result']}",
    "JobFailed": lambda f: f"failed: {f['code']}",
    "JobGivenUp": lambda f: f"given up: {f['attempts']} nodes died at it",
    "EarlyDeleteApplied": lambda _: "that message arrived, and was taken back",
    "CleanupRecorded": lambda f: (
        f"the clean-up left {f['cleaned']} threads of {f['limit']} tokens or more: "
        f"{f['tokens']} tokens"
    ),
}
