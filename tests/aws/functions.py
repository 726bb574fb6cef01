"""A function on a stand-in that runs functions: it stores its events, and answers as they tell it."""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.aws.stand_ins import Aws

PATIENCE_S = 20.0
ROLE = "arn:aws:iam::000000000000:role/function"
# What it does is in the body of a batch's first message, or in the header X-Answer of an API request.
SOURCE = """
import json, os

def handler(event, context):
    with open(os.environ["EVENTS"], "a") as kept:
        kept.write(json.dumps(event) + "\\n")
    records = event.get("Records")
    sent = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    asked = json.loads(records[0]["body"] if records else sent["x-answer"])
    if asked.get("raise"):
        raise RuntimeError("asked for")
    if records:
        text = json.dumps(asked.get("answer"))
        for number, record in enumerate(records):
            text = text.replace(f"<id {number}>", record["messageId"])
        return json.loads(text)
    return asked["answer"]
"""


@dataclass(frozen=True)
class Function:
    arn: str
    kept: Path

    def events(self, of: Callable[[dict[str, Any]], bool], count: int = 1) -> list[dict[str, Any]]:
        """The events of a kind that the function has received, as soon as there are `count`."""
        return list(wait_for(lambda: found if len(found := self._read(of)) >= count else None))

    def _read(self, of: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        if not self.kept.exists():
            return []
        return [event for event in map(json.loads, self.kept.read_text().splitlines()) if of(event)]


def shared(aws: Aws) -> Function:
    """The one function of a stand-in."""
    if "function" not in aws.shared:
        aws.shared["function"] = _create(aws)
    function: Function = aws.shared["function"]
    return function


def _create(aws: Aws) -> Function:
    name = aws.fresh("function")
    kept = aws.folder / f"{name}.jsonl"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr("handler.py", SOURCE)
    answer = aws.client("lambda").create_function(
        FunctionName=name,
        Runtime=f"python{sys.version_info.major}.{sys.version_info.minor}",
        Role=ROLE,
        Handler="handler.handler",
        Code={"ZipFile": archive.getvalue()},
        Environment={"Variables": {"EVENTS": str(kept)}},
    )
    return Function(answer["FunctionArn"], kept)


def wait_for(look: Callable[[], Any]) -> Any:
    """The result of `look`, as soon as it is not empty."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := look()) is None:
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.05)
    return found
