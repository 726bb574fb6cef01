"""No return URL leads a customer's browser anywhere but to a page that the OAuth client registered.

Each URL is given to an install that is over, and the function decides; Chromium's URL parser then says where this leads.
A grid of generated URLs goes through the rules alone: https://url.spec.whatwg.org is what the browser makes of them.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from portaria.connections import oauth_clients
from portaria.core import return_urls
from portaria.core.callbacks import OAuthClient
from tests.fakes import chromium
from tests.fakes.aws.endpoint import aws_endpoint
from tests.fakes.aws.moto_cloud import Cloud, cloud
from tests.fakes.connections.accept_install import EVENTS, load_handler
from tests.fakes.paths import HOSTILE_RETURN_URLS

pytestmark = pytest.mark.enable_socket

RESULT = Path("build/faults/return_urls.json")
REGISTERED = ("https://app.example.com/done", "https://app.example.com/portaria/*")
CLIENT = OAuthClient(
    "kommo", "crm", "c-1", "https://api.example.com/live/install/kommo/crm", return_urls=" ".join(REGISTERED)
)
# The short version gives the function every so many of them.
EVERY = 3
INSTALL = "mfzwizltoq2dkobvhe3tmnzygq"
HOSTILE = [
    json.loads(line) for line in HOSTILE_RETURN_URLS.read_text().splitlines() if line and not line.startswith("#")
]
# So that a function that refuses everything is seen.
HONEST = [
    "https://app.example.com/done",
    "https://app.example.com/portaria/",
    "https://app.example.com/portaria/acme/settings?tab=2&next=%2Fhome",
]
SCHEMES = (
    "https://",
    "https:/",
    "https:",
    "https:\\\\",
    "//",
    "http://",
    "HTTPS://",
    "https:///",
    "\thttps://",
    "javascript://",
)
HOSTS = (
    *(
        "app.example.com",
        "APP.example.com",
        "app.example.com.",
        "app.example.com:443",
        "app.example.com:",
        "app.example.com:8443",
    ),
    *(
        "user@app.example.com",
        "app.example.com@evil.example",
        "app.example.com\\@evil.example",
        "evil.example#app.example.com",
    ),
    *(
        "evil.example?app.example.com",
        "app.example.com%2eevil.example",
        "app.example.com\t",
        "app\u3002example.com",
        "",
    ),
    *(
        "app.example.com\u2044evil.example",
        "app.example.com;evil.example",
        "xn--app-example-com",
        "127.0.0.1",
        "0x7f.1",
    ),
)
PATHS = (
    *(
        "/done",
        "/done/",
        "/portaria/",
        "/portaria/x",
        "/portaria",
        "/",
        "",
        "//evil.example/portaria/",
        "/\\evil.example",
        "\\portaria\\x",
    ),
    *(
        "/portaria/../x",
        "/portaria/%2e%2e/x",
        "/portaria/.%2E/x",
        "/portaria/..;/x",
        "/portaria/..\\x",
        "/portaria/\t../x",
    ),
    *("/./done", "/x/../done", "/portaria/%2f..%2fx", "/portaria/..%252fx", "/portaria//x", "/portaria/@evil.example"),
    *(
        "/portaria/:80",
        "/portaria/x:y@z",
        "/PORTARIA/x",
        "/portaria/é",
        "/portaria/.",
        "/portaria/...",
        "/portaria/...",
    ),
)
ENDS = (
    "",
    "?",
    "?a=1",
    "?a=/../..",
    "?a=https://evil.example",
    "#",
    "#/../..",
    "?a#b",
    "\n",
    " ",
    "?status=x",
    ";x",
    "\\..",
)

# Where a browser goes, in the page: null where it goes nowhere.
LANDINGS = """(urls) => urls.map((url) => {
  const page = "https://connect.example.com/install/kommo/crm/result/x";
  try { const at = new URL(url, page); return [at.origin, at.pathname, at.hash]; } catch { return null; }
})"""


@pytest.fixture(scope="module")
def aws() -> Iterator[Cloud]:
    with cloud() as made:
        oauth_clients.put(made.table, CLIENT, new=True)
        yield made


def locations(aws: Cloud, urls: list[str]) -> dict[str, str]:
    """Where the function redirects the customer, by the return URL of the install, of those for which it does."""
    found: dict[str, str] = {}
    with aws_endpoint() as endpoint:
        names = ("EXCHANGES_QUEUE_URL", "UNPROVEN_EXCHANGES_QUEUE_URL")
        function = load_handler(endpoint.url, **{name: aws.environment[name] for name in names})
        event: dict[str, Any] = copy.deepcopy(EVENTS["result"])
        event["pathParameters"]["install"] = INSTALL
        for url in urls:
            aws.table.put({"pk": f"INSTALL#{INSTALL}", "sk": "INSTALL", "state": "connected", "return_url": url})
            answer = function.handler(event, None)
            if answer["statusCode"] != 200:
                found[url] = answer["headers"]["Location"]
            elif f'="{escape(url)}"' in answer["body"]:
                found[url] = url
        function.table.close()
    return found


def is_registered(landing: list[str] | None) -> bool:
    """Whether a browser stays on its page, or lands on a registered one."""
    if landing is None:
        return True
    origin, path, fragment = landing
    return origin == "https://app.example.com" and not fragment and (path == "/done" or path.startswith("/portaria/"))


def test_return_urls_no_redirect_leaves_the_registered_pages(aws: Cloud, long: bool) -> None:
    # An item cannot hold a surrogate.
    storable = [url for url in HOSTILE if url and "\ud800" not in url][:: 1 if long else EVERY]
    decided = locations(aws, [*storable, *HONEST])
    grid = ["".join(parts) for parts in itertools.product(SCHEMES, HOSTS, PATHS, ENDS)]
    matched = [url for url in grid if return_urls.match(url, REGISTERED)]
    goals = [*decided.values(), *(return_urls.with_result(url, INSTALL, "failed") for url in matched)]
    path = chromium.path()
    if path is None:
        pytest.skip(chromium.MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        landings = browser.new_page().evaluate(LANDINGS, goals)
        version = browser.version
        browser.close()
    off_site = [goal for goal, landing in zip(goals, landings, strict=True) if not is_registered(landing)]
    result = {
        "tried": len(storable) + len(grid),
        "through_the_function": len(storable),
        "hostile_accepted": len(decided) - len(HONEST),
        "accepted": len(goals),
        "off_site": len(off_site),
        "browser": f"Chromium {version.partition('.')[0]}",
        "long": long,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    assert off_site == []
    assert set(decided) == set(HONEST)
    # Only the plain forms of the grid: a registered page, with nothing or a query behind it.
    assert {url.partition("?")[0] for url in matched} == {
        f"https://app.example.com{path}"
        for path in (
            "/done",
            "/portaria/",
            "/portaria/x",
            "/portaria/:80",
            "/portaria/x:y@z",
            "/portaria/...",
            "/portaria/@evil.example",
        )
    }
    assert len(storable) >= 100
