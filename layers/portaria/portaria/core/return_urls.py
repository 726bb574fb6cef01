"""Return URLs: the pages of the team's application that a customer is sent back to after an install.

An OAuth client registers `return_urls`. An entry is one whole URL, or a prefix that ends with `/*` and holds every URL below
that path. The same text must mean the same page to this module, to every browser (https://url.spec.whatwg.org) and to the
application's server, so whatever one of them might read in another way is refused: user information, backslashes, white space,
percent-encoding in a path, dot segments, empty segments, path parameters (`;`), fragments, upper case in a host, a default
port. What remains is compared character by character.

This module may be used on the webhooks' path: the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from portaria.core.error_roots import Rejected

MAX_ENTRIES = 10
MAX_ENTRY_LENGTH = 400
MAX_LENGTH = 2_000
ANY_BELOW = "/*"
# The parameters that the customer returns with.
INSTALL, STATUS = "install", "status"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A last label that begins with a digit could be read as an IPv4 address (`example.0x7f`).
_HOST = rf"(?:{_LABEL}\.){{1,20}}[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?"
_PORT = r"(?::(?P<port>[1-9][0-9]{0,4}))?"
# A developer's own machine is the only host that may be named without TLS (RFC 8252, 8.3, on loopback redirects).
_ORIGIN = rf"(?P<origin>https://(?P<host>{_HOST}|localhost){_PORT}|http://(?:localhost|127\.0\.0\.1)(?::(?P<open>[1-9][0-9]{{0,4}}))?)"
# Without the percent sign: servers differ in what they decode and how often. The application chooses its own paths.
_SEGMENT = r"[A-Za-z0-9._~!$&'()+,=:@-]"
_PATH = rf"(?P<path>/(?:{_SEGMENT}+/)*{_SEGMENT}*)"
# In a query everything but control characters may be percent-encoded. A semicolon would separate parameters for some servers.
# The quantifier is possessive, so that a long query takes no memory for backtracking.
_QUERY = (
    r"(?:\?(?P<query>(?:[A-Za-z0-9._~!$&'()*+,=:@/?-]|%(?:[2-6][0-9A-Fa-f]|7[0-9A-Ea-e]|[89A-Fa-f][0-9A-Fa-f]))++))?"
)
_URL = re.compile(_ORIGIN + _PATH + _QUERY, re.ASCII)
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_PORTS = {"https": 443, "http": 80}
MAX_PORT = 65_535

_RULE = (
    "an https URL with a lower-case host name and a path, without user information, fragment or default port, and without "
    "percent-encoding, semicolons, dot segments or empty segments in its path; http is for localhost and 127.0.0.1 only"
)


def check_registered(entry: str) -> None:
    """Raises `Rejected` (`bad_return_url`) unless an OAuth client may register this entry."""
    if len(entry) > MAX_ENTRY_LENGTH:
        raise _bad("return_urls", f"may have at most {MAX_ENTRY_LENGTH} characters")
    url = entry.removesuffix("*") if entry.endswith(ANY_BELOW) else entry
    found = _parse(url)
    if found is None:
        raise _bad("return_urls", f"must be {_RULE}; it may end with {ANY_BELOW} for every URL below its path")
    if url != entry and found["query"] is not None:
        raise _bad("return_urls", f"must have no query where it ends with {ANY_BELOW}")
    if not _is_decodable(found["host"] or ""):
        raise _bad("return_urls", "has a host name with a punycode label that cannot be decoded")


def check(return_url: str) -> None:
    """Raises `Rejected` (`bad_return_url`) unless this text may be a return URL."""
    if len(return_url) > MAX_LENGTH:
        raise _bad("return_url", f"may have at most {MAX_LENGTH:,} characters")
    if _parse(return_url) is None:
        raise _bad("return_url", f"must be {_RULE}; its query must have no parameter {INSTALL} or {STATUS}")


def match(return_url: str, registered: Iterable[str]) -> bool:
    """Whether a return URL is one of those registered, or below one that ends with `/*`. False for one that is malformed.

    A prefix holds any query; a whole URL holds its own query only.
    """
    if len(return_url) > MAX_LENGTH or _parse(return_url) is None:
        return False
    path = return_url.partition("?")[0]
    for entry in registered:
        if entry == return_url:
            return True
        # An entry that was never checked must not hold everything: `https://*`.
        if entry.endswith(ANY_BELOW) and path.startswith(entry[:-1]) and _parse(entry[:-1]):
            return True
    return False


def check_match(return_url: str, registered: Iterable[str]) -> None:
    """Raises `Rejected` (`bad_return_url`, `return_url_not_registered`)."""
    check(return_url)
    if not match(return_url, registered):
        detail = "return_url is not among the return_urls of the OAuth client: an administrator can register it there"
        raise Rejected("return_url_not_registered", detail, field="return_url")


def with_result(return_url: str, install: str, status: str) -> str:
    """The URL that the customer returns to. `status` is `connected`, `refused` or `failed`; `install` may be empty, since a
    refusal makes none."""
    joint = "&" if "?" in return_url else "?"
    named = f"{INSTALL}={install}&" if install else ""
    return f"{return_url}{joint}{named}{STATUS}={status}"


def origin(return_url: str) -> str:
    """The origin of a URL that has been matched, as `postMessage` takes it."""
    scheme, _, rest = return_url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _parse(url: str) -> re.Match[str] | None:
    """The parts of a URL that means the same to every reader, else None."""
    found = _URL.fullmatch(url)
    if found is None:
        return None
    scheme = url.partition(":")[0]
    port = int(found["port"] or found["open"] or 0)
    if port > MAX_PORT or port == _PORTS[scheme]:
        return None
    if any(segment in (".", "..") for segment in found["path"].split("/")):
        return None
    return None if _sets_a_result(found["query"] or "") else found


def _sets_a_result(query: str) -> bool:
    """Whether a query has a parameter of ours, as any server could read its name: decoded, in any case, with a suffix such as
    `[]`, or after white space."""
    for pair in query.split("&"):
        name = _ENCODED.sub(lambda code: chr(int(code[1], 16)), pair.partition("=")[0].replace("+", " "))
        if re.split(r"[^a-z0-9_-]", name.strip().lower(), maxsplit=1)[0] in (INSTALL, STATUS):
            return True
    return False


def _is_decodable(host: str) -> bool:
    """Whether a browser can read the punycode of a host's labels. One that it cannot read leads nowhere."""
    for label in host.split("."):
        if label.startswith("xn--"):
            try:
                label[4:].encode().decode("punycode")
            except UnicodeError:
                return False
    return True


def _bad(field: str, problem: str) -> Rejected:
    return Rejected("bad_return_url", f"{field} {problem}", field=field)
