"""Actions of a user in a browser: install an application, give or refuse consent, open a sign-on link."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

from local.processes import NotStarted
from local.stack import Stack

# The wait for an install, including cold starts.
PATIENCE_S = 60.0


def session(stack: Stack) -> requests.Session:
    """The HTTP client of a browser or a platform's server. It uses the proxy for every host and ignores the user's settings."""
    made = requests.Session()
    made.trust_env = False
    made.proxies = {"https": stack.proxy_url}
    made.verify = stack.ca_bundle
    return made


def install(stack: Stack, client: str, account: str, *, allow: bool, link: str = "") -> str:
    """Install from the start page of a Kommo client, or from an install link. Returns the final state of the install, or
    `refused`.

    Raises `NotStarted` if a page is not as expected.
    """
    with session(stack) as browser:
        start = browser.get(link or f"{stack.public_url}/install/kommo/{client}/start", timeout=30)
        consent_link = re.search(r'href="(https://www\.kommo\.com/oauth\?[^"]+)"', start.text)
        if not consent_link and link:
            raise NotStarted(f"the link leads to no install page ({start.status_code}): {_heading(start)}")
        if not consent_link:
            raise NotStarted(
                f"the API has no install page for the client {client} ({start.status_code}): register it with "
                "`portaria configure examples/portaria.yaml`"
            )
        wanted = {name: values[0] for name, values in parse_qs(urlsplit(html.unescape(consent_link[1])).query).items()}
        decision = {**wanted, "account": account, "decision": "allow" if allow else "deny", "opener": ""}
        back = browser.post("https://www.kommo.com/oauth/decision", data=decision, allow_redirects=False, timeout=30)
        if "Location" not in back.headers:
            raise NotStarted(f"Kommo's consent page refused this ({back.status_code}): {_heading(back)}")
        return _follow(browser, back.headers["Location"])


def consent(stack: Stack, link: str, *, allow: bool) -> str:
    """Open the link of a pending `oauth2` connection and decide. Returns the final state, or `refused`."""
    with session(stack) as browser:
        page = browser.get(link, timeout=30)
        choice = re.search(rf'href="([^"]*decision={"allow" if allow else "deny"}[^"]*)"', page.text)
        if not choice:
            raise NotStarted(
                f"the link does not lead to a provider's consent page ({page.status_code}): {_heading(page)}"
            )
        back = browser.get(urljoin(page.url, html.unescape(choice[1])), allow_redirects=False, timeout=30)
        return _follow(browser, back.headers["Location"])


def open_once(stack: Stack, link: str) -> str:
    """Open a sign-on link and return the URL that it redirects to. Raises `NotStarted` if the link does not work."""
    with session(stack) as browser:
        answer = browser.get(link, allow_redirects=False, timeout=30)
    if answer.status_code != 303:
        raise NotStarted(f"the link does not work ({answer.status_code}): {_heading(answer)}")
    return answer.headers["Location"]


def _follow(browser: requests.Session, location: str) -> str:
    """Follow the redirect URI to the result page, and wait for a final state."""
    answer = browser.get(location, allow_redirects=False, timeout=30)
    if answer.status_code != 303:
        return "refused" if answer.ok else f"rejected: {_heading(answer)}"
    result = urljoin(location, answer.headers["Location"])

    def state() -> str:
        found = browser.get(result, headers={"Accept": "application/json"}, timeout=30)
        return str(found.json().get("state", "")) if found.ok else ""

    return wait_for(state, lambda state: state in ("connected", "failed"), "the install is still in progress")


def wait_for(look: Callable[[], str], enough: Callable[[str], bool], otherwise: str) -> str:
    """Poll `look` until its result is `enough`. Raises `NotStarted` after `PATIENCE_S`."""
    deadline = time.monotonic() + PATIENCE_S
    while not enough(found := look()):
        if time.monotonic() > deadline:
            raise NotStarted(f"{otherwise} after {PATIENCE_S:.0f} s: `make logs` shows what happens")
        time.sleep(0.3)
    return found


def _heading(answer: requests.Response) -> str:
    """The heading of a page, or the beginning of its text."""
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", answer.text, re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "", heading[1])).strip() if heading else answer.text[:200]
