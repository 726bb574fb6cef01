"""How receipts and dead letters are found by the records in them."""

from __future__ import annotations

from portaria.api.validation import NAME, Matching

RECORD = Matching(rf"{NAME}/[^\x00-\x1f]{{1,400}}", "SOURCE/KEY: the name of the source, and the record's key there")
EMAIL = Matching(r"[^\s@]{1,64}@[^\s@]{1,190}", "an e-mail address in the record")
REQUEST = Matching(r"[\x21-\x7e]{1,255}", "an X-Request-Id, 1 to 255 printable ASCII characters")
