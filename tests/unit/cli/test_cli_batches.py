"""Batches from a file: reading what spreadsheets write, sending it in parts, and the outcome of each entry."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import responses
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError
from rich.console import Console

from portaria_cli import bulk_upload, context, import_files
from portaria_cli.errors import NotDone
from portaria_cli.terminal import output
from tests.fakes.api.command_line import Answered, Wire, listed, run, told, wired
from tests.fakes.api.manage import empty
from tests.fakes.aws.moto_cloud import Cloud
from tests.fakes.connections.connected import TOKEN, to_engage, to_leadconnector
from tests.fakes.platforms.engage import Engage
from tests.fakes.platforms.leadconnector import LeadConnector, error

HEADER = "user_login,identifier\n"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between requests, in seconds."""
    waits: list[float] = []
    monkeypatch.setattr(bulk_upload, "sleep", waits.append)
    return waits


@pytest.fixture
def wire(shared: Cloud, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> Iterator[Wire]:
    yield wired(shared, monkeypatch)
    empty()


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def engage(wire: Wire, shared: Cloud, mock: responses.RequestsMock) -> Engage:
    to_engage(shared)
    return Engage(mock)


@pytest.fixture
def marketek(wire: Wire, shared: Cloud, mock: responses.RequestsMock) -> LeadConnector:
    to_leadconnector(shared)
    return LeadConnector(mock, TOKEN)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.csv"


def outcomes(document: dict[str, Any]) -> list[str]:
    return [became["outcome"] for became in document["outcomes"]]


def answering(wire: Wire, answers: list[Any], field: str = "users") -> list[list[Any]]:
    """Answer batches with `answers`: functions of the batch, exceptions or responses. Returns the requests that were sent."""
    sent: list[list[Any]] = []

    def answer(request: AWSPreparedRequest) -> Answered:
        batch = json.loads(request.body)[field]
        sent.append(batch)
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        answer: Answered = found(batch) if callable(found) else found
        return answer

    wire.instead = answer
    return sent


def became(*outcomes: str, after_s: float | None = None) -> Callable[[list[Any]], Answered]:
    """One outcome for each entry; the last one is used for the rest."""

    def answer(batch: list[Any]) -> Answered:
        told = [outcomes[min(number, len(outcomes) - 1)] for number in range(len(batch))]
        items = [
            {**user, "outcome": outcome, "reason": "rate_limited" if outcome == "not_sent" else "", "detail": ""}
            for user, outcome in zip(batch, told, strict=True)
        ]
        return Answered(200, json.dumps({"users": items, "retry_after_s": after_s}))

    return answer


def refused(status: int, reason: str, **more: Any) -> Answered:
    document = {"type": f"urn:portaria:problem:{reason}", "title": "t", "status": status, "detail": "not now", **more}
    return Answered(status, json.dumps(document), {"Retry-After": "3"} if status == 503 else {})


def users(file: Path, count: int) -> Path:
    file.write_text(HEADER + "".join(f"user{number},u-{number}\n" for number in range(count)))
    return file


# ------------------------------------------------------------ what spreadsheets write


@pytest.mark.parametrize(
    "content",
    [
        "user_login,identifier\nmaria,u-1\njoão,u-2\n".encode(),
        "user_login,identifier\r\nmaria,u-1\r\njoão,u-2".encode(),
        "\ufeffuser_login;identifier\r\nmaria;u-1\r\njoão;u-2\r\n".encode(),
        "user_login;identifier\r\nmaria;u-1\r\njoão;u-2\r\n;\r\n;\r\n".encode("cp1252"),
        "user_login\tidentifier\r\nmaria\tu-1\r\njoão\tu-2\r\n".encode("utf-16"),
        "sep=;\r\nuser_login;identifier\r\nmaria;u-1\r\njoão;u-2\r\n".encode(),
        '"sep=,"\r\nuser_login,identifier\r\nmaria,u-1\r\njoão,u-2\r\n'.encode(),
        'Identifier;Nome;USER_LOGIN\n"u-1";"Maria; a primeira";maria\n u-2 ;;joão \n'.encode(),
        '\n\nuser_login,identifier,\n"maria","u-1",\n\njoão,u-2,\n'.encode(),
    ],
)
def test_read_users_spreadsheet_csv_formats_are_read(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert [entry.content for entry in import_files.read_users(file)] == [
        {"user_login": "maria", "identifier": "u-1"},
        {"user_login": "joão", "identifier": "u-2"},
    ]


def test_read_users_windows_1252_file_prints_a_note(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes("user_login;identifier\njoão;1".encode("cp1252"))
    import_files.read_users(file)
    assert "is read as Windows-1252" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: its first line names the columns user_login, identifier"),
        (b"\n;\n", "is empty"),
        (b"login,identifier\nmaria,1", "names no column user_login"),
        (b"maria;u-1\n", "names no column user_login"),
        (b"user_login,identifier,identifier\nmaria,1,2", "names the column identifier twice"),
        (b"user_login,identifier\nmaria,1\nana", "line 3: there are 1 cells where the header has 2"),
        (b"user_login,identifier\nmaria,1\n,2", "line 3: user_login is empty"),
        (b'user_login,identifier\n"ma\nria",1\nana,', "line 4: identifier is empty"),
        (b"sep=;\nuser_login;identifier\nmaria;1\n\nana;1", "line 5: the identifier is the same as in line 3"),
        (b'user_login,identifier\n"maria"x,1', "line 2: "),
        (b"user_login,identifier\n\x81\xff,1", "is not text in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_cli_identifiers_invalid_csv_is_refused_with_line_and_sends_nothing(
    wire: Wire, file: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        file.write_bytes(content)
    assert words in run("identifiers", "register", "engage-one", file, exit_code=2).stderr
    assert wire.requests == []


def test_read_contacts_csv_is_read(file: Path) -> None:
    file.write_bytes(
        "\ufeffemail;firstName;tags;dnd\r\na@example.com;Zé;vip, novo ,;VERDADEIRO\r\nb@example.com;;;\r\n".encode()
    )
    assert [entry.content for entry in import_files.read_contacts(file)] == [
        {"email": "a@example.com", "firstName": "Zé", "tags": ["vip", "novo"], "dnd": True},
        {"email": "b@example.com"},
    ]


@pytest.mark.parametrize("wrapped", [True, False])
def test_read_contacts_json_is_read(tmp_path: Path, wrapped: bool) -> None:
    contacts = [{"phone": "+55", "customFields": [{"id": "1", "field_value": 2}]}, {"name": "x"}]
    file = tmp_path / "contacts.JSON"
    file.write_text("\ufeff" + json.dumps({"contacts": contacts} if wrapped else contacts))
    read = import_files.read_contacts(file)
    assert [entry.content for entry in read] == contacts
    assert [(entry.place, entry.name) for entry in read] == [("entry 1", "+55"), ("entry 2", "x")]


@pytest.mark.parametrize(
    ("text", "words"), [("[", "not JSON"), ("[1]", "a list of contacts"), ("{}", "a list of contacts")]
)
def test_read_contacts_invalid_json_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(NotDone, match=words):
        import_files.read_contacts(tmp_path / "file.json")


# ------------------------------------------------------------- outcomes of entries


def test_cli_identifiers_each_user_has_an_outcome(engage: Engage, file: Path) -> None:
    file.write_text(f"{HEADER}maria,u-1\nnobody,u-9\njoão,u-2\n{'x' * 256},u-3\n")
    done = run("identifiers", "register", "engage-one", file, exit_code=1)
    assert done.stdout.splitlines()[-1] == "2 registered · 2 refused"
    assert "line 3  nobody" in done.stdout
    assert "user_login must be 1 to 255 characters" in " ".join(done.stdout.split())
    assert "maria" not in done.stdout
    shown = told("identifiers", "register", "engage-one", file, exit_code=1)
    assert outcomes(shown) == ["registered", "refused", "registered", "refused"]
    assert shown["counts"] == {"registered": 2, "refused": 2}
    assert engage.registered == {"u-1": "maria", "u-2": "joão"}


def test_cli_identifiers_all_registered_prints_count_only(engage: Engage, file: Path) -> None:
    file.write_text(f"{HEADER}maria,u-1\njoão,u-2\n")
    done = run("identifiers", "register", "engage-one", file)
    assert (done.stdout, done.stderr) == ("2 registered\n", "")
    file.write_text(HEADER)
    assert run("identifiers", "register", "engage-one", file).stdout == "The file has no entries.\n"


def test_cli_upsert_each_contact_has_an_outcome(marketek: LeadConnector, file: Path) -> None:
    file.write_text("email,firstName,tags\nmaria@example.com,Maria,\nnone,Zé,\n,Ana,\nana@example.com,Ana,vip\n")
    shown = told("contacts", "upsert", "marketek", file, exit_code=1)
    assert outcomes(shown) == ["created", "refused", "refused", "refused"]
    assert [became["place"] for became in shown["outcomes"]] == ["line 2", "line 3", "line 4", "line 5"]
    assert "set overwrite_tags" in shown["outcomes"][3]["detail"]
    again = told("contacts", "upsert", "marketek", file, "--overwrite-tags", exit_code=1)
    assert outcomes(again) == ["updated", "refused", "refused", "created"]
    assert marketek.contacts[again["outcomes"][3]["id"]]["tags"] == ["vip"]
    contact = run("contacts", "show", "marketek", shown["outcomes"][0]["id"]).stdout
    assert "maria@example.com" in contact
    assert told("contacts", "show", "marketek", shown["outcomes"][0]["id"])["fields"]["firstName"] == "Maria"
    assert "no contact with this id" in run("contacts", "show", "marketek", "none", exit_code=1).stderr


def test_cli_upsert_rate_limited_contacts_are_sent_again_after_wait(
    marketek: LeadConnector, file: Path, waits: list[float]
) -> None:
    limit = error(429, "Too Many Requests")
    marketek.before = [None, (429, {**limit[1], "Retry-After": "7"}, limit[2])]
    file.write_text("email\n" + "".join(f"{number}@example.com\n" for number in range(4)))
    assert outcomes(told("contacts", "upsert", "marketek", file)) == ["created"] * 4
    assert waits == [7]
    assert len(marketek.contacts) == 4


def test_cli_identifiers_platform_without_identifiers_is_not_sent(marketek: LeadConnector, file: Path) -> None:
    shown = run("--json", "identifiers", "register", "marketek", users(file, 2), exit_code=1)
    assert outcomes(json.loads(shown.stdout)) == ["not_sent", "not_sent"]
    assert json.loads(shown.stderr)["type"] == "urn:portaria:problem:not_offered"


# ------------------------------------------------------------------ requests


def test_cli_identifiers_sends_batches_of_500(wire: Wire, file: Path) -> None:
    sent = answering(wire, [became("registered")] * 3)
    assert told("identifiers", "register", "engage-one", users(file, 1_001))["counts"] == {"registered": 1_001}
    assert [len(batch) for batch in sent] == [500, 500, 1]


def test_cli_upsert_sends_batches_of_50(wire: Wire, file: Path) -> None:
    def created(batch: list[Any]) -> Answered:
        items = [{"outcome": "created", "id": "1", "reason": "", "detail": ""} for _ in batch]
        return Answered(200, json.dumps({"contacts": items, "retry_after_s": None}))

    sent = answering(wire, [created] * 3, "contacts")
    file.write_text("email\n" + "".join(f"{number}@example.com\n" for number in range(101)))
    assert told("contacts", "upsert", "crm", file)["counts"] == {"created": 101}
    assert [len(batch) for batch in sent] == [50, 50, 1]


def test_cli_identifiers_batches_stay_under_api_body_limit(wire: Wire, file: Path) -> None:
    file.write_text(HEADER + "".join(f"{'ü' * 250},{'ü' * 240}{number}\n" for number in range(600)))
    sent = answering(wire, [became("registered")] * 3)
    run("identifiers", "register", "engage-one", file)
    assert sum(map(len, sent)) == 600
    assert all(len(request.body) < 1_000_000 for request in wire.requests)
    assert len(sent[0]) > 250


def test_cli_identifiers_not_sent_users_precede_the_rest_in_next_batch(
    wire: Wire, file: Path, waits: list[float]
) -> None:
    answers = [became(*["registered"] * 499, "not_sent", after_s=10.0), became("registered")]
    sent = answering(wire, answers)
    assert told("identifiers", "register", "engage-one", users(file, 502))["counts"] == {"registered": 502}
    assert [user["identifier"] for user in sent[1]] == ["u-499", "u-500", "u-501"]
    assert waits == [10]


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        (became("not_sent", after_s=5.0), bulk_upload.MAX_VAIN_WAITS + 1),
        (became("not_sent", after_s=3_600.0), 1),
        (refused(503, "rate_limited"), bulk_upload.MAX_VAIN_WAITS + 1),
        (refused(503, "rate_limited", detail="x"), bulk_upload.MAX_VAIN_WAITS + 1),
    ],
)
def test_cli_identifiers_waits_are_bounded(wire: Wire, file: Path, waits: list[float], answer: Any, most: int) -> None:
    sent = answering(wire, [answer] * 10)
    done = run("--json", "identifiers", "register", "engage-one", users(file, 600), exit_code=1)
    assert outcomes(json.loads(done.stdout)) == ["not_sent"] * 600
    assert json.loads(done.stderr)["error"]
    assert len(sent) == most
    assert all(wait <= bulk_upload.MAX_WAIT_S for wait in waits)


def test_cli_identifiers_not_sent_without_retry_after_is_not_retried(
    wire: Wire, file: Path, waits: list[float]
) -> None:
    sent = answering(wire, [became("registered", "not_sent")])
    assert outcomes(told("identifiers", "register", "engage-one", users(file, 2), exit_code=1))[1] == "not_sent"
    assert (len(sent), waits) == (1, [])


def test_cli_identifiers_progress_resets_wait_count(wire: Wire, file: Path, waits: list[float]) -> None:
    answers = [became("registered", "not_sent", after_s=1.0) for _ in range(9)]
    answering(wire, [*answers, became("registered")])
    assert told("identifiers", "register", "engage-one", users(file, 10))["counts"] == {"registered": 10}
    assert len(waits) == 9


def test_cli_identifiers_lost_answer_marks_batch_unknown_and_continues(wire: Wire, file: Path) -> None:
    lost = ConnectionClosedError(endpoint_url="x", request=None, error="x")
    sent = answering(wire, [lost, became("registered")])
    done = run("identifiers", "register", "engage-one", users(file, 502), exit_code=1)
    assert done.stdout.splitlines()[-1] == "500 unknown · 2 registered"
    assert "send it again" in " ".join(done.stdout.split())
    assert len(sent) == 2


@pytest.mark.parametrize(
    ("answer", "first", "code"),
    [
        (EndpointConnectionError(endpoint_url="x"), "not_sent", 3),
        (refused(409, "needs_reconnect"), "not_sent", 1),
        (refused(500, "internal_error"), "unknown", 1),
        (Answered(502, '{"message": "Internal server error"}'), "unknown", 1),
        (Answered(403, '{"message": "Forbidden"}'), "not_sent", 1),
        (refused(400, "invalid_input", field="users", detail="users may have 500 entries"), "not_sent", 1),
    ],
)
def test_cli_identifiers_fatal_error_reports_outcomes_so_far(
    wire: Wire, file: Path, answer: Any, first: str, code: int
) -> None:
    sent = answering(wire, [became("registered"), answer])
    done = run("--json", "identifiers", "register", "engage-one", users(file, 1_002), exit_code=code)
    assert outcomes(json.loads(done.stdout)) == ["registered"] * 500 + [first] * 500 + ["not_sent"] * 2
    assert json.loads(done.stderr)["error"]
    assert len(sent) == 2


def test_cli_identifiers_interrupted_reports_outcomes_so_far(wire: Wire, file: Path) -> None:
    def interrupt(batch: list[Any]) -> Answered:
        raise KeyboardInterrupt

    answering(wire, [became("registered"), interrupt])
    done = run("--json", "identifiers", "register", "engage-one", users(file, 1_002), exit_code=130)
    assert outcomes(json.loads(done.stdout)) == ["registered"] * 500 + ["unknown"] * 500 + ["not_sent"] * 2


def test_cli_identifiers_more_than_20_refused_users_are_all_reported(engage: Engage, file: Path) -> None:
    """The API names 20 at a time."""
    file.write_text(HEADER + "".join(f"{'x' * (300 if number % 2 else 5)},u-{number}\n" for number in range(90)))
    engage.people = {"xxxxx"}
    shown = told("identifiers", "register", "engage-one", file, exit_code=1)
    assert outcomes(shown) == ["registered", "refused"] * 45


# ----------------------------------------------------------------- terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error as a terminal shows it."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    monkeypatch.setattr(context, "errors", lambda: console)
    monkeypatch.setattr(bulk_upload, "errors", lambda: console)
    return written


def test_cli_identifiers_shows_progress_on_terminal(wire: Wire, file: Path, terminal: io.StringIO) -> None:
    answering(wire, [became(*["registered"] * 499, "not_sent", after_s=10.0), became("registered")])
    done = run("identifiers", "register", "engage-one", users(file, 502))
    assert done.stdout == "502 registered\n"
    assert "502/502" in terminal.getvalue()


def test_output_outcomes_on_terminal_are_limited_to_50_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [
        {"place": f"line {number}", "name": "x", "outcome": "refused", "reason": "", "detail": "no"}
        for number in range(60)
    ]
    for is_terminal, rows in ((True, 50), (False, 60)):
        written = io.StringIO()
        output.outcomes(
            bad,
            {"refused": 60},
            Console(file=written, force_terminal=is_terminal, no_color=True, highlight=False, width=80),
        )
        assert written.getvalue().count("line ") == rows
        assert ("and 10 more" in written.getvalue()) == is_terminal


def test_cli_installs_list_several_pages_shows_progress(wire: Wire, terminal: io.StringIO) -> None:
    pages = [{"items": [{"id": "a"}] * 100, "next_cursor": "more"}, {"items": [{"id": "b"}], "next_cursor": None}]
    wire.instead = lambda request: Answered(200, json.dumps(pages.pop(0)))
    assert len(listed("installs", "list", "--limit", "101")) == 101
    assert "100 read so far" in terminal.getvalue()


def test_cli_configure_shows_progress_on_terminal(wire: Wire, terminal: io.StringIO, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(
        "clients: [{platform: kommo, name: red, client_id: a, client_secret: canary-secret}]"
    )
    run("configure", tmp_path / "file")
    assert "checking 1/1  kommo/red" in terminal.getvalue()
    assert "1/1  OAuth client kommo/red" in terminal.getvalue()
