"""`hilo chat`: through a pipe and from a terminal, and what it says when there is nobody there."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from app.chatting import NobodyThere, run
from app.settings import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
CTRL_D = b"\x04"
QUICK = {"HILO_PORT": "0", "HILO_QUIET_SECONDS": "0.2", "HILO_RUN_SECONDS": "5"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory in which `hilo serve` runs, with its own simulators."""
    directory = tmp_path_factory.mktemp("house")
    with served(directory):
        yield directory


@contextmanager
def served(directory: Path, **settings: str) -> Iterator[None]:
    """`hilo serve` in that directory, which may be killed meanwhile."""
    command = [sys.executable, "-m", "app.cli", "serve"]
    with (directory / "errors.txt").open("wb") as errors:
        server = subprocess.Popen(
            command,
            cwd=directory,
            env=environment() | settings,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert server.stdout is not None
    try:
        greeting = server.stdout.readline()  # said once the address is written; "" if it died
        assert b"serves bot" in greeting, (directory / "errors.txt").read_text()
        yield
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert "Traceback" not in (directory / "errors.txt").read_text()


def environment() -> dict[str, str]:
    return {**os.environ, **QUICK, "PYTHONPATH": str(Path.cwd())}


def chat(house: Path, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "chat", *arguments],
        cwd=house,
        env=environment(),
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def kill_the_server(house: Path) -> None:
    os.kill(json.loads((house / "data" / "serve.json").read_bytes())["pid"], signal.SIGKILL)


def simulators_of(house: Path) -> psutil.Process:
    """The process that simulates OpenAI and WhatsApp under the server of that directory."""
    pid = json.loads((house / "data" / "serve.json").read_bytes())["pid"]
    (found,) = [p for p in psutil.Process(pid).children() if "app.simulators" in p.cmdline()]
    return found


def test_what_is_piped_in_is_answered_on_stdout(house: Path) -> None:
    done = chat(house, "hola\n", "--phone", "15550100011")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Eco: hola\n", "")


def test_all_lines_are_answered_before_it_ends_even_without_a_last_newline(house: Path) -> None:
    done = chat(house, "uno\n\ndos\ntres", "--phone", "15550100012")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("uno", "dos", "tres"))


def test_what_was_said_before_is_not_shown_again(house: Path) -> None:
    chat(house, "primera\n", "--phone", "15550100013")
    done = chat(house, "segunda\n", "--phone", "15550100013")
    assert done.stdout == "Eco: segunda\n"


def test_no_input_is_no_message(house: Path) -> None:
    done = chat(house, "", "--phone", "15550100014")
    assert (done.returncode, done.stdout) == (0, "")


