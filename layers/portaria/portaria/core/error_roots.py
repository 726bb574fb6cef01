"""The roots of the tree of errors (see `errors`), apart from it because the webhooks' cold start needs only these."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class PortariaError(Exception):
    """`reason` is a stable word for programs (`code_expired`); `detail` is a sentence for the person who must act.

    The detail names the field, the limit and the size of the value, never the value of a secret.
    """

    reason: str
    detail: str

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def replaced(self, **changes: object) -> Self:
        """A copy of the same type with other attributes: `error.replaced(detail=…, after_s=5)`."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__ | changes)
        copy.args = (f"{copy.reason}: {copy.detail}",)
        return copy


class Rejected(PortariaError):
    """The input is wrong, or the other side refused for good: repeating the request cannot help.

    `field` is the input's field, if there is one. `status` is the HTTP status of the answer.
    """

    field: str | None
    status: int = 400

    def __init__(self, reason: str, detail: str, *, field: str | None = None, status: int = 400) -> None:
        super().__init__(reason, detail)
        self.field = field
        self.status = status


class Retryable(PortariaError):
    """The request failed and may succeed later: the work returns to its queue.

    `after_s` is the wait in seconds that the other side asked for. None: the queue's own back-off decides.
    `answer_lost` is true where a request was sent and no answer came: the other side may have processed it.
    """

    after_s: float | None
    answer_lost: bool

    def __init__(self, reason: str, detail: str, *, after_s: float | None = None, answer_lost: bool = False) -> None:
        super().__init__(reason, detail)
        self.after_s = after_s
        self.answer_lost = answer_lost
