"""Which parser reads a file: what its content shows, then what its name says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath

from ingest.load import containers, html, jats, mail, pdf, rtf, subtitles, text
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
_RTF = re.compile(rb"\s*\{\\rtf\d")
# The articles of journals, as JATS and its predecessor NLM declare them.
_JATS = re.compile(rb"\s*(?:<\?xml\b[^>]*>\s*)?<!DOCTYPE\s+article\s+PUBLIC\s+[\"']-//N(?:LM|ISO)//")

_WEBVTT = re.compile(rb"WEBVTT(?:[ \t\r\n]|$)")
# Headers that a mail gathers on its way, with the one that names its sender among them; a note may have one or another.
_MAIL_HEADER = re.compile(rb"([A-Za-z][A-Za-z-]*):[ \t][^\n]*\n(?:[ \t]+[^\n]*\n)*")
_MAIL_HEADERS = frozenset({b"message-id", b"mime-version", b"received", b"return-path"})
_PLAIN_SUFFIXES = frozenset({"", ".text", ".txt"})


def extract(data: bytes, name: str, parsers: Mapping[str, Parser] = PARSERS) -> Extracted:
    """The text of one file with its structure.

    Content comes first: a page that was saved as `report.pdf` is read as the page it is. A name without a suffix, as
    of README, is plain text.

    Args:
        data: The whole file.
        name: Its name; only the suffix counts.
        parsers: By suffix.

    Raises:
        DocumentError: A short reason why nothing can be read: the file is empty, binary, corrupt, locked, without a
            text layer, in an unknown encoding, or of an unsupported format.
    """
    suffix = PurePath(name).suffix.lower()
    if not data:
        raise DocumentError("the file is empty")
    # As ASCII would read the beginning of UTF-16 and UTF-32, too.
    beginning = data[:_SNIFFED_BYTES].lstrip(b"\xef\xbb\xbf\xff\xfe\0").replace(b"\0", b"")
    parser = _shown(beginning, suffix) or containers.parser_of(data)
    if parser is None:
        parser = parsers.get(suffix) if suffix else text.load
    if parser is None:
        raise DocumentError(f"unsupported format {suffix}; convert it to one that docs/formats.md lists")
    try:
        extracted = parser(data)
    except DocumentError:
        raise
    except Exception as error:
        # Parsers meet files nobody foresaw; one of them must not end a run over thousands of others.
        raise DocumentError(f"the parser failed on it ({type(error).__name__}: {error})") from error
    if not extracted.text.strip() and not extracted.children:
        raise DocumentError("no text in the file")
    check_text(extracted)
    return extracted


def _shown(beginning: bytes, suffix: str) -> Parser | None:
    """The parser for what the content begins with, where that leaves no doubt."""
    marks = (
        (_PDF, pdf.load),
        (_HTML, html.load),
        (_JATS, jats.load),
        (_RTF, rtf.load),
        (_WEBVTT, subtitles.load),
    )
    for mark, parser in marks:
        if mark.match(beginning):
            return parser
    return mail.load if suffix in _PLAIN_SUFFIXES and _is_mail(beginning) else None


def _is_mail(beginning: bytes) -> bool:
    names: set[bytes] = set()
    position = 0
    while (header := _MAIL_HEADER.match(beginning, position)) is not None:
        names.add(header[1].lower())
        position = header.end()
    return b"from" in names and not _MAIL_HEADERS.isdisjoint(names)


def check_text(extracted: Extracted) -> None:
    """Refuse text that cannot be stored.

    Raises:
        DocumentError: It holds half of a character.
    """
    if any(_has_surrogate(text) for text in _strings(extracted)):
        raise DocumentError("its text or metadata holds half of a character (a lone surrogate); save it as UTF-8")


def _strings(extracted: Extracted) -> Iterator[str]:
    yield extracted.text
    yield extracted.title or ""
    yield from (heading.text for heading in extracted.headings)
    for key, value in extracted.metadata.items():
        yield from (key, *(value if isinstance(value, list) else (str(value),)))


def _has_surrogate(text: str) -> bool:
    return _SURROGATE.search(text) is not None
