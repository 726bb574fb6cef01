"""The simulators' data after a stop and the next start."""

from __future__ import annotations

from pathlib import Path

from local.simulators import saving
from local.simulators.platforms import Platforms


def test_simulators_loaded_data_shares_clock_and_uses_present_proxy(tmp_path: Path) -> None:
    saved = Platforms("http://127.0.0.1:1")
    saved.world.clock.offset_s = 60.0
    account = saved.kommo.state.add_account("acme", contacts=2)
    account.recent.append(1.0)
    saved.world.faults.set({"platform": "kommo", "kind": "dropped", "duration_s": 5.0})
    saved.marketo.add_instance({"munchkin": "123-ABC-456", "client_id": "a", "client_secret": "b"})
    saving.save(saved, tmp_path / "simulators.pickle")

    loaded = Platforms("http://127.0.0.1:2")
    saving.load(loaded, tmp_path / "simulators.pickle")
    assert loaded.kommo.state.accounts["acme.kommo.com"].contacts == account.contacts
    assert not loaded.kommo.state.accounts["acme.kommo.com"].recent
    assert list(loaded.marketo.ingestion.instances) == ["123-abc-456"]
    assert loaded.world.faults.dump() == []
    assert loaded.kommo.webhooks.proxy_url == loaded.adobe.proxy_url == "http://127.0.0.1:2"
    assert loaded.kommo in loaded.front.simulators
    loaded.world.clock.offset_s += 60.0
    clocks = (loaded.kommo.state.clock, loaded.marketo.ingestion.clock, loaded.oauth2.world.clock)
    assert [clock.offset_s for clock in clocks] == [120.0] * 3
    assert (tmp_path / "simulators.pickle").stat().st_mode & 0o777 == 0o600
