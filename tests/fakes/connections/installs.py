"""One install at a time, against moto and the fake Kommo, driven as Lambda and SQS do it."""

from __future__ import annotations

import json
from typing import Any

from portaria.connections import oauth_clients
from portaria.connections.tokens import cache
from portaria.connections.vault import Vault
from portaria.core import clock
from portaria.core.callbacks import OAuthClient, Secret
from portaria.core.item_keys import install_key
from portaria.core.settings import ExchangeCodeSettings
from portaria.webhooks.install_receiver import install_id
from tests.fakes.aws.moto_cloud import PREFIX, Cloud
from tests.fakes.platforms import kommo


def register(cloud: Cloud) -> None:
    client = OAuthClient("kommo", "acme", kommo.CLIENT_ID, kommo.REDIRECT_URI)
    oauth_clients.put(cloud.table, client, new=True)
    vault = Vault(PREFIX)
    vault.create(vault.client_secret_id("kommo", "acme"), {"client_secret": Secret(kommo.CLIENT_SECRET)})


def settings(cloud: Cloud) -> ExchangeCodeSettings:
    return ExchangeCodeSettings(
        **{name.lower(): value for name, value in cloud.environment.items() if name in SETTINGS}
    )


SETTINGS = {name.upper() for name in ExchangeCodeSettings.__annotations__}


def message(code: str, subdomain: str, **more: str) -> str:
    """`more` is what the install's link adds: `tags` as JSON text, `account_id`, `link`."""
    return json.dumps(
        more
        | {
            "version": 1,
            "install_id": install_id("kommo", "acme", Secret(code)),
            "platform": "kommo",
            "client": "acme",
            "code": code,
            "account_host": f"{subdomain}.kommo.com",
            "source": "widget",
            "received_at": clock.to_iso(clock.now()),
        }
    )


def item(cloud: Cloud, code: str) -> dict[str, Any]:
    return cloud.table.get(*install_key(install_id("kommo", "acme", Secret(code)))) or {}


def events(cloud: Cloud) -> list[tuple[str, dict[str, Any]]]:
    """Without the version, which the fake AWS checks."""
    heard = [json.loads(body) for body in cloud.receive("heard")]
    for event in heard:
        del event["detail"]["version"]
    return [(event["detail-type"], event["detail"]) for event in heard]


def forget_tokens() -> None:
    cache.PROCESS_CACHE.clear()
