"""The state of an install, for the page that its customer watches."""

from __future__ import annotations

import re

from portaria.core.cold_path.named_tuples import NamedTuple
from portaria.core.error_roots import Rejected
from portaria.core.item_keys import install_key
from portaria.webhooks.light_table import LightTable, text

READ_S = 2.0

_INSTALL_ID = re.compile(r"[a-z2-7]{26}")


class InstallStatus(NamedTuple):
    """How far an install is: received, exchanging, connected or failed (with a reason).

    The rest comes from its install link: its id, the language of the pages, and where the customer returns to.
    """

    state: str
    reason: str = ""
    account: str = ""
    link: str = ""
    language: str = ""
    return_url: str = ""


def read_status(table: LightTable, install: str) -> InstallStatus:
    """An install that is not in the table yet is in a queue.

    Raises `Rejected` (`unknown_install`) for text that is no install's id, `Retryable` and `AwsError`.
    """
    if not _INSTALL_ID.fullmatch(install):
        raise Rejected("unknown_install", "this is not the address of an install", field="install", status=404)
    item = table.get(install_key(install), READ_S)
    if item is None:
        return InstallStatus("received")
    names = ("reason", "account_host", "link", "language", "return_url")
    return InstallStatus(text(item, "state") or "received", *(text(item, name) for name in names))
