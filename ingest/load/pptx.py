"""PowerPoint: a page per slide, its title as heading, with tables, charts, diagrams, the speaker's notes and comments.

ECMA-376 part 1, section 19. Hidden slides count as slides. Dates, footers and slide numbers are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from ingest.load.assembly import Assembly, table_lines, words
from ingest.load.extracted import Extracted
from ingest.load.ooxml import COMPATIBILITY, DRAWING, RELATION, Package, open_package
from ingest.load.ooxml_comments import people, slide_comments
from ingest.load.ooxml_graphics import Graphics, formula
from ingest.load.pptx_bullets import PRESENTATION, Bullets, placeholder_of
from ingest.load.properties import metadata_of, title_of
from ingest.load.table_spans import PlacedCell, PlacedRows, span
from ingest.load.xml_tree import local_name

_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_TITLES = frozenset({"title", "ctrTitle"})
_AROUND = frozenset({"dt", "ftr", "hdr", "sldNum", "sldImg"})
_NO = ("0", "false")


def load(data: bytes) -> Extracted:
    """The text of a presentation; what a speaker noted follows its slide after `Notes:`, then `Comments:`.

    Raises:
        DocumentError: The file is corrupt, encrypted, or would expand beyond the limits of an archive.
    """
    package = open_package(data)
    out = Assembly()
    reader = _Reader(package, out)
    relationships = package.relationships(package.main)
    for reference in package.tree(package.main).iter(f"{PRESENTATION}sldId"):
        out.page()
        related = relationships.get(reference.get(f"{RELATION}id", ""))
        if related is not None:
            reader.slide(related.target)
    properties = package.properties()
    return out.extracted(
        title=title_of(properties) or out.first_heading,
        metadata=metadata_of(properties),
        media_type="application/vnd.openxmlformats-officedocument.presentationml.presentation",
    )


class _Reader:
    def __init__(self, package: Package, out: Assembly) -> None:
        self._package = package
        self._out = out
        self._names = people(package)
        self._read: set[str] = set()  # slides and notes, none of which is shown twice
        self._sheets: dict[str, Element] = {}  # layouts and masters

    def slide(self, part: str) -> None:
        """Writes one slide; nothing where it is missing or was written before."""
        if not self._is_new(part):
            return
        shapes = list(_shapes(self._package.tree(part)))
        titles = [shape for shape in shapes if _role(shape) in _TITLES]
        for shape in titles:
            self._out.heading(1, " ".join(_text(paragraph) for paragraph in shape.iter(f"{DRAWING}p")))
        bullets, graphics = Bullets(self._above(part)), Graphics(self._package, part)
        for shape in shapes:
            if shape.tag == f"{PRESENTATION}graphicFrame":
                _frame(self._out, shape, graphics)
            elif _role(shape) not in _TITLES | _AROUND:
                _body(self._out, shape, bullets)
        for notes in self._package.targets(part, "notesSlide"):
            if self._is_new(notes):
                _speaker_notes(self._out, self._package.tree(notes))
        if comments := list(filter(None, slide_comments(self._package, part, self._names))):
            self._out.paragraph("\n".join(["Comments:", *comments]))

    def _is_new(self, part: str) -> bool:
        is_new = part in self._package.archive and part not in self._read
        self._read.add(part)
        return is_new

    def _above(self, part: str) -> list[Element]:
        """The slide's layout and the layout's master."""
        found: list[Element] = []
        for kind in ("slideLayout", "slideMaster"):
            part = next(iter(self._package.targets(part, kind)), "")
            if not part:
                break
            if part not in self._sheets:
                self._sheets[part] = self._package.tree(part)
            found.append(self._sheets[part])
        return found


def _shapes(root: Element) -> Iterator[Element]:
    """The shapes and frames in the order they were drawn, groups opened; of alternatives the first with any."""
    for child in root:
        if child.tag in (f"{PRESENTATION}sp", f"{PRESENTATION}cxnSp", f"{PRESENTATION}graphicFrame"):
            yield child
        elif child.tag == f"{COMPATIBILITY}AlternateContent":
            yield from next(filter(None, (list(_shapes(alternative)) for alternative in child)), [])
        else:
            yield from _shapes(child)


def _role(shape: Element) -> str | None:
    placeholder = placeholder_of(shape)
    return None if placeholder is None else placeholder.get("type", "")


def _body(out: Assembly, shape: Element, bullets: Bullets) -> None:
    paragraphs = [each for body in shape.findall(f"{PRESENTATION}txBody") for each in body.iter(f"{DRAWING}p")]
    first = True
    for paragraph, marker in zip(paragraphs, bullets.markers(shape, paragraphs), strict=True):
        text = _text(paragraph)
        if text.strip():
            (out.paragraph if first else out.line)(marker + text.strip())
            first = False


def _frame(out: Assembly, frame: Element, graphics: Graphics) -> None:
    """A table, a chart or a diagram."""
    rows = [_row(row) for row in frame.iter(f"{DRAWING}tr")]
    lines = table_lines(PlacedRows().read(enumerate(rows)))
    for element in () if rows else frame.iter():
        lines += graphics.lines(element)
    out.paragraph("\n".join(line for line in lines if line))


def _speaker_notes(out: Assembly, notes: Element) -> None:
    bodies = (shape for shape in _shapes(notes) if _role(shape) == "body")
    said = [_text(paragraph) for shape in bodies for paragraph in shape.iter(f"{DRAWING}p")]
    if any(map(str.strip, said)):
        out.paragraph("Notes:\n" + "\n".join(said))


def _row(row: Element) -> dict[int, PlacedCell]:
    return {
        column: PlacedCell(
            words(" ".join(map(_text, cell.iter(f"{DRAWING}p")))), span(cell.get("rowSpan")), span(cell.get("gridSpan"))
        )
        for column, cell in enumerate(row.iter(f"{DRAWING}tc"))
        if cell.get("hMerge", "0") in _NO and cell.get("vMerge", "0") in _NO
    }


def _text(paragraph: Element) -> str:
    pieces: list[str] = []
    _collect(paragraph, pieces)
    return "".join(pieces)


def _collect(element: Element, pieces: list[str]) -> None:
    for child in element:
        if child.tag == f"{DRAWING}t":
            pieces.append(child.text or "")
        elif child.tag == f"{DRAWING}br":
            pieces.append("\n")
        elif child.tag == f"{_MATH}oMath":
            pieces.append(f"${words(formula(child))}$")
        elif child.tag == f"{COMPATIBILITY}AlternateContent":
            before = len(pieces)
            for alternative in child:
                _collect(alternative, pieces)
                if len(pieces) > before:
                    break
        elif local_name(child) not in ("pPr", "rPr", "endParaRPr"):
            _collect(child, pieces)
