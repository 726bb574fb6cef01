"""Which URLs a webhook may have: https, a public host under a registered domain, port 443, no user, no fragment."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from portaria.core.errors import Rejected
from portaria.core.http.messages import Request
from portaria.outbound import domain_rules, http_client

MAX_LENGTH = 1_000


def check(url: str) -> str:
    """Returns the URL as it is stored. Raises `Rejected` (`bad_url`, `address_not_allowed`) without quoting it.

    The host's addresses are checked now, so that a mistake is found early, and again with each connection.
    """
    if len(url) > MAX_LENGTH:
        raise _bad(f"may have {MAX_LENGTH} characters; this has {len(url)}")
    if not re.fullmatch(r"[\x21-\x7e]+", url) or "\\" in url:
        raise _bad("must be printable ASCII without spaces and backslashes")
    if "#" in url:
        raise _bad("must not have a fragment")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port
    except ValueError:
        raise _bad("is not valid") from None
    if parts.scheme != "https" or "@" in parts.netloc or port not in (None, 443):
        raise _bad("must begin with https:// and may have neither a user nor a port other than 443")
    if "*" in host:
        raise _bad("must not have a wildcard")
    try:
        domain_rules.check_allowed_domain(host)
    except Rejected as refused:
        raise _bad(f"has a host that is not allowed: {refused.detail.replace('allowed_domain', 'it')}") from None
    http_client.check(Request("POST", url), host)
    http_client.check_public(url)
    return url


def shown(url: str) -> str:
    """A URL without its query string, which may hold a token."""
    return url.partition("?")[0]


def _bad(rule: str) -> Rejected:
    return Rejected("bad_url", f"url {rule}", field="url")
