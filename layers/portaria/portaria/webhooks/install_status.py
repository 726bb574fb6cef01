"""The state of an install, for the page that its customer watches.

This module is on the webhooks' cold path: no boto3, no Powertools.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from portaria.aws.light_client import AwsError
from portaria.core.callbacks import OAuthCallback, Rejected, Retryable
from portaria.core.item_keys import install_key, install_list_key
from portaria.webhooks.light_table import CONDITION_FAILED, LightTable, text
from portaria.webhooks.request_log import log

READ_S = 2.0
WRITE_S = 0.9
INSTALL_LIFE_S = 90 * 24 * 60 * 60

_INSTALL_ID = re.compile(r"[a-z2-7]{26}")


class InstallStatus(NamedTuple):
    """How far an install is: received, exchanging, connected or failed (with a reason)."""

    state: str
    reason: str = ""
    account: str = ""


def read_status(table: LightTable, install: str) -> InstallStatus:
    """An install that is not in the table yet is in a queue.

    Raises `Rejected` (`unknown_install`) for text that is no install's id, `Retryable` and `AwsError`.
    """
    if not _INSTALL_ID.fullmatch(install):
        raise Rejected("unknown_install", "this is not the address of an install", field="install", status=404)
    item = table.get(install_key(install), READ_S)
    if item is None:
        return InstallStatus("received")
    return InstallStatus(text(item, "state") or "received", text(item, "reason"), text(item, "account_host"))


def write_received(
    table: LightTable, install: str, callback: OAuthCallback, platform: str, client: str, received_at: str
) -> None:
    """Write an install for its status page. A failure is only logged, because the worker writes the install as well."""
    pk, sk = install_key(install)
    list_pk, list_sk = install_list_key(install, received_at)
    item: dict[str, str | int] = {
        "pk": pk,
        "sk": sk,
        "list_pk": list_pk,
        "list_sk": list_sk,
        "state": "received",
        "platform": platform,
        "client": client,
        "account_host": callback.account_host,
        "arrived_by": callback.source,
        "received_at": received_at,
        "attempts": 0,
        "expires_at": int(time.time()) + INSTALL_LIFE_S,
    }
    try:
        table.put(item, WRITE_S, condition="attribute_not_exists(pk)")
    except AwsError as error:
        if error.code != CONDITION_FAILED:
            log("WARNING", "install_status_not_written", install_id=install, error=str(error))
    except Retryable as error:
        log("WARNING", "install_status_not_written", install_id=install, error=str(error))
