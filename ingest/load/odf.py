"""OpenDocument: texts, presentations with a page per slide, and spreadsheets with a page per sheet.

OpenDocument 1.3 part 3. Comments in texts and deletions are left out, and so are the headers and footers of pages.
"""

from __future__ import annotations

import posixpath
from xml.etree.ElementTree import Element

from ingest.load.archive import Archive, open_archive
from ingest.load.assembly import Assembly, table_lines, words
from ingest.load.extracted import Extracted
from ingest.load.odf_sheets import TABLE, annotation, cell_notes, row_cells, sheet_rows, spans, table_rows
from ingest.load.odf_styles import OFFICE, TEXT, Styles
from ingest.load.properties import meaningful_title, metadata_of, readable, title_of
from ingest.load.sheets import SheetWriter
from ingest.load.table_spans import PlacedCell, PlacedRows
from ingest.load.xml_tree import local_name, parse
from rag.errors import DocumentError

_DRAW = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}"
_PRESENTATION = "{urn:oasis:names:tc:opendocument:xmlns:presentation:1.0}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_AROUND = frozenset({"page-number", "date-time", "footer", "header", "page"})
_LEFT_OUT = frozenset(
    {f"{OFFICE}annotation", f"{OFFICE}annotation-end", f"{OFFICE}forms", f"{TEXT}tracked-changes", f"{TEXT}ruby-text"}
    | {f"{_PRESENTATION}notes", f"{TEXT}note-citation"}
)
_DRAWN = frozenset(
    f"{_DRAW}{name}" for name in "frame custom-shape rect ellipse circle line connector polygon path g text-box".split()
)
_MAX_SPACES = 100
_MAX_LEVEL = 10


def load(data: bytes) -> Extracted:
    """The text of a document; notes stand at the end, and `[^1]` where they belong.

    Raises:
        DocumentError: The file is corrupt, encrypted, or too large.
    """
    archive = open_archive(data)
    if "META-INF/manifest.xml" in archive and b"encryption-data" in archive.read("META-INF/manifest.xml"):
        raise DocumentError("password-protected document: remove the password first")
    content = parse(archive.read("content.xml"), "content.xml")
    body = content.find(f"{OFFICE}body")
    root = None if body is None else next(iter(body), None)
    if root is None:
        raise DocumentError("corrupt: the document has no body")
    styles = parse(archive.read("styles.xml"), "styles.xml") if "styles.xml" in archive else None
    reader = _Reader(archive, Styles(content, styles))
    kind = local_name(root)
    if kind == "spreadsheet":
        reader.sheets(root)
    elif kind in ("presentation", "drawing"):
        reader.slides(root)
    else:
        reader.blocks(root)
    reader.notes()
    properties = readable(lambda: parse(archive.read("meta.xml"), "meta.xml"))
    title = title_of(properties) or meaningful_title(reader.title)
    return reader.out.extracted(
        title=title if kind == "spreadsheet" else title or reader.out.first_heading,
        metadata=metadata_of(properties),
        media_type=f"application/vnd.oasis.opendocument.{'graphics' if kind == 'drawing' else kind}",
    )


