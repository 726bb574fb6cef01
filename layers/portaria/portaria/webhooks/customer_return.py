"""Where a customer goes when an install is over: to the page of the team's application that the install link named."""

from __future__ import annotations

from portaria.core import return_urls
from portaria.core.callbacks import OAuthClient
from portaria.core.cold_path.named_tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POPUP = "popup"


class CustomerReturn(NamedTuple):
    """`url` is where the customer goes, with the result, and `origin` the only receiver of a popup window's message.

    Both are empty where there is no such page, and `url` also while the install is not over.
    """

    origin: str = ""
    url: str = ""


def find(client: OAuthClient | None, return_url: str, install: str, status: str) -> CustomerReturn:
    """The return, checked against what the client registers now. `status` is empty while the install is not over."""
    if client is None or not return_urls.match(return_url, client.return_urls.split()):
        return CustomerReturn()
    url = return_urls.with_result(return_url, install, status) if status else ""
    return CustomerReturn(return_urls.origin(return_url), url)


def redirect(url: str) -> dict[str, Any]:
    """To the application's page, without telling it the URL that the customer comes from."""
    headers = {"Location": url, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return {"statusCode": 303, "headers": headers, "body": ""}
