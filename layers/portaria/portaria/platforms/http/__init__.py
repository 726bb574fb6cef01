"""Any HTTP API that takes a static credential. https://www.rfc-editor.org/rfc/rfc9110"""

from __future__ import annotations

from portaria.platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.platforms import protocols


class Http(Platform):
    @property
    def connection_kinds(self) -> protocols.ConnectionKinds:
        from portaria.platforms.http import tokens

        return tokens


PLATFORM = Http("http")
