"""The `invoke` server, spoken to over real sockets, with stand-ins for the networks and the job."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from softctm.errors import InputError, ModelError, OutputError, UsageError
from softctm.jobs.server import InvokeServer, Job
from softctm.terminal.console import log_shown

SOURCE = Path(__file__).resolve().parents[2] / "src"


@contextmanager
def serving(load: Callable[[], Job]) -> Iterator[InvokeServer]:
    server = InvokeServer(("127.0.0.1", 0), load)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(server: InvokeServer, method: str, path: str, body: bytes | None = None) -> tuple[int, Any, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None, response.headers
    finally:
        connection.close()


def wait_until_ready(server: InvokeServer) -> None:
    deadline = time.monotonic() + 10
    while ask(server, "GET", "/health")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_health_is_503_until_the_networks_are_loaded_then_200() -> None:
    loaded = threading.Event()

    def load() -> Job:
        assert loaded.wait(10)
        return lambda: "unused"

    with serving(load) as server:
        status, answer, headers = ask(server, "GET", "/health")
        assert (status, answer, headers["Retry-After"]) == (503, {"status": "loading the networks"}, "1")
        assert ask(server, "POST", "/invoke")[0] == 503
        loaded.set()
        wait_until_ready(server)
        assert ask(server, "HEAD", "/health")[:2] == (200, None)


def test_each_call_runs_the_job_and_answers_201_with_networks_loaded_once() -> None:
    loads: list[str] = []
    runs: list[str] = []

    def load() -> Job:
        loads.append("load")

        def job() -> str:
            runs.append(threading.current_thread().name)
            return f"run {len(runs)}"

        return job

    with serving(load) as server:
        wait_until_ready(server)
        for number in (1, 2, 3):
            status, answer, _ = ask(server, "POST", "/invoke", body=b"{}")
            assert (status, answer) == (201, {"status": "done", "summary": f"run {number}"})
    assert len(loads) == 1
    assert len(set(runs)) == 1, "every job runs in the one thread that loaded the networks"


@pytest.mark.parametrize(
    ("error", "status", "exit_code"),
    [
        (InputError("no cell images in /input; mount them there"), 400, 3),
        (OutputError("/output is read-only"), 500, 6),
        (ZeroDivisionError("division by zero"), 500, 1),
    ],
)
def test_a_failed_job_answers_with_its_message_and_the_next_one_runs(
    error: Exception, status: int, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes: list[Exception | str] = [error, "fine"]

    def job() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with log_shown(), serving(lambda: job) as server:
        wait_until_ready(server)
        got, answer, _ = ask(server, "POST", "/invoke")
        assert (got, answer["exit_code"]) == (status, exit_code)
        assert str(error) in answer["error"]
        assert ask(server, "POST", "/invoke")[0] == 201
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {answer['error']}"


def test_calls_run_one_at_a_time_and_health_answers_meanwhile() -> None:
    active: list[int] = []
    overlaps: list[int] = []
    release = threading.Event()

    def job() -> str:
        active.append(1)
        overlaps.append(len(active))
        assert release.wait(10)
        active.pop()
        return "done"

    with serving(lambda: job) as server:
        wait_until_ready(server)
        statuses: list[int] = []
        callers = [
            threading.Thread(target=lambda: statuses.append(ask(server, "POST", "/invoke")[0]))
            for _ in range(3)
        ]
        for caller in callers:
            caller.start()
        while not active:
            time.sleep(0.01)
        began = time.monotonic()
        assert ask(server, "GET", "/health")[0] == 200
        assert time.monotonic() - began < 5
        release.set()
        for caller in callers:
            caller.join()
    assert statuses == [201, 201, 201]
    assert overlaps == [1, 1, 1]


def test_what_is_not_the_interface_is_refused_without_redirects() -> None:
    with serving(lambda: lambda: "done") as server:
        wait_until_ready(server)
        assert ask(server, "GET", "/")[0] == 404
        assert ask(server, "POST", "/invoke/")[0] == 404
        status, _, headers = ask(server, "GET", "/invoke")
        assert (status, headers["Allow"]) == (405, "POST")
        status, _, headers = ask(server, "POST", "/health")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert ask(server, "DELETE", "/invoke")[0] == 501
        assert ask(server, "GET", "/health?verbose=1")[0] == 200


def test_a_body_is_dropped_and_the_connection_stays_usable() -> None:
    with serving(lambda: lambda: "done") as server:
        wait_until_ready(server)
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
        for _ in range(2):
            connection.request("POST", "/invoke", b"GET /health HTTP/1.1\r\n\r\n" * 100)
            response = connection.getresponse()
            assert response.status == 201
            response.read()
        connection.request("POST", "/invoke", headers={"Content-Length": str(1 << 40)})
        assert connection.getresponse().status == 413
        connection.close()
        with socket.create_connection(server.server_address[:2], timeout=10) as raw:
            raw.sendall(b"POST /invoke HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_does_not_wait_does_not_stop_the_job() -> None:
    done = threading.Event()

    def job() -> str:
        time.sleep(0.2)
        done.set()
        return "done"

    with serving(lambda: job) as server:
        wait_until_ready(server)
        with socket.create_connection(server.server_address[:2], timeout=10) as raw:
            raw.sendall(b"POST /invoke HTTP/1.1\r\nHost: x\r\n\r\n")
        assert done.wait(10)
        assert ask(server, "POST", "/invoke")[0] == 201


def test_a_taken_port_is_named() -> None:
    with (
        serving(lambda: lambda: "done") as server,
        pytest.raises(UsageError, match=rf"cannot listen on 127\.0\.0\.1:{server.server_address[1]}"),
    ):
        InvokeServer(("127.0.0.1", server.server_address[1]), lambda: lambda: "done")


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 70_000), ("127.0.0.1", -1), ("no.such.host.invalid", 0), ("a" * 70, 0)]
)
def test_an_address_that_is_none_is_named(address: tuple[str, int]) -> None:
    with pytest.raises(UsageError, match=rf"cannot listen on {address[0]}:{address[1]}: .*--host or --port"):
        InvokeServer(address, lambda: lambda: "done")


def _start(body: str) -> subprocess.Popen[str]:
    """Run a server whose `load` is the given function body, in a process of its own."""
    program = (
        "import sys, time\nfrom softctm.errors import ModelError\n"
        "from softctm.terminal.console import log_shown\nfrom softctm.jobs.server import InvokeServer\n"
        f"def load():\n{body}\n"
        "server = InvokeServer(('127.0.0.1', 0), load)\n"
        "print(server.server_address[1], flush=True)\n"
        "with log_shown():\n    server.serve_until_stopped()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _stop_while(process: subprocess.Popen[str], busy: bool) -> tuple[int, str, float]:
    assert process.stdout is not None
    port = int(process.stdout.readline())
    if busy:
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        raw.sendall(b"POST /invoke HTTP/1.1\r\nHost: x\r\n\r\n")
        assert process.stdout.readline() == "working\n"
    else:
        time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors, time.monotonic() - began


def test_sigterm_ends_an_idle_server_quietly() -> None:
    code, errors, seconds = _stop_while(_start("    return lambda: 'done'"), busy=False)
    assert (code, errors) == (0, "")
    assert seconds < 5


def test_sigterm_lets_a_short_job_finish() -> None:
    job = (
        "    def job():\n        print('working', flush=True); time.sleep(1); print('finished', flush=True)\n"
    )
    code, errors, seconds = _stop_while(_start(job + "        return ''\n    return job"), busy=True)
    assert (code, errors) == (0, "")
    assert 0.5 < seconds < 5


def test_sigterm_cuts_a_long_job_off_within_five_seconds() -> None:
    job = "    def job():\n        print('working', flush=True); time.sleep(60)\n    return job"
    code, errors, seconds = _stop_while(_start(job), busy=True)
    assert code == 143
    assert errors == "error: stopped while a job was running; its result is not complete\n"
    assert seconds < 5


def test_sigterm_ends_a_server_that_is_still_loading() -> None:
    code, errors, seconds = _stop_while(_start("    time.sleep(60)"), busy=False)
    assert code == 143
    assert errors == "error: stopped while networks were loading\n"
    assert seconds < 5


def test_failing_to_load_ends_the_server_with_the_reason() -> None:
    def load() -> Job:
        raise ModelError("no model in /opt/ml/model")

    server = InvokeServer(("127.0.0.1", 0), load)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(ModelError, match="no model in /opt/ml/model"):
            server.serve_until_stopped()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
