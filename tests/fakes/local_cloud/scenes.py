"""Set-up of tests on the local cloud: an integration, a destination and a route of their own, and installs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import requests

from tests.fakes.local_cloud.session import LocalCloud

PATIENCE_S = 120.0


@dataclass
class Scene:
    """An OAuth client registered with Kommo's simulator and with the deployed API."""

    cloud: LocalCloud
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    client_id: str = ""
    client_secret: str = field(default_factory=lambda: f"canary-{secrets.token_hex(16)}")

    def __post_init__(self) -> None:
        self.client_id = f"id-{self.name}"
        self.cloud.control.add_kommo_client(self.client_id, self.client_secret, self.install_url)
        self.create(
            "oauth-clients",
            platform="kommo",
            name=self.name,
            client_id=self.client_id,
            client_secret=self.client_secret,
            redirect_uri=self.install_url,
        )

    @property
    def install_url(self) -> str:
        return f"{self.cloud.public_url}/install/kommo/{self.name}"

    def create(self, resource: str, **body: Any) -> dict[str, Any]:
        answer = self.cloud.admin.post(f"{self.cloud.public_url}/admin/v1/{resource}", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def send_to_marketo(self) -> str:
        """Create a Marketo connection and a route to it for every account that installs. Returns its Munchkin id."""
        letters = "".join(secrets.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(3))
        munchkin = f"{secrets.randbelow(1000):03d}-{letters}-{secrets.randbelow(1000):03d}"
        self.cloud.control.add_marketo_instance(munchkin, f"marketo-{self.name}", "canary-marketo-secret")
        self.create(
            "connections",
            name=f"marketo-{self.name}",
            platform="marketo",
            fields={"munchkin_id": munchkin},
            credentials={"client_id": f"marketo-{self.name}", "client_secret": "canary-marketo-secret"},
        )
        self.create(
            "routes",
            name=f"route-{self.name}",
            source=f"client:kommo/{self.name}",
            object="contacts",
            destination=f"marketo-{self.name}",
        )
        return munchkin

    def account(self, suffix: str = "", contacts: int = 0, **details: Any) -> str:
        """Add a Kommo account. Returns its host."""
        account = self.cloud.control.add_kommo_account(f"{self.name}{suffix}", contacts=contacts, **details)
        return str(account["host"])

    def code(self, host: str) -> str:
        return self.cloud.control.issue_code(self.client_id, host).code

    def hook(self, code: str, host: str, **more: str) -> requests.Response:
        query = {"code": code, "referer": host, "from_widget": "1", **more}
        return self.cloud.web.get(self.install_url, params=query, allow_redirects=False)

    def installs(self) -> list[dict[str, Any]]:
        """This client's installs, newest first, as an administrator sees them."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            query = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            page = self.cloud.admin.get(f"{self.cloud.public_url}/admin/v1/installs", params=query).json()
            found += [item for item in page["items"] if item["client"] == self.name]
            cursor = page["next_cursor"]
            if not cursor:
                return found

    def wait_for_end(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait until this many installs have ended, and return them."""
        return wait_for(
            lambda: [item for item in self.installs() if item["state"] in ("connected", "failed")],
            lambda ended: len(ended) >= count,
        )


Found = TypeVar("Found")


def wait_for(look: Callable[[], Found], enough: Callable[[Found], bool], patience_s: float = PATIENCE_S) -> Found:
    """Look until it is enough. Fails with the last result."""
    deadline = time.monotonic() + patience_s
    while True:
        found = look()
        if enough(found):
            return found
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s; last seen: {found}"
        time.sleep(0.3)


def secret(prefix: str = "") -> str:
    return f"{prefix}canary-{secrets.token_hex(16)}"
