"""Reading external input takes time in proportion to its size: four times the input takes about four times as long.

Times are compared with each other, so the speed of the machine does not matter. With quadratic time, four times the input
would take sixteen times as long.
"""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from portaria.api import validation
from portaria.api.rules import branding_rules
from portaria.connections.branding import svg_logos
from portaria.connections.branding.logo_rules import UnusableLogo
from portaria.core import record_messages, redaction, return_urls
from portaria.core.callbacks import EventAddress, Record, WebhookDelivery
from portaria.core.errors import Rejected
from portaria.platforms.kommo import events as kommo_events
from portaria.platforms.leadconnector import events as leadconnector_events
from portaria.platforms.marketo import data_ingestion_api, delivery_reports
from portaria.records.mapping import record_mapping
from portaria.records.mapping.record_mapping import Message, MessageRecords, Source

PACKAGE = Path(record_messages.__file__).parent.parent
# Between the 4 of linear time (up to 8, where memory is allocated) and the 16 of quadratic time.
MOST = 11.0
# Shorter times are lost in the clock's noise.
LEAST_S = 0.005
TRIES = 5
# The least of several times counts.
REPETITIONS = 3


def growth(work: Callable[[Any], object], make: Callable[[int], Any], size: int) -> float:
    """How many times longer four times the input takes. The size grows until its time can be measured.

    Another process may disturb one measurement, so the least of several counts: quadratic growth shows in each.
    """
    while (once := best(work, make(size))) < LEAST_S and size < 2_000_000:
        size *= 2
    least = MOST
    for _ in range(TRIES):
        least = min(least, best(work, make(4 * size), enough=MOST * once) / once)
        if least < MOST:
            break
        once = best(work, make(size))
    return least


def best(work: Callable[[Any], object], given: Any, enough: float = 0.0) -> float:
    """The least of some times, or the first that is below `enough`."""
    times: list[float] = []
    for _ in range(REPETITIONS):
        started = time.process_time()
        with suppress(Rejected):
            work(given)
        times.append(time.process_time() - started)
        if times[-1] > 1 or times[-1] < enough:
            break
    return max(min(times), 1e-9)


def body_with_a_duplicate(size: int) -> str:
    return "{" + ",".join(f'"field{number}":0' for number in range(size)) + f',"field{size - 1}":1}}'


def kommo_form(size: int) -> bytes:
    return urlencode({f"contacts[update][{number}][id]": number for number in range(size)}).encode()


def read_kommo(body: bytes) -> object:
    headers = {"content-type": kommo_events.CONTENT_TYPE}
    return kommo_events.read(WebhookDelivery(headers, body, 0, lambda *_: False), EventAddress("1"))


def read_workflow(body: bytes) -> object:
    return leadconnector_events._read_workflow(
        WebhookDelivery({"content-type": "application/json"}, body, 0, lambda *_: False), EventAddress("1")
    )


def workflow(size: int) -> bytes:
    return json.dumps({"contact_id": "a"} | {f"field {number}": "x" for number in range(size)}).encode()


def front_door_persons(body: bytes) -> object:
    return data_ingestion_api.parse(f"{data_ingestion_api._OWN}/persons", {"subscription": "123-ABC-456"}, body, "x", 0)


def read_logo(inner: str) -> object:
    with suppress(UnusableLogo):
        return svg_logos.clean(f'<svg xmlns="{svg_logos.SVG}" width="64" height="64">{inner}</svg>'.encode())
    return None


