"""From the paths on a command line to the files to ingest, each with the id its document will have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.load.detect import SUPPORTED_SUFFIXES
from rag.errors import UsageError


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to ingest.

    Attributes:
        document_id: `<source>/<path below the given folder>`, with forward slashes.
    """

    path: Path
    source: str
    document_id: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """What is under the given paths.

    Attributes:
        files: To be ingested, in a stable order.
        passed_over: Of unsupported kinds, or links out of their folder.
        unreadable: Folders that could not be listed, each with the reason.
    """

    files: tuple[FoundFile, ...]
    passed_over: tuple[Path, ...]
    unreadable: tuple[tuple[Path, str], ...]


def discover(paths: Sequence[Path], source: str | None) -> Discovery:
    """What there is to ingest under `paths`.

    A folder is walked without hidden files and folders and without links out of it; its name is the source unless
    one is given. A file named outright is taken whatever its suffix, so that it is never passed over in silence.

    Raises:
        UsageError: A path does not exist.
    """
    found: dict[Path, FoundFile] = {}
    passed_over: list[Path] = []
    unreadable: list[tuple[Path, str]] = []

    def note(error: OSError) -> None:
        unreadable.append((Path(error.filename), f"cannot be listed: {error.strerror or error}"))

    for given in paths:
        path = given.resolve()
        if not path.exists():
            raise UsageError(f"{given} does not exist")
        root = path if path.is_dir() else path.parent
        name = source or root.name or "root"
        for file in _walk(path, note) if path.is_dir() else iter((path,)):
            if path.is_dir() and (file.suffix.lower() not in SUPPORTED_SUFFIXES or _leaves(root, file)):
                passed_over.append(file)
            else:
                found.setdefault(file, FoundFile(file, name, f"{name}/{file.relative_to(root).as_posix()}"))
    return Discovery(tuple(found.values()), tuple(passed_over), tuple(unreadable))


def _leaves(folder: Path, file: Path) -> bool:
    return file.is_symlink() and not file.resolve().is_relative_to(folder)


def _walk(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    for directory, subfolders, files in os.walk(folder, onerror=on_error):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(directory, name)
