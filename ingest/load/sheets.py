"""Rows of a sheet to text: tables, their header rows, and the number of each row.

A sheet does not say what a table is. Here a blank row ends one, and its header row is the first with several cells,
if these are labels rather than data.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ingest.load.assembly import MAX_HEADING_CHARACTERS, Assembly, table_lines, words
from ingest.load.table_spans import PlacedRows
from rag.errors import DocumentError

MAX_CELLS = 5_000_000
"""Of a workbook, with content: what takes a gigabyte while it is read."""

MAX_CHARACTERS = 100_000_000
"""Of a workbook: one long string may stand in millions of cells and takes no room in the file."""

# The header row and one more that goes with it, or a row of data.
_ROWS_OF_HEADERS = 2
_YEAR = re.compile("(?:19|20)[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell with content.

    Attributes:
        column: From 0.
        look: Names its style: header cells seldom look like those below them.
        rows: How many it spans; `columns` likewise.
    """

    column: int
    text: str
    kind: Literal["text", "number", "date", "boolean"] = "text"
    look: str = ""
    rows: int = 1
    columns: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a sheet that has content; `number` as the user's program counts it."""

    number: int
    cells: tuple[Cell, ...]


class SheetWriter:
    """Writes the sheets of one workbook, each as a page that begins with the sheet's name."""

    def __init__(self, out: Assembly) -> None:
        self._out = out
        self._spans = PlacedRows()
        self._cells = 0
        self._characters = 0

    def write(self, name: str, rows: Iterable[Row], notes: Sequence[str] = ()) -> None:
        """A sheet; one without any content is an empty page.

        Args:
            name: As on its tab.
            rows: By number, rising.
            notes: What stands on the sheet and not in its cells, a line each.

        Raises:
            DocumentError: The workbook is too large.
        """
        self._out.page()
        begun = False
        before: list[Row] = []
        spans = self._spans.apart()
        for block in _tables(self._counted(rows)):
            if not begun:
                self._out.heading(1, name)
                begun = True
            tables = _side_by_side(block)
            if len(tables) == 1:
                self._table(block, before, spans)
            else:
                for table in tables:
                    self._table(table, [], spans.apart())
            before = block
        if notes and not begun:
            self._out.heading(1, name)
        for position, note in enumerate(notes):
            (self._out.line if position else self._out.paragraph)(note)

    def _counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self._cells += len(row.cells)
            self._characters += sum(len(cell.text) for cell in row.cells)
            if self._cells > MAX_CELLS or self._characters > MAX_CHARACTERS:
                raise DocumentError(
                    f"too large: over {MAX_CELLS:,} cells or {MAX_CHARACTERS:,} characters; "
                    "export the sheets that matter as CSV"
                )
            yield row

    def _table(self, table: list[Row], before: list[Row], spans: PlacedRows) -> None:
        header = _header(table, before)
        rows = spans.read((row.number, {cell.column: cell for cell in row.cells}) for row in table)
        lines = table_lines(rows)
        for position, (row, line) in enumerate(zip(table, lines, strict=True)):
            heading = _label(row) if position == header else ""
            self._out.row(row.number, line, heading=heading, first=position == 0)


def column_name(column: int) -> str:
    """What programs show for a column, counted from 0: `AA` for 26."""
    name = ""
    number = column + 1
    while number:
        number, letter = divmod(number - 1, 26)
        name = chr(ord("A") + letter) + name
    return name


def _tables(rows: Iterable[Row]) -> Iterator[list[Row]]:
    table: list[Row] = []
    columns: set[int] = set()
    for row in rows:
        own = {cell.column for cell in row.cells}
        # Several cells that all stand beside what is above them begin a table of their own.
        if table and (row.number > table[-1].number + 1 or (len(own) > 1 and len(columns) > 1 and not own & columns)):
            yield table
            table, columns = [], set()
        table.append(row)
        columns |= own
    if table:
        yield table


def _side_by_side(block: list[Row]) -> list[list[Row]]:
    """The tables of a block from the left: parted by empty columns, each with a header row of its own.

    Where the header rows touch it is one table with a gap in it.
    """
    gaps = _gaps(block)
    if not gaps:
        return [block]
    parts = [(part, _header(part, [])) for part in _parted(block, gaps)]
    return _parted(
        block, [gap for gap, (left, right) in zip(gaps, pairwise(parts), strict=True) if _apart(left, right)]
    )


def _gaps(block: list[Row]) -> list[int]:
    """Columns with a cell in any row, to the left of which there is none in any row, without the first."""
    ends: dict[int, int] = {}
    for row in block:
        for cell in row.cells:
            ends[cell.column] = max(ends.get(cell.column, 0), cell.column + cell.columns)
    gaps: list[int] = []
    end: int | None = None
    for column in sorted(ends):
        if end is not None and column > end:
            gaps.append(column)
        end = max(end or 0, ends[column])
    return gaps


def _parted(block: list[Row], gaps: Sequence[int]) -> list[list[Row]]:
    if not gaps:
        return [block]
    parts: list[list[Row]] = [[] for _ in range(len(gaps) + 1)]
    for row in block:
        cells: dict[int, list[Cell]] = {}
        for cell in row.cells:
            cells.setdefault(bisect_right(gaps, cell.column), []).append(cell)
        for part, own in cells.items():
            parts[part].append(Row(row.number, tuple(own)))
    return parts


def _apart(left: tuple[list[Row], int | None], right: tuple[list[Row], int | None]) -> bool:
    """Whether both have headers, and one begins beside what is below the other's."""
    (first, header), (second, other_header) = sorted((left, right), key=lambda part: part[0][0].number)
    if header is None or other_header is None:
        return False
    return second[0].number >= first[header].number + _ROWS_OF_HEADERS


def _header(table: list[Row], before: list[Row]) -> int | None:
    """Position of the header row; None where there is none, or the header of `before` still holds."""
    position = next((position for position, row in enumerate(table) if len(row.cells) > 1), None)
    if position is None or position + 1 == len(table):
        return None
    row = table[position]
    if before and position == 0 and _goes_on(before[-1], row):
        return None
    below = {cell.column: cell for cell in table[position + 1].cells}
    labels = all(cell.kind == "text" or _differs(cell, below.get(cell.column)) for cell in row.cells)
    return position if labels and any(cell.kind == "text" for cell in row.cells) else None


def _goes_on(last: Row, row: Row) -> bool:
    """Whether a row after a blank one belongs to the table above: same columns, same kinds, same look."""
    above = {cell.column: cell for cell in last.cells}
    return len(row.cells) <= len(last.cells) and all(
        (other := above.get(cell.column)) is not None and (other.kind, other.look) == (cell.kind, cell.look)
        for cell in row.cells
    )


def _differs(cell: Cell, below: Cell | None) -> bool:
    """Whether a year or a date stands above other things, as a label does."""
    if cell.kind == "date":
        return below is None or below.kind != "date"
    return _YEAR.fullmatch(cell.text) is not None and (below is None or not _YEAR.fullmatch(below.text))


def _label(row: Row) -> str:
    """A header row as a heading: whole cells, as many as fit."""
    label = ""
    for text in filter(None, (words(cell.text) for cell in row.cells)):
        longer = f"{label} | {text}" if label else text
        if len(longer) > MAX_HEADING_CHARACTERS:
            break
        label = longer
    return label
