"""Excel: a page per sheet, with the values that were last computed, each row by its number.

ECMA-376 part 1, section 18. Sheets are streamed: the cells that are there are read, not the area they span, which a
single formatted cell makes gigabytes of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

from ingest.load.assembly import Assembly
from ingest.load.extracted import Extracted
from ingest.load.ooxml import DRAWING, RELATION, Package, open_package
from ingest.load.ooxml_comments import cell_notes, people
from ingest.load.ooxml_graphics import Graphics, plain
from ingest.load.properties import metadata_of, title_of
from ingest.load.sheets import MAX_CHARACTERS, Cell, Row, SheetWriter
from ingest.load.xlsx_merges import column_of, merged_cells
from ingest.load.xlsx_values import DateKind, as_date, date_kinds, shown
from ingest.load.xml_tree import elements, local_name
from rag.errors import DocumentError

_REFERENCE = re.compile("([A-Z]{1,3})([0-9]{1,7})")


@dataclass(frozen=True, slots=True)
class _Workbook:
    package: Package
    strings: list[str]
    date_kinds: list[DateKind]
    from_1904: bool


def load(data: bytes) -> Extracted:
    """The text of a workbook; charts, text boxes and notes follow the rows of their sheet.

    Raises:
        DocumentError: The file is corrupt, encrypted, binary (.xlsb), or too large.
    """
    package = open_package(data)
    if package.main.endswith(".bin"):
        raise DocumentError("unsupported format: binary workbook (.xlsb); save it as .xlsx")
    root = package.tree(package.main)
    workbook = _Workbook(
        package=package,
        strings=_shared_strings(package),
        date_kinds=date_kinds(package.related(package.main, "styles")),
        from_1904=any(
            local_name(each) == "workbookPr" and each.get("date1904") in ("1", "true", "on") for each in root
        ),
    )
    relationships = package.relationships(package.main)
    out = Assembly()
    writer = SheetWriter(out)
    read: set[str] = set()
    names = people(package)
    for sheet in root.iter():
        related = relationships.get(sheet.get(f"{RELATION}id", "")) if local_name(sheet) == "sheet" else None
        if related is not None and related.target in package.archive and related.target not in read:
            read.add(related.target)
            rows = _rows(workbook, related.target) if related.kind == "worksheet" else iter(())
            writer.write(sheet.get("name", ""), rows, _notes(package, related.target, names))
    properties = package.properties()
    return out.extracted(
        title=title_of(properties),
        metadata=metadata_of(properties),
        media_type="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    )


def _shared_strings(package: Package) -> list[str]:
    for part in package.targets(package.main, "sharedStrings"):
        strings: list[str] = []
        characters = 0
        with package.archive.opened(part) as stream:
            for item in elements(stream, part, frozenset({"si"})):
                strings.append(_text(item))
                characters += len(strings[-1])
                if characters > MAX_CHARACTERS:
                    raise DocumentError(f"too large: over {MAX_CHARACTERS:,} characters in its strings")
        return strings
    return []


def _text(item: Element) -> str:
    """The runs of a string without the readings above East Asian characters."""
    if local_name(item) == "rPh":
        return ""
    return (item.text or "") if local_name(item) == "t" else "".join(map(_text, item))


def _rows(workbook: _Workbook, part: str) -> Iterator[Row]:
    spans = merged_cells(workbook.package.archive, part)
    with workbook.package.archive.opened(part) as stream:
        number = 0
        for element in elements(stream, part, frozenset({"row"})):
            written = element.get("r", "")
            number = int(written) if written.isdecimal() else number + 1
            cells = tuple(_cells(workbook, element))
            if cells:
                yield Row(number, tuple(_spanning(cells, spans[number])) if number in spans else cells)


def _spanning(cells: tuple[Cell, ...], spans: dict[int, tuple[int, int]]) -> Iterator[Cell]:
    for cell in cells:
        rows, columns = spans.get(cell.column, (1, 1))
        yield replace(cell, rows=rows, columns=columns)


def _cells(workbook: _Workbook, row: Element) -> Iterator[Cell]:
    column = -1
    for element in row:
        reference = _REFERENCE.fullmatch(element.get("r", ""))
        column = column_of(reference[1]) if reference else column + 1
        cell = _cell(workbook, element, column)
        if cell.text.strip():
            yield cell


def _cell(workbook: _Workbook, element: Element, column: int) -> Cell:
    kind, look = element.get("t", ""), element.get("s", "")
    inline = next((child for child in element if local_name(child) == "is"), None)
    if inline is not None:
        return Cell(column, _text(inline), "text", look)
    stored = next((child.text or "" for child in element if local_name(child) == "v"), "")
    if not stored:
        return Cell(column, "")
    if kind == "d":
        return Cell(column, stored, "date", look)
    date_kind = workbook.date_kinds[int(look)] if look.isdecimal() and int(look) < len(workbook.date_kinds) else ""
    if date_kind and kind in ("", "n"):
        date = as_date(stored, date_kind, from_1904=workbook.from_1904)
        if date is not None:
            return Cell(column, date, "date", look)
    text, meaning = shown(stored, kind, workbook.strings)
    return Cell(column, text, meaning, look)


def _notes(package: Package, part: str, names: Mapping[str, str]) -> list[str]:
    """What stands beside the cells: text boxes, charts, and notes by their cell."""
    lines: list[str] = []
    for drawing in package.targets(part, "drawing"):
        graphics = Graphics(package, drawing)
        for element in package.tree(drawing).iter():
            if local_name(element) == "txBody":
                lines += [plain(paragraph) for paragraph in element.iter(f"{DRAWING}p")]
            else:
                lines += graphics.lines(element)
    lines += cell_notes(package, part, names)
    return [line for line in lines if line]
