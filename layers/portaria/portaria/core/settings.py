"""What each function reads from its environment: one class a function, one field a variable (`table_name` ← TABLE_NAME)."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

# In `EVENT_ENDPOINTS`: the API Gateway API itself.
API_ENDPOINT = "api"


class Environment:
    """A subclass only annotates its fields, all text. It is not a dataclass: the install hook cannot wait for those."""

    def __init__(self, **values: str) -> None:
        if set(values) != set(type(self).__annotations__):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(type(self).__annotations__)}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("settings do not change")

    @classmethod
    def from_env(cls) -> Self:
        """Read every field; a missing or empty variable is named in the error."""
        names = list(cls.__annotations__)
        missing = [name.upper() for name in names if not os.environ.get(name.upper())]
        if missing:
            raise RuntimeError(f"set the environment variables {', '.join(missing)} (template.yaml sets them)")
        return cls(**{name: os.environ[name.upper()] for name in names})


class AcceptInstallSettings(Environment):
    table_name: str
    exchanges_queue_url: str
    unproven_exchanges_queue_url: str


class SweepArrivalsSettings(Environment):
    table_name: str
    exchanges_queue_url: str
    unproven_exchanges_queue_url: str


class ExchangeCodeSettings(Environment):
    """`credential_store` is where new grants are stored: `secrets-manager` or `table`.

    `event_endpoints` is read by `webhook_endpoints.base_urls`.
    """

    table_name: str
    exchanges_queue_url: str
    unproven_exchanges_queue_url: str
    deferred_exchanges_queue_url: str
    bus_name: str
    secrets_prefix: str
    sealing_key_id: str
    credential_store: str
    event_endpoints: str
    shared_outbound_addresses: str


class BackfillRecordsSettings(Environment):
    """`reconcile_every_minutes` and `reconcile_idle_every_minutes` are whole numbers; `event_endpoints` as in
    `ExchangeCodeSettings`."""

    table_name: str
    backfills_queue_url: str
    bulk_records_queue_url: str
    secrets_prefix: str
    sealing_key_id: str
    reconcile_every_minutes: str
    event_endpoints: str
    reconcile_idle_every_minutes: str
    shared_outbound_addresses: str


class IngestRecordsSettings(Environment):
    """`retry_after_minutes` are whole numbers with commas between them; `quota_time_zone` is an IANA time zone name.

    `reconcile_every_minutes` is a whole number.
    """

    table_name: str
    records_queue_url: str
    bulk_records_queue_url: str
    secrets_prefix: str
    sealing_key_id: str
    bus_name: str
    retry_after_minutes: str
    quota_time_zone: str
    reconcile_every_minutes: str


class ReleaseRecordsSettings(Environment):
    """As those of `IngestRecordsSettings`."""

    table_name: str
    waiting_records_queue_url: str
    secrets_prefix: str
    sealing_key_id: str
    bus_name: str
    retry_after_minutes: str
    quota_time_zone: str


class ReceiveEventsSettings(Environment):
    """`success_logs` is `summary` or `each`."""

    table_name: str
    records_queue_url: str
    success_logs: str


class AcceptRecordsSettings(Environment):
    table_name: str
    records_queue_url: str


class TrackReceiptsSettings(Environment):
    table_name: str
    adobe_client_id: str


class KeepDeadLettersSettings(Environment):
    table_name: str
    records_dead_letters_url: str


class RenewTokensSettings(Environment):
    """`refused_grant_days` is a whole number."""

    table_name: str
    renewals_queue_url: str
    bus_name: str
    secrets_prefix: str
    sealing_key_id: str
    refused_grant_days: str
    shared_outbound_addresses: str


class AcceptUninstallSettings(Environment):
    table_name: str
    uninstalls_queue_url: str
    secrets_prefix: str


class RemoveConnectionsSettings(Environment):
    """`event_endpoints` as in `ExchangeCodeSettings`."""

    table_name: str
    uninstalls_queue_url: str
    bus_name: str
    secrets_prefix: str
    sealing_key_id: str
    event_endpoints: str
    shared_outbound_addresses: str


class FanOutEventsSettings(Environment):
    table_name: str
    webhook_events_queue_url: str
    webhook_deliveries_queue_url: str


class DeliverWebhooksSettings(Environment):
    table_name: str
    webhook_deliveries_queue_url: str
    slow_webhook_deliveries_queue_url: str
    bus_name: str
    sealing_key_id: str


class CountStatesSettings(Environment):
    """`refused_grant_days` is a whole number; `quota_time_zone` is an IANA time zone name."""

    table_name: str
    refused_grant_days: str
    quota_time_zone: str


class ManageSettings(Environment):
    """`queue_names` has `name=physical name` of each queue that work waits in, separated by commas.

    `event_endpoints` as in `ExchangeCodeSettings`.
    """

    table_name: str
    secrets_prefix: str
    sealing_key_id: str
    credential_store: str
    uninstalls_queue_url: str
    records_queue_url: str
    backfills_queue_url: str
    waiting_records_queue_url: str
    webhook_deliveries_queue_url: str
    private_integration_managers: str
    stack_name: str
    queue_names: str
    event_endpoints: str


class CallConnectionSettings(Environment):
    table_name: str
    secrets_prefix: str
    sealing_key_id: str
    shared_outbound_addresses: str


class RedeemTicketSettings(Environment):
    table_name: str
    sealing_key_id: str


class ConsoleSettings(Environment):
    """As those of `ManageSettings`."""

    table_name: str
    secrets_prefix: str
    sealing_key_id: str
    credential_store: str
    uninstalls_queue_url: str
    records_queue_url: str
    backfills_queue_url: str
    waiting_records_queue_url: str
    webhook_deliveries_queue_url: str
    private_integration_managers: str
    stack_name: str
    queue_names: str
    call_connection_function: str
    event_endpoints: str
