"""The commands that open the console, and those for its sessions."""

from __future__ import annotations

import webbrowser

import click

from portaria_cli import completion
from portaria_cli.command_classes import Command, Commands
from portaria_cli.context import CliContext
from portaria_cli.errors import USAGE, NotDone
from portaria_cli.group_parts.resources import add_list

KIND = "console-sessions"

_complete = completion.names(KIND, lambda item: str(item["id"]), "principal")


@click.command("console", cls=Command)
@click.option("--read-only", is_flag=True, help="The session can change nothing.")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", shell_complete=completion.names("scopes"),
    help="Limit the session to this scope; can be repeated.",
)  # fmt: skip
@click.option("--print", "only_prints", is_flag=True, help="Print the link instead of opening a browser.")
@click.pass_obj
def open_console(cli: CliContext, read_only: bool, scopes: tuple[str, ...], only_prints: bool) -> None:
    """Open the console in your browser.

    AWS credentials are needed. The link works once, within two minutes. The session ends after eight hours, or after one hour
    without use.
    """
    if read_only and scopes:
        raise NotDone("--read-only and --scope cannot be combined", exit_code=USAGE)
    body = {"read_only": True} if read_only else {"scopes": list(scopes)} if scopes else {}
    made = cli.api.create(KIND, body=body)
    if not (only_prints or cli.as_json) and webbrowser.open(made["url"]):
        cli.say("The console is open in your browser. Its link worked once.")
        return
    cli.print_alone(made, made["url"], said="Open this link within two minutes. It works once.")


@click.group("console-sessions", cls=Commands)
def console_sessions() -> None:
    """Console sessions: the browsers that are signed in."""


add_list(console_sessions, KIND, "List the sessions of today, the newest first.")


@console_sessions.command("revoke")
@click.argument("session", metavar="ID", shell_complete=_complete)
@click.pass_obj
def revoke_session(cli: CliContext, session: str) -> None:
    """Sign a browser out of the console."""
    cli.api.delete(KIND, session)
    cli.print({"revoked": session}, lambda console: console.print(f"{session} is revoked.", markup=False))
