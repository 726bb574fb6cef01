"""Rendering the console's pages: templates, texts in three languages, and values as people read them."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from portaria.access.scopes import SCOPES
from portaria.core import clock
from portaria.core.entities import ROTATION_WARNINGS_AT
from portaria.web.render import LANGUAGES, Texts, environment, read_texts

HERE = Path(__file__).parent
TEXTS = ("texts.toml", "link_texts.toml", "record_texts.toml", "page_texts.toml", "overview_texts.toml")
RULES, REFERENCE = "rule_texts.toml", "reference_texts.toml"
ASSETS = {"console.css": "text/css; charset=utf-8", "console.js": "text/javascript; charset=utf-8"}
# Fields whose value is a state, shown as a coloured badge.
BADGES = {
    "connected": "good", "done": "good", "applied": "good", "ended": "good", "active": "good", "delivered": "good",
    "failed": "bad", "needs_reconnect": "bad", "refused": "bad", "stopped": "bad", "removed": "quiet",
    "enabled": "good", "disabled": "quiet", "would_redrive": "busy", "gone": "quiet", "in_progress": "warn",
    "not_tried": "warn", "redriven": "good",
    "received": "busy", "exchanging": "busy", "pending": "busy", "sent": "busy", "accepted": "busy", "begun": "busy",
    "running": "busy", "paused": "warn", "unknown": "warn", "kept": "warn",
}  # fmt: skip
STATE_FIELDS = ("state", "outcome")
# Where the value of a field leads.
LINKS = {"connection": "connections", "destination": "connections", "route": "routes"}
# Values that are copied into other places, each with a button for that.
COPIED = ("redirect_uri", "install_page_url", "reconnect_url")
# The ages at which the owner of a credential is told to rotate it.
OLD_DAYS, TOO_OLD_DAYS = (limit.days for limit in ROTATION_WARNINGS_AT)
STATIC_KINDS = ("api_key", "basic", "bearer")
MINUTE, HOUR, DAY = 60, 3_600, 86_400
LONG = 28


@dataclass(frozen=True)
class Frame:
    """What every page needs: its language, where the console is, who is signed in, and the parts they may see."""

    language: str
    base: str
    principal: str = ""
    csrf: str = ""
    sections: tuple[str, ...] = ()
    current: str = ""
    is_read_only: bool = False


def render(template: str, frame: Frame, **values: Any) -> str:
    """A page as HTML. Every value is escaped, except `Markup`."""
    text = partial(translate, frame.language)
    language = LANGUAGES[frame.language]
    return (
        environment(HERE / "templates")
        .get_template(template)
        .render(
            t=text,
            has_text=has_text,
            label=partial(text_or_name, frame.language),
            lang=language,
            frame=frame,
            asset=partial(asset_url, frame),
            show=partial(shown, frame),
            badge=BADGES.get,
            **values,
        )
    )


def translate(language: str, key: str, **values: object) -> Markup:
    """The text of a key, with `values` escaped into its braces. A field without a text has the API's name."""
    if key.startswith("rule."):
        return rule(language, key.removeprefix("rule."))
    if key.startswith("scope.") and key not in texts():
        return scope(language, key.removeprefix("scope."))
    if key not in texts() and key.startswith("field."):
        return escape(key.removeprefix("field."))
    return escape(texts()[key][language]).format(**values)


def text_or_name(language: str, group: str, name: str) -> str:
    """The text of a word of the API, or the word."""
    key = f"{group}.{name}"
    return translate(language, key) if has_text(key) else name


def rule(language: str, text: str) -> Markup:
    """What the API's document says of a field, translated. A sentence without a translation is marked as English."""
    found = rules().get(text, {}).get(language)
    if found or language == "en":
        return _with_code(found or text)
    return Markup('<span lang="en">{}</span>').format(_with_code(text))


def _with_code(text: str) -> Markup:
    """A sentence whose words between backticks are code."""
    pieces = enumerate(text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(piece) if number % 2 else piece for number, piece in pieces)


def scope(language: str, name: str) -> Markup:
    """What a scope allows: in English as `SCOPES` has it, otherwise as the API reference calls its operation."""
    # Imported here: the first pages of a browser do not need the operations.
    from portaria.api.operations import OPERATIONS  # noqa: PLC0415

    found = _summaries().get(next((each.id for each in OPERATIONS if each.scope == name), ""), {})
    return escape(found.get(language) or SCOPES.get(name, name))


def has_text(key: str) -> bool:
    return key in texts()


@cache
def texts() -> Texts:
    return {key: values for file in TEXTS for key, values in read_texts(HERE / file).items()}


@cache
def rules() -> dict[str, dict[str, str]]:
    """The translations of the API's sentences about fields, by sentence and language."""
    found: dict[str, dict[str, str]] = tomllib.loads((HERE / RULES).read_text("utf-8"))
    return found


@cache
def _summaries() -> dict[str, dict[str, str]]:
    """The translations of the operations' summaries, by operation and language."""
    found: dict[str, dict[str, str]] = tomllib.loads((HERE.parent / REFERENCE).read_text("utf-8"))["summary"]
    return found


@cache
def asset(name: str) -> bytes:
    return (HERE / "assets" / name).read_bytes()


@cache
def _asset_version(name: str) -> str:
    return hashlib.sha256(asset(name)).hexdigest()[:12]


