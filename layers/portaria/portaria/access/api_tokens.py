"""The tokens of this project's own API: `portaria_` and 48 letters and digits.

    portaria_  +  10: the private integration's id  +  32: the secret, 190 bits  +  6: a checksum

The prefix and the checksum (CRC-32 of all before it, in base 62) let secret scanners recognize a leaked token offline:
`portaria_[0-9A-Za-z]{48}`. Only a token's SHA-256 is stored; a secret of that length needs no slower hash.
https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

from portaria.core.callbacks import Secret

PREFIX = "portaria_"
ID_LENGTH = 10
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_TOKEN = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}")


def make(integration_id: str) -> Secret:
    """A new token for a private integration."""
    return Secret(_with_checksum(PREFIX + integration_id + _random(SECRET_LENGTH)))


def new_id() -> str:
    return _random(ID_LENGTH)


def id_from(key: bytes) -> str:
    """The id that is derived from a key; always the same for one key."""
    number = int.from_bytes(hashlib.sha256(key).digest(), "big")
    return _base62(number % len(ALPHABET) ** ID_LENGTH, ID_LENGTH)


def integration_id(token: str) -> str:
    """The id of the private integration that a token names; empty if the text is not a valid token."""
    found = _TOKEN.fullmatch(token)
    if not found or _with_checksum(token[:-CHECKSUM_LENGTH]) != token:
        return ""
    return found[1]


def digest(token: str) -> str:
    """The hash that is stored instead of a token."""
    return hashlib.sha256(token.encode("utf-8", "backslashreplace")).hexdigest()


def _with_checksum(text: str) -> str:
    return text + _base62(zlib.crc32(text.encode()), CHECKSUM_LENGTH)


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _base62(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
