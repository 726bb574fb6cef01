"""Showing people data of unknown content: whatever looks like a credential is left out."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
_NAMES = re.compile(
    r"token|passw|passphrase|senha|secret|segredo|authoris?z?ation|api[-_ ]?key|private[-_ ]?key|credential|cookie|signature",
    re.IGNORECASE,
)
_VALUES = re.compile(
    "|".join(
        (
            # This project's own tokens, LeadConnector's and Marketo's, JSON Web Tokens, AWS keys, private keys.
            r"portaria_[0-9A-Za-z]{20,}",
            r"\bpit-[0-9a-f-]{20,}",
            r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}:[a-z]{2,5}\b",
            # Without its second part, too: a pattern that looks for a dot behind it would begin anew at each `eyJ` of a text
            # that has none.
            r"\beyJ[A-Za-z0-9_-]{5,}+(?:\.[A-Za-z0-9_-]*+){0,2}",
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
            r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[^-]*",
            r"(?<![A-Za-z])(?i:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}",
        )
    )
)
# Text that is no JSON, but says of itself what it is: password=…, "api_key": "…".
_NAMED_VALUE = re.compile(
    r"""((?i:token|password|senha|secret|authorization|api[-_]?key)[A-Za-z0-9_-]{0,30}["']?\s{0,3}[:=]\s{0,3}["']?)[^\s"'&,;}]+"""
)


def masked(value: Any) -> Any:
    """A copy of JSON data without what its name or its form says is a credential. Raises `RecursionError` for deep nesting."""
    if isinstance(value, dict):
        return {masked_text(str(name)): _named(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return masked_text(value) if isinstance(value, str) else value


def masked_text(text: str) -> str:
    return _NAMED_VALUE.sub(rf"\1{MASK}", _VALUES.sub(MASK, text))


def _named(name: str, value: Any) -> Any:
    hides = bool(_NAMES.search(name)) and value not in (None, "", [], {}) and not isinstance(value, bool)
    return MASK if hides else masked(value)
