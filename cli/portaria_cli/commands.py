"""The command line: the groups of commands, which have the API's names, and the commands for a whole stack.

Exit codes: 0 done · 1 the API refused, the called API refused, or a part of the input failed · 2 wrong usage, file or token ·
3 the API or AWS was not reached, or did not answer · 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from portaria_cli import completion
from portaria_cli.command_classes import JSON_HELP, Command, Lazy, Root

COMPLETE_VARIABLE = "_PORTARIA_COMPLETE"


def _group(module: str, attribute: str, text: str) -> Lazy:
    return Lazy(f"portaria_cli.groups.{module}", attribute, text)


def _command(module: str, attribute: str, text: str) -> Lazy:
    return Lazy(f"portaria_cli.{module}", attribute, text)


# The short help of each command stands here too, so that the help imports none of them. A test compares the two.
SECTIONS = {
    "Resources": {
        "oauth-clients": _group(
            "oauth_clients", "oauth_clients", "OAuth clients: applications registered with platforms."
        ),
        "connections": _group("connections", "connections", "Connections: stored credentials, one account each."),
        "authorizations": _group(
            "connection_parts", "authorizations", "Authorization links, for people to grant access."
        ),
        "event-addresses": _group("connection_parts", "event_addresses", "Webhook URLs for a platform's events."),
        "routes": _group("routes", "routes", "Routes: which records are sent to which destination."),
        "install-links": _group("install_links", "install_links", "Install links: URLs that start installs."),
        "installs": _group("installs", "installs", "Installs: authorization codes that arrived."),
        "tags": _group("install_links", "tags", "Tags: which customer a connection belongs to."),
        "private-integrations": _group(
            "private_integrations", "private_integrations", "Private integrations: scoped tokens for programs."
        ),
        "webhooks": _group("webhooks", "webhooks", "Webhooks: endpoints of your application that receive events."),
        "webhook-deliveries": _group(
            "webhooks", "webhook_deliveries", "Webhook deliveries: what was sent to a webhook, and its answers."
        ),
        "console-sessions": _group(
            "console_sessions", "console_sessions", "Console sessions: the browsers that are signed in."
        ),
        "scopes": _group("discovery", "scopes", "Scopes: what a private integration may do."),
        "platforms": _group("discovery", "platforms", "Platforms: what connections and routes can be made of."),
        "me": _group("discovery", "me", "Show who you are to the API, and your scopes."),
        "audit": _group("installs", "audit", "The audit trail: who changed what."),
    },
    "Records": {
        "records": _group("routes", "records", "Records: sending records of your own through a route."),
        "backfills": _group("connection_parts", "backfills", "Backfills: reading all records of a connection."),
        "reconciliations": _group(
            "connection_parts", "reconciliations", "Reconciliations: reading what changed in an account."
        ),
        "sample-records": _group(
            "connection_parts", "sample_records", "Sample records: what a mapping receives from a connection."
        ),
        "destinations": _group("destinations", "destinations", "Destinations that are paused or have waiting records."),
        "receipts": _group("receipts", "receipts", "Receipts: the outcome of each request to a destination."),
        "dead-letters": _group("dead_letters", "dead_letters", "Dead letters: records that could not be delivered."),
    },
    "Actions of platforms": {
        "contacts": _group("actions", "contacts", "Contacts of a connection's platform."),
        "identifiers": _group("actions", "identifiers", "User identifiers for single sign-on."),
        "sso": _group("actions", "sso", "Single sign-on links."),
    },
    "The stack and this command": {
        "console": _group("console_sessions", "open_console", "Open the console in your browser."),
        "configure": _command("configure.command", "configure", "Create or change what a file describes."),
        "overview": _command("stack_overview", "overview", "Show counts by state, grants that end, queues and alarms."),
        "settings": _command("stack_overview", "settings", "Show the stack's parameters, limits and pages at AWS."),
        "credentials": _command("credentials", "credentials", "Where the credentials of connections are stored."),
        "doctor": _command("doctor.command", "doctor", "Check a deployed stack and say what to do."),
        "logs": _command("logs.command", "logs", "Show what the functions of a stack logged."),
        "smoke": _command("smoke.command", "smoke", "Test a deployed stack from outside."),
        "teardown": _command("teardown.command", "teardown", "List and remove what a deleted stack leaves behind."),
        "profiles": _group("profiles", "group", "Profiles: named settings in the configuration file."),
        "completion": _command("commands", "print_completion", "Print a script that completes commands and names."),
    },
}
ALIASES = {"clients": "oauth-clients", "integrations": "private-integrations"}


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib import metadata  # noqa: PLC0415 - only needed here

    try:
        version = metadata.version("portaria")
    except metadata.PackageNotFoundError:
        version = "unknown: it is not installed"
    click.echo(f"portaria {version}")
    ctx.exit()


@click.group(
    cls=Root, sections=SECTIONS, aliases=ALIASES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip
@click.option(
    "--profile", metavar="NAME", shell_complete=completion.profile_names,
    help="Use this profile of the configuration file (PORTARIA_PROFILE).",
)  # fmt: skip
@click.option("--api-url", metavar="URL", help="The API, stage included (PORTARIA_API_URL).")
@click.option(
    "--stack-name", metavar="NAME",
    help="The CloudFormation stack whose output ApiUrl is called (PORTARIA_STACK_NAME).  [default: portaria]",
)  # fmt: skip
@click.option(
    "--stack-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Use a local cloud, by its file (build/stack.json), instead of AWS (PORTARIA_STACK_FILE).",
)  # fmt: skip
@click.option(
    "--token-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Use the private integration's token in this file (or in PORTARIA_TOKEN) instead of AWS credentials.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@click.option("--no-pager", is_flag=True, help="Print long lists without a pager (PAGER).")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def portaria(ctx: click.Context, /, as_json: bool, no_pager: bool, **given: Any) -> None:
    """Work with Portaria's API.

    With your AWS credentials you are an administrator (/admin/v1). With a private integration's token, from --token-file or
    the environment variable PORTARIA_TOKEN, you may do what its scopes say (/v1); then give --api-url or PORTARIA_API_URL
    too. A token is never given on the command line, where others can see it.

    Settings come from the options, then the environment, then a profile: `portaria profiles --help`.
    """
    from portaria_cli.context import CliContext  # noqa: PLC0415 - the help and the completion work without it

    ctx.obj = CliContext(given, as_json=as_json, uses_pager=not no_pager)


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(completion.SHELLS))
def print_completion(shell: str) -> None:
    """Print a script that completes commands and names.

    \b
    bash, in ~/.bashrc:                  eval "$(portaria completion bash)"
    zsh, in ~/.zshrc, after compinit:    eval "$(portaria completion zsh)"
    fish:  portaria completion fish > ~/.config/fish/completions/portaria.fish
    """
    click.echo(completion.script(shell, portaria, COMPLETE_VARIABLE), nl=False)


def main() -> None:
    """Run the command line. A pipe that is closed early (`… | head`) is not an error."""
    try:
        portaria.main(prog_name="portaria", complete_var=COMPLETE_VARIABLE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
