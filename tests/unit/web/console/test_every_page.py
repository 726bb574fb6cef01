"""Every page of the console, as its function answers it: what links lead to, its forms, and its language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest

from portaria.web.console.application import LANGUAGE_COOKIE
from tests.fakes.api.console import Browser
from tests.fakes.aws.moto_cloud import cloud
from tests.fakes.console import page_list, scenery
from tests.fakes.virtual_time import VirtualClock

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"}
# What a customer or a platform named, and what a program reads, is not translated.
DATA = {"title", "bdi", "code", "pre", "time", "textarea", "script", "style", "option", "text"}
# Words that are the same in Portuguese or Spanish and English.
SAME = {
    "Portaria", "Menu", "Total", "Tags", "Status", "URL", "ID", "Token", "Webhooks", "Portuguese", "Logo", "E-mail", "Bytes",
    "Munchkin", "Stack", "Python", "Logs",
}  # fmt: skip


class Texts(HTMLParser):
    """The texts of a page, those of data and of other languages excepted."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[tuple[str, bool]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        is_left_out = tag in DATA or (tag != "html" and "lang" in given) or "badge" in (given.get("class") or "")
        if tag not in VOID:
            self._open.append((tag, is_left_out))
        if not is_left_out and (label := given.get("aria-label")):
            self.found.append(label)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, text: str) -> None:
        if text.strip() and not any(is_left_out for _, is_left_out in self._open):
            self.found.append(" ".join(text.split()))


@dataclass
class Pages:
    """The HTML of a page of each shape, by language."""

    texts: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    clock = VirtualClock(scenery.START)
    with cloud() as stack, clock.installed():
        browser = Browser(stack)
        scenery.furnish(browser, clock)
        browser.sign_in()
        english: dict[str, str] = {}
        paths = page_list.find_all(browser, english)
        found = {"en": english}
        for language in ("pt", "es"):
            browser.cookies[LANGUAGE_COOKIE] = language
            found[language] = {shape: browser.get(path).text for shape, path in paths.items()}
        yield Pages(found)


def test_console_links_lead_to_every_page_of_its_tables(pages: Pages) -> None:
    assert page_list.defined() - set(pages.texts["en"]) == set()


def test_console_forms_can_be_sent_without_script(pages: Pages) -> None:
    for shape, page in pages.texts["en"].items():
        for form in re.findall(r"<form.*?</form>", page, re.DOTALL):
            assert "<button" in form, shape
            assert 'method="get"' in form or 'name="csrf_token"' in form, shape
        assert not re.search(r"<[^>]* (on[a-z]+=|hidden[ >])", page), shape


@pytest.mark.parametrize(("language", "tag"), [("pt", "pt-BR"), ("es", "es"), ("en", "en")])
def test_console_pages_have_the_language_that_was_chosen(pages: Pages, language: str, tag: str) -> None:
    assert {shape for shape, page in pages.texts[language].items() if f'<html lang="{tag}' not in page} == set()


@pytest.mark.parametrize("language", ["pt", "es"])
def test_console_pages_have_no_english_text_in_another_language(pages: Pages, language: str) -> None:
    """A text that is the same in both languages is written into a template, or has no translation."""
    untranslated: dict[str, str] = {}
    for shape, page in pages.texts[language].items():
        english = set(Texts(pages.texts["en"][shape]).found)
        untranslated |= {text: shape for text in Texts(page).found if text in english and is_sentence(text)}
    assert not untranslated, untranslated


def is_sentence(text: str) -> bool:
    """Whether a text has words that are neither names of the API nor the same in the languages."""
    words = re.findall(r"[A-Za-z]{3,}", re.sub(r"\S*[_@:/.]\S*|\S*\d\S*", "", text))
    return bool(words) and not set(words) <= SAME
