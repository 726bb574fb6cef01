"""Settings: one field for each variable, all required, all immutable."""

from __future__ import annotations

import pytest

from portaria.core.settings import AcceptInstallSettings, Environment, ExchangeCodeSettings

VARIABLES = {
    "TABLE_NAME": "table",
    "EXCHANGES_QUEUE_URL": "https://queue",
    "UNPROVEN_EXCHANGES_QUEUE_URL": "https://unproven",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ExchangeCodeSettings.__annotations__:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_settings_from_env_reads_each_field_from_its_variable(environment: pytest.MonkeyPatch) -> None:
    settings = AcceptInstallSettings.from_env()
    assert (settings.table_name, settings.exchanges_queue_url) == ("table", "https://queue")


@pytest.mark.parametrize("value", [None, ""])
def test_settings_from_env_missing_or_empty_variable_is_named(
    environment: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        environment.delenv("TABLE_NAME")
    else:
        environment.setenv("TABLE_NAME", value)
    with pytest.raises(RuntimeError, match=r"TABLE_NAME \(template"):
        AcceptInstallSettings.from_env()


def test_settings_from_env_all_missing_variables_are_named(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="DEFERRED_EXCHANGES_QUEUE_URL, BUS_NAME, SECRETS_PREFIX, SEALING_KEY_ID"):
        ExchangeCodeSettings.from_env()


def test_settings_are_immutable() -> None:
    settings = AcceptInstallSettings(table_name="a", exchanges_queue_url="b", unproven_exchanges_queue_url="c")
    with pytest.raises(AttributeError, match="do not change"):
        settings.table_name = "c"
    assert settings.table_name == "a"


@pytest.mark.parametrize(
    "values", [{}, {"table_name": "a"}, {"table_name": "a", "exchanges_queue_url": "b", "bus_name": "c"}]
)
def test_settings_constructor_requires_exactly_its_fields(values: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="table_name, exchanges_queue_url"):
        AcceptInstallSettings(**values)


def test_settings_fields_are_all_text() -> None:
    assert len(Environment.__subclasses__()) > 5
    for settings in Environment.__subclasses__():
        assert settings.__annotations__
        assert set(settings.__annotations__.values()) == {"str"}
