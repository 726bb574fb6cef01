"""Every text that a page of the console can show exists in three languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from portaria import platforms
from portaria.api.operation import Operation
from portaria.api.validation import Matching
from portaria.web import render
from portaria.web.console import forms, pages
from portaria.web.console.resource_pages import ONCE
from portaria.web.console.sections import BY_ID, SECTIONS, Section

TEMPLATES = Path(pages.__file__).parent / "templates"


def literals(annotation: Any) -> set[str]:
    """The texts of every `Literal` within a type."""
    found: set[str] = set()
    for each in get_args(annotation):
        found |= {each} if isinstance(each, str) else literals(each)
    return found


def states(model: type[BaseModel] | None) -> set[str]:
    fields = model.model_fields if model else {}
    return set().union(*(literals(fields[name].annotation) for name in pages.STATE_FIELDS if name in fields), set())


def needed(section: Section) -> set[str]:
    keys = {f"section.{section.name}", f"about.{section.name}"}
    fields = {*section.columns, *section.facts, *section.api.filters}
    filtered = section.api.filters.get("state", ())
    words = states(section.api.output) | (set() if isinstance(filtered, Matching) else set(filtered))
    inputs: list[tuple[Operation, tuple[str, ...]]] = [(BY_ID[section.create], ())] if section.create else []
    if section.create:
        keys |= {f"create.{section.name}", "done.create"}
    for action in (*section.actions, *section.bulk):
        keys |= {f"action.{action.name}", f"done.{action.name}"}
        if action.is_dangerous:
            keys.add(f"ask.{section.name}.{action.name}")
        if action.fixed is None and action.body is None:
            inputs.append((action.api, action.fields))
    for operation, only in inputs:
        if operation.input:
            fields |= {each.label for each in forms.fields_of(operation.input, {}, only=only)}
    for related in section.related:
        keys.add(f"related.{related.name}")
        fields |= set(related.columns)
        words |= states(BY_ID[related.operation].output)
    return keys | {f"field.{name}" for name in fields} | {f"state.{word}" for word in words}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_console_section_has_every_text(section: Section) -> None:
    assert needed(section) - set(pages.texts()) == set()


def test_console_scope_groups_and_values_shown_once_have_texts() -> None:
    keys = {f"scope_group.{group}" for group, _ in forms.scope_groups()} | {f"field.{name}" for name in ONCE}
    assert keys - set(pages.texts()) == set()


def test_console_fields_and_credentials_of_every_kind_have_texts() -> None:
    kinds = [kind for each in platforms.every() for kind in platforms.load(each.name).connection_kinds.KINDS.values()]
    keys = {f"field.{name}" for kind in kinds for name in (*kind.fields, *kind.credentials)}
    assert keys - set(pages.texts()) == set()


def test_console_templates_name_texts_that_exist() -> None:
    named = {
        key
        for template in TEMPLATES.glob("*.html")
        for key in re.findall(r'\bt\("([a-z_.-]+[a-z])"', template.read_text())
        if "." in key
    }
    assert named - set(pages.texts()) == set()


def test_console_texts_are_in_three_languages_with_the_same_values() -> None:
    for key, texts in pages.texts().items():
        assert set(texts) == set(render.LANGUAGES), key
        assert all(text.strip() for text in texts.values()), key
        assert len({frozenset(re.findall(r"\{(\w+)\}", text)) for text in texts.values()}) == 1, key


def test_console_rules_of_every_form_are_translated() -> None:
    inputs: list[tuple[Operation, tuple[str, ...]]] = [
        (BY_ID[section.create], ()) for section in SECTIONS if section.create
    ]
    inputs += [
        (action.api, action.fields)
        for section in SECTIONS
        for action in (*section.actions, *section.bulk)
        if action.fixed is None and action.body is None
    ]
    said = {
        each.rule
        for operation, only in inputs
        if operation.input
        for each in forms.fields_of(operation.input, {}, only=only)
    }
    assert said - {""} - set(pages.rules()) == set()
    for sentence, texts in pages.rules().items():
        assert set(texts) == set(render.LANGUAGES) - {"en"}, sentence
        assert all(text.strip() for text in texts.values()), sentence


@pytest.mark.parametrize(
    ("language", "told"), [("pt", "O método HTTP."), ("es", "El método HTTP."), ("en", "The HTTP method.")]
)
def test_console_rule_is_in_the_language_of_the_page(language: str, told: str) -> None:
    assert pages.translate(language, "rule.The HTTP method.") == told


def test_console_rule_without_a_translation_is_marked_as_english_and_escaped() -> None:
    assert pages.translate("pt", "rule.<b>{x}") == '<span lang="en">&lt;b&gt;{x}</span>'


@pytest.mark.parametrize("language", ["pt", "es"])
def test_console_scopes_are_described_in_the_language_of_the_page(language: str) -> None:
    for _, names in forms.scope_groups():
        for name, text in names:
            said = pages.translate(language, f"scope.{name}")
            assert "lang=" not in said, name
            assert said != text, name
    assert pages.translate("en", "scope.routes:list") == "List routes"
    assert pages.translate(language, "scope.<b>") == "&lt;b&gt;"
