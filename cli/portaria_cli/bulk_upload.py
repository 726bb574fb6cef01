"""Sends many entries in batches until each has an outcome.

Entries that are `not_sent` are sent again after the wait that the response asks for. An entry that the API refuses is removed,
and its batch is sent again without it. If nothing more can be sent, the remaining entries are `not_sent`. The whole file can be
sent again: entries that succeeded succeed again.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import sleep

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from portaria_cli.context import CliContext, errors
from portaria_cli.errors import Document, NotDone
from portaria_cli.import_files import Entry
from portaria_cli.terminal import output

# The API takes 1,000,000 bytes.
MAX_BYTES = 900_000
# After a longer wait, the person sends the file again.
MAX_WAIT_S = 60.0
# After this many waits in a row without an outcome, sending stops.
MAX_VAIN_WAITS = 3
INTERRUPTED = 130
GOOD = ("registered", "created", "updated")

Post = Callable[[list[Document]], Document]


class Sending:
    """Sends the entries of one file. `post` sends a batch and returns an outcome for each entry, under `field`."""

    def __init__(self, entries: list[Entry], size: int, field: str, post: Post) -> None:
        self.size = size
        self.field = field
        self.post = post
        self.outcomes: dict[str, Document] = {}
        self.trouble: NotDone | None = None
        self._entries = entries
        self._waiting = deque(entries)
        self._vain_waits = 0

    def run(self, progress: Callable[[int, str], None]) -> None:
        """Sends until each entry has an outcome. `progress` gets the number of outcomes and the reason of a wait."""
        batch: list[Entry] = []
        try:
            while self._waiting and not self.trouble:
                batch = self._take()
                wait_s, why = self._send(batch)
                batch = []
                progress(len(self.outcomes), f"waiting {wait_s:.0f} s: {why}" if wait_s else "")
                if wait_s:
                    sleep(wait_s)
        except KeyboardInterrupt:
            self._settle(batch, "unknown", "interrupted", "interrupted: send it again")
            self.trouble = NotDone("interrupted", exit_code=INTERRUPTED)
        reason, detail = (self.trouble.reason, str(self.trouble)) if self.trouble else ("", "")
        self._settle([entry for entry in self._waiting if entry.place not in self.outcomes], "not_sent", reason, detail)

    def told(self) -> list[Document]:
        """The outcome of each entry, in the order of the file."""
        return [{"place": entry.place, "name": entry.name} | self.outcomes[entry.place] for entry in self._entries]

    def _take(self) -> list[Entry]:
        batch: list[Entry] = []
        length = 0
        while self._waiting and len(batch) < self.size:
            length += len(json.dumps(self._waiting[0].content)) + 2
            if batch and length > MAX_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _send(self, batch: list[Entry]) -> tuple[float, str]:
        """The seconds to wait before the next batch, and why."""
        try:
            answer = self.post([entry.content for entry in batch])
        except NotDone as refused:
            return self._refused(batch, refused)
        again, why = [], ""
        wait_s = answer["retry_after_s"]
        for entry, became in zip(batch, answer[self.field], strict=True):
            self.outcomes[entry.place] = became
            if became["outcome"] == "not_sent" and wait_s is not None:
                again.append(entry)
                why = became["reason"].replace("_", " ")
        if not again:
            return 0, ""
        self._vain_waits = self._vain_waits + 1 if len(again) == len(batch) else 0
        if wait_s > MAX_WAIT_S or self._vain_waits > MAX_VAIN_WAITS:
            self.trouble = NotDone(f"stopped ({why}): send the file again in {wait_s:,.0f} s", retry_after_s=wait_s)
            return 0, ""
        for entry in again:
            del self.outcomes[entry.place]
        self._waiting.extendleft(reversed(again))
        return max(wait_s, 1), why

    def _refused(self, batch: list[Entry], refused: NotDone) -> tuple[float, str]:
        if refused.answer_lost:
            self._settle(
                batch, "unknown", "answer_lost", "no response came: it may have been processed, so send it again"
            )
            return 0, ""
        if wrong := _wrong_entries(refused, self.field, len(batch)):
            for number, rule in wrong.items():
                self._settle([batch[number]], "refused", refused.reason, rule)
            self._waiting.extendleft(reversed([entry for number, entry in enumerate(batch) if number not in wrong]))
            return 0, ""
        wait_s = refused.retry_after_s
        if wait_s is not None and wait_s <= MAX_WAIT_S and self._vain_waits < MAX_VAIN_WAITS:
            self._vain_waits += 1
            self._waiting.extendleft(reversed(batch))
            return max(wait_s, 1), refused.reason.replace("_", " ") or "the API is busy"
        self.trouble = refused
        if refused.status >= 500 and refused.reason in ("", "internal_error"):
            self._settle(batch, "unknown", refused.reason, str(refused))
        else:
            self._waiting.extendleft(reversed(batch))
        return 0, ""

    def _settle(self, entries: list[Entry], outcome: str, reason: str, detail: str) -> None:
        told = {"outcome": outcome, "reason": reason, "detail": detail}
        self.outcomes |= {entry.place: told for entry in entries}


def send(cli: CliContext, entries: list[Entry], size: int, field: str, post: Post) -> None:
    """Sends all entries and shows the progress and the outcomes. The exit code is 1 unless all succeeded."""
    sending = Sending(entries, size, field, post)
    with _progress(len(entries)) as tell:
        sending.run(tell)
    told = sending.told()
    counts: dict[str, int] = {}
    for became in told:
        counts[became["outcome"]] = counts.get(became["outcome"], 0) + 1
    bad = [became for became in told if became["outcome"] not in GOOD]
    cli.print({"outcomes": told, "counts": counts}, partial(output.outcomes, bad, counts))
    if sending.trouble:
        raise sending.trouble
    if bad:
        click.get_current_context().exit(1)


def _wrong_entries(refused: NotDone, field: str, size: int) -> dict[int, str]:
    """Which entries of a batch the API says are wrong, and how, in their own terms: `users.17.identifier must be …`."""
    if refused.reason != "invalid_input":
        return {}
    errors = refused.problem.get("errors") or [refused.problem]
    wrong: dict[int, list[str]] = {}
    for error in errors:
        found = re.match(rf"{field}\.(\d+)(?:\.|$)", str(error.get("field", "")))
        if not found or int(found[1]) >= size:
            return {}
        rule = re.sub(rf"\b{field}\.{found[1]}(?:\.| )", "", str(error.get("detail", "")))
        wrong.setdefault(int(found[1]), []).append(rule)
    return {number: "; ".join(rules) for number, rules in wrong.items()}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal's standard error."""
    console = errors()
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done, what: progress.update(task, completed=done, description=what)
