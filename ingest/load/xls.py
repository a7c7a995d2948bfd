"""Excel up to 2003: a page per sheet, with the values that were last computed, each row by its number."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import time
from io import StringIO
from typing import TYPE_CHECKING

from ingest.load.assembly import Assembly
from ingest.load.extracted import Extracted
from ingest.load.numerals import number
from ingest.load.properties import metadata
from ingest.load.sheets import Cell, Row, SheetWriter
from rag.errors import DocumentError

if TYPE_CHECKING:
    import xlrd


def load(data: bytes) -> Extracted:
    """The text of a workbook.

    Raises:
        DocumentError: The file is corrupt, password-protected, or too large.
    """
    import xlrd

    try:
        book = xlrd.open_workbook(file_contents=data, logfile=StringIO(), ragged_rows=True)
    except Exception as error:  # broken files cause any
        if "encrypted" in str(error).lower():
            raise DocumentError("password-protected workbook: remove the password first") from error
        raise DocumentError(f"corrupt workbook: {error or type(error).__name__}") from error
    out = Assembly()
    writer = SheetWriter(out)
    for sheet in book.sheets():
        writer.write(sheet.name, _rows(book, sheet))
    return out.extracted(
        title=None, metadata=metadata({"author": [book.user_name or ""]}), media_type="application/vnd.ms-excel"
    )


def _rows(book: xlrd.book.Book, sheet: xlrd.sheet.Sheet) -> Iterator[Row]:
    for position in range(sheet.nrows):
        cells = tuple(
            cell
            for column, (kind, value) in enumerate(
                zip(sheet.row_types(position), sheet.row_values(position), strict=True)
            )
            if (cell := _cell(book, column, kind, value)).text.strip()
        )
        if cells:
            yield Row(position + 1, cells)


def _cell(book: xlrd.book.Book, column: int, kind: int, value: str | float) -> Cell:
    import xlrd

    if kind == xlrd.XL_CELL_NUMBER:
        return Cell(column, number(repr(value)), "number")
    if kind == xlrd.XL_CELL_BOOLEAN:
        return Cell(column, "TRUE" if value else "FALSE", "boolean")
    if kind == xlrd.XL_CELL_ERROR:
        return Cell(column, xlrd.error_text_from_code.get(int(value), "#ERROR!"))
    if kind == xlrd.XL_CELL_DATE:
        try:
            moment = xlrd.xldate_as_datetime(value, book.datemode)
        except (ValueError, OverflowError):
            return Cell(column, number(repr(value)), "number")
        if float(value) < 1:
            return Cell(column, moment.time().isoformat("seconds"), "date")
        whole_day = moment.time() == time()
        return Cell(column, moment.date().isoformat() if whole_day else moment.isoformat(" ", "seconds"), "date")
    return Cell(column, str(value))
