"""Registering identifiers of users over the API, so that single sign-on finds them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from portaria.actions import identifiers
from portaria.api.resources.actions.sign_on import Identifier
from portaria.api.schemas import Output
from portaria.api.validation import MAX_ERRORS, Input, InvalidInput
from portaria.aws.table import Table
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault


class IdentifiedUser(Input):
    """A user of the platform and the same person's id in another system."""

    user_login: Identifier = Field(description="The user's login at the platform.")
    identifier: Identifier = Field(
        description="The id of the same person in the other system. No two users may have the same one."
    )


class IdentifierRegistration(Input):
    """Identifiers to register, so that single sign-on finds the users."""

    users: list[IdentifiedUser] = Field(min_length=1, max_length=500, description="The users and their identifiers.")

    def audited(self) -> dict[str, Any]:
        return {"users": len(self.users)}


class UserOutcome(Output):
    """What became of one user."""

    user_login: str = Field(description="The user's login at the platform.")
    identifier: str = Field(description="The identifier from the request.")
    outcome: Literal["registered", "refused", "unknown", "not_sent"] = Field(
        description="`registered`, `refused` by the platform, `unknown` (no complete response came) or `not_sent`. Users that"
        " are `unknown` or `not_sent` can be sent again.",
    )
    reason: str | None = Field(description="Why the identifier was not registered.")
    detail: str | None = Field(description="A sentence about the reason, for people.")


class RegisteredIdentifiers(Output):
    """One outcome for each user, in the order of the request."""

    users: list[UserOutcome] = Field(description="The outcomes.")
    retry_after_s: float | None = Field(
        description="How many seconds the platform asks to wait before the next request. Null if it does not."
    )


def register(
    table: Table, token_provider: TokenProvider, vault: Vault, connection_name: str, sent: IdentifierRegistration
) -> dict[str, Any]:
    """Raises `Rejected` (400 `invalid_input` for an identifier that came twice), and as `identifiers.register`."""
    _refuse_duplicates(sent.users)
    users = [{"user_login": user.user_login, "identifier": user.identifier} for user in sent.users]
    batch = identifiers.register(table, token_provider, vault, connection_name, users)
    shown = [
        {**user, "outcome": became.outcome, "reason": became.reason, "detail": became.detail}
        for user, became in zip(users, batch.outcomes, strict=True)
    ]
    return {"users": shown, "retry_after_s": batch.after_s}


def _refuse_duplicates(users: list[IdentifiedUser]) -> None:
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
