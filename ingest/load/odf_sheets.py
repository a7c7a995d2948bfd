"""The rows of an OpenDocument spreadsheet, with what is written once and repeated many times.

OpenDocument 1.3 part 3, section 9.1. Empty rows and cells go on to the end of a sheet, which costs nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal
from xml.etree.ElementTree import Element

from ingest.load.assembly import spoken, words
from ingest.load.numerals import number
from ingest.load.odf_styles import OFFICE, TEXT
from ingest.load.sheets import Cell, Row, column_name
from ingest.load.table_spans import span

TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"

_CREATOR = "{http://purl.org/dc/elements/1.1/}creator"
_MAX_COLUMNS = 16_384
_MAX_ROWS = 1 << 20
_DURATION = re.compile(r"PT(\d+)H(\d+)M(\d+)(?:[.,]\d+)?S")
_CELLS = {f"{TABLE}table-cell", f"{TABLE}covered-table-cell"}


def table_rows(table: Element) -> Iterator[Element]:
    """The rows of a table, through header rows and groups, not those of tables in its cells."""
    for child in table:
        if child.tag == f"{TABLE}table-row":
            yield child
        elif child.tag in _GROUPS:
            yield from table_rows(child)


def row_cells(row: Element) -> Iterator[tuple[int, int, Element]]:
    """Each cell with the column it starts in, from 0, and the number of columns it is repeated over."""
    column = 0
    for cell in row:
        if cell.tag in _CELLS:
            repeated = _repeated(cell, "columns", _MAX_COLUMNS - column)
            if cell.tag == f"{TABLE}table-cell":
                yield column, repeated, cell
            column += repeated


def spans(cell: Element) -> tuple[int, int]:
    """How many rows and columns a cell spans."""
    return span(cell.get(f"{TABLE}number-rows-spanned")), span(cell.get(f"{TABLE}number-columns-spanned"))


def sheet_rows(table: Element, text_of: Callable[[Element], str]) -> Iterator[Row]:
    """The rows with content, numbered from 1.

    Args:
        table: A sheet.
        text_of: The text of a cell, as shown.
    """
    position = 0
    for element in table_rows(table):
        repeated = _repeated(element, "rows", _MAX_ROWS - position)
        look = element.get(f"{TABLE}style-name", "")
        cells = tuple(
            Cell(place, text, kind, cell.get(f"{TABLE}style-name", look), *spans(cell))
            for column, times, cell in row_cells(element)
            for text, kind in (_value(cell, text_of),)
            if text
            for place in range(column, column + times)
        )
        if cells:
            for row in range(position, position + repeated):
                yield Row(row + 1, cells)
        position += repeated


def cell_notes(table: Element) -> Iterator[str]:
    """What people noted beside the cells of a sheet, as `B4 (Ann): text`."""
    number = 1
    for row in table_rows(table):
        for column, _, cell in row_cells(row):
            for note in cell.findall(f"{OFFICE}annotation"):
                yield annotation(note, f"{column_name(column)}{number}")
        number += _repeated(row, "rows", _MAX_ROWS)


def annotation(note: Element, place: str = "") -> str:
    """Who noted what and where, on one line; empty where nothing was."""
    said = " ".join("".join(paragraph.itertext()) for paragraph in note.iter(f"{TEXT}p"))
    return spoken(words(note.findtext(_CREATOR, "")), words(said), place)


_GROUPS = {f"{TABLE}{name}" for name in ("table-header-rows", "table-rows", "table-row-group")}


def _value(
    cell: Element, text_of: Callable[[Element], str]
) -> tuple[str, Literal["text", "number", "date", "boolean"]]:
    kind = cell.get(f"{OFFICE}value-type", "")
    if kind == "date":
        return cell.get(f"{OFFICE}date-value", "").replace("T", " ").removesuffix(" 00:00:00"), "date"
    if kind == "time":
        stored = cell.get(f"{OFFICE}time-value", "")
        duration = _DURATION.fullmatch(stored)
        return (":".join(part.zfill(2) for part in duration.groups()) if duration else stored), "date"
    if kind == "boolean":
        return cell.get(f"{OFFICE}boolean-value", "").upper(), "boolean"
    if kind in ("float", "currency", "percentage"):
        return number(cell.get(f"{OFFICE}value", "")), "number"
    return text_of(cell).strip(), "text"


def _repeated(element: Element, what: str, most: int) -> int:
    written = element.get(f"{TABLE}number-{what}-repeated", "")
    return max(0, min(int(written) if written.isdecimal() and len(written) < 10 else 1, most))
