"""From the paths on a command line to the files to ingest, each with the id its document will have."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.items import FileItem, is_name, printable
from ingest.load.formats import PARSERS
from ingest.report import Failure
from rag.errors import UsageError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".ragignore"


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A folder that could not be listed: what is in it is neither there nor gone.

    Attributes:
        prefix: Of the ids of what it holds.
    """

    path: Path
    source: str
    prefix: str
    reason: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """What is under the given paths.

    Attributes:
        files: To be ingested, in a stable order.
        passed_over: Of unsupported kinds, links out of their folder, or no regular files, such as pipes.
        unlisted: Folders that could not be listed.
        sources: The names of the sources that are listed whole, also of empty ones: a folder's, or the one named. A
            file given outright says nothing of what else its folder holds.
        roots: The given folders and files, resolved.
        unnameable: Files whose names are no UTF-8, so that they cannot have an id.
    """

    files: tuple[FileItem, ...]
    passed_over: tuple[Path, ...]
    unlisted: tuple[Unlisted, ...]
    sources: tuple[str, ...]
    roots: tuple[Path, ...] = ()
    unnameable: tuple[Failure, ...] = ()

    @property
    def failures(self) -> list[Failure]:
        """What could not be found out, by locations that can be printed."""
        unlisted = [Failure(printable(folder.path), folder.reason) for folder in self.unlisted]
        return [*unlisted, *self.unnameable]


def discover(
    paths: Sequence[Path], source: str | None, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Discovery:
    """What there is to ingest under `paths`.

    A folder is walked without hidden files and folders and without links out of it; its name is the source unless
    one is given. A file named outright is taken whatever its suffix, so that it is never passed over in silence; if
    it lies in a folder that is given too, it is the folder's.

    Args:
        include: Patterns as in a `.gitignore`, matched against paths below a folder: only what matches one is taken.
        exclude: Such patterns for what is left out, besides those in the folder's `.ragignore`.

    Raises:
        UsageError: A path does not exist, a pattern cannot be read, one folder lies inside another and they are
            different sources, or the name of a source is no UTF-8.
    """
    found: dict[Path, FileItem] = {}
    unnameable: dict[Path, Failure] = {}
    passed_over: list[Path] = []
    unlisted: list[Unlisted] = []
    sources: dict[str, None] = {}
    roots = _roots(paths, source)

    def take(file: Path, name: str, relative: str) -> None:
        item = FileItem(file, name, f"{name}/{relative}")
        if is_name(item.item_id):
            found.setdefault(file, item)
        else:
            unnameable[file] = Failure(item.location, "its name is not valid UTF-8; rename it")

    for root, name in roots.items():
        if root.is_dir() or source:
            sources[name] = None
        if not root.is_dir():
            take(root, name, root.name)
            continue

        def note(error: OSError, root: Path = root, name: str = name) -> None:
            folder = Path(error.filename)
            below = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
            reason = f"cannot be listed: {error.strerror or error}"
            unlisted.append(Unlisted(folder, name, f"{name}/{below}", reason))

        is_wanted = _selection(root, include, exclude)
        for file, relative in _walk(root, is_wanted, note):
            if file.suffix.lower() not in PARSERS or _leaves(root, file) or _is_special(file):
                passed_over.append(file)
            else:
                take(file, name, relative)
    return Discovery(
        tuple(found.values()),
        tuple(passed_over),
        tuple(unlisted),
        tuple(sources),
        tuple(roots),
        tuple(unnameable.values()),
    )


def _roots(paths: Sequence[Path], source: str | None) -> dict[Path, str]:
    """The given paths, resolved, with their sources; folders first, so that what is in them is theirs."""
    roots: dict[Path, str] = {}
    for given in paths:
        path = given.resolve()
        if not path.exists():
            if not given.exists():
                raise UsageError(f"{printable(given)} does not exist")
            path = given.absolute()  # a shell's <(command), which resolves to no path
        name = source or (path if path.is_dir() else path.parent).name or "root"
        if not is_name(name):
            raise UsageError(f"{printable(name)!r} cannot name a source: it is not valid UTF-8; pass --source NAME")
        roots[path] = name
    folders = {path: name for path, name in roots.items() if path.is_dir()}
    for (first, first_name), (second, second_name) in combinations(sorted(folders.items()), 2):
        if first_name != second_name and second.is_relative_to(first):
            raise UsageError(
                f"{printable(second)} (source {second_name!r}) lies inside {printable(first)} (source {first_name!r}), "
                "so its files would belong to both; ingest one of them, or both under one --source NAME"
            )
    return folders | roots


def _is_special(file: Path) -> bool:
    """Whether it is a pipe, a socket or a device; a link to nowhere is not, and reading it says what is wrong."""
    try:
        return not stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return False


def _leaves(folder: Path, file: Path) -> bool:
    return file.is_symlink() and not file.resolve().is_relative_to(folder)


def _selection(root: Path, include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path below `root` is wanted; a folder's ends with a slash."""
    ignored = list(exclude)
    file = root / IGNORE_FILE
    if file.is_file():
        try:
            ignored += file.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} cannot be read: {error}") from error
    excluding, including = _patterns(ignored), _patterns(include)

    def is_wanted(relative: str) -> bool:
        if excluding is not None and excluding.match_file(relative):
            return False
        return including is None or relative.endswith("/") or including.match_file(relative)

    return is_wanted


def _patterns(lines: Sequence[str]) -> GitIgnoreSpec | None:
    if not lines:
        return None
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise UsageError(f"a pattern cannot be read: {error}; write it as in a .gitignore") from error


def _walk(
    folder: Path, is_wanted: Callable[[str], bool], on_error: Callable[[OSError], None]
) -> Iterator[tuple[Path, str]]:
    """Files and their paths below the folder, with forward slashes."""
    for directory, subfolders, files in os.walk(folder, onerror=on_error):
        below = Path(directory).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        visible = sorted(name for name in subfolders if not name.startswith("."))
        subfolders[:] = [name for name in visible if is_wanted(f"{prefix}{name}/")]
        for name in sorted(files):
            if not name.startswith(".") and is_wanted(prefix + name):
                yield Path(directory, name), prefix + name
