"""The spans that no passage leaves, from one heading to the next, and their sentences and paragraphs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rag.sentences import sentence_spans
from rag.types import Document, Heading

_MARKUP = " \t#>*_`["
_HEADING_LINE = re.compile(r"[^\n\r\f]*+(?:\r?\n[ \t]*+(?:={2,}+|-{2,}+)[ \t]*+(?=[\r\n]|\Z))?+")


@dataclass(frozen=True, slots=True)
class Section:
    """Offsets of heading lines and the text under them; neither end is white space.

    Attributes:
        start: Of the first heading line, or of the text where there is no heading.
        body: Where the text under the headings starts; `end` where there is none.
    """

    start: int
    body: int
    end: int


def heading_spans(document: Document) -> list[tuple[int, int]]:
    """Offsets of the line of each heading, markup and underline included; parallel to `document.headings`.

    The span is empty where the line at a heading's place is not the heading itself but a paragraph: an
    outline of a PDF may name no more than the page.
    """
    return [_heading_span(document.text, heading) for heading in document.headings]


def _heading_span(text: str, heading: Heading) -> tuple[int, int]:
    line_start = max(text.rfind(mark, 0, heading.start) for mark in "\n\r\f") + 1
    prefix = text[line_start : heading.start]
    start = heading.start if prefix.strip(_MARKUP) else line_start + len(prefix) - len(prefix.lstrip())
    match = _HEADING_LINE.match(text, start)
    end = match.end() if match else start
    first, last = trim(text, start, end)
    # Markup and a link's address make a heading's line longer than its text; a paragraph is longer still.
    if first == last or last - first > 2 * len(heading.text) + 120:
        return start, start
    return first, last


def sections(document: Document) -> list[Section]:
    """The sections of a document in order; they cover every character that is not white space.

    A heading followed at once by another shares its section; only at the end of a document is there a section
    without text.
    """
    text = document.text
    lines = heading_spans(document)
    found: list[Section] = []
    start = body = 0
    for line_start, line_end in lines:
        if text[body:line_start].strip():
            found.append(_section(text, start, body, line_start))
            start = line_start
        elif not text[start:body].strip():
            start = line_start
        body = max(body, line_end, start)
    if text[start:].strip():
        found.append(_section(text, start, body, len(text)))
    return found


def _section(text: str, start: int, body: int, end: int) -> Section:
    first, last = trim(text, start, end)
    return Section(first, trim(text, min(body, last), last)[0], last)


def trim(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends; empty at `end` where there is nothing else."""
    span = text[start:end]
    first = end - len(span.lstrip())
    return first, max(first, start + len(span.rstrip()))


def section_sentences(text: str, section: Section) -> list[tuple[int, int]]:
    """The sentences of a section; its heading lines belong to the first of them."""
    if section.body == section.end:
        return [(section.start, section.end)]
    spans = [
        (section.body + start, section.body + end) for start, end in sentence_spans(text[section.body : section.end])
    ]
    spans[0] = (section.start, spans[0][1])
    return spans


def section_paragraphs(text: str, section: Section) -> list[Section]:
    """The paragraphs of a section, divided by blank lines and page breaks; the headings go with the first."""
    bounds: list[tuple[int, int]] = []
    offset = section.body
    is_open = False
    for line in text[section.body : section.end].splitlines(keepends=True):
        start, offset = offset, offset + len(line)
        if line.strip():
            bounds.append((bounds.pop()[0] if is_open else start, offset))
        is_open = bool(line.strip()) and line[-1] not in "\f\u2029"
    trimmed = [trim(text, start, end) for start, end in bounds]
    paragraphs = [Section(start, start, end) for start, end in trimmed]
    if not paragraphs:
        return [section]
    return [Section(section.start, section.body, paragraphs[0].end), *paragraphs[1:]]