def asset_url(frame: Frame, name: str) -> str:
    """The URL of an asset, which changes with its content, so that browsers can keep it."""
    return f"{frame.base}/assets/{_asset_version(name)}-{name}"


def shown(frame: Frame, name: str, value: Any, thing: dict[str, Any] | None = None) -> Markup:
    """The value of a field as HTML."""
    if value is None or value in ("", [], {}):
        return Markup('<span class="none">—</span>')
    if name in STATE_FIELDS or name == "is_active":
        word = str(value) if name in STATE_FIELDS else "active" if value else "ended"
        key = f"state.{word}"
        label = translate(frame.language, key) if has_text(key) else word
        return Markup('<span class="badge {}">{}</span>').format(BADGES.get(word, "quiet"), label)
    if isinstance(value, bool):
        return translate(frame.language, "value.yes" if value else "value.no")
    if name == "age_days" and (colour := age_colour(thing, value)):
        return Markup('<span class="badge {}">{}</span>').format(colour, value)
    if isinstance(value, int | float):
        return escape(f"{value:,}".replace(",", {"pt": ".", "es": ".", "en": ","}[frame.language]))
    if isinstance(value, list):
        if all(isinstance(each, str) for each in value):
            return Markup('<ul class="values">{}</ul>').format(
                Markup("").join(Markup("<li><code>{}</code></li>").format(each) for each in value)
            )
        if all(
            isinstance(each, dict) and not any(isinstance(one, dict | list) for one in each.values()) for each in value
        ):
            return _rows(frame, value)
        return Markup('<pre tabindex="0">{}</pre>').format(json.dumps(value, indent=2, ensure_ascii=False))
    if isinstance(value, dict):
        if all(isinstance(each, str | int) for each in value.values()):
            rows = (
                Markup("<div><dt><bdi>{}</bdi></dt><dd><bdi>{}</bdi></dd></div>").format(key, each)
                for key, each in value.items()
            )
            return Markup('<dl class="pairs">{}</dl>').format(Markup("").join(rows))
        return Markup('<pre tabindex="0">{}</pre>').format(json.dumps(value, indent=2, ensure_ascii=False))
    if name == "moment":
        return _time(frame, str(value), "%Y-%m-%d %H:%M:%S")
    if name.endswith(("_at", "_until", "_since")) or name in ("since", "at", "deadline"):
        return _time(frame, str(value))
    if name in COPIED:
        return Markup(
            '<input class="copied" readonly value="{}" aria-label="{}" data-copy="{}" data-copied="{}">'
        ).format(
            value,
            translate(frame.language, f"field.{name}"),
            translate(frame.language, "once.copy"),
            translate(frame.language, "once.copied"),
        )
    if name == "cause":
        return escape(text_or_name(frame.language, "value", str(value)))
    if name in LINKS:
        return Markup('<a href="{}/{}/{}"><bdi>{}</bdi></a>').format(frame.base, LINKS[name], value, value)
    if name.endswith("url") and str(value).startswith("https://"):
        return Markup('<a href="{}" rel="noreferrer">{}</a>').format(value, value)
    # A long word is broken anywhere, a short one is not.
    return Markup('<bdi class="{}">{}</bdi>').format("long" if len(str(value)) > LONG else "text", value)


def age_colour(thing: dict[str, Any] | None, days: int) -> str:
    """The colour of the age of a secret that a person has to rotate; empty where there is nothing to do yet."""
    is_rotated = thing is not None and thing.get("kind") in (None, *STATIC_KINDS)
    return "" if not is_rotated or days < OLD_DAYS else "warn" if days < TOO_OLD_DAYS else "bad"


def _rows(frame: Frame, rows: list[dict[str, Any]]) -> Markup:
    """Things that belong to a thing, as a table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    heads = [translate(frame.language, f"field.{name}") if has_text(f"field.{name}") else name for name in columns]
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(each) for each in heads)
    lines = (
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td data-label="{}">{}</td>').format(label, shown(frame, name, row.get(name)))
                for label, name in zip(heads, columns, strict=True)
            )
        )
        for row in rows
    )
    return Markup('<div class="table"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        head, Markup("").join(lines)
    )


def _time(frame: Frame, value: str, shape: str = "%Y-%m-%d %H:%M") -> Markup:
    """A time in UTC, and how long ago or ahead it is. `shape` is how it is written."""
    try:
        moment = clock.from_iso(value)
    except ValueError:
        return escape(value)
    exact = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{} <small>{}</small></time>').format(
        value, exact, moment.strftime(shape), _distance(frame, moment)
    )


def days_until(moment: str | None) -> int | None:
    """Whole days until a moment; None for what is no time."""
    try:
        return (clock.from_iso(moment) - clock.now()).days if moment else None
    except ValueError:
        return None


def _distance(frame: Frame, moment: datetime) -> Markup:
    seconds = (clock.now() - moment).total_seconds()
    past, seconds = seconds >= 0, abs(seconds)
    if seconds < MINUTE:
        return translate(frame.language, "time.now")
    unit, size = ("minutes", MINUTE) if seconds < HOUR else ("hours", HOUR) if seconds < 2 * DAY else ("days", DAY)
    count = int(seconds // size)
    amount = translate(frame.language, f"time.{unit}" if count != 1 else f"time.{unit[:-1]}", count=count)
    return translate(frame.language, "time.ago" if past else "time.ahead", amount=amount)
