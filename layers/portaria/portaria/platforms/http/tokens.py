"""Any HTTP API that takes a static credential: an API key in a header of its own, a user and a password, or a token.

https://www.rfc-editor.org/rfc/rfc7617 (basic), https://www.rfc-editor.org/rfc/rfc6750 (bearer). Nothing is known about such
an API but its domain, so a credential is stored as it is given: there is no call that would be harmless everywhere.
"""

from __future__ import annotations

import re

from portaria.contract import Kind

KINDS = {
    # Which names a header may not have is in `domains`.
    "api_key": Kind(credentials=("key",), fields={"header_name": re.compile(r"[A-Za-z_-]{1,128}")}),
    "basic": Kind(credentials=("username", "password")),
    "bearer": Kind(credentials=("token",)),
}
