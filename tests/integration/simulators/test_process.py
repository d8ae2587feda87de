"""The simulators as a process: they say where they are, remember, and die with their parent."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue

import httpx2
import psutil
import pytest

pytestmark = pytest.mark.slow
HEADERS = {"authorization": "Bearer x"}


@contextmanager
def simulators(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """Start them; at the end their input is closed, which must be enough to stop them."""
    command = [sys.executable, "-m", "app.simulators", *arguments, "--exit-with-parent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
            process.stdin.close()
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_both_run_in_one_process() -> None:
    with simulators("all", "--seed", "1") as (_, urls):
        assert set(urls) == {"openai", "whapi"}
        assert httpx2.get(f"{urls['openai']}/models", headers=HEADERS).status_code == 200
        assert httpx2.get(f"{urls['whapi']}/health").status_code == 200


def test_what_is_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    state = str(tmp_path / "simulators.state")
    with simulators("all", "--state", state) as (_, urls):
        made = httpx2.post(f"{urls['openai']}/conversations", headers=HEADERS, json={}).json()
        body = {"model": "m", "input": "hola", "conversation": made["id"]}
        answer = httpx2.post(f"{urls['openai']}/responses", headers=HEADERS, json=body).json()
        message = {"to": "15550100001", "body": "hola"}
        httpx2.post(f"{urls['whapi']}/messages/text", json=message)
    with simulators("all", "--state", state) as (_, urls):
        items = f"{urls['openai']}/conversations/{made['id']}/items"
        assert len(httpx2.get(items, headers=HEADERS).json()["data"]) == 2
        root = urls["openai"].removesuffix("/v1")
        account = httpx2.get(f"{root}/_sim/account").json()
        assert account["reported"]["total_tokens"] == answer["usage"]["total_tokens"]
        again = httpx2.post(f"{urls['openai']}/responses", headers=HEADERS, json=body).json()
        assert again["id"] != answer["id"]
        assert httpx2.get(f"{urls['whapi']}/_sim/account").json()["sent"] == 1


def test_no_id_is_given_out_again_after_a_kill(tmp_path: Path) -> None:
    state = str(tmp_path / "simulators.state")
    with simulators("all", "--state", state) as (_, urls):
        ids(urls)
    command = [sys.executable, "-m", "app.simulators", "all", "--state", state]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        forgotten = ids(json.loads(killed.stdout.readline()))
        killed.kill()
    with simulators("all", "--state", state) as (_, urls):
        assert not ids(urls) & forgotten


def ids(urls: dict[str, str]) -> set[str]:
    """What both call the next things that are made there."""
    made = httpx2.post(f"{urls['openai']}/conversations", headers=HEADERS, json={}).json()
    message = {"to": "15550100001", "body": "hola"}
    sent = httpx2.post(f"{urls['whapi']}/messages/text", json=message).json()
    return {made["id"], sent["message"]["id"]}


@contextmanager
def webhook(*, answers: int = 200) -> Iterator[tuple[str, Queue[bytes]]]:
    """Receive webhooks at an address, and answer all of them so; what came is in the queue."""
    got: Queue[bytes] = Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(answers)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", got
        finally:
            server.shutdown()
            thread.join()


def test_webhooks_that_nobody_took_are_delivered_after_a_restart(tmp_path: Path) -> None:
    state = str(tmp_path / "simulators.state")
    with simulators("whapi", "--state", state) as (_, urls), webhook(answers=503) as (hook, got):
        httpx2.post(f"{urls['whapi']}/_sim/webhook", json={"url": hook, "first_delay": 600})
        for text in ("uno", "dos"):
            phone = f"{urls['whapi']}/_sim/phone/15550100001"
            httpx2.post(f"{phone}/say", json={"text": text}).raise_for_status()
            assert text.encode() in got.get(timeout=10)
    with simulators("whapi", "--state", state) as (_, urls), webhook() as (hook, got):
        queue = f"{urls['whapi']}/_sim/queue"
        assert httpx2.get(queue).json()["pending"] == 2
        httpx2.post(f"{urls['whapi']}/_sim/webhook", json={"url": hook, "senders": 1})
        assert [b"uno" in got.get(timeout=10), b"dos" in got.get(timeout=10)] == [True, True]
        assert httpx2.get(f"{queue}?wait=1&timeout=10").json()["pending"] == 0
    with simulators("whapi", "--state", state) as (_, urls):
        assert httpx2.get(f"{urls['whapi']}/_sim/queue").json()["pending"] == 0


def test_a_webhook_that_was_under_way_when_the_simulator_stopped_is_delivered_again(
    tmp_path: Path,
) -> None:
    state = str(tmp_path / "simulators.state")
    with (
        simulators("whapi", "--state", state) as (_, urls),
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        hook = f"http://127.0.0.1:{silent.getsockname()[1]}/hook"
        httpx2.post(f"{urls['whapi']}/_sim/webhook", json={"url": hook, "patience": 600})
        httpx2.post(f"{urls['whapi']}/_sim/phone/15550100001/say", json={"text": "uno"})
        taken, _ = silent.accept()
        assert taken.recv(100)
    taken.close()
    with simulators("whapi", "--state", state) as (_, urls), webhook() as (hook, got):
        httpx2.post(f"{urls['whapi']}/_sim/webhook", json={"url": hook})
        assert b"uno" in got.get(timeout=10)


def test_a_file_that_is_no_state_is_named(tmp_path: Path) -> None:
    state = tmp_path / "notes.txt"
    state.write_text("not a state")
    done = subprocess.run(
        [sys.executable, "-m", "app.simulators", "openai", "--state", str(state)],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 1
    assert "notes.txt" in done.stderr
    assert state.read_text() == "not a state"


def test_whoever_waits_is_answered_when_the_simulators_stop() -> None:
    with simulators("all") as (process, urls):
        root = urls["openai"].removesuffix("/v1")
        waiting = []
        for url, path in (
            (urls["whapi"], "/_sim/phone/15550100001/wait"),
            (root, "/_sim/wait?active=1"),
        ):
            line = socket.create_connection((httpx2.URL(url).host, httpx2.URL(url).port or 0))
            line.sendall(f"GET {path} HTTP/1.1\r\nhost: simulator\r\n\r\n".encode())
            waiting.append(line)
            httpx2.get(f"{url}/_sim/faults").raise_for_status()  # it has read what came before
        process.terminate()
        for line in waiting:
            with line:
                line.settimeout(5)
                assert line.recv(100).startswith(b"HTTP/1.1 200")
        assert process.wait(5) == 0


PARENT = """
import subprocess, sys

