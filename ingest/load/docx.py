"""Word: the body in reading order, with headings, lists, tables, text boxes, charts and notes.

ECMA-376 part 1, section 17. The elements are walked rather than a list of paragraphs, for text also stands in content
controls, text boxes, insertions under review and cells. Page headers and footers, comments and deletions are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from xml.etree.ElementTree import Element

from ingest.load.assembly import Assembly, table_lines, words
from ingest.load.docx_numbering import Numbering
from ingest.load.docx_styles import WORD, Styles, value_of
from ingest.load.extracted import Extracted
from ingest.load.ooxml import COMPATIBILITY, Package, open_package
from ingest.load.ooxml_graphics import Graphics, formula
from ingest.load.properties import meaningful_title, metadata_of, title_of
from ingest.load.table_spans import PlacedCell, PlacedRows
from rag.errors import DocumentError

_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_CHARACTERS = {
    f"{WORD}tab": "\t",
    f"{WORD}br": "\n",
    f"{WORD}cr": "\n",
    f"{WORD}noBreakHyphen": "-",
}
_LEFT_OUT = frozenset(
    WORD + name for name in "pPr rPr del moveFrom instrText delText delInstrText sdtPr sdtEndPr rt".split()
)
_NOTES = {f"{WORD}footnoteReference": "footnote", f"{WORD}endnoteReference": "endnote"}
_BLOCKS = frozenset({f"{WORD}p", f"{WORD}tbl"})


def load(data: bytes) -> Extracted:
    """The text of a Word file; notes stand at the end, and `[^1]` where they belong.

    Raises:
        DocumentError: The file is corrupt, encrypted, or would expand beyond the limits of an archive.
    """
    package = open_package(data)
    body = package.tree(package.main).find(f"{WORD}body")
    if body is None:
        raise DocumentError("corrupt: the Word document has no body")
    reader = _Reader(package)
    reader.blocks(body)
    reader.notes()
    properties = package.properties()
    return reader.out.extracted(
        title=title_of(properties) or meaningful_title(reader.title) or reader.out.first_heading,
        metadata=metadata_of(properties),
        media_type="application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    )


class _Inline:
    """What stands in one paragraph: its text, and what is anchored in it."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.boxes: list[Element] = []
        self.graphics: list[str] = []

    @property
    def found(self) -> int:
        return len(self.pieces) + len(self.boxes) + len(self.graphics)


