"""Commands for faults at a platform, for the platforms' clock, and for the calls that they received."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from local.sandbox.context import Duration, Sandbox, pass_sandbox, say, table
from local.simulators.world import FAULT_KINDS

PLATFORMS = ("kommo", "marketo", "oauth2", "leadconnector", "engage", "adobe")
STATUSES = ("400", "401", "403", "404", "408", "429", "500", "502", "503", "504")


class Kind(click.ParamType[str]):
    """An HTTP status, or a kind of `world.Fault`."""

    name = "kind"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in FAULT_KINDS and not (str(value).isdigit() and 400 <= int(value) <= 599):
            self.fail(f"{value!r} is neither a status from 400 to 599 nor one of {', '.join(FAULT_KINDS)}", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        return [CompletionItem(each) for each in (*STATUSES, *FAULT_KINDS) if each.startswith(incomplete)]


@click.command("fault")
@click.argument("platform", type=click.Choice(PLATFORMS))
@click.argument("kind", type=Kind())
@click.option("--for", "duration_s", type=Duration(), metavar="DURATION", help="The fault ends after 30s, 5m, …")
@click.option("--account", metavar="NAME", help="Only calls about this account (padaria, or a Munchkin id).")
@click.option("--method", type=click.Choice(("GET", "POST", "PUT", "PATCH", "DELETE")), help="Only these calls.")
@click.option("--path", metavar="REGEX", help="Only calls whose whole path matches.")
@click.option("--count", type=click.IntRange(1), help="Affect this many calls at most.")
@click.option("--skip", type=click.IntRange(0), help="Skip this many calls first.")
@click.option("--share", type=click.FloatRange(0, 1), help="Affect this share of the calls, at random.")
@click.option("--seconds", type=float, help="How long `slow` waits. [default: 5]")
@pass_sandbox
def fault(sandbox: Sandbox, /, platform: str, kind: str, **details: Any) -> None:
    """Inject a fault at a platform.

    \b
    KIND is a status (500), or
      slow          answers late
      dropped       drops the connection before processing the request
      lost_answer   processes the request, then drops the connection
      rate_limited  answers 429
      forbidden     answers 403 with an HTML page
      garbled       processes the request, but answers with half a JSON document
    """
    given = {name: value for name, value in details.items() if value is not None}
    if "account" in given and platform == "marketo":
        given["account"] = given["account"].lower()
    status = {"status": int(kind)} if kind.isdigit() else {}
    number = sandbox.control.set_fault(platform, "status" if status else kind, **status, **given)
    ends = f"ends after {given['duration_s']:.0f} s" if "duration_s" in given else "lasts until it is removed"
    say(f"Fault {number} {ends}: `sandbox clear-faults {number}` removes it.")


@click.command("faults")
@pass_sandbox
def list_faults(sandbox: Sandbox) -> None:
    """List the faults, with the number of calls that each affected."""
    rows = [
        {**each, "kind": each["status"] if each["kind"] == "status" else each["kind"]}
        for each in sandbox.control.faults()
    ]
    columns = ("id", "platform", "kind", "account", "method", "path", "duration_s", "count", "used")
    table(rows, *columns, nothing="There are no faults.")


@click.command("clear-faults")
@click.argument("number", type=int, required=False, metavar="[ID]")
@pass_sandbox
def clear_faults(sandbox: Sandbox, number: int | None) -> None:
    """Remove one fault, or all."""
    sandbox.control.clear_faults(number)
    say("All faults are removed." if number is None else f"Fault {number} is removed.")


@click.command("advance")
@click.argument("duration", type=Duration())
@pass_sandbox
def advance(sandbox: Sandbox, duration: float) -> None:
    """Move the platforms' clock forward. Codes, tokens and quotas expire by it. Portaria's clock stays."""
    sandbox.control.advance(duration)
    say(f"The platforms' clock moved {duration:,.0f} s forward.")


@click.command("calls")
@click.option("--platform", type=click.Choice(PLATFORMS))
@click.option("--host", metavar="HOST")
@pass_sandbox
def list_calls(sandbox: Sandbox, platform: str | None, host: str | None) -> None:
    """List the calls that the platforms received, and their answers."""
    only = {name: value for name, value in (("platform", platform), ("host", host)) if value}
    columns = ("platform", "host", "method", "path", "outcome", "count")
    table(sandbox.control.calls(**only), *columns, nothing="There were no calls.")
