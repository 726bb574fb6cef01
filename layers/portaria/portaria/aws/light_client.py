"""Signed calls to AWS's JSON protocols without boto3: for the webhooks, which have three seconds from a cold start.

Importing botocore alone costs more than the whole of that path; docs/decisions.md has what was compared. Only the parts of
Signature Version 4 that JSON protocols need are here: `POST /`, no query string. `json_client` adds botocore's retries and
errors for the other functions.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-json.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html

Calls go straight to the service, never through a proxy: in a VPC without a way out, give it endpoints of both services.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import ssl
import threading
import time

from portaria.core.error_roots import Retryable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALGORITHM = "AWS4-HMAC-SHA256"
# AWS's endpoints need these five root certificates. Reading the system's 130 would take a third of a cold start. If the five do
# not verify an endpoint (another partition, new roots), the system's are added: see `_connect`.
AMAZON_ROOTS = os.path.join(os.path.dirname(__file__), "amazon_roots.pem")
# A connection that was idle for longer is not reused: a frozen execution environment does not see that the server closed it.
MAX_IDLE_S = 20.0
MAX_HEAD_BYTES = 32_768
MAX_BODY_BYTES = 1_048_576
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html and the same for SQS.
RETRYABLE_CODES = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "KmsThrottled",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TransactionConflictException",
    }
)
# Other messages may quote the canonical request, which contains the session token.
CODES_WITH_SAFE_MESSAGE = frozenset(
    {"AccessDenied", "AccessDeniedException", "QueueDoesNotExist", "ResourceNotFoundException"}
)


class AwsError(Exception):
    """The service refused permanently. `code` is AWS's error code (`ConditionalCheckFailedException`)."""

    def __init__(self, service: str, operation: str, code: str, status: int, detail: str = "") -> None:
        super().__init__(f"{service} {operation}: {code} (HTTP {status})" + (f": {detail}" if detail else ""))
        self.code = code
        self.status = status


class _Stale(Exception):
    """The server had closed the kept connection before it answered."""


class NotSent(Exception):
    """No connection was established, so nothing was sent."""


def authorization(
    headers: dict[str, str], body: bytes, *, service: str, region: str, access_key_id: str, secret_access_key: str
) -> str:
    """The `Authorization` header of a `POST /` with these headers.

    Names are lower case, values without needless spaces; `host` and `x-amz-date` (`20150830T123600Z`) must be among them.
    """
    names = sorted(headers)
    signed = ";".join(names)
    lines = "".join(f"{name}:{headers[name]}\n" for name in names)
    request = f"POST\n/\n\n{lines}\n{signed}\n{hashlib.sha256(body).hexdigest()}"
    moment = headers["x-amz-date"]
    parts = (moment[:8], region, service, "aws4_request")
    scope = "/".join(parts)
    key = _signing_key(secret_access_key, parts)
    to_sign = f"{ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"{ALGORITHM} Credential={access_key_id}/{scope}, SignedHeaders={signed}, Signature={signature}"


def _signing_key(secret_access_key: str, parts: tuple[str, ...]) -> bytes:
    """The key of a day, a region and a service. The latest of each service is kept while the process is warm."""
    kept = _signing_keys.get(parts[2])
    if kept and kept[:2] == (secret_access_key, parts):
        return kept[2]
    key = b"AWS4" + secret_access_key.encode()
    for part in parts:
        key = hmac.digest(key, part.encode(), "sha256")
    _signing_keys[parts[2]] = secret_access_key, parts, key
    return key


_signing_keys: dict[str, tuple[str, tuple[str, ...], bytes]] = {}


