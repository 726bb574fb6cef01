"""Connections of all kinds on the deployed template: created, used, rotated, replaced and deleted by an administrator."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.fakes.local_cloud.scenes import secret, wait_for
from tests.fakes.local_cloud.session import LocalCloud

LEADCONNECTOR = "services.leadconnectorhq.com"
MARKETO = "mkto-ingestion-api.adobe.io"
VERSION = {"Version": "2021-07-28"}


@dataclass
class Administrator:
    """An administrator with AWS credentials and one connection, `name`. No response to them contains a secret."""

    cloud: LocalCloud
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")

    def ask(self, method: str, path: str, body: Any = None, *, status: int = 200) -> dict[str, Any]:
        answer = self.cloud.admin.request(method, f"{self.cloud.public_url}/admin/v1/{path}", json=body)
        assert answer.status_code == status, answer.text
        assert "canary" not in f"{answer.headers} {answer.text}"
        return dict(answer.json()) if answer.text else {}

    def connect(self, platform: str, **body: Any) -> dict[str, Any]:
        return self.ask("POST", "connections", {"name": self.name, "platform": platform, **body}, status=201)

    def show(self) -> dict[str, Any]:
        return self.ask("GET", f"connections/{self.name}")

    def call(self, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
        """A call to the connection's API. Returns the JSON of the response; `status` is the API's own."""
        answer = self.ask("POST", f"connections/{self.name}/call", {"method": method, "path": path, **more})
        assert answer["status"] == status, answer
        return json.loads(answer["body"]) if answer["body"] else None

    def item(self) -> dict[str, Any]:
        key = {"pk": {"S": f"CONNECTION#{self.name}"}, "sk": {"S": "CONNECTION"}}
        return dict(self.cloud.dynamodb.get_item(TableName=self.cloud.stack.table, Key=key)["Item"])

    def labels(self) -> dict[str, list[str]]:
        """The labels of the versions of the connection's secret."""
        described = self.cloud.secrets.describe_secret(SecretId=self.item()["secret_id"]["S"])
        return dict(described["VersionIdsToStages"])


@pytest.fixture
def administrator(stack: LocalCloud) -> Administrator:
    return Administrator(stack)


@dataclass
class Location:
    """A location at LeadConnector's simulator with one private integration token."""

    administrator: Administrator
    id: str = field(default_factory=lambda: secrets.token_hex(10))
    token: str = field(default_factory=lambda: secret("pit-"))

    def __post_init__(self) -> None:
        self.control = self.administrator.cloud.control
        self.control.add_leadconnector_location(self.id)
        self.control.add_leadconnector_token(self.token, self.id)

    def connect(self, **credentials: str) -> dict[str, Any]:
        given = {"token": self.token, **credentials}
        return self.administrator.connect("leadconnector", fields={"location_id": self.id}, credentials=given)

    def calls(self, token: str) -> int:
        """The number of LeadConnector's responses to a token."""
        return int(self.control.leadconnector_token(token)["calls"])


@pytest.fixture
def location(administrator: Administrator) -> Location:
    return Location(administrator)


def marketo(cloud: LocalCloud, name: str) -> tuple[str, dict[str, str]]:
    letters = "".join(secrets.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(3))
    munchkin = f"{secrets.randbelow(1000):03d}-{letters}-{secrets.randbelow(1000):03d}"
    credentials = {"client_id": name, "client_secret": secret()}
    cloud.control.add_marketo_instance(munchkin, name, credentials["client_secret"])
    return munchkin, credentials


def provider(cloud: LocalCloud, name: str, **settings: Any) -> tuple[str, str]:
    """An OAuth 2.0 provider at which `name` is a client's id: its host and the client's secret."""
    client_secret = secret()
    urls = cloud.control.add_oauth2_provider(name, name, client_secret, **settings)
    return urls["host"], client_secret


PERSON = {"priority": "normal", "dedupeFields": {"field1": "email"}, "persons": [{"email": "maria@example.com"}]}


# ------------------------------------------------------------------------------------------------------------- all kinds


def test_http_connection_api_key_is_sent_in_named_header(administrator: Administrator) -> None:
    host, key = provider(administrator.cloud, administrator.name)
    made = administrator.connect(
        "http", kind="api_key", allowed_domain=host, fields={"header_name": "X-Api-Key"}, credentials={"key": key}
    )
    assert (made["state"], made["credentials_set"], made["age_days"]) == ("connected", ["key"], 0)
    assert administrator.call("GET", "/api/me") == {"sub": administrator.name}


def test_http_connection_basic_credentials_are_sent(administrator: Administrator) -> None:
    host, password = provider(administrator.cloud, administrator.name, token_auth="basic")
    credentials = {"username": administrator.name, "password": password}
    administrator.connect("http", kind="basic", allowed_domain=f"*.{host}", credentials=credentials)
    path = f"connections/{administrator.name}/call"
    refused = administrator.ask("POST", path, {"method": "GET", "path": "/api/me"}, status=400)
    assert refused["type"] == "urn:portaria:problem:url_needed"
    answer = administrator.ask("POST", path, {"method": "GET", "url": f"https://{host}/api/me"})
    assert json.loads(answer["body"]) == {"sub": administrator.name}


