"""Single sign-on over the API: the link to send a person's browser to, or the addresses themselves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

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
    """Who to sign on, and how."""

    user_identifier: Identifier = Field(description="The identifier that was registered for the user.")
    deliver: Literal["link", "addresses"] = Field(
        default="link",
        description="`link` returns a link that works once. `addresses` returns the platform's URLs, which contain the key: "
        "keep them out of logs.",
    )
    front_end: Literal["default", "customer"] = Field(
        default="default", description="Which of the platform's front ends a link opens."
    )


class Addresses(Output):
    """The platform's sign-on URLs. Each signs a browser in, and only one of them works, once."""

    default: str = Field(description="The URL of the default front end.")
    customer: str = Field(description="The URL of the front end for customers.")


class SignOnLink(Output):
    """A link that signs a person on, or the platform's URLs."""

    link: str | None = Field(
        description="The link to send the person's browser to. It works once. Null if `addresses` were requested."
    )
    expires_at: Time | None = Field(description="When the link stops working. Null if `addresses` were requested.")
    addresses: Addresses | None = Field(description="The platform's URLs. Null if a link was requested.")


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
