"""Registering the identifiers of a platform's users in another system, in bulk. A platform supports it by `identifiers`.

A platform accepts several users in one request and refuses the request for one wrong user. A refused request is split in halves
until the wrong user is alone: the others are registered, and the number of requests stays bounded. Registering a user again is
harmless, so an entry whose outcome is `unknown` may be sent again.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from portaria import platforms
from portaria.actions.bulk import UNKNOWN, Batch, EntryOutcome
from portaria.aws.table import Table
from portaria.connections import connection_store, proxy_call
from portaria.connections.tokens import static_credentials
from portaria.connections.tokens.cache import Token
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault
from portaria.core.errors import Rejected, Retryable
from portaria.core.http.messages import Request

# Enough to isolate three of 500 users in the worst case; a call in which every user is refused ends here.
MAX_REQUESTS = 60
REGISTERED, REFUSED = "registered", "refused"

User = dict[str, str]


def register(table: Table, token_provider: TokenProvider, vault: Vault, name: str, users: list[User]) -> Batch:
    """Register each user (`user_login`, `identifier`) and return the outcomes.

    Raises `Rejected` (404 `unknown_connection`; 409 `not_offered`, `not_permitted`, …) and `Retryable` if no user has an
    outcome.
    """
    connection = connection_store.get(table, name)
    platform = platforms.load(connection.platform)
    identifiers = platform.offer(platform.identifiers)
    try:
        connection, credentials = static_credentials.static_credentials(table, vault, connection)
    except Rejected as rejected:
        raise proxy_call.with_advice(rejected, connection) from None

    def request(chosen: list[int], token: Token) -> Request:
        access_token = token.credentials["access_token"]
        return identifiers.register_request(connection, credentials, access_token, [users[entry] for entry in chosen])

    batch = Batch(token_provider, connection, len(users))
    size = identifiers.MAX_USERS
    waiting = deque(list(range(len(users)))[start : start + size] for start in range(0, len(users), size))
    suspects: set[int] = set()
    requests = 0
    try:
        while waiting:
            if requests == MAX_REQUESTS:
                raise Retryable(
                    "too_many_refused",
                    f"{MAX_REQUESTS} requests to the platform were needed for this call, the most that are allowed",
                    after_s=1,
                )
            chosen = waiting.popleft()
            requests += 1
            try:
                refused = identifiers.read_answer(batch.send(partial(request, chosen)))
            except Retryable as lost:
                if not lost.answer_lost:
                    raise
                batch.lose(chosen, lost)
                continue
            if refused is None:
                batch.settle(chosen, EntryOutcome(REGISTERED))
            elif len(chosen) == 1:
                batch.settle(chosen, EntryOutcome(REFUSED, refused.reason, refused.detail))
            else:
                suspects |= set(chosen)
                middle = len(chosen) // 2
                # After the users that have not been tried yet.
                waiting += [chosen[:middle], chosen[middle:]]
    except (Rejected, Retryable) as trouble:
        # It is not documented whether a platform registers some users of a request that it refuses.
        detail = "it was refused together with others, and it is not known which of them is to blame: send it again"
        batch.settle(suspects - batch.settled, EntryOutcome(UNKNOWN, "not_isolated", detail))
        batch.give_up(trouble)
    return batch
