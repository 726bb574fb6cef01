"""The commands for install links, and for the tags of connections."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext
from portaria_cli.errors import USAGE, NotDone
from portaria_cli.group_parts import inputs
from portaria_cli.group_parts.resources import add_delete, add_list, add_show, named, path_of
from portaria_cli.groups.connection_parts import Connection
from portaria_cli.terminal import output

KIND = "install-links"
LANGUAGES = ("pt-BR", "es", "en")

Id = named(KIND, "ID", completion.names(KIND, lambda item: str(item["id"]), "purpose"))
TagOption = click.option(
    "--tag", "tags", type=inputs.Pair(), multiple=True, metavar="KEY=VALUE",
    help="A tag, such as customer_id=c-1; can be repeated.",
)  # fmt: skip


@click.group("install-links", cls=Commands)
def install_links() -> None:
    """Install links: URLs that start installs."""


@install_links.command("create")
@click.argument("client", metavar="PLATFORM/NAME", required=False)
@click.option(
    "--connection", metavar="CONNECTION", shell_complete=completion.names("connections", help_field="platform"),
    help="Authorize exactly this connection again.",
)  # fmt: skip
@click.option("--account-id", metavar="ID", help="Attach the tags to this account's connection.")
@TagOption
@click.option("--return-url", metavar="URL", help="Where the customer returns to afterwards.")
@click.option("--language", type=click.Choice(LANGUAGES), help="The language of the pages, if not the browser's.")
@click.option("--expires-in", "expires_in_s", type=int, metavar="SECONDS", help="How long it works.  [default: 3600]")
@click.option("--several-uses", is_flag=True, help="Let several browsers use the link.")
@click.pass_obj
def create_install_link(
    cli: CliContext,
    /,
    client: str | None,
    tags: tuple[tuple[str, str], ...],
    several_uses: bool,
    **options: Any,
) -> None:
    """Print a new install link.

    A customer opens it to install the OAuth client's application. What it is created with is not in the URL.

    \b
    portaria install-links create kommo/acme --tag customer_id=c-1
    """
    body = inputs.fields(**options)
    if client:
        platform, name = path_of(client, "PLATFORM/NAME")
        body |= {"platform": platform, "client": name}
    if tags:
        body["tags"] = read_tags(tags)
    if several_uses:
        body["single_use"] = False
    made = cli.api.create(KIND, body=body)
    cli.print_alone(made, made["url"], said=f"The link works until {made['expires_at']}.")


add_list(install_links, KIND)
add_show(install_links, KIND, Id, "ID")
add_delete(install_links, KIND, Id, "ID")


@click.group(cls=Commands)
def tags() -> None:
    """Tags: which customer a connection belongs to."""


@tags.command("replace")
@Connection
@TagOption
@click.pass_obj
def replace_tags(cli: CliContext, name: str, tags: tuple[tuple[str, str], ...]) -> None:
    """Replace all tags of a connection; without --tag, remove them.

    If the connection changes at the same time, the command fails and changes nothing.
    """
    _, etag = cli.api.get_with_etag("connections", name)
    changed = cli.api.put("connections", name, "tags", body={"tags": read_tags(tags)}, etag=etag)
    cli.say(f"The tags of {name} are replaced.")
    cli.print(changed, partial(output.shown, changed))


def read_tags(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Raises `NotDone` if a tag was given twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotDone("each tag can be given once", exit_code=USAGE)
    return found
