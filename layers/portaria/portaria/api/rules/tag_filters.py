"""The filter of listings by the tag `customer_id`, the only tag that is indexed."""

from __future__ import annotations

from portaria.api.operation import ApiRequest
from portaria.api.validation import Matching
from portaria.core.errors import Rejected
from portaria.core.tags import INDEXED, MAX_VALUE_LENGTH, check_value

PREFIX = "tag."
NAME = f"{PREFIX}{INDEXED}"
RULE = Matching(rf"[\s\S]{{1,{MAX_VALUE_LENGTH}}}", f"a value of the tag {INDEXED}: 1 to {MAX_VALUE_LENGTH} characters")


def read(asked: ApiRequest) -> str:
    """The customer's id. Raises `Rejected` (`bad_filter` beside another filter, `bad_tags` for what is no tag's value)."""
    others = [name for name in asked.filters if name != NAME]
    if others:
        raise Rejected(
            "bad_filter", f"{NAME} cannot be combined with other filters: leave {others[0]} out", field=others[0]
        )
    value = asked.filters[NAME]
    check_value(INDEXED, value)
    return value
