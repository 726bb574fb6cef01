"""The audit trail as a CSV file, for spreadsheets: a bounded number of entries with each download."""

from __future__ import annotations

import csv
import io
import json
from typing import Any
from urllib.parse import urlencode

from portaria.core import clock
from portaria.web.console.sections import BY_ID
from portaria.web.console.visit import Outcome, Visit

Content = dict[str, Any]
LIST = "list_audit"
# A response of Lambda has at most 6 MB; an entry has about half a kilobyte.
PAGES, PAGE_SIZE = 20, 100
COLUMNS = ("at", "by", "by_name", "source", "operation", "target", "outcome", "reason", "request_id", "id", "asked")
# A spreadsheet takes a cell that begins with one of these for a formula.
# https://owasp.org/www-community/attacks/CSV_Injection
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def show(visit: Visit) -> Outcome:
    """Raises `Problem`. Where there are more entries, the last row has the path of the next file."""
    filters = {name: visit.query[name] for name in BY_ID[LIST].filters if name in visit.query}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    cursor = visit.query.get("cursor", "")
    for _ in range(PAGES):
        page = visit.api.call(LIST, query={**filters, "limit": str(PAGE_SIZE), "cursor": cursor}).content
        writer.writerows([_cell(entry[name]) for name in COLUMNS] for entry in page["items"])
        cursor = page["next_cursor"] or ""
        if not cursor:
            break
    if cursor:
        following = urlencode({**filters, "cursor": cursor})
        writer.writerow([f"more entries: {visit.frame.base}/audit/export?{following}"])
    name = f"audit-{clock.now():%Y%m%dT%H%M%SZ}.csv"
    headers = {
        "Content-Type": "text/csv; charset=utf-8; header=present",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    # The mark at the beginning tells spreadsheets that the file is UTF-8.
    return Outcome("\ufeff" + file.getvalue(), headers=headers)


def _cell(value: Any) -> str:
    """A value as text that no spreadsheet runs: a formula becomes text by an apostrophe."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULAS) else text
