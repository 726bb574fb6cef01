"""A server that misbehaves between two requests: no answer ever reaches another caller than the one that it is for.

Each pair is two requests of two callers to one host, in a process that keeps its connections. The first is answered in one of
the ways of `tests/faults/misbehaviour.py`; the second is sent at once, or when all of the first answer has arrived.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from portaria import egress
from portaria.contract import Rejected, Request, Response, Retryable
from tests.fakes.internet import ADDRESS, Internet, internet
from tests.faults.misbehaviour import WAYS, MisbehavingServer, Way, body_of

pytestmark = pytest.mark.enable_socket

RESULT = Path("build/faults/misbehaving_servers.json")
HOST = "login.example.com"
LONG_PAIRS = 1_000
# An answer that comes too late comes after this.
READ_TIMEOUT_S = 0.15


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


def send(account: str, method: str = "POST") -> Response | None:
    """The answer, or None where the caller is told that none came or that it cannot be used."""
    body = b"grant_type=refresh_token" if method == "POST" else None
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    request = Request(
        method,
        f"https://{HOST}/{account}",
        headers,
        body,
        read_timeout_s=READ_TIMEOUT_S,
        total_timeout_s=5.0,
        max_response_bytes=200_000,
    )
    with suppress(Rejected, Retryable):
        return egress.send(request, allowed_domain=HOST)
    return None


def accounts_in(response: Response | None) -> set[str]:
    """The accounts whose tokens an answer holds."""
    return set(re.findall(r"-of-([A-Za-z0-9-]+)", f"{response.body!r} {response.headers}")) if response else set()


def try_pair(server: MisbehavingServer, net: Internet, way: Way, number: int, *, at_once: bool) -> list[str]:
    """What went wrong in one pair: empty where each caller got what was its own, or an error."""
    egress.forget_connections()
    net.dialled.clear()
    first, second = f"A{number}", f"B{number}"
    server.misbehave(way, first)
    try:
        a = send(first, way.method)
        if not at_once:
            assert server.sent.wait(10)
        b = send(second)
    except Exception as unexpected:
        return [f"raised {type(unexpected).__name__}"]

    wrong = []
    if accounts_in(a) - {first} or accounts_in(b) - {second}:
        wrong.append("mixed_up")
    if b is None and not (at_once and way.stray):
        wrong.append("second request not answered")
    if b is not None and (b.status, b.body) != (200, body_of(second)):
        wrong.append("mixed_up" if b.status != 200 else "second answer not whole")
    if way.harmless and (a is None or (a.status, a.body) != (200, body_of(first))):
        wrong.append("first answer not whole")
    if way.harmless and len(net.dialled) > 1:
        wrong.append("connection not kept")
    return wrong


def test_no_answer_reaches_another_caller(server: MisbehavingServer, net: Internet, long: bool) -> None:
    cases = [(way, at_once) for way in WAYS for at_once in (False, True) if not (at_once and way.stray)]
    if long:
        order = random.Random(13)
        while len(cases) < LONG_PAIRS:
            cases += order.sample(cases, len(cases))
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for number, (way, at_once) in enumerate(cases):
        found = try_pair(server, net, way, number, at_once=at_once)
        counts.update(found)
        wrong += [f"{way.name} ({'at once' if at_once else 'settled'}): {each}" for each in found]
    figures = {"ways": len(WAYS), "pairs": len(cases), "mixed_up": counts["mixed_up"]}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nmisbehaving servers: {figures}")

    assert not wrong, "\n".join(sorted(set(wrong)))
    assert len(WAYS) >= 30
    assert len(cases) >= (LONG_PAIRS if long else 30)
