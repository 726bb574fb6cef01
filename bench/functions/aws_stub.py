"""SQS and DynamoDB over TLS on loopback, answering at once. `python -m bench.functions.aws_stub DIRECTORY` prints its port.

Reading certificate authorities takes much of a cold start, so the server writes two bundles of production size into DIRECTORY,
and adds its own authority to each: `boto3.pem` has the authorities that boto3 ships, `signing.pem` the authorities of
`portaria.aws.light_client`.
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import botocore
import trustme

from portaria.aws import light_client

# What an operation (`X-Amz-Target`) with a body is answered with.
Answers = Callable[[str, bytes], bytes]

CLIENT = {"platform": "kommo", "name": "crm", "client_id": "client-id", "redirect_uri": "https://api.example.com/x"}


def answer(target: str, body: bytes) -> bytes:
    if target == "AmazonSQS.SendMessage":
        message = json.loads(body)["MessageBody"].encode()
        md5 = hashlib.md5(message, usedforsecurity=False).hexdigest()
        return json.dumps({"MessageId": "5fea7756-0ea4-451a-a703-a558b933e274", "MD5OfMessageBody": md5}).encode()
    if target == "DynamoDB_20120810.BatchGetItem":
        item = {"pk": "CLIENT#kommo#crm", **CLIENT}
        return json.dumps(
            {"Responses": {"portaria": [{name: {"S": value} for name, value in item.items()}]}, "UnprocessedKeys": {}}
        ).encode()
    if target == "DynamoDB_20120810.GetItem":
        return json.dumps({"Item": {name: {"S": value} for name, value in CLIENT.items()}}).encode()
    raise ValueError(target)


def serve(connection: socket.socket, tls: ssl.SSLContext, answers: Answers = answer) -> None:
    with tls.wrap_socket(connection, server_side=True) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = line.makefile("rb")
        while stream.readline():
            headers = {}
            while (header := stream.readline().decode().strip()) != "":
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            body = answers(headers["x-amz-target"], stream.read(int(headers["content-length"])))
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n\r\n"
            line.sendall(head.encode() + body)


def tell(port: int) -> None:
    print(port, flush=True)


def main(directory: Path, answers: Answers = answer, listening: Callable[[int], None] = tell) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    bundles = {
        "boto3.pem": Path(botocore.__file__).parent / "cacert.pem",
        "signing.pem": Path(light_client.AMAZON_ROOTS),
    }
    for name, bundle in bundles.items():
        (directory / name).write_bytes(bundle.read_bytes() + b"\n" + authority.cert_pem.bytes())
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        listening(server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            threading.Thread(target=serve, args=(connection, tls, answers), daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
