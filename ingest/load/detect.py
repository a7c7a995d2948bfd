"""Which parser reads a file: what its content shows, then what its name says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

from ingest.load import html, pdf, text
from ingest.load.extracted import Extracted
from ingest.load.formats import PARSERS, Parser
from rag.errors import DocumentError

SUPPORTED_SUFFIXES = frozenset(PARSERS)
"""In lower case, with the dot."""

_SNIFFED_BYTES = 4096
_SURROGATE = re.compile("[\ud800-\udfff]")
_PDF = re.compile(rb"\s*%PDF-\d")
# Only what makes a whole page: Markdown may begin with any other tag.
_HTML = re.compile(
    rb"\s*(?:<\?xml\b[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)


def extract(data: bytes, name: str) -> Extracted:
    """The text of one file with its structure.

    Content comes first: a page that was saved as `report.pdf` is read as the page it is. A name without a suffix, as
    of README, is plain text.

    Args:
        data: The whole file.
        name: Its name; only the suffix counts.

    Raises:
        DocumentError: A short reason why nothing can be read: the file is empty, binary, corrupt, locked, without a
            text layer, in an unknown encoding, or of an unsupported format.
    """
    suffix = PurePath(name).suffix.lower()
    if not data:
        raise DocumentError("the file is empty")
    # As ASCII would read the beginning of UTF-16 and UTF-32, too.
    beginning = data[:_SNIFFED_BYTES].lstrip(b"\xef\xbb\xbf\xff\xfe\0").replace(b"\0", b"")
    parser: Parser
    if _PDF.match(beginning):
        parser = pdf.load
    elif _HTML.match(beginning):
        parser = html.load
    elif not suffix:
        parser = text.load
    elif suffix in PARSERS:
        parser = PARSERS[suffix]
    else:
        raise DocumentError(f"unsupported format {suffix}; supported: {', '.join(sorted(SUPPORTED_SUFFIXES))}")
    try:
        extracted = parser(data)
    except DocumentError:
        raise
    except Exception as error:
        # Parsers meet files nobody foresaw; one of them must not end a run over thousands of others.
        raise DocumentError(f"the parser failed on it ({type(error).__name__}: {error})") from error
    if not extracted.text.strip() and not extracted.children:
        raise DocumentError("no text in the file")
    if any(_has_surrogate(text) for text in _strings(extracted)):
        raise DocumentError("its text or metadata holds half of a character (a lone surrogate); save it as UTF-8")
    return extracted


def _strings(extracted: Extracted) -> Iterator[str]:
    yield extracted.text
    yield extracted.title or ""
    for key, value in extracted.metadata.items():
        yield from (key, *(value if isinstance(value, list) else (str(value),)))


def _has_surrogate(text: str) -> bool:
    return _SURROGATE.search(text) is not None
