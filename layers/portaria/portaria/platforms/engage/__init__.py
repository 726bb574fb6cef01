"""Engage, a learning platform. https://meajuda.engage.bz"""

from __future__ import annotations

from portaria.platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.platforms import protocols, record_protocols


class Engage(Platform):
    @property
    def connection_kinds(self) -> protocols.ConnectionKinds:
        from portaria.platforms.engage import tokens

        return tokens

    @property
    def log_in(self) -> protocols.LogIn:
        from portaria.platforms.engage import tokens

        return tokens

    @property
    def route_rules(self) -> record_protocols.RouteRules:
        from portaria.platforms.engage import destination

        return destination

    def destination_object(self, name: str) -> record_protocols.RecordDestination | None:
        match name:
            case "users":
                from portaria.platforms.engage import users

                return users
        return None

    @property
    def identifiers(self) -> protocols.UserIdentifiers:
        from portaria.platforms.engage import identifiers

        return identifiers

    @property
    def sign_on(self) -> protocols.SingleSignOn:
        from portaria.platforms.engage import sso

        return sso


PLATFORM = Engage("engage")
