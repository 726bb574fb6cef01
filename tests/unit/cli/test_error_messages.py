"""Error messages: of the command line, run as a user runs it, and of the API, called over HTTP.

Each row is one mistake and the whole message. A message says what is wrong, and what to do unless that is obvious.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import requests
import responses
from botocore.exceptions import ClientError

from portaria.access import private_integrations
from tests.fakes.api.calling import Calling
from tests.fakes.api.command_line import Wire, listed, run, wired
from tests.fakes.api.manage import Manage
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.records.dead_letters import letter
from tests.fakes.records.dead_letters import put as put_letters
from tests.fakes.records.receipts import open_receipt

ROUTE = {"name": "people", "source": "connection:crm", "object": "contacts", "destination": "marketo-one"}
RECEIPT_FILTERS = (
    "give at most one of --destination (optionally with --record or --email), --request and --correlation-id"
)
CALL_TARGET = "the path must begin with /, or be a whole URL that begins with https://"


def add_route(stack: Cloud) -> None:
    route = {"mapping": {}, "dedupe_fields": ["email"], "priority": "normal", "target": "", "options": {}}
    keys = {"pk": "ROUTE#people", "sk": "ROUTE", "list_pk": "ROUTES", "list_sk": "people"}
    stack.table.put({**ROUTE, **route, **keys, "revision": "1"})


@pytest.fixture(scope="module")
def world(shared: Cloud) -> Cloud:
    """Connections `crm`, `wide` (a wildcard), `open-one` (not authorized yet) and `marketo-one`, and the route `people`.

    One for all tests of this module, because a mistake changes nothing.
    """
    calling = Calling(shared)
    calling.connect("crm", "bearer")
    calling.connect("wide", "bearer", allowed_domain="*.example.com")
    calling.connect("open-one", "oauth2", platform="oauth2", client="shop", state="pending")
    calling.connect("marketo-one", "bearer", platform="marketo")
    add_route(shared)
    private_integrations.create(shared.table, "a1b2c3d4e5", "BI", "", ("routes:list",), "administrator")
    return shared


@pytest.fixture(scope="module")
def manage(world: Cloud) -> Manage:
    return Manage(world)


@pytest.fixture(scope="module")
def wired_once(world: Cloud) -> Iterator[Wire]:
    with pytest.MonkeyPatch.context() as patched:
        yield wired(world, patched)


@pytest.fixture
def wire(wired_once: Wire) -> Wire:
    wired_once.requests.clear()
    return wired_once


# ------------------------------------------------------------------------------------------------------------- command line

CALL = "connections call"
COMMANDS = [
    # calls
    (f"{CALL} crm GET api/me", 2, CALL_TARGET),
    (f"{CALL} crm GET http://api.example.com/", 2, CALL_TARGET),
    (f"{CALL} crm GET https://evil.example/", 1, "the host is outside this connection's allowed_domain: api.example.com"),
    (f"{CALL} wide GET /me", 1, "the allowed_domain is *.example.com, so a path has no host: give a whole URL"),
    (f"{CALL} nope GET /me", 1, "there is no connection nope"),
    (f"{CALL} crm GET /a#b", 1, "the URL must not have a fragment (#…)"),
    (f"{CALL} crm GET /me --data x", 1, "a GET request cannot have a body"),
    (f"{CALL} crm POST /me --data @/no/file", 2, "/no/file cannot be read: No such file or directory"),
    (f"{CALL} crm GET /me --header token", 2, "a --header must have the form 'NAME: VALUE'"),
    (f"{CALL} crm GET /me --header authorization:x", 1, "the header authorization cannot be set by a call"),
    (f"{CALL} crm GET /me --header host:x", 1, "the header host cannot be set by a call"),
    (
        f"{CALL} open-one GET /me", 1,
        "the connection open-one has not been authorized yet: open the link that "
        "POST /connections/open-one/authorizations returns",
    ),
    # receipts
    ("receipts list --destination crm --request q", 2, RECEIPT_FILTERS),
    ("receipts list --record crm/1", 2, RECEIPT_FILTERS),
    ("receipts list --destination nope", 1, "there is no connection nope"),
    ("receipts list --destination marketo-one --record nope/1", 1, "there is no connection nope"),
    (
        "receipts list --destination a", 1,
        "destination must be the name of the destination: 3 to 64 of A-Z a-z 0-9 _ -; this one has 1 characters",
    ),
    (
        "receipts list --destination marketo-one --record nope", 1,
        "record must be SOURCE/KEY: the name of the source, and the record's key there; this one has 4 characters",
    ),
    ("receipts show nope", 1, "there is no receipt with this id; receipts are kept for 30 days"),
    # dead letters
    ("dead-letters list --connection nope", 1, "there is no connection nope"),
    ("dead-letters list --route nope", 1, "there is no route nope"),
    ("dead-letters list --record nope/7", 1, "there is no connection nope"),
    ("dead-letters show nope", 1, "there is no dead letter with this id; dead letters are kept for 90 days"),
    ("dead-letters delete nope --yes", 1, "there is no dead letter with this id; dead letters are kept for 90 days"),
    ("dead-letters redrive", 2, "give the ids of dead letters, options such as --reason, or --all"),
    ("dead-letters redrive --route nope", 1, "there is no route nope"),
    ("dead-letters redrive --connection nope", 1, "there is no connection nope"),
    (
        "dead-letters redrive --before yesterday", 1,
        "before must be a time in UTC that ends with Z; this one has 9 characters",
    ),
    # missing resources, and names in a wrong form
    ("routes show nope", 1, "there is no route nope"),
    ("routes show a/b", 2, "'a/b' must have the form NAME"),
    ("connections show nope", 1, "there is no connection nope"),
    ("backfills list nope", 1, "there is no connection nope"),
    ("oauth-clients show kommo", 2, "'kommo' must have the form PLATFORM/NAME"),
    ("oauth-clients show kommo/nope", 1, "there is no OAuth client kommo/nope"),
    ("oauth-clients delete kommo/nope --yes", 1, "there is no OAuth client kommo/nope"),
    ("installs show nope", 1, "there is no install with this id; installs are kept for 90 days"),
    ("private-integrations show nope", 1, "there is no private integration with this id"),
    # invalid combinations
    ("connections delete crm --yes", 1, "the route people uses this connection: delete the route first"),
    ("authorizations create crm", 1, "crm has the kind bearer, which needs no authorization: replace its credentials with PUT "
     "/connections/crm/credentials"),
    ("authorizations create open-one", 1, "there is no OAuth client oauth2/shop"),
    ("contacts show crm 1", 1, "connections to http do not support this operation"),
    ("sso create crm maria", 1, "connections to http do not support this operation"),
    ("event-addresses create crm", 1, "connections to http do not support this operation"),
    (
        "backfills create crm --route nope", 1,
        "the connection crm is not the source of a route nope",
    ),
    (
        "backfills create wide", 1,
        "there is nothing to read: wide is not the source of a route with an object that http can list",
    ),
    ("backfills create open-one", 1, "the connection open-one is pending"),
    ("identifiers register crm /no/file", 2, "/no/file cannot be read: No such file or directory"),
    # private integrations
    (
        "private-integrations create BI", 2,
        "a private integration needs at least one --scope: `portaria scopes list` lists them",
    ),
    (
        "private-integrations edit a1b2c3d4e5", 2,
        "there is nothing to change: give --file or an option for a field (--help)",
    ),
    (
        "private-integrations edit a1b2c3d4e5 --scope audit:list --add-scope routes:show", 2,
        "--scope replaces all scopes: do not combine it with --add-scope or --remove-scope",
    ),
    ("private-integrations edit a1b2c3d4e5 --remove-scope audit:list", 1, "BI (a1b2c3d4e5) does not have the scope audit:list"),
    ("private-integrations cancel a1b2c3d4e5", 1, "there is no rotation to end: only one token works"),
    ("private-integrations create BI --file /no/file", 2, "/no/file cannot be read: No such file or directory"),
    # files and locations
    ("--token-file /no/token routes list", 2, "/no/token cannot be read: No such file or directory"),
    (
        "--stack-file /no/stack.json routes list", 3,
        "no such file: /no/stack.json; `make up` writes build/stack.json in the folder of the checkout",
    ),
    (
        "--stack-file /no/stack.json doctor", 3,
        "no such file: /no/stack.json; `make up` writes build/stack.json in the folder of the checkout",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("command", "exit_code", "message"), COMMANDS, ids=[row[0] for row in COMMANDS])
def test_cli_mistake_shows_error_with_advice(wire: Wire, command: str, exit_code: int, message: str) -> None:
    done = run(*command.split(), exit_code=exit_code)
    assert done.stderr == f"error: {message}\n"


USAGE = [
    (f"{CALL} crm TRACE /", "Invalid value for 'METHOD': 'TRACE' is not one of 'get', 'head', 'post'"),
    (f"{CALL} crm GET", "Missing argument 'PATH'."),
    (
        "receipts list --destination crm --state lost",
        "Invalid value for '--state': 'lost' is not one of 'queued', 'sent'",
    ),
    ("installs list --limit 0", "Invalid value for '--limit': 0 is not in the range x>=1."),
    (
        "private-integrations create BI --scope connections:cal",
        "'connections:cal' is not a scope: `portaria scopes list` lists them",
    ),
    (
        "private-integrations create BI --scope routes:list@crm",
        "'routes:list@crm': routes:list cannot be narrowed to a connection",
    ),
    (
        "private-integrations create BI --scope connections:call@a",
        "has no valid connection name after the @: 3 to 64 of A-Z a-z 0-9 _ -",
    ),
    ("logs --since soon", "'soon' is not a length of time: give a number and a unit, such as 30s, 10m, 2h or 1d"),
    ("recepts list", "No such command 'recepts'."),
    ("receipts list --conection crm", "No such option '--conection'."),
]


@pytest.mark.parametrize(("command", "message"), USAGE, ids=[row[0] for row in USAGE])
def test_cli_usage_error_names_the_argument(wire: Wire, command: str, message: str) -> None:
    assert message in " ".join(run(*command.split(), exit_code=2).stderr.split())
    assert wire.requests == []


# ------------------------------------------------------------------------------------------------------------- API discovery


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the file of a local cloud, and its subfolder as the current one."""
    below = tmp_path / "docs"
    below.mkdir()
    (tmp_path / "build").mkdir()
    monkeypatch.chdir(below)
    monkeypatch.delenv("PORTARIA_API_URL", raising=False)
    file = tmp_path / "build" / "stack.json"
    file.write_text(json.dumps({"api_url": "http://127.0.0.1:41000/live"}))
    return file


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener at the address of the local cloud's API."""

    class Connected:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: Connected())


