"""What the secret scan of `make check` knows of this project: two kinds of token, and what only looks like a secret.

`.secrets.baseline` names this file, and lists no finding: one that is none is explained here, in a line of its own, or it
stays a finding. Nothing is looked up on the network (`--no-verify`).

After a change of detect-secrets or of the list of its plugins, read the baseline's differences before committing them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from detect_secrets.plugins import keyword
from detect_secrets.plugins.base import BasePlugin, RegexBasedDetector
from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin
from detect_secrets.settings import get_plugins


class PortariaTokenDetector(RegexBasedDetector):
    """A token of the project's own API: the prefix, and 48 characters that end in a checksum."""

    secret_type = "Portaria token"
    denylist = (re.compile(r"portaria_[0-9A-Za-z]{48}(?![0-9A-Za-z])"),)


class LeadConnectorTokenDetector(RegexBasedDetector):
    """A private integration's token: https://marketplace.gohighlevel.com/docs/Authorization/PrivateIntegrationsToken/

    What is reported is the beginning, since detect-secrets takes anything that holds a whole UUID for an identifier.
    """

    secret_type = "LeadConnector private integration token"
    denylist = (re.compile(r"(pit-[0-9a-fA-F]{8})-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"),)


class Known(NamedTuple):
    """`kind`, `value`, `line` and `path` must all match; an empty one matches anything."""

    why: str
    path: str = ""
    kind: str = ""
    value: str = ""
    line: str = ""

    def fits(self, path: str, kind: str, value: str, line: str) -> bool:
        pairs = ((self.path, path), (self.kind, kind), (self.value, value), (self.line, line))
        return all(re.search(pattern, text) for pattern, text in pairs)


KEYWORDS = re.compile("|".join(keyword.DENYLIST))
KEYWORDS_IN_ANY_CASE = re.compile(KEYWORDS.pattern, re.IGNORECASE)
MADE_UP = "^(tests|events|bench|local)/"
API_DOCUMENT = r"^(docs/openapi\.yaml$|layers/portaria/portaria/api/openapi/)"
KNOWN = [
    Known("secrets of tests say what they are; the leak check follows them by that word", value="canary"),
    Known("AWS's own examples, from its documentation and its signing test suite", value="EXAMPLE", path=MADE_UP),
    Known("signatures of AWS's signing test suite", path=r"^tests/unit/aws/test_light_client\.py$", kind="^Hex"),
    Known(
        "AWS's example session token, of its signing test suite",
        path=r"^tests/unit/aws/test_light_client\.py$",
        kind="^Base64",
    ),
    Known(
        "a short word as somebody's password; what really opens something is found by its look",
        path=MADE_UP,
        kind="^(Secret Keyword|Basic Auth)",
        value="^.{1,24}$",
    ),
    Known("actions of IAM, by name", kind="^Secret Keyword", line=r"\bsecretsmanager:[A-Z\[]"),
    Known("a token of zeros", kind="^LeadConnector", value="^pit-00000000$"),
    Known("a digest of a made-up message", path="^events/", line=r'"md5OfBody": "[0-9a-f]{32}"'),
    Known("the name of an API that does not exist", value="^a1b2c3d4e5$"),
    Known("a made-up browser's cookie and state", path="^events/accept_install/", value="Hq8vT2nZcR|3Zf0o1K8v9"),
    Known("signed with the tests' client secret", path="^events/accept_uninstall/", value="^32e14f3767056e4d"),
    Known("a request's number, as Marketo's documentation has it", line='(?i)"x-request-id": "'),
    Known("a public key, LeadConnector's own", value="^MCowBQYDK2VwAyEAi2HR1srL4o18"),
    Known(
        "a header's name, and the reasons of a refusal",
        path=r"leadconnector/events\.py$",
        kind="^Secret Keyword",
        value="^X-Portaria-Secret$|bad_time",
    ),
    Known(
        "the digest of a made-up delivery", path=r"^tests/platforms/.*/deliveries/", line='"delivery": "[0-9a-f]{64}"'
    ),
    Known(
        "a token that says what it is, for masking",
        path=r"^tests/unit/records/test_dead_letters\.py$",
        value="^eyJhbGciOiJSUzI1NiJ9",
    ),
    Known("an alphabet that names are drawn from", value="ABCDEFGHJKLMNPQRSTUVWXYZ|abcdefghijklmnopqrstuvwxyz"),
    Known("a field's name", kind="^Secret Keyword", value="^(access_token|portaria)$"),
    Known("a reason", path=r"api/validation\.py$", kind="^Secret Keyword", value="^masked_secret$"),
    Known(
        "the header and the wrong secret of the example platform",
        path=r"^docs/adding-a-platform\.md$",
        kind="^Secret Keyword",
        value="^(another-secret|X-Portaria-Secret)$",
    ),
    Known(
        "a row of a document's table, whose words are neighbours", path=r"\.md$", kind="^Secret Keyword", line=r"^\|"
    ),
    Known("the name that a secret has in AWS", kind="^Secret Keyword", value=r"^arn:\$\{AWS::Partition}:"),
    Known(
        "a private key's first line, and no key",
        path=MADE_UP,
        kind="^Private Key",
        line="KEY-----.ncanary-x",
    ),
    Known("the name of a kind of secret", path=r"^tests/secret_scan\.py$", kind="^Secret Keyword", line="secret_type"),
    Known("a body of another charset", path=r"^tests/platforms/.*/fixtures/", kind="^Hex", line='^"hex": '),
    Known("the digest of a package", path=r"/package-lock\.json$", line=r'^"integrity": "sha512-[A-Za-z0-9+/=]+"'),
    Known(
        "an id, a version or a time as an example",
        path=API_DOCUMENT,
        value=r"^[0-9a-f]{12,40}$|^[0-9]{4}-[0-9]{2}-[0-9]{2}T",
    ),
    Known("an example of a secret, which says what it is", path=API_DOCUMENT, value="(?i)example"),
    Known(
        "an example of a problem document", path=API_DOCUMENT, kind="^Secret Keyword", line="is a mask, not a secret"
    ),
    Known("a sentence of a page", path=r"^layers/portaria/portaria/web/texts\.toml$", kind="^Secret Keyword"),
]


