"""Open the console of the running local cloud.

Its host exists only behind the local proxy, so Chromium is started with that proxy, with the key of the proxy's certificate,
and with a profile of its own below `build/`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click

from local.processes import NotStarted
from local.sandbox.context import Sandbox, pass_sandbox, say
from local.stack import LOCAL, STACK_FILE, Stack

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROFILE = Path("build") / "chromium"


@click.command("console")
@click.option("--print", "only_prints", is_flag=True, help="Print the command that opens it instead of running it.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@pass_sandbox
def console(sandbox: Sandbox, only_prints: bool, options: tuple[str, ...]) -> None:
    """Open the console in Chromium.

    OPTIONS are passed on to `portaria console`: `sandbox console -- --read-only`.
    """
    # Imported here, because the sandbox's other commands need none of it.
    from local.functions.invoke import ALIAS

    # The overview's counts are made every five minutes: one more count now, so that what the sandbox just did is in them.
    count = sandbox.stack.functions["count_states"]
    sandbox.stack.client("lambda").invoke(FunctionName=count, Qualifier=ALIAS, InvocationType="Event", Payload=b"{}")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    has_screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    command = browser_command(sandbox.stack, found or BROWSERS[0], link(options))
    if only_prints or not found or not has_screen:
        say("Run this within two minutes. The link works once.")
        click.echo(shlex.join(command))
        return
    subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    say("The console is open in Chromium.")


def link(options: tuple[str, ...]) -> str:
    """A one-time link. Raises `NotStarted` with the command line's error."""
    command = [sys.executable, "-m", "portaria_cli", "--stack-file", str(STACK_FILE), "console", "--print", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotStarted(done.stderr.strip())
    return done.stdout.strip()


def browser_command(stack: Stack, browser: str, url: str) -> list[str]:
    """How Chromium opens a page of the local cloud."""
    return [
        browser,
        f"--proxy-server={stack.proxy_url}",
        f"--ignore-certificate-errors-spki-list={_key_hash((LOCAL / 'proxy.pem').read_bytes())}",
        f"--user-data-dir={PROFILE.resolve()}",
        "--no-first-run",
        "--disable-quic",
        url,
    ]


def _key_hash(certificate: bytes) -> str:
    """The SHA-256 of the public key of a file's first certificate, as Chromium's option takes it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_pem_x509_certificates(certificate)[0].public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()