def test_http_connection_bearer_token_is_sent_and_401_keeps_connection(
    administrator: Administrator, location: Location
) -> None:
    credentials = {"token": location.token}
    administrator.connect("http", kind="bearer", allowed_domain=LEADCONNECTOR, credentials=credentials)
    found = administrator.call("GET", f"/locations/{location.id}", headers=VERSION)
    assert found["location"]["id"] == location.id
    administrator.call("GET", f"/locations/{location.id}", status=401)
    # A 401 ends no connection of a generic platform.
    assert administrator.show()["state"] == "connected"


def test_leadconnector_connection_call_has_version_header(administrator: Administrator, location: Location) -> None:
    made = location.connect()
    assert (made["kind"], made["allowed_domain"]) == ("bearer", LEADCONNECTOR)
    given = {"locationId": location.id, "email": "maria@example.com"}
    contact = administrator.call("POST", "/contacts/upsert", json=given, status=201)["contact"]
    found = administrator.call("GET", f"/contacts/{contact['id']}")
    assert found["contact"]["email"] == "maria@example.com"


def test_marketo_connection_call_is_logged_in(administrator: Administrator) -> None:
    munchkin, credentials = marketo(administrator.cloud, administrator.name)
    made = administrator.connect("marketo", fields={"munchkin_id": munchkin}, credentials=credentials)
    assert (made["kind"], made["allowed_domain"]) == ("client_credentials", MARKETO)
    administrator.call("POST", f"/subscriptions/{munchkin}/persons", json=PERSON, status=202)
    assert len(administrator.cloud.control.marketo_persons(munchkin)) == 1


def test_engage_connection_wrong_password_is_refused_and_right_one_logs_in(administrator: Administrator) -> None:
    name = administrator.name
    log_in = {"username": name, "client_id": name}
    log_in |= {key: secret() for key in ("password", "client_secret", "customer_token")}
    administrator.cloud.control.add_engage_user(customer_id=name, **log_in)
    wrong = {"name": name, "platform": "engage", "fields": {"customer_id": name}}
    refused = administrator.ask(
        "POST", "connections", {**wrong, "credentials": {**log_in, "password": secret()}}, status=400
    )
    assert refused["type"] == "urn:portaria:problem:credentials_refused"
    made = administrator.connect("engage", fields={"customer_id": name}, credentials=log_in)
    assert (made["kind"], made["fields"]["environment"]) == ("password", "homologation")
    # This path does not exist, so the call arrives with a token of its own.
    administrator.call("GET", "/api/v1/nothing", status=404)
    (user,) = [user for user in administrator.cloud.control.engage() if user["customer_id"] == name]
    assert user["log_ins"] == 2


def test_client_credentials_connection_requests_new_token_after_expiry(administrator: Administrator) -> None:
    name = administrator.name
    host, client_secret = provider(administrator.cloud, name)
    client = {"platform": "oauth2", "name": name, "client_id": name, "client_secret": client_secret}
    token_url = f"https://{host}/token"
    administrator.ask(
        "POST",
        "oauth-clients",
        {**client, "grant": "client_credentials", "token_url": token_url, "scopes": "read", "api_domains": [host]},
        status=201,
    )
    made = administrator.connect("oauth2", kind="client_credentials", client=name, allowed_domain=host)
    assert (made["state"], made["scopes"]) == ("connected", "read")
    assert administrator.call("GET", "/api/me") == {"sub": "somebody", "scope": "read", "pairs": 1}
    # Every token of it ends, so the next call obtains a new one.
    administrator.cloud.control.end_oauth2_tokens(name)
    assert administrator.call("GET", "/api/me")["sub"] == "somebody"
    assert administrator.cloud.control.oauth2(name)["calls"] == {"client_credentials issued": 3}


# ---------------------------------------------------------------------------------------------- replacement and rotation


