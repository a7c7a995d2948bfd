"""Zip archives that are looked over before anything in them is unpacked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import IO

from rag.errors import DocumentError

MAX_EXPANDED_BYTES = 1 << 30
"""Of all members together: five times the largest file that is read, and pictures hardly shrink in an archive."""

MAX_RATIO = 200
"""Expanded to packed. Real documents stay below 50; deflate itself ends near 1,000, where the bombs are."""

RATIO_COUNTS_FROM_BYTES = 50_000_000
"""Expanded bytes up to which the ratio does not matter: small files of blank cells shrink well, and harm nobody."""

MAX_MEMBERS = 20_000
"""A workbook has a part per sheet and drawing, a book one per chapter and picture: hundreds, seldom thousands."""

MAX_MEMBER_BYTES = 1 << 27
"""Of a member that is read as a whole: a tree of its elements takes some ten times as much memory."""

_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 0x1
# The only ones the office formats and EPUB allow, and the only ones zipfile expands in bounded steps.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive within the limits; made by `open_archive`.

    Attributes:
        names: The members' names, in the order of the directory.
    """

    names: tuple[str, ...]
    _members: Mapping[str, zipfile.ZipInfo]
    _zip: zipfile.ZipFile

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._members

    def read(self, name: str, max_bytes: int = MAX_MEMBER_BYTES) -> bytes:
        """A whole member. Names are compared as Office does: without regard to case.

        Raises:
            DocumentError: There is none of this name, it is broken, or it is longer than `max_bytes`.
        """
        member = self._member(name)
        if member.file_size > max_bytes:
            raise DocumentError(
                f"too large: {name} in it has {member.file_size:,} bytes, at most {max_bytes:,} are read"
            )
        with self.opened(name) as stream:
            return stream.read()

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """A member as a stream that ends where the directory says, whatever is packed in it.

        Raises:
            DocumentError: There is none of this name, or it turns out to be broken while it is read.
        """
        member = self._member(name)
        try:
            with self._zip.open(member) as stream:
                yield stream
        except _BROKEN as error:
            raise DocumentError(f"corrupt archive: {name} cannot be read: {error}") from error

    def _member(self, name: str) -> zipfile.ZipInfo:
        member = self._members.get(_key(name))
        if member is None:
            raise DocumentError(f"corrupt archive: {name} is missing")
        return member


def open_archive(data: bytes) -> Archive:
    """The archive `data`, if its directory promises to stay within the limits; nothing is unpacked.

    Members are never read beyond the size the directory gives them, so a directory that lies makes a broken member,
    not a large one.

    Raises:
        DocumentError: It is corrupt, encrypted, or would expand beyond the limits.
    """
    # Before the directory is read: millions of entries take gigabytes.
    if data.count(_ENTRY) > MAX_MEMBERS:
        raise DocumentError(f"refused archive: it has over {MAX_MEMBERS:,} members")
    try:
        opened = zipfile.ZipFile(BytesIO(data))
    except _BROKEN as error:
        raise DocumentError(f"corrupt archive: {error}") from error
    members = [member for member in opened.infolist() if not member.is_dir()]
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise DocumentError("password-protected archive: remove the password first")
        if member.compress_type not in _METHODS:
            raise DocumentError(f"unsupported archive: {member.filename} is packed by an unusual method")
    _refuse_bomb(members, packed_bytes=len(data))
    return Archive(
        names=tuple(member.filename for member in members),
        _members={_key(member.filename): member for member in members},
        _zip=opened,
    )


def _refuse_bomb(members: list[zipfile.ZipInfo], packed_bytes: int) -> None:
    expanded = sum(member.file_size for member in members)
    if expanded > MAX_EXPANDED_BYTES:
        raise DocumentError(
            f"refused archive: it expands to {expanded:,} bytes, at most {MAX_EXPANDED_BYTES:,} are unpacked"
        )
    # To the bytes there really are, since members may share theirs.
    if expanded > RATIO_COUNTS_FROM_BYTES and expanded > MAX_RATIO * packed_bytes:
        raise DocumentError(
            f"refused archive: it expands to {expanded:,} bytes, over {MAX_RATIO} times what it has, as zip bombs do"
        )


def _key(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()
