"""The demo's result: Marketo compared with Kommo, the figures, the problems and the summary."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from local.demo import programs, records
from local.demo.installs import ACCOUNTS, BROWSERS, FORGED_REFERERS, LINKED, REFUSALS
from local.demo.programs import portaria
from local.demo.run import Account, Run, installs, list_items


def expected_persons(run: Run, accounts: list[Account]) -> tuple[dict[str, dict[str, str]], int]:
    """The persons that Marketo must have, by e-mail address, and the number of contacts without an address.

    They are derived from Kommo's contacts without the product's code. A contact without an address must become a dead letter.
    """
    persons: dict[str, dict[str, str]] = {}
    without_email = 0
    for account in accounts:
        data = run.control.kommo_contacts(account.host)
        companies = {company["id"]: company["name"] for company in data["companies"]}
        for contact in data["contacts"]:
            fields = {each["field_code"]: each["values"][0]["value"] for each in contact["custom_fields_values"] or []}
            company = next((companies[each["id"]] for each in contact["_embedded"]["companies"]), None)
            person = {
                "firstName": contact["first_name"] or contact["name"],
                "lastName": contact["last_name"],
                "email": fields.get("EMAIL"),
                "phone": fields.get("PHONE"),
                "company": company,
            }
            if person["email"]:
                persons[person["email"].lower()] = {name: value for name, value in person.items() if value}
            else:
                without_email += 1
    return persons, without_email


def compare(run: Run, expected: dict[str, dict[str, str]]) -> tuple[int, int]:
    """The number of expected persons in Marketo, and the number of persons in Marketo that differ from the expected ones."""
    held = {}
    for person in run.control.marketo_persons(run.munchkin):
        attributes = {name: value for name, value in person["attributes"].items() if value}
        held[str(attributes.get("email", "")).lower()] = attributes
    applied = sum(email in held for email in expected)
    wrong = sum(attributes != expected.get(email) for email, attributes in held.items())
    return applied, wrong


def compare_tags(run: Run, accounts: list[Account]) -> int:
    """The number of customers whose connection or install is not found by the customer's id, or has other tags."""
    names = {item["account_host"]: item["connection"] for item in installs(run) if item["state"] == "connected"}
    wrong = 0
    for account in accounts:
        if not account.customer_id:
            continue
        tags = {"customer_id": account.customer_id}
        connections = portaria("connections", "list", "--customer-id", account.customer_id)["items"]
        by_install = portaria("installs", "list", "--customer-id", account.customer_id)["items"]
        found = [(each["name"], each["tags"]) for each in connections]
        of_installs = [(each["connection"], each["tags"]) for each in by_install]
        wrong += not found == of_installs == [(names.get(account.host), tags)]
    return wrong


def count_dead_letters(run: Run) -> int:
    """The number of this run's records among the dead letters, each of which has a reason."""
    own = [each for each in list_items(run, "DEAD_LETTERS") if each["connection"].startswith(f"kommo-{run.client}-")]
    return sum(int(letter["count"]) for letter in own if letter["reason"])


def figures(run: Run, expected: dict[str, dict[str, str]]) -> dict[str, Any]:
    states = Counter(item["state"] for item in installs(run))
    applied, wrong = compare(run, expected)
    marketo = run.control.marketo_requests(run.munchkin)
    answers = sorted(run.answers_ms)
    return {
        "installs_accepted": run.accepted,
        "installs_connected": states["connected"],
        "installs_lost": run.accepted - states["connected"],
        "contacts_expected": len(expected),
        "contacts_applied": applied,
        "contacts_wrong": wrong,
        "marketo_requests": sum(request["status"] == 202 for request in marketo),
        "forged_refused": run.forged_refused,
        "ack_p50_ms": round(statistics.median(answers)),
        "ack_p99_ms": round(answers[min(len(answers) - 1, int(len(answers) * 0.99))]),
    }


def problems(run: Run, result: dict[str, Any], dead_letters: int, without_email: int, foreign: list[str]) -> list[str]:
    """The problems, as sentences."""
    found = []
    if result["installs_accepted"] != ACCOUNTS:
        found.append(f"{result['installs_accepted']} of {ACCOUNTS} installs were accepted")
    if result["installs_lost"]:
        failed = [f"{each['account_host']} ({each['state']} {each.get('reason', '')})" for each in installs(run)
                  if each["state"] != "connected"]  # fmt: skip
        found.append(f"{result['installs_lost']} installs were lost: {', '.join(failed) or 'not found'}")
    if result["contacts_applied"] != result["contacts_expected"]:
        found.append(f"{result['contacts_expected'] - result['contacts_applied']} contacts did not arrive")
    if result["contacts_wrong"]:
        found.append(f"{result['contacts_wrong']} contacts differ from Kommo's")
    if result["tags_wrong"]:
        found.append(f"{result['tags_wrong']} customers are not found by their tag, or the tags are wrong")
    if dead_letters != without_email:
        found.append(f"{dead_letters} dead letters were stored; {without_email} contacts have no e-mail address")
    if run.forged_refused != len(FORGED_REFERERS):
        found.append("a forged webhook was not refused")
    if run.refusals_shown != REFUSALS:
        found.append("the page after a refused consent did not say so")
    if foreign:
        found.append(f"requests were sent to {', '.join(foreign)}")
    return found


def show_summary(
    console: Console,
    run: Run,
    result: dict[str, Any],
    dead_letters: int,
    program: programs.Outcome,
    of_records: records.Outcome,
) -> None:
    table = Table(title="Summary", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(style="dim")
    rows = [
        (
            "installs accepted",
            result["installs_accepted"],
            f"{ACCOUNTS - BROWSERS} by webhook, {BROWSERS} in a browser",
        ),
        ("installs connected", result["installs_connected"], "tokens stored, webhooks subscribed"),
        ("installs lost", result["installs_lost"], "with 1 repeated webhook and 2 outages"),
        ("consents refused", run.refusals_shown, "the page says so; nothing is stored"),
        ("forged webhooks refused", result["forged_refused"], "no request to their hosts"),
        ("contacts expected", result["contacts_expected"], "contacts with an e-mail address"),
        ("contacts applied", result["contacts_applied"], "each field compared with Kommo"),
        ("contacts wrong", result["contacts_wrong"], ""),
        ("tags wrong", result["tags_wrong"], f"{LINKED} customers by install link, found by customer_id"),
        ("dead letters", dead_letters, "contacts without an e-mail address"),
        ("requests to Marketo", result["marketo_requests"], "each up to 1,000 contacts and 1 MB"),
        ("webhook answered, median", f"{result['ack_p50_ms']} ms", "Kommo waits 3,000 ms"),
        ("webhook answered, p99", f"{result['ack_p99_ms']} ms", "cold starts included"),
        *program.rows(),
        *of_records.rows(),
        ("duration", f"{result['seconds']} s", ""),
    ]
    for name, value, remark in rows:
        table.add_row(name, f"{value:,}" if isinstance(value, int) else value, remark)
    console.print()
    console.print(table)
