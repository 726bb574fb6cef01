"""Administering private integrations: named, scoped tokens for programs that call this API.

A token is returned once, in the response to its creation or rotation, and again if that request is repeated with its
`Idempotency-Key`: the stored response has it sealed. Where the process died before it was stored, a token that nobody has used
is replaced. Where tokens may manage private integrations at all, one may give on,
and touch, no more than it has itself.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from portaria.access import api_tokens, private_integrations, scopes, token_reissue, token_usage
from portaria.access.private_integrations import PrivateIntegration
from portaria.api.operation import ApiRequest, Reply, changed_meanwhile, page, require_match
from portaria.api.schemas import Output, Time
from portaria.api.validation import Input, InvalidInput, Matching
from portaria.aws.table import Conflict
from portaria.core import clock
from portaria.core.errors import ChangedMeanwhile, Rejected

MAX_SCOPES = 200


def check_scope(text: str) -> str:
    """For a model's field: raises pydantic's error with the rule in words."""
    try:
        return scopes.check(text)
    except ValueError as wrong:
        raise PydanticCustomError("rule", "{rule}", {"rule": str(wrong)}) from None


_NO_CONTROL = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
Name = Annotated[str, Matching(rf"(?=.*\S){_NO_CONTROL}{{1,100}}", "1 to 100 characters, none a control")]
Description = Annotated[str, Matching(rf"(?:{_NO_CONTROL}|\n){{0,1000}}", "at most 1,000 characters, none a control")]
Scopes = Annotated[list[Annotated[str, AfterValidator(check_scope)]], Field(min_length=1, max_length=MAX_SCOPES)]


class PrivateIntegrationCreation(Input):
    """A private integration to create."""

    name: Name = Field(description="A name for people.")
    description: Description | None = Field(
        default=None, description="What the token is used for. It may have several lines."
    )
    scopes: Scopes = Field(
        description="What the token may do. `list_scopes` returns every scope; some can be narrowed to a connection: "
        "`connections:call@erp`.",
    )

    def audited(self) -> dict[str, Any]:
        return self.model_dump()


class PrivateIntegrationEdit(Input):
    """The fields to change. Omitted fields keep their values."""

    name: Name | None = Field(default=None, description="A name for people.")
    description: Description | None = Field(
        default=None, description="What the token is used for. It may have several lines."
    )
    scopes: Scopes | None = Field(default=None, description="All scopes that the token has from its next request on.")

    def audited(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class PrivateIntegrationRotation(Input):
    """How to rotate the token."""

    expire_now: bool = Field(
        default=False,
        description="Whether the previous token stops working at once. By default it works for seven more days.",
    )

    def audited(self) -> dict[str, Any]:
        return self.model_dump()


class PrivateIntegrationOutput(Output):
    """A named, scoped token for a program that calls this API. The token itself is not returned."""

    id: str = Field(description="The private integration's id: the ten characters after `portaria_` in its token.")
    name: str = Field(description="A name for people.")
    description: str | None = Field(description="What the token is used for.")
    scopes: list[str] = Field(description="What the token may do.")
    created_at: Time = Field(description="When it was created.")
    created_by: str = Field(
        description="Who created it: the ARN of an AWS principal, or `private-integration:` and an id."
    )
    updated_at: Time = Field(description="When it was changed last.")
    token_made_at: Time = Field(description="When its current token was created.")
    age_days: int = Field(description="The age of the current token in days.")
    last_used_at: Time | None = Field(
        description="When the current token was last used, rounded to the hour. Null if it was not used."
    )
    previous_until: Time | None = Field(
        description="Until when the previous token works. Null if only one token works."
    )
    previous_last_used_at: Time | None = Field(
        description="When the previous token was last used, rounded to the hour."
    )


class PrivateIntegrationWithToken(PrivateIntegrationOutput):
    """A private integration with its new token."""

    token: str | None = Field(
        description="The token, which is returned once. Null if the request was repeated and the token has been used "
        "meanwhile.",
    )


def create(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (403 `beyond_own_scopes`).

    With an Idempotency-Key the id follows from it, so that a creation that is repeated after a death finds the first one.
    """
    sent, table = asked.sent, asked.context.table
    wanted = _unique(sent.scopes)
    _require_own(asked, wanted)
    made_by_key = _key_digest(asked)
    owner = f"{asked.caller.id}\n{asked.key}"
    integration_id = api_tokens.id_from(owner.encode()) if asked.key else api_tokens.new_id()
    try:
        made, token = private_integrations.create(
            table, integration_id, sent.name, sent.description or "", wanted, asked.caller.id, made_by_key
        )
    except Conflict:
        found = private_integrations.get(table, integration_id)
        if not made_by_key or found.made_by_key != made_by_key:
            raise
        # Of the first token alone: one of a rotation was the answer to another request.
        return _reissued(asked, found, is_newest=found.token_made_at == found.created_at)
    return _reply(asked, made, {"token": None}, token=token)


