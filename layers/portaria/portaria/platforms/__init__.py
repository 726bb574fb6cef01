"""The outside world, one folder a platform. A platform's part is loaded only when it is needed."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

from portaria.core.callbacks import Rejected


def part(platform: str, name: str) -> ModuleType:
    """Load `portaria.platforms.{platform}.{name}`.

    The parts and what they offer are described in docs/adding-a-platform.md. Raises `Rejected` (`unknown_platform`) where
    the platform or the part does not exist, so a platform's name may come from outside.
    """
    path = f"{__name__}.{platform}.{name}"
    if not re.fullmatch(r"[a-z][a-z0-9]{0,31}", platform) or not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
        raise Rejected("unknown_platform", "this platform is not known here", field="platform", status=404)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as missing:
        if missing.name in (path, f"{__name__}.{platform}"):
            raise Rejected(
                "unknown_platform",
                f"there is no platform {platform!r} that offers {name}",
                field="platform",
                status=404,
            ) from None
        raise


def offered(platform: str, name: str, function: str) -> ModuleType:
    """A part that only some platforms have, or have with this function. Raises `Rejected` (409 `not_offered`)."""
    try:
        found = part(platform, name)
        if hasattr(found, function):
            return found
    except Rejected:
        pass
    raise Rejected("not_offered", f"this is not offered for connections to {platform}", status=409)


def having(name: str) -> dict[str, ModuleType]:
    """This part of every platform that has it, by the platform's name."""
    import pkgutil  # noqa: PLC0415 - the install hook, which asks for one part by its name, does not wait for it

    found = {}
    for platform in sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg):
        try:
            found[platform] = part(platform, name)
        except Rejected:
            continue
    return found
