"""botocore without work that no test on moto looks at, and without work that it repeats for each client and session.

- moto checks no signature, and reads no user agent.
- A session registers some 130 handlers: for each it looks for a former event name among all known ones, and inspects
  the handler's signature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from unittest.mock import patch

from botocore import hooks
from botocore.hooks import EventAliaser
from botocore.signers import RequestSigner
from botocore.useragent import UserAgentString

_alias_event_name = EventAliaser._alias_event_name
_inspect = hooks.accepts_kwargs
_aliases: dict[str, str] = {}
_accepting: dict[CodeType, bool] = {}


def _alias(emitter: EventAliaser, event_name: str) -> str:
    if event_name not in _aliases:
        _aliases[event_name] = _alias_event_name(emitter, event_name)
    return _aliases[event_name]


def _accepts_kwargs(handler: Callable[..., object]) -> bool:
    code = getattr(handler, "__code__", None)
    if code is None:
        return bool(_inspect(handler))
    if code not in _accepting:
        _accepting[code] = bool(_inspect(handler))
    return _accepting[code]


@contextmanager
def fast_botocore() -> Iterator[None]:
    with (
        patch.object(RequestSigner, "handler", lambda *_, **__: None),
        patch.object(UserAgentString, "to_string", lambda _: "Boto3"),
        patch.object(EventAliaser, "_alias_event_name", _alias),
        patch.object(hooks, "accepts_kwargs", _accepts_kwargs),
    ):
        yield
