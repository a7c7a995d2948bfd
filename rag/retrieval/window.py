"""Expanding hits: a retrieved passage becomes a span of its document, wider by whole sentences.

Neighbouring passages come from one batched read; windows of one document that touch or overlap become one span, so
no sentence is shown twice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

from rag.retrieval.store import PassageReader, passage_id
from rag.sentences import sentence_spans
from rag.types import Candidate, Passage, Source


@dataclass(frozen=True, slots=True)
class _Window:
    """A span of one document version, around at least one hit."""

    passage: Passage
    start: int
    end: int
    score: float
    passage_ids: tuple[str, ...]


async def expand(
    candidates: Sequence[Candidate],
    passages: Mapping[str, Passage],
    store: PassageReader,
    *,
    window_sentences: int,
) -> list[Source]:
    """The spans around the candidates, best first, numbered from 1.

    Args:
        passages: Of every candidate, by id.
        window_sentences: Sentences added on each side of a hit, as far as the neighbouring passages reach; 0 for
            the hits as they are.
    """
    hits = [(candidate, passages[candidate.passage_id]) for candidate in candidates]
    known = {passage.id: passage for _, passage in hits}
    if window_sentences and hits:
        tenant = hits[0][1].tenant
        neighbours = {
            passage_id(tenant, passage.document_id, passage.version, ordinal)
            for _, passage in hits
            for ordinal in (passage.ordinal - 1, passage.ordinal + 1)
            if ordinal >= 0
        }
        known |= await store.fetch(tenant, sorted(neighbours - known.keys()))
    text_of = _stitch(known.values())
    windows = [_window(candidate, passage, text_of, window_sentences) for candidate, passage in hits]
    merged = sorted(_merge(windows), key=lambda window: (-window.score, window.passage.id))
    return [_source(number, window, text_of) for number, window in enumerate(merged, start=1)]


@dataclass(frozen=True)
class _Stretch:
    """Contiguous text of one document version, rebuilt from stored passages; offsets are the document's."""

    start: int
    text: str
    pages: tuple[tuple[int, int], ...]
    row_spans: tuple[tuple[int, tuple[int, int]], ...]

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @cached_property
    def sentences(self) -> tuple[list[int], list[int]]:
        """Where sentences start and where they end, each in order."""
        spans = sentence_spans(self.text)
        return [self.start + start for start, _ in spans], [self.start + end for _, end in spans]


_Stretches = Mapping[tuple[str, str], Sequence[_Stretch]]


def _stitch(passages: Iterable[Passage]) -> _Stretches:
    """Stored passages of each document version, joined where they touch or overlap."""
    by_document: defaultdict[tuple[str, str], list[Passage]] = defaultdict(list)
    for passage in passages:
        by_document[passage.document_id, passage.version].append(passage)
    return {key: [_joined(run) for run in _runs(found)] for key, found in by_document.items()}


def _runs(passages: Iterable[Passage]) -> list[list[Passage]]:
    """Passages of one document in its order, parted where text between them is not known."""
    runs: list[list[Passage]] = []
    end = -1
    for passage in sorted(passages, key=lambda passage: (passage.start, passage.end)):
        if passage.start > end:
            runs.append([])
        runs[-1].append(passage)
        end = max(end, passage.end)
    return runs


def _joined(run: Sequence[Passage]) -> _Stretch:
    parts: list[str] = []
    end = run[0].start
    for passage in run:
        parts.append(passage.text[max(0, end - passage.start) :])
        end = max(end, passage.end)
    pages = sorted({page for passage in run for page in _pages(passage)})
    row_spans = [(passage.start, passage.rows) for passage in run if passage.rows is not None]
    return _Stretch(run[0].start, "".join(parts), tuple(pages), tuple(row_spans))


def _pages(passage: Passage) -> Iterator[tuple[int, int]]:
    if passage.page is not None:
        starts = (passage.start, *passage.page_breaks)
        yield from zip(starts, count(passage.page), strict=False)


def _window(candidate: Candidate, passage: Passage, text_of: _Stretches, window_sentences: int) -> _Window:
    start, end = passage.start, passage.end
    if window_sentences:
        starts, ends = _holding(text_of, passage).sentences
        if before := bisect_left(starts, start):
            start = starts[max(0, before - window_sentences)]
        if (until := bisect_right(ends, end)) < len(ends):
            end = ends[min(len(ends), until + window_sentences) - 1]
    return _Window(passage, start, end, candidate.score, (passage.id,))


def _holding(text_of: _Stretches, passage: Passage) -> _Stretch:
    stretches = text_of[passage.document_id, passage.version]
    return stretches[bisect_right(stretches, passage.start, key=lambda stretch: stretch.start) - 1]


def _merge(windows: Iterable[_Window]) -> list[_Window]:
    """Overlapping windows of a document version become one, with the best score and the first hit's headings."""
    merged: list[_Window] = []
    in_place = sorted(windows, key=lambda w: (w.passage.document_id, w.passage.version, w.start, w.end))
    for window in in_place:
        last = merged[-1] if merged else None
        if last is None or not _touch(last, window):
            merged.append(window)
            continue
        merged[-1] = _Window(
            passage=last.passage,
            start=last.start,
            end=max(last.end, window.end),
            score=max(last.score, window.score),
            passage_ids=last.passage_ids + window.passage_ids,
        )
    return merged


def _touch(one: _Window, next_: _Window) -> bool:
    return (one.passage.document_id, one.passage.version) == (
        next_.passage.document_id,
        next_.passage.version,
    ) and next_.start <= one.end


def _source(number: int, window: _Window, text_of: _Stretches) -> Source:
    passage = window.passage
    stretch = _holding(text_of, passage)
    return Source(
        number=number,
        document_id=passage.document_id,
        version=passage.version,
        title=passage.title,
        headings=passage.headings,
        pages=stretch.pages,
        start=window.start,
        end=window.end,
        text=stretch.text[window.start - stretch.start : window.end - stretch.start],
        score=window.score,
        passage_ids=window.passage_ids,
        row_spans=stretch.row_spans,
        also_in=passage.also_in,
    )
