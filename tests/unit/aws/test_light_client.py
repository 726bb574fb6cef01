"""Signed AWS calls without boto3: signatures against AWS's vectors and botocore, transport against servers on loopback."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import botocore.auth
import certifi
import pytest
import trustme
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from portaria.aws import light_client
from portaria.aws.light_client import AwsClient, AwsError, authorization, endpoint
from portaria.core.errors import Retryable

# https://docs.aws.amazon.com/general/latest/gr/signature-v4-test-suite.html
SUITE_SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SUITE_TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx"
    "7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q"
    "6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)


@pytest.mark.parametrize(
    ("headers", "body", "signed", "signature"),
    [
        ({}, b"", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            {"x-amz-security-token": SUITE_TOKEN},
            b"",
            "host;x-amz-date;x-amz-security-token",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
        (
            {"content-type": "application/x-www-form-urlencoded"},
            b"Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            {"my-header1": "value1"},
            b"",
            "host;my-header1;x-amz-date",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        ),
    ],
    ids=["post-vanilla", "post-sts-header-before", "post-x-www-form-urlencoded", "post-header-key-case"],
)
def test_authorization_matches_aws_signature_test_suite(
    headers: dict[str, str], body: bytes, signed: str, signature: str
) -> None:
    made = authorization(
        {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z", **headers},
        body,
        service="service",
        region="us-east-1",
        access_key_id="AKIDEXAMPLE",
        secret_access_key=SUITE_SECRET,
    )
    scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    assert made == f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={signed}, Signature={signature}"


credential = st.text(
    alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/+=", min_size=1, max_size=60
)


@settings(max_examples=200, deadline=None)
@given(
    service=st.sampled_from(["sqs", "dynamodb"]),
    region=st.from_regex(r"[a-z]{2}(-gov|-iso)?-[a-z]{4,9}-[1-9]", fullmatch=True),
    host=st.from_regex(r"[a-z0-9-]{1,30}(\.[a-z0-9-]{1,20}){0,3}(:[1-9][0-9]{1,4})?", fullmatch=True),
    target=st.from_regex(r"[A-Za-z0-9_]{1,30}\.[A-Za-z]{1,30}", fullmatch=True),
    body=st.binary(max_size=2_000),
    access_key_id=st.from_regex(r"[A-Z0-9]{16,32}", fullmatch=True),
    secret=credential,
    token=st.none() | credential,
    moment=st.integers(946_684_800, 4_102_444_800).map(lambda at: datetime.fromtimestamp(at, UTC)),
)
def test_authorization_matches_botocore_for_any_request(
    service: str, region: str, host: str, target: str, body: bytes, access_key_id: str, secret: str, token: str | None,
    moment: datetime,
) -> None:  # fmt: skip
    headers = {"content-type": "application/x-amz-json-1.0", "host": host, "x-amz-target": target}
    theirs = AWSRequest("POST", f"https://{host}/", headers, body)
    with patch.object(botocore.auth, "get_current_datetime", lambda: moment):
        SigV4Auth(Credentials(access_key_id, secret, token), service, region).add_auth(theirs)

    ours = (
        headers | {"x-amz-date": moment.strftime("%Y%m%dT%H%M%SZ")} | ({"x-amz-security-token": token} if token else {})
    )
    made = authorization(
        ours, body, service=service, region=region, access_key_id=access_key_id, secret_access_key=secret
    )

    assert made == theirs.headers["Authorization"]


@pytest.mark.parametrize(
    ("region", "environment", "expected"),
    [
        ("us-east-1", {}, ("https", "sqs.us-east-1.amazonaws.com", 443)),
        ("us-gov-west-1", {}, ("https", "sqs.us-gov-west-1.amazonaws.com", 443)),
        ("cn-north-1", {}, ("https", "sqs.cn-north-1.amazonaws.com.cn", 443)),
        ("eusc-de-east-1", {}, ("https", "sqs.eusc-de-east-1.amazonaws.eu", 443)),
        ("us-east-1", {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}, ("http", "127.0.0.1", 4566)),
        ("us-east-1", {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566/"}, ("http", "127.0.0.1", 4566)),
        ("us-east-1", {"AWS_ENDPOINT_URL": "http://[::1]:4566"}, ("http", "[::1]", 4566)),
        ("us-east-1", {"AWS_ENDPOINT_URL": "http://[::1]"}, ("http", "[::1]", 80)),
        ("us-east-1", {"AWS_ENDPOINT_URL": "https://vpce-1.example"}, ("https", "vpce-1.example", 443)),
        (
            "us-east-1",
            {"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_SQS": "https://b:2", "AWS_ENDPOINT_URL_DYNAMODB": "http://c:3"},
            ("https", "b", 2),
        ),
    ],
)  # fmt: skip
def test_endpoint_follows_sdk_rules(
    monkeypatch: pytest.MonkeyPatch, region: str, environment: dict[str, str], expected: tuple[str, str, int]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert endpoint("sqs", region) == expected


@pytest.mark.parametrize(
    "url", ["ftp://x", "x", "https://", "https://u:p@x", "https://x/path", "https://x:port", "http://x:"]
)
def test_endpoint_invalid_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(RuntimeError, match="without a path"):
        endpoint("sqs", "us-east-1")


Talk = Callable[["Line"], None]


class Line:
    """The server's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.requests: list[tuple[dict[str, str], bytes]] = []

    def read(self) -> tuple[dict[str, str], bytes]:
        """Read one request's headers and body."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._some()
        head, _, body = data.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        while len(body) < int(headers["content-length"]):
            body += self._some()
        self.requests.append((headers, body))
        return headers, body

    def _some(self) -> bytes:
        data = self.connection.recv(65_536)
        if not data:
            raise ConnectionError
        return data

    def write(self, body: bytes, status: str = "200 OK", headers: str = "") -> None:
        self.connection.sendall(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)


class Server:
    """Plays one script per connection, in order, and repeats the last one. `lines` are the received request lines."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.talks: list[Talk] = []
        self.lines: list[Line] = []
        self.ended = threading.Event()
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.settimeout(5)
            thread = threading.Thread(target=self._talk, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            line = Line(self._tls.wrap_socket(connection, server_side=True) if self._tls else connection)
        except OSError:
            connection.close()
            return
        self.lines.append(line)
        with line.connection, suppress(OSError):
            self.talks[min(len(self.lines), len(self.talks)) - 1](line)

    def close(self) -> None:
        self.ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def client(server: Server) -> Iterator[AwsClient]:
    with patch.dict(
        os.environ, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_SESSION_TOKEN": "session-token"}
    ):
        made = AwsClient("sqs", "AmazonSQS")
        yield made
        made.close()


def answers(*bodies: bytes, status: str = "200 OK", headers: str = "") -> Talk:
    def talk(line: Line) -> None:
        for body in bodies:
            line.read()
            line.write(body, status, headers)
        line.read()

    return talk


def raw(data: bytes) -> Talk:
    """Answer with these bytes and close."""

    def talk(line: Line) -> None:
        line.read()
        line.connection.sendall(data)

    return talk


pytestmark = pytest.mark.enable_socket


class TestTransport:
    def test_aws_client_call_sends_json_with_signed_headers(self, server: Server, client: AwsClient) -> None:
        server.talks = [answers(b'{"MessageId":"1"}')]

        assert client.call("SendMessage", {"QueueUrl": "q", "MessageBody": "ç"}, timeout_s=2) == {"MessageId": "1"}

        [(headers, body)] = server.lines[0].requests
        assert json.loads(body) == {"QueueUrl": "q", "MessageBody": "ç"}
        assert headers["x-amz-target"] == "AmazonSQS.SendMessage"
        assert headers["content-type"] == "application/x-amz-json-1.0"
        assert headers["host"] == f"127.0.0.1:{server.port}"
        assert headers["x-amz-security-token"] == "session-token"
        signed = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
        assert f"SignedHeaders={signed}, " in headers["authorization"]

    def test_aws_client_call_reuses_connection(self, server: Server, client: AwsClient) -> None:
        server.talks = [answers(b"{}", b'{"a":1}', b"")]
        assert [client.call("X", {}, timeout_s=2) for _ in range(3)] == [{}, {"a": 1}, {}]
        assert len(server.lines) == 1

    @pytest.mark.parametrize("farewell", ["after the answer", "on the next request"])
    def test_aws_client_call_closed_idle_connection_is_replaced_once(
        self, server: Server, client: AwsClient, farewell: str
    ) -> None:
        def talk(line: Line) -> None:
            line.read()
            line.write(b"{}")
            if farewell == "on the next request":
                line.read()

        server.talks = [talk, answers(b'{"again":1}')]
        client.call("X", {}, timeout_s=2)
        assert client.call("X", {}, timeout_s=2) == {"again": 1}
        assert len(server.lines) == 2

    def test_aws_client_call_closed_new_connection_is_a_lost_answer(self, server: Server, client: AwsClient) -> None:
        server.talks = [raw(b"")]
        with pytest.raises(Retryable) as failure:
            client.call("X", {}, timeout_s=2)
        assert failure.value.answer_lost
        assert len(server.lines) == 1

    def test_aws_client_call_connection_broken_in_answer_is_not_retried(
        self, server: Server, client: AwsClient
    ) -> None:
        def talk(line: Line) -> None:
            line.read()
            line.write(b"{}")
            line.read()
            line.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")

        server.talks = [talk]
        client.call("X", {}, timeout_s=2)
        with pytest.raises(Retryable, match="broke off"):
            client.call("X", {}, timeout_s=2)
        assert len(server.lines) == 1

    def test_aws_client_call_connection_idle_too_long_is_not_reused(
        self, server: Server, client: AwsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.talks = [answers(b"{}", b"{}")]
        client.call("X", {}, timeout_s=2)
        monkeypatch.setattr(light_client, "MAX_IDLE_S", -1)
        client.call("X", {}, timeout_s=2)
        assert len(server.lines) == 2

    def test_aws_client_call_connection_close_header_is_respected(self, server: Server, client: AwsClient) -> None:
        server.talks = [answers(b"{}", headers="Connection: close\r\n")]
        for _ in range(2):
            client.call("X", {}, timeout_s=2)
        assert [len(line.requests) for line in server.lines] == [1, 1]

    def test_aws_client_call_chunked_answer_is_read(self, server: Server, client: AwsClient) -> None:
        server.talks = [
            raw(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4;x=y\r\n":1}\r\n0\r\n\r\n')
        ]
        assert client.call("X", {}, timeout_s=2) == {"a": 1}

    @pytest.mark.parametrize("size", [1, 7, 1_000])
    def test_aws_client_call_fragmented_answer_is_read(self, server: Server, client: AwsClient, size: int) -> None:
        def talk(line: Line) -> None:
            line.read()
            whole = b'HTTP/1.1 200 OK\r\ncontent-LENGTH:  9\r\n\r\n{"ab":12}'
            line.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(whole), size):
                line.connection.sendall(whole[start : start + size])

        server.talks = [talk]
        assert client.call("X", {}, timeout_s=2) == {"ab": 12}

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}",
            b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html/>!!",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"80000\r\n" + b"x" * 0x80000 + b"\r\n80001\r\n",
            b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
            b"\xff" * 100_000,
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
        ],
    )
    def test_aws_client_call_malformed_answer_is_a_lost_answer(
        self, server: Server, client: AwsClient, answer: bytes
    ) -> None:
        server.talks = [raw(answer)]
        with pytest.raises(Retryable) as failure:
            client.call("X", {}, timeout_s=2)
        assert failure.value.answer_lost

    def test_aws_client_call_after_malformed_answer_uses_new_connection(
        self, server: Server, client: AwsClient
    ) -> None:
        server.talks = [answers(b"no JSON"), answers(b"{}")]
        with pytest.raises(Retryable):
            client.call("X", {}, timeout_s=2)
        assert client.call("X", {}, timeout_s=2) == {}


