"""`local.ministack.shared_layers`: processes of functions share unpacked layers, and nothing else."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest

from local.ministack import shared_layers


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


def unpack(process: Path, name: str, files: dict[str, str]) -> Path:
    """What MiniStack does for one process: write the archive, make a folder, look at the names, unpack."""
    target = process / name
    target.mkdir(parents=True)
    file = process / f"{name}.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    with shared_layers.ZipFile(str(file)) as archive:
        archive.namelist()
        archive.extractall(str(target))
    return target


def test_layer_of_two_processes_is_unpacked_once(temporary_folder: Path) -> None:
    first = unpack(temporary_folder / "one", "layer_0", {"python/module.py": "A = 1"})
    second = unpack(temporary_folder / "two", "layer_0", {"python/module.py": "A = 1"})
    assert first.resolve() == second.resolve()
    assert (second / "python" / "module.py").read_text() == "A = 1"


def test_layer_with_other_content_has_its_own_folder(temporary_folder: Path) -> None:
    old = unpack(temporary_folder / "one", "layer_0", {"python/module.py": "A = 1"})
    new = unpack(temporary_folder / "two", "layer_0", {"python/module.py": "A = 2"})
    assert (old / "python" / "module.py").read_text() == "A = 1"
    assert (new / "python" / "module.py").read_text() == "A = 2"


def test_layer_remains_when_folder_of_a_process_is_removed(temporary_folder: Path) -> None:
    unpack(temporary_folder / "one", "layer_0", {"python/module.py": "A = 1"})
    second = unpack(temporary_folder / "two", "layer_0", {"python/module.py": "A = 1"})
    shutil.rmtree(temporary_folder / "one")
    assert (second / "python" / "module.py").read_text() == "A = 1"


def test_layer_that_was_unpacked_in_part_is_unpacked_again(temporary_folder: Path) -> None:
    first = unpack(temporary_folder / "one", "layer_0", {"python/module.py": "A = 1"}).resolve()
    # As a process leaves it that is stopped while it unpacks.
    first.rename(first.with_suffix(".unfinished"))
    second = unpack(temporary_folder / "two", "layer_0", {"python/module.py": "A = 1"})
    assert (second / "python" / "module.py").read_text() == "A = 1"


def test_layer_with_name_that_leads_out_of_its_folder_stays_inside(temporary_folder: Path) -> None:
    target = unpack(temporary_folder / "one", "layer_0", {"../../outside.py": "A = 1", "/absolute.py": "A = 2"})
    assert sorted(each.name for each in target.rglob("*.py")) == ["absolute.py", "outside.py"]
    assert not list(temporary_folder.glob("outside.py"))


def test_code_of_a_function_is_unpacked_for_each_process(temporary_folder: Path) -> None:
    first = unpack(temporary_folder / "one", "code", {"handler.py": "A = 1"})
    second = unpack(temporary_folder / "two", "code", {"handler.py": "A = 1"})
    assert first.resolve() != second.resolve()
    assert (first / "handler.py").read_text() == "A = 1"
