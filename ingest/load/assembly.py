"""Text that is put together block by block, while headings, pages and rows are noted where they start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from ingest.load.decoding import clean
from ingest.load.extracted import Extracted
from rag.types import Heading, Scalar

Kind = Literal["text", "item", "row", "code", "note"]

MAX_HEADING_CHARACTERS = 300
_SPARSE_FROM_PLACES = 10_000
_PLACES_PER_CELL = 20
_SPACES = re.compile("[ \u00a0\u2007\u202f]")
_BLANKS = re.compile(r"[ \t]*\n[ \t]*")
_MANY_BREAKS = re.compile(r"\n{3,}")
_SOFT_HYPHEN = "\u00ad"


def words(text: str) -> str:
    """`text` on one line, its white space folded, without what cannot be seen."""
    return " ".join(clean(text).replace(_SOFT_HYPHEN, "").split())


def spoken(author: str, said: str, place: str = "") -> str:
    """Who said what and where, on one line; empty where nothing was said."""
    if not said:
        return ""
    author = "" if said.startswith(f"{author}:") else author  # as programs begin a note
    if place:
        return f"{place} ({author}): {said}" if author else f"{place}: {said}"
    return f"{author}: {said}" if author else said


def table_lines(rows: Sequence[Mapping[int, str]]) -> list[str]:
    """The rows of a table, each on one line with ` | ` between the cells; empty where all its cells are.

    Cells of one column stand at the same place in every row, and a column in which no row has a word is left out, so
    that merged cells cost no more than they say. Where hardly a place is filled there are no columns to speak of, and
    the rows are what they hold.

    Args:
        rows: The text of each cell by its column; a merged cell stands in its first.
    """
    folded = [{column: words(text) for column, text in row.items()} for row in rows]
    columns = sorted({column for row in folded for column, text in row.items() if text})
    filled = sum(bool(text) for row in folded for text in row.values())
    if len(rows) * len(columns) > _SPARSE_FROM_PLACES and len(rows) * len(columns) > _PLACES_PER_CELL * filled:
        return [_row_line([text for _, text in sorted(row.items()) if text]) for row in folded]
    return [_row_line([row.get(column, "") for column in columns]) for row in folded]


def _row_line(row: list[str]) -> str:
    while row and not row[-1]:
        row.pop()
    return " | ".join(row).strip()


class Assembly:
    """A text under construction. Blocks without words leave no trace."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []
        self._page_starts: list[int] = []
        self._row_starts: list[tuple[int, int]] = []
        self._fresh = True  # nothing was written on this page
        self._kind = ""  # of the block before

    @property
    def first_heading(self) -> str | None:
        """The first of level 1."""
        return next((heading.text for heading in self._headings if heading.level == 1), None)

    @property
    def text(self) -> str:
        """What was written so far."""
        return "".join(self._parts)

    def page(self) -> None:
        """What follows stands on a new page, even if that is nothing."""
        if self._page_starts or self._length:
            self._append("\n\n")
        self._page_starts.append(self._length)
        self._fresh = True
        self._kind = ""

    def paragraph(self, text: str) -> int:
        """A block after a blank line; returns where it starts."""
        return self._write(text, "\n\n")

    def line(self, text: str) -> int:
        """A block on the line after the one before: an item, a row of a table."""
        return self._write(text, "\n")

    def block(self, text: str, kind: Kind) -> None:
        """On the next line for items, rows, notes and code that follow their like, else after a blank one."""
        alike = kind == self._kind and kind != "text"
        before = self._length
        (self.line if alike else self.paragraph)(text)
        if self._length > before:
            self._kind = kind

    def note(self, number: int, text: str) -> None:
        """A note that stands at the end, where the text says `[^number]`."""
        self.block(f"[^{number}]: {text}" if text else "", "note")

    def apart(self) -> None:
        """What follows stands after a blank line, whatever it is: another list, another table."""
        self._kind = ""

    def heading(self, level: int, text: str) -> None:
        """A line of its own; one that is too long for a heading is a paragraph."""
        text = words(text)
        start = self.paragraph(text)
        self._kind = ""
        if text and len(text) <= MAX_HEADING_CHARACTERS:
            self._headings.append(Heading(start=start, level=level, text=text))

    def row(self, number: int, text: str, *, heading: str = "", first: bool = False) -> None:
        """A row of a sheet.

        Args:
            number: As the user's program counts it.
            text: On one line.
            heading: What it says as a header row, at level 2; empty where it is none.
            first: Of its table, so that it stands after a blank line.
        """
        start = self.paragraph(text) if first else self.line(text)
        if text:
            self._row_starts.append((start, number))
            if heading:
                self._headings.append(Heading(start=start, level=2, text=heading))

    def append(self, text: str, headings: tuple[Heading, ...]) -> None:
        """Text that was put together elsewhere and is clean, as a block, with its headings."""
        if not text.strip():
            return
        self._append("" if self._fresh else "\n\n")
        start = self._length
        self._append(text)
        self._fresh = False
        self._headings += [Heading(start + heading.start, heading.level, heading.text) for heading in headings]

    def extracted(
        self,
        *,
        title: str | None,
        metadata: dict[str, Scalar | list[str]],
        media_type: str,
        warnings: tuple[str, ...] = (),
    ) -> Extracted:
        """What was put together, with what the file says of itself."""
        return Extracted(
            text=self.text,
            title=title,
            headings=tuple(self._headings),
            page_starts=tuple(self._page_starts),
            metadata=metadata,
            media_type=media_type,
            row_starts=tuple(self._row_starts),
            warnings=warnings,
        )

    def _write(self, source: str, separator: str) -> int:
        text = _SPACES.sub(" ", clean(source).replace(_SOFT_HYPHEN, ""))
        text = _MANY_BREAKS.sub("\n\n", _BLANKS.sub("\n", text)).strip()
        if not text:
            return self._length
        self._append("" if self._fresh else separator)
        start = self._length
        self._append(text)
        self._fresh = False
        return start

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
