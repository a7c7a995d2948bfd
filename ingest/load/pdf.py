"""PDF: the text layer, page by page, with the bookmarks as headings."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from ingest.load import pdf_outline
from ingest.load.decoding import clean
from ingest.load.extracted import Extracted
from ingest.load.pdf_lines import paragraphs, words_of
from rag.errors import DocumentError
from rag.types import Heading, Scalar

if TYPE_CHECKING:
    from pypdf import PdfReader

_PAGE_BREAK = "\n\n"
_PLACEHOLDER = re.compile(r"\(?(?:anonymous|unspecified|unknown|none|null|user|administrator)\)?", re.IGNORECASE)
_NO_TITLE = re.compile(
    r"untitled.*|no title|title|microsoft (?:word|powerpoint|excel)\b.*"
    r"|(?:powerpoint[- ])?pr[eäé]sentation|document ?\d*|slide \d+|scan.?\d*|print|layout \d+"
    r"|.*\.(?:docx?|pptx?|xlsx?|odt|rtf|tex|dvi|ps|eps|pdf|indd|qxd|pmd|fm|wpd|html?|txt|jpe?g|png|tiff?)",
    re.IGNORECASE | re.DOTALL,
)


def load(data: bytes) -> Extracted:
    """The text layer of a PDF; pages are parted by a blank line.

    Raises:
        DocumentError: The file is corrupt or password-protected, or no page has text.
    """
    if not data:
        raise DocumentError("the file is empty")
    with _quiet():
        reader = _open(data)
        pages = _pages(reader)
        words = words_of("\n".join(pages))
        pages = [paragraphs(page, words) for page in pages]
        if not any(pages):
            raise DocumentError("no text layer: scanned pages need OCR")
        text = _PAGE_BREAK.join(pages)
        information = _information(reader)
        page_starts = _starts(pages)
        return Extracted(
            text=text,
            title=_title(information),
            headings=_headings(reader, text, page_starts),
            page_starts=page_starts,
            metadata=_metadata(information),
            media_type="application/pdf",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence for a library that logs every fault it repairs, some in lines of kilobytes."""
    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        # Of two threads the second found the first one's level, which must not be what remains.
        logger.setLevel(level if level <= logging.CRITICAL else logging.NOTSET)


def _open(data: bytes) -> PdfReader:
    from pypdf import PasswordType, PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    try:
        reader = PdfReader(BytesIO(data))
        locked = reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED
    except FileNotDecryptedError:
        locked = True
    except DependencyError as error:
        raise DocumentError(f"encrypted PDF: {error}; install pypdf[crypto]") from error
    except Exception as error:  # pypdf says that broken files may cause any
        raise DocumentError(f"corrupt PDF: {_reason(error)}") from error
    if locked:
        raise DocumentError("password-protected PDF: remove the password first")
    return reader


def _pages(reader: PdfReader) -> list[str]:
    pages: list[str] = []
    try:
        for page in reader.pages:
            pages.append(page.extract_text())  # noqa: PERF401 - the page that fails is counted
    except Exception as error:  # as above
        raise DocumentError(f"corrupt PDF: page {len(pages) + 1} cannot be read: {_reason(error)}") from error
    return pages


def _reason(error: Exception) -> str:
    return clean(str(error)).strip()[:200] or type(error).__name__


def _starts(pages: list[str]) -> tuple[int, ...]:
    starts: list[int] = []
    start = 0
    for page in pages:
        starts.append(start)
        start += len(page) + len(_PAGE_BREAK)
    return tuple(starts)


def _headings(reader: PdfReader, text: str, page_starts: tuple[int, ...]) -> tuple[Heading, ...]:
    try:
        return pdf_outline.headings(reader, text, page_starts)
    except Exception:
        # Broken bookmarks take nothing from the text, and a document is worth more than its outline.
        logging.getLogger(__name__).debug("the outline of a PDF cannot be read", exc_info=True)
        return ()


def _information(reader: PdfReader) -> dict[str, str]:
    """What the document information says, and the language of the catalog; empty where it cannot be read."""
    try:
        entries = {**(reader.metadata or {}), "/Language": reader.root_object.get("/Lang")}
    except Exception:
        logging.getLogger(__name__).debug("the information of a PDF cannot be read", exc_info=True)
        return {}
    values = {name: " ".join(clean(value).split()) for name, value in entries.items() if isinstance(value, str)}
    return {
        name.strip("/").lower(): value for name, value in values.items() if value and not _PLACEHOLDER.fullmatch(value)
    }


def _title(information: dict[str, str]) -> str | None:
    """The title of the document information, unless a program put it there."""
    title = information.get("title", "")
    meaningful = len(title) > 2 and any(map(str.isalpha, title)) and not _NO_TITLE.fullmatch(title)
    return title if meaningful and "\\" not in title else None


def _metadata(information: dict[str, str]) -> dict[str, Scalar | list[str]]:
    metadata: dict[str, Scalar | list[str]] = {
        name: information[name] for name in ("author", "subject", "language") if name in information
    }
    keywords = [keyword.strip() for keyword in re.split("[,;]", information.get("keywords", ""))]
    if any(keywords):
        metadata["keywords"] = [keyword for keyword in keywords if keyword]
    return metadata
