"""What each function reads from its environment: one class a function, one field a variable (`table_name` ← TABLE_NAME)."""

from __future__ import annotations

import os
from typing import Self


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


class SweepArrivalsSettings(Environment):
    table_name: str
    exchanges_queue_url: str


class ExchangeCodeSettings(Environment):
    table_name: str
    exchanges_queue_url: str
    bus_name: str
    secrets_prefix: str
    sealing_key_id: str


class BackfillRecordsSettings(Environment):
    table_name: str
    backfills_queue_url: str
    records_queue_url: str
    secrets_prefix: str
    sealing_key_id: str


class IngestRecordsSettings(Environment):
    table_name: str
    records_queue_url: str
    records_set_aside_url: str
    secrets_prefix: str


class RenewTokensSettings(Environment):
    table_name: str
    renewals_queue_url: str
    bus_name: str
    secrets_prefix: str
    sealing_key_id: str


class AcceptUninstallSettings(Environment):
    table_name: str
    uninstalls_queue_url: str
    secrets_prefix: str


class RemoveConnectionsSettings(Environment):
    table_name: str
    uninstalls_queue_url: str
    bus_name: str
    secrets_prefix: str
    sealing_key_id: str


class ManageSettings(Environment):
    table_name: str
    secrets_prefix: str
    uninstalls_queue_url: str
    private_integration_managers: str


class CallConnectionSettings(Environment):
    table_name: str
    secrets_prefix: str
    sealing_key_id: str


class RedeemTicketSettings(Environment):
    table_name: str
    sealing_key_id: str