READERS: dict[str, tuple[Callable[[Any], object], Callable[[int], Any], int]] = {
    "duplicate key at the end of a body": (lambda body: validation.read_body(body.encode(), 10**9), body_with_a_duplicate, 500),
    "duplicate keys only": (
        lambda body: validation.read_body(body.encode(), 10**9),
        lambda size: "{" + ",".join(['"a":0'] * size) + "}",
        500,
    ),
    "kommo form": (read_kommo, lambda size: kommo_form(min(size, kommo_events.MAX_KEYS // 4)), 500),
    "kommo form of one long name": (read_kommo, lambda size: b"a" + b"[b]" * size + b"=1", 500),
    "kommo form of open brackets": (read_kommo, lambda size: b"a" + b"[" * size + b"=1", 500),
    "workflow with many fields": (read_workflow, workflow, 500),
    "front door with many persons": (
        front_door_persons,
        lambda size: json.dumps({"persons": [{"email": str(number)} for number in range(size)]}).encode(),
        100,
    ),
    "front door with a duplicate": (front_door_persons, lambda size: body_with_a_duplicate(size).encode(), 500),
    "observability with many requests": (
        lambda body: list(delivery_reports.read_events(json.loads(body))),
        lambda size: json.dumps(
            {"type": delivery_reports._TYPE + "results", "data": {"requests": [{"requestId": "r"}] * size}}
        ).encode(),
        500,
    ),
    "message of many records": (
        lambda body: record_mapping.read_message("m", body),
        lambda size: json.dumps({"version": 1, "records": [{}] * size}),
        500,
    ),
    "record with many long numbers": (
        lambda data: record_messages.pack([Record("1", 0, data)], connection="c", object="o", origin="event", read_at=1),
        lambda size: {"n": [10**20] * size},
        500,
    ),
    "return URL of many segments": (
        # Without the limit, which would hide how the time grows.
        return_urls._URL.fullmatch,
        lambda size: "https://a.example/" + "a/" * size + "?" + "a=%20&" * size + "#",
        500,
    ),
    "return URL of many labels": (return_urls._URL.fullmatch, lambda size: "https://" + "a." * size, 500),
    "e-mail address": (branding_rules._EMAIL.fullmatch, lambda size: "a" * size + "@" + "a." * size, 500),
    "address of a page": (branding_rules._PAGE_URL.fullmatch, lambda size: "https://" + "a-" * size, 500),
    "logo with many comments": (read_logo, lambda size: f"<style>{'/*' * size}</style>", 500),
    "logo with a long selector": (read_logo, lambda size: f"<style>{' a' * size}</style>", 500),
    "logo with many rules": (read_logo, lambda size: f"<style>{'a{fill:red} ' * size}</style>", 100),
    "logo with a long reference": (read_logo, lambda size: f"<g fill='url({' ' * size}'/>", 500),
    "logo with many references": (read_logo, lambda size: f"<g fill='{'url(#a) ' * size}|'/>", 500),
    "logo with a long path": (read_logo, lambda size: f"<path d='{'M0 0 ' * size}'/>", 500),
    "records of one key": (
        record_mapping.newest,
        lambda size: [Source(Message("m", "c", "o", "e", MessageRecords([])), 0, "k")] * size,
        500,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_reader_of_external_input_takes_linear_time(name: str) -> None:
    assert growth(*READERS[name]) < MOST


PARTS = (
    "eyJ-", "eyJ", "eyJaaaaa.", "portaria_", "pit-", "-----BEGIN ", "-----BEGIN PRIVATE" + " KEY-----", "bearer ", "basic\t",
    "token", "token=", "token-", 'secret"', "password : ", "api-key ", "00000000-0000-", "AKIA", " ", "-", "a", "=", '"', "a-",
    "senha",
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_redaction_masked_text_takes_linear_time(part: str) -> None:
    assert growth(redaction.masked_text, lambda size: part * (size // len(part)), 4_000) < MOST


HEADER, CLAIMS = "eyJ" + "hbGciOiJSUzI1NiJ9", "eyJ" + "zdWIiOiIxIn0"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"x-{HEADER}.{CLAIMS}.c2ln", "x-***"),
        (f"{HEADER}.{CLAIMS}", "***"),
        (f"a {HEADER}.{CLAIMS}. b", "a *** b"),
        (HEADER, "***"),
        ("heyJude", "heyJude"),
        ("eyJo", "eyJo"),
    ],
)
def test_redaction_masked_text_hides_json_web_tokens(text: str, left: str) -> None:
    assert redaction.masked_text(text) == left


# --- every regular expression of the package


def patterns() -> Iterator[tuple[str, str]]:
    """Each pattern in the package's source, with its place and its use."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            if not isinstance(node.func.value, ast.Name) or node.func.value.id != "re":
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                way = node.func.attr
                if way == "compile":
                    named = re.search(r"(\w+)[^=\n]*= $", text[: offset(text, node)])
                    is_whole = named and not re.search(rf"\b{named[1]}\.(?!fullmatch|match)", text)
                    way = "fullmatch" if is_whole else "search"
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {way}", first.value


def offset(text: str, node: ast.Call) -> int:
    """The position in a text at which a call begins."""
    return sum(len(line) for line in text.splitlines(keepends=True)[: node.lineno - 1]) + node.col_offset


def hostile(pattern: str) -> list[str]:
    """Texts to repeat: what the parts of the pattern match, alone and in sequence."""
    parts = sample(list(re._parser.parse(pattern)))
    joined = ["".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return [text for text in dict.fromkeys([*parts, *joined, joined[-1] + "-" if joined else "-"]) if text]


def sample(nodes: list[Any]) -> list[str]:
    """A text that each part of a parsed pattern matches."""
    found: list[str] = []
    for name, given in nodes:
        kind = str(name)
        if kind == "LITERAL":
            found.append(chr(given))
        elif kind == "NOT_LITERAL":
            found.append("a" if given != ord("a") else "b")
        elif kind == "ANY":
            found.append("a")
        elif kind == "IN":
            found.append(of_class(given))
        elif kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            found.append("".join(sample(list(given[2]))) * min(max(given[0], 1), 40))
        elif kind in ("SUBPATTERN", "ATOMIC_GROUP"):
            found += sample(list(given[-1] if kind == "SUBPATTERN" else given))
        elif kind == "BRANCH":
            found += [text for branch in given[1] for text in sample(list(branch))][:6]
    return found


def of_class(given: list[Any]) -> str:
    allowed = [
        chr(value if isinstance(value, int) else value[0]) for name, value in given if str(name) in ("LITERAL", "RANGE")
    ]
    if str(given[0][0]) == "NEGATE":
        return next(letter for letter in "aZ0 !" if letter not in allowed)
    return allowed[0] if allowed else ("0" if "DIGIT" in str(given) else " ")


PATTERNS = dict(patterns())


@pytest.mark.parametrize("place", PATTERNS)
def test_regular_expressions_take_linear_time(place: str) -> None:
    """Patterns that are only matched as a whole start once; the others start at every character."""
    pattern, way = re.compile(PATTERNS[place]), place.rpartition(" ")[2]
    match = pattern.fullmatch if way in ("fullmatch", "match") else pattern.search
    for text in hostile(PATTERNS[place]):
        if best(match, text * (20_000 // len(text)) + "\x00") > LEAST_S:
            repeated = partial(repeat, text)
            assert growth(match, repeated, 20_000) < MOST, f"{text!r} repeated"


def repeat(text: str, size: int) -> str:
    """A text of about this size whose end no pattern matches."""
    return text * (size // len(text)) + "\x00"
