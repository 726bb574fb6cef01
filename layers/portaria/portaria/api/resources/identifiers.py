"""Registering identifiers of users over the API, so that single sign-on finds them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from portaria.actions import identifiers
from portaria.api.resources.sign_on import Identifier
from portaria.api.schemas import Output
from portaria.api.validation import MAX_ERRORS, Input, InvalidInput
from portaria.aws.table import Table
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault


class User(Input):
    """`user_login` is the login at the platform, `identifier` what the other system calls the same person."""

    user_login: Identifier
    identifier: Identifier


class Registration(Input):
    users: list[User] = Field(min_length=1, max_length=500)

    def audited(self) -> dict[str, Any]:
        return {"users": len(self.users)}


class UserOutcome(Output):
    """`unknown` and `not_sent` may be sent again as they are; `reason` and `detail` are empty for what is registered."""

    user_login: str
    identifier: str
    outcome: Literal["registered", "refused", "unknown", "not_sent"]
    reason: str
    detail: str


class Registered(Output):
    """One outcome a user, in their order. `retry_after_s` is the wait that the platform asked for, if it did."""

    users: list[UserOutcome]
    retry_after_s: float | None


def register(
    table: Table, supply: TokenProvider, vault: Vault, connection_name: str, sent: Registration
) -> dict[str, Any]:
    """Raises `Rejected` (400 `invalid_input` for an identifier that came twice), and as `identifiers.register`."""
    _refuse_duplicates(sent.users)
    users = [{"user_login": user.user_login, "identifier": user.identifier} for user in sent.users]
    batch = identifiers.register(table, supply, vault, connection_name, users)
    shown = [
        {**user, "outcome": became.outcome, "reason": became.reason, "detail": became.detail}
        for user, became in zip(users, batch.outcomes, strict=True)
    ]
    return {"users": shown, "retry_after_s": batch.after_s}


def _refuse_duplicates(users: list[User]) -> None:
    """An identifier is one user's: of two that share one, the platform would take whichever it likes."""
    first: dict[str, int] = {}
    errors = []
    for number, user in enumerate(users):
        before = first.setdefault(user.identifier, number)
        if before != number:
            field = f"users.{number}.identifier"
            errors.append((field, f"{field} is the same as users.{before}.identifier"))
    if errors:
        raise InvalidInput(errors[:MAX_ERRORS])
