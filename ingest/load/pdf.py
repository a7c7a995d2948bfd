"""PDF: the text layer, page by page, with the bookmarks as headings, or what is printed as such.

It is read with PDFium, the engine of a widely used browser, which has met more broken files than anything else.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from ingest.load import pdf_layout, pdf_outline
from ingest.load.decoding import clean
from ingest.load.extracted import Extracted
from ingest.load.pdf_lines import paragraphs, words_of
from ingest.load.pdf_outline import Bookmark
from ingest.load.pdf_page import Line, lines_of
from ingest.load.properties import is_placeholder, meaningful_title, metadata
from rag.errors import DocumentError
from rag.types import Heading

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

MAX_PAGES = 5_000
"""At some 10 ms a page this many take about a minute, which is as long as a parser may take by default."""

# PDFium may be used by one thread of a process at a time.
_PDFIUM = threading.Lock()
_PAGE_BREAK = "\n\n"
_MAX_BOOKMARKS = 10_000
# A blank page may have a line and a frame.
_FEW_OBJECTS = 20
_NAMED_SPANS = 20
_METADATA = ("author", "subject", "language", "keywords")


def load(data: bytes) -> Extracted:
    """The text layer of a PDF; pages are parted by a blank line.

    Raises:
        DocumentError: The file is corrupt, password-protected or too long, or no page has text.
    """
    if not data:
        raise DocumentError("the file is empty")
    with _PDFIUM, closing(_open(data)) as document:
        count = len(document)
        if count > MAX_PAGES:
            raise DocumentError(f"it has {count:,} pages, at most {MAX_PAGES:,} are read: split the file")
        lines, warnings = _read(document)
        information = _information(document)
        bookmarks = _bookmarks(document)
    texts = [pdf_layout.page_text(page) for page in lines]
    words = words_of("\n".join(texts))
    pages = [paragraphs(text, words) for text in texts]
    if not any(pages):
        raise DocumentError("no text layer: scanned pages need OCR")
    text = _PAGE_BREAK.join(pages)
    page_starts = _starts(pages)
    return Extracted(
        text=text,
        title=meaningful_title(information.get("title")),
        headings=_headings(bookmarks, lines, text, page_starts),
        page_starts=page_starts,
        metadata=metadata({name: [information[name]] for name in _METADATA if name in information}),
        media_type="application/pdf",
        warnings=warnings,
    )


def _open(data: bytes) -> PdfDocument:
    import pypdfium2.raw as pdfium
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        return PdfDocument(data)
    except PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            raise DocumentError("password-protected PDF: remove the password first") from error
        if error.err_code == pdfium.FPDF_ERR_SECURITY:
            raise DocumentError("encrypted PDF: its kind of encryption is not supported; remove it first") from error
        raise DocumentError(f"corrupt PDF: {error}") from error


def _read(document: PdfDocument) -> tuple[list[list[Line]], tuple[str, ...]]:
    """The lines of every page in reading order, and what could not be read."""
    from pypdfium2 import PdfiumError

    pages: list[list[Line]] = []
    without_text: list[int] = []
    damaged: list[int] = []
    for index in range(len(document)):
        lines: list[Line] = []
        try:
            with closing(document[index]) as page:
                with closing(page.get_textpage()) as text_page:
                    lines = pdf_layout.arranged(lines_of(text_page))
                if not lines and _shows_something(page):
                    without_text.append(index + 1)
        except PdfiumError:
            damaged.append(index + 1)
        pages.append(lines)
    if damaged and not any(pages):
        raise DocumentError(f"corrupt PDF: {_numbered(damaged)} cannot be read")
    warnings: list[str] = []
    if damaged:
        warnings.append(f"{_numbered(damaged)} cannot be read: the file is damaged there")
    if without_text:
        verb = "has" if len(without_text) == 1 else "have"
        warnings.append(f"{_numbered(without_text)} {verb} no text layer: scanned pages need OCR")
    return pages, tuple(warnings)


def _shows_something(page: PdfPage) -> bool:
    """Whether a page without text is more than a blank one with a line or a frame on it."""
    import pypdfium2.raw as pdfium

    count = pdfium.FPDFPage_CountObjects(page)
    kinds = (pdfium.FPDFPageObj_GetType(pdfium.FPDFPage_GetObject(page, index)) for index in range(count))
    return count > _FEW_OBJECTS or any(kind != pdfium.FPDF_PAGEOBJ_PATH for kind in kinds)


def _numbered(pages: Sequence[int]) -> str:
    """`pages 3-5, 9` for 3, 4, 5 and 9."""
    spans: list[list[int]] = []
    for page in pages:
        if spans and spans[-1][-1] == page - 1:
            spans[-1] = [spans[-1][0], page]
        else:
            spans.append([page])
    named = ", ".join("-".join(map(str, span)) for span in spans[:_NAMED_SPANS])
    rest = f" and others ({len(pages)} in all)" if len(spans) > _NAMED_SPANS else ""
    return f"page{'s' if len(pages) > 1 else ''} {named}{rest}"


def _bookmarks(document: PdfDocument) -> list[Bookmark]:
    return list(_each_bookmark(document))


def _each_bookmark(document: PdfDocument) -> Iterator[Bookmark]:
    for count, entry in enumerate(document.get_toc()):
        if count == _MAX_BOOKMARKS:
            return
        destination = entry.get_dest()
        page = destination.get_index() if destination else None
        yield Bookmark(entry.level + 1, entry.get_title(), -1 if page is None else page)


def _starts(pages: list[str]) -> tuple[int, ...]:
    starts: list[int] = []
    start = 0
    for page in pages:
        starts.append(start)
        start += len(page) + len(_PAGE_BREAK)
    return tuple(starts)


def _headings(
    bookmarks: Sequence[Bookmark], pages: Sequence[Sequence[Line]], text: str, page_starts: tuple[int, ...]
) -> tuple[Heading, ...]:
    found = pdf_outline.headings(bookmarks, text, page_starts)
    if len(found) > 1 and 2 * len(found) >= len(bookmarks):
        return found
    # No bookmarks, one for the whole, or those of a longer document of which these pages are a part.
    printed = pdf_outline.headings(pdf_layout.printed_headings(pages), text, page_starts)
    return max(found, printed, key=len)


def _information(document: PdfDocument) -> dict[str, str]:
    """What the document information says, and the language of the catalog, by name in lower case."""
    entries = {**document.get_metadata_dict(), "Language": _language(document)}
    values = {name.lower(): " ".join(clean(value).split()) for name, value in entries.items()}
    return {name: value for name, value in values.items() if not is_placeholder(value)}


def _language(document: PdfDocument) -> str:
    import pypdfium2.raw as pdfium

    size = pdfium.FPDFCatalog_GetLanguage(document, None, 0)
    buffer = (ctypes.c_ushort * size)()
    pdfium.FPDFCatalog_GetLanguage(document, buffer, size)
    return bytes(buffer)[:size].decode("utf-16-le", "replace").rstrip("\0")
