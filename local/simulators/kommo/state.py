"""The data of the simulated Kommo: integrations, accounts, authorization codes, grants and tokens."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local.simulators.people import Contacts, make_contacts
from local.simulators.world import BadInstruction, Clock

CODE_LIFETIME_S = 20 * 60
ACCESS_TOKEN_LIFETIME_S = 24 * 3600
REFRESH_TOKEN_LIFETIME_S = 90 * 24 * 3600


@dataclass(frozen=True)
class Client:
    """An integration as registered with Kommo."""

    client_id: str
    client_secret: str
    redirect_uri: str
    name: str = "Portaria"


@dataclass
class Account:
    """A customer's account. Its contacts are generated from `seed` at the first access.

    `recent` and `over_limit` are the monotonic times of accepted requests and of 429 answers, for the rate limit.
    """

    id: int
    subdomain: str
    domain: str
    name: str
    contact_count: int
    seed: int
    without_email: float
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    bad_answers: Counter[str] = field(default_factory=Counter)
    delivered: Counter[str] = field(default_factory=Counter)
    recent: deque[float] = field(default_factory=deque)
    over_limit: deque[float] = field(default_factory=deque)
    blocked_until: float = 0.0
    _contacts: Contacts | None = None

    @property
    def host(self) -> str:
        return f"{self.subdomain}.{self.domain}"

    @property
    def contacts(self) -> Contacts:
        if self._contacts is None:
            self._contacts = make_contacts(
                self.id, self.host, self.contact_count, seed=self.seed, without_email=self.without_email
            )
        return self._contacts


@dataclass
class Code:
    """An authorization code, with counts of the token requests that carried it and of the token pairs issued for it."""

    client_id: str
    host: str
    issued_at: float
    calls: int = 0
    issued: int = 0
    calls_after_issue: int = 0


@dataclass
class Grant:
    """The chain of token pairs that one exchange started. Reuse of a refresh token revokes the whole chain."""

    client_id: str
    host: str
    pairs: int = 0
    revoked: bool = False


@dataclass
class Token:
    grant: Grant
    expires_at: float
    used: bool = False


@dataclass
class Limits:
    """Kommo's limits, with Kommo's values as defaults where Kommo documents one.

    `block_after` answers of 429 within 10 s block the account for `block_s` seconds. `codes_single_use=False` lets a test
    count how often a code would be exchanged twice. `access_life_s` is the lifetime of the access tokens issued from now on.
    One minute of the waits between the deliveries of one event lasts `event_minute_s` seconds.
    """

    requests_per_s: int = 7
    block_after: int = 10
    block_s: float = 30.0
    codes_single_use: bool = True
    access_life_s: int = ACCESS_TOKEN_LIFETIME_S
    event_minute_s: float = 0.5


class State:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.limits = Limits()
        self.clients: dict[str, Client] = {}
        self.accounts: dict[str, Account] = {}
        self.codes: dict[str, Code] = {}
        self.grants: list[Grant] = []
        self.access_tokens: dict[str, Token] = {}
        self.refresh_tokens: dict[str, Token] = {}

    def add_client(self, given: Mapping[str, Any]) -> Client:
        client = Client(**given)
        self.clients[client.client_id] = client
        return client

    def add_account(
        self,
        subdomain: str,
        *,
        domain: str = "kommo.com",
        name: str = "",
        contacts: int = 0,
        seed: int = 1,
        without_email: float = 0.05,
    ) -> Account:
        account = Account(
            id=30_000_000 + zlib.crc32(f"{subdomain}.{domain}".encode()) % 9_000_000,
            subdomain=subdomain,
            domain=domain,
            name=name or subdomain.replace("-", " ").title(),
            contact_count=contacts,
            seed=seed,
            without_email=without_email,
        )
        self.accounts[account.host] = account
        return account

    def account(self, host: str) -> Account:
        """Raises `BadInstruction` for an unknown host."""
        try:
            return self.accounts[host]
        except KeyError:
            raise BadInstruction(f"no such account {host!r}: POST /kommo/accounts first") from None

    def issue_code(self, client_id: str, host: str) -> str:
        """Issue a code for the installation of a client in an account. Raises `BadInstruction` if either is unknown."""
        if client_id not in self.clients:
            raise BadInstruction("no such client: POST /kommo/clients first")
        self.account(host)
        code = opaque_token(708)
        self.codes[code] = Code(client_id, host, self.clock.now())
        return code

    def disconnect(self, client_id: str, host: str) -> dict[str, str]:
        """Revoke the grants of a client in an account. Returns the query of the signed webhook that Kommo then sends."""
        client, account = self.clients.get(client_id), self.accounts.get(host)
        if client is None or account is None:
            raise BadInstruction("no such client or account")
        for grant in self.grants:
            if (grant.client_id, grant.host) == (client_id, host):
                grant.revoked = True
        signed = f"{client.client_id}|{account.id}".encode()
        return {
            "client_uuid": client.client_id,
            "account_id": str(account.id),
            "signature": hmac.new(client.client_secret.encode(), signed, hashlib.sha256).hexdigest(),
        }

    def move(self, host: str, subdomain: str) -> Account:
        """Give an account another subdomain. The old one answers 404; the account's tokens stay valid."""
        account = self.account(host)
        del self.accounts[host]
        account.subdomain = subdomain
        self.accounts[account.host] = account
        for grant in self.grants:
            if grant.host == host:
                grant.host = account.host
        return account

    def dump(self) -> dict[str, Any]:
        """Everything except secrets. Codes are identified by their SHA-256."""
        return {
            "clients": [
                {"client_id": each.client_id, "redirect_uri": each.redirect_uri} for each in self.clients.values()
            ],
            "accounts": [
                {
                    "host": each.host,
                    "id": each.id,
                    "name": each.name,
                    "contacts": each.contact_count,
                    "webhooks": each.webhooks,
                    "delivered": dict(each.delivered),
                    "blocked": each.blocked_until > self.clock.now(),
                }
                for each in self.accounts.values()
            ],
            "codes": {
                hashlib.sha256(text.encode()).hexdigest(): {
                    "client_id": code.client_id,
                    "host": code.host,
                    "calls": code.calls,
                    "issued": code.issued,
                    "calls_after_issue": code.calls_after_issue,
                }
                for text, code in self.codes.items()
            },
            "grants": [
                {"client_id": each.client_id, "host": each.host, "pairs": each.pairs, "revoked": each.revoked}
                for each in self.grants
            ],
            "tokens_issued": sum(grant.pairs for grant in self.grants),
            "issued_twice": sum(code.issued > 1 for code in self.codes.values()),
            "called_after_issue": sum(code.calls_after_issue > 0 for code in self.codes.values()),
        }


def opaque_token(length: int) -> str:
    """A code or refresh token with the prefix and length of Kommo's. `canary` marks every secret of the simulators."""
    return f"def50200canary-{secrets.token_hex(length // 2)}"[:length]
