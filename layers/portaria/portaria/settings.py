"""What each function reads from its environment: one class a function, one field a variable (`table_name` ← TABLE_NAME)."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Self


class Environment:
    @classmethod
    def from_env(cls) -> Self:
        """Read every field; a missing or empty variable is named in the error."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        missing = [name.upper() for name in names if not os.environ.get(name.upper())]
        if missing:
            raise RuntimeError(f"set the environment variables {', '.join(missing)} (template.yaml sets them)")
        return cls(**{name: os.environ[name.upper()] for name in names})


@dataclass(frozen=True)
class AcceptInstallSettings(Environment):
    table_name: str
    exchanges_queue_url: str


@dataclass(frozen=True)
class SweepArrivalsSettings(Environment):
    table_name: str
    exchanges_queue_url: str


@dataclass(frozen=True)
class ExchangeCodeSettings(Environment):
    table_name: str
    exchanges_queue_url: str
    bus_name: str
    secrets_prefix: str
    sealing_key_id: str


@dataclass(frozen=True)
class BackfillRecordsSettings(Environment):
    table_name: str
    backfills_queue_url: str
    records_queue_url: str
    secrets_prefix: str


@dataclass(frozen=True)
class IngestRecordsSettings(Environment):
    table_name: str
    records_queue_url: str
    records_dead_letters_url: str
    secrets_prefix: str


@dataclass(frozen=True)
class ManageSettings(Environment):
    table_name: str
    secrets_prefix: str
