"""Kommo's request limits. https://developers.kommo.com/docs/limitations

Kommo answers 429 above them, and blocks an address (403) that keeps exceeding them; its support removes the block.
"""

from __future__ import annotations

PER_ADDRESS = 7
PER_ACCOUNT = 7