class TestTimeouts:
    def test_aws_client_call_silent_server_ends_at_timeout(self, server: Server, client: AwsClient) -> None:
        server.talks = [lambda line: wait(server)]
        assert_ends_in(0.3, client, answer_lost=True)

    def test_aws_client_call_slowly_sent_answer_ends_at_timeout(self, server: Server, client: AwsClient) -> None:
        """Each byte arrives in time, the whole does not: the limit holds for the whole response."""

        def talk(line: Line) -> None:
            line.read()
            while not server.ended.wait(0.02):
                line.connection.sendall(b"H")

        server.talks = [talk]
        assert_ends_in(0.3, client, answer_lost=True)

    def test_aws_client_call_silent_name_service_ends_at_timeout_unsent(
        self, client: AwsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: answered.wait(5) and [])
        try:
            assert_ends_in(0.3, client, answer_lost=False)
        finally:
            answered.set()

    def test_aws_client_call_connection_refused_is_not_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(Retryable, match="ConnectionRefusedError") as failure:
            AwsClient("sqs", "AmazonSQS").call("X", {}, timeout_s=1)
        assert not failure.value.answer_lost

    def test_aws_client_call_first_address_unreachable_uses_second(
        self, server: Server, client: AwsClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.talks = [answers(b"{}")]
        with socket.create_server(("127.0.0.1", 0)) as free:
            closed = free.getsockname()
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (closed, ("127.0.0.1", server.port))
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        assert client.call("X", {}, timeout_s=1) == {}

    def test_aws_client_call_unknown_name_is_not_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://portaria.invalid")

        def fail(*args: object, **options: object) -> Any:
            raise socket.gaierror

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(Retryable, match="gaierror") as failure:
            AwsClient("sqs", "AmazonSQS").call("X", {}, timeout_s=1)
        assert not failure.value.answer_lost


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            ("400 Bad Request", "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"),
            ("400 Bad Request", "com.amazonaws.dynamodb.v20120810#ThrottlingException"),
            ("400 Bad Request", "com.amazonaws.sqs#RequestThrottled"),
            ("400 Bad Request", "com.amazonaws.sqs#KmsThrottled"),
            ("429 Too Many Requests", "x#Unheard"),
            ("500 Internal Server Error", "x#InternalServerError"),
            ("503 Service Unavailable", "x#Unheard"),
        ],
    )
    def test_aws_client_call_temporary_error_is_retryable(
        self, server: Server, client: AwsClient, status: str, code: str
    ) -> None:
        server.talks = [answers(json.dumps({"__type": code, "message": "m"}).encode(), status=status)]
        with pytest.raises(Retryable, match=code.partition("#")[2]):
            client.call("X", {}, timeout_s=2)

    def test_aws_client_call_html_error_page_is_retryable(self, server: Server, client: AwsClient) -> None:
        server.talks = [answers(b"<html>502 Bad Gateway</html>", status="502 Bad Gateway")]
        with pytest.raises(Retryable, match="HTTP 502"):
            client.call("X", {}, timeout_s=2)

    def test_aws_client_call_permanent_error_is_an_aws_error(self, server: Server, client: AwsClient) -> None:
        body = {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "The specified queue does not exist."}
        server.talks = [answers(json.dumps(body).encode(), b"{}", status="400 Bad Request")]
        with pytest.raises(AwsError, match="does not exist") as error:
            client.call("SendMessage", {}, timeout_s=2)
        assert (error.value.code, error.value.status) == ("QueueDoesNotExist", 400)

    def test_aws_client_call_error_does_not_quote_credentials(self, server: Server, client: AwsClient) -> None:
        """AWS answers a wrong signature with the request that it expected, session token included."""
        quoted = (
            "The Canonical String for this request should have been 'POST\n/\n\nx-amz-security-token:session-token'"
        )
        bodies = [
            json.dumps({"__type": f"x#{code}", "message": quoted}).encode()
            for code in (
                "InvalidSignatureException",
                "SignatureDoesNotMatch",
                "UnrecognizedClientException",
                "Throttling",
            )
        ]
        server.talks = [answers(*bodies, b"session-token testing", status="400 Bad Request")]
        for _ in range(5):
            with pytest.raises((AwsError, Retryable)) as error:
                client.call("X", {}, timeout_s=2)
            assert "session-token" not in repr(error.value) + str(error.value)
            assert error.value.__cause__ is None


