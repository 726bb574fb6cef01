"""The command line: `configure FILE`, the groups of commands, and `completion`.

Exit codes: 0 done · 1 the API refused, or the one that was called did, or a part of what was sent · 2 wrong usage, file or
token · 3 the API or AWS was not reached, or did not answer · 130 interrupted.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from portaria_cli import completion
from portaria_cli.auth import find_api
from portaria_cli.configure.command import configure
from portaria_cli.context import CliContext, Commands
from portaria_cli.doctor.command import doctor
from portaria_cli.groups import resources
from portaria_cli.groups.connections import connections
from portaria_cli.groups.dead_letters import dead_letters
from portaria_cli.groups.destinations import destinations
from portaria_cli.groups.integrations import integrations
from portaria_cli.groups.receipts import receipts
from portaria_cli.logs import logs
from portaria_cli.smoke.command import smoke
from portaria_cli.teardown.command import teardown

# The options that say where the API is.
PLACES = ("api_url", "stack_name", "stack_file")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--api-url", envvar="PORTARIA_API_URL", metavar="URL", help="The API, stage included (PORTARIA_API_URL).")
@click.option(
    "--stack-name", envvar="PORTARIA_STACK_NAME", default="portaria", show_default=True, metavar="NAME",
    help="The CloudFormation stack whose output ApiUrl is called.",
)  # fmt: skip
@click.option(
    "--stack-file", type=click.Path(path_type=Path, dir_okay=False), envvar="PORTARIA_STACK_FILE", metavar="FILE",
    help="Use a local cloud, by its file (build/stack.json), instead of AWS (PORTARIA_STACK_FILE).",
)  # fmt: skip
@click.option(
    "--token-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Use the private integration's token in this file (or in PORTARIA_TOKEN) instead of AWS credentials.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def portaria(
    ctx: click.Context,
    api_url: str | None,
    stack_name: str,
    stack_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Work with Portaria's API.

    With your AWS credentials you are an administrator (/admin/v1). With a private integration's token, from --token-file or
    the environment variable PORTARIA_TOKEN, you may do what its scopes say (/v1); then give --api-url or PORTARIA_API_URL
    too. A token is never given on the command line, where others can see it.
    """
    if any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in PLACES):
        # What is said on the command line counts alone. Subcommands read these from the context.
        for name in ("api_url", "stack_file"):
            if ctx.get_parameter_source(name) is ParameterSource.ENVIRONMENT:
                ctx.params[name] = None
        api_url, stack_file = ctx.params["api_url"], ctx.params["stack_file"]
    ctx.obj = CliContext(partial(find_api, api_url, stack_name, stack_file, token_file), as_json)


@portaria.command("completion")
@click.argument("shell", type=click.Choice(completion.SHELLS))
def print_completion(shell: str) -> None:
    """Print a script that completes commands and names.

    \b
    bash, in ~/.bashrc:                  eval "$(portaria completion bash)"
    zsh, in ~/.zshrc, after compinit:    eval "$(portaria completion zsh)"
    fish:  portaria completion fish > ~/.config/fish/completions/portaria.fish
    """
    click.echo(completion.script(shell, portaria), nl=False)


portaria.add_command(configure)
portaria.add_command(connections)
portaria.add_command(doctor)
portaria.add_command(integrations)
portaria.add_command(logs)
portaria.add_command(receipts)
portaria.add_command(dead_letters)
portaria.add_command(destinations)
portaria.add_command(smoke)
portaria.add_command(teardown)
for group in (resources.clients, resources.routes, resources.installs, resources.audit):
    portaria.add_command(group)


def main() -> None:
    """Run it. A pipe that is closed early (`… | head`) is no error of this program's."""
    try:
        portaria.main(prog_name="portaria", complete_var=completion.VARIABLE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
