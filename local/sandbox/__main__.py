"""Start the local cloud with accounts at the simulated platforms, and act as their users.

Without a command, start or update the sandbox and show the next steps. It can be run again at any time.
"""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class
from rich.console import Console

from local.control import Control
from local.processes import NotStarted
from local.sandbox import accounts, browser, console, environment, faults, kommo, marketo, platforms
from local.sandbox.context import Sandbox
from local.stack import Stack

VARIABLE = "_SANDBOX_COMPLETE"
NEXT = (
    ("credentials, and the commands `portaria` and `sandbox`", "{activate}"),
    ("register the application, Marketo and the routes", "portaria configure examples/portaria.yaml"),
    ("a customer installs, in a browser", "sandbox kommo click-install padaria"),
    ("the account's contacts arrive in Marketo", "sandbox marketo persons --at-least 200 --limit 3"),
    ("see it all in the console", "sandbox console"),
    ("check the whole stack", "portaria doctor"),
)


@click.group(help=__doc__, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def sandbox(ctx: click.Context) -> None:
    ctx.obj = Sandbox()
    if ctx.invoked_subcommand is None:
        start()


@sandbox.command("up")
def up() -> None:
    """Start or update the sandbox. The same as without a command."""
    start()


@sandbox.command("clean")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(yes: bool) -> None:
    """Stop the local cloud and remove its data and credentials."""
    if not yes:
        click.confirm("Remove the sandbox with all its data?", abort=True, err=True)
    from local import lifecycle

    lifecycle.forget()
    environment.remove()
    click.echo("The sandbox is removed.")


@sandbox.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def print_completion(shell: str) -> None:
    """Print a script that completes commands and names.

    \b
    bash:  eval "$(sandbox completion bash)"
    zsh:   eval "$(sandbox completion zsh)"
    fish:  sandbox completion fish | source
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"{shell} is not supported")
    click.echo(found(sandbox, {}, "sandbox", VARIABLE).source(), nl=False)


for command in (
    console.console,
    kommo.kommo,
    marketo.marketo,
    platforms.leadconnector,
    platforms.engage,
    platforms.oauth,
    faults.fault,
    faults.list_faults,
    faults.clear_faults,
    faults.advance,
    faults.list_calls,
):
    sandbox.add_command(command)


def furnish(output: Console) -> tuple[Stack, environment.Variables]:
    """Start the local cloud and create missing accounts. If this is interrupted, the next call completes it."""
    # What starts the local cloud takes long to import, and the other commands only use it.
    from local import lifecycle
    from local.__main__ import step

    stack = lifecycle.up(step, output.print, keep=True)
    # Write the file before any account has these credentials, so that none is lost if this is interrupted.
    variables = environment.complete(environment.read(), stack)
    environment.write(variables)
    environment.write_commands()
    with step("Creating accounts at the platforms"):
        accounts.furnish(Control(stack.control_url), stack, variables)
        # MiniStack needs more time for a function's first start than the two seconds that Kommo waits for an answer.
        with browser.session(stack) as server:
            server.post(f"{stack.public_url}/events/kommo/unknown/unknown", timeout=60)
    return stack, variables


def start() -> None:
    """Start or update the sandbox and show the next steps."""
    output = Console(highlight=False)
    furnish(output)
    output.print(
        f"\nThe sandbox is ready: {len(accounts.KOMMO_ACCOUNTS)} Kommo accounts, Marketo {environment.MUNCHKIN}, a "
        "LeadConnector location, an Engage customer,\n"
        f"{len(environment.PROVIDERS)} other APIs. Their credentials are in "
        f"{environment.relative(environment.FILE)}. In this folder, paste these:\n",
        soft_wrap=True,
    )
    for why, text in NEXT:
        line = text.format(activate=f". {environment.relative(environment.FILE)}")
        output.print(f"  {line:<52} [dim]# {why}[/]", soft_wrap=True)
    output.print(
        "\nContinue with docs/quickstart.md. `sandbox --help` lists all commands.",
        soft_wrap=True,
    )


def main() -> None:
    try:
        sandbox.main(prog_name="sandbox", complete_var=VARIABLE, standalone_mode=False)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(wrong.exit_code)
    except (NotStarted, ValueError, OSError) as reason:
        Console(stderr=True, highlight=False).print(f"error: {reason}", markup=False, soft_wrap=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


if __name__ == "__main__":
    main()