NAMED = (
    "a local cloud is running here: name it with --stack-file ../build/stack.json, or with STACK=../build/stack.json after "
    "make"
)


@pytest.mark.usefixtures("running", "checkout")
class TestRunningLocalCloud:
    def test_cli_without_credentials_names_running_local_cloud(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)
        for command in ("routes", "doctor"):
            arguments = [command, "list"] if command == "routes" else [command]
            error = run(*arguments, exit_code=3).stderr
            assert error == f"error: no AWS credentials were found: log in, or set AWS_PROFILE; {NAMED}\n"

    def test_cli_unknown_stack_names_running_local_cloud(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        class CloudFormation:
            def describe_stacks(self, **call: str) -> Any:
                error = {"Code": "ValidationError", "Message": f"Stack with id {call['StackName']} does not exist"}
                raise ClientError({"Error": error}, "DescribeStacks")

        monkeypatch.setattr(botocore.session.Session, "create_client", lambda *_: CloudFormation())
        error = run("routes", "list", exit_code=3).stderr
        assert error == (
            "error: there is no stack portaria in this account and region: give --stack-name, or set AWS_REGION; "
            f"{NAMED}\n"
        )

    def test_cli_wrong_stack_file_names_file_of_running_local_cloud(self, wire: Wire, checkout: Path) -> None:
        error = run("--stack-file", "build/stack.json", "routes", "list", exit_code=3).stderr
        here = Path.cwd() / "build" / "stack.json"
        assert error == f"error: no such file: {here}; the running local cloud's file is {checkout}\n"


@pytest.mark.usefixtures("checkout")
def test_cli_without_credentials_does_not_name_stopped_local_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.session.Session, "get_credentials", lambda _: None)

    def refused(address: object, timeout: float) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refused)
    error = run("routes", "list", exit_code=3).stderr
    assert error == "error: no AWS credentials were found: log in, or set AWS_PROFILE\n"


