"""Any HTTP API that takes a static credential: an API key in a header of its own, a user and a password, or a token.

https://www.rfc-editor.org/rfc/rfc7617 (basic), https://www.rfc-editor.org/rfc/rfc6750 (bearer). Nothing is known about such
an API but its domain, so a credential is stored as it is given: there is no call that would be harmless everywhere.
"""

from __future__ import annotations

import re

from portaria.core.entities import Kind

KINDS = {
    # `domain_rules` says which names a header may not have, and that digits need the option.
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
