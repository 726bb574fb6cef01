"""docs/webhooks.md: its example receives what the product signs."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

from portaria.core.event_catalogue import CATALOGUE
from portaria.notifications import signatures
from tests.fakes.paths import ROOT

DOCUMENT = (ROOT / "docs" / "webhooks.md").read_text()


KEY = signatures.new_secret()


def example() -> dict[str, Any]:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    names: dict[str, Any] = {}
    with patch.dict(os.environ, PORTARIA_WEBHOOK=KEY.reveal()):
        exec(compile(code, "docs/webhooks.md", "exec"), names)
    return names


def test_document_example_verifies_and_processes_each_event_once() -> None:
    names = example()
    body = json.dumps(CATALOGUE["connection.ready"].webhook_example).encode()
    headers = signatures.headers([KEY], "msg_1", int(datetime.now(UTC).timestamp()), body)
    assert names["receive"](body, headers) == 204
    assert names["receive"](body, headers) == 204
    assert names["processed"] == {"msg_1"}
    assert names["receive"](body + b" ", headers) == 400
    assert names["receive"](body, headers | {"webhook-id": "msg_2"}) == 400


def test_document_has_the_schedule() -> None:
    text = " ".join(DOCUMENT.split())
    assert "5 seconds, 5 minutes, 30 minutes, 2 hours, 5 hours, 10 hours and 10 hours" in text
