"""Connections as the API creates them, and their token provider."""

from __future__ import annotations

from portaria.connections import connection_store, vault
from portaria.connections.tokens.cache import TokenCache
from portaria.connections.tokens.provider import TokenProvider
from portaria.connections.vault import Vault
from portaria.core.callbacks import Secret
from portaria.core.entities import Connection
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.platforms import engage, leadconnector

TOKEN = "canary-pit-one"


def connect(
    cloud: Cloud, name: str, platform: str, kind: str, domain: str, fields: dict[str, str], credentials: dict[str, str]
) -> Connection:
    store = Vault(PREFIX)
    secret_id = store.grant_id(name)
    version = vault.version_id(secret_id, 1)
    store.create(secret_id, {key: Secret(text) for key, text in credentials.items()}, version)
    connection = Connection(name, platform, kind, domain, "connected", 1, secret_id, version, fields=fields)
    connection_store.create(cloud.table, connection)
    return connection


def to_engage(cloud: Cloud, name: str = "engage-one", **changes: str) -> Connection:
    """A credential that is changed to an empty text is omitted."""
    credentials = {key: text for key, text in {**engage.LOG_IN, **changes}.items() if text}
    fields = {"customer_id": engage.CUSTOMER, "environment": "homologation"}
    return connect(cloud, name, "engage", "password", "sandbox.engage.bz", fields, credentials)


def to_leadconnector(cloud: Cloud, name: str = "marketek") -> Connection:
    fields = {"location_id": leadconnector.LOCATION}
    return connect(cloud, name, "leadconnector", "bearer", leadconnector.HOST, fields, {"token": TOKEN})


def supply(cloud: Cloud) -> TokenProvider:
    return TokenProvider(
        cloud.table,
        Vault(PREFIX),
        cloud.environment["SEALING_KEY_ID"],
        lambda: 60.0,
        cache=TokenCache(),
        patience_s=8.0,
    )
