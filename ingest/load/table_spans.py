"""Cells that span rows and columns, repeated where they span, so that every row of a table can be read by itself.

Two ways to write a table: cells that follow one another, as in HTML (`SpannedRows`), and cells that have a column of
their own, as in the office formats (`PlacedRows`).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

# A cell across more columns is a rule across the table, and a longer one is content, not a label.
_MAX_COLUMNS = 20
_MAX_CHARACTERS = 200
_SEPARATOR_CHARACTERS = 3
# Repetition may not make a text much longer than its source: this much for each table, and more as it has own text.
_ALLOWANCE_CHARACTERS = 10_000
_ALLOWANCE_PER_CHARACTER = 4
_MOST_CHARACTERS = 50_000_000
_NUMBER = re.compile(r"\s*(\d{1,7})")


def span(written: str | None) -> int:
    """A span as HTML reads it: 1 where there is none; 0 is, for rows of HTML, to the end of the row group."""
    match = _NUMBER.match(written or "")
    return int(match[1]) if match else 1


class _Allowance:
    """How much may still be repeated; it grows with what a table says itself."""

    def __init__(self) -> None:
        self._characters = _ALLOWANCE_CHARACTERS
        self._most = _MOST_CHARACTERS

    def earn(self, texts: Iterable[str]) -> None:
        self._characters += _ALLOWANCE_PER_CHARACTER * sum(len(text) + _SEPARATOR_CHARACTERS for text in texts)

    def spend(self, text: str) -> bool:
        """Whether `text` may be repeated once more."""
        cost = len(text) + _SEPARATOR_CHARACTERS
        self._characters -= cost
        self._most -= cost
        return min(self._characters, self._most) >= 0


class SpannedRows:
    """The rows of one table whose cells follow one another, in order.

    A label is repeated in every row and column that it spans. A longer cell, a cell across a whole row, and whatever
    would make the text several times as long as its source, leave the places they span empty.
    """

    def __init__(self) -> None:
        self._carried: dict[int, tuple[str, int]] = {}  # by column: what stands there, and in how many more rows
        self._allowance = _Allowance()

    def end_group(self) -> None:
        """A row group ends: no cell reaches over it."""
        self._carried.clear()

    def row(self, cells: list[tuple[str, int, int]]) -> list[str]:
        """The next row as it is seen; nothing where its own cells are empty.

        Args:
            cells: Text, row span and column span of each.
        """
        self._allowance.earn(text for text, *_ in cells)
        alone = len(cells) == 1 and not self._carried
        seen: list[str] = []
        for text, rows, columns in cells:
            self._append_carried(seen)
            across = 1 if alone or columns > _MAX_COLUMNS else max(1, columns)
            label = text if len(text) <= _MAX_CHARACTERS else ""
            for number in range(across):
                if number and not self._allowance.spend(label):
                    break
                if rows != 1:
                    self._carried[len(seen)] = (label, rows - 1)
                seen.append(label if number else text)
        last = max(self._carried, default=-1)
        while len(seen) <= last and self._allowance.spend(""):
            self._append_carried(seen)
            if len(seen) <= last:
                seen.append("")
        return seen if any(text for text, *_ in cells) else []

    def _append_carried(self, seen: list[str]) -> None:
        while (carried := self._carried.pop(len(seen), None)) is not None:
            text, rows = carried
            if not self._allowance.spend(text):
                return
            if rows != 1:  # below 1 it is to the end of the group
                self._carried[len(seen)] = (text, rows - 1)
            seen.append(text)


class Spanning(Protocol):
    """A cell that says how many rows and columns it spans; its own column is the key it is found by."""

    @property
    def text(self) -> str:
        """What it says."""
        ...

    @property
    def rows(self) -> int:
        """At least 1 where it is seen at all."""
        ...

    @property
    def columns(self) -> int:
        """As `rows`."""
        ...


@dataclass(frozen=True, slots=True)
class PlacedCell:
    """See `Spanning`."""

    text: str
    rows: int = 1
    columns: int = 1


class PlacedRows:
    """The rows of one table, or of one sheet with several, whose cells have columns; labels as in `SpannedRows`.

    Columns without a word in any row take no label: what spans them is layout.
    """

    def __init__(self, allowance: _Allowance | None = None) -> None:
        self._carried: dict[int, tuple[str, int]] = {}  # by column: what stands there, and the last row it spans
        self._allowance = allowance or _Allowance()

    def apart(self) -> PlacedRows:
        """For a table that no cell reaches into; both may repeat as much as one."""
        return PlacedRows(self._allowance)

    def read(self, rows: Iterable[tuple[int, Mapping[int, Spanning]]]) -> list[dict[int, str]]:
        """The texts of each row by column; nothing where its own cells are empty.

        Args:
            rows: Number and cells by column, of one table; numbers rise from call to call.
        """
        told = [(number, {column: cell for column, cell in row.items() if cell.text.strip()}) for number, row in rows]
        columns = sorted({column for _, row in told for column in row})
        return [self._row(number, row, columns) for number, row in told]

    def _row(self, number: int, row: Mapping[int, Spanning], columns: list[int]) -> dict[int, str]:
        if not row:
            return {}
        self._allowance.earn(cell.text for cell in row.values())
        seen: dict[int, str] = {}
        for column, (label, last) in list(self._carried.items()):
            if number > last or column in row or not self._allowance.spend(label):
                del self._carried[column]
            else:
                seen[column] = label
        # Alone and from the first column on it is the title of what follows.
        alone = len(row) == 1 and not seen and columns[0] in row
        for column, cell in row.items():
            seen[column] = cell.text
            if len(cell.text) <= _MAX_CHARACTERS and (cell.rows > 1 or cell.columns > 1):
                self._repeat(number, column, row, [column] if alone else columns, seen)
        return seen

    def _repeat(
        self, number: int, column: int, row: Mapping[int, Spanning], columns: list[int], seen: dict[int, str]
    ) -> None:
        cell = row[column]
        places = columns[bisect_left(columns, column) : bisect_left(columns, column + cell.columns)]
        for place in places if len(places) <= _MAX_COLUMNS else [column]:
            if place != column:
                if place in row or place in seen:
                    continue
                if not self._allowance.spend(cell.text):
                    return
                seen[place] = cell.text
            if cell.rows > 1:
                self._carried[place] = (cell.text, number + cell.rows - 1)
