"""Recursive splitting: at headings, then paragraphs, then sentences, then tokens, with an overlap."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from ingest.chunking.overlap import refuse_whole_overlap
from ingest.chunking.rows import Rows, section_units
from ingest.chunking.sections import Section, section_paragraphs, section_sentences, sections
from ingest.chunking.token_index import TokenIndex
from rag.types import Document


def chunk(document: Document, *, max_tokens: int, overlap_tokens: int) -> list[tuple[int, int]]:
    """Chunks of at most `max_tokens` tokens as offsets into `document.text`, in order of start and of end.

    None crosses a heading. Paragraphs that are small enough stay whole, and adjacent ones are merged as long
    as they fit. A chunk begins with up to `overlap_tokens` tokens of the one before it in its section: whole
    sentences where the last one is short enough, else the end of that sentence.

    Args:
        document: Its headings in order of `start`.
        max_tokens: At least 1, the overlap included; counted as `TokenIndex` does.
        overlap_tokens: 0 or more.

    Raises:
        ConfigurationError: The overlap is not smaller than the chunk.
    """
    refuse_whole_overlap(max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    tokens = TokenIndex(document.text)
    rows = Rows(document, tokens, max_tokens)
    return [
        span
        for section in sections(document)
        for span in _chunk_section(document.text, section, rows, tokens, max_tokens, overlap_tokens)
    ]


def _chunk_section(
    text: str, section: Section, rows: Rows, tokens: TokenIndex, max_tokens: int, overlap_tokens: int
) -> Iterator[tuple[int, int]]:
    start, end = section.start, section.end
    if tokens.count(start, end) <= max_tokens:
        yield start, end
        return
    unit_starts = [unit for unit, _ in section_units(text, section, rows, tokens, tokens.count(start, end))]
    # A piece leaves room for the overlap, so that every chunk takes at least one new piece.
    pieces = list(_pieces(text, section, rows, tokens, max_tokens - overlap_tokens))
    start, end = pieces[0]
    for piece_start, piece_end in pieces[1:]:
        if tokens.count(start, piece_end) > max_tokens:
            yield start, end
            start = _overlap_start(start, end, unit_starts, rows, tokens, overlap_tokens)
            if start == end or tokens.count(start, piece_end) > max_tokens:
                start = piece_start
        end = piece_end
    yield start, end


def _pieces(text: str, section: Section, rows: Rows, tokens: TokenIndex, max_tokens: int) -> Iterator[tuple[int, int]]:
    """Rows, paragraphs, or their sentences, or parts of those: the largest of at most `max_tokens` tokens."""
    for stretch in rows.stretches(section):
        if stretch.is_row:
            yield stretch.section.start, stretch.section.end
            continue
        for paragraph in section_paragraphs(text, stretch.section):
            if tokens.count(paragraph.start, paragraph.end) <= max_tokens:
                yield paragraph.start, paragraph.end
                continue
            for start, end in section_sentences(text, paragraph):
                yield from tokens.cut(start, end, max_tokens)


def _overlap_start(
    start: int, end: int, unit_starts: list[int], rows: Rows, tokens: TokenIndex, overlap_tokens: int
) -> int:
    """Where the part of the chunk that the next one repeats begins; `end` where it repeats nothing."""
    if not overlap_tokens:
        return end
    place = bisect_left(unit_starts, end)
    best = end
    while place and unit_starts[place - 1] > start:
        place -= 1
        if tokens.count(unit_starts[place], end) > overlap_tokens:
            break
        best = unit_starts[place]
    if best < end:
        return best
    best = tokens.tail(start, end, overlap_tokens)
    return end if rows.is_inside(best) else best