@contextmanager
def terminal_of(house: Path, phone: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A terminal, and the chat that runs in it."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "app.cli", "chat", "--phone", phone]
    process = subprocess.Popen(
        command, cwd=house, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@contextmanager
def on_a_terminal(house: Path, phone: str) -> Iterator[int]:
    """A terminal in which somebody chats; at the end they press Ctrl-D, and are let go."""
    with terminal_of(house, phone) as (terminal, process):
        yield terminal
        os.write(terminal, CTRL_D)
        assert process.wait(20) == 0


def echoed(terminal: int, words: str) -> str:
    """Say something, and return what is shown until it is answered."""
    os.write(terminal, f"{words}\n".encode())
    return read_until(terminal, f"bot: Eco: {words}")


def test_on_a_terminal_the_bot_is_seen_writing(house: Path) -> None:
    with on_a_terminal(house, "15550100015") as terminal:
        read_until(terminal, "> ")
        assert "escribiendo…" in echoed(terminal, "hola")


def test_a_chat_goes_on_when_the_simulators_were_started_again(house: Path) -> None:
    with on_a_terminal(house, "15550100017") as terminal:
        read_until(terminal, "> ")
        echoed(terminal, "hola")
        simulators_of(house).kill()
        read_until(terminal, "WhatsApp is away")
        read_until(terminal, "WhatsApp is back")
        echoed(terminal, "otra vez")


def test_who_ends_a_chat_before_the_answer_still_sees_it(house: Path) -> None:
    with terminal_of(house, "15550100019") as (terminal, process):
        read_until(terminal, "> ")
        os.write(terminal, b"hola\n" + CTRL_D)
        read_until(terminal, "bot: Eco: hola")
        assert process.wait(20) == 0


def test_who_ends_a_chat_twice_does_not_wait_for_the_answer(tmp_path: Path) -> None:
    with (
        served(tmp_path, HILO_QUIET_SECONDS="60", HILO_LONGEST_SECONDS="60"),
        terminal_of(tmp_path, "15550100020") as (terminal, process),
    ):
        read_until(terminal, "> ")
        os.write(terminal, b"hola\n" + CTRL_D)
        read_until(terminal, "an answer is still to come: Ctrl-D again leaves")
        os.write(terminal, CTRL_D)
        assert process.wait(20) == 1


def test_on_a_terminal_it_says_at_once_that_the_server_is_gone(tmp_path: Path) -> None:
    with served(tmp_path), terminal_of(tmp_path, "15550100021") as (terminal, process):
        read_until(terminal, "> ")
        echoed(terminal, "hola")
        kill_the_server(tmp_path)
        read_until(terminal, "is gone: start hilo serve again; the chat goes on then")
        os.write(terminal, b"otra\n")
        read_until(terminal, "this was not sent: the server at ")
        os.write(terminal, CTRL_D)
        read_until(terminal, "hilo: the server at ")
        assert process.wait(20) == 3


@pytest.mark.timeout(40)  # a terminal, where somebody may start it again, waits for a minute
def test_through_a_pipe_a_server_that_is_gone_ends_the_chat(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "chat"]
    with (
        served(tmp_path),
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"hola\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"Eco: hola\n"
        kill_the_server(tmp_path)
        assert process.wait(20) == 3
        said = process.stderr.read()
        assert b"is gone: start hilo serve again" in said
        assert b"no answer yet" not in said


@pytest.mark.timeout(40)
def test_whose_message_has_no_answer_is_told_where_to_see_whether_it_was_taken(
    tmp_path: Path,
) -> None:
    phone = "15550100022"
    with (
        served(tmp_path, HILO_QUIET_SECONDS="60", HILO_LONGEST_SECONDS="60"),
        subprocess.Popen(
            [sys.executable, "-m", "app.cli", "chat", "--phone", phone],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"hola\n")
        process.stdin.flush()
        whapi = json.loads((tmp_path / "data" / "serve.json").read_bytes())["whapi"]
        httpx2.get(f"{whapi}/_sim/phone/{phone}/wait?after=0&timeout=20", timeout=30)
        process.stdin.close()  # read before the end: the message was sent, and said to be so
        kill_the_server(tmp_path)
        assert process.wait(20) == 3
        said = process.stderr.read().decode()
        assert "Your last message has no answer yet: if " in said
        assert f"log show {phone} has it, the bot acknowledged it" in said


def test_a_chat_goes_on_when_the_server_was_started_again(tmp_path: Path) -> None:
    """Its simulators listen elsewhere then."""
    with ExitStack() as stack:
        with served(tmp_path):
            terminal = stack.enter_context(on_a_terminal(tmp_path, "15550100018"))
            read_until(terminal, "> ")
            echoed(terminal, "hola")
        read_until(terminal, "is gone: start hilo serve again")
        with served(tmp_path):
            read_until(terminal, "WhatsApp is back")
            echoed(terminal, "otra vez")
            stack.close()


def test_a_terminal_begins_with_what_was_said_last(house: Path) -> None:
    """With an answer that came while nobody chatted, for instance."""
    address = json.loads((house / "data" / "serve.json").read_bytes())
    with httpx2.Client(base_url=address["whapi"]) as whapi:
        phone = "/_sim/phone/15550100016"
        for number in range(7):
            said = whapi.post(f"{phone}/say", json={"text": f"número {number}"}).json()["seq"]
            whapi.get(f"{phone}/wait?after={said}&bot=1&timeout=20", timeout=30)
    with on_a_terminal(house, "15550100016") as terminal:
        shown = read_until(terminal, "\n> ")
    lines = shown.splitlines()
    assert "(4 older messages)" in lines
    assert "you: número 1" not in lines
    assert lines[-3:-1] == ["you: número 6", "bot: Eco: número 6"]


def read_until(terminal: int, words: str) -> str:
    shown = b""
    deadline = time.monotonic() + 30
    while words not in shown.decode(errors="replace"):
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{words!r} did not appear: {shown!r}"
        shown += os.read(terminal, 65_536)
    return shown.decode(errors="replace")


# -- nobody there ----------------------------------------------------------------------------------


def announce(directory: Path, **address: object) -> None:
    known: dict[str, object] = {
        "pid": 1,
        "url": "http://127.0.0.1:9",
        "openai": "",
        "whapi": "http://127.0.0.1:9",
    }
    known |= {"simulated": [], **address}
    bot = {"bot": "default", **{name: known[name] for name in ("openai", "whapi", "simulated")}}
    (directory / "serve.json").write_text(json.dumps({**known, "bots": [bot]}))


def refused(directory: Path, url: str | None = None) -> str:
    with pytest.raises(NobodyThere) as refusal:
        run(load(data=directory), url=url, phone="15550100001", name="Ana")
    return str(refusal.value)


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    assert "start it" in refused(tmp_path)
    done = chat(tmp_path, "hola\n", "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")


def test_a_server_that_has_gone_is_not_mistaken_for_one(tmp_path: Path) -> None:
    announce(tmp_path, simulated=["whapi"])
    assert "nobody answers at http://127.0.0.1:9" in refused(tmp_path)


def test_the_real_whatsapp_is_left_alone(tmp_path: Path) -> None:
    announce(tmp_path, whapi="https://gate.example")
    assert "on the real WhatsApp" in refused(tmp_path)


def test_another_address_than_the_announced_one_is_refused(tmp_path: Path) -> None:
    announce(tmp_path, simulated=["whapi"])
    assert "not at http://127.0.0.1:1" in refused(tmp_path, "http://127.0.0.1:1")


def test_an_unreadable_announcement_is_named(tmp_path: Path) -> None:
    (tmp_path / "serve.json").write_text("{")
    assert "serve.json cannot be read" in refused(tmp_path)
