"""The client secret is posted to the host that `referer` names, and anyone may call the webhook: which hosts it refuses."""

from __future__ import annotations

import copy
import json
import math
import socket
from itertools import product
from typing import Any

import pytest

from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.errors import Rejected
from portaria.platforms.kommo import tokens
from tests.fakes.connections.accept_install import EVENTS, load_handler
from tests.fakes.paths import HOSTILE_REFERERS

CORPUS: dict[str, list[str]] = json.loads(HOSTILE_REFERERS.read_text())
REFERERS = [
    pytest.param(referer, id=f"{kind}-{ascii(referer)[1:-1][:60]}")
    for kind, group in CORPUS.items()
    for referer in group
]
CLIENT = OAuthClient("kommo", "crm", "client-id", "https://api.example.com/live/install/kommo/crm")


@pytest.fixture(scope="module")
def handler() -> Any:
    """It has read the OAuth client already, whose brand its pages show."""
    loaded = load_handler("http://127.0.0.1:9")
    loaded.clients._known["kommo", "crm"] = (math.inf, CLIENT, {})
    return loaded


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Records every name lookup and dial during a test, and blocks them."""
    seen: list[object] = []

    def refuse(*args: object, **options: object) -> None:
        seen.append(args)
        raise OSError("nothing may be dialled here")

    for name in ("getaddrinfo", "gethostbyname", "create_connection", "socket"):
        monkeypatch.setattr(socket, name, refuse)
    return seen


def test_hostile_referer_corpus_is_large_and_unique() -> None:
    values = [referer for group in CORPUS.values() for referer in group]
    assert len(values) >= 150
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("referer", REFERERS)
def test_accept_install_hostile_referer_is_refused_without_call(
    handler: Any, dialled: list[object], capsys: pytest.CaptureFixture[str], referer: str
) -> None:
    """Given a request that names another host, then it is refused, and neither AWS nor any host is called."""
    for event_name, spelling in product(("widget_hook", "browser_return"), ("referer", "referrer")):
        event = copy.deepcopy(EVENTS[event_name])
        query = event["multiValueQueryStringParameters"]
        del query["referer"]
        query[spelling] = [referer]

        answer = handler.handler(event, None)

        assert answer["statusCode"] == 400
        line, _metric = capsys.readouterr().out.splitlines()
        assert json.loads(line)["reason"] == "bad_referer"
        assert dialled == []


@pytest.mark.parametrize("referer", REFERERS)
def test_kommo_exchange_request_hostile_host_is_refused(dialled: list[object], referer: str) -> None:
    """Given such a host in the queue, when its code is to be exchanged, then no request is built."""
    with pytest.raises(Rejected, match="bad_referer"):
        tokens.exchange_request(CLIENT, Secret("client-secret"), referer, Secret("code"))
    assert dialled == []


@pytest.mark.parametrize("host", ["acme.kommo.com", "ACME.kommo.com", "a.kommo.com", "a-1.amocrm.ru", "0x.amocrm.com"])
def test_kommo_exchange_request_account_host_is_accepted(host: str) -> None:
    client = CLIENT._replace(api_domains="*.kommo.com *.amocrm.ru *.amocrm.com")
    request = tokens.exchange_request(client, Secret("client-secret"), host, Secret("code"))
    assert request.url.startswith(f"https://{host}/")


@pytest.mark.parametrize(
    ("registered", "host"),
    [
        ("", "anyone.amocrm.ru"),
        ("", "anyone.amocrm.com"),
        ("*.kommo.com", "ANYONE.amocrm.ru"),
        ("*.amocrm.ru", "acme.kommo.com"),
        ("acme.kommo.com", "other.kommo.com"),
    ],
)
def test_kommo_exchange_request_host_outside_client_domains_is_refused(registered: str, host: str) -> None:
    client = CLIENT._replace(api_domains=registered)
    with pytest.raises(Rejected, match="domain_not_registered") as refused:
        tokens.exchange_request(client, Secret("client-secret"), host, Secret("code"))
    assert "api_domains" in refused.value.detail