def _reissued(asked: ApiRequest, found: PrivateIntegration, *, is_newest: bool) -> Reply:
    """The answer to a request that was done before and did not get this far: with another token, if nobody uses the first."""
    again = token_reissue.reissue(asked.context.table, found) if is_newest else None
    if not again:
        return _reply(asked, found, {"token": None})
    return _reply(asked, again[0], {"token": None}, token=again[1])


def get(asked: ApiRequest) -> Reply:
    """Raises `Rejected` (404 `unknown_private_integration`)."""
    return _reply(asked, _find(asked))


def list_page(asked: ApiRequest) -> Reply:
    found, next_cursor = private_integrations.list_page(asked.context.table, asked.cursor, asked.limit)
    uses = token_usage.find(asked.context.table, found)
    return page([show(each, uses) for each in found], next_cursor)


def edit(asked: ApiRequest) -> Reply:
    """Change name, description or scopes; the token stays. Raises `Rejected` (403, 404, 409 or 412 `changed_meanwhile`)."""
    old = _find(asked)
    require_match(asked, str(old.version))
    changes = {field: value for field, value in asked.sent.model_dump().items() if value is not None}
    if not changes:
        raise InvalidInput([("name", "there is nothing to change: give name, description or scopes")])
    if "scopes" in changes:
        changes["scopes"] = _unique(changes["scopes"])
        _require_own(asked, changes["scopes"])
    _require_own(asked, old.scopes)
    try:
        return _reply(asked, private_integrations.edit(asked.context.table, old, **changes))
    except ChangedMeanwhile:
        raise changed_meanwhile(asked) from None


def delete(asked: ApiRequest) -> Reply:
    """Its tokens work no more. Raises `Rejected` (403, 404)."""
    _require_own(asked, _find(asked).scopes)
    private_integrations.delete(asked.context.table, asked.path["id"])
    return Reply(None)


def rotate(asked: ApiRequest) -> Reply:
    """A new token. Raises `Rejected` (403, 404, 409 `rotation_under_way`, `changed_meanwhile`)."""
    old = _find(asked)
    _require_own(asked, old.scopes)
    by_key = _key_digest(asked)
    if by_key and old.rotated_by_key == by_key:
        return _reissued(asked, old, is_newest=True)
    fresh, token = private_integrations.rotate(
        asked.context.table, old, expire_now=asked.sent.expire_now, by_key=by_key
    )
    return _reply(asked, fresh, {"token": None}, token=token)


def cancel(asked: ApiRequest) -> Reply:
    """Go back to the old token. Raises `Rejected` (403, 404, 409 `no_rotation`, `changed_meanwhile`)."""
    old = _find(asked)
    _require_own(asked, old.scopes)
    return _reply(asked, private_integrations.cancel_rotation(asked.context.table, old))


def expire(asked: ApiRequest) -> Reply:
    """End the old token. Raises `Rejected` (403, 404, 409 `no_rotation`, `changed_meanwhile`)."""
    old = _find(asked)
    _require_own(asked, old.scopes)
    return _reply(asked, private_integrations.expire_old_token(asked.context.table, old))


def show(integration: PrivateIntegration, uses: dict[str, str]) -> dict[str, Any]:
    """Everything but the tokens and their hashes. `uses` is what `token_usage.find` gives for it."""
    now = clock.now()
    overlaps = integration.overlaps(now)
    return {
        "id": integration.id,
        "name": integration.name,
        "description": integration.description,
        "scopes": list(integration.scopes),
        "created_at": integration.created_at,
        "created_by": integration.created_by,
        "updated_at": integration.updated_at,
        "token_made_at": integration.token_made_at,
        "age_days": (now - clock.from_iso(integration.token_made_at)).days,
        "last_used_at": uses.get(integration.token_hash),
        "previous_until": integration.previous_until if overlaps else None,
        "previous_last_used_at": uses.get(integration.previous_hash) if overlaps else None,
    }


def _reply(
    asked: ApiRequest, integration: PrivateIntegration, more: dict[str, Any] | None = None, **once: Any
) -> Reply:
    uses = token_usage.find(asked.context.table, [integration])
    return Reply(
        show(integration, uses) | (more or {}), etag=str(integration.version), once=once, target=integration.id
    )


def _key_digest(asked: ApiRequest) -> str:
    """What is stored of an Idempotency-Key, or an empty text where there is none."""
    return api_tokens.digest(f"{asked.caller.id}\n{asked.key}") if asked.key else ""


def _find(asked: ApiRequest) -> PrivateIntegration:
    return private_integrations.get(asked.context.table, asked.path["id"])


def _unique(wanted: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(wanted)))


def _require_own(asked: ApiRequest, wanted: tuple[str, ...]) -> None:
    """Raises `Rejected` (403 `beyond_own_scopes`) for a token that would reach beyond what it may do itself."""
    if not asked.caller.covers(wanted):
        raise Rejected(
            "beyond_own_scopes",
            "a token can manage only private integrations that have no other scopes than its own",
            field="scopes",
            status=403,
        )
