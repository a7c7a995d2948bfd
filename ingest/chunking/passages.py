"""From spans of a document to the passages that are indexed, with what a reader needs to find their place."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from ingest.chunking.sections import heading_spans
from rag.retrieval.store import passage_id
from rag.types import Document, Passage


def make_passages(document: Document, *, tenant: str, spans: Sequence[tuple[int, int]]) -> list[Passage]:
    """One passage per span, in the same order, ordinals from 0.

    The headings of a passage are those that hold where its own text starts: the headings it begins with
    count. A heading ends those of its level and deeper ones. The page, counted from 1, is that of the span's
    start; None where the document has no pages.

    A passage also holds the white space up to the next one, so that neighbours join to the document's exact text.
    """
    spans = _with_gaps_closed(document.text, spans)
    lines = heading_spans(document)
    paths = _heading_paths(document)
    return [
        Passage(
            id=passage_id(tenant, document.id, document.version, ordinal),
            tenant=tenant,
            source=document.source,
            document_id=document.id,
            version=document.version,
            ordinal=ordinal,
            start=start,
            end=end,
            text=document.text[start:end],
            title=document.title,
            headings=paths[_headings_before(document.text, lines, start, end)],
            page=max(1, bisect_right(document.page_starts, start)) if document.page_starts else None,
            page_breaks=tuple(offset for offset in document.page_starts if start < offset < end),
            metadata=document.metadata,
            rows=_rows(document, start, end),
            also_in=document.also_in,
        )
        for ordinal, (start, end) in enumerate(spans)
    ]


def _with_gaps_closed(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if not spans:
        return []
    following = [start for start, _ in spans[1:]]
    return [
        (start, next_start if end < next_start and not text[end:next_start].strip() else end)
        for (start, end), next_start in zip(spans, [*following, 0], strict=True)
    ]


def _rows(document: Document, start: int, end: int) -> tuple[int, int] | None:
    """First and last row of which the span holds something."""
    if not document.row_starts:
        return None
    first = bisect_left(document.row_starts, start, key=lambda row: row[0])
    after = bisect_left(document.row_starts, end, key=lambda row: row[0])
    # A span may begin inside a row, which is a line; what stands between two sheets is in none.
    if first and "\n" not in document.text[document.row_starts[first - 1][0] : start]:
        first -= 1
    return (document.row_starts[first][1], document.row_starts[after - 1][1]) if first < after else None


def _heading_paths(document: Document) -> list[tuple[str, ...]]:
    """The path that holds after each number of headings, from none to all."""
    open_headings: list[tuple[int, str]] = []
    paths: list[tuple[str, ...]] = [()]
    for heading in document.headings:
        open_headings = [(level, text) for level, text in open_headings if level < heading.level]
        open_headings.append((heading.level, heading.text))
        paths.append(tuple(text for _, text in open_headings))
    return paths


def _headings_before(text: str, lines: list[tuple[int, int]], start: int, end: int) -> int:
    """How many headings stand before the span's own text."""
    count = bisect_right(lines, start, key=lambda line: line[0])
    place = max(start, lines[count - 1][1]) if count else start
    while count < len(lines) and lines[count][0] < end and not text[place : lines[count][0]].strip():
        place = max(place, lines[count][1])
        count += 1
    return count
