"""The part that all simulators share: a clock that can be moved, faults to inject, and counts of calls."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

# The sandbox's commands use the names below without the server, which takes long to import.
if TYPE_CHECKING:
    from aiohttp import web

FAULT_KINDS = ("slow", "lost_answer", "dropped", "status", "rate_limited", "forbidden", "garbled")


class BadInstruction(Exception):
    """A control call is invalid. The answer is 400 with the text."""


class Clock:
    """The time in epoch seconds plus `offset_s`. Codes and tokens expire by this clock."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def now(self) -> float:
        return time.time() + self.offset_s


@dataclass
class Fault:
    """A fault to inject.

    `kind` is `slow` (waits `seconds`, then answers as usual), `lost_answer` (processes the request, then drops the connection),
    `dropped` (drops it before processing), `status` (answers `status` without processing), `rate_limited` (429), `forbidden`
    (403 with nginx's HTML) or `garbled` (processes the request, but answers 200 with half a JSON document).

    A fault applies to calls that match every given condition: `platform`, `account` (the host's first label, or the Munchkin
    id), `path` (a regular expression for the whole path), `method`, `page` (of the query). It skips the first `skip` of them,
    affects a random `share` of the others, at most `count`, and ends `duration_s` seconds after it was set.
    """

    kind: str
    platform: str
    account: str | None = None
    path: str | None = None
    method: str | None = None
    page: int | None = None
    status: int = 500
    seconds: float = 5.0
    skip: int = 0
    share: float = 1.0
    count: int | None = None
    duration_s: float | None = None
    id: int = 0
    seen: int = 0
    used: int = 0
    set_at: float = field(default_factory=time.monotonic)

    def fits(self, platform: str, account: str, request: web.BaseRequest) -> bool:
        return (
            self.platform == platform
            and self.account in (None, account)
            and (self.path is None or re.fullmatch(self.path, request.path) is not None)
            and self.method in (None, request.method)
            and (self.page is None or request.query.get("page", "1") == str(self.page))
            and (self.count is None or self.used < self.count)
            and (self.duration_s is None or time.monotonic() < self.set_at + self.duration_s)
        )


class Faults:
    def __init__(self) -> None:
        self.active: list[Fault] = []
        self.last_id = 0

    def set(self, instruction: Mapping[str, Any]) -> Fault:
        allowed = {each.name for each in fields(Fault)} - {"id", "seen", "used", "set_at"}
        if unknown := set(instruction) - allowed:
            raise BadInstruction(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(allowed))}")
        if instruction.get("kind") not in FAULT_KINDS or "platform" not in instruction:
            raise BadInstruction(f"`platform` and `kind` (one of {', '.join(FAULT_KINDS)}) are required")
        self.last_id += 1
        fault = Fault(**instruction, id=self.last_id)
        self.active.append(fault)
        return fault

    def strike(self, platform: str, account: str, request: web.BaseRequest) -> Fault | None:
        """The oldest fault that applies to this call, if any."""
        for fault in self.active:
            if fault.fits(platform, account, request):
                fault.seen += 1
                if fault.seen > fault.skip and random.random() < fault.share:
                    fault.used += 1
                    return fault
        return None

    def clear(self, number: int | None = None) -> None:
        self.active = [fault for fault in self.active if number is not None and fault.id != number]

    def dump(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self.active]


@dataclass(frozen=True)
class Call:
    """The key of the counts. `path` is the route's template; `outcome` is the status, or the fault that hid it."""

    platform: str
    host: str
    method: str
    path: str
    outcome: str


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.faults = Faults()
        self.calls: Counter[Call] = Counter()


Handler: TypeAlias = "Callable[[web.BaseRequest, dict[str, str]], Awaitable[web.Response]]"


@dataclass(frozen=True)
class Route:
    method: str
    template: str
    handler: Handler

    def match(self, request: web.BaseRequest) -> dict[str, str] | None:
        """The values of the template's variables, or None if the request does not match."""
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.template))
        found = re.fullmatch(pattern, request.path)
        return found.groupdict() if found and request.method == self.method else None


NGINX_FORBIDDEN = (
    "<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


def nginx_forbidden() -> web.Response:
    from aiohttp import web

    return web.Response(status=403, text=NGINX_FORBIDDEN, content_type="text/html")
