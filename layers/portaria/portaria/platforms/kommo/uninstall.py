"""Kommo's disconnect hook. https://developers.kommo.com/docs/disconnect-integration"""

from __future__ import annotations

import hashlib
import hmac
import re

from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.entities import UninstallNotice
from portaria.core.errors import Rejected


def parse_notice(query: dict[str, list[str]]) -> UninstallNotice:
    """Return the notice of the hook's query. Raises `Rejected` that names the parameter."""
    return UninstallNotice(
        account_id=_one(query, "account_id", r"[0-9]{1,20}"),
        client_id=_one(query, "client_uuid", r"[\x21-\x7e]{1,255}"),
        signature=_one(query, "signature", r"[0-9a-fA-F]{64}").lower(),
    )


def verify(notice: UninstallNotice, client: OAuthClient, client_secret: Secret) -> None:
    """Raises `Rejected` (`bad_signature`) unless the hook is for this client and signed with its secret.

    The signature has no date: it proves that the account disconnected at some time, not that it is disconnected now.
    """
    signed = f"{client.client_id}|{notice.account_id}".encode()
    expected = hmac.new(client_secret.reveal().encode(), signed, hashlib.sha256).hexdigest()
    of_this_client = hmac.compare_digest(notice.client_id.encode(), client.client_id.encode())
    if not hmac.compare_digest(notice.signature, expected) or not of_this_client:
        raise Rejected("bad_signature", "the signature is not from this integration", status=403)


def _one(query: dict[str, list[str]], name: str, pattern: str) -> str:
    values = query.get(name, [])
    if len(values) != 1 or not re.fullmatch(pattern, values[0], re.ASCII):
        raise Rejected("bad_hook", f"the parameter {name} is missing, repeated or not valid", field=name)
    return values[0]
