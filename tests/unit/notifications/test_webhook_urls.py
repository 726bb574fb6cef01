"""The URLs of webhooks: public hosts only, checked at creation and at each connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import trustme

from portaria.core.callbacks import Secret
from portaria.core.errors import Rejected
from portaria.notifications import delivery_attempt, signatures, webhook_urls, webhooks
from portaria.notifications.deliveries import Delivery
from portaria.notifications.delivery_attempt import AttemptResult, SigningKeys
from portaria.notifications.webhooks import Webhook
from portaria.outbound import http_exchange
from portaria.outbound.http_transport import Transport
from tests.fakes.internet import ADDRESS, OK, Internet, Server, answering, internet, redirect

pytestmark = pytest.mark.enable_socket

HOST = "app.example.com"
URL = f"https://{HOST}/webhooks"
NOT_PUBLIC = (
    "127.0.0.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "192.0.2.1",
    "224.0.0.1", "::1", "fe80::1", "fd00:ec2::254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
)  # fmt: skip
BAD = (
    "http://app.example.com/", "ftp://app.example.com/", "https:app.example.com", "//app.example.com/", "app.example.com",
    "https://", "https:///path", "https://user@app.example.com/", "https://user:pass@app.example.com/",
    "https://app.example.com@10.0.0.1/", "https://app.example.com:8443/", "https://app.example.com:0/",
    "https://app.example.com:99999/", "https://app.example.com:x/", "https://app.example.com/#fragment",
    "https://app.example.com/\\@evil.example/", "https://app.example.com\\.evil.com/", "https://app.example.com/a b",
    "https://app.example.com/\n", "https://app.example.com/\x00", "https://app.example.com/é", "https://exämple.com/",
    "https://localhost/", "https://metadata/", "https://app/", "https://app.local/", "https://app.internal/",
    "https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/",
    "https://[::1]/", "https://[::ffff:169.254.169.254]/", "https://169.254.169.254/latest/meta-data/", "https://com/",
    "https://github.io/", "https://*.example.com/", "https://app_1.example.com/", "https://-app.example.com/",
    "https://app..example.com/", "https://.example.com/", "https://app.example.com./", "https://app.example.com%2eevil.com/",
    "https://app.example.com%00.evil.com/", "javascript:alert(1)", "file:///etc/passwd", "https://" + "a" * 64 + ".com/",
)  # fmt: skip


@pytest.fixture
def network() -> Iterator[Internet]:
    with internet() as fake:
        yield fake


@pytest.fixture
def server(
    authority: trustme.CA, tmp_path: Path, network: Internet, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    running = Server(authority, HOST)
    network.names[HOST] = [ADDRESS]
    network.routes[ADDRESS] = running.port
    with patch.object(http_exchange, "transport", Transport()):
        yield running
        http_exchange.transport.close()
    running.close()


@pytest.mark.parametrize("url", BAD)
def test_url_that_is_not_https_to_a_public_host_is_refused(network: Internet, url: str) -> None:
    with pytest.raises(Rejected) as refused:
        webhook_urls.check(url)
    assert (refused.value.reason, refused.value.field) == ("bad_url", "url")
    assert network.looked_up == []
    assert url.strip() == "" or url not in refused.value.detail


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_url_whose_name_leads_inward_is_refused(network: Internet, address: str) -> None:
    network.names[HOST] = [ADDRESS, address]
    with pytest.raises(Rejected, match="address_not_allowed"):
        webhook_urls.check(URL)


def test_url_whose_name_has_no_address_is_refused(network: Internet) -> None:
    network.names[HOST] = []
    with pytest.raises(Rejected, match="host_not_found"):
        webhook_urls.check(URL)


@pytest.mark.parametrize("url", [URL, f"https://{HOST}", f"https://{HOST}:443/a?b=c", "https://xn--exmple-cua.com/"])
def test_url_of_a_public_host_is_accepted(network: Internet, url: str) -> None:
    assert webhook_urls.check(url) == url
    assert network.dialled == []


def test_url_behind_a_proxy_is_not_looked_up(network: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    assert webhook_urls.check(URL) == URL
    assert network.looked_up == []


def test_shown_url_has_no_query_string() -> None:
    assert webhook_urls.shown(f"{URL}?token=canary") == URL


class Keys(SigningKeys):
    def __init__(self) -> None:
        self.secret = signatures.new_secret()

    def of(self, webhook: Webhook) -> list[Secret]:
        return [self.secret]


def attempted() -> AttemptResult:
    now = "2026-11-28T12:00:00.000Z"
    webhook = Webhook("wh_1", URL, ("*",), "", webhooks.ENABLED, now, "me", now, now, "sealed")
    delivery = Delivery("wh_1", "msg_1", "connection.ready", now, '{"type":"connection.ready"}', now)
    return delivery_attempt.attempt(webhook, delivery, Keys(), 3.0)


def test_attempt_posts_the_body(server: Server) -> None:
    result = attempted()
    assert (result.is_delivered, result.attempt.status) == (True, 200)
    (request,) = server.requests
    assert request.startswith(b"POST /webhooks HTTP/1.1\r\n")
    assert request.endswith(b'\r\n\r\n{"type":"connection.ready"}')


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_attempt_at_a_name_that_changed_its_address_dials_nothing(
    server: Server, network: Internet, address: str
) -> None:
    assert webhook_urls.check(URL) == URL
    network.names[HOST] = [address]
    result = attempted()
    assert (result.is_delivered, result.attempt.error) == (False, "address_not_allowed")
    assert network.dialled == []


def test_attempt_does_not_follow_a_redirect(server: Server, network: Internet) -> None:
    server.scripts = [answering(redirect(307, "https://169.254.169.254/"))]
    result = attempted()
    assert (result.is_delivered, result.attempt.status, result.attempt.error) == (False, 307, "redirect")
    assert len(network.dialled) == 1


def test_attempt_response_that_is_too_long_is_cut_and_counts(server: Server) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n"
    server.scripts = [answering(head + b"x" * 100_000)]
    result = attempted()
    assert (result.is_delivered, result.attempt.status) == (True, 200)


def test_attempt_refused_connection_is_a_failure(server: Server, network: Internet) -> None:
    network.routes.clear()
    assert attempted().attempt.error == "unreachable"


def test_attempt_connection_that_ends_is_a_failure(server: Server) -> None:
    server.scripts = [lambda tls: False, answering(OK)]
    assert attempted().attempt.error == "no_answer"
    assert attempted().is_delivered