class _Reader:
    def __init__(self, archive: Archive, styles: Styles) -> None:
        self.out = Assembly()
        self.title: str | None = None
        self._archive = archive
        self._styles = styles
        self._notes: list[Element] = []
        self._objects: set[str] = set()  # charts, none of which is written twice
        self._continued: dict[str, int] = {}  # the last number of each list style at its top level

    def blocks(self, container: Element, marker: str = "") -> None:
        """Writes paragraphs, lists, tables and shapes; the first paragraph after `marker`."""
        for child in container:
            if child.tag in (f"{TEXT}h", f"{TEXT}p"):
                self._paragraph(child, marker)
                marker = ""
            elif child.tag == f"{TEXT}list":
                self._list(child, "", [])
            elif child.tag == f"{TABLE}table":
                self._table(child)
            elif child.tag == f"{_DRAW}object":
                self._object(child.get(_LINK, ""))
            elif child.tag not in _LEFT_OUT:
                self.blocks(child)

    def slides(self, root: Element) -> None:
        """Writes a page per slide: its title, what else is on it, what the speaker noted."""
        for page in root.findall(f"{_DRAW}page"):
            self.out.page()
            shapes = [shape for shape in page if shape.get(f"{_PRESENTATION}class") not in _AROUND]
            titles = [shape for shape in shapes if shape.get(f"{_PRESENTATION}class") == "title"]
            for shape in titles:
                self.out.heading(1, " ".join(self._inline(paragraph)[0] for paragraph in shape.iter(f"{TEXT}p")))
            for shape in shapes:
                if shape not in titles and shape.tag not in _LEFT_OUT:
                    self.out.apart()
                    self._shape(shape)
            for notes in page.findall(f"{_PRESENTATION}notes"):
                self._speaker_notes(notes)
            comments = [annotation(each) for each in page.findall(f"{OFFICE}annotation")]
            if any(comments):
                self.out.paragraph("\n".join(["Comments:", *filter(None, comments)]))

    def sheets(self, root: Element) -> None:
        """Writes a page per sheet."""
        writer = SheetWriter(self.out)
        for table in root.findall(f"{TABLE}table"):
            shapes = table.find(f"{TABLE}shapes")
            notes = ["" if shapes is None else self._captured(shapes), *cell_notes(table)]
            writer.write(table.get(f"{TABLE}name", ""), sheet_rows(table, self._captured), [*filter(None, notes)])

    def notes(self) -> None:
        """Writes the notes that were referred to."""
        for number, note in enumerate(self._notes, start=1):
            self.out.note(number, self._captured(note))

    def _paragraph(self, paragraph: Element, marker: str) -> None:
        text, drawn = self._inline(paragraph)
        style = paragraph.get(f"{TEXT}style-name", "")
        is_title = self._styles.is_title(style)
        if is_title and self.title is None:
            self.title = words(text)
        if text.strip() and (paragraph.tag == f"{TEXT}h" or is_title):
            level = paragraph.get(f"{TEXT}outline-level", "1")
            self.out.heading(min(int(level), _MAX_LEVEL) if level.isdecimal() else 1, text)
        elif text.strip():
            marker = marker if self._styles.is_numbered(style) else ""
            is_code = self._styles.is_code(style)
            self.out.block(marker + text.strip(), "item" if marker else "code" if is_code else "text")
        for shape in drawn:
            self._shape(shape)

    def _shape(self, shape: Element) -> None:
        if shape.tag == f"{TABLE}table":
            self._table(shape)
        else:
            self.blocks(shape)

    def _list(self, element: Element, style: str, around: list[int]) -> None:
        style = element.get(f"{TEXT}style-name", style) or self._style_of_items(element)
        level = len(around) + 1
        number = self._styles.first_number(style, level) - 1
        if element.get(f"{TEXT}continue-numbering") == "true" or element.get(f"{TEXT}continue-list"):
            number = self._continued.get(style, number) if level == 1 else number
        for item in element:
            if item.tag == f"{TEXT}list-item":
                start = item.get(f"{TEXT}start-value", "")
                number = int(start) if start.isdecimal() else number + 1
                self._item(item, self._styles.marker(style, level, [*around, number]), style, [*around, number])
            elif item.tag == f"{TEXT}list-header":
                self._item(item, "", style, [*around, number])
        if level == 1:
            self._continued[style] = number

    def _item(self, item: Element, marker: str, style: str, numbers: list[int]) -> None:
        for child in item:
            if child.tag == f"{TEXT}list":
                self._list(child, style, numbers)
            elif child.tag in (f"{TEXT}p", f"{TEXT}h"):
                self._paragraph(child, marker)
                marker = ""
            elif child.tag not in _LEFT_OUT:
                self.blocks(child)

    def _style_of_items(self, element: Element) -> str:
        paragraph = next(element.iter(f"{TEXT}p"), None)
        return "" if paragraph is None else self._styles.list_of(paragraph.get(f"{TEXT}style-name", ""))

    def _table(self, table: Element) -> None:
        """Rows of data together, for their columns belong together; what a layout row frames as it is."""
        self.out.apart()
        rows: list[dict[int, PlacedCell]] = []
        for row in table_rows(table):
            if _is_layout(row):
                self._write_rows(rows)
                rows = []
                for _, _, cell in row_cells(row):
                    self.out.apart()
                    self.blocks(cell)
                self.out.apart()
            else:
                rows.append(
                    {column: PlacedCell(self._captured(cell), *spans(cell)) for column, _, cell in row_cells(row)}
                )
        self._write_rows(rows)
        self.out.apart()

    def _write_rows(self, rows: list[dict[int, PlacedCell]]) -> None:
        for line in table_lines(PlacedRows().read(enumerate(rows))):
            self.out.block(line, "row")

    def _object(self, link: str) -> None:
        """The title and the data of a chart that is embedded."""
        part = posixpath.normpath(posixpath.join(link, "content.xml"))
        if part in self._objects or part not in self._archive:
            return
        self._objects.add(part)
        root = parse(self._archive.read(part), part)
        if next((each for each in root.iter() if local_name(each) == "chart"), None) is not None:
            self.blocks(root)

    def _speaker_notes(self, notes: Element) -> None:
        frames = (frame for frame in notes if frame.get(f"{_PRESENTATION}class") == "notes")
        said = [self._inline(paragraph)[0] for frame in frames for paragraph in frame.iter(f"{TEXT}p")]
        if any(map(str.strip, said)):
            self.out.paragraph("Notes:\n" + "\n".join(said))

    def _captured(self, container: Element) -> str:
        """The text of a cell or a note on one line."""
        out, self.out = self.out, Assembly()
        self.blocks(container)
        captured = self.out.text
        self.out = out
        # Presentations make a list of every cell.
        return words(captured if "\n" in captured else captured.removeprefix("- "))

    def _inline(self, element: Element) -> tuple[str, list[Element]]:
        """The text of a paragraph, and the shapes that are anchored in it."""
        pieces: list[str] = []
        drawn: list[Element] = []
        self._collect(element, pieces, drawn)
        return "".join(pieces), drawn

    def _collect(self, element: Element, pieces: list[str], drawn: list[Element]) -> None:
        pieces.append(element.text or "")
        for child in element:
            if child.tag == f"{TEXT}s":
                count = child.get(f"{TEXT}c", "1")
                pieces.append(" " * (min(int(count), _MAX_SPACES) if count.isdecimal() else 1))
            elif child.tag == f"{TEXT}tab":
                pieces.append("\t")
            elif child.tag == f"{TEXT}line-break":
                pieces.append("\n")
            elif child.tag == f"{TEXT}note":
                self._notes.append(child)
                pieces.append(f"[^{len(self._notes)}]")
            elif child.tag in _DRAWN:
                drawn.append(child)
            elif child.tag not in _LEFT_OUT:
                self._collect(child, pieces, drawn)
            pieces.append(child.tail or "")


def _is_layout(row: Element) -> bool:
    """A frame around text rather than data: it holds a table, a heading, or one cell with several paragraphs."""
    cells = [cell for _, _, cell in row_cells(row)]
    if len(cells) == 1 and len(cells[0].findall(f"{TEXT}p")) > 1:
        return True
    return any(next(row.iter(tag), None) is not None for tag in (f"{TABLE}table", f"{TEXT}h"))