def test_cli_connections_call_wildcard_failure_names_dialled_host(wire: Wire) -> None:
    with responses.RequestsMock() as mock:
        mock.get("https://eu.example.com/me", body=requests.exceptions.ReadTimeout())
        error = run("connections", "call", "wide", "GET", "https://eu.example.com/me", exit_code=1).stderr
    assert error == (
        "error: eu.example.com gave no answer: ReadTimeout; the request may have been processed, so check before you "
        "repeat it\n"
    )


# ---------------------------------------------------------------------------------------------------------- names in listings


def test_cli_dead_letters_list_shows_source_destination_reason_and_age(wire: Wire, world: Cloud) -> None:
    by_route = letter("a")
    by_program = letter("b", connection="a1b2c3d4e5", route="", destination="marketo-one", reason="bad_value")
    put_letters(world, by_route, by_program)
    empty = run("dead-letters", "list", "--reason", "other", "--state", "open").stdout
    assert empty == "There are no dead letters with reason other, state open.\n"
    shown = {item["id"]: item for item in listed("dead-letters", "list")}
    assert (shown["a"]["source"], shown["a"]["destination"]) == ("kommo-acme-1", "marketo-one")
    assert (shown["b"]["source"], shown["b"]["destination"]) == ("BI", "marketo-one")
    assert shown["b"]["connection"] == "a1b2c3d4e5"
    table = run("dead-letters", "list").stdout
    header, *rows = table.splitlines()
    assert header.split()[:7] == ["id", "age", "state", "records", "reason", "source", "destination"]
    assert [row.split()[:2] for row in rows if row.startswith(("a ", "b "))] == [["b", "0"], ["a", "0"]]
    assert "a1b2c3d4e5" not in table
    # The filter accepts what the listing shows, and the source of a deleted connection keeps its name.
    assert [item["id"] for item in listed("dead-letters", "list", "--connection", "a1b2c3d4e5")] == ["b"]
    assert listed("dead-letters", "list", "--connection", "kommo-acme-1", "--state", "redriven") == []
    for each in ("a", "b"):
        run("dead-letters", "delete", each, "--yes")


