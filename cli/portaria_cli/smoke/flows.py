"""Checks that send something through the stack and look at what becomes of it."""

from __future__ import annotations

import json
from urllib.parse import urlsplit
from uuid import uuid4

from portaria import platforms
from portaria.connections import connection_store
from portaria.core import clock
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from portaria.overview.findings import OK, WARN
from portaria_cli.auth import NOTHING_THERE
from portaria_cli.doctor.findings import NotLooked, NotThere
from portaria_cli.errors import Document, NotDone
from portaria_cli.smoke.run import Failed, Run, smoke_install, smoke_record

Result = tuple[str, str, str]

# What keeps the platform's answer from coming. The stack works as far as it can be told.
SILENCE = (
    "unreachable", "no_answer", "platform_error", "rate_limited", "rate_blocked", "answer_unreadable", "answer_lost",
)  # fmt: skip
UNREACHABLE_ADVICE = (
    "can the functions reach the internet? with VpcSubnetIds they need a NAT gateway; then run this again"
)
# Long enough for the check; DynamoDB removes what a killed run left even where no other run follows.
SUBSCRIPTION_LIFE_S = 3_600
NO_CONNECTION = "unknown_connection"


def unknown_client(run: Run) -> Result:
    """The install hook refuses a client that is not registered, and keeps nothing of the call."""
    client = run.names.unknown_client
    answer = run.hook(client)
    if answer.status != 404 or "unknown_client" not in answer.text:
        raise _hook_failed(answer.status, answer.words)
    if run.api.find("installs", run.names.install(client)):
        raise Failed("the refused install was stored", "please report it")
    return OK, "the install hook answers 404 unknown_client", ""


def forged_code(run: Run) -> Result:
    """A forged code travels hook, queue and exchange, and the platform itself refuses it."""
    names, (platform, smoke) = run.names, smoke_install()
    run.api.create(
        "oauth-clients",
        body={
            "platform": platform,
            "name": names.name,
            "client_id": str(uuid4()),
            "client_secret": f"portaria-smoke-{uuid4().hex}",
        },
    )
    answer = run.hook(names.name)
    if answer.status != 200:
        raise _hook_failed(answer.status, answer.words)
    install_id = names.install(names.name)

    def ended() -> Document | None:
        found = run.api.find("installs", install_id)
        return found if found and found["state"] in ("failed", "connected") else None

    install = run.until(ended)
    if not install:
        return _still_under_way(run, platform, install_id)
    reason, detail = str(install["reason"]), str(install["detail"])
    if install["state"] == "failed":
        run.alarms.append("InstallsFailedAlarm")
    if reason in SILENCE:
        return WARN, f"the refusal of {platform} did not arrive: {detail}", UNREACHABLE_ADVICE
    if install["state"] != "failed" or reason not in smoke.REFUSALS:
        raise Failed(
            f"the install ended as {install['state']} ({reason}: {detail})", "run `portaria logs exchange_code`"
        )
    return OK, f"hook, queue and exchange work; {platform} refused the code: {reason}", ""


def private_integration(run: Run) -> Result:
    """A token works for its scope alone, both tokens work during a rotation, and neither after its end."""
    integration, old = run.new_integration("connections:list")
    _expect(run, "a new token", old, 200)
    _expect(run, "a token without the scope", old, 403, "audit")
    new = Secret(str(run.api.post("private-integrations", integration, "rotate", body={})["token"]))
    _expect(run, "the old token during a rotation", old, 200)
    _expect(run, "the new token during a rotation", new, 200)
    run.api.post("private-integrations", integration, "rotation", "expire", body={})
    _expect(run, "the old token after the rotation", old, 401)
    _expect(run, "the new token after the rotation", new, 200)
    run.api.delete("private-integrations", integration)
    _expect(run, "a revoked token", new, 401)
    return OK, "created, used, rotated and revoked; each token worked exactly as long as it should", ""


def outbound_call(run: Run) -> Result:
    """A connection to this stack's own API, called through the outbound client with a token of this stack."""
    parts = urlsplit(run.public_url)
    body = {
        "name": run.names.name,
        "platform": "http",
        "kind": "bearer",
        "allowed_domain": parts.hostname,
        "credentials": {"token": run.token.reveal()},
    }
    run.api.create("connections", body=body)
    path = f"{parts.path}/v1/connections"
    try:
        answer = run.api.post("connections", run.names.name, "call", body={"method": "GET", "path": path})
    except NotDone as refused:
        if refused.reason in ("unreachable", "no_answer", "address_not_allowed"):
            advice = (
                "the functions must reach the API's public address: with VpcSubnetIds they need a NAT gateway, and an "
                "interface endpoint for execute-api with private DNS keeps them from it"
            )
            raise Failed(f"the functions did not reach {parts.hostname}: {refused}", advice) from None
        raise
    if answer["status"] != 200:
        raise Failed(
            f"{parts.hostname} answered {answer['status']} to the call",
            "401: the credential was not applied; 403: a firewall (WebAcl) refuses the functions' address",
        )
    return OK, f"an authenticated call reached {parts.hostname} and was answered", ""


