"""Checks of what lies between this machine and the world: the clock, the API, the platforms."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request
from portaria.outbound import http_client
from portaria.overview.findings import FAIL, OK, SKIPPED, WARN, Finding, named
from portaria_cli.doctor.data import stored_state
from portaria_cli.doctor.deployment import MOST_SKEW_S, Deployment, off_by_s

MOST_HOSTS = 20
FORBIDDEN, REFUSED_METHOD = 403, 405
FROM_HERE = "tested from here, not from the functions"


def time(deployment: Deployment) -> Iterator[Finding]:
    """AWS's clock against this machine's: signatures are refused from five minutes on."""
    if not deployment.date:
        yield Finding("clock", SKIPPED, "no response had the time")
        return
    skew_s = off_by_s(deployment.date)
    if skew_s > MOST_SKEW_S:
        advice = "set this machine's clock (NTP); the functions have AWS's"
        yield Finding("clock", FAIL, f"this machine's clock is {skew_s:.0f} s off AWS's", advice)
    else:
        yield Finding("clock", OK, f"{skew_s:.0f} s off AWS's")


def api(deployment: Deployment) -> Iterator[Finding]:
    """The API answers whoever asks for its own description."""
    url = f"{deployment.outputs.get('ApiUrl', '').rstrip('/')}/v1/openapi.json"
    host = urlsplit(url).hostname or ""
    try:
        with deployment.network():
            status = http_client.send(Request("GET", url, read_timeout_s=25), allowed_domain=host, owner="").status
    except (Rejected, Retryable) as error:
        advice = "check whether a proxy or a firewall is between you and AWS; " + FROM_HERE
        yield Finding("API", FAIL, error.detail, advice)
        return
    if status == 200:
        yield Finding("API", OK, f"{host} answers")
    else:
        advice = "run `portaria logs manage`" if status >= 500 else "a firewall (WebAcl) may block you"
        yield Finding("API", FAIL, f"{host} answers {status}", advice)


def event_webhooks(deployment: Deployment) -> Iterator[Finding]:
    """A function URL answers by the function: it refuses a GET. At API Gateway, `api` has checked the host."""
    name, url = "event webhooks", deployment.outputs.get("EventsUrl", "").rstrip("/")
    host = urlsplit(url).hostname or ""
    if ".lambda-url." not in host:
        yield Finding(name, OK, "new addresses are at the API")
        return
    try:
        with deployment.network():
            request = Request("GET", f"{url}/events", read_timeout_s=25)
            status = http_client.send(request, allowed_domain=host, owner="").status
    except (Rejected, Retryable) as error:
        advice = "check whether a proxy or a firewall is between you and AWS; " + FROM_HERE
        yield Finding(name, FAIL, error.detail, advice)
        return
    if status == REFUSED_METHOD:
        yield Finding(name, OK, f"{host} answers")
    elif status == FORBIDDEN:
        advice = (
            "deploy again: `make deploy`; if it stays, a policy of your AWS organization forbids public function URLs: "
            "set WebhookEndpoint=api-gateway"
        )
        yield Finding(name, FAIL, f"{host} refuses public calls", advice)
    else:
        yield Finding(name, FAIL, f"{host} answers {status}", "run `portaria logs receive_events`")


def platforms(deployment: Deployment) -> Iterator[Finding]:
    """Every host that a connection or a client names answers something."""
    used = {
        connection.allowed_domain
        for connection in stored_state(deployment).connections
        if connection.state != "removed"
    }
    used |= {urlsplit(client.token_url).hostname or "" for client in stored_state(deployment).clients}
    # A domain with a wildcard names no host.
    hosts = sorted(host for host in used if host and not host.startswith("*."))
    fine = 0
    with deployment.network():
        for host in hosts[:MOST_HOSTS]:
            try:
                http_client.send(Request("HEAD", f"https://{host}/", read_timeout_s=5), allowed_domain=host, owner="")
                fine += 1
            except (Rejected, Retryable) as error:
                yield Finding("platforms", WARN, error.detail, f"check its name, and whether it is up; {FROM_HERE}")
    if fine or not hosts:
        more = f", the first of {len(hosts)}" if len(hosts) > MOST_HOSTS else ""
        told = f"{fine} answer{more}: {named(hosts[:MOST_HOSTS])}; {FROM_HERE}" if hosts else "no connection has a host"
        yield Finding("platforms", OK, told)