def test_cli_receipts_list_deleted_connection_is_listed(wire: Wire, world: Cloud) -> None:
    open_receipt(world.table, destination="gone-one")
    assert len(listed("receipts", "list", "--destination", "gone-one")) == 1
    assert listed("receipts", "list", "--destination", "gone-one", "--state", "failed") == []
    assert len(listed("receipts", "list", "--destination", "gone-one", "--record", "kommo-acme/1")) == 1
    error = run("receipts", "list", "--destination", "gone-one", "--record", "nope/1", exit_code=1).stderr
    assert error == "error: there is no connection gone-one\n"


# ------------------------------------------------------------------------------------------------------------------------ API

INTEGRATION = {"name": "BI", "scopes": ["routes:list"]}
HTTP = {"platform": "http", "name": "erp", "kind": "bearer", "allowed_domain": "api.example.com"}
ONE_ROUTE = {**ROUTE, "name": "other"}
CALLS: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/routes", "", 400, "the body is missing: send a JSON object"),
    ("POST", "/routes", "{", 400, "the body is not JSON: line 1, column 2: expecting property name enclosed in double quotes"),
    ("POST", "/routes", "[]", 400, "the body must be a JSON object"),
    ("POST", "/routes", '{"name": "a", "name": "b"}', 400, "the field name occurs twice in the body"),
    ("POST", "/private-integrations", {**INTEGRATION, "scope": "x"}, 400,
     "scope is not a known field: did you mean scopes?"),
    ("POST", "/private-integrations", {"name": "BI"}, 400, "scopes is missing"),
    ("POST", "/private-integrations", {**INTEGRATION, "scopes": "routes:list"}, 400, "scopes must be a list"),
    ("POST", "/private-integrations", {**INTEGRATION, "scopes": ["nope"]}, 400,
     "scopes.0 is not a scope; the API reference lists them"),
    ("PATCH", "/private-integrations/a1b2c3d4e5", {}, 400, "there is nothing to change: give name, description or scopes"),
    ("PATCH", "/private-integrations/zzzzzzzzzz", {"name": "x"}, 404, "there is no private integration with this id"),
    ("POST", "/private-integrations/a1b2c3d4e5/rotation/expire", {}, 409, "there is no rotation to end: only one token works"),
    ("GET", "/routes?limit=0", None, 400, "limit must be a number from 1 to 100"),
    ("GET", "/routes?limit=1&limit=2", None, 400, "limit was given 2 times: give it once"),
    ("GET", "/routes?cursor=x", None, 400,
     "the cursor is not valid: send the next_cursor of the last response, or none to begin again"),
    ("GET", "/routes?state=x", None, 400,
     "state is not a parameter of this operation: it has limit, cursor, source, destination"),
    ("GET", "/installs?state=lost", None, 400, "state must be one of received, exchanging, connected, failed"),
    ("GET", "/receipts?request=q&destination=crm", None, 400,
     "give at most one of destination (optionally with record or email), request and correlation_id, and optionally state; "
     "the request has destination, request"),
    ("GET", "/receipts?destination=nope", None, 404, "there is no connection nope"),
    ("GET", "/receipts?destination=marketo-one&record=nope/1", None, 404, "there is no connection nope"),
    ("GET", "/dead-letters?connection=nope", None, 404, "there is no connection nope"),
    ("GET", "/dead-letters?route=nope", None, 404, "there is no route nope"),
    ("POST", "/dead-letters/redrive", {"route": "nope"}, 404, "there is no route nope"),
    ("POST", "/dead-letters/redrive", {"ids": ["a"], "route": "people"}, 400,
     "the body must hold either ids or filters (reason, route, connection, before), and not both"),
    ("GET", "/nothing", None, 404, "this path does not exist in the API"),
    ("GET", "/routes/a%20b", None, 404,
     "the path contains something that cannot be a name or an id: 1 to 64 of A-Z a-z 0-9 _ -"),
    ("POST", "/connections", {**HTTP, "platform": "nope"}, 400,
     "platform must be one of engage, http, leadconnector, marketo, oauth2"),
    ("POST", "/connections", {**HTTP, "kind": "nope"}, 400, "kind must be one of api_key, basic, bearer for http"),
    ("POST", "/connections", {"platform": "http", "name": "erp"}, 400,
     "kind is missing: it must be one of api_key, basic, bearer for http"),
    ("POST", "/connections", {**HTTP, "credentials": {}}, 400, "credentials.token is missing"),
    ("POST", "/connections", {**HTTP, "credentials": {"token": "x", "key": "y"}}, 400,
     "credentials has 1 unknown name: the known ones are token"),
    ("POST", "/connections", {**HTTP, "credentials": {"token": "a b"}}, 400,
     "credentials.token must be 1 to 4,096 printable ASCII characters without spaces or line breaks; this one has 3"),
    ("POST", "/connections", {**HTTP, "name": "crm", "credentials": {"token": "x"}}, 409,
     "the connection crm exists already: replace its credentials with PUT /connections/crm/credentials"),
    ("POST", "/connections", {**HTTP, "allowed_domain": "https://api.example.com", "credentials": {"token": "x"}}, 400,
     "allowed_domain must be a host name alone, without https:// (other schemes are never used)"),
    ("POST", "/connections", {**HTTP, "allowed_domain": "*.com.br", "credentials": {"token": "x"}}, 400,
     "allowed_domain must be a registered domain or a name below one: this is a public suffix, or its top-level domain does "
     "not exist (https://publicsuffix.org)"),
    ("POST", "/connections", {**HTTP, "platform": "kommo", "credentials": {}}, 400,
     "connections to kommo are created by installing its application: open the OAuth client's install page"),
    ("PUT", "/connections/crm/credentials", {"credentials": {"token": "x"}, "allowed_domain": "other.example.com"}, 409,
     "allowed_domain of a connection cannot change: create another connection and point the routes to it"),
    ("DELETE", "/connections/crm", None, 409, "the route people uses this connection: delete the route first"),
    ("DELETE", "/routes/nope", None, 404, "there is no route nope"),
    ("POST", "/routes", {**ONE_ROUTE, "source": "connection:nope"}, 400, "there is no connection nope"),
    ("POST", "/oauth-clients", {"platform": "nope", "name": "acme", "client_id": "a", "client_secret": "b"}, 400,
     "platform must be one of kommo, oauth2"),
    ("POST", "/oauth-clients", {"platform": "kommo", "name": "acme", "client_id": "a"}, 400, "client_secret is missing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    CALLS,
    ids=[f"{row[0]} {row[1]} {str(row[2])[:60]}" for row in CALLS],
)
def test_api_mistake_is_answered_with_advice(
    manage: Manage, method: str, path: str, body: Any, status: int, detail: str
) -> None:
    answer = manage.call(method, path, body)
    assert (answer.status, answer.content["detail"]) == (status, detail)


def test_mistakes_table_has_at_least_60_rows() -> None:
    assert len(COMMANDS) + len(USAGE) + len(CALLS) >= 60
