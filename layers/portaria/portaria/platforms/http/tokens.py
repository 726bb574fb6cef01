"""Any HTTP API that takes a static credential: an API key in a header of its own, a user and a password, or a token.

https://www.rfc-editor.org/rfc/rfc7617 (basic), https://www.rfc-editor.org/rfc/rfc6750 (bearer). Only the domain of such
an API is known, so Portaria does not test its credentials: no request to an unknown API is known to be harmless.
"""

from __future__ import annotations

import re

from portaria.core.entities import Kind

KINDS = {
    # `domain_rules` has the forbidden header names and the rule for digits.
    "api_key": Kind(
        credentials=("key",),
        fields={
            "header_name": re.compile(r"[A-Za-z0-9_-]{1,128}"),
            "allow_digits_in_header_name": re.compile(r"yes|no"),
        },
        optional={"allow_digits_in_header_name": "no"},
    ),
    "basic": Kind(credentials=("username", "password")),
    "bearer": Kind(credentials=("token",)),
}
