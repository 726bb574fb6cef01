"""The commands for installs and for the audit trail."""

from __future__ import annotations

import click

from portaria.core.item_keys import INSTALL_STATES
from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext, Paging
from portaria_cli.group_parts.resources import CustomerOption, SinceOption, add_show, given, named, with_paging
from portaria_cli.groups.install_links import create_install_link

KIND = "installs"


@click.group(cls=Commands)
def installs() -> None:
    """Installs: authorization codes that arrived."""


@installs.command("list")
@click.option(
    "--client", metavar="PLATFORM/NAME", help="Only of this OAuth client.",
    shell_complete=completion.names("oauth-clients", lambda item: f"{item['platform']}/{item['name']}"),
)  # fmt: skip
@click.option("--state", type=click.Choice(INSTALL_STATES), help="Only in this state.")
@click.option("--reason", metavar="REASON", help="Only failed ones with this reason, such as code_expired.")
@SinceOption
@CustomerOption
@with_paging
@click.pass_obj
def list_installs(cli: CliContext, /, paging: Paging, **filters: str | None) -> None:
    """List installs, the newest first."""
    page = cli.read_page(KIND, paging=paging, **given(filters))
    cli.print_page(KIND, page, filters=given(filters))


# The same command under the name by which people look for it.
installs.add_command(create_install_link, "link")


add_show(
    installs, KIND, named(KIND, "ID", completion.names(KIND, lambda item: str(item["id"]), "account_host")), "ID",
    "Show an install: its outcome, and the link to try again.",
)  # fmt: skip


@click.group(cls=Commands)
def audit() -> None:
    """The audit trail: who changed what."""


@audit.command("list")
@click.option("--operation", metavar="ID", help="Only this operation, such as rotate_connection.")
@click.option("--target", metavar="NAME", help="Only changes of this resource, such as a connection's name.")
@SinceOption
@with_paging
@click.pass_obj
def list_audit(cli: CliContext, /, paging: Paging, **filters: str | None) -> None:
    """List changes, the newest first; --json also shows their source address and the request."""
    page = cli.read_page("audit", paging=paging, **given(filters))
    cli.print_page("audit", page, filters=given(filters))
