"""A server that misbehaves between two requests: no answer ever reaches another caller than the one that it is for.

Each pair is two requests to one host, in a process that keeps its connections. The first is answered in one of the ways of
`tests/faults/hostile/servers.py`; the second is sent at once, or when all of the first answer has arrived. The two are made
for two owners, or for one: then the second may come over the first one's connection.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request, Response
from portaria.outbound import http_client, http_exchange
from portaria.outbound.http_transport import Limits, _Connection
from tests.fakes.internet import ADDRESS, Internet, internet
from tests.faults.hostile.servers import WAYS, MisbehavingServer, Way, body_of

pytestmark = pytest.mark.enable_socket

RESULT = Path("build/faults/misbehaving_servers.json")
HOST = "login.example.com"
LONG_PAIRS = 1_000
# A request without response in this time is given up; a late response comes after it.
SHORT_S = 0.1
# The timeout of requests that must be answered, even on a busy machine.
LONG_S = 5.0


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    server = MisbehavingServer(authority, HOST)
    yield server
    server.close()


@pytest.fixture
def net(server: MisbehavingServer) -> Iterator[Internet]:
    with internet() as outside:
        outside.names[HOST] = [ADDRESS]
        outside.routes[ADDRESS] = server.port
        yield outside


def send(account: str, owner: str, read_timeout_s: float, method: str = "POST") -> Response | None:
    """The response, or None if the caller is told that none came or that it is unusable."""
    body = b"grant_type=refresh_token" if method == "POST" else None
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    request = Request(
        method,
        f"https://{HOST}/{account}",
        headers,
        body,
        read_timeout_s=read_timeout_s,
        total_timeout_s=10.0,
        max_response_bytes=200_000,
    )
    with suppress(Rejected, Retryable):
        return http_client.send(request, allowed_domain=HOST, owner=owner)
    return None


class Pair(NamedTuple):
    way: Way
    immediately: bool
    one_owner: bool

    def __str__(self) -> str:
        when, owners = "immediate" if self.immediately else "settled", "one owner" if self.one_owner else "two owners"
        return f"{self.way.name}, {when}, {owners}"


def accounts_in(response: Response | None) -> set[str]:
    """The accounts whose tokens a response contains."""
    return set(re.findall(r"-of-([A-Za-z0-9-]+)", f"{response.body!r} {response.headers}")) if response else set()


def try_pair(server: MisbehavingServer, net: Internet, pair: Pair, number: int) -> list[str]:
    """What went wrong in one pair: empty if each caller got its own response, or an error."""
    way, immediately = pair.way, pair.immediately
    http_exchange.transport.close()
    net.dialled.clear()
    first, second = f"A{number}", f"B{number}"
    server.misbehave(way, first)
    try:
        a = send(first, "one" if pair.one_owner else "first", LONG_S if way.harmless else SHORT_S, way.method)
        if not immediately:
            assert server.sent.wait(10)
        b = send(second, "one" if pair.one_owner else "second", LONG_S)
    except Exception as unexpected:
        return [f"raised {type(unexpected).__name__}"]

    wrong = []
    if accounts_in(a) - {first} or accounts_in(b) - {second}:
        wrong.append("mixed_up")
    if b is None:
        wrong.append("second request not answered")
    if b is not None and (b.status, b.body) != (200, body_of(second)):
        wrong.append("mixed_up" if b.status != 200 else "second answer not whole")
    if way.harmless and (a is None or (a.status, a.body) != (200, body_of(first))):
        wrong.append("first answer not whole")
    if len(net.dialled) != 1 and way.harmless and pair.one_owner:
        wrong.append("connection not kept")
    if len(net.dialled) != 2 and not pair.one_owner:
        wrong.append("connection used for another owner")
    return wrong


def test_http_client_misbehaving_server_answer_never_reaches_another_caller(
    server: MisbehavingServer, net: Internet, long: bool
) -> None:
    # An unrequested response that arrives during a request cannot be told from its response: only the owner protects.
    pairs = [
        Pair(way, immediately, one_owner)
        for way in WAYS
        for immediately in (False, True)
        for one_owner in (False, True)
        if not (way.stray and immediately and one_owner)
    ]
    if not long:
        # The others repeat these with another timing, or never use a connection twice.
        pairs = [pair for pair in pairs if pair.one_owner is not (pair.way.stray and pair.immediately)]
        pairs = [pair for pair in pairs if not pair.immediately or pair.way.stray or pair.way.harmless]
    if long:
        order = random.Random(13)
        while len(pairs) < LONG_PAIRS:
            pairs += order.sample(pairs, len(pairs))
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for number, pair in enumerate(pairs):
        found = try_pair(server, net, pair, number)
        counts.update(found)
        wrong += [f"{pair}: {each}" for each in found]
    figures = {"ways": len(WAYS), "pairs": len(pairs), "mixed_up": counts["mixed_up"]}
    if long or not RESULT.exists():
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nmisbehaving servers: {figures}")

    assert not wrong, "\n".join(sorted(set(wrong)))
    assert len(WAYS) >= 30
    assert len(pairs) >= (LONG_PAIRS if long else 30)


@pytest.mark.parametrize(
    ("cls", "method", "bug", "way", "immediately", "one_owner", "caught_as"),
    [
        (_Connection, "is_reusable", lambda self: True, "two answers at once", False, True, "mixed_up"),
        (_Connection, "is_silent", lambda self: True, "a second answer later", False, True, "mixed_up"),
        (Limits, "owner", "", "a second answer later", True, False, "connection used for another owner"),
    ],
)
def test_http_client_misbehaving_server_planted_bug_is_caught(
    server: MisbehavingServer,
    net: Internet,
    monkeypatch: pytest.MonkeyPatch,
    cls: type,
    method: str,
    bug: object,
    way: str,
    immediately: bool,
    one_owner: bool,
    caught_as: str,
) -> None:
    (chosen,) = [each for each in WAYS if each.name == way]
    monkeypatch.setattr(cls, method, bug)
    assert caught_as in try_pair(server, net, Pair(chosen, immediately, one_owner), 1)
