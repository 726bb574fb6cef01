"""Recognizing a connection's credential in a response that repeats it, also where it is escaped, encoded or cut.

Best effort: an API that deliberately discloses the credential can always write it in a form that is not recognized here
(compressed, encrypted, spelled out). The tests of this module list the recognized forms.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator

# Shorter secrets would be found in half of all responses.
SHORTEST = 4
# Shorter secrets than this are found only as whole words: a password like 1234 would be found in every long number.
SHORTEST_ANYWHERE = 8
# A part of this length, or an eighth of a credential, counts as the credential: any part of twice that length contains one.
PART = 12
MOST_PARTS = 8
# JSON within JSON within a query, and the like.
MAX_LAYERS = 5

_ESCAPE = re.compile(r"\\(?:u\{([0-9a-f]{1,6})\}|u([0-9a-f]{4})|x([0-9a-f]{2})|([nrtbf])|(.))", re.IGNORECASE)
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_WHITE_SPACE = re.compile(r"[\s\x00]+")


class Echoes:
    """The forms of a connection's secrets to look for."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._forms: set[str] = set()
        self._alone: list[re.Pattern[str]] = []
        for secret in secrets:
            if len(secret) >= SHORTEST_ANYWHERE:
                self._forms |= set(_forms(secret))
            elif len(secret) >= SHORTEST:
                self._alone.append(re.compile(rf"(?<![a-z0-9]){re.escape(secret.lower())}(?![a-z0-9])"))

    def are_in(self, content: bytes | str) -> bool:
        """Whether a body or a header's value contains any of the secrets, or a long enough part of one."""
        text = content if isinstance(content, str) else _decoded(content)
        return any(
            any(form in packed for form in self._forms) or any(alone.search(view) for alone in self._alone)
            for view, packed in _views(text)
        )


def _decoded(body: bytes) -> str:
    """The body as UTF-8, or as Latin-1 where that does not fit, whatever charset it declares."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _views(text: str) -> Iterator[tuple[str, str]]:
    """The text in lower case after each layer of escapes is removed; and the same without white space and null bytes."""
    for _ in range(MAX_LAYERS):
        # Without null bytes UTF-16 and UTF-32 read like ASCII.
        view = text.replace("\x00", "").lower()
        yield view, _WHITE_SPACE.sub("", view)
        plain = _unescaped(text)
        if plain == text:
            return
        text = plain


def _unescaped(text: str) -> str:
    """Without one layer of the escapes of JSON and JavaScript, HTML and URLs."""
    if "\\" in text:
        text = _ESCAPE.sub(_character, text)
    if "&" in text:
        text = html.unescape(text)
    if "%" in text:
        text = _PERCENT.sub(lambda run: _decoded(bytes.fromhex(run[0].replace("%", ""))), text)
    return text


def _character(escape: re.Match[str]) -> str:
    braced, four, two, white, other = escape.groups()
    if code := braced or four or two:
        number = int(code, 16)
        return chr(number) if number < 0x110000 else ""
    return " " if white else str(other)


def _forms(secret: str) -> Iterator[str]:
    """A secret and its parts as they appear in a view without white space."""
    for text in {secret, _unescaped(secret)}:
        yield from _encodings(text)
        for wide in (text.encode("utf-16-le", "replace"), text.encode("utf-16-be", "replace")):
            yield from _in_base64(wide)
    for part in _parts(secret):
        yield from _encodings(part)


def _encodings(text: str) -> Iterator[str]:
    data = text.encode("utf-8", "replace")
    packed = _WHITE_SPACE.sub("", text)
    yield packed.lower()
    yield packed.encode("utf-8", "replace").decode("latin-1").lower()
    yield data.hex()
    yield from _in_base64(data)


def _parts(secret: str) -> list[str]:
    """Consecutive parts. Of a JSON Web Token only the signature: other tokens share the rest, which is useless without it."""
    signed = _JWT.match(secret)
    own = secret[signed.end() :] if signed else secret
    if len(own) < (PART if signed else 2 * PART):
        return []
    length = max(PART, -(-len(own) // MOST_PARTS))
    return [own[at : at + length] for at in range(0, len(own) - length + 1, length)]


def _in_base64(data: bytes) -> Iterator[str]:
    """The data's forms within the base64 of a longer text: at each of the three alignments, without the edges."""
    for before in range(3):
        encoded = b64encode(bytes(before) + data).decode()
        form = encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6].lower()
        yield form
        yield form.replace("+", "-").replace("/", "_")
