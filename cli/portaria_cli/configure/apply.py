"""Applying a plan, one entry after the other. What an interrupted run has written, the next run finds and leaves as it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from portaria_cli.api import Api
from portaria_cli.configure import display
from portaria_cli.configure.entries import IDENTITY, SECTIONS
from portaria_cli.configure.plan import CREATE, NOTHING, REPLACE, Step
from portaria_cli.context import CliContext, working
from portaria_cli.errors import Document, NotDone

# What changes each time something is written, without anything having changed.
VOLATILE = ("updated_at", "granted_at", "token_ends_at", "grant_ends_at", "age_days", "warnings")


def apply(cli: CliContext, file: Path, steps: Sequence[Step]) -> list[Document]:
    """What each entry has become, with its `resource` and its `change`. Raises `NotDone` for the first that fails."""
    results: list[Document] = []
    for number, step in enumerate(steps):
        try:
            with working() as tell:
                tell(f"{number + 1}/{len(steps)}  {step.entry.title}")
                result = _write(cli.api, step)
        except NotDone as failed:
            raise _stopped(failed, file, steps, number) from None
        except KeyboardInterrupt:
            if not cli.as_json:
                display.note(_so_far(steps, number))
            raise
        results.append(result)
        if not cli.as_json:
            cli.print(None, partial(display.done, step, result["change"]))
    return results


def _write(api: Api, step: Step) -> Document:
    body = step.entry.content
    if step.action == NOTHING:
        change, after = "unchanged", api.get(*step.path)
    elif step.action == REPLACE:
        # Interrupted between the two, the next run finds no connection and creates it.
        api.delete(*step.path)
        change, after = "replaced", _created_again(api, step)
    elif step.action == CREATE:
        change, after = "created", api.create(step.entry.kind, body=body)
    else:
        before = api.get(*step.path)
        identity = IDENTITY[step.entry.section]
        # Of a connection only the credentials can change.
        part = ("credentials",) if step.entry.section == "connections" else ()
        after = api.put(*step.path, *part, body={name: value for name, value in body.items() if name not in identity})
        change = "unchanged" if _lasting(before) == _lasting(after) else "updated"
    return {**after, "resource": SECTIONS[step.entry.section], "change": change}


def _created_again(api: Api, step: Step) -> Document:
    try:
        return api.create(step.entry.kind, body=step.entry.content)
    except NotDone as failed:
        raise _worded(failed, f"it was deleted, and not created again: {failed}") from None


def _lasting(document: Document) -> Document:
    return {field: value for field, value in document.items() if field not in VOLATILE}


def _stopped(failed: NotDone, file: Path, steps: Sequence[Step], number: int) -> NotDone:
    step = steps[number]
    place = step.entry.place_at(tuple(str(failed.problem.get("field", "")).split(".")))
    sentence = f"{file}:{place.line}:{place.column}: {step.entry.title}: {failed}\n{_so_far(steps, number)}"
    places = {
        "line": place.line,
        "column": place.column,
        "done": [each.name for each in steps[:number]],
        "left": [each.name for each in steps[number:]],
    }
    return _worded(failed, sentence, places)


def _worded(failed: NotDone, sentence: str, more: Document | None = None) -> NotDone:
    return NotDone(
        sentence,
        exit_code=failed.exit_code,
        status=failed.status,
        problem={**failed.problem, **(more or {})},
        answer_lost=failed.answer_lost,
        retry_after_s=failed.retry_after_s,
    )


def _so_far(steps: Sequence[Step], number: int) -> str:
    written = display.listed(steps[:number])
    left = display.listed(steps[number:])
    return (
        f"Written before this: {written or 'nothing'}. Left: {left or 'nothing'}. "
        "Run the same command again: it keeps what is written and continues with the rest."
    )
