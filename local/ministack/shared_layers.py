"""Unpack each layer once for all function processes of MiniStack. This replaces `zipfile` in its module for these processes.

MiniStack unpacks the layers (4,000 files) anew for each process of a function, and answers few calls meanwhile. Under load that
starts further processes. On Lambda, the layers are in /opt, which a function can only read, so processes can share them.

Standard library only: this runs in MiniStack's own virtual environment.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import zipfile
from pathlib import Path
from zipfile import BadZipFile
from zipfile import LargeZipFile as LargeFileError

__all__ = ["BadZipFile", "LargeFileError", "ZipFile"]

_unpacking = threading.Lock()


def ZipFile(file: str) -> zipfile.ZipFile | Layer:  # noqa: N802 - the name of what it replaces
    """MiniStack stores a function's layers as `layer_0.zip`, `layer_1.zip`, … beside its code."""
    return Layer(Path(file)) if os.path.basename(file).startswith("layer_") else zipfile.ZipFile(file)


class Layer:
    """The part of `ZipFile` that MiniStack uses. Layers with the same content share one folder, below TMPDIR."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> Layer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def namelist(self) -> list[str]:
        """Empty: MiniStack looks for names that lead out of the folder, and `zipfile` itself unpacks none of them outside."""
        return []

    def extractall(self, target: str) -> None:
        """Replace the empty folder `target` by a link to the layer's content. Raises what `zipfile` raises."""
        with self._file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        folder = Path(tempfile.gettempdir()) / "layers" / digest
        with _unpacking:
            if not folder.exists():
                unfinished = folder.with_suffix(".unfinished")
                with zipfile.ZipFile(self._file) as archive:
                    archive.extractall(unfinished)
                unfinished.rename(folder)
        os.rmdir(target)
        os.symlink(folder, target)