def front_door(run: Run) -> Result:
    """A record for a destination that does not exist becomes a dead letter with its reason, which is then deleted.

    The front door takes records for accounts that have a connection. An entry of the index by account, without the connection
    itself, stands for a deleted destination: the record is accepted and cannot be delivered. Nothing leaves the stack.
    """
    names, (platform, smoke) = run.names, smoke_record()
    fields = smoke.account_fields(names.mark)
    call = smoke.call(fields, names.name)
    run.deployment.table.put(subscription(run, platform, smoke.KIND, fields))
    headers = {call.token_header: run.token.reveal()}

    def accepted() -> int | None:
        answer = run.send("POST", call.path, headers=headers, body=call.body)
        # An index follows its table after a moment.
        if answer.status == 404:
            return None
        if answer.status != 202:
            raise Failed(
                f"the front door answered {answer.status}: {answer.words}", "look at the log of accept_records"
            )
        return answer.status

    if not run.until(accepted):
        raise Failed(
            "the front door does not find the account", "look at the index by_source and at accept_records' log"
        )
    letter = run.until(lambda: next(iter(dead_letters(run)), None))
    if not letter:
        advice = (
            "look at the log of ingest_records, and for its event source: " + "`portaria smoke --only event-sources`"
        )
        raise Failed("the record was accepted and did not become a dead letter", advice)
    run.alarms.append("DeadLettersAlarm")
    content = run.api.get("dead-letters", letter["id"])["content"]
    if letter["reason"] != NO_CONNECTION or call.record not in [each["data"] for each in content]:
        raise Failed(f"the dead letter has the reason {letter['reason']}, or not the record", "please report it")
    run.api.delete("dead-letters", letter["id"])
    if run.api.find("dead-letters", letter["id"]):
        raise Failed("the dead letter still exists after it was deleted", "run `portaria logs manage`")
    return OK, f"the record became a dead letter ({letter['reason']}: {letter['detail']}) and was deleted", ""


def dead_letters(run: Run) -> list[Document]:
    """The dead letters of the destination that does not exist. The API refuses a filter whose name it does not know."""
    try:
        return list(run.api.list("dead-letters", connection=run.names.destination))
    except NotDone as refused:
        if refused.status == 404:
            return []
        raise


def subscription(run: Run, platform: str, kind: str, fields: dict[str, str]) -> Document:
    """An entry of the index by account for a connection that does not exist. No listing shows it."""
    found = platforms.load(platform)
    connection = Connection(
        name=run.names.destination,
        platform=platform,
        kind=kind,
        allowed_domain="",
        state="connected",
        generation=1,
        secret_id="",
        version_id="",
        account_id=found.require(found.account_fields).account_id(fields),
        fields=fields,
    )
    pk, sk = run.names.subscription_key
    item = connection_store.to_item(connection)
    shown = {name: value for name, value in item.items() if name not in ("list_pk", "list_sk", "due_pk", "due_at")}
    expires_at = int(clock.now().timestamp()) + SUBSCRIPTION_LIFE_S
    return shown | {"pk": pk, "sk": sk, "expires_at": expires_at}


def _hook_failed(status: int, words: str) -> Failed:
    if status == 429:
        return Failed("the install hook is throttled (429)", "raise InstallThrottle or AcceptReservedConcurrency")
    if words == NOTHING_THERE or status == 404:
        return Failed(f"the API has no install hook ({status}: {words})", "deploy again: `make deploy`")
    if status == 403:
        return Failed(f"the install hook is refused (403: {words})", "a firewall (WebAcl) may keep this address out")
    return Failed(f"the install hook answered {status}: {words}", "run `portaria logs accept_install`")


def _still_under_way(run: Run, platform: str, install_id: str) -> Result:
    """Why an install has not ended: whether the stack or the platform is to blame."""
    install = run.api.find("installs", install_id)
    if not install or install["state"] == "received":
        advice = "run `portaria logs exchange_code`, and `portaria smoke --only event-sources`"
        raise Failed("the hook accepted the code, and exchange_code did not receive it", advice)
    try:
        reason, detail = _last_reason(run, install_id)
    except (NotLooked, NotThere) as unread:
        reason, detail = "", f"its log could not be read ({unread})"
    if reason in SILENCE:
        return WARN, f"exchange_code works, but the refusal of {platform} did not arrive: {detail}", UNREACHABLE_ADVICE
    told = ": ".join(text for text in (reason, detail) if text) or "its log does not say why"
    raise Failed(
        f"exchange_code received the code and could not finish the install: {told}", "run `portaria logs exchange_code`"
    )


def _last_reason(run: Run, install_id: str) -> tuple[str, str]:
    """What exchange_code's log says last of why an install waits."""
    lines = run.call(
        "logs",
        "filter_log_events",
        logGroupName=run.deployment.physical("ExchangeCodeLogs"),
        startTime=int((clock.now().timestamp() - 900) * 1000),
        filterPattern=f'"{install_id}"',
    ).get("events", [])
    for event in reversed(lines):
        try:
            line = json.loads(event["message"])
        except ValueError:
            continue
        if (
            isinstance(line, dict)
            and line.get("install_id") == install_id
            and (line.get("reason") or line.get("error"))
        ):
            return str(line.get("reason") or line["error"]), str(line.get("detail") or "")
    return "", ""


def _expect(run: Run, what: str, token: Secret, status: int, path: str = "connections") -> None:
    try:
        run.with_token(token).get(path)
        found = 200
    except NotDone as refused:
        if not refused.status:
            raise
        found = refused.status
    if found != status:
        raise Failed(f"{what} was answered {found}, not {status}", "run `portaria logs manage`")
