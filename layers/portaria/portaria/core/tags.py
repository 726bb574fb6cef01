"""Tags: pairs of text that a team attaches to a connection, to know which of its customers it belongs to.

They come with an install link and end on the install and the connection. They are for attribution, not for secrets or bulk
data.

This module is on the webhooks' cold path: the standard library only.
"""

from __future__ import annotations

import json
import re

from portaria.core.error_roots import Rejected

Tags = dict[str, str]

MAX_TAGS = 10
MAX_VALUE_LENGTH = 255
# All keys and values together, in UTF-8. The tags are written with each change of the connection and sent with each event.
MAX_BYTES = 4_096
KEY = r"[a-z0-9_]{1,64}"
VALUE_RULE = (
    f"1 to {MAX_VALUE_LENGTH} printable characters without <, >, or a space at the beginning or end: letters, digits, "
    "punctuation and spaces; no line breaks, control characters or invisible characters"
)
# Listings find connections and installs by this key only.
INDEXED = "customer_id"


def parse_tags(value: object) -> Tags:
    """Tags as a caller gave them. Raises `Rejected` (`bad_tags`), which names the key and never quotes a value."""
    if not isinstance(value, dict):
        raise _bad("tags must be an object of texts")
    if len(value) > MAX_TAGS:
        raise _bad(f"tags may have {MAX_TAGS} keys; this has {len(value)}")
    for key, text in value.items():
        if not isinstance(key, str) or not re.fullmatch(KEY, key, re.ASCII):
            # The key may be anything, also a value in the wrong place: it is not repeated.
            raise _bad("the keys of tags must be 1 to 64 of a-z 0-9 _")
        check_value(key, text)
    if (size := len(encode(value).encode())) > MAX_BYTES:
        raise _bad(f"tags may have {MAX_BYTES:,} bytes together; these have {size:,}")
    return dict(value)


def check_value(key: str, value: object) -> None:
    """Raises `Rejected` (`bad_tags`) unless the value is a tag's."""
    if not isinstance(value, str):
        raise _bad(f"tags.{key} must be text", key)
    if not 1 <= len(value) <= MAX_VALUE_LENGTH:
        raise _bad(f"tags.{key} must be {VALUE_RULE}; this has {len(value)} characters", key)
    # `isprintable` refuses surrogates, line separators, and the invisible characters that change the direction of text.
    if not value.isprintable() or value != value.strip() or "<" in value or ">" in value:
        raise _bad(f"tags.{key} must be {VALUE_RULE}", key)


def encode(tags: Tags) -> str:
    """Tags as text, for messages and for items that hold only text and numbers; empty where there are none."""
    return json.dumps(tags, separators=(",", ":"), ensure_ascii=False) if tags else ""


def decode(text: str) -> Tags:
    return json.loads(text) if text else {}


def _bad(detail: str, key: str = "") -> Rejected:
    return Rejected("bad_tags", detail, field=f"tags.{key}" if key else "tags")
