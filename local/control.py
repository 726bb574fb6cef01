"""A client of the simulators' control API, for tests, bench and demo. `local.simulators.control` documents the calls."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import requests

Query = dict[str, str] | list[tuple[str, str]] | None


@dataclass(frozen=True)
class IssuedCode:
    """An authorization code with the parameters of Kommo's callback. `repr` omits the code."""

    code: str
    referer: str
    client_id: str
    redirect_uri: str

    def __repr__(self) -> str:
        return f"IssuedCode(referer={self.referer!r}, client_id={self.client_id!r})"


class Control:
    """Each method is one control call. An invalid call raises `ValueError` with the simulators' error."""

    def __init__(self, control_url: str) -> None:
        self._url = control_url
        self._session = requests.Session()
        self._session.trust_env = False

    def close(self) -> None:
        self._session.close()

    def reset(self) -> None:
        """Remove all data. All tests share the stack, so prefer unique names where possible."""
        self._call("POST", "/reset")

    # ------------------------------------------------------------------------------------------------- clock and faults

    def now(self) -> float:
        return float(self._call("GET", "/clock")["now"])

    def advance(self, seconds: float) -> None:
        """Move the simulators' clock forward. The product's clock stays."""
        self._call("POST", "/clock", {"advance_s": seconds})

    def set_fault(self, platform: str, kind: str, **details: Any) -> int:
        """Set a `world.Fault` and return its number."""
        return int(self._call("POST", "/faults", {"platform": platform, "kind": kind, **details})["id"])

    def fault_used(self, number: int) -> int:
        """The number of calls that a fault affected."""
        faults = self._call("GET", "/faults")["faults"]
        return int(next(fault["used"] for fault in faults if fault["id"] == number))

    def faults(self) -> list[dict[str, Any]]:
        """The active faults, each with `used`, the number of calls that it affected."""
        return list(self._call("GET", "/faults")["faults"])

    def clear_faults(self, number: int | None = None) -> None:
        self._call("DELETE", "/faults", query={} if number is None else {"id": str(number)})

    # -------------------------------------------------------------------------------------------- recorded calls and hosts

    def calls(self, **only: str) -> list[dict[str, Any]]:
        """Counts of calls. `only` selects a `platform`, `host` or `path`."""
        return list(self._call("GET", "/calls", query=only)["calls"])

    def count(self, **only: str) -> int:
        return int(self._call("GET", "/calls", query=only)["total"])

    def hosts(self) -> dict[str, Any]:
        """The hosts requested at the proxy: `allowed` with traffic, `refused` with attempts."""
        return dict(self._call("GET", "/proxy"))

    # ------------------------------------------------------------------------------------------------------------ Kommo

    def add_kommo_client(self, client_id: str, client_secret: str, redirect_uri: str, name: str = "Portaria") -> None:
        given = {"client_id": client_id, "client_secret": client_secret, "redirect_uri": redirect_uri, "name": name}
        self._call("POST", "/kommo/clients", given)

    def add_kommo_account(self, subdomain: str, *, contacts: int = 0, **details: Any) -> dict[str, Any]:
        """Add an account with generated contacts. Returns its `host` and `id`."""
        return dict(self._call("POST", "/kommo/accounts", {"subdomain": subdomain, "contacts": contacts, **details}))

    def issue_code(self, client_id: str, host: str) -> IssuedCode:
        return IssuedCode(**self._call("POST", "/kommo/codes", {"client_id": client_id, "account": host}))

    def disconnect(self, client_id: str, host: str) -> dict[str, str]:
        """Disconnect an account. Returns the query of the webhook that Kommo sends."""
        return dict(self._call("POST", "/kommo/departures", {"client_id": client_id, "account": host}))

    def move_account(self, host: str, subdomain: str) -> str:
        return str(self._call("POST", "/kommo/moves", {"account": host, "subdomain": subdomain})["host"])

    def set_kommo_limits(self, **limits: Any) -> dict[str, Any]:
        return dict(self._call("POST", "/kommo/limits", limits))

    def change_kommo(self, host: str, **change: Any) -> dict[str, Any]:
        """Change a contact, or create one if no `id` is given. Kommo sends the event.

        `change`: `fields={"email": …}` (also `name`, `first_name`, `last_name`, `phone`, `position`, `company`, `website`),
        `kind="company"`, `delete=True`, `times=2` for a duplicate event, `lost=True` for one that is not sent. Returns the
        entity's `id` and `updated_at`, the form of the `event` as pairs, and the `answers` to it.
        """
        return dict(self._call("POST", "/kommo/changes", {"account": host, **change}))

    def kommo(self) -> dict[str, Any]:
        return dict(self._call("GET", "/kommo/state"))

    def code_state(self, code: str) -> dict[str, Any]:
        """`calls` with the code, token pairs `issued` for it, and `calls_after_issue`."""
        return dict(self.kommo()["codes"][hashlib.sha256(code.encode()).hexdigest()])

    def kommo_contacts(self, host: str) -> dict[str, list[dict[str, Any]]]:
        """All `contacts` and `companies` of an account, as its API lists them."""
        return dict(self._call("GET", "/kommo/contacts", query={"account": host}))

    # ---------------------------------------------------------------------------------------------------------- Marketo

    def add_marketo_instance(self, munchkin: str, client_id: str, client_secret: str, **details: Any) -> None:
        """`details`: `token_life_s`, `daily_quota`, `requests_per_s`, and `custom_objects`, see `change_marketo`."""
        given = {"munchkin": munchkin, "client_id": client_id, "client_secret": client_secret, **details}
        self._call("POST", "/marketo/instances", given)

    def change_marketo(self, munchkin: str, **changes: Any) -> None:
        """`changes`: `poison={attribute: value}`, `zero_lives`, `daily_quota`, `requests_per_s`, `expire_token=True`, and
        `custom_objects={"visit_c": {"dedupe_fields": ["visitId"], "link": "email"}}` to define custom objects."""
        self._call("POST", "/marketo/change", {"munchkin": munchkin, **changes})

    def marketo(self) -> list[dict[str, Any]]:
        return list(self._call("GET", "/marketo/state")["instances"])

    def marketo_persons(self, munchkin: str, *emails: str) -> list[dict[str, Any]]:
        """All persons, or those with one of the e-mail addresses."""
        query = [("munchkin", munchkin), *(("email", email) for email in emails)]
        return list(self._call("GET", "/marketo/persons", query=query)["persons"])

    def marketo_failed(self, munchkin: str) -> list[dict[str, Any]]:
        """Persons of accepted requests that lacked a dedupe field."""
        return list(self._call("GET", "/marketo/persons", query={"munchkin": munchkin})["failed"])

    def marketo_requests(self, munchkin: str) -> list[dict[str, Any]]:
        return list(self._call("GET", "/marketo/requests", query={"munchkin": munchkin})["requests"])

    def marketo_objects(self, munchkin: str) -> dict[str, Any]:
        """`custom_objects` by name, `companies`, `members` by program, `lists`.

        A custom object has its `records`, and the numbers of records that are `waiting` or have `waited` for their person.
        """
        return dict(self._call("GET", "/marketo/objects", query={"munchkin": munchkin}))

    # -------------------------------------------------------------------------------------------------- Adobe I/O Events

    def register_adobe_webhook(self, url: str, client_id: str) -> bool:
        """Register a URL for the Observability Data Stream. Returns whether it answered the challenge."""
        return bool(self._call("POST", "/adobe/registrations", {"url": url, "client_id": client_id})["active"])

    def deliver_adobe_events(self, url: str, munchkin: str, *, shape: str = "flat", times: int = 1) -> int:
        """Report the outcome of an instance's new requests to the URL. Returns the number of accepted events.

        `shape` is `flat` or `wrapped`. After 429, 5xx or no answer, the next call delivers the events again.
        """
        given = {"url": url, "munchkin": munchkin, "shape": shape, "times": times}
        return int(self._call("POST", "/adobe/deliveries", given)["done"])

    # ----------------------------------------------------------------------------------------------- OAuth 2.0 providers

    def add_oauth2_provider(self, name: str, client_id: str, client_secret: str, **details: Any) -> dict[str, str]:
        """Add a provider. `details` are fields of `oauth2.Provider`. Returns `host`, `authorize_url`, `token_url`."""
        given = {"name": name, "client_id": client_id, "client_secret": client_secret, **details}
        return dict(self._call("POST", "/oauth2/providers", given))

    def change_oauth2(self, name: str, **changes: Any) -> None:
        """`changes`: `refresh_mode` (`strict`, `grace`, `replay`, `kept`), `grace_s`, `expires_in`, `scopes`, `answers`, …"""
        self._call("POST", "/oauth2/change", {"name": name, **changes})

    def issue_oauth2_grant(self, name: str, scope: str = "") -> dict[str, Any]:
        """Issue a grant without a browser. Returns the answer of the token endpoint after a consent."""
        return dict(self._call("POST", "/oauth2/grants", {"name": name, "scope": scope}))

    def end_oauth2_tokens(self, name: str, *, revoke: bool = False) -> None:
        """Expire all access tokens of a provider and, with `revoke`, revoke its grants."""
        self._call("POST", "/oauth2/end", {"name": name, "revoke": revoke})

    def oauth2(self, name: str) -> dict[str, Any]:
        """A provider's `calls` by grant type and outcome (`refresh_token rotated`, `refresh_token reused`) and `grants`."""
        providers = self._call("GET", "/oauth2/state")["providers"]
        return dict(next(provider for provider in providers if provider["name"] == name))

    def oauth2_providers(self) -> list[str]:
        """The names of the providers."""
        return [str(provider["name"]) for provider in self._call("GET", "/oauth2/state")["providers"]]

    # ---------------------------------------------------------------------------------------------------- LeadConnector

    def add_leadconnector_location(self, location: str, **details: Any) -> None:
        self._call("POST", "/leadconnector/locations", {"id": location, **details})

    def add_leadconnector_token(self, token: str, location: str, scopes: list[str] | None = None) -> None:
        given: dict[str, Any] = {"token": token, "location": location}
        self._call("POST", "/leadconnector/tokens", given | ({} if scopes is None else {"scopes": scopes}))

    def rotate_leadconnector_token(self, token: str, new: str, *, expire_now: bool = False) -> None:
        """Rotate a token. The old one is valid for seven more days or, with `expire_now`, ends immediately."""
        self._call("POST", "/leadconnector/rotate", {"token": token, "new": new, "expire_now": expire_now})

    def revoke_leadconnector_token(self, token: str, after_s: float = 0.0) -> None:
        self._call("POST", "/leadconnector/revoke", {"token": token, "after_s": after_s})

    def leadconnector(self) -> dict[str, Any]:
        return dict(self._call("GET", "/leadconnector/state"))

    def leadconnector_token(self, token: str) -> dict[str, Any]:
        """`calls` with the token, and whether it `works`."""
        return dict(self.leadconnector()["tokens"][hashlib.sha256(token.encode()).hexdigest()])

    # ----------------------------------------------------------------------------------------------------------- Engage

    def add_engage_user(self, customer_id: str, username: str, password: str, **details: Any) -> None:
        """`details`: `client_id`, `client_secret`, `customer_token`, `environment` (default `homologation`), and
        `manages_users=False` for a user without the permission UserManagement."""
        given = {"customer_id": customer_id, "username": username, "password": password, **details}
        self._call("POST", "/engage/users", given)

    def remove_engage_user(self, environment: str, customer_id: str, username: str) -> None:
        given = {"environment": environment, "customer_id": customer_id, "username": username}
        self._call("POST", "/engage/remove", given)

    def add_engage_people(self, customer_id: str, *logins: str, environment: str = "homologation") -> None:
        """Add logins for which identifiers can be registered."""
        given = {"customer_id": customer_id, "logins": logins, "environment": environment}
        self._call("POST", "/engage/people", given)

    def end_engage_tokens(self, customer_id: str, environment: str = "homologation") -> None:
        self._call("POST", "/engage/end", {"customer_id": customer_id, "environment": environment})

    def enter_engage(self, customer_id: str, key: str, environment: str = "homologation") -> str:
        """Open the front end with a sign-on key. Returns the login that is signed on. `ValueError` for a used key."""
        given = {"customer_id": customer_id, "key": key, "environment": environment}
        return str(self._call("POST", "/engage/enter", given)["user_login"])

    def engage_customer(self, customer_id: str, environment: str = "homologation") -> dict[str, Any]:
        """`people`, `identifiers` (each with its login), `keys_given` and `keys_used`."""
        customers = self._call("GET", "/engage/state")["customers"]
        wanted = (customer_id, environment)
        return dict(next(each for each in customers if (each["customer_id"], each["environment"]) == wanted))

    def engage(self) -> list[dict[str, Any]]:
        """The users, each with its number of `log_ins`."""
        return list(self._call("GET", "/engage/state")["users"])

    def _call(self, method: str, path: str, body: Any = None, query: Query = None) -> Any:
        answer = self._session.request(method, f"{self._url}{path}", json=body, params=query, timeout=30)
        if answer.status_code == 400:
            raise ValueError(answer.json()["error"])
        answer.raise_for_status()
        return answer.json()