class _Reader:
    def __init__(self, package: Package) -> None:
        self.out = Assembly()
        self.title: str | None = None
        self._package = package
        self._styles = Styles(package.related(package.main, "styles"))
        self._numbering = Numbering(package.related(package.main, "numbering"))
        self._graphics = Graphics(package, package.main)
        self._noted: list[tuple[str, str]] = []  # kind and id of notes, in the order they are first referred to
        self._numbers: dict[tuple[str, str], int] = {}

    def blocks(self, container: Element) -> None:
        """Writes the paragraphs and tables of a body, a cell, a text box or a note."""
        for block in _within(container, _BLOCKS):
            if block.tag == f"{WORD}p":
                self._paragraph(block)
            else:
                self._table(block)

    def notes(self) -> None:
        """Writes the notes that were referred to."""
        found: dict[tuple[str, str], Element] = {}
        for kind in ("footnote", "endnote"):
            root = self._package.related(self._package.main, f"{kind}s")
            found |= {(kind, note.get(f"{WORD}id", "")): note for note in (() if root is None else root)}
        for number, name in enumerate(self._noted, start=1):  # which grows where notes refer to notes
            if name in found:
                self.out.note(number, self._captured(found[name]))

    def _paragraph(self, paragraph: Element) -> None:
        inline = _Inline()
        self._collect(paragraph, inline)
        text = "".join(inline.pieces)
        properties = paragraph.find(f"{WORD}pPr")
        style = value_of(properties, "pStyle")
        if text.strip():
            self._write(text, properties, style)
        for box in inline.boxes:
            self.blocks(box)
        if inline.graphics:
            self.out.apart()
            for line in inline.graphics:
                self.out.block(line, "row")
            self.out.apart()

    def _write(self, text: str, properties: Element | None, style: str) -> None:
        marker = self._numbering.marker(*self._styles.list_of(properties, style), style)
        level = self._styles.heading_level(properties, style)
        if level is not None:
            if self.title is None and self._styles.is_title(style):
                self.title = words(text)
            self.out.heading(level, marker + text)
        elif marker:
            self.out.block(marker + text.strip(), "item")
        else:
            self.out.block(text, "code" if self._styles.is_code(style) else "text")

    def _collect(self, element: Element, inline: _Inline) -> None:
        for child in element:
            tag = child.tag
            if tag == f"{WORD}t":
                inline.pieces.append(child.text or "")
            elif tag in _CHARACTERS:
                inline.pieces.append(_CHARACTERS[tag])
            elif tag in _LEFT_OUT or (tag == f"{WORD}r" and _is_hidden(child)):
                continue
            elif tag in _NOTES:
                inline.pieces.append(f"[^{self._number_of((_NOTES[tag], child.get(f'{WORD}id', '')))}]")
            elif tag == f"{WORD}txbxContent":
                inline.boxes.append(child)
            elif tag == f"{_MATH}oMath":
                beside = " " if inline.pieces and inline.pieces[-1].endswith("$") else ""
                inline.pieces.append(f"{beside}${words(formula(child))}$")
            elif tag == f"{COMPATIBILITY}AlternateContent":
                self._collect_alternative(child, inline)
            else:
                inline.graphics += self._graphics.lines(child)
                self._collect(child, inline)

    def _number_of(self, note: tuple[str, str]) -> int:
        if note not in self._numbers:
            self._noted.append(note)
            self._numbers[note] = len(self._noted)
        return self._numbers[note]

    def _collect_alternative(self, element: Element, inline: _Inline) -> None:
        """The first of several ways to say the same that says anything."""
        before = inline.found
        for alternative in element:
            self._collect(alternative, inline)
            if inline.found > before:
                return

    def _table(self, table: Element) -> None:
        """Rows of data together, for their columns belong together; what a layout row frames as it is."""
        self.out.apart()
        rows: list[dict[int, PlacedCell | None]] = []
        for row in _within(table, frozenset({f"{WORD}tr"})):
            if row.find(f"{WORD}trPr/{WORD}del") is not None:
                continue
            row_cells = list(_within(row, frozenset({f"{WORD}tc"})))
            if self._is_layout(row, row_cells):
                self._write_rows(rows)
                rows = []
                for cell in row_cells:
                    self.out.apart()
                    self.blocks(cell)
                self.out.apart()
            else:
                rows.append(self._row(row, row_cells))
        self._write_rows(rows)
        self.out.apart()

    def _row(self, row: Element, row_cells: list[Element]) -> dict[int, PlacedCell | None]:
        """The cells by column; None for one that only goes on from the row above."""
        cells: dict[int, PlacedCell | None] = {}
        column = _count(row.find(f"{WORD}trPr"), "gridBefore", 0)
        for cell in row_cells:
            properties = cell.find(f"{WORD}tcPr")
            text = self._captured(cell)
            columns = _count(properties, "gridSpan", 1)
            cells[column] = None if _goes_on(properties) and not text else PlacedCell(text, columns=columns)
            column += columns
        return cells

    def _write_rows(self, rows: list[dict[int, PlacedCell | None]]) -> None:
        for line in table_lines(PlacedRows().read(enumerate(_with_heights(rows)))):
            self.out.block(line, "row")

    def _is_layout(self, row: Element, row_cells: list[Element]) -> bool:
        """A frame around text rather than data: it holds one cell, a table or a heading."""
        if len(row_cells) == 1 and len(row_cells[0].findall(f"{WORD}p")) > 1:
            return True
        if next(row.iter(f"{WORD}tbl"), None) is not None:
            return True
        properties = (paragraph.find(f"{WORD}pPr") for paragraph in row.iter(f"{WORD}p"))
        return any(self._styles.heading_level(each, value_of(each, "pStyle")) for each in properties)

    def _captured(self, container: Element) -> str:
        """The text of a cell or a note on one line."""
        out, self.out = self.out, Assembly()
        self.blocks(container)
        captured = self.out.text
        self.out = out
        return words(captured)


def _within(container: Element, tags: frozenset[str]) -> Iterator[Element]:
    """The nearest elements with one of `tags`, through what only wraps them."""
    for child in container:
        if child.tag in tags:
            yield child
        elif child.tag == f"{COMPATIBILITY}AlternateContent":
            yield from next(filter(None, (list(_within(alternative, tags)) for alternative in child)), [])
        elif child.tag not in _LEFT_OUT:
            yield from _within(child, tags)


def _goes_on(properties: Element | None) -> bool:
    """Whether a cell is merged into the one above it."""
    merge = None if properties is None else properties.find(f"{WORD}vMerge")
    return merge is not None and merge.get(f"{WORD}val", "continue") == "continue"


def _with_heights(rows: list[dict[int, PlacedCell | None]]) -> list[dict[int, PlacedCell]]:
    """The rows with cells that say how many rows they span, which Word writes as cells that go on."""
    found: list[dict[int, PlacedCell]] = []
    below: dict[int, int] = {}
    for row in reversed(rows):
        found.append(
            {column: replace(cell, rows=1 + below.get(column, 0)) for column, cell in row.items() if cell is not None}
        )
        below = {column: 1 + below.get(column, 0) for column, cell in row.items() if cell is None}
    return found[::-1]


def _is_hidden(run: Element) -> bool:
    vanish = run.find(f"{WORD}rPr/{WORD}vanish")
    return vanish is not None and vanish.get(f"{WORD}val", "1") not in ("0", "false", "off")


def _count(properties: Element | None, name: str, default: int) -> int:
    written = value_of(properties, name)
    return int(written) if written.isdecimal() else default
