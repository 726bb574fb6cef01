"""An install that Kommo must refuse, for `portaria smoke`: an account and a client that do not exist at Kommo.

https://developers.kommo.com/docs/oauth-20. Kommo's PHP client treats 401 and 404 of the token endpoint as an unknown account
(https://github.com/amocrm/amocrm-api-php/pull/572). An unknown client gets 400 or 401.
"""

from __future__ import annotations

from portaria.core.callbacks import Secret

# The reasons of `tokens.read_grant` for an install that Kommo refuses.
REFUSALS: tuple[str, ...] = (
    "wrong_client",
    "invalid_account",
    "bad_code",
    "code_used",
    "wrong_redirect_uri",
    "platform_refused",
)


def hook_query(name: str, code: Secret) -> dict[str, str]:
    """Return the query of the marketplace's hook for the account `name`, which must be a valid host label."""
    return {"code": code.reveal(), "referer": f"{name}.kommo.com", "from_widget": "1"}
