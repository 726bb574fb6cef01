"""Run `examples/web_app` on the local cloud, until Ctrl-C: a team's application whose customers connect Kommo.

It registers what the application needs: the OAuth client with its branding, a private integration, and a webhook.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import requests
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.console import Console

from local import lifecycle, processes
from local.__main__ import step
from local.processes import NotStarted, clean_environment
from local.proxy import APPLICATION_HOST
from local.sandbox.__main__ import furnish
from local.sandbox.accounts import KOMMO_CLIENT
from local.stack import LOCAL, ROOT, Stack
from portaria_cli.api import Api
from portaria_cli.auth import Principal
from portaria_cli.errors import NotDone

EXAMPLE = ROOT / "examples" / "web_app"
LOG = LOCAL / "application.log"
PORT = 8321
WEBHOOK_URL = f"https://{APPLICATION_HOST}/webhooks"
INTEGRATION = "examples/web_app"
SCOPES = ["connections:list", "connections:call", "install-links:create", "installs:show"]
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
CHROMIUM = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


@dataclass(frozen=True)
class OAuthClient:
    """The integration that is registered with the simulated Kommo."""

    name: str
    client_id: str
    client_secret: str


@dataclass(frozen=True)
class Application:
    """The running application. Its webhooks arrive at `WEBHOOK_URL`, which the proxy connects to its port."""

    url: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(stack: Stack, client: OAuthClient, port: int) -> Iterator[Application]:
    """Register the application and run it within the context. Raises `NotStarted`."""
    processes.free_port(port)
    url = f"http://localhost:{port}"
    api = administrator(stack)
    remove(api)
    register_client(api, stack, client, url)
    token = api.create("private-integrations", body={"name": INTEGRATION, "scopes": SCOPES})["token"]
    secret = api.create("webhooks", body={"url": WEBHOOK_URL, "events": ["connection.*", "install.*"]})["secret"]
    LOG.unlink(missing_ok=True)
    process = processes.start(
        [sys.executable, EXAMPLE / "app.py"],
        root=ROOT,
        log=LOG,
        environment={
            **clean_environment(LOCAL / "tmp"),
            "PORTARIA_URL": stack.api_url,
            "PORTARIA_TOKEN": token,
            "PORTARIA_WEBHOOK_SECRET": secret,
            "PORTARIA_CLIENT": f"kommo/{client.name}",
            "APP_URL": url,
            "PORT": str(port),
        },
    )
    try:
        _wait_until_it_answers(process.pid, url)
        _lead_to(stack, port)
        yield Application(url, process)
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
        # If the local cloud has ended in the meantime, nothing leads here any more.
        with contextlib.suppress(requests.RequestException, NotDone):
            _lead_to(stack, None)
            remove(api)


def administrator(stack: Stack) -> Api:
    """The API as the account's root calls it."""
    return Api(stack.api_url, Principal(stack.region, Credentials(stack.access_key_id, stack.secret_access_key)))


def register_client(api: Api, stack: Stack, client: OAuthClient, url: str) -> None:
    """Register the OAuth client with the branding of its hosted pages, and with the pages that customers return to."""
    body = {
        "client_id": client.client_id,
        "client_secret": client.client_secret,
        "redirect_uri": f"{stack.public_url}/install/kommo/{client.name}",
        "display_name": "Aurora",
        "logo": b64encode((EXAMPLE / "logo.svg").read_bytes()).decode(),
        "colour": "#7c3aed",
        "support_email": "help@example.com",
        "return_urls": [f"{url}/*"],
    }
    if api.find("oauth-clients", "kommo", client.name):
        api.put("oauth-clients", "kommo", client.name, body=body)
    else:
        api.create("oauth-clients", body={**body, "platform": "kommo", "name": client.name})


def remove(api: Api) -> None:
    """Delete the webhook and the private integration, also those of a run that was killed."""
    for kind, field, value in (("webhooks", "url", WEBHOOK_URL), ("private-integrations", "name", INTEGRATION)):
        for found in list(api.list(kind)):
            if found[field] == value:
                api.delete(kind, found["id"])


def browser_command(stack: Stack, url: str) -> str:
    """The command that starts Chromium with the proxy and a profile of its own, which accepts the proxy's certificate."""
    certificate = x509.load_pem_x509_certificate((LOCAL / "proxy.pem").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return shlex.join(
        [
            next(filter(None, map(shutil.which, CHROMIUM)), "chromium"),
            f"--user-data-dir={LOCAL / 'chromium'}",
            f"--proxy-server={stack.proxy_url}",
            f"--ignore-certificate-errors-spki-list={b64encode(hashlib.sha256(key).digest()).decode()}",
            "--no-first-run",
            url,
        ]
    )


def _lead_to(stack: Stack, port: int | None) -> None:
    with requests.Session() as session:
        session.trust_env = False
        if port is None:
            session.delete(f"{stack.proxy_url}/application", timeout=5).raise_for_status()
        else:
            session.put(f"{stack.proxy_url}/application?port={port}", timeout=5).raise_for_status()


def _wait_until_it_answers(pid: int, url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if session.get(f"{url}/events/newest", timeout=2).ok:
                    return
            if pid not in processes.ours(ROOT):
                break
            time.sleep(0.1)
    raise NotStarted(f"the application did not start:\n{processes.last_lines(LOG)}")


def show(console: Console, stack: Stack, application: Application) -> None:
    """What to open, and what to try there."""

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    say(f"\nThe application runs at {application.url}; its log is {_relative(LOG)}.")
    say(
        "Its customers' browsers need the local cloud's proxy, which leads to the simulated Kommo. Open it with Chromium:\n"
    )
    say(f"  {browser_command(stack, application.url)}\n")
    say(f"Another browser: set the HTTPS proxy {stack.proxy_url} and trust {_relative(Path(stack.ca_bundle))}.\n")
    say('Try this: click "Connect Kommo" and choose Allow, or Deny. Click "Show contacts". End the grant at Kommo:\n')
    say("  . build/sandbox.env && sandbox kommo uninstall padaria --lost\n")
    say("Ctrl-C stops the application.")


def _relative(path: Path) -> Path:
    return path.relative_to(ROOT)


def run(console: Console, port: int, *, keep: bool) -> None:
    before = Stack.read()
    ours = before is None or bool(before.dead_parts())
    try:
        stack, variables = furnish(console)
        client = OAuthClient(KOMMO_CLIENT, variables["KOMMO_CLIENT_ID"], variables["KOMMO_CLIENT_SECRET"])
        with contextlib.ExitStack() as started:
            with step("Starting the application"):
                application = started.enter_context(running(stack, client, port))
            show(console, stack, application)
            application.process.wait()
            raise NotStarted(f"the application ended:\n{processes.last_lines(LOG)}")
    finally:
        if ours and not keep:
            with step("Stopping the local cloud"):
                lifecycle.down(console.print)


@click.command(help=__doc__)
@click.option(
    "--port", default=PORT, show_default=True, type=click.IntRange(1024, 65535), help="The application's port."
)
@click.option("--keep", is_flag=True, help="Leave the local cloud running.")
def demo_app(port: int, keep: bool) -> None:
    console = Console(highlight=False)
    try:
        run(console, port, keep=keep)
    except (NotStarted, NotDone) as reason:
        console.print(f"error: {reason}", soft_wrap=True, markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Stopped.")


if __name__ == "__main__":
    demo_app()