def endpoint(service: str, region: str, service_id: str = "") -> tuple[str, str, int]:
    """Scheme, host and port: `AWS_ENDPOINT_URL_{SERVICE_ID}`, `AWS_ENDPOINT_URL` or the service's public endpoint.

    `service_id` is `SECRETS_MANAGER` for the service `secretsmanager`; by default, it is the service's name.
    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    url = os.environ.get(f"AWS_ENDPOINT_URL_{service_id or service.upper()}") or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        suffix = {"cn": "amazonaws.com.cn", "eusc": "amazonaws.eu"}.get(region.partition("-")[0], "amazonaws.com")
        return "https", f"{service}.{region}.{suffix}", 443
    scheme, _, rest = url.partition("://")
    address = rest.rstrip("/")
    host, colon, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
    if not colon:
        host, port = address, "443" if scheme == "https" else "80"
    if scheme not in ("http", "https") or not host or "/" in address or "@" in address or not port.isdecimal():
        raise RuntimeError(f"the endpoint of {service} must be http(s)://host or http(s)://host:port, without a path")
    return scheme, host, int(port)


class AwsClient:
    """Calls one service's JSON protocol over one connection, which is kept while the process is warm.

    `service` is both the endpoint's and the signing name (`sqs`), `target_prefix` stands before the operation in
    `X-Amz-Target` (`AmazonSQS`). Not for use by several threads at once. Credentials and region are read from the
    environment that Lambda gives, at each call; `AWS_CA_BUNDLE` names the only certificate authorities to trust.
    """

    def __init__(
        self, service: str, target_prefix: str, *, json_version: str = "1.0", service_id: str = "",
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:  # fmt: skip
        self.service = service
        self._target_prefix = target_prefix
        self._content_type = f"application/x-amz-json-{json_version}"
        self._region = os.environ["AWS_REGION"]
        self._scheme, self._host, self._port = endpoint(service, self._region, service_id)
        self._max_body_bytes = max_body_bytes
        # As bytes, which avoids importing the codec for international names.
        self._name = self._host.strip("[]").encode("ascii")
        # Created at the start of the process: Lambda gives that phase a full processor, whatever the memory size.
        ca_bundle = os.environ.get("AWS_CA_BUNDLE")
        self._tls = _tls_context(ca_bundle or AMAZON_ROOTS) if self._scheme == "https" else None
        self._may_widen_trust = not ca_bundle
        self._connection: socket.socket | None = None
        self._used_at = 0.0

    def call(self, operation: str, payload: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send one request and return the answer's JSON, all within `timeout_s` (name lookup, TLS and retries included).

        Raises `Retryable` for throttling, 5xx, time-outs and broken connections (`answer_lost` if the request may have
        been carried out) and `AwsError` where the service refuses. A kept connection that turns out to be closed is
        replaced once, so a call may be carried out twice: every operation called here must bear that.
        """
        body = json.dumps(payload, separators=(",", ":")).encode()
        try:
            status, _, answer = self.exchange(operation, body, timeout_s=timeout_s)
        except NotSent as error:
            raise self._failure(operation, str(error), answer_lost=False) from None
        except TimeoutError:
            raise self._failure(operation, f"no answer within {timeout_s:.1f} s", answer_lost=True) from None
        except (OSError, ValueError) as error:
            raise self._failure(operation, f"the answer broke off ({type(error).__name__})", answer_lost=True) from None
        return self._read(operation, status, answer)

    def exchange(
        self, operation: str, body: bytes, *, timeout_s: float, connect_timeout_s: float | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request within `timeout_s`, and return the answer's status, headers (names in lower case) and body.

        `connect_timeout_s` limits name lookup, connecting and TLS together. Raises `NotSent`, and `TimeoutError`, `OSError` or
        `ValueError` where the request may have been carried out. `call` says what happens to a kept connection.
        """
        now = time.monotonic()
        deadline = now + timeout_s
        connect_by = deadline if connect_timeout_s is None else now + min(connect_timeout_s, timeout_s)
        request = self._request(operation, body)
        try:
            return self._exchange(request, deadline, connect_by)
        except _Stale:
            return self._exchange(request, deadline, connect_by)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _request(self, operation: str, body: bytes) -> bytes:
        default_port = 443 if self._tls else 80
        headers = {
            "content-type": self._content_type,
            "host": self._host if self._port == default_port else f"{self._host}:{self._port}",
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "x-amz-target": f"{self._target_prefix}.{operation}",
        }
        if token := os.environ.get("AWS_SESSION_TOKEN"):
            headers["x-amz-security-token"] = token
        headers["authorization"] = authorization(
            headers,
            body,
            service=self.service,
            region=self._region,
            access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        )
        headers["content-length"] = str(len(body))
        # Not signed, as botocore does not sign it: Lambda detects recursive loops and X-Ray connects traces by it.
        # https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
        if trace := os.environ.get("_X_AMZN_TRACE_ID"):
            headers["x-amzn-trace-id"] = trace
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST / HTTP/1.1\r\n{lines}\r\n".encode() + body

    def _exchange(self, request: bytes, deadline: float, connect_by: float) -> tuple[int, dict[str, str], bytes]:
        """One request on the kept connection or a new one. After any failure the connection is gone."""
        connection, kept = self._connection, self._connection is not None
        if connection is not None and time.monotonic() - self._used_at > MAX_IDLE_S:
            self.close()
            connection, kept = None, False
        if connection is None:
            try:
                connection = self._connect(connect_by)
            except TimeoutError:
                raise NotSent(f"no connection to {self._host} (time-out)") from None
        self._connection = None
        answer = _Answer(connection, deadline, self._max_body_bytes)
        try:
            connection.settimeout(_left(deadline))
            connection.sendall(request)
            status, headers, body, reusable = answer.read()
        except BaseException as error:
            connection.close()
            if kept and not answer.began and isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise _Stale from None
            raise
        if reusable:
            self._connection, self._used_at = connection, time.monotonic()
        else:
            connection.close()
        return status, headers, body

    def _connect(self, deadline: float) -> socket.socket:
        """A new connection to one of the host's first two addresses. Raises `NotSent`: nothing has been sent yet."""
        try:
            return self._dial(deadline)
        except ssl.SSLCertVerificationError as error:
            if not (self._tls and self._may_widen_trust):
                raise NotSent(f"{self._host} has no certificate to trust ({error.verify_message})") from None
        self._may_widen_trust = False
        self._tls.load_default_certs()
        return self._connect(deadline)

    def _dial(self, deadline: float) -> socket.socket:
        addresses = _resolve(self._name, self._port, deadline)[:2]
        problem = "has no address"
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            raw = socket.socket(family, kind, protocol)
            try:
                # Half of the remaining time, so that an address that does not answer leaves time for the other one.
                raw.settimeout(_left(deadline) / (len(addresses) - position))
                raw.connect(address)
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._tls.wrap_socket(raw, server_hostname=self._name) if self._tls else raw
            except ssl.SSLCertVerificationError:
                raise
            except OSError as error:
                raw.close()
                problem = "time-out" if isinstance(error, TimeoutError) else type(error).__name__
        raise NotSent(f"no connection to {self._host} ({problem})")

    def _read(self, operation: str, status: int, answer: bytes) -> dict[str, Any]:
        try:
            content = json.loads(answer) if answer else {}
        except ValueError:
            content = None
        if status == 200:
            if not isinstance(content, dict):
                raise self._failure(operation, "the answer is not a JSON object", answer_lost=True)
            return content
        fields = content if isinstance(content, dict) else {}
        # `com.amazonaws.sqs#QueueDoesNotExist`
        code = str(fields.get("__type") or "UnknownError").rpartition("#")[2]
        if status >= 500 or status == 429 or code in RETRYABLE_CODES:
            raise self._failure(operation, f"{code} (HTTP {status})", answer_lost=status >= 500)
        message = str(fields.get("message") or fields.get("Message") or "")
        raise AwsError(self.service, operation, code, status, message[:300] if code in CODES_WITH_SAFE_MESSAGE else "")

    def _failure(self, operation: str, detail: str, *, answer_lost: bool) -> Retryable:
        return Retryable("aws_unavailable", f"{self.service} {operation}: {detail}", answer_lost=answer_lost)


class _Answer:
    """Reads one HTTP/1.1 answer. The deadline is for the whole answer, however slowly its bytes arrive.

    http.client would import the email package, a third of this path's start, and its time-outs hold for each read only.
    """

    def __init__(self, connection: socket.socket, deadline: float, max_body_bytes: int) -> None:
        self._connection = connection
        self._deadline = deadline
        self._max_body_bytes = max_body_bytes
        self._buffer = b""
        self.began = False

    def read(self) -> tuple[int, dict[str, str], bytes, bool]:
        """Status, headers, body, and whether the connection may be used again. Raises OSError or ValueError."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise ValueError("the answer's head is too long")
            self._receive()
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[end + 4 :]
        version, _, status = first.partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError("not an HTTP answer")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        else:
            body = self._exactly(int(headers["content-length"]) if "content-length" in headers else 0)
        keep = (
            version == "HTTP/1.1" and headers.get("connection", "").lower() != "close" and "content-length" in headers
        )
        return int(status[:3]), headers, body, keep and not self._buffer

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._line().partition(b";")[0], 16):
            body += self._exactly(size)
            self._line()
            if len(body) > self._max_body_bytes:
                raise ValueError("the answer is too long")
        return body

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise ValueError("a line of the answer is too long")
            self._receive()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _exactly(self, size: int) -> bytes:
        if not 0 <= size <= self._max_body_bytes:
            raise ValueError("the answer is too long")
        parts, missing = [self._buffer], size - len(self._buffer)
        while missing > 0:
            self._buffer = b""
            self._receive()
            parts.append(self._buffer)
            missing -= len(self._buffer)
        received = b"".join(parts)
        body, self._buffer = received[:size], received[size:]
        return body

    def _receive(self) -> None:
        self._connection.settimeout(_left(self._deadline))
        received = self._connection.recv(65_536)
        if not received:
            raise ConnectionError("closed by the other side")
        self.began = True
        self._buffer += received


_contexts: dict[str, ssl.SSLContext] = {}


def _tls_context(ca_bundle: str) -> ssl.SSLContext:
    if ca_bundle not in _contexts:
        _contexts[ca_bundle] = ssl.create_default_context(cafile=ca_bundle)
    return _contexts[ca_bundle]


def _resolve(host: bytes, port: int, deadline: float) -> list[Any]:
    """Resolve the name in a thread, because the system's resolver has no timeout and may block for many seconds."""
    found: list[Any] = []
    problems: list[str] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            problems.append(type(error).__name__)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not found:
        raise NotSent(f"{host.decode()} was not resolved ({problems[0] if problems else 'time-out'})")
    return list(found)


def _left(deadline: float) -> float:
    """Seconds until the deadline. Raises `TimeoutError` if it has passed."""
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left
