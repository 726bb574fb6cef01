"""Vendors' client libraries through the proxy: HighLevel's own SDK and a library for Kommo, with another base URL and token.

The libraries are in a folder of their own, which `vendor_sdks.txt` fills; their other requirements are those of the tests.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.local_cloud.scenes import Scene, secret
from tests.fakes.local_cloud.session import LocalCloud
from tests.fakes.paths import ROOT

LOCK = Path(__file__).parent / "vendor_sdks.txt"
FOLDER = ROOT / "build" / "vendor-sdks"
GUIDE = ROOT / "docs" / "connections.md"


@dataclass(frozen=True)
class Sdks:
    """The modules `highlevel` and `aioamocrm`."""

    highlevel: Any
    aioamocrm: Any


@pytest.fixture(scope="module")
def sdks(stack: LocalCloud) -> Iterator[Sdks]:
    installed = FOLDER / LOCK.name
    if not installed.exists() or installed.read_text() != LOCK.read_text():
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--upgrade",
        ]
        # The package index is not behind the local cloud's proxy.
        local = (stack.stack.proxy_url, stack.stack.ca_bundle)
        subprocess.run(
            [*pip, "--only-binary", ":all:", "--require-hashes", "--target", str(FOLDER), "-r", str(LOCK)],
            check=True,
            env={name: value for name, value in os.environ.items() if value not in local},
        )
        installed.write_text(LOCK.read_text())
    sys.path.append(str(FOLDER))
    yield Sdks(importlib.import_module("highlevel"), importlib.import_module("aioamocrm"))
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def web(stack: LocalCloud) -> Iterator[LocalCloud]:
    """The local cloud as the outside world of any HTTP client that reads the usual variables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", stack.stack.proxy_url)
        patch.setenv("SSL_CERT_FILE", str(stack.stack.ca_bundle))
        yield stack


