"""Commands for Kommo: accounts, contacts, installing and uninstalling."""

from __future__ import annotations

from typing import Any

import click

from local.processes import NotStarted
from local.sandbox import browser
from local.sandbox.accounts import KOMMO_CLIENT
from local.sandbox.context import Account, Assignment, Sandbox, pass_sandbox, say, table
from local.simulators.people import CHANGEABLE

AccountArgument = click.argument("account", type=Account())
ClientOption = click.option(
    "--client", default=KOMMO_CLIENT, show_default=True, metavar="NAME", help="Portaria's OAuth client."
)
FieldsOption = click.option(
    "--set", "fields", type=Assignment(CHANGEABLE), multiple=True, help=f"{', '.join(CHANGEABLE)}. Can be repeated."
)
LostOption = click.option("--lost", is_flag=True, help="Kommo does not send the event.")
TimesOption = click.option(
    "--times", type=click.IntRange(1), default=1, show_default=True, help="The number of deliveries of the event."
)


@click.group()
def kommo() -> None:
    """Kommo: accounts, contacts, installs."""


@kommo.command("accounts")
@pass_sandbox
def list_accounts(sandbox: Sandbox) -> None:
    """List the accounts."""
    found = sandbox.control.kommo()
    live = {grant["host"] for grant in found["grants"] if not grant["revoked"]}
    rows = [{**each, "installed": "yes" if each["host"] in live else "no"} for each in found["accounts"]]
    table(rows, "host", "id", "name", "contacts", "installed", nothing="There are no accounts.")


@kommo.command("add-account")
@click.argument("name")
@click.option("--contacts", type=click.IntRange(0), default=100, show_default=True, help="The number of contacts.")
@click.option(
    "--without-email",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="The share of contacts without an e-mail address.",
)
@pass_sandbox
def add_account(sandbox: Sandbox, name: str, contacts: int, without_email: float) -> None:
    """Add an account with generated contacts. An existing account stays unchanged."""
    host = str(Account().convert(name, None, None))
    subdomain, _, domain = host.partition(".")
    if host in {account["host"] for account in sandbox.control.kommo()["accounts"]}:
        say(f"{host} exists already.")
        return
    made = sandbox.control.add_kommo_account(subdomain, domain=domain, contacts=contacts, without_email=without_email)
    say(f"{made['host']} has the id {made['id']} and {contacts} contacts.")


@kommo.command("contacts")
@AccountArgument
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="The first N.")
@pass_sandbox
def list_contacts(sandbox: Sandbox, account: str, limit: int) -> None:
    """List an account's contacts."""
    found = sandbox.control.kommo_contacts(account)["contacts"]
    rows = [
        {"id": each["id"], "name": each["name"], "email": field(each, "EMAIL"), "phone": field(each, "PHONE")}
        for each in found[:limit]
    ]
    table(rows, "id", "name", "email", "phone", nothing="The account has no contacts.")
    if len(found) > limit:
        say(f"… and {len(found) - limit} more")


@kommo.command("add-contact")
@AccountArgument
@FieldsOption
@LostOption
@TimesOption
@pass_sandbox
def add_contact(sandbox: Sandbox, account: str, fields: tuple[tuple[str, str], ...], lost: bool, times: int) -> None:
    """Add a contact, as a user of the account does. Kommo sends the event."""
    if not fields:
        raise click.UsageError("give at least one --set, such as --set email=ana@example.com")
    done = sandbox.control.change_kommo(account, fields=dict(fields), lost=lost, times=times)
    say(_sentence(f"Contact {done['id']} is added", done, lost))


@kommo.command("change-contact")
@AccountArgument
@click.option("--id", "contact", type=int, help="The contact. [default: the first with an e-mail address]")
@FieldsOption
@LostOption
@TimesOption
@pass_sandbox
def change_contact(
    sandbox: Sandbox, account: str, contact: int | None, fields: tuple[tuple[str, str], ...], lost: bool, times: int
) -> None:
    """Change a contact, as a user of the account does. Kommo sends the event."""
    if not fields:
        raise click.UsageError("give at least one --set, such as --set last_name=Souza")
    number = contact if contact is not None else _first(sandbox, account)
    done = sandbox.control.change_kommo(account, id=number, fields=dict(fields), lost=lost, times=times)
    say(_sentence(f"Contact {number} is changed", done, lost))


@kommo.command("delete-contact")
@AccountArgument
@click.argument("contact", type=int)
@LostOption
@pass_sandbox
def delete_contact(sandbox: Sandbox, account: str, contact: int, lost: bool) -> None:
    """Delete a contact. Kommo sends the event."""
    done = sandbox.control.change_kommo(account, id=contact, delete=True, lost=lost)
    say(_sentence(f"Contact {contact} is deleted", done, lost))


