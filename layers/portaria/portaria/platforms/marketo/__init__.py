"""Adobe Marketo Engage. https://experienceleague.adobe.com/en/docs/marketo-developer/marketo/home"""

from __future__ import annotations

from portaria.platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.platforms import protocols, record_protocols


class Marketo(Platform):
    @property
    def connection_kinds(self) -> protocols.ConnectionKinds:
        from portaria.platforms.marketo import tokens

        return tokens

    @property
    def log_in(self) -> protocols.LogIn:
        from portaria.platforms.marketo import tokens

        return tokens

    @property
    def api_headers(self) -> protocols.ApiHeaders:
        from portaria.platforms.marketo import tokens

        return tokens

    @property
    def account_fields(self) -> protocols.AccountFields:
        from portaria.platforms.marketo import tokens

        return tokens

    @property
    def route_rules(self) -> record_protocols.RouteRules:
        from portaria.platforms.marketo import destination

        return destination

    def destination_object(self, name: str) -> record_protocols.RecordDestination | None:
        """All that the Data Ingestion API takes; a custom object's own name is behind the `/` of a target."""
        match name:
            case "persons":
                from portaria.platforms.marketo import persons

                return persons
            case "companies":
                from portaria.platforms.marketo import companies

                return companies
            case "customobjects":
                from portaria.platforms.marketo import customobjects

                return customobjects
            case "lists":
                from portaria.platforms.marketo import lists

                return lists
            case "programmembers":
                from portaria.platforms.marketo import programmembers

                return programmembers
        return None

    @property
    def daily_quota(self) -> record_protocols.DailyQuota:
        from portaria.platforms.marketo import daily_quota

        return daily_quota

    @property
    def delivery_reports(self) -> record_protocols.DeliveryReports:
        from portaria.platforms.marketo import delivery_reports

        return delivery_reports

    @property
    def data_ingestion_api(self) -> record_protocols.DataIngestionApi:
        from portaria.platforms.marketo import data_ingestion_api

        return data_ingestion_api

    @property
    def api_document(self) -> record_protocols.ApiDocument:
        from portaria.platforms.marketo import api_document

        return api_document

    @property
    def smoke_record(self) -> record_protocols.SmokeRecord:
        from portaria.platforms.marketo import smoke_record

        return smoke_record


PLATFORM = Marketo("marketo")
