"""Which cells of an Excel sheet are merged: a list behind the rows, of which each may be gigabytes away."""

from __future__ import annotations

import re

from ingest.load.archive import Archive

_STEP_BYTES = 1 << 20
_LONGEST_TAG_BYTES = 1000
# Inside text there is no `<`, so that this finds elements without reading all others as such.
_MERGED = re.compile(
    rb"<(?:\w+:)?mergeCell\s[^<>]{0,200}?\bref\s*=\s*[\"']([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})[\"']"
)
_MAX_MERGED = 500_000


def merged_cells(archive: Archive, part: str) -> dict[int, dict[int, tuple[int, int]]]:
    """How many rows and columns cells span, by the number of the row and by the column, from 0, that they start in.

    Cells that span but one are not among them, nor those after the first half million.

    Raises:
        DocumentError: The part turns out to be broken.
    """
    found: dict[int, dict[int, tuple[int, int]]] = {}
    count = 0
    kept = b""
    with archive.opened(part) as stream:
        while (step := stream.read(_STEP_BYTES)) and count < _MAX_MERGED:
            data = kept + step
            end = 0
            for match in _MERGED.finditer(data):
                end = match.end()
                count += 1
                first, top, last, bottom = column_of(match[1]), int(match[2]), column_of(match[3]), int(match[4])
                found.setdefault(top, {})[first] = (bottom - top + 1, last - first + 1)
            kept = data[max(end, len(data) - _LONGEST_TAG_BYTES) :]
    return found


def column_of(letters: bytes | str) -> int:
    """The number of a column, from 0: of `AA` it is 26."""
    number = 0
    for letter in letters.upper().decode() if isinstance(letters, bytes) else letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1
