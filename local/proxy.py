"""A TLS egress proxy that connects the platforms' hosts to their simulators, refuses all other hosts, and counts both.

Run as `python -m local.proxy`. It accepts only CONNECT and terminates TLS with a certificate of the local authority, so the
product connects to `https://acme.kommo.com` exactly as in production. Clients also reach the deployed REST API through it,
under the name that it would have on AWS (`{api}.execute-api.us-east-1.amazonaws.com`).

The proxy resolves no names. A host is allowed if it matches a pattern below, in lower case. Everything else is refused: IP
addresses, private names, ports other than 443, trailing dots and look-alikes. The proxy itself answers these requests:

| request | what it does |
|---|---|
| `GET /hosts` | returns the counts as JSON |
| `DELETE /hosts` | resets the counts |
| `PUT /application?port=8321` | connects `APPLICATION_HOST` to this port, where an application of a developer listens |
| `DELETE /application` | refuses `APPLICATION_HOST` again, as at the start |
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import socket
import ssl
from dataclasses import asdict, dataclass, field

LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"

# Patterns as in certificates: a star is one label.
PLATFORM_HOSTS = (
    "*.kommo.com",
    "*.amocrm.com",
    "*.amocrm.ru",
    "*.mktorest.com",
    "mkto-ingestion-api.adobe.io",
    "services.leadconnectorhq.com",
    "my.engage.bz",
    "sandbox.engage.bz",
    "one.engage.bz",
    "static.adobeioevents.com",
    "csm.adobe.io",
    # Simulated OAuth 2.0 providers. The domain is reserved for examples (RFC 2606).
    "*.oauth.example.net",
)
API_HOST = "*.execute-api.us-east-1.amazonaws.com"
# The application of Portaria's user, to which webhooks are sent. The domain is reserved for examples.
APPLICATION_HOST = "app.example.net"

HEAD_LIMIT_BYTES = 16_384
HEAD_TIMEOUT_S = 10.0
HOSTS_KEPT = 20_000
MAX_PORT = 65_535


def matches(host: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", LABEL), host) is not None


@dataclass
class Allowed:
    """Traffic of one host: connections, and bytes inside the TLS tunnel in both directions."""

    connections: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclass
class Hosts:
    """The requested hosts since the last reset. For a refused host only the attempts are counted, since no byte is sent."""

    allowed: dict[str, Allowed] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, host: str) -> None:
        if host in self.refused or len(self.refused) < HOSTS_KEPT:
            self.refused[host] = self.refused.get(host, 0) + 1


class Proxy:
    def __init__(self, tls: ssl.SSLContext, simulators_port: int, gateway_port: int) -> None:
        self.tls = tls
        self.simulators_port = simulators_port
        self.gateway_port = gateway_port
        self.application_port: int | None = None
        self.hosts = Hosts()

    def port_for(self, host: str, port: str) -> int | None:
        """The local port for `host`, or None if the host is refused."""
        if port != "443":
            return None
        if matches(host, API_HOST):
            return self.gateway_port
        if host == APPLICATION_HOST:
            return self.application_port
        if any(matches(host, pattern) for pattern in PLATFORM_HOSTS):
            return self.simulators_port
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError):
            await self.answer(reader, writer)
        writer.transport.abort()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                await respond(writer, "431 Request Header Fields Too Large")
                return
        method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        target = rest.partition(" ")[0]
        if target == "/hosts":
            await self.answer_hosts(method, writer)
        elif target.partition("?")[0] == "/application":
            await self.answer_application(method, target, writer)
        elif method != "CONNECT":
            self.hosts.refuse(target[:255])
            await respond(writer, "403 Forbidden", {"error": "only CONNECT to port 443 is allowed"})
        else:
            host, _, port = target.rpartition(":")
            destination = self.port_for(host, port)
            if destination is None:
                self.hosts.refuse(target.removesuffix(":443")[:255])
                await respond(writer, "403 Forbidden", {"error": "the local cloud does not allow this host"})
            else:
                await self.tunnel(host, destination, reader, writer)

    async def answer_hosts(self, method: str, writer: asyncio.StreamWriter) -> None:
        if method == "DELETE":
            self.hosts = Hosts()
        await respond(writer, "200 OK", asdict(self.hosts))

    async def answer_application(self, method: str, target: str, writer: asyncio.StreamWriter) -> None:
        found = re.fullmatch(r"/application\?port=([1-9][0-9]{0,4})", target)
        if method == "PUT" and found and int(found[1]) <= MAX_PORT:
            self.application_port = int(found[1])
        elif method == "DELETE":
            self.application_port = None
        elif method != "GET":
            await respond(writer, "400 Bad Request", {"error": "PUT /application?port=8321, or DELETE /application"})
            return
        await respond(writer, "200 OK", {"host": APPLICATION_HOST, "port": self.application_port})

    async def tunnel(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        traffic = self.hosts.allowed.setdefault(host, Allowed())
        traffic.connections += 1
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await respond(writer, "502 Bad Gateway", {"error": "nothing answers at the local port of this host"})
            return

        async def send() -> None:
            while data := await reader.read(65_536):
                traffic.bytes_sent += len(data)
                inner_writer.write(data)
                await inner_writer.drain()

        async def receive() -> None:
            while data := await inner_reader.read(65_536):
                traffic.bytes_received += len(data)
                writer.write(data)
                await writer.drain()
            # An orderly close is passed on as one. If a simulator drops the connection, it is dropped here too.
            writer.close()
            await writer.wait_closed()

        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            await writer.start_tls(self.tls, ssl_handshake_timeout=HEAD_TIMEOUT_S)
            directions = [asyncio.create_task(send()), asyncio.create_task(receive())]
            _, pending = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for direction in pending:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
        finally:
            inner_writer.transport.abort()


async def respond(writer: asyncio.StreamWriter, status: str, body: object = None) -> None:
    content = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
    )
    writer.write("\r\n".join([*head, "", ""]).encode() + content)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def run(listener: socket.socket, proxy: Proxy) -> None:
    server = await asyncio.start_server(proxy.serve, sock=listener, limit=HEAD_LIMIT_BYTES)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="The local cloud's egress proxy.")
    parser.add_argument("--socket", type=int, required=True, help="file descriptor of the listening socket")
    parser.add_argument("--certificate", required=True, help="PEM file with the server's key and certificate")
    parser.add_argument("--simulators-port", type=int, required=True)
    parser.add_argument("--gateway-port", type=int, required=True)
    arguments = parser.parse_args()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(arguments.certificate)
    proxy = Proxy(tls, arguments.simulators_port, arguments.gateway_port)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(socket.socket(fileno=arguments.socket), proxy))


if __name__ == "__main__":
    main()
