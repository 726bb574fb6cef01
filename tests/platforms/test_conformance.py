"""Every platform, found by its folder, goes through the one suite."""

from __future__ import annotations

from tests.platforms.conformance import HERE, NAMES, Conformance, platform_of
from tests.platforms.destinations import DestinationConformance


class TestPlatformConformance(Conformance):
    """A new platform is in it as soon as its folder is there."""


class TestDestinationConformance(DestinationConformance):
    """A platform that takes records is in it as soon as it has a part `destination`."""


def test_platform_test_folders_match_platforms() -> None:
    assert {path.name for path in HERE.iterdir() if (path / "facts.json").exists()} == set(NAMES)


def test_platform_fixtures_each_belong_to_a_reader() -> None:
    for name in NAMES:
        readers = {f"{part}.{reader}" for part, reader, _ in platform_of(name).readers()}
        for path in platform_of(name).fixtures:
            assert path.parent.name in readers, path
