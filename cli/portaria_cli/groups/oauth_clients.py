"""The commands for OAuth clients."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from portaria_cli import completion
from portaria_cli.command_classes import Commands
from portaria_cli.context import CliContext
from portaria_cli.errors import USAGE, Document, NotDone
from portaria_cli.group_parts import inputs
from portaria_cli.group_parts.resources import add_delete, add_list, add_show, named, path_of, printed

KIND, FORM = "oauth-clients", "PLATFORM/NAME"
GRANTS = ("authorization_code", "client_credentials")


def _name(item: Document) -> str:
    return f"{item['platform']}/{item['name']}"


Name = named(KIND, FORM, completion.names(KIND, _name))


def _fields(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for an OAuth client's fields."""
    for option in reversed(
        (
            click.option("--client-id", metavar="ID", help="The id that the platform gave the application."),
            click.option(
                "--client-secret", type=inputs.SecretFrom(), metavar=inputs.SECRET_FORM,
                help="Where the application's secret is: a file, standard input or an environment variable.",
            ),
            click.option("--redirect-uri", metavar="URL", help="The redirect URI, if it is not this API's own."),
            click.option("--scopes", metavar="TEXT", help="The scopes that an authorization asks for."),
            click.option(
                "--api-domain", "api_domains", multiple=True, metavar="DOMAIN",
                help="A domain that the client's tokens may be sent to; can be repeated.",
            ),
            click.option("--grant", type=click.Choice(GRANTS), help="oauth2 only: how tokens are granted."),
            click.option("--authorize-url", metavar="URL", help="oauth2 only: where people authorize."),
            click.option("--token-url", metavar="URL", help="oauth2 only: where tokens come from."),
            click.option(
                "--token-auth", type=click.Choice(("basic", "post")), help="oauth2 only: how the secret is sent."
            ),
            click.option(
                "--return-url", "return_urls", multiple=True, metavar="URL",
                help="A page that customers may return to, or a prefix that ends with /*; can be repeated.",
            ),
            click.option("--display-name", metavar="TEXT", help="Who asks for access, for the hosted pages."),
            click.option(
                "--logo", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
                help="The logo for the hosted pages: PNG or SVG, at most 50 kB.",
            ),
            click.option("--remove-logo", is_flag=True, help="Remove the stored logo."),
            click.option("--colour", metavar="#RRGGBB", help="The colour of the hosted pages."),
            click.option("--support-email", metavar="EMAIL", help="Where customers get help."),
            click.option("--support-url", metavar="URL", help="Where customers get help."),
            click.option("--privacy-url", metavar="URL", help="The privacy policy."),
            click.option("--terms-url", metavar="URL", help="The terms of use."),
            inputs.FileOption,
        )
    ):  # fmt: skip
        command = option(command)
    return command


@click.group("oauth-clients", cls=Commands)
def oauth_clients() -> None:
    """OAuth clients: applications registered with platforms."""


add_list(oauth_clients, KIND)
add_show(oauth_clients, KIND, Name, FORM)


@oauth_clients.command("create")
@click.argument("name", metavar=FORM)
@_fields
@click.pass_obj
def create_client(
    cli: CliContext, /, name: str, client_secret: Callable[[], str] | None, file: Path | None, **options: Any
) -> None:
    """Create an OAuth client.

    Prints the redirect URI to register with the platform, and the address of the install page.

    \b
    portaria oauth-clients create kommo/acme --client-id 1a2b \\
        --client-secret @secret.txt
    """
    platform, client = path_of(name, FORM)
    body = inputs.read(KIND, file)
    content = inputs.named(body.content, {"platform": platform, "name": client}, name)
    content |= {"platform": platform, "name": client, **_given(client_secret, file, options)}
    made = inputs.Body(content, body.file, body.entry).send(lambda sent: cli.api.create(KIND, body=sent))
    printed(cli, made, f"The OAuth client {name} is created.")


@oauth_clients.command("edit")
@Name
@_fields
@click.pass_obj
def edit_client(
    cli: CliContext, /, name: str, client_secret: Callable[[], str] | None, file: Path | None, **options: Any
) -> None:
    """Change an OAuth client; the secret stays unless another is given.

    Options change single fields. --file replaces the whole client: a field that the file omits gets its default. If the
    client changes at the same time, the command fails and changes nothing.
    """
    platform, client = path_of(name, FORM)
    changes = _given(client_secret, file, options)
    body = inputs.read(KIND, file)
    found, etag = cli.api.get_with_etag(KIND, platform, client)
    if not file:
        inputs.require_changes(changes)
    content = body.content if file else {
        field: value
        for field, value in found.items()
        if field not in inputs.READ_ONLY[KIND] and value not in ("", None, [])
    }  # fmt: skip
    content = inputs.named(content, {"platform": platform, "name": client}, name) | changes
    send = partial(cli.api.put, KIND, platform, client, etag=etag)
    changed = inputs.Body(content, body.file, body.entry).send(lambda sent: send(body=sent))
    printed(cli, changed, f"The OAuth client {name} is changed.")


add_delete(oauth_clients, KIND, Name, FORM)


def _given(
    client_secret: Callable[[], str] | None,
    file: Path | None,
    options: dict[str, Any],
) -> Document:
    logo, removes_logo = options.pop("logo"), options.pop("remove_logo")
    if logo and removes_logo:
        raise NotDone("give one of --logo and --remove-logo", exit_code=USAGE)
    if logo or removes_logo:
        options["logo"] = b64encode(logo.read_bytes()).decode() if logo else ""
    pairs = [("client_secret", client_secret)] if client_secret else []
    return inputs.fields(**options) | inputs.secrets(pairs, file)