child = subprocess.Popen(
    [sys.executable, "-m", "app.simulators", "all", "--exit-with-parent", "--state", sys.argv[1]],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
)
print(child.pid, child.stdout.readline().decode(), flush=True)
sys.stdin.read()
"""


def test_simulators_that_are_stopped_end_with_a_killed_parent_and_keep_what_they_know(
    tmp_path: Path,
) -> None:
    state = tmp_path / "simulators.state"
    command = [sys.executable, "-c", PARENT, str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, _, urls = parent.stdout.readline().decode().partition(" ")
        message = {"to": "15550100001", "body": "hola"}
        httpx2.post(f"{json.loads(urls)['whapi']}/messages/text", json=message).raise_for_status()
        child = psutil.Process(int(pid))
        os.kill(child.pid, signal.SIGSTOP)
        parent.kill()
    gone, alive = psutil.wait_procs([child], timeout=10)
    for one in alive:
        one.kill()
    assert gone
    with simulators("all", "--state", str(state)) as (_, again):
        assert httpx2.get(f"{again['whapi']}/_sim/account").json()["sent"] == 1


def test_nothing_is_kept_where_nothing_has_happened(tmp_path: Path) -> None:
    state = tmp_path / "simulators.state"
    with simulators("all", "--state", str(state)) as (_, urls):
        assert httpx2.get(f"{urls['whapi']}/health").status_code == 200
    assert not state.exists()
