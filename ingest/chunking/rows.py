"""The rows of sheets and data files: no passage cuts one that fits into it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ingest.chunking.sections import Section, heading_spans, section_sentences, trim
from ingest.chunking.token_index import TokenIndex
from rag.types import Document

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a section: one row, or text between rows.

    Attributes:
        section: Its headings, where it is the first of its section and no row; neither end is white space.
    """

    section: Section
    is_row: bool


class Rows:
    """Those rows of a document that have at most `max_tokens` tokens; longer ones are text like any other.

    A row ends where the next one, a heading or a page begins.
    """

    def __init__(self, document: Document, tokens: TokenIndex, max_tokens: int) -> None:
        self._text = document.text
        spans = [span for span in _row_spans(document) if tokens.count(*span) <= max_tokens]
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]

    def is_inside(self, offset: int) -> bool:
        """Whether a cut at `offset` would divide a row."""
        place = bisect_left(self._starts, offset) - 1
        return place >= 0 and offset < self._ends[place]

    def stretches(self, section: Section) -> Iterator[Stretch]:
        """The section as rows and the text between them, in order; the same section where it has no rows.

        Headings stay with the text below them; before a row they are a stretch of their own.
        """
        first, last = bisect_left(self._starts, section.body), bisect_left(self._starts, section.end)
        if first == last:
            yield Stretch(section, is_row=False)
            return
        place = section.start
        for start, end in zip(self._starts[first:last], self._ends[first:last], strict=True):
            yield from self._text_between(section, place, start)
            yield Stretch(Section(start, start, end), is_row=True)
            place = end
        yield from self._text_between(section, place, section.end)

    def _text_between(self, section: Section, start: int, end: int) -> Iterator[Stretch]:
        start, end = trim(self._text, start, end)
        if start < end:
            yield Stretch(replace(section, start=start, body=min(max(start, section.body), end), end=end), is_row=False)


def section_units(text: str, section: Section, rows: Rows, tokens: TokenIndex, max_tokens: int) -> list[Span]:
    """What a passage is put together from: whole rows, and sentences; longer ones are cut to `max_tokens`.

    In order and without overlap; together they cover every character of the section that is not white space.
    """
    return [
        piece
        for stretch in rows.stretches(section)
        for sentence in ([_span(stretch)] if stretch.is_row else section_sentences(text, stretch.section))
        for piece in tokens.cut(*sentence, max_tokens)
    ]


def _span(stretch: Stretch) -> Span:
    return stretch.section.start, stretch.section.end


def _row_spans(document: Document) -> list[Span]:
    starts: Sequence[int] = sorted({offset for offset, _ in document.row_starts})
    if not starts:
        return []
    bounds = sorted({*document.page_starts, *(start for start, _ in heading_spans(document)), len(document.text)})
    spans = []
    for start, following in pairwise([*starts, len(document.text)]):
        first, last = trim(document.text, start, following)
        last = min(last, bounds[bisect_right(bounds, first)]) if first < last else first
        first, last = trim(document.text, first, last)
        if first < last:
            spans.append((first, last))
    return spans
