"""The provider call of a refresh: send the refresh token, read the new pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as with_changes
from typing import TYPE_CHECKING

from portaria.connections import refused_grants, request_budget
from portaria.connections.refused_grants import Verdict
from portaria.connections.tokens import refresh_lease
from portaria.connections.tokens.cache import Token
from portaria.connections.tokens.refresh_lease import RefreshLease
from portaria.core import clock
from portaria.core.callbacks import OAuthClient
from portaria.core.entities import Connection, Grant
from portaria.core.errors import Rejected, Retryable, Unreachable
from portaria.core.http.messages import Request
from portaria.outbound import http_client
from portaria.outbound.request_slots import Priority

if TYPE_CHECKING:
    from portaria.platforms.protocols import TokenEndpoint


# What is left of the lease and of the function's time after the answer, to store the pair.
TIME_TO_STORE_S = 10.0
# The shortest time-out of a second attempt. Platforms answer a refresh within a second or two as a rule.
LEAST_TIMEOUT_S = 8.0
# A gateway got no valid answer, or none in time, from a server that may have renewed the tokens.
# https://www.rfc-editor.org/rfc/rfc9110#section-15.6.3
LOST_BEHIND_GATEWAY = (502, 504)


class RefreshCall:
    """`sent`: the last attempt may have sent the refresh token. `verdict`: what its response means for the grant."""

    def __init__(
        self, connection: Connection, old: Token, lease: RefreshLease, time_left_s: Callable[[], float]
    ) -> None:
        self.connection = connection
        self.old = old
        self.lease = lease
        self.time_left_s = time_left_s
        self.sent = False
        self.verdict = Verdict.NONE

    def send(self, endpoint: TokenEndpoint, client: OAuthClient, request: Request) -> Grant:
        """Send the refresh token, and once more immediately if the response was lost, because some platforms answer again for
        some seconds only.

        The time-out of the second one is shorter where the lease or the function's time demands it. Each waits for the
        platform's request budget. Raises `Rejected` and `Retryable` as the platform's `read_refreshed` and the HTTP client do,
        `Retryable` (`short_of_time`), and `Conflict` where the lease has been lost.
        """
        domain = endpoint.token_domain(self.connection, client)
        needed_s = refresh_lease.TIME_TO_REFRESH_S
        while True:
            request_budget.wait(self.lease.table, self.connection.platform, Priority.REFRESH)
            left_s = min(self.lease.time_left_s(), self.time_left_s())
            if left_s < needed_s:
                raise refresh_lease.short_of_time()
            timeout_s = min(request.time_limit_s, left_s - TIME_TO_STORE_S)
            try:
                self.sent, status = True, None
                # A token's life begins when the provider issues it, which is before its answer arrives.
                given_at = clock.now()
                response = http_client.send(
                    with_changes(request, total_timeout_s=timeout_s), allowed_domain=domain, owner=self.connection.name
                )
                status = response.status
                grant = endpoint.read_refreshed(response, given_at, self.old.credentials["refresh_token"])
            except Rejected as rejected:
                self.verdict = refused_grants.verdict(status, rejected) if status else Verdict.NONE
                raise
            except Retryable as retryable:
                self.verdict = refused_grants.verdict(status, retryable)
                self.sent = not isinstance(retryable, Unreachable)
                is_lost = retryable.answer_lost or status in LOST_BEHIND_GATEWAY
                if not is_lost or self.lease.tries > 1:
                    raise
                self.lease.count_try()
                self.sent = False
                needed_s = LEAST_TIMEOUT_S + TIME_TO_STORE_S
                continue
            return with_changes(grant, given_at=given_at, client_id=client.client_id)
