"""Checks of a command's arguments before its work begins, which may take minutes."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from rag.errors import UsageError


def split_names(text: str | None, option: str, known: Collection[str] | None = None) -> list[str] | None:
    """The names in a list with commas; None where the option is not given.

    Args:
        option: As it is written, for messages.
        known: Those that there are.

    Raises:
        UsageError: It holds no name, or an unknown one.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"{option} names nothing; write names with commas, or leave it out")
    for name in names:
        if known is not None and name not in known:
            raise UsageError(f"{option}: there is no {name}; choose from {', '.join(known)}")
    return list(dict.fromkeys(names))


def refuse_unwritable_folder(folder: Path | None, option: str) -> None:
    """Make a folder that is written into later, if one is given.

    Raises:
        UsageError: It is a file, or nothing can be written into it.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror}; choose another folder with {option}"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written: permission denied; choose another folder with {option}")


def refuse_unwritable_file(file: Path | None, option: str) -> None:
    """As `refuse_unwritable_folder`, of a file; its folder is made."""
    if file is None:
        return
    if file.is_dir():
        raise UsageError(f"{file} is a folder; name a file with {option}")
    refuse_unwritable_folder(file.parent, option)
    if file.exists() and not os.access(file, os.W_OK):
        raise UsageError(f"{file} cannot be written: permission denied; choose another file with {option}")