class TestTls:
    @pytest.fixture
    def call(self, tmp_path: Path, authority: trustme.CA) -> Iterator[Callable[..., dict[str, Any]]]:
        """Call a server whose certificate names `name`; the environment variable `by` names `trusted`."""
        servers = []

        def call(name: str, trusted: trustme.CA, by: str = "AWS_CA_BUNDLE") -> dict[str, Any]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(name).configure_cert(context)
            server = Server(context)
            servers.append(server)
            server.talks = [answers(b'{"a":1}', b'{"b":2}')]
            bundle = tmp_path / "ca.pem"
            trusted.cert_pem.write_to_path(bundle)
            environment = {"AWS_ENDPOINT_URL": f"https://localhost:{server.port}", by: str(bundle)}
            with patch.dict(os.environ, environment), patch.dict(light_client._contexts, clear=True):
                client = AwsClient("sqs", "AmazonSQS")
                try:
                    return client.call("X", {}, timeout_s=2) | client.call("X", {}, timeout_s=2)
                finally:
                    client.close()

        yield call
        for server in servers:
            server.close()

    def test_aws_client_tls_trusted_server_is_accepted(
        self, call: Callable[..., dict[str, Any]], authority: trustme.CA
    ) -> None:
        assert call("localhost", authority) == {"a": 1, "b": 2}

    def test_aws_client_tls_authority_of_system_store_is_accepted(
        self, call: Callable[..., dict[str, Any]], authority: trustme.CA
    ) -> None:
        """Given an endpoint that Amazon's roots do not verify, then the system's certificate store decides."""
        assert call("localhost", authority, by="SSL_CERT_FILE") == {"a": 1, "b": 2}

    @pytest.mark.parametrize("by", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_aws_client_tls_certificate_of_another_name_is_refused(
        self, call: Callable[..., dict[str, Any]], authority: trustme.CA, by: str
    ) -> None:
        with pytest.raises(Retryable, match=r"certificate to trust .*Hostname mismatch"):
            call("sqs.example.com", authority, by)

    @pytest.mark.parametrize("by", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_aws_client_tls_certificate_of_another_authority_is_refused(
        self, call: Callable[..., dict[str, Any]], by: str
    ) -> None:
        with pytest.raises(Retryable, match="certificate to trust"):
            call("localhost", trustme.CA(), by)

    def test_aws_client_amazon_roots_are_known_and_valid_for_two_years(self) -> None:
        context = ssl.create_default_context(cafile=light_client.AMAZON_ROOTS)
        usual = ssl.create_default_context(cafile=certifi.where()).get_ca_certs(binary_form=True)
        assert len(context.get_ca_certs()) == 5
        assert set(context.get_ca_certs(binary_form=True)) <= set(usual)
        in_two_years = time.time() + 2 * 365 * 86_400
        assert all(ssl.cert_time_to_seconds(str(root["notAfter"])) > in_two_years for root in context.get_ca_certs())


def wait(server: Server) -> None:
    server.ended.wait(5)


def assert_ends_in(timeout_s: float, client: AwsClient, *, answer_lost: bool) -> None:
    started = time.monotonic()
    with pytest.raises(Retryable) as failure:
        client.call("X", {}, timeout_s=timeout_s)
    assert timeout_s * 0.9 < time.monotonic() - started < timeout_s + 0.5
    assert failure.value.answer_lost is answer_lost
