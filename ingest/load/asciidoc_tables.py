"""Tables of AsciiDoc as rows: cells joined with a bar."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable

# How often, how wide and high, how aligned, in which style: right before the bar that opens the cell.
_SPECIFIER = re.compile(r"(?:(?<=\s)|^)(?:(\d+)?(?:\.(\d+))?([*+]))?[<^>]?(?:\.[<^>])?[adehlmsv]?$")
_COLUMNS = re.compile(r"\bcols\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([\w*]+))")
_COLUMN = re.compile(r"(?:(\d+)\*)?.*")
_ESCAPED_BAR = "\x1f"
_MAX_REPEATED = 100
_DELIMITERS = {",": ",", ":": ":"}


class Table:
    """How the cells of one table are told.

    Args:
        mark: The first character of its delimiter: of bars, comma-separated, colon-separated, or within a cell.
        columns: As its attributes say; 0 where they do not.
    """

    def __init__(self, mark: str, columns: int) -> None:
        self._mark = mark
        self._columns = columns

    @staticmethod
    def columns_of(attributes: str) -> int:
        """How many columns block attributes speak of; 0 where they do not."""
        match = _COLUMNS.search(attributes)
        if match is None:
            return 0
        columns = re.split(r"[,;]", match[1] or match[2] or match[3] or "")
        counts = (_COLUMN.fullmatch(column.strip()) for column in columns)
        return sum(min(int(count[1] or 1), _MAX_REPEATED) for count in counts if count)

    def rows(self, lines: Iterable[str]) -> list[str]:
        """A line of text for each row that is not empty."""
        lines = list(lines)
        delimiter = _DELIMITERS.get(self._mark)
        if delimiter is not None:
            return list(filter(None, map(_written, csv.reader(lines, delimiter=delimiter))))
        cells: list[str] = []
        columns = self._columns
        for line in lines:
            found, continued = self._cells(line)
            if continued and cells:
                cells[-1] = f"{cells[-1]} {continued}"
            if len(found) > 1 and not found[-1] and len(found) == (columns + 1 if columns else len(found)):
                found.pop()  # of a row that ends with a bar, as in Markdown
            cells.extend(found)
            # Without `cols` the first line that is not empty has the cells of one row.
            columns = columns or len(cells)
        rows = (cells[start : start + columns] for start in range(0, len(cells), max(columns, 1)))
        return list(filter(None, map(_written, rows)))

    def _cells(self, line: str) -> tuple[list[str], str]:
        """The cells that begin on a line, and what goes on from the one before."""
        parts = line.replace(f"\\{self._mark}", _ESCAPED_BAR).split(self._mark)
        cells: list[str] = []
        continued = ""
        repeated = 1
        for index, part in enumerate(parts):
            text = part
            following = 1
            if index + 1 < len(parts) and (specifier := _SPECIFIER.search(part)) is not None:
                text = part[: specifier.start()]
                if specifier[3] == "*":
                    following = min(int(specifier[1] or 1), _MAX_REPEATED)
            text = text.strip().replace(_ESCAPED_BAR, self._mark)
            if index:
                cells += [text] * repeated
            else:
                continued = text
            repeated = following
        return cells, continued


def _written(cells: Iterable[str]) -> str:
    return " | ".join(" ".join(cell.split()) for cell in cells).rstrip(" |")
