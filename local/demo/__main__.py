"""`make demo`: 24 accounts install, their contacts travel to Marketo, and every field is compared at the end.

Then a program calls the API with a private integration's token and signs a person on at Engage (`programs`). Then records
arrive in every other way, and `portaria doctor` checks the stack (`records`).

The product runs as deployed, with its own functions, queues, table and roles. Only the platforms are simulated. All faults (a
queue that refuses, a platform that answers 500, a forged webhook) are outside the product.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from local import lifecycle
from local.__main__ import step
from local.control import Control
from local.demo import programs, records
from local.demo.installs import ACCOUNTS, LINKED, REFUSALS, create_accounts, create_links, install_all, register
from local.demo.results import (
    compare,
    compare_tags,
    count_dead_letters,
    expected_persons,
    figures,
    problems,
    show_summary,
)
from local.demo.run import Account, Run, installs
from local.processes import NotStarted
from local.stack import ROOT, Stack

PATIENCE_S = 120.0
STORES = ("secrets-manager", "table")
RESULT = ROOT / "build" / "demo.json"

console = Console(highlight=False)


def install_and_watch(run: Run, accounts: list[Account], expected: int) -> None:
    """Install the accounts and show the progress until everything has arrived, or nothing changed for `PATIENCE_S`."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        arrivals = progress.add_task("webhooks answered", total=len(accounts) + REFUSALS + 1)
        connected = progress.add_task("accounts connected", total=len(accounts))
        applied = progress.add_task("contacts in Marketo", total=expected)
        failures: list[BaseException] = []

        def run_installs() -> None:
            try:
                install_all(run, accounts, lambda: progress.advance(arrivals))
            except BaseException as error:
                failures.append(error)

        arriving = threading.Thread(target=run_installs)
        arriving.start()
        seen, deadline = (0, 0, 0), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not failures:
            states = Counter(item["state"] for item in installs(run))
            persons = next(each for each in run.control.marketo() if each["munchkin"] == run.munchkin.lower())[
                "persons"
            ]
            progress.update(connected, completed=states["connected"])
            progress.update(applied, completed=persons)
            now = (states["connected"], persons, states["failed"])
            if now != seen:
                seen, deadline = now, time.monotonic() + PATIENCE_S
            if not arriving.is_alive() and states["connected"] >= len(accounts) and persons >= expected:
                break
            time.sleep(0.5)
        arriving.join()
        if failures:
            raise failures[0]


def play(stack: Stack) -> bool:
    """Run the demo once. Returns True if there is no problem."""
    control = Control(stack.control_url)
    refused_before = set(control.hosts()["refused"])
    run = Run(stack, control)
    with step(f"Creating {ACCOUNTS} Kommo accounts and a Marketo instance"):
        accounts = create_accounts(run)
        control.add_kommo_account(f"refuses{run.mark}")
    console.print("Registering them with a configuration file:")
    console.print(register(run), markup=False, soft_wrap=True)
    with step(f"Creating install links for {LINKED} customers"):
        create_links(run, accounts)
    expected, without_email = expected_persons(run, accounts)
    started = time.monotonic()
    install_and_watch(run, accounts, len(expected))
    result = figures(run, expected) | {"tags_wrong": compare_tags(run, accounts)}
    dead_letters = count_dead_letters(run)
    with step("Calling the API with a token, and signing a person on at Engage"):
        program = programs.play(stack, control, run.session, run.mark)
    result |= program.figures()
    connections = {item["account_host"]: item["connection"] for item in installs(run) if item["state"] == "connected"}
    records_part = records.Records(
        stack,
        control,
        run.session,
        mark=run.mark,
        munchkin=run.munchkin,
        client=run.client,
        connections=connections,
    )
    of_records = records_part.play(step, lambda report: console.print(report, markup=False, soft_wrap=True))
    result |= of_records.figures()
    expected, _ = expected_persons(run, accounts)
    of_program = {person["email"]: person for person in of_records.persons}
    result["contacts_wrong"] += compare(run, expected | of_program)[1]
    result["seconds"] = round(time.monotonic() - started)
    foreign = sorted(set(control.hosts()["refused"]) - refused_before)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show_summary(console, run, result, dead_letters, program, of_records)
    found = problems(run, result, dead_letters, without_email, foreign) + program.problems() + of_records.problems()
    console.print()
    for sentence in found:
        console.print(f"[red]✗ {sentence}[/]")
    if not found:
        console.print("[green]✓ Nothing was lost, and every contact is correct.[/]")
    console.print(f"[dim]The figures are in {RESULT.relative_to(ROOT)}.[/]")
    return not found


@click.command(help=__doc__)
@click.option("--keep", is_flag=True, help="Leave the local cloud running.")
@click.option("--store", type=click.Choice(STORES), default=STORES[0], help="The parameter CredentialStore.")
def demo(keep: bool, store: str) -> None:
    sys.exit(run_demo(keep, store))


def run_demo(keep: bool, store: str = STORES[0]) -> int:
    """Run the demo and return its exit status. Without `keep`, a local cloud that was not running before is stopped again."""
    running = Stack.read()
    ours = running is None or bool(running.dead_parts())
    try:
        stack = lifecycle.up(step, console.print, keep=keep, store=store)
        return 0 if play(stack) else 1
    except NotStarted as reason:
        console.print(f"[red]{reason}[/]", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if ours and not keep:
            with step("Stopping the local cloud"):
                lifecycle.down()


if __name__ == "__main__":
    demo()
