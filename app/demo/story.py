"""The demo told: progress while it runs, then what happened and the verdict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from app.calling import called
from app.demo.judge import Evidence, Verdict
from app.demo.reset import Reset
from app.demo.timeline import KILLED, Death, Line
from app.demo.traffic import Deed, Plan

_WIDTH: Final = 100
_FOUND_TOLD: Final = 5
_SPECIALS: Final[dict[Deed, str]] = {
    "image": "pictures",
    "voice": "voice notes",
    "edit": "edited",
    "delete": "taken back",
    "unknown": "of an unknown kind",
    "system": "system noise",
    "agent": "by a human agent",
    "group": "in a group",
}


class Kill(msgspec.Struct):
    """A server's death: whose, when, and what was going on."""

    node: str
    at: int
    """µs since 1970."""
    sent: int
    """Messages that people had written."""
    running: int
    """Answers in the making."""
    down_seconds: float = 0.0


class Course(msgspec.Struct):
    """What happened while the demo ran, as far as the accounts do not say."""

    users: int
    started_at: float
    nodes: int = 1
    seconds: float = 0.0
    explicit_duplicates: int = 0
    restarts: int = 0
    kills: list[Kill] = []
    reset: Reset | None = None
    """A thread's reset, asked for as of before and after it."""

    @property
    def killed_at(self) -> int:
        """When the first was killed, µs since 1970; 0: nobody was."""
        return self.kills[0].at if self.kills else 0

    @property
    def deaths(self) -> tuple[Death, ...]:
        """Every kill, for a timeline."""
        several = self.nodes > 1
        return tuple(Death(kill.at, kill.node if several else "") for kill in self.kills)


