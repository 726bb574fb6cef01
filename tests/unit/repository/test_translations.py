"""Each Portuguese document has the structure, the code and the links of the English document."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pytest

from tests.fakes.paths import ROOT
from tests.unit.repository.documents import anchors, inline_code, prose

TRANSLATED_FOLDER = ROOT / "docs" / "pt-BR"
_CODE_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
ENGLISH_OF = {ROOT / "README.pt-BR.md": ROOT / "README.md"} | {
    path: ROOT / "docs" / path.name for path in sorted(TRANSLATED_FOLDER.glob("*.md"))
}

each_pair = pytest.mark.parametrize(
    ("translated", "english"),
    ENGLISH_OF.items(),
    ids=[str(path.relative_to(ROOT)) for path in ENGLISH_OF],
)


def headings(path: Path) -> list[str]:
    return re.findall(r"^(#{1,6}) ", prose(path.read_text()), re.MULTILINE)


def code_blocks(path: Path) -> list[tuple[str, str]]:
    """The language and the text of each code block, without comments and without the labels of a diagram."""
    blocks = []
    for _, language, block in _CODE_BLOCK.findall(path.read_text()):
        text = re.sub(r'"[^"]*"', '""', block) if language == "mermaid" else block
        lines = [re.sub(r"(^|\s+)# .*$", "", line) for line in text.splitlines() if not line.lstrip().startswith("#")]
        blocks.append((language, "\n".join(lines)))
    return blocks


def table_rows(path: Path) -> list[int]:
    lines = prose(path.read_text()).splitlines()
    return [len(list(rows)) for is_table, rows in groupby(lines, key=lambda line: line.startswith("|")) if is_table]


def link_targets(path: Path) -> set[tuple[str, int | None]]:
    """The English document, or the address, of each link, and the position of the heading that its anchor names."""
    found: set[tuple[str, int | None]] = set()
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
        if re.match(r"[a-z]+:", link):
            found.add((link, None))
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        position = ordered_anchors(target).index(anchor) if anchor else None
        found.add((str(ENGLISH_OF.get(target, target).relative_to(ROOT)), position))
    return found


def ordered_anchors(path: Path) -> list[str]:
    titles = re.findall(r"^#{1,6} +(.+?) *$", prose(path.read_text()), re.MULTILINE)
    in_order = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    assert anchors(path) == set(in_order), f"{path.name} has two headings with the same text"
    return in_order


@each_pair
def test_translation_has_the_headings_of_the_english_document(translated: Path, english: Path) -> None:
    assert headings(translated) == headings(english)


@each_pair
def test_translation_has_the_code_blocks_of_the_english_document(translated: Path, english: Path) -> None:
    assert code_blocks(translated) == code_blocks(english)


@each_pair
def test_translation_has_the_table_rows_of_the_english_document(translated: Path, english: Path) -> None:
    assert table_rows(translated) == table_rows(english)


@each_pair
def test_translation_has_the_links_of_the_english_document(translated: Path, english: Path) -> None:
    assert link_targets(translated) == link_targets(english)


@each_pair
def test_translation_has_the_inline_code_of_the_english_document(translated: Path, english: Path) -> None:
    """Names of parameters, commands and fields: a change of the English document often shows here first."""
    assert inline_code(translated) == inline_code(english)


@each_pair
def test_translation_links_to_translated_documents(translated: Path, english: Path) -> None:
    """A link to a document that has a Portuguese version leads to that version, except the link to the original."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s:]+)\)", prose(translated.read_text()))]
    targets = {(translated.parent / link).resolve() for link in links if link}
    assert targets & set(ENGLISH_OF.values()) <= {english}


def test_translations_exist() -> None:
    assert len(ENGLISH_OF) > 3
    assert all(english.exists() for english in ENGLISH_OF.values())
