"""Grand Challenge's `invoke` interface: networks loaded once, then one job a call.

The platform starts the container, asks `GET /health` until it answers 200, fills `/input`, sends
`POST /invoke`, expects 201 and collects `/output`; then it fills `/input` anew. Nothing is kept open or
remembered between calls but the loaded networks.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any

from softctm.errors import InputError, SoftCTMError, UsageError
from softctm.terminal.unexpected import as_expected

_logger = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 4743
"""Where the platform looks for the server: from inside the container."""

GRACE_SECONDS = 3.0
"""How long a running job may go on after SIGTERM; the platform kills after 5 s."""

MAX_BODY = 1 << 20
"""A call carries no data; a longer body than this is refused, not read."""

Job = Callable[[], str]
"""One run from `/input` to `/output`; returns a line that sums it up, raises `SoftCTMError`."""


class InvokeServer(ThreadingHTTPServer):
    """Answers `/health` at any time and runs jobs one after the other.

    Loading and jobs share one thread of their own: health is answered while a job runs, a second call waits
    for the first, and memory does not grow by an allocator arena for each call's thread.

    Parameters
    ----------
    address : (str, int)
        Host and port; port 0 takes a free one (see `server_address`).
    load : callable
        Loads the networks and returns the job; called once, at once, in the background.

    Raises
    ------
    UsageError
        If the address cannot be listened on.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], load: Callable[[], Job]) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job")
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError, UnicodeError) as error:  # taken, out of range, no name of a host
            raise UsageError(
                f"cannot listen on {address[0]}:{address[1]}: {getattr(error, 'strerror', None) or error}; "
                "stop what listens there, or choose another --host or --port"
            ) from error
        self._jobs: set[Future[str]] = set()
        self._load_error: BaseException | None = None
        self._loaded = self._worker.submit(load)
        self._loaded.add_done_callback(self._stop_if_loading_failed)

    @property
    def ready(self) -> bool:
        """Whether the networks are loaded."""
        return self._loaded.done() and not self._loaded.cancelled() and self._loaded.exception() is None

    def run_job(self) -> str:
        """Run the job after those that were called before it, and return its summary.

        Raises
        ------
        SoftCTMError
            If the server stops before it comes to this job.
        Exception
            Whatever the job raises.
        """
        try:
            future = self._worker.submit(self._loaded.result())
        except RuntimeError as error:  # the worker takes no more
            raise SoftCTMError("the server is stopping") from error
        self._jobs.add(future)
        try:
            return future.result()
        except CancelledError as error:
            raise SoftCTMError("the server is stopping") from error
        finally:
            self._jobs.discard(future)

    def serve_until_stopped(self) -> None:
        """Serve until SIGTERM, SIGINT or a failure to load.

        Raises
        ------
        SoftCTMError
            Why the networks could not be loaded.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_on_signal)
        try:
            self.serve_forever(poll_interval=0.2)
        finally:
            self.server_close()
        if self._load_error is not None:
            raise self._load_error
        unfinished: set[Future[Any]] = {self._loaded, *self._jobs}
        if wait(unfinished, timeout=GRACE_SECONDS).not_done:
            # A network's arithmetic cannot be interrupted, and the interpreter would wait for its thread.
            what = "a job was running; its result is not complete" if self.ready else "networks were loading"
            _logger.error("stopped while %s", what)
            os._exit(128 + signal.SIGTERM)

    def server_close(self) -> None:
        """Stop listening and take no more jobs; one that runs is left to finish."""
        super().server_close()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note a request that could not be answered; the next one may be."""
        _logger.warning("a request from %s failed", client_address, exc_info=True)

    def _stop(self) -> None:
        # `shutdown` waits for the serving loop to end, so the thread that runs the loop must not call it.
        threading.Thread(target=self.shutdown, daemon=True).start()

    def _stop_on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop()

    def _stop_if_loading_failed(self, loaded: Future[Job]) -> None:
        if not loaded.cancelled():
            self._load_error = loaded.exception()
            if self._load_error is not None:
                self._stop()


class _Handler(BaseHTTPRequestHandler):
    server: InvokeServer
    protocol_version = "HTTP/1.1"
    server_version = "softctm"
    sys_version = ""
    timeout = 30  # seconds for a slow client to send its request; a job's duration does not count

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/invoke":
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "use POST /invoke"}, Allow="POST")
        elif path != "/health":
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"no such path: {path}"})
        elif self.server.ready:
            self._answer(HTTPStatus.OK, {"status": "healthy"})
        else:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "loading the networks"}, Retry_After="1")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        if not self._discard_body():
            self.close_connection = True
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "a call carries no data"})
        elif path == "/health":
            self._answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "use GET /health"}, Allow="GET, HEAD")
        elif path != "/invoke":
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"no such path: {path}"})
        elif not self.server.ready:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "loading the networks"}, Retry_After="1")
        else:
            self._invoke()

    def _invoke(self) -> None:
        try:
            summary = self.server.run_job()
        except Exception as error:  # not even a bug ends the server: the next input may be fine
            self._fail(error)
        else:
            self._answer(HTTPStatus.CREATED, {"status": "done", "summary": summary})

    def _fail(self, error: Exception) -> None:
        expected = as_expected(error)
        by_input = isinstance(expected, InputError)
        status = HTTPStatus.BAD_REQUEST if by_input else HTTPStatus.INTERNAL_SERVER_ERROR
        _logger.error("%s", expected, exc_info=error)
        self._answer(status, {"error": str(expected), "exit_code": expected.exit_code})

    def _discard_body(self) -> bool:
        """Read and drop what the client sends, so that its next request on the connection is understood."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            self.close_connection = True
            return True
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return False
        self.rfile.read(int(length))
        return True

    def _answer(self, status: HTTPStatus, content: dict[str, str | int], **headers: str) -> None:
        body = json.dumps(content).encode() + b"\n"
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client did not wait; the result is written all the same

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that HTTP itself does not allow, in the form of all other answers."""
        status = HTTPStatus(code)
        self.close_connection = True
        self._answer(status, {"error": message or status.phrase})

    def log_message(self, format: str, *args: object) -> None:
        # Standard error is for the message that a user will see; health is asked every few seconds.
        if getattr(self, "path", "").partition("?")[0] != "/health":
            _logger.info(format, *args)