@kommo.command("click-install")
@AccountArgument
@ClientOption
@click.option("--link", default="", metavar="URL", help="Open this install link instead of the start page.")
@click.option("--deny", is_flag=True, help="The customer refuses.")
@pass_sandbox
def click_install(sandbox: Sandbox, account: str, client: str, link: str, deny: bool) -> None:
    """Install in a browser: the start page, Kommo's consent page, the result page. Waits for the result.

    \b
    sandbox kommo click-install padaria \
        --link "$(portaria install-links create kommo/acme --tag customer_id=c-1)"
    """
    if account not in {each["host"] for each in sandbox.control.kommo()["accounts"]}:
        raise ValueError(f"Kommo has no account {account}: `sandbox kommo accounts` lists them")
    state = browser.install(sandbox.stack, client, account, allow=not deny, link=link)
    if state != ("refused" if deny else "connected"):
        raise NotStarted(f"the install of {account} ended with the state {state}")
    say(f"{account} refused; nothing was stored." if deny else f"{account} is connected.")


@kommo.command("hook-install")
@AccountArgument
@ClientOption
@click.option(
    "--times", type=click.IntRange(1), default=1, show_default=True, help="The number of deliveries of the webhook."
)
@pass_sandbox
def hook_install(sandbox: Sandbox, account: str, client: str, times: int) -> None:
    """Install from the marketplace: Kommo sends the install webhook."""
    client_id = _client_id(sandbox, client)
    issued = sandbox.control.issue_code(client_id, account)
    query = {"code": issued.code, "referer": account, "from_widget": "1", "client_id": client_id, "platform": "1"}
    with browser.session(sandbox.stack) as server:
        answers = [server.get(issued.redirect_uri, params=query, timeout=30).status_code for _ in range(times)]
    say(f"The webhook was answered with {', '.join(map(str, answers))}: `portaria installs list` shows the install.")


@kommo.command("uninstall")
@AccountArgument
@ClientOption
@click.option("--lost", is_flag=True, help="Kommo does not send the webhook.")
@pass_sandbox
def uninstall(sandbox: Sandbox, account: str, client: str, lost: bool) -> None:
    """Disconnect the application. Kommo revokes the grant and sends the signed webhook."""
    query = sandbox.control.disconnect(_client_id(sandbox, client), account)
    if lost:
        say(f"{account} has disconnected; the webhook is lost. Portaria notices with its next request to the account.")
        return
    with browser.session(sandbox.stack) as server:
        answer = server.get(f"{sandbox.stack.public_url}/uninstall/kommo/{client}", params=query, timeout=30)
    say(
        f"{account} has disconnected; the webhook was answered with {answer.status_code}. Portaria checks with Kommo before it "
        "removes the connection, up to three times in eleven minutes."
    )


@kommo.command("move")
@AccountArgument
@click.argument("subdomain")
@pass_sandbox
def move(sandbox: Sandbox, account: str, subdomain: str) -> None:
    """Give an account another subdomain."""
    say(f"{account} is now {sandbox.control.move_account(account, subdomain)}.")


def field(contact: dict[str, Any], code: str) -> str:
    """The first value of a contact's field, by its code."""
    found = (each for each in contact["custom_fields_values"] or () if each["field_code"] == code)
    return next((str(each["values"][0]["value"]) for each in found), "")


def _first(sandbox: Sandbox, account: str) -> int:
    contacts = sandbox.control.kommo_contacts(account)["contacts"]
    found = next((int(each["id"]) for each in contacts if field(each, "EMAIL")), None)
    if found is None:
        raise ValueError(f"{account} has no contact with an e-mail address: give --id")
    return found


def _client_id(sandbox: Sandbox, client: str) -> str:
    """The id of the application whose redirect URI belongs to this OAuth client of Portaria."""
    known = sandbox.control.kommo()["clients"]
    found = [each["client_id"] for each in known if each["redirect_uri"].endswith(f"/install/kommo/{client}")]
    if not found:
        raise ValueError(f"Kommo has no integration whose redirect URI ends with /install/kommo/{client}")
    return str(found[-1])


def _sentence(change: str, done: dict[str, Any], lost: bool) -> str:
    if lost:
        return f"{change}; the event is lost."
    if not done["answers"]:
        return f"{change}; the account has no webhook, so nothing was sent."
    if "no answer" in done["answers"]:
        return f"{change}; Portaria did not answer the event within two seconds, so Kommo sends it again."
    return f"{change}; the event was answered with {', '.join(done['answers'])}."
