"""Encodings in which a credential is recognized in a response, and what is not mistaken for one."""

from __future__ import annotations

import gzip
import html
import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from portaria.connections.credential_echoes import PART, Echoes

# Invented values; the last part of the token is the sensitive one.
OPAQUE = "canary-5Q/x9+Zk2_pL0vT7&r\"W1'yB8<nC4>"
JWT = ".".join(
    urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"HS256","typ":"JWT"}', b'{"iss":"https://login.example.com","sub":"1"}', bytes(range(64, 96)))
)
PASSWORD = "sénha com espaço e canary"
SECRETS = [OPAQUE, JWT, PASSWORD]

Disguise = Callable[[str], str | bytes]


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(each):04X}" for each in text)


DISGUISES: dict[str, Disguise] = {
    "plain": lambda text: text,
    "upper case": str.upper,
    "JSON": json.dumps,
    "JSON, not ASCII only": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON with slashes escaped": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON with all escaped": escaped,
    "JSON in JSON": lambda text: json.dumps(json.dumps({"a": text})),
    "JSON in JSON in JSON": lambda text: json.dumps(json.dumps(json.dumps({"a": text}))),
    "JavaScript, two digits": lambda text: "".join(f"\\x{ord(each):02x}" for each in text),
    "JavaScript, braces": lambda text: "".join(f"\\u{{{ord(each):x}}}" for each in text),
    "HTML": html.escape,
    "HTML, decimal": lambda text: "".join(f"&#{ord(each)};" for each in text),
    "HTML, hexadecimal": lambda text: "".join(f"&#x{ord(each):X};" for each in text),
    "HTML in JSON": lambda text: json.dumps(html.escape(text)),
    "percent": lambda text: quote(text, safe=""),
    "percent, small letters": lambda text: quote(text, safe="").lower(),
    "percent, all": lambda text: "".join(f"%{each:02X}" for each in text.encode()),
    "percent, twice": lambda text: quote(quote(text, safe=""), safe=""),
    "percent in JSON": lambda text: escaped(quote(text, safe="")),
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64, one before": lambda text: b64encode(b"x" + text.encode() + b"yz").decode(),
    "base64, two before": lambda text: b64encode(b"xy" + text.encode() + b"z").decode(),
    "base64, three before": lambda text: b64encode(b"xyz" + text.encode() + b"y").decode(),
    "base64 for URLs": lambda text: urlsafe_b64encode(b"x" + text.encode()).decode().rstrip("="),
    "base64 in lines": lambda text: "\r\n".join(
        b64encode(text.encode()).decode()[at : at + 20] for at in range(0, 200, 20)
    ),
    "base64 in JSON": lambda text: json.dumps(b64encode(text.encode()).decode()).replace("/", "\\/"),
    "base64 of UTF-16": lambda text: b64encode(text.encode("utf-16")).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, capitals": lambda text: text.encode().hex().upper(),
    "hexadecimal with spaces": lambda text: text.encode().hex(" "),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "Latin-1": lambda text: text.encode("latin-1"),
    "a letter a line": "\n".join,
    "among bytes": lambda text: b"\xff\x00" + text.encode() + b"\xfe",
    "within a word": lambda text: f"abc{text}def",
}


def around(content: str | bytes) -> bytes:
    body = content if isinstance(content, bytes) else content.encode()
    return b"abcd" * 5 + body + b"efgh" * 5


@pytest.mark.parametrize("secret", SECRETS, ids=["opaque", "jwt", "password"])
@pytest.mark.parametrize("disguise", DISGUISES)
def test_echoes_encoded_credential_is_recognized(disguise: str, secret: str) -> None:
    content = DISGUISES[disguise](secret)
    assert Echoes([secret]).are_in(content if isinstance(content, bytes) else content.encode())
    if isinstance(content, str) and "base64" not in disguise:
        assert Echoes(["another-secret", secret]).are_in(around(content))


@pytest.mark.parametrize("disguise", DISGUISES)
def test_echoes_another_secret_is_not_recognized(disguise: str) -> None:
    other = "canary-1234567890-abcdefghijklm-another"
    content = DISGUISES[disguise](other)
    assert not Echoes(SECRETS).are_in(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("at", range(0, len(OPAQUE) - 2 * PART + 2))
def test_echoes_part_of_credential_is_recognized(at: int) -> None:
    """Given any truncation of a credential, which the API may choose, then it is masked like the whole."""
    assert Echoes([OPAQUE]).are_in(f"part: {OPAQUE[at : at + 2 * PART - 1]}".encode())


def test_echoes_jwt_signature_is_recognized_and_header_is_not() -> None:
    """The header and the payload of a token are the same in other tokens of the same issuer."""
    head, body, signature = JWT.split(".")
    echoes = Echoes([JWT])
    assert echoes.are_in(signature.encode())
    assert echoes.are_in(signature[5:].encode())
    assert not echoes.are_in(f"{head}.{body}.another-signature".encode())


def test_echoes_credential_in_header_value_is_recognized() -> None:
    assert Echoes([OPAQUE]).are_in(f"https://example.com/?token={quote_plus(OPAQUE)}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"pin": "1234"}', True),
        ("PIN=1234&x", True),
        ('{"id": 91234567}', False),
        ("a1234", False),
        ("\\u0031234", True),
    ],
)
def test_echoes_short_secret_is_recognized_only_as_whole_word(text: str, found: bool) -> None:
    assert Echoes(["1234"]).are_in(text.encode()) is found


@pytest.mark.parametrize("secret", ["", "abc"])
def test_echoes_empty_or_tiny_secret_is_ignored(secret: str) -> None:
    assert not Echoes([secret]).are_in(b"abc abc")


def test_echoes_compressed_credential_is_not_recognized() -> None:
    """The limit that the threat model states: best effort."""
    assert not Echoes([OPAQUE]).are_in(gzip.compress(OPAQUE.encode()))


@pytest.mark.parametrize("filling", [b"\\", b"\\u005c", b"&amp;", b"%25", b"a", b"\x00", b"%", b"eyJ"])
def test_echoes_largest_answer_is_searched_within_six_cpu_seconds(filling: bytes) -> None:
    body = (filling * (4_000_000 // len(filling) + 1))[:4_000_000]
    began = time.process_time()
    Echoes([OPAQUE, JWT * 3, PASSWORD]).are_in(body)
    assert time.process_time() - began < 6
