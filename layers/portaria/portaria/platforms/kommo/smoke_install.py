"""An install that Kommo must refuse, for `portaria smoke`: an account and a client that Kommo does not have.

https://developers.kommo.com/docs/oauth-20. Kommo's own client takes 401 and 404 of the token endpoint for an account that is
not there (https://github.com/amocrm/amocrm-api-php/pull/572); an unknown client gets 400 or 401.
"""

from __future__ import annotations

from portaria.core.entities import Secret

# Why an install ends where Kommo said no, as `tokens.read_grant` tells it.
REFUSALS: tuple[str, ...] = (
    "wrong_client",
    "invalid_account",
    "bad_code",
    "code_used",
    "wrong_redirect_uri",
    "platform_refused",
)


def hook_query(name: str, code: Secret) -> dict[str, str]:
    """The marketplace's hook for the account `name`, which must be fit for a host's label."""
    return {"code": code.reveal(), "referer": f"{name}.kommo.com", "from_widget": "1"}