class Numbers(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    users: int
    messages: int
    duplicates_sent: int
    replies: int
    lost: int
    answered_twice: int
    uncertain: int
    events: int
    tokens_recorded: int
    usage_unknown_runs: int
    tokens_reported: int
    rebuild_equal: bool
    restarts: int
    nodes: int
    kills: int
    takeovers: int
    seconds: float
    reset: Reset | None
    broken: tuple[str, ...]


def numbers_of(evidence: Evidence, verdict: Verdict, course: Course) -> Numbers:
    """Return the demo in numbers."""
    return Numbers(
        users=course.users,
        messages=evidence.plan.messages,
        duplicates_sent=evidence.whapi.duplicates_sent + course.explicit_duplicates,
        replies=sum(map(len, evidence.whapi.chats.values())),
        lost=verdict.lost,
        answered_twice=verdict.answered_twice,
        uncertain=verdict.uncertain,
        events=evidence.ledger.events,
        tokens_recorded=evidence.ledger.tokens,
        usage_unknown_runs=len(evidence.ledger.unknown),
        tokens_reported=evidence.openai.reported.total_tokens,
        rebuild_equal=verdict.rebuild_equal,
        restarts=course.restarts,
        nodes=course.nodes,
        kills=len(course.kills),
        takeovers=evidence.ledger.takeovers,
        seconds=round(course.seconds, 1),
        reset=course.reset,
        broken=tuple(promise.name for promise in verdict.broken),
    )


class Show:
    """Progress on stderr: bars on a terminal, one line a step anywhere else."""

    def __init__(self, plan: Plan) -> None:
        """Show nothing yet."""
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._sent = self._progress.add_task("messages", total=plan.messages)
        self._answered = self._progress.add_task("replies", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, text: str) -> None:
        """Say what begins now."""
        self._console.print(Text.assemble(("▸ ", "bold cyan"), text))

    def sent(self, count: int) -> None:
        """Say how many messages were written."""
        self._progress.update(self._sent, completed=count)

    def answered(self, count: int) -> None:
        """Say how many replies the phones show."""
        self._progress.update(self._answered, completed=count)

    def complain(self, verdict: Verdict, directory: Path | None) -> None:
        """Name on stderr what was broken."""
        for promise in verdict.broken:
            self._console.print(_against(promise.name, promise.found))
        if directory is not None:
            self._console.print(f"The files are in {directory}", soft_wrap=True)


def tell(
    evidence: Evidence,
    verdict: Verdict,
    course: Course,
    timeline: Sequence[Line],
    directory: Path | None,
) -> None:
    """Print what happened, and the verdict."""
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print()
    console.print(_story(evidence, course))
    console.print()
    console.print(_table(evidence, verdict, course))
    if timeline:
        console.print()
        console.print(_timeline(timeline))
    if course.reset is not None:
        console.print()
        console.print(_reset(course.reset))
    console.print()
    for promise in verdict.promises:
        mark = ("✓ ", "bold green") if promise.kept else ("✗ ", "bold red")
        console.print(Text.assemble(mark, promise.name))
        if not promise.kept:
            console.print(_against("", promise.found))
    console.print()
    if verdict.broken:
        console.print(Text(f"{len(verdict.broken)} promises were broken.", style="bold red"))
    else:
        console.print(Text("Every promise was kept.", style="bold green"))
    if directory is not None:
        console.print(f"The files are in {directory}", soft_wrap=True)
    if directory is not None and course.nodes == 1:
        console.print(
            f"Look around: {called()} log show {evidence.plan.scripts[0].person.phone} --open "
            f"--data {directory / 'data'}",
            soft_wrap=True,
        )


def _story(evidence: Evidence, course: Course) -> Text:
    whapi = evidence.whapi.webhooks
    missed = whapi.refused + whapi.unreachable
    return Text(
        f"{course.users} people wrote {evidence.plan.messages} messages to a bot. "
        f"{_deaths(course)} Meanwhile the gateway knocked in vain {missed} times, and came back. "
        "Then everything was compared: what the phones show, what OpenAI reports, and what the log "
        "says."
    )


def _deaths(course: Course) -> str:
    if course.nodes == 1 and course.kills:
        kill = course.kills[0]
        return (
            f"After {kill.sent} of them, with {kill.running} answers in the making, the server "
            f"was killed with -9 and started again; it was gone for {kill.down_seconds:.1f} s."
        )
    told = "; ".join(
        f"{kill.node} after {kill.sent} messages, gone for {kill.down_seconds:.1f} s"
        for kill in course.kills
    )
    return (
        f"{course.nodes} nodes on one PostgreSQL shared the work, and each was killed with -9 and "
        f"started again: {told}."
    )


def _table(evidence: Evidence, verdict: Verdict, course: Course) -> Table:
    numbers = numbers_of(evidence, verdict, course)
    plan, ledger, webhooks = evidence.plan, evidence.ledger, evidence.whapi.webhooks
    specials = " · ".join(f"{word} {plan.deeds(deed)}" for deed, word in _SPECIALS.items())
    reported = numbers.tokens_reported
    found = f"{ledger.adopted} of these found there after a send without an answer"
    open_runs = (
        f"of those open at the kill {ledger.resumed(course.killed_at)} had their answer fetched, "
        f"{len(ledger.orphans)} were run again"
    )
    rows: tuple[tuple[str, str, str], ...] = (
        ("messages", f"{numbers.messages:,}", "that want an answer"),
        ("", "", specials),
        ("duplicates", f"{numbers.duplicates_sent:,}", "delivered once more by the gateway"),
        ("webhooks", f"{webhooks.delivered:,}", "acknowledged, presences and statuses included"),
        ("replies", f"{numbers.replies:,}", f"on the phones, {ledger.sent:,} in the log; {found}"),
        ("lost", str(numbers.lost), "messages without an answer"),
        ("answered twice", str(numbers.answered_twice), "messages"),
        ("uncertain", str(numbers.uncertain), "parts of which nobody knows if they were sent"),
        ("runs", f"{len(ledger.attempts):,}", open_runs),
        *_of_nodes(evidence, course),
        ("tokens", f"{numbers.tokens_recorded:,}", f"recorded, of {reported:,} reported"),
        ("", str(numbers.usage_unknown_runs), "runs of which the log says: usage unknown"),
        ("events", f"{numbers.events:,}", "in the log"),
        ("rebuild", "equal" if numbers.rebuild_equal else "DIFFERENT", "read models"),
        ("took", f"{numbers.seconds:.1f} s", ""),
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _of_nodes(evidence: Evidence, course: Course) -> tuple[tuple[str, str, str], ...]:
    if course.nodes == 1:
        return ()
    taken = f"{evidence.ledger.takeovers:,}"
    return (("taken over", taken, "turns of a dead node that another one went on with"),)


def _timeline(lines: Sequence[Line]) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        show_header=False,
        title="One person's stream, as the log has it",
        title_justify="left",
        title_style="bold",
    )
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        style = "bold red" if line.text.startswith(KILLED) else ""
        table.add_row(f"{line.seconds:.3f} s", line.kind, Text(line.text, style=style))
    return table


def _reset(reset: Reset) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        show_header=False,
        title=f"One thread, asked for as of two moments: OpenAI had lost it ({reset.reason})",
        title_justify="left",
        title_style="bold",
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(style="cyan", overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for name, thread in (("before", reset.before), ("after", reset.after)):
        as_of = f"{name}, --as-of {thread.position}"
        table.add_row(as_of, thread.id or "no thread", f"{thread.tokens:,} tokens")
    return table


def _against(name: str, found: Sequence[str]) -> Text:
    told = [f"    {fault}" for fault in found[:_FOUND_TOLD]]
    if len(found) > _FOUND_TOLD:
        told.append(f"    … and {len(found) - _FOUND_TOLD} more")
    head = [f"broken: {name}"] if name else []
    return Text("\n".join([*head, *told]), style="red")
