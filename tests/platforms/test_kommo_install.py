"""Kommo's three arrivals, at the edges that the suite for all platforms does not know."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from portaria.core.callbacks import OAuthCallback, Refusal, Secret
from portaria.core.errors import Rejected
from portaria.platforms.kommo import install
from tests.fakes.paths import HOSTILE_REFERERS

HOSTILE = json.loads(HOSTILE_REFERERS.read_text())
WIDGET = {"code": ["def50200"], "referer": ["acme.kommo.com"], "from_widget": ["1"]}
BROWSER = {"code": ["def50200"], "referer": ["acme.kommo.com"], "state": ["state-1"]}


def read(query: dict[str, list[str]]) -> OAuthCallback:
    arrival = install.parse_callback(query)
    assert isinstance(arrival, OAuthCallback)
    return arrival


@pytest.mark.parametrize(
    ("host", "account_host"),
    [
        ("acme.kommo.com", "acme.kommo.com"),
        ("ACME.Kommo.com", "acme.kommo.com"),
        ("a.kommo.com", "a.kommo.com"),
        ("a-b--c.amocrm.com", "a-b--c.amocrm.com"),
        ("123.amocrm.ru", "123.amocrm.ru"),
        (f"{'a' * 63}.kommo.com", f"{'a' * 63}.kommo.com"),
        ("wwwacme.kommo.com", "wwwacme.kommo.com"),
    ],
)
@pytest.mark.parametrize("spelling", ["referer", "referrer"])
def test_kommo_parse_arrival_account_host_is_lowered(host: str, account_host: str, spelling: str) -> None:
    assert read({"code": ["c"], spelling: [host], "from_widget": ["1"]}).account_host == account_host


@pytest.mark.parametrize(
    "host", [host for group in HOSTILE.values() for host in group], ids=lambda host: ascii(host)[1:50]
)
def test_kommo_parse_arrival_foreign_host_is_refused(host: str) -> None:
    for query in (WIDGET, BROWSER):
        with pytest.raises(Rejected, match="bad_referer"):
            install.parse_callback(query | {"referer": [host]})


@pytest.mark.parametrize("host", sorted(install._RESERVED))
def test_kommo_check_account_host_reserved_name_is_refused(host: str) -> None:
    for domain in ("kommo.com", "amocrm.com", "amocrm.ru"):
        with pytest.raises(Rejected, match="bad_referer"):
            install.check_account_host(f"{host}.{domain}")


def test_kommo_parse_arrival_widget_hook_has_no_state() -> None:
    arrival = read(WIDGET)
    assert (arrival.source, arrival.state) == ("widget", None)


def test_kommo_parse_arrival_browser_return_has_state_despite_widget_flag() -> None:
    arrival = read(BROWSER | {"from_widget": ["1"]})
    assert arrival.source == "browser"
    assert arrival.state is not None
    assert arrival.state.reveal() == "state-1"


@pytest.mark.parametrize("from_widget", [[], [""], ["0"]])
def test_kommo_parse_arrival_without_state_or_widget_flag_is_refused(from_widget: list[str]) -> None:
    with pytest.raises(Rejected, match="missing_state") as refused:
        install.parse_callback(WIDGET | {"from_widget": from_widget})
    assert refused.value.field == "state"


@pytest.mark.parametrize(
    ("error", "kept"),
    [("access_denied", "access_denied"), ("<script>", "other"), ("x" * 65, "other"), ("Access Denied", "other")],
)
def test_kommo_parse_arrival_refusal_keeps_only_known_form_of_error(error: str, kept: str) -> None:
    refusal = install.parse_callback({"error": [error], "state": ["state-1"]})
    assert isinstance(refusal, Refusal)
    assert refusal.error == kept
    assert refusal.state is not None
    assert refusal.state.reveal() == "state-1"


def test_kommo_parse_arrival_error_precedes_code() -> None:
    assert isinstance(install.parse_callback(BROWSER | {"error": ["access_denied"]}), Refusal)


@pytest.mark.parametrize("name", ["code", "state", "error", "referer", "from_widget"])
def test_kommo_parse_arrival_repeated_parameter_is_refused_by_name(name: str) -> None:
    query = {name: values for name, values in BROWSER.items()} | {name: ["1", "1"]}
    if name == "error":
        query = {"error": ["a", "b"]}
    with pytest.raises(Rejected, match=f"{name}_repeated") as refused:
        install.parse_callback(query)
    assert refused.value.field == name


@pytest.mark.parametrize(("length", "taken"), [(1, True), (2_000, True), (2_001, False)])
def test_kommo_parse_arrival_code_over_2000_characters_is_refused(length: int, taken: bool) -> None:
    query = WIDGET | {"code": ["c" * length]}
    if taken:
        assert len(read(query).code.reveal()) == length
        return
    with pytest.raises(Rejected, match="2000 characters; this has 2001"):
        install.parse_callback(query)


@pytest.mark.parametrize(("length", "taken"), [(200, True), (201, False)])
def test_kommo_parse_arrival_state_over_200_characters_is_refused(length: int, taken: bool) -> None:
    query = BROWSER | {"state": ["s" * length]}
    if taken:
        assert read(query).source == "browser"
        return
    with pytest.raises(Rejected, match="bad_state"):
        install.parse_callback(query)


def test_kommo_parse_arrival_refusal_does_not_repeat_input() -> None:
    hostile = "canary<script>"
    for query in ({"code": [hostile + " "]}, WIDGET | {"referer": [hostile]}, BROWSER | {"state": [hostile * 50]}):
        with pytest.raises(Rejected) as refused:
            install.parse_callback(query)
        assert "canary" not in str(refused.value)


def test_kommo_consent_url_carries_client_state_and_mode() -> None:
    url = urlsplit(install.consent_url("client-1", Secret("state-1")))
    assert (url.scheme, url.netloc, url.path) == ("https", "www.kommo.com", "/oauth")
    assert parse_qs(url.query) == {"client_id": ["client-1"], "state": ["state-1"], "mode": ["popup"]}


@pytest.mark.parametrize(
    ("language", "title"), [("pt", "Conectar ao Kommo"), ("es", "Conectar con Kommo"), ("en", "Connect to Kommo")]
)
def test_kommo_button_has_language_of_the_page(language: str, title: str) -> None:
    button = install.button("client-1", Secret("state-1"), language)
    assert button["data-title"] == title
    assert button["data-locale"] == language
    assert (button["data-client-id"], button["data-state"]) == ("client-1", "state-1")
    assert button["src"] == "https://www.kommo.com/auth/button.js"


@pytest.mark.parametrize(
    ("scopes", "count"),
    [("", 0), ("crm", 1), ("crm crm", 1), ("crm notifications files files_delete", 4), ("new crm", 1)],
)
def test_scope_texts_has_words_for_each_known_scope(scopes: str, count: int) -> None:
    texts = {language: install.scope_texts(scopes, language) for language in ("pt", "es", "en")}
    assert {len(each) for each in texts.values()} == {count}
    if count:
        assert len({tuple(each) for each in texts.values()}) == 3


def test_scope_texts_unknown_language_is_english() -> None:
    assert install.scope_texts("crm", "de") == install.scope_texts("crm", "en")
