"""`build/sandbox.env`: the credentials of the sandbox's accounts, as environment variables that `examples/` refers to.

It also puts the commands `portaria` and `sandbox` on the PATH, and sets the local cloud's address for `portaria`.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
import uuid
from pathlib import Path

from local.stack import ROOT, STACK_FILE, Stack

FILE = ROOT / "build" / "sandbox.env"
COMMANDS = ROOT / "build" / "bin"

MUNCHKIN = "123-ABC-456"
LOCATION = "ve9EPM428h8vShlRW1KT"
CUSTOMER = "padaria-exemplo"
# The hosts of the simulated OAuth 2.0 providers and APIs, by the names that the examples use.
PROVIDERS = {name: f"{name}.oauth.example.net" for name in ("shop", "billing", "erp", "warehouse", "helpdesk")}

_LINE = re.compile(r"export ([A-Z_]+)=(.*)")

Variables = dict[str, str]


def read() -> Variables:
    """The variables of the last `make sandbox`; empty if there was none."""
    try:
        lines = FILE.read_text().splitlines()
    except FileNotFoundError:
        return {}
    found = filter(None, map(_LINE.fullmatch, lines))
    return {each[1]: shlex.split(each[2])[0] for each in found if each[1] != "PATH"}


def complete(known: Variables, stack: Stack) -> Variables:
    """All variables: known secrets, new values for missing ones, and the present addresses."""
    secret = {
        name: known.get(name) or secrets.token_urlsafe(24)
        for name in (
            "KOMMO_CLIENT_SECRET",
            "MARKETO_CLIENT_SECRET",
            "SHOP_CLIENT_SECRET",
            "BILLING_CLIENT_SECRET",
            "ERP_KEY",
            "WAREHOUSE_PASSWORD",
            "HELPDESK_TOKEN",
            "ENGAGE_PASSWORD",
            "ENGAGE_CLIENT_SECRET",
            "ENGAGE_CUSTOMER_TOKEN",
        )
    }
    return {
        "PORTARIA_STACK_FILE": str(STACK_FILE),
        "PORTARIA_API_URL": stack.api_url,
        "KOMMO_CLIENT_ID": "kommo-sandbox",
        "MARKETO_MUNCHKIN_ID": MUNCHKIN,
        "MARKETO_CLIENT_ID": "marketo-sandbox",
        "SHOP_CLIENT_ID": "shop-sandbox",
        "SHOP_AUTHORIZE_URL": f"https://{PROVIDERS['shop']}/authorize",
        "SHOP_TOKEN_URL": f"https://{PROVIDERS['shop']}/token",
        "SHOP_API_DOMAIN": PROVIDERS["shop"],
        "BILLING_CLIENT_ID": "billing-sandbox",
        "BILLING_TOKEN_URL": f"https://{PROVIDERS['billing']}/token",
        "BILLING_API_DOMAIN": PROVIDERS["billing"],
        "ERP_DOMAIN": PROVIDERS["erp"],
        "WAREHOUSE_DOMAIN": f"*.{PROVIDERS['warehouse']}",
        "WAREHOUSE_USER": "warehouse",
        "HELPDESK_DOMAIN": PROVIDERS["helpdesk"],
        "ENGAGE_CUSTOMER_ID": CUSTOMER,
        "ENGAGE_USER": "portaria-api",
        "ENGAGE_CLIENT_ID": "engage-sandbox",
        "LEADCONNECTOR_LOCATION_ID": LOCATION,
        "LEADCONNECTOR_TOKEN": known.get("LEADCONNECTOR_TOKEN") or f"pit-{uuid.uuid4()}",
        **secret,
    }


def write(variables: Variables) -> None:
    """Replace the file atomically. Only its owner can read it."""
    lines = [
        "# Written by `make sandbox`. The secrets are valid at the simulators on this machine only.",
        f'export PATH={shlex.quote(str(COMMANDS))}":$PATH"',
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())),
    ]
    FILE.parent.mkdir(exist_ok=True)
    fresh = FILE.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")
    fresh.replace(FILE)


def write_commands() -> None:
    """Write the commands `portaria` and `sandbox` of this checkout."""
    COMMANDS.mkdir(parents=True, exist_ok=True)
    package = f"{ROOT / 'layers' / 'portaria'}:{ROOT / 'cli'}"
    paths = {"portaria": package, "sandbox": f"{ROOT}:{package}"}
    modules = {"portaria": "portaria_cli", "sandbox": "local.sandbox"}
    for name, module in modules.items():
        command = COMMANDS / name
        python = shlex.quote(sys.executable)
        fresh = command.with_suffix(".new")
        fresh.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(paths[name]))} exec {python} -m {module} "$@"\n')
        fresh.chmod(0o755)
        fresh.replace(command)


def remove() -> None:
    """Remove the files that `make sandbox` wrote."""
    FILE.unlink(missing_ok=True)
    for command in COMMANDS.glob("*") if COMMANDS.exists() else ():
        command.unlink()


def relative(path: Path) -> str:
    """A path relative to the checkout."""
    return str(path.relative_to(ROOT))
