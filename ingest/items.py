"""What a source lists: things to read, each with a stable name. The seam for folders, streams and stores to come."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ingest.load.extracted import Extracted
from rag.errors import DocumentError

MAX_FILE_BYTES = 200_000_000
"""Of a file, and of a line of a stream without its end."""


def is_name(text: str) -> bool:
    """Whether the text can be part of an id: it is Unicode, which the names of files need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str | Path) -> str:
    """The text with escapes for what is no UTF-8 in it, as in names of files."""
    return str(text).encode("utf-8", "backslashreplace").decode()


class Item(Protocol):
    """Something that holds one document, or several. It is sent to the process that parses it, so it pickles."""

    @property
    def source(self) -> str:
        """The source that lists it; what vanished is told from it."""
        ...

    @property
    def item_id(self) -> str:
        """`<source>/<name below it>`: the id of its document."""
        ...

    @property
    def location(self) -> str:
        """Where it is, for people."""
        ...

    @property
    def name(self) -> str:
        """Its file name; the suffix says how to read it."""
        ...

    def read(self) -> bytes:
        """Its content.

        Raises:
            DocumentError: It cannot be read, or is too large.
        """
        ...

    def parsed(self) -> Extracted | None:
        """What the content says, where the listing had to find that out; None leaves it to a parser."""
        ...


@dataclass(frozen=True, slots=True)
class FileItem:
    """A file."""

    path: Path
    source: str
    item_id: str

    @property
    def location(self) -> str:
        """The path, printable."""
        return printable(self.path)

    @property
    def name(self) -> str:
        """See `Item`."""
        return self.path.name

    def read(self) -> bytes:
        """See `Item`."""
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for its writer
                raise DocumentError("not a regular file, but a folder, a pipe, a socket or a device")
            size = status.st_size
            if size > MAX_FILE_BYTES:
                raise DocumentError(f"too large: {size:,} bytes, at most {MAX_FILE_BYTES:,} are read")
            return self.path.read_bytes()
        except OSError as error:
            raise DocumentError(f"cannot be read: {error.strerror or error}") from error

    def parsed(self) -> Extracted | None:
        """See `Item`."""
        return None


@dataclass(frozen=True, slots=True)
class RecordItem:
    """A record of a stream: one JSON object."""

    line: bytes
    content: Extracted
    source: str
    item_id: str
    location: str

    @property
    def name(self) -> str:
        """See `Item`."""
        return "record.jsonl"

    def read(self) -> bytes:
        """See `Item`."""
        return self.line

    def parsed(self) -> Extracted | None:
        """See `Item`."""
        return self.content