def administrator(cloud: LocalCloud, resource: str, **body: Any) -> dict[str, Any]:
    answer = cloud.admin.post(f"{cloud.public_url}/admin/v1/{resource}", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def token_for(cloud: LocalCloud, connection: str) -> str:
    scopes = [f"connections:call@{connection}"]
    return str(administrator(cloud, "private-integrations", name="SDK", scopes=scopes)["token"])


def base_url(cloud: LocalCloud, connection: str) -> str:
    return f"{cloud.public_url}/v1/connections/{connection}/proxy"


# ------------------------------------------------------------------------------------------------------------ HighLevel


@pytest.fixture(scope="module")
def location(web: LocalCloud) -> str:
    """A location with a connection of its name."""
    location, pit = f"t{secrets.token_hex(8)}", secret("pit-")
    web.control.add_leadconnector_location(location)
    web.control.add_leadconnector_token(pit, location)
    connection = {"name": location, "platform": "leadconnector", "fields": {"location_id": location}}
    administrator(web, "connections", **connection, credentials={"token": pit})
    return location


@asynccontextmanager
async def highlevel(sdks: Sdks, url: str, token: str) -> AsyncIterator[Any]:
    """The SDK has no parameter for the base URL: a subclass sets it."""
    client = type("HighLevel", (sdks.highlevel.HighLevel,), {"BASE_URL": url})(private_integration_token=token)
    yield client
    await client.close()


def test_highlevel_sdk_reads_writes_and_raises_its_own_errors(web: LocalCloud, sdks: Sdks, location: str) -> None:
    """The SDK sends its own `Version` (v3), which the connection's default must not replace."""

    async def work() -> None:
        async with highlevel(sdks, base_url(web, location), token_for(web, location)) as client:
            found = await client.locations.get_location(location)
            assert found["location"]["id"] == location
            made = await client.contacts.upsert_contact({"locationId": location, "email": "maria@example.com"})
            shown = await client.contacts.get_contact(made["contact"]["id"])
            assert (made["new"], shown["contact"]["email"]) == (True, "maria@example.com")
            for request, status, message in (
                (
                    client.contacts.upsert_contact({"locationId": location, "email": "none"}),
                    422,
                    "email must be an email",
                ),
                (client.contacts.get_contact("none"), 400, "Contact not found"),
                (client.locations.get_location("another"), 403, "does not have access"),
            ):
                with pytest.raises(sdks.highlevel.GHLError, match=message) as refused:
                    await request
                assert refused.value.status_code == status

    asyncio.run(work())


def test_highlevel_sdk_raises_an_error_for_portarias_refusal(web: LocalCloud, sdks: Sdks, location: str) -> None:
    other = token_for(web, "another")

    async def work() -> None:
        async with highlevel(sdks, base_url(web, location), other) as client:
            with pytest.raises(sdks.highlevel.GHLError, match=f"connections:call@{location}") as refused:
                await client.locations.get_location(location)
            assert refused.value.status_code == 403
            assert refused.value.response["type"] == "urn:portaria:problem:missing_scope"

    asyncio.run(work())


# ---------------------------------------------------------------------------------------------------------------- Kommo


@dataclass(frozen=True)
class Kommo:
    connection: str
    host: str
    contact_ids: list[int]


@pytest.fixture(scope="module")
def kommo(web: LocalCloud) -> Kommo:
    """An account with seven contacts that has installed the integration."""
    scene = Scene(web)
    host = scene.account(contacts=7)
    assert scene.hook(scene.code(host), host).status_code == 200
    (install,) = scene.wait_for_end()
    contacts = web.control.kommo_contacts(host)["contacts"]
    return Kommo(install["connection"], host, sorted(each["id"] for each in contacts))


def amocrm(sdks: Sdks, url: str, token: str) -> Any:
    return sdks.aioamocrm.AmoCRMClient(
        base_url=url,
        auth=sdks.aioamocrm.LongLivedToken(token),
        rate_limit=5,
        retry=sdks.aioamocrm.RetryPolicy(max_attempts=1),
    )


def test_kommo_sdk_lists_filters_creates_and_changes(web: LocalCloud, sdks: Sdks, kommo: Kommo) -> None:
    async def work() -> None:
        async with amocrm(sdks, base_url(web, kommo.connection), token_for(web, kommo.connection)) as client:
            assert (await client.account.get()).subdomain == kommo.host.partition(".")[0]
            listed = [each.id async for each in client.contacts.iterate(limit=3)]
            assert set(kommo.contact_ids) <= set(listed)
            assert len(listed) == len(set(listed))
            chosen = kommo.contact_ids[1:3]
            page = await client.contacts.get_page(filter={"id": chosen}, order={"id": "desc"})
            assert [each.id for each in page] == chosen[::-1]
            (made,) = await client.contacts.create([{"name": "Maria São"}])
            assert (await client.contacts.get(made.id)).name == "Maria São"
            await client.contacts.update([{"id": made.id, "name": "Ana"}])
            await client.request("PATCH", f"contacts/{made.id}", json={"first_name": "Bia"})
            assert (await client.contacts.get(made.id)).first_name == "Bia"

    asyncio.run(work())


def test_kommo_sdk_raises_its_own_errors(web: LocalCloud, sdks: Sdks, kommo: Kommo) -> None:
    errors = sdks.aioamocrm
    token = token_for(web, kommo.connection)

    async def work() -> None:
        async with amocrm(sdks, base_url(web, kommo.connection), token) as client:
            with pytest.raises(errors.NotFoundError):
                await client.contacts.get(1)
            with pytest.raises(errors.ValidationError) as refused:
                await client.contacts.create([{"name": "good"}, {"name": 5}])
            assert [(each.request_id, each.path) for each in refused.value.errors] == [("1", "name")]
        async with amocrm(sdks, base_url(web, kommo.connection), f"{token[:-1]}_") as client:
            with pytest.raises(errors.AuthError) as refused:
                await client.account.get()
            assert "private integration" in str(refused.value)

    asyncio.run(work())


def test_links_in_bodies_lead_to_the_api_itself(web: LocalCloud, sdks: Sdks, kommo: Kommo) -> None:
    """A body comes back as it is. This library refuses to follow a link to another host, and asks for the page's number."""

    async def work() -> None:
        async with amocrm(sdks, base_url(web, kommo.connection), token_for(web, kommo.connection)) as client:
            page = await client.contacts.get_page(limit=3)
            assert page.next_url.startswith(f"https://{kommo.host}/api/v4/contacts?")
            with pytest.raises(ValueError, match="refusing to send"):
                await client.request("GET", page.next_url)

    asyncio.run(work())


# ---------------------------------------------------------------------------------------------------------------- guide


def test_guide_example_of_a_client_library_runs(
    web: LocalCloud, sdks: Sdks, location: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide's program, as it stands there, for another connection."""
    (program,) = re.findall(r"```python\n(# highlevel\.py\n.*?)```", GUIDE.read_text(), re.DOTALL)
    monkeypatch.setenv("PORTARIA_API_URL", web.public_url)
    monkeypatch.setenv("PORTARIA_TOKEN", token_for(web, location))
    for name, value in (("marketek-main", location), ("ve9EPM428h8vShlRW1KT", location)):
        assert name in program
        program = program.replace(name, value)
    exec(compile(program, "guide", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == "Padaria Exemplo\n422 email must be an email\n"
