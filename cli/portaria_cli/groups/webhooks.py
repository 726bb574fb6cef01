"""The commands for webhooks to the team's application, and for their deliveries."""

from __future__ import annotations

from functools import partial

import click
from rich.console import Console

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext, Paging
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.group_parts import inputs
from portaria_cli.group_parts.resources import (
    Moment,
    SinceOption,
    add_delete,
    add_list,
    add_show,
    given,
    named,
    printed,
    with_paging,
)
from portaria_cli.terminal import output

KIND, DELIVERIES = "webhooks", "webhook-deliveries"
STATES = ("pending", "delivered", "failed")

_complete = completion.names(KIND, lambda item: str(item["id"]), "url")
Id = click.argument("webhook", metavar="ID", shell_complete=_complete)
Webhook = click.argument("webhook", metavar="WEBHOOK", shell_complete=_complete)
EventsOption = click.option(
    "--event", "events", multiple=True, metavar="EVENT",
    help="An event such as connection.ready, a family such as connection.*, or '*'; can be repeated.",
)  # fmt: skip
DescriptionOption = click.option("--description", metavar="TEXT", help="What it is for.")


@click.group(cls=Commands)
def webhooks() -> None:
    """Webhooks: endpoints of your application that receive events."""


add_list(webhooks, KIND, "List webhooks, and which of them fail.")
add_show(webhooks, KIND, named(KIND, "ID", _complete), "ID", "Show a webhook; never its secret.")
add_delete(webhooks, KIND, named(KIND, "ID", _complete), "ID", "Delete a webhook; its pending deliveries fail.")


@webhooks.command("create")
@click.argument("url")
@EventsOption
@DescriptionOption
@click.pass_obj
def create_webhook(cli: CliContext, url: str, events: tuple[str, ...], description: str | None) -> None:
    """Create a webhook, print its secret.

    The secret is shown this once. Standard output gets it alone. Without --event it receives all events.
    """
    body = inputs.fields(url=url, events=events or ("*",), description=description)
    _tell_secret(cli, cli.api.create(KIND, body=body), "is created")


@webhooks.command("edit")
@Id
@click.option("--url", metavar="URL", help="A new URL.")
@EventsOption
@click.option("--description", metavar="TEXT", help="A new description; '' for none.")
@click.option("--state", type=click.Choice(("enabled", "disabled")), help="Send events to it again, or send none.")
@click.pass_obj
def edit_webhook(
    cli: CliContext,
    /,
    webhook: str,
    url: str | None,
    events: tuple[str, ...],
    description: str | None,
    state: str | None,
) -> None:
    """Change, enable or disable a webhook.

    --event replaces all its events. The pending deliveries of a disabled webhook fail.
    """
    enabled = state == "enabled" if state else None
    changes = inputs.fields(url=url, events=events, description=description, enabled=enabled)
    inputs.require_changes(changes)
    found, etag = cli.api.get_with_etag(KIND, webhook)
    body = {field: found[field] for field in ("url", "events", "description")}
    body |= {"enabled": found["state"] == "enabled"} | changes
    changed = cli.api.put(KIND, webhook, body=body, etag=etag)
    printed(cli, changed, f"The webhook {webhook} is changed.")


@webhooks.command("rotate")
@Id
@click.option("--now", "expire_now", is_flag=True, help="Stop signing with the old secret at once, not after a day.")
@click.pass_obj
def rotate_secret(cli: CliContext, webhook: str, expire_now: bool) -> None:
    """Make a new secret and print it.

    It is shown this once. For a day each request is signed with both secrets.
    """
    _tell_secret(cli, cli.api.create(KIND, webhook, "rotation", body={"expire_now": expire_now}), "has a new secret")


@webhooks.command("test")
@Id
@click.pass_obj
def test_webhook(cli: CliContext, webhook: str) -> None:
    """Send the event webhook.test to a webhook."""
    found = cli.api.create(KIND, webhook, "test", body={})
    printed(cli, found, f"Queued. See `portaria webhook-deliveries show {webhook} {found['id']}`.")


@click.group("webhook-deliveries", cls=Commands)
def webhook_deliveries() -> None:
    """Webhook deliveries: what was sent to a webhook, and its answers.

    They are kept for 30 days.
    """


@webhook_deliveries.command("list")
@Webhook
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@SinceOption
@with_paging
@click.pass_obj
def list_deliveries(cli: CliContext, /, webhook: str, paging: Paging, **filters: str | None) -> None:
    """List the deliveries of a webhook, the newest first."""
    chosen = given(filters)
    page = cli.read_page(KIND, webhook, "deliveries", paging=paging, **chosen)
    cli.print_page(DELIVERIES, page, filters=chosen)


@webhook_deliveries.command("show")
@Webhook
@click.argument("delivery", shell_complete=completion.none)
@click.pass_obj
def show_delivery(cli: CliContext, webhook: str, delivery: str) -> None:
    """Show a delivery with its attempts and its payload."""
    found = cli.api.get(KIND, webhook, "deliveries", delivery)
    cli.print(found, partial(output.shown, found), is_long=True)


@webhook_deliveries.command("redeliver")
@Webhook
@click.argument("delivery", required=False, shell_complete=completion.none)
@SinceOption
@click.option("--until", type=Moment(), metavar="TIME", help="Only until this time, with --since.  [default: now]")
@click.option(
    "--delivered", is_flag=True, help="With --since, send the delivered ones again instead of the failed ones."
)
@click.option("--dry-run", is_flag=True, help="With --since, only show how many these are.")
@click.pass_obj
def redeliver(
    cli: CliContext,
    /,
    webhook: str,
    delivery: str | None,
    since: str | None,
    until: str | None,
    delivered: bool,
    dry_run: bool,
) -> None:
    """Send one delivery again, or all failed deliveries of a time range.

    --since and --until limit the range by the time of the event.
    """
    if bool(delivery) == bool(since) or (delivery and (until or delivered or dry_run)):
        raise NotDone("give either a DELIVERY, or --since (with --until, --delivered and --dry-run)", exit_code=USAGE)
    if delivery:
        found = cli.api.create(KIND, webhook, "deliveries", delivery, "redelivery", body={})
        printed(cli, found, f"{delivery} is queued.")
        return
    count, cursor, more = 0, None, True
    body = inputs.fields(since=since, until=until, state="delivered" if delivered else "failed")
    body |= {"dry_run": True} if dry_run else {}
    while more:
        found = cli.api.create(KIND, webhook, "redelivery", body=body | ({"cursor": cursor} if cursor else {}))
        count, cursor, more = count + found["delivery_count"], found["next_cursor"], found["more"]
    cli.print({"delivery_count": count}, partial(_redelivered, count, "would be queued" if dry_run else "are queued"))


def _redelivered(count: int, became: str, console: Console) -> None:
    console.print(f"{count:,} deliveries {became}." if count else "No delivery matches.")


def _tell_secret(cli: CliContext, made: Document, what: str) -> None:
    if made["secret"] is None:
        # The first response was lost, and the secret has been replaced since.
        raise NotDone(
            f"The webhook {made['id']} {what}; its secret was replaced since: `portaria webhooks rotate {made['id']}`",
            problem={"id": made["id"]},
        )
    cli.say(f"The webhook {made['id']} {what}.")
    cli.print_alone(
        made, made["secret"], said="This secret cannot be shown again: store it where your application reads it."
    )
