"""Hostile calls: whatever a caller, a redirect or a DNS server says, no byte reaches a host outside the allowed domain.

Each case runs through the function itself, down to the socket, where each lookup and each dial is recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trustme

from portaria.connections import connection_store
from portaria.outbound import http_client, http_exchange
from tests.fakes.api.calling import Calling
from tests.fakes.aws.moto_cloud import cloud
from tests.fakes.internet import ADDRESS, OK, Internet, Server, answering, internet, redirect
from tests.fakes.paths import HOSTILE_URLS as CORPUS

pytestmark = pytest.mark.enable_socket

HOST = "acme.kommo.com"
WILDCARD = "*.kommo.com"
URLS = [json.loads(line) for line in CORPUS.read_text().splitlines() if line and not line.startswith("#")]

# Paths that may be read as the host. Each is refused or reaches the allowed host.
PATHS = [
    "//evil.example/", "///evil.example/", "////evil.example", "/\\evil.example/", "/\\/evil.example", "\\\\evil.example",
    "@evil.example/", "/@evil.example/", ":443@evil.example/", ":x@evil.example", ".evil.example/", "evil.example",
    ":8443/", ":80/", ":0443/", ":443/", "?@evil.example/", "#@evil.example/", ";@evil.example/", "%2f%2fevil.example",
    "/%2e%2e/%2e%2e/@evil.example", "/..//evil.example/", "/../../../evil.example", "/%00@evil.example", "/\x00", "/\r\n",
    "/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "/%0d%0aHost:%20evil.example", "/\r\nX-Injected: yes", "/\tx", "/\u3002/",
    "/\uff0fevil.example", "/\u2028", "/\u202egnp", "/\ud800", "/\u560d\u560a", "/x y", "https://evil.example/", "//", "/;/..",
    "/https://evil.example/", "/?url=https://evil.example/", "/.evil.example/", "/[::1]/", "//169.254.169.254/latest/meta-data",
    "//[::ffff:a9fe:a9fe]/", "//2852039166/", "//127.1/", "//localhost:9001/2018-06-01/runtime/invocation/next",
    "/{host}", "/${jndi:ldap://evil.example/}", "/%", "/%zz", "/" + "../" * 500, "/" + "a" * 9_000,
]  # fmt: skip

# Hosts below the wildcard, and the addresses that a hostile DNS server returns for them.
INWARDS = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.0.0.53", "169.254.169.254", "169.254.170.2", "169.254.170.23",
    "169.254.100.1", "172.16.0.1", "192.0.0.192", "192.168.1.1", "198.18.0.1", "203.0.113.7", "224.0.0.251", "255.255.255.255",
    "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "::127.0.0.1", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:5601:5601", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "3fff::1",
]  # fmt: skip

LOCATIONS = [
    "http://acme.kommo.com/", "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "https://169.254.169.254/latest/meta-data/", "https://169.254.170.2/v2/credentials", "https://[fd00:ec2::254]/latest/",
    "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next", "https://127.0.0.1/", "https://127.1/", "https://2130706433/",
    "https://0x7f000001/", "https://0177.0.0.1/", "https://0/", "https://localhost/", "https://[::1]/", "https://[::]/",
    "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://10.0.0.1/", "https://192.168.0.1/",
    "https://100.64.0.1/", "https://evil.example/", "//evil.example/", "https:\\\\evil.example/", "https:/\\evil.example/",
    "/\\evil.example/", "\\\\evil.example", "https://kommo.com.evil.example/", "https://evilkommo.com/", "https://kommo.com@evil/",
    "https://acme.kommo.com@evil.example/", "https://acme.kommo.com:443@evil.example/", "https://evil.example#.kommo.com/",
    "https://evil.example?.kommo.com/", "https://evil.example%2f.kommo.com/", "https://evil.example%00.kommo.com/",
    "https://evil.example\\.kommo.com/", "https://evil.example;.kommo.com/", "https://acme.kommo.com:8443/",
    "https://acme.kommo.com:80/", "https://acme.kommo.com:0443/", "https://acme.kommo.com:443:443/", "https://user@acme.kommo.com/",
    "https://acme.kommo.com./", "https://.kommo.com/", "https://a..kommo.com/", "https://*.kommo.com/", "https://-.kommo.com/",
    "https://evil.example\t.kommo.com/", "ht\ttps://evil.example/", "\x01https://evil.example/", "https://acme.kommo.com\x00.evil/",
    "https://acme\u3002kommo\u3002com/", "https://\u00e4cme.kommo.com/", "https://acme.komm\u00f8.com/", "https://xn--/",
    "ftp://acme.kommo.com/", "file:///etc/passwd", "gopher://evil.example/", "data:text/html,x", "javascript:alert(1)",
    "jar:https://acme.kommo.com/!/", "wss://acme.kommo.com/", "unix:///var/run/docker.sock", "https://", "https://[", "https://a:b:c/",
    "//", "///", "https:///evil.example/", "https:evil.example", "?@evil.example", "#@evil.example", ";x=https://evil.example/",
]  # fmt: skip


@pytest.fixture(scope="module")
def calling() -> Iterator[Calling]:
    with cloud() as stack:
        calling = Calling(stack)
        connected = {
            "narrow": calling.connect("narrow", allowed_domain=HOST),
            "wide": calling.connect("wide", allowed_domain=WILDCARD),
        }
        # The fake table takes longer for an item than all the rest.
        with patch.object(connection_store, "get", lambda table, name: connected[name]):
            yield calling


@pytest.fixture(scope="module")
def server(authority: trustme.CA) -> Iterator[Server]:
    """The one host that may be reached."""
    server = Server(authority, HOST)
    yield server
    server.close()


@pytest.fixture
def net(server: Server, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    server.requests.clear()
    server.scripts = [answering(OK)]
    with internet() as outside:
        outside.names[HOST] = [ADDRESS]
        outside.routes[ADDRESS] = server.port
        yield outside
        http_exchange.transport.close()


def assert_nothing_reached(net: Internet) -> None:
    assert net.looked_up == []
    assert net.dialled == []


def assert_only_the_host_reached(net: Internet) -> None:
    assert set(net.looked_up) <= {HOST}
    assert set(net.dialled) <= {(ADDRESS, 443)}


def test_hostile_call_corpus_is_large_and_unique() -> None:
    cases = [*URLS, *PATHS, *INWARDS, *LOCATIONS]
    assert len(cases) >= 400
    for group in (URLS, PATHS, INWARDS, LOCATIONS):
        assert len(set(group)) == len(group)


@pytest.mark.parametrize("url", URLS, ids=lambda url: ascii(url)[1:61])
def test_call_connection_hostile_url_reaches_no_host(calling: Calling, net: Internet, url: str) -> None:
    answer = calling.call({"method": "POST", "url": url, "body": "x"}, "narrow")
    assert answer.status == 400
    assert_nothing_reached(net)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path)[1:61])
def test_call_connection_hostile_path_reaches_only_its_host(
    calling: Calling, net: Internet, server: Server, path: str
) -> None:
    answer = calling.call({"method": "GET", "path": path, "query": {"a": "@evil.example/"}}, "narrow")
    assert answer.status in (200, 400)
    assert_only_the_host_reached(net)
    assert len(server.requests) == (answer.status == 200)
    for request in server.requests:
        head = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert head[0].startswith(b"GET /")
        assert head[0].endswith(b" HTTP/1.1")
        assert [line for line in head if line.lower().startswith(b"host:")] == [f"Host: {HOST}".encode()]
        assert not any(line.startswith(b"X-Injected") for line in head)


@pytest.mark.parametrize("address", INWARDS)
def test_call_connection_name_with_private_address_is_not_dialled(
    calling: Calling, net: Internet, address: str
) -> None:
    """Given a name that also has a public address, then that address is not dialled either."""
    net.names["inside.kommo.com"] = [ADDRESS, address]
    answer = calling.call({"method": "GET", "url": "https://inside.kommo.com/"}, "wide")
    assert answer.content["type"] == "urn:portaria:problem:address_not_allowed"
    assert net.dialled == []


@pytest.mark.parametrize("location", LOCATIONS, ids=lambda location: ascii(location)[1:61])
def test_call_connection_hostile_redirect_reaches_no_other_host(
    calling: Calling, net: Internet, server: Server, location: str
) -> None:
    """Given an allowed host, when it redirects to a hostile one, then that one is not even looked up."""
    server.scripts = [answering(redirect(302, location)), answering(OK)]
    answer = calling.call({"method": "GET", "url": f"https://{HOST}/start"}, "wide")
    assert_only_the_host_reached(net)
    # A few name no host, so they stay on the first one. A head that contains a null byte is no response.
    assert answer.status in (200, 502) or (answer.status == 504 and "\x00" in location)
    if answer.status == 502:
        assert answer.content["type"] == "urn:portaria:problem:redirect_not_allowed"
        assert len(server.requests) == 1


@pytest.mark.parametrize("address", INWARDS)
def test_call_connection_redirect_to_private_address_is_not_dialled(
    calling: Calling, net: Internet, server: Server, address: str
) -> None:
    net.names["inside.kommo.com"] = [address]
    server.scripts = [answering(redirect(307, "https://inside.kommo.com/latest/meta-data/"))]
    answer = calling.call({"method": "GET", "url": f"https://{HOST}/start"}, "wide")
    assert answer.content["type"] == "urn:portaria:problem:address_not_allowed"
    assert net.dialled == [(ADDRESS, 443)]


@pytest.mark.parametrize(
    "changes",
    [
        {"body": "x" * 1_000_001},
        {"body": "x" * 3_000_000},
        {"body_base64": "eHh4" * 400_000},
        {"json": ["x" * 1_000_000]},
        {"headers": {"x": "y" * 8_192}},
        {"headers": {f"x-{number}": "y" for number in range(51)}},
        {"headers": {"X": "a\r\nHost: evil.example"}},
        {"headers": {"X\r\nHost": "evil.example"}},
        {"headers": {"Host": "evil.example"}},
        {"headers": {"X": "a\nTransfer-Encoding: chunked\r\n\r\nGET / HTTP/1.1"}},
        {"headers": {"Content-Length": "0"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"X-Forwarded-Host": "evil.example"}},
        {"headers": {"Connection": "X-Api-Key"}},
        {"headers": {"Proxy-Authorization": "Basic x"}},
        {"query": {"a\r\nHost": "evil.example"}, "path": "/\r\n"},
        {"method": "POST https://evil.example/ HTTP/1.1\r\n"},
        {"method": "CONNECT"},
    ],
    ids=lambda changes: ascii(changes)[1:61],
)
def test_call_connection_hostile_body_or_header_reaches_no_host(
    calling: Calling, net: Internet, changes: dict[str, Any]
) -> None:
    answer = calling.call({"method": "POST", "path": "/", **changes}, "narrow")
    assert answer.status in (400, 413)
    assert_nothing_reached(net)


def test_hostile_url_fixture_records_allowed_and_leaked_calls(calling: Calling, net: Internet, server: Server) -> None:
    """Given a valid call and one that the guard allows, then both are recorded; otherwise all cases would pass."""
    assert calling.call({"method": "GET", "path": "/"}, "narrow").status == 200
    assert (net.looked_up, net.dialled) == ([HOST], [(ADDRESS, 443)])
    assert b"canary" in server.requests[0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(http_client, "host_allowed", lambda host, domain: True)
        calling.call({"method": "GET", "url": "https://evil.example/"}, "narrow")
    assert net.looked_up == [HOST, "evil.example"]
    assert len(net.dialled) == 2
