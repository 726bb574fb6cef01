"""The operations of dead letters."""

from __future__ import annotations

from http import HTTPStatus

from portaria.api.operation import Operation
from portaria.api.resources.delivery import dead_letter_deletions, dead_letters

NO_CONTENT = HTTPStatus.NO_CONTENT

OPERATIONS = [
    Operation(
        "list_dead_letters", "GET", "/dead-letters", "dead-letters:list", "List dead letters",
        dead_letters.list_page, dead_letters.DeadLetter, listing=True, filters=dead_letters.FILTERS,
        description="Newest first.",
    ),
    Operation(
        "show_dead_letter", "GET", "/dead-letters/{id}", "dead-letters:show", "Get a dead letter with its records",
        dead_letters.get, dead_letters.DeadLetterWithRecords,
        description="Values that look like credentials are shown as `***`.",
    ),
    Operation(
        "redrive_dead_letters", "POST", "/dead-letters/redrive", "dead-letters:redrive", "Redrive dead letters",
        dead_letters.redrive, dead_letters.RedriveOutcome, input=dead_letters.DeadLetterRedrive, creates=True, changes=True,
        description="Sends the records again, at most twenty dead letters a second. The response has an outcome for each; "
        "`dry_run` returns the outcomes and sends nothing.",
    ),
    Operation(
        "delete_dead_letters", "POST", "/dead-letters/delete", "dead-letters:delete", "Delete several dead letters",
        dead_letter_deletions.delete, dead_letter_deletions.DeletionOutcome, input=dead_letter_deletions.DeadLetterDeletion,
        creates=True, changes=True,
        description="`dry_run` returns the counts and deletes nothing.",
    ),
    Operation(
        "delete_dead_letter", "DELETE", "/dead-letters/{id}", "dead-letters:delete",
        "Delete a dead letter", dead_letters.delete, None, status=NO_CONTENT, changes=True,
        description="Its records are deleted with it.",
    ),
]  # fmt: skip
