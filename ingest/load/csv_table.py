"""Tables of separated values: a line of text for every row, cells joined with a bar, under the header row."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal

from ingest.load.decoding import decode
from ingest.load.extracted import Extracted
from rag.types import Heading

# Of equally good ones the first: decimal commas and lists with bars stand between other delimiters.
_DELIMITERS = "\t;,|"
# Clean text holds no such character: with it for a delimiter every line is one cell.
_NO_DELIMITER = "\x1f"
_SENTINEL = "\x1e"
_SAMPLE_CHARACTERS = 1 << 16
_SAMPLE_ROWS = 200
_MIN_REGULAR_SHARE = 0.6
_HEADER_WITHIN_ROWS = 10
_MAX_HEADER_CELL_CHARACTERS = 120
# The header goes with every passage of the table, so a very wide one must leave room for the passage.
_MAX_HEADING_CHARACTERS = 300
_DECLARATION = re.compile(r"sep=([,;|\t:^~])\n", re.IGNORECASE)
# A number, an amount, a date or a time: what stands under a header and hardly ever in one.
_VALUE = re.compile(r"[-+(]?[$€£¥]?\s?\d[\d\s.,:/'’%+)T-]*Z?\s?[$€£¥%]?|[-+]?\d+(?:\.\d+)?[eE][-+]?\d+")

_Row = tuple[int, list[str]]


def load(data: bytes) -> Extracted:
    """One line for every row that is not empty, cells joined with " | "; line ends inside a cell become blanks.

    The delimiter is the one that divides the rows most evenly, of comma, semicolon, tab and bar, unless a first line
    `sep=;` names it. Rows are counted as a spreadsheet does: from 1, the header and empty rows too, and a cell of
    several lines is of one row. The header is the first of the leading rows that is as wide as the table and holds
    only texts, no two alike; without such a row there is no heading.

    Raises:
        DocumentError: The file is empty or binary, or its encoding cannot be detected.
    """
    text = decode(data)
    delimiter, body = _delimiter(text)
    rows, unclosed = _rows(body, delimiter)
    warnings: tuple[str, ...] = ()
    if unclosed is not None:
        rows, _ = _rows(body, delimiter, quoted=False)
        warnings = (
            f"the quotation mark that opens in row {unclosed} is never closed; quotation marks are kept as text",
        )
    if body is not text:
        rows = [(number + 1, cells) for number, cells in rows]
    return _extracted(rows, "text/tab-separated-values" if delimiter == "\t" else "text/csv", warnings)


def _extracted(rows: Sequence[_Row], media_type: str, warnings: tuple[str, ...]) -> Extracted:
    header = _header(rows)
    lines: list[str] = []
    row_starts: list[tuple[int, int]] = []
    headings: tuple[Heading, ...] = ()
    offset = 0
    for index, (number, cells) in enumerate(rows):
        line = " | ".join(cells)
        row_starts.append((offset, number))
        if index == header:
            headings = (Heading(start=offset, level=1, text=_shortened(cells)),)
        lines.append(line)
        offset += len(line) + 1
    return Extracted(
        text="".join(f"{line}\n" for line in lines),
        title=None,
        headings=headings,
        row_starts=tuple(row_starts),
        media_type=media_type,
        warnings=warnings,
    )


def _delimiter(text: str) -> tuple[str, str]:
    """The delimiter, and the text without the line that may declare it."""
    declaration = _DECLARATION.match(text)
    if declaration is not None:
        return declaration[1], text[declaration.end() :]
    sample = text[:_SAMPLE_CHARACTERS]
    if len(sample) < len(text) and "\n" in sample:
        sample = sample[: sample.rfind("\n") + 1]
    lines = sample.splitlines(keepends=True)
    # The second time for a sample that a stray quotation mark makes one cell of.
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        shares = {
            delimiter: _regular_share(csv.reader(lines, delimiter=delimiter, quoting=quoting, skipinitialspace=True))
            for delimiter in _DELIMITERS
        }
        best = max(_DELIMITERS, key=lambda delimiter: shares[delimiter])
        if shares[best] >= _MIN_REGULAR_SHARE:
            return best, text
    return _NO_DELIMITER, text


def _regular_share(reader: Iterable[list[str]]) -> float:
    """The share of the rows that are of the commonest number of cells; 0 where that is one."""
    widths = [len(row) for row in islice(reader, _SAMPLE_ROWS) if row]
    width, count = Counter(widths).most_common(1)[0] if widths else (0, 0)
    return count / len(widths) if width > 1 else 0.0


def _rows(text: str, delimiter: str, *, quoted: bool = True) -> tuple[list[_Row], int | None]:
    """The rows that are not empty with their numbers, and the row in which a quotation opens that nothing closes."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    # The limit is the process's own, and its default less than an article in a cell.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    rows: list[_Row] = []
    number = 0
    for row in csv.reader(_lines(text), delimiter=delimiter, quoting=quoting, skipinitialspace=True):
        number += 1
        if row == [_SENTINEL]:
            return rows, None
        cells = [" ".join(cell.split()) for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            rows.append((number, cells))
    return [], number


def _lines(text: str) -> Iterator[str]:
    """The lines with their ends, and a last one that an open quotation would swallow."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end] if text[end - 1] == "\n" else text[start:end] + "\n"
        start = end
    yield _SENTINEL


def _header(rows: Sequence[_Row]) -> int | None:
    """The index of the header row; what stands before it, as a title does, is narrower than the table."""
    if not rows:
        return None
    width = Counter(len(cells) for _, cells in rows[:_SAMPLE_ROWS]).most_common(1)[0][0]
    for index, (_, cells) in enumerate(rows[:_HEADER_WITHIN_ROWS]):
        if len(cells) < width and len(cells) <= width // 2:
            continue
        return index if len(rows) > index + 1 and _names_columns(cells) else None
    return None


def _names_columns(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return (
        2 * len(filled) > len(cells)
        and len(set(filled)) == len(filled)
        and not any(len(cell) > _MAX_HEADER_CELL_CHARACTERS or _VALUE.fullmatch(cell) for cell in filled)
    )


def _shortened(cells: Sequence[str]) -> str:
    text = " | ".join(cells)
    if len(text) <= _MAX_HEADING_CHARACTERS:
        return text
    return text[: text.rfind(" | ", 0, _MAX_HEADING_CHARACTERS)] + " | …"