def is_known(filename: str, secret: str, line: str, plugin: BasePlugin) -> bool:
    """A filter of detect-secrets: whether a finding is in the table above."""
    return any(known.fits(filename, plugin.secret_type, secret, line.strip()) for known in KNOWN)


def is_short(line: str) -> bool:
    """A filter of detect-secrets: two lines in five, which hold no secret worth the name and would take as much of the time."""
    return len(line.strip()) < 16


def is_without_match(line: str) -> bool:
    """A filter of detect-secrets: whether no plugin finds anything in a line. Its own way takes ten times as long."""
    return not any(search(line) for search in _searches())


@cache
def _searches() -> tuple[Callable[[str], object], ...]:
    return tuple(search for plugin in get_plugins() for search in _searches_of(plugin))


def _searches_of(plugin: BasePlugin) -> Iterator[Callable[[str], object]]:
    """Searches of which one succeeds in each line in which a plugin finds something."""
    if isinstance(plugin, RegexBasedDetector):
        yield from (pattern.search for pattern in plugin.denylist)
    elif isinstance(plugin, HighEntropyStringsPlugin):
        # A text of n characters has at most log2(n) bits of entropy.
        yield re.compile(rf"['\"][{re.escape(plugin.charset)}]{{{int(2**plugin.entropy_limit)},}}['\"]").search
    elif isinstance(plugin, keyword.KeywordDetector):
        yield _has_keyword
    else:
        raise NotImplementedError(plugin)


def _has_keyword(line: str) -> bool:
    """Without regard to case Python searches ten times as slowly, because a few other characters equal ASCII ones."""
    return bool(KEYWORDS.search(line.lower()) if line.isascii() else KEYWORDS_IN_ANY_CASE.search(line))
