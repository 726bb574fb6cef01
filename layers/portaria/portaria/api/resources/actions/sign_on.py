"""Single sign-on over the API: the link to send a person's browser to, or the addresses themselves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from portaria.actions import single_sign_on
from portaria.api.schemas import Output, Time
from portaria.api.validation import Input, Matching
from portaria.aws.table import Table
from portaria.connections.vault import Vault
from portaria.core import clock

Identifier = Annotated[
    str,
    Matching(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}", "1 to 255 characters, none a control"),
]


class SignOnRequest(Input):
    """With `addresses` the answer holds the key: keep it out of logs. `front_end` is where a link leads."""

    user_identifier: Identifier
    deliver: Literal["link", "addresses"] = "link"
    front_end: Literal["default", "customer"] = "default"


class Addresses(Output):
    """Each logs a browser in, and only one of them, once."""

    default: str
    customer: str


class SignOnLink(Output):
    """`link` works once, until `expires_at`; both are null where `addresses` were asked for, and the other way round."""

    link: str | None
    expires_at: Time | None
    addresses: Addresses | None


def begin(
    table: Table, vault: Vault, sealing_key_id: str, connection_name: str, sent: SignOnRequest, api_url: str
) -> dict[str, Any]:
    """`api_url` is where the API was reached, without `/v1`. The answer is a credential: it must be stored nowhere.

    Raises `Rejected` and `Retryable` as `single_sign_on.addresses`.
    """
    if sent.deliver == "addresses":
        found = single_sign_on.addresses(table, vault, connection_name, sent.user_identifier)
        shown = {front_end: address.reveal() for front_end, address in found.items()}
        return {"link": None, "expires_at": None, "addresses": shown}
    ticket, ends_at = single_sign_on.begin(
        table, vault, sealing_key_id, connection_name, sent.user_identifier, sent.front_end
    )
    return {"link": f"{api_url}/sso/{ticket.reveal()}", "expires_at": clock.to_iso(ends_at), "addresses": None}
