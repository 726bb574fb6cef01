"""Rules for two fields of a connection: its allowed domain, and the header of an API key.

The rules are those of Zendesk's connections. The list of public suffixes is https://publicsuffix.org/list/, as
`publicsuffixlist` bundles it. Loading takes a quarter of a second, so it is loaded with the first domain that is checked.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import idna

from portaria.core.errors import Rejected
from portaria.outbound import http_client

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

MAX_DOMAIN_LENGTH = 128
MAX_LABEL_LENGTH = 63
MAX_HEADER_NAME_LENGTH = 128

REFUSED_HEADERS = frozenset(
    {
        "accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "connection", "content-md5",
        "cookie", "date", "expect", "from", "host", "if-match", "if-modified-since", "if-none-match", "if-range",
        "if-unmodified-since", "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "server",
        "referer", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "via", "warning", "www-authenticate",
    }
)  # fmt: skip
REFUSED_HEADER_PREFIXES = ("x-amz-", "x-amzn-", "x-forwarded-", "x-zis-")

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
# Resolvers read a name whose last label is such a number as an IPv4 address: 1.2.3.4, 2130706433, 0x7f.1, 0177.0.0.1.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def check_allowed_domain(text: str) -> str:
    """Returns the domain as it is stored, in lower case. Raises `Rejected` (`bad_allowed_domain`) without quoting it.

    Allowed are a host name of at most 128 characters whose labels have at most 63, and such a name after `*.`, which covers the
    name and every name below it. IP addresses in any form, names without a known top-level domain, and public suffixes, private
    ones included, are refused: `*.com.au` and `*.myshopify.com` would cover names of other owners. So would a wildcard above a
    public suffix: `*.amazonaws.com` covers `s3.amazonaws.com` and the names of Amazon's customers below it. Without the
    wildcard a public suffix (`github.io`, `s3.amazonaws.com`) is refused too, because it has no single owner who could issue a
    credential for it.
    """
    if len(text) > MAX_DOMAIN_LENGTH:
        raise _refused(f"may have {MAX_DOMAIN_LENGTH} characters; this has {len(text)}")
    if not text.isascii():
        raise _refused(_advice(text))
    domain = text.lower()
    name = domain.removeprefix("*.")
    _check_characters(name)
    labels = name.split(".")
    if "" in labels:
        raise _refused("must be a host name without a dot at its beginning or end and without two dots in a row")
    if _NUMBER.fullmatch(labels[-1]):
        raise _refused("must be a host name, not an IP address")
    for label in labels:
        _check_label(label)
    if _public_suffixes().privatesuffix(name) is None:
        raise _refused(
            "must be a registered domain or a name below one: this is a public suffix, or its top-level domain does not exist (https://publicsuffix.org)"
        )
    if domain.startswith("*.") and (suffix := _public_suffix_below(name)):
        raise _refused(
            f"must not have its wildcard above a public suffix: {domain} covers {suffix}, where anyone can have a "
            "name; give the host, or put the wildcard before a longer name"
        )
    return domain


def check_header_name(text: str, *, with_digits: bool = False) -> str:
    """Returns the name of an API key's header unchanged. Raises `Rejected` (`bad_header_name`).

    Letters, hyphens and underscores; digits only where the connection allows them (`allow_digits_in_header_name`).
    """
    if len(text) > MAX_HEADER_NAME_LENGTH:
        raise _bad_header(f"may have {MAX_HEADER_NAME_LENGTH} characters; this has {len(text)}")
    name = http_client.canonical(text)
    for prefix in (*REFUSED_HEADER_PREFIXES, *http_client.FORBIDDEN_PREFIXES):
        if name.startswith(prefix):
            raise _bad_header(f"must not begin with {prefix}")
    # Beyond Zendesk's list: a header that `http_client` would refuse with every call.
    if name in REFUSED_HEADERS or name in http_client.FORBIDDEN_HEADERS:
        raise _bad_header(f"must not be {name}, which HTTP or a proxy sets")
    if re.fullmatch(r"[A-Za-z0-9_-]+", text) and not with_digits and re.search(r"[0-9]", text):
        raise _bad_header(
            "must be letters, hyphens and underscores; where the API's header has digits, "
            "set fields.allow_digits_in_header_name to yes"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]*[A-Za-z][A-Za-z0-9_-]*" if with_digits else r"[A-Za-z_-]+", text):
        raise _bad_header("must be letters, hyphens and underscores, at least one")
    return text


def _check_characters(name: str) -> None:
    """Raises `Rejected` with a sentence for each common mistake."""
    if "*" in name:
        raise _refused("may have one wildcard (*), as its first label only")
    if "://" in name:
        raise _refused("must be a host name alone, without https:// (other schemes are never used)")
    if name.startswith("[") or name.count(":") > 1:
        raise _refused("must be a host name, not an IP address")
    if "@" in name:
        raise _refused("must be a host name alone, without a user")
    if re.search(r"[/?#\\]", name):
        raise _refused("must be a host name alone, without a path")
    if ":" in name:
        raise _refused("must be a host name alone, without a port (443 is always used)")
    if re.search(r"\s", name):
        raise _refused("must be a host name without spaces or line breaks")
    if "_" in name:
        raise _refused("must be a host name, without underscores")
    if not re.fullmatch(r"[a-z0-9.-]+", name):
        raise _refused("must be a host name: letters, digits, hyphens and dots")


def _check_label(label: str) -> None:
    if len(label) > MAX_LABEL_LENGTH:
        raise _refused(f"may have {MAX_LABEL_LENGTH} characters between two dots; this has {len(label)}")
    if not _LABEL.fullmatch(label):
        raise _refused("must be a host name in which no label begins or ends with a hyphen")
    if label.startswith("xn--"):
        try:
            idna.decode(label)
        except UnicodeError:
            raise _refused("has a label that begins with xn-- and is not valid punycode") from None


def _advice(text: str) -> str:
    """How to write a name that is not ASCII, if it can be written in punycode."""
    wildcard, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    try:
        punycode = wildcard + idna.encode(name, uts46=True).decode()
        check_allowed_domain(punycode)
    except (UnicodeError, Rejected):
        return "must be a host name: letters, digits, hyphens and dots"
    return f"must be written in punycode: {punycode}"


@cache
def _public_suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 - see above

    return PublicSuffixList(accept_unknown=False)


@cache
def _public_suffix_below(name: str) -> str:
    """A public suffix below a name; empty where there is none. The library has no such query, so its list is read here."""
    from importlib.resources import files  # noqa: PLC0415 - see above

    listed = (files("publicsuffixlist") / "public_suffix_list.dat").read_text("utf-8")
    endings = (f".{name}", f".{idna.decode(name)}")
    for line in listed.splitlines():
        # "*.ck" makes every name below ck a suffix, and "!www.ck" makes an exception.
        rule = line.partition(" ")[0]
        if rule.endswith(endings) and not rule.startswith(("//", "!")):
            return rule
    return ""


def _refused(rule: str) -> Rejected:
    return Rejected("bad_allowed_domain", f"allowed_domain {rule}", field="allowed_domain")


def _bad_header(rule: str) -> Rejected:
    return Rejected("bad_header_name", f"fields.header_name {rule}", field="fields.header_name")
