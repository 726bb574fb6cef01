"""Commands for Marketo: stored objects, refusals, and Adobe's reports."""

from __future__ import annotations

import json
from typing import Any

import click

from local.sandbox import browser
from local.sandbox.context import Assignment, Sandbox, pass_sandbox, say, table
from local.sandbox.environment import MUNCHKIN
from local.stack import ADOBE_CLIENT_ID

InstanceOption = click.option(
    "--instance", default=MUNCHKIN, show_default=True, metavar="MUNCHKIN", help="The Marketo instance."
)


@click.group()
def marketo() -> None:
    """Marketo: persons, requests, refusals."""


@marketo.command("persons")
@click.argument("emails", nargs=-1, metavar="[EMAIL]...")
@InstanceOption
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="The last N.")
@click.option("--at-least", type=click.IntRange(1), metavar="N", help="Wait up to a minute until there are N.")
@click.option(
    "--with", "wanted", type=Assignment(), multiple=True, help="Only persons with this value of an attribute."
)
@pass_sandbox
def list_persons(
    sandbox: Sandbox,
    emails: tuple[str, ...],
    instance: str,
    limit: int,
    at_least: int | None,
    wanted: tuple[tuple[str, str], ...],
) -> None:
    """List the persons in Marketo, all or some by e-mail address."""
    found: list[dict[str, Any]] = []

    def look() -> str:
        persons = [each["attributes"] for each in sandbox.control.marketo_persons(instance, *emails)]
        found[:] = [each for each in persons if all(str(each.get(name, "")) == text for name, text in wanted)]
        return str(len(found))

    if at_least:
        browser.wait_for(look, lambda _: len(found) >= at_least, f"there are fewer than {at_least} persons")
    else:
        look()
    names = sorted({name for person in found for name in person}, key=lambda name: (name != "email", name))
    table(found[-limit:], *names, nothing="Marketo has no such person.")
    if len(found) > 1:
        say(f"{len(found)} persons")


@marketo.command("requests")
@InstanceOption
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="The last N.")
@pass_sandbox
def list_requests(sandbox: Sandbox, instance: str, limit: int) -> None:
    """List the requests to the Data Ingestion API."""
    found = sandbox.control.marketo_requests(instance)[-limit:]
    columns = ("request_id", "status", "error_code", "object", "objects", "bytes", "priority")
    table(found, *columns, nothing="Marketo has received no requests.")


@marketo.command("refuse")
@click.argument("values", nargs=-1, type=Assignment(), metavar="ATTRIBUTE=VALUE...")
@click.option("--nothing", is_flag=True, help="Accept everything again.")
@InstanceOption
@pass_sandbox
def refuse(sandbox: Sandbox, values: tuple[tuple[str, str], ...], nothing: bool, instance: str) -> None:
    """Refuse each request that has a person with this value (4000802, bad data)."""
    if bool(values) == nothing:
        raise click.UsageError("give ATTRIBUTE=VALUE, such as lastName=Souza, or --nothing")
    sandbox.control.change_marketo(instance, poison=dict(values))
    refused = " or ".join(f"{name} {text}" for name, text in values)
    say(
        f"Marketo refuses requests that have a person with {refused}."
        if values
        else "Marketo accepts everything again."
    )


@marketo.command("quota")
@click.argument("objects", type=click.IntRange(0))
@InstanceOption
@pass_sandbox
def set_quota(sandbox: Sandbox, objects: int, instance: str) -> None:
    """Set the daily quota."""
    sandbox.control.change_marketo(instance, daily_quota=objects)
    say(f"{instance} accepts {objects:,} objects a day.")


@marketo.command("end-token")
@InstanceOption
@pass_sandbox
def end_token(sandbox: Sandbox, instance: str) -> None:
    """Expire the access token early."""
    sandbox.control.change_marketo(instance, expire_token=True)
    say(f"The access token of {instance} has expired.")


@marketo.command("define")
@click.argument("name")
@click.option("--dedupe-field", "dedupe_fields", multiple=True, required=True, metavar="FIELD", help="Can be repeated.")
@click.option("--link", default="", metavar="FIELD", help="The field with the e-mail address of its person.")
@InstanceOption
@pass_sandbox
def define(sandbox: Sandbox, name: str, dedupe_fields: tuple[str, ...], link: str, instance: str) -> None:
    """Define a custom object, such as visit_c."""
    sandbox.control.change_marketo(instance, custom_objects={name: {"dedupe_fields": dedupe_fields, "link": link}})
    say(f"{instance} has the custom object {name}.")


@marketo.command("objects")
@InstanceOption
@pass_sandbox
def show_objects(sandbox: Sandbox, instance: str) -> None:
    """Show all objects except persons, as JSON."""
    click.echo(json.dumps(sandbox.control.marketo_objects(instance), indent=2, ensure_ascii=False))


@marketo.command("report")
@InstanceOption
@pass_sandbox
def report(sandbox: Sandbox, instance: str) -> None:
    """Have Adobe report the outcome of the requests (Observability Data Stream)."""
    url = f"{sandbox.stack.public_url}/receipts/marketo"
    sandbox.control.register_adobe_webhook(url, ADOBE_CLIENT_ID)
    taken = sandbox.control.deliver_adobe_events(url, instance)
    say(f"{taken} events were delivered to {url}.")
