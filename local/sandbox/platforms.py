"""Commands for LeadConnector, Engage, and OAuth 2.0 providers."""

from __future__ import annotations

import uuid
from urllib.parse import parse_qs, urlsplit

import click

from local.processes import NotStarted
from local.sandbox import browser, environment
from local.sandbox.context import Provider, Sandbox, pass_sandbox, say, table
from local.sandbox.environment import CUSTOMER, LOCATION


@click.group()
def leadconnector() -> None:
    """LeadConnector (Marketek): contacts, tokens."""


@leadconnector.command("contacts")
@pass_sandbox
def list_contacts(sandbox: Sandbox) -> None:
    """List the contacts of the location."""
    locations = {each["id"]: each for each in sandbox.control.leadconnector()["locations"]}
    columns = ("id", "firstName", "lastName", "email", "phone")
    table(locations[LOCATION]["contacts"], *columns, nothing="The location has no contacts.")


@leadconnector.command("rotate")
@click.option("--now", is_flag=True, help="The old token ends now instead of in seven days.")
@pass_sandbox
def rotate(sandbox: Sandbox, now: bool) -> None:
    """Rotate the private integration's token and print the new one.

    \b
    sandbox leadconnector rotate | portaria connections rotate marketek-main
    """
    known = environment.read()
    new = f"pit-{uuid.uuid4()}"
    sandbox.control.rotate_leadconnector_token(known["LEADCONNECTOR_TOKEN"], new, expire_now=now)
    environment.write({**known, "LEADCONNECTOR_TOKEN": new})
    click.echo(new)
    click.echo(f"The token is also in {environment.relative(environment.FILE)}: source that file again.", err=True)


@leadconnector.command("revoke")
@pass_sandbox
def revoke(sandbox: Sandbox) -> None:
    """End the private integration's token."""
    sandbox.control.revoke_leadconnector_token(environment.read()["LEADCONNECTOR_TOKEN"])
    say("The token has ended: `sandbox leadconnector rotate` creates a new one.")


@click.group()
def engage() -> None:
    """Engage: users, identifiers, single sign-on."""


@engage.command("people")
@pass_sandbox
def list_people(sandbox: Sandbox) -> None:
    """List the logins, with their identifiers."""
    customer = sandbox.control.engage_customer(CUSTOMER, "production")
    by_login: dict[str, list[str]] = {login: [] for login in sorted(customer["people"])}
    for identifier, login in customer["identifiers"].items():
        by_login.setdefault(login, []).append(identifier)
    rows = [{"user_login": login, "identifiers": ", ".join(found)} for login, found in by_login.items()]
    table(rows, "user_login", "identifiers", nothing="The customer has no users.")


@engage.command("add-people")
@click.argument("logins", nargs=-1, required=True)
@pass_sandbox
def add_people(sandbox: Sandbox, logins: tuple[str, ...]) -> None:
    """Add users, by their logins."""
    sandbox.control.add_engage_people(CUSTOMER, *logins, environment="production")
    say(f"Identifiers can be registered for {', '.join(logins)}.")


@engage.command("open")
@click.argument("link")
@pass_sandbox
def open_link(sandbox: Sandbox, link: str) -> None:
    """Open a sign-on link, as a browser does, and show the login that is signed on."""
    location = browser.open_once(sandbox.stack, link)
    keys = parse_qs(urlsplit(location).fragment.partition("?")[2]).get("key", [""])
    login = sandbox.control.enter_engage(CUSTOMER, keys[0], "production")
    say(f"{login} is signed on at {urlsplit(location).hostname}.")


@engage.command("end-tokens")
@pass_sandbox
def end_engage_tokens(sandbox: Sandbox) -> None:
    """Expire the access tokens early."""
    sandbox.control.end_engage_tokens(CUSTOMER, "production")
    say("The access tokens have expired.")


@click.group()
def oauth() -> None:
    """OAuth 2.0 providers: consent, tokens."""


@oauth.command("consent")
@click.argument("link")
@click.option("--deny", is_flag=True, help="The person refuses.")
@pass_sandbox
def give_consent(sandbox: Sandbox, link: str, deny: bool) -> None:
    """Open the link of `portaria authorizations create` and decide. Waits for the result.

    \b
    sandbox oauth consent "$(portaria authorizations create shop-main)"
    """
    state = browser.consent(sandbox.stack, link, allow=not deny)
    if state != ("refused" if deny else "connected"):
        raise NotStarted(f"the consent ended with the state {state}")
    say("The person refused." if deny else "The connection has its tokens.")


@oauth.command("end-tokens")
@click.argument("provider", type=Provider())
@click.option("--revoke", is_flag=True, help="Revoke the grants too.")
@pass_sandbox
def end_tokens(sandbox: Sandbox, provider: str, revoke: bool) -> None:
    """Expire all access tokens of a provider early."""
    sandbox.control.end_oauth2_tokens(provider, revoke=revoke)
    say(f"The access tokens of {provider} have expired{', and the grants are revoked' if revoke else ''}.")


@oauth.command("providers")
@pass_sandbox
def list_providers(sandbox: Sandbox) -> None:
    """List the providers and the calls to their token endpoints."""
    found = [sandbox.control.oauth2(name) for name in sandbox.control.oauth2_providers()]
    rows = [{**each, "calls": ", ".join(f"{name} {n}" for name, n in each["calls"].items())} for each in found]
    table(rows, "name", "host", "refresh_mode", "calls", nothing="There are no providers.")
