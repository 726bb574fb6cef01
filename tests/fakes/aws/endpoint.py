"""SQS and DynamoDB as an HTTP endpoint on loopback, answered by moto: for the path that talks to AWS without boto3.

Use it inside `tests.fakes.aws.moto_cloud.cloud()` and with sockets enabled.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from portaria.aws import service_clients

SERVICES = {"AmazonSQS": "sqs", "DynamoDB_20120810": "dynamodb"}


class Call(NamedTuple):
    service: str
    operation: str
    payload: dict[str, Any]


@dataclass
class Endpoint:
    """`calls` is what was asked, in order. `faults` says per `service` or `service.Operation` what to do instead of answering:
    `hang`, `drop` (close without a word), `drop_after` (do the work, then close), or an AWS error code to answer with."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)

    def operations(self) -> list[str]:
        return [f"{call.service}.{call.operation}" for call in self.calls]


def answer(service: str, operation: str, payload: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """AWS's response to one JSON call: the HTTP status and the body."""
    try:
        content = service_clients.boto3_client(service)._make_api_call(operation, payload)
    except ClientError as error:
        return 400, {"__type": f"com.amazonaws#{error.response['Error']['Code']}", "message": "moto says no"}
    content.pop("ResponseMetadata", None)
    return 200, content


@contextmanager
def aws_endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            prefix, _, operation = self.headers["X-Amz-Target"].partition(".")
            service = SERVICES[prefix]
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.calls.append(Call(service, operation, payload))
            fault = endpoint.faults.get(f"{service}.{operation}") or endpoint.faults.get(service)
            if fault in ("hang", "drop", "drop_after"):
                if fault == "drop_after":
                    answer(service, operation, payload)
                if fault == "hang":
                    endpoint.released.wait(30)
                self.close_connection = True
                return
            status, content = (400, {"__type": fault}) if fault else answer(service, operation, payload)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the caller has given up

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        endpoint.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield endpoint
        finally:
            endpoint.released.set()
            server.shutdown()
            thread.join()