def test_leadconnector_connection_rotation_keeps_old_token_in_reserve(
    administrator: Administrator, location: Location
) -> None:
    made = location.connect()
    rotate = f"connections/{administrator.name}/rotate"
    where = f"/locations/{location.id}"
    first = administrator.item()["version_id"]["S"]

    # A token that does not work is refused, and nothing is changed
    refused = administrator.ask("POST", rotate, {"credentials": {"token": secret("pit-")}}, status=400)
    assert refused["type"] == "urn:portaria:problem:credentials_refused"
    assert administrator.show() == made
    administrator.call("GET", where)

    # One that works replaces the old one
    new = secret("pit-")
    location.control.rotate_leadconnector_token(location.token, new)
    rotated = administrator.ask("POST", rotate, {"credentials": {"token": new}})
    assert (rotated["state"], rotated["generation"], bool(rotated["previous_until"])) == ("connected", 2, True)
    second = administrator.item()["version_id"]["S"]
    assert "AWSCURRENT" in administrator.labels()[second]
    assert "AWSPREVIOUS" in administrator.labels()[first]
    before = (location.calls(new), location.calls(location.token))
    administrator.call("GET", where)
    assert (location.calls(new), location.calls(location.token)) == (before[0] + 1, before[1])

    # During the overlap the old one is used if the new one does not work
    location.control.revoke_leadconnector_token(new)
    administrator.call("GET", where)
    assert location.calls(location.token) == before[1] + 1
    assert administrator.show()["state"] == "connected"

    # After the overlap the old one is not used, although LeadConnector would still accept it
    assert administrator.ask("POST", f"connections/{administrator.name}/rotation/expire", {})["previous_until"] is None
    assert "AWSPREVIOUS" not in str(administrator.labels())
    administrator.call("GET", where, status=401)
    assert location.calls(location.token) == before[1] + 1
    ended = administrator.show()
    assert (ended["state"], ended["reason"]) == ("needs_reconnect", "token_refused")
    path = f"connections/{administrator.name}"
    used = administrator.ask("POST", f"{path}/call", {"method": "GET", "path": where}, status=409)
    assert used["type"] == "urn:portaria:problem:needs_reconnect"

    # A token that works makes the connection usable again
    good = secret("pit-")
    location.control.add_leadconnector_token(good, location.id)
    assert administrator.ask("PUT", f"{path}/credentials", {"credentials": {"token": good}})["state"] == "connected"
    administrator.call("GET", where)


def test_http_connection_replaced_credentials_drop_old_ones(administrator: Administrator) -> None:
    host, password = provider(administrator.cloud, administrator.name, token_auth="basic")
    credentials = {"username": administrator.name, "password": secret()}
    administrator.connect("http", kind="basic", allowed_domain=host, credentials=credentials)
    administrator.call("GET", "/api/me", status=401)

    path = f"connections/{administrator.name}"
    good = {"credentials": {**credentials, "password": password}}
    replaced = administrator.ask("PUT", f"{path}/credentials", good)
    assert replaced["generation"] == 2
    assert administrator.call("GET", "/api/me") == {"sub": administrator.name}
    assert "AWSPREVIOUS" not in str(administrator.labels())
    # Replacing with the same credentials changes nothing; immutable fields stay
    assert administrator.ask("PUT", f"{path}/credentials", good) == replaced
    fixed = administrator.ask("PUT", f"{path}/credentials", {**good, "allowed_domain": LEADCONNECTOR}, status=409)
    assert fixed["type"] == "urn:portaria:problem:connection_fixed"


def test_delete_connection_removes_secret_and_name_can_be_reused(
    administrator: Administrator, location: Location
) -> None:
    location.connect()
    administrator.call("GET", f"/locations/{location.id}")
    secret_id = administrator.item()["secret_id"]["S"]
    path = f"connections/{administrator.name}"
    administrator.ask("DELETE", path)
    assert administrator.ask("GET", path, status=404)["type"] == "urn:portaria:problem:unknown_connection"
    administrator.ask("POST", f"{path}/rotate", {"credentials": {"token": secret("pit-")}}, status=409)
    call = {"method": "GET", "path": f"/locations/{location.id}"}
    # It is marked as deleted for a while, and a process that has cached the token does not use it
    assert administrator.ask("POST", f"{path}/call", call, status=409)["type"].endswith(":connection_removed")

    assert location.connect()["generation"] == 1
    administrator.call("GET", f"/locations/{location.id}")
    wait_for(
        lambda: administrator.cloud.secrets.describe_secret(SecretId=secret_id),
        lambda described: "DeletedDate" in described,
    )
    administrator.call("GET", f"/locations/{location.id}")


# ---------------------------------------------------------------------------------------------------------- outbound guard


def test_call_connection_hostile_url_or_header_reaches_no_other_host(administrator: Administrator) -> None:
    elsewhere, _ = provider(administrator.cloud, f"{administrator.name}-elsewhere")
    host, _ = provider(administrator.cloud, administrator.name)
    administrator.connect("http", kind="bearer", allowed_domain=host, credentials={"token": secret()})
    path = f"connections/{administrator.name}/call"
    for url in (
        f"https://{elsewhere}/api/me",
        f"https://{host}@{elsewhere}/api/me",
        f"https://{host}.{elsewhere}/api/me",
        f"https://x.{host}/api/me",
        f"https://{host}:8443/api/me",
        f"http://{host}/api/me",
        "https://169.254.169.254/latest/meta-data/",
    ):
        refused = administrator.ask("POST", path, {"method": "GET", "url": url}, status=400)
        assert refused["type"].rpartition(":")[2] in ("host_not_allowed", "bad_url")
    for headers in ({"Authorization": "Bearer x"}, {"Host": elsewhere}, {"X-Forwarded-For": "1"}, {"A": "b\r\nc: d"}):
        administrator.ask("POST", path, {"method": "GET", "path": "/api/me", "headers": headers}, status=400)
    hosts = administrator.cloud.control.hosts()
    reached = [each for each in {**hosts["allowed"], **hosts["refused"]} if administrator.name in each]
    assert [each for each in reached if each != host] == []
    assert host not in hosts["allowed"]
    administrator.call("GET", "/api/me", status=401)
    assert administrator.cloud.control.hosts()["allowed"][host]["connections"] == 1
