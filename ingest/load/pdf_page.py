"""One page of a PDF as lines with their place and print, in the order in which the page's content names them.

PDFium groups characters to lines. What it leaves to its callers is done here: the gaps inside a line that part columns
and cells, and letters of right-to-left scripts that one glyph stands for.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pypdfium2 import PdfTextPage

HYPHEN = "\x02"
"""What PDFium puts where a word is broken at a line end; the line goes on after it."""

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]{2,}")
_LINE_END = re.compile(f"[\r\n]+|{HYPHEN}")
_BOLD = re.compile(r"bold|black|heavy|demi|medi(?:um)?$|cmbx|sfbx", re.IGNORECASE)
_SAMPLES = 5
# In sizes of the font: wider than any blank of justified text.
_GAP = 1.6
_FONT_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of a line that a wide gap parts from the next; `left` and `right` in points from the page's left."""

    text: str
    left: float
    right: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page.

    Attributes:
        cells: At least one.
        base: Of its first character, in points from the bottom of the page.
        size: Of most of its characters, in points as printed.
        broken: It ends in the middle of a word.
    """

    cells: tuple[Cell, ...]
    base: float
    size: float
    bold: bool
    broken: bool = False

    @property
    def text(self) -> str:
        """The cells with a blank between them."""
        return " ".join(cell.text for cell in self.cells)


def lines_of(page: PdfTextPage) -> list[Line]:
    """The lines of a page that have text."""
    characters = _Characters(page)
    text = characters.text
    lines: list[Line] = []
    start = 0
    for end in [*_LINE_END.finditer(text), None]:
        stop = end.start() if end else len(text)
        if text[start:stop].strip():
            lines.append(_line(characters, start, stop, broken=end is not None and end.group() == HYPHEN))
        start = end.end() if end else stop
    return lines


def _line(characters: _Characters, start: int, stop: int, *, broken: bool) -> Line:
    indices = [index for index in range(start, stop) if not characters.text[index].isspace()]
    step = max(1, len(indices) // _SAMPLES)
    samples = indices[step // 2 :: step]
    sizes = sorted(characters.size(index) for index in samples)
    size = sizes[len(sizes) // 2]
    cells = list(_cells(characters, start, stop, size * _GAP))
    if len(cells) > 1 and len(_RIGHT_TO_LEFT.findall(characters.text, start, stop)) > 1:
        cells.sort(key=lambda cell: cell.right, reverse=True)
    return Line(
        cells=tuple(cells),
        base=characters.origin(indices[0])[1],
        size=size,
        bold=all(characters.is_bold(index) for index in samples),
        broken=broken,
    )


def _cells(characters: _Characters, start: int, stop: int, gap: float) -> Iterator[Cell]:
    first = None
    last = start
    for match in re.finditer(r"\S+", characters.text[start:stop]):
        begin, end = start + match.start(), start + match.end() - 1
        if first is None:
            first = begin
        # Of a right-to-left line the next word stands left of this one.
        elif 0 < gap < characters.left(begin) - characters.right(last):
            yield characters.cell(first, last)
            first = begin
        last = end
    if first is not None:
        yield characters.cell(first, last)


class _Characters:
    """The characters of a page by index, as PDFium counts them."""

    def __init__(self, page: PdfTextPage) -> None:
        import pypdfium2.raw as pdfium

        self._pdfium = pdfium
        self._page = page.raw
        self._x, self._y = ctypes.c_double(), ctypes.c_double()
        self._box = tuple(ctypes.c_double() for _ in range(4))
        self._matrix = pdfium.FS_MATRIX()
        self._name = ctypes.create_string_buffer(_FONT_NAME_BYTES)
        code = pdfium.FPDFText_GetUnicode
        codes = [code(self._page, index) for index in range(pdfium.FPDFText_CountChars(self._page))]
        # Half a character stands for none, as does 0, which PDFium gives for a glyph that it cannot name.
        text = "".join(chr(code) if 0 < code < 0xD800 or 0xDFFF < code <= 0x10FFFF else "\ufffd" for code in codes)
        self.text = _RIGHT_TO_LEFT.sub(self._in_order, text)

    def _in_order(self, match: re.Match[str]) -> str:
        """Letters of one glyph, such as lam and alef, which PDFium reverses with the glyphs, put in order again."""
        glyphs: list[str] = []
        origin: tuple[float, float] | None = None
        for index, letter in enumerate(match.group(), start=match.start()):
            before, origin = origin, self.origin(index)
            if origin == before:
                glyphs[-1] = letter + glyphs[-1]
            else:
                glyphs.append(letter)
        return "".join(glyphs)

    def cell(self, first: int, last: int) -> Cell:
        return Cell(" ".join(self.text[first : last + 1].split()), self.left(first), self.right(last))

    def origin(self, index: int) -> tuple[float, float]:
        self._pdfium.FPDFText_GetCharOrigin(self._page, index, self._x, self._y)
        return self._x.value, self._y.value

    def left(self, index: int) -> float:
        self._pdfium.FPDFText_GetCharBox(self._page, index, *self._box)
        return self._box[0].value

    def right(self, index: int) -> float:
        self._pdfium.FPDFText_GetCharBox(self._page, index, *self._box)
        return self._box[1].value

    def size(self, index: int) -> float:
        # The size alone says little: many programs write 1 and scale the text.
        size: float = self._pdfium.FPDFText_GetFontSize(self._page, index)
        if self._pdfium.FPDFText_GetMatrix(self._page, index, self._matrix):
            size *= math.hypot(self._matrix.c, self._matrix.d)
        return round(size, 1)

    def is_bold(self, index: int) -> bool:
        flags = ctypes.c_int()
        self._pdfium.FPDFText_GetFontInfo(self._page, index, self._name, _FONT_NAME_BYTES, flags)
        return _BOLD.search(self._name.value.decode("utf-8", "replace")) is not None
