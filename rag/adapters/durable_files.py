"""Files that are what they were or what they should be, also after a loss of power."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(file: Path, text: str) -> None:
    """Replace a file in one step, so that also a loss of power leaves the old content or the new."""
    unfinished = file.with_name(f"{file.name}.new")
    with unfinished.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    unfinished.replace(file)
    _sync_folder(file.parent)


def delete_durably(file: Path) -> None:
    """Delete a file so that it is gone also after a loss of power."""
    file.unlink()
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
