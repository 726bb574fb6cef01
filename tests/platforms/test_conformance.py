"""Every platform, found by its folder, passes the conformance suite."""

from __future__ import annotations

from tests.platforms.conformance import HERE, NAMES, Conformance, platform_of
from tests.platforms.destinations import DestinationConformance


class TestPlatformConformance(Conformance):
    """A new platform is included as soon as its folder exists."""


class TestDestinationConformance(DestinationConformance):
    """A platform is included as soon as it has a part `destination`."""


def test_platform_test_folders_match_platforms() -> None:
    assert {path.name for path in HERE.iterdir() if (path / "facts.json").exists()} == set(NAMES)


def test_platform_fixtures_each_belong_to_a_reader() -> None:
    for name in NAMES:
        readers = {f"{part}.{reader}" for part, reader, _ in platform_of(name).readers()}
        for path in platform_of(name).fixtures:
            assert path.parent.name in readers, path
