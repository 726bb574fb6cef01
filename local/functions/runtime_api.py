"""The Lambda Runtime API for one function's process, on loopback.

AWS's runtime interface client requests `next`, which blocks until there is an event, and posts the answer or the error of
that invocation. It posts an error during initialization to `init/error`.
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_PAYLOAD_BYTES = 6_291_556
PREFIX = "/2018-06-01/runtime"
# The interval at which a wait checks the function's process.
TICK_S = 0.02


@dataclass(frozen=True)
class Invocation:
    """One event for the function. `deadline` is in epoch seconds."""

    request_id: str
    event: bytes
    function_arn: str
    deadline: float
    trace_id: str


@dataclass(frozen=True)
class Outcome:
    """The function's answer, or the error that Lambda returns instead."""

    payload: bytes
    error: bool = False


@dataclass
class _Exchange:
    """An invocation and its outcome, with the monotonic times at which it was received and answered."""

    invocation: Invocation
    taken_at: float | None = None
    answered_at: float = 0.0
    outcome: Outcome | None = None


class Aborted(Exception):
    """A wait ended without a result: the process ended, or the time limit passed. The text is the error type."""


class RuntimeApi:
    """Serves one function's process, one invocation at a time. Use it as a context manager."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready = False
        self._init_error: Outcome | None = None
        self._exchange: _Exchange | None = None
        self._closed = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": TICK_S}, daemon=True
        )

    def __enter__(self) -> RuntimeApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def address(self) -> str:
        """The value of AWS_LAMBDA_RUNTIME_API."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def wait_until_ready(self, abort: Callable[[], str | None]) -> Outcome | None:
        """Wait for the first `next`. Returns the function's initialization error, or None.

        `abort` is called at each tick. If it returns a text, `Aborted` is raised with it.
        """
        self._wait(lambda: self._ready or self._init_error is not None, abort)
        return self._init_error

    def invoke(self, invocation: Invocation, abort: Callable[[], str | None]) -> tuple[Outcome, float]:
        """Send the event to the process that waits in `next`. Returns the outcome and the duration in seconds.

        As on Lambda, the invocation ends when the process requests the next event, and includes the log until then. If the
        process ends after its answer, the answer stays valid.
        """
        with self._changed:
            exchange = self._exchange = _Exchange(invocation)
            self._ready = False
            self._changed.notify_all()
        try:
            self._wait(lambda: exchange.outcome is not None and self._ready, abort)
        except Aborted:
            if exchange.outcome is None:
                raise
        assert exchange.outcome is not None
        assert exchange.taken_at is not None
        return exchange.outcome, exchange.answered_at - exchange.taken_at

    def _wait(self, condition: Callable[[], bool], abort: Callable[[], str | None]) -> None:
        with self._changed:
            while not self._changed.wait_for(condition, timeout=TICK_S):
                if reason := abort():
                    raise Aborted(reason)

    # ------------------------------------------------------------------------------------- called by the HTTP handlers

    def next(self) -> Invocation | None:
        """Block until there is an event. None if the API is closing."""
        with self._changed:
            self._ready = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._closed or (self._exchange is not None and self._exchange.taken_at is None)
            )
            if self._closed or self._exchange is None:
                return None
            self._exchange.taken_at = time.monotonic()
            return self._exchange.invocation

    def finish(self, request_id: str, outcome: Outcome) -> bool:
        """Record the outcome of the current invocation. False for another invocation, and for a second outcome."""
        with self._changed:
            exchange = self._exchange
            if exchange is None or exchange.outcome is not None or exchange.invocation.request_id != request_id:
                return False
            exchange.outcome, exchange.answered_at = outcome, time.monotonic()
            self._changed.notify_all()
            return True

    def fail_init(self, outcome: Outcome) -> None:
        with self._changed:
            self._init_error = outcome
            self._changed.notify_all()


def error_payload(kind: str, message: str) -> bytes:
    """The body of Lambda's own errors."""
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


def check_answer(payload: bytes) -> Outcome:
    """The outcome for a posted answer. AWS accepts JSON of at most `MAX_PAYLOAD_BYTES`, without NaN and Infinity."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        text = f"Response payload size exceeded maximum allowed payload size ({MAX_PAYLOAD_BYTES} bytes)."
        return Outcome(error_payload("Function.ResponseSizeTooLarge", text), error=True)
    try:
        json.loads(payload, parse_constant=_refuse_constant)
    except ValueError as problem:
        text = f"The function's answer is not JSON: {problem}"
        return Outcome(error_payload("Runtime.InvalidResponse", text), error=True)
    return Outcome(payload)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _handler(api: RuntimeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path != f"{PREFIX}/invocation/next":
                return self._answer(404, {"errorType": "NotFound", "errorMessage": self.path})
            if (invocation := api.next()) is None:
                self.close_connection = True
                return None
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(invocation.event)))
            self.send_header("Lambda-Runtime-Aws-Request-Id", invocation.request_id)
            self.send_header("Lambda-Runtime-Deadline-Ms", str(int(invocation.deadline * 1000)))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", invocation.function_arn)
            self.send_header("Lambda-Runtime-Trace-Id", invocation.trace_id)
            self.end_headers()
            self.wfile.write(invocation.event)
            return None

        def do_POST(self) -> None:
            body = self._body()
            if self.path == f"{PREFIX}/init/error":
                api.fail_init(Outcome(body, error=True))
                return self._answer(202, {"status": "OK"})
            _, _, rest = self.path.partition(f"{PREFIX}/invocation/")
            request_id, _, kind = rest.partition("/")
            if kind not in ("response", "error"):
                return self._answer(404, {"errorType": "NotFound", "errorMessage": self.path})
            outcome = check_answer(body) if kind == "response" else Outcome(body, error=True)
            if not api.finish(request_id, outcome):
                return self._answer(400, {"errorType": "InvalidRequestID", "errorMessage": "Invalid request ID"})
            if kind == "response" and len(body) > MAX_PAYLOAD_BYTES:
                return self._answer(413, {"errorType": "RequestEntityTooLarge", "errorMessage": "Response too large"})
            return self._answer(202, {"status": "OK"})

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, status: int, content: dict[str, str]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """The Runtime API does not log."""

    return Handler
