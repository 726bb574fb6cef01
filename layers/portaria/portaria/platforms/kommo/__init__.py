"""Kommo (formerly amoCRM). https://developers.kommo.com/docs"""

from __future__ import annotations

from portaria.platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from portaria.platforms import protocols, record_protocols


class Kommo(Platform):
    @property
    def connection_kinds(self) -> protocols.ConnectionKinds:
        from portaria.platforms.kommo import tokens

        return tokens

    @property
    def request_limits(self) -> protocols.RequestLimits:
        from portaria.platforms.kommo import request_limits

        return request_limits

    @property
    def install(self) -> protocols.InstallCallbacks:
        from portaria.platforms.kommo import install

        return install

    @property
    def consent_page(self) -> protocols.ConsentPage:
        from portaria.platforms.kommo import install

        return install

    @property
    def account_domains(self) -> protocols.AccountDomains:
        from portaria.platforms.kommo import install

        return install

    @property
    def token_endpoint(self) -> protocols.TokenEndpoint:
        from portaria.platforms.kommo import tokens

        return tokens

    @property
    def account_lookup(self) -> protocols.AccountLookup:
        from portaria.platforms.kommo import account

        return account

    @property
    def account_relocation(self) -> protocols.AccountRelocation:
        from portaria.platforms.kommo import account

        return account

    @property
    def uninstall(self) -> protocols.UninstallNotices:
        from portaria.platforms.kommo import uninstall

        return uninstall

    @property
    def webhook_subscriptions(self) -> protocols.WebhookSubscriptions:
        from portaria.platforms.kommo import webhooks

        return webhooks

    @property
    def events(self) -> protocols.EventWebhooks:
        from portaria.platforms.kommo import events

        return events

    def changed_object(self, name: str) -> record_protocols.ChangedObject | None:
        match name:
            case "contacts":
                from portaria.platforms.kommo import contacts

                return contacts
            case "companies":
                from portaria.platforms.kommo import companies

                return companies
        return None

    @property
    def smoke_install(self) -> protocols.SmokeInstall:
        from portaria.platforms.kommo import smoke_install

        return smoke_install


PLATFORM = Kommo("kommo")
