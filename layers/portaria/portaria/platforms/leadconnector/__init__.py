"""LeadConnector (HighLevel), sold as Marketek. https://marketplace.gohighlevel.com/docs"""

from __future__ import annotations

from portaria.platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.platforms import protocols, record_protocols


class LeadConnector(Platform):
    @property
    def connection_kinds(self) -> protocols.ConnectionKinds:
        from portaria.platforms.leadconnector import tokens

        return tokens

    @property
    def credential_test(self) -> protocols.CredentialTest:
        from portaria.platforms.leadconnector import tokens

        return tokens

    @property
    def token_refusal(self) -> protocols.TokenRefusal:
        from portaria.platforms.leadconnector import tokens

        return tokens

    @property
    def api_headers(self) -> protocols.ApiHeaders:
        from portaria.platforms.leadconnector import tokens

        return tokens

    @property
    def events(self) -> protocols.EventWebhooks:
        from portaria.platforms.leadconnector import events

        return events

    def source_object(self, name: str) -> record_protocols.SourceObject | None:
        match name:
            case "contacts":
                from portaria.platforms.leadconnector import contacts

                return contacts
        return None

    @property
    def route_rules(self) -> record_protocols.RouteRules:
        from portaria.platforms.leadconnector import destination

        return destination

    def destination_object(self, name: str) -> record_protocols.RecordDestination | None:
        match name:
            case "persons":
                from portaria.platforms.leadconnector import persons

                return persons
        return None

    @property
    def contacts(self) -> protocols.Contacts:
        from portaria.platforms.leadconnector import contacts

        return contacts


PLATFORM = LeadConnector("leadconnector")
