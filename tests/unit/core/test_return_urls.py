"""Return URLs: which may be registered, which match, and the parameters with which the customer returns."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaria.core import return_urls
from portaria.core.error_roots import Rejected
from tests.fakes.paths import HOSTILE_RETURN_URLS

REGISTERED = ("https://app.example.com/done", "https://app.example.com/portaria/*")
LINES = HOSTILE_RETURN_URLS.read_text().splitlines()
HOSTILE = [json.loads(line) for line in LINES if line and not line.startswith("#")]


def test_hostile_return_url_corpus_is_large_and_unique() -> None:
    assert len(HOSTILE) >= 150
    assert len(set(HOSTILE)) == len(HOSTILE)


@pytest.mark.parametrize("url", HOSTILE, ids=lambda url: ascii(url)[1:61])
def test_match_hostile_return_url_is_refused(url: str) -> None:
    assert not return_urls.match(url, REGISTERED)
    with pytest.raises(Rejected) as refused:
        return_urls.check_match(url, REGISTERED)
    assert refused.value.reason in ("bad_return_url", "return_url_not_registered")


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example.com/done",
        "https://app.example.com/portaria/",
        "https://app.example.com/portaria/x",
        "https://app.example.com/portaria/x/y/",
        "https://app.example.com/portaria/x.html",
        "https://app.example.com/portaria/~x/a-b_c.d/(1),'2'+3=4:5@6!$&",
        "https://app.example.com/portaria/...",
        "https://app.example.com/portaria/x?a=1&b=%2Fdashboard%3Fc%3Dd&e",
        "https://app.example.com/portaria/x?statuses=1&reinstall=2&install_id=3",
        "https://app.example.com/portaria/?next=https://evil.example/",
        "https://app.example.com/portaria/" + "x" * (return_urls.MAX_LENGTH - 33),
    ],
)
def test_match_registered_return_url_is_accepted(url: str) -> None:
    return_urls.check_match(url, REGISTERED)
    assert return_urls.match(url, REGISTERED)


def test_match_nothing_registered_matches_nothing() -> None:
    assert not return_urls.match("https://app.example.com/done", ())


def test_match_longer_than_the_limit_is_refused() -> None:
    long = "https://app.example.com/portaria/" + "x" * (return_urls.MAX_LENGTH - 32)
    assert not return_urls.match(long, REGISTERED)
    with pytest.raises(Rejected, match=r"2,000 characters"):
        return_urls.check(long)


@pytest.mark.parametrize(
    "entry", ["https://*", "*", "/*", "https://app.example.com*", "http://*", "https:/*", "https://a/*"]
)
def test_match_entry_that_was_never_checked_holds_nothing(entry: str) -> None:
    for url in ("https://app.example.com/x", "https://a/x", "http://localhost/x"):
        assert not return_urls.match(url, (entry,))


def test_match_exact_entry_with_query_needs_that_query() -> None:
    registered = ("https://app.example.com/done?tenant=7",)
    assert return_urls.match("https://app.example.com/done?tenant=7", registered)
    for url in ("done", "done?tenant=8", "done?tenant=7&a=1", "done?Tenant=7", "done?tenant=7/x"):
        assert not return_urls.match(f"https://app.example.com/{url}", registered)


def test_match_host_prefix_ends_at_the_host() -> None:
    registered = ("https://app.example.com/*",)
    assert return_urls.match("https://app.example.com/", registered)
    assert return_urls.match("https://app.example.com/x?y", registered)
    for url in ("https://app.example.com", "https://app.example.com.evil.example/", "https://app.example.com:8443/"):
        assert not return_urls.match(url, registered)


def test_match_port_and_loopback_are_part_of_the_entry() -> None:
    registered = ("http://localhost:3000/*", "https://app.example.com:8443/done")
    assert return_urls.match("http://localhost:3000/portaria", registered)
    assert return_urls.match("https://app.example.com:8443/done", registered)
    for url in (
        "http://localhost/portaria",
        "http://127.0.0.1:3000/x",
        "https://localhost:3000/x",
        "https://app.example.com/done",
    ):
        assert not return_urls.match(url, registered)


@pytest.mark.parametrize(
    "entry",
    [
        *REGISTERED,
        "https://app.example.com/",
        "https://app.example.com/*",
        "https://a.b.c.example.com.br:8443/x/*",
        "https://xn--caf-dma.example/x",
        "https://app.xn--p1ai/x",
        "http://localhost/x",
        "http://localhost:3000/*",
        "http://127.0.0.1:65535/*",
        "https://localhost:8443/x",
        "https://app.example.com/done?tenant=7",
    ],
)
def test_check_registered_accepts_entry(entry: str) -> None:
    return_urls.check_registered(entry)


@pytest.mark.parametrize(
    "entry",
    [
        *("*", "/*", "https://*", "https://*/", "https://*.example.com/x", "https://app.example.com*", "https://app.example.com"),
        *("https://app.example.com/x*", "https://app.example.com/*/x", "https://app.example.com/**", "https://app.example.com//*"),
        *("https://app.example.com/x/../*", "https://app.example.com/./*", "https://app.example.com/*?x=1", "https://app.example.com/?a/*"),
        *("https://app.example.com/*#", "https://app.example.com:443/*", "http://app.example.com/*", "http://localhost:80/x"),
        *("http://localhost.example.com/x", "http://[::1]/x", "http://10.0.0.1/x", "https://127.0.0.1/x", "https://app/x"),
        *("https://app.example.com/x y", "https://user@app.example.com/*", "https://App.example.com/*", "https://app.example.com./*"),
        *("https://xn--0.example/x", "https://xn--a-\udce9.example/x", "https://app.example.com/x?status=1", "https://a.example/%2e/*"),
        *("https://app.example.com/" + "x" * 400, "\nhttps://app.example.com/x", "https://app.example.com/x\n", ""),
    ],
    ids=ascii,
)  # fmt: skip
def test_check_registered_refuses_entry(entry: str) -> None:
    with pytest.raises(Rejected) as refused:
        return_urls.check_registered(entry)
    assert (refused.value.reason, refused.value.field) == ("bad_return_url", "return_urls")


def test_check_registered_never_repeats_what_was_sent() -> None:
    with pytest.raises(Rejected) as refused:
        return_urls.check_registered("https://user:hunter2@app.example.com/*")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://app.example.com/portaria/x", "https://app.example.com/portaria/x?a=1&b=2"])
@pytest.mark.parametrize("install", ["mfzwizltoq2dkobvhe3tmnzygq", ""])
def test_with_result_adds_install_and_status_only(url: str, install: str) -> None:
    returned = urlsplit(return_urls.with_result(url, install, "refused"))
    before = urlsplit(url)
    assert returned[:3] == before[:3]
    expected = {**parse_qs(before.query), **({"install": [install]} if install else {}), "status": ["refused"]}
    assert parse_qs(returned.query) == expected


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://app.example.com/portaria/x?y=/z", "https://app.example.com"),
        ("http://localhost:3000/", "http://localhost:3000"),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert return_urls.origin(url) == origin


@given(
    st.text(max_size=40),
    st.sampled_from(["https://app.example.com/portaria/", "https://app.example.com", "https://", ""]),
)
def test_match_any_text_lands_below_the_prefix_or_is_refused(rest: str, start: str) -> None:
    url = start + rest
    if return_urls.match(url, REGISTERED):
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc) == ("https", "app.example.com")
        assert parts.path == "/done" or parts.path.startswith("/portaria/")
