"""The platforms, one folder each. A platform's modules are imported when they are used."""

from __future__ import annotations

import importlib
import re

from portaria.core.error_roots import Rejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from portaria.platforms import protocols, record_protocols

    Capability = TypeVar("Capability")


class Platform:
    """What one platform supports: each property is a module that implements a protocol, or None.

    A subclass in `platforms/<name>/__init__.py` overrides the properties of what the platform supports. Each imports its
    module when it is read, so that a webhook's cold start pays for one module only. `protocols.py` and `record_protocols.py`
    document the protocols.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Platform({self.name})"

    def require(self, capability: Capability | None) -> Capability:
        """Return the capability. Raises `Rejected` (404 `unknown_platform`) if the platform does not have it."""
        if capability is None:
            raise Rejected(
                "unknown_platform",
                f"the platform {self.name} does not support this operation",
                field="platform",
                status=404,
            )
        return capability

    def offer(self, capability: Capability | None) -> Capability:
        """Return what an operation on a connection needs. Raises `Rejected` (409 `not_offered`)."""
        if capability is None:
            detail = f"connections to {self.name} do not support this operation"
            raise Rejected("not_offered", detail, status=409)
        return capability

    # Connections

    @property
    def connection_kinds(self) -> protocols.ConnectionKinds:
        raise NotImplementedError

    @property
    def log_in(self) -> protocols.LogIn | None:
        return None

    @property
    def credential_test(self) -> protocols.CredentialTest | None:
        return None

    @property
    def token_refusal(self) -> protocols.TokenRefusal | None:
        return None

    @property
    def api_headers(self) -> protocols.ApiHeaders | None:
        return None

    @property
    def request_limits(self) -> protocols.RequestLimits | None:
        return None

    @property
    def account_fields(self) -> protocols.AccountFields | None:
        return None

    # Installs

    @property
    def install(self) -> protocols.InstallCallbacks | None:
        return None

    @property
    def consent_page(self) -> protocols.ConsentPage | None:
        return None

    @property
    def authorization_links(self) -> protocols.AuthorizationLinks | None:
        return None

    @property
    def account_domains(self) -> protocols.AccountDomains | None:
        return None

    @property
    def token_endpoint(self) -> protocols.TokenEndpoint | None:
        return None

    @property
    def provider_clients(self) -> protocols.ProviderClients | None:
        return None

    @property
    def account_lookup(self) -> protocols.AccountLookup | None:
        return None

    @property
    def account_relocation(self) -> protocols.AccountRelocation | None:
        return None

    @property
    def uninstall(self) -> protocols.UninstallNotices | None:
        return None

    # Events

    @property
    def webhook_subscriptions(self) -> protocols.WebhookSubscriptions | None:
        return None

    @property
    def events(self) -> protocols.EventWebhooks | None:
        return None

    # Records

    def source_object(self, name: str) -> record_protocols.SourceObject | None:
        """The object whose records a route can send."""
        return self.paged_object(name)

    def paged_object(self, name: str) -> record_protocols.PagedObject | None:
        """The object, if it can be listed page by page."""
        return self.changed_object(name)

    def changed_object(self, name: str) -> record_protocols.ChangedObject | None:
        """The object, if its changes can be listed."""
        return None

    @property
    def route_rules(self) -> record_protocols.RouteRules | None:
        return None

    def destination_object(self, name: str) -> record_protocols.RecordDestination | None:
        """The object that records can be sent to: the text before the `/` of a target."""
        return None

    @property
    def daily_quota(self) -> record_protocols.DailyQuota | None:
        return None

    @property
    def delivery_reports(self) -> record_protocols.DeliveryReports | None:
        return None

    @property
    def data_ingestion_api(self) -> record_protocols.DataIngestionApi | None:
        return None

    @property
    def api_document(self) -> record_protocols.ApiDocument | None:
        return None

    # Actions

    @property
    def contacts(self) -> protocols.Contacts | None:
        return None

    @property
    def identifiers(self) -> protocols.UserIdentifiers | None:
        return None

    @property
    def sign_on(self) -> protocols.SingleSignOn | None:
        return None

    # Smoke tests

    @property
    def smoke_install(self) -> protocols.SmokeInstall | None:
        return None

    @property
    def smoke_record(self) -> record_protocols.SmokeRecord | None:
        return None


def load(name: str) -> Platform:
    """Return the platform of this name, which can be untrusted. Raises `Rejected` (404 `unknown_platform`)."""
    path = f"{__name__}.{name}"
    if not re.fullmatch(r"[a-z][a-z0-9]{0,31}", name):
        raise _unknown_platform()
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as missing:
        if missing.name == path:
            raise _unknown_platform() from None
        raise
    # `protocols` and the other modules beside the folders are no platforms.
    platform: Platform | None = getattr(module, "PLATFORM", None)
    if platform is None:
        raise _unknown_platform()
    return platform


def every() -> list[Platform]:
    """All platforms, by name."""
    import pkgutil  # noqa: PLC0415 - the webhook functions load one platform by its name and do not need this

    return [load(name) for name in sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)]


def _unknown_platform() -> Rejected:
    return Rejected("unknown_platform", "this platform does not exist", field="platform", status=404)
