"""Expanding hits: a retrieved passage becomes a span of its document, wider by whole sentences.

Neighbouring passages come from one batched read; windows of one document that touch or overlap become one span, so
no sentence is shown twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Contiguous text of one document version, rebuilt from stored passages."""

    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


_Stretches = Mapping[tuple[str, str], Sequence[_Stretch]]


def _stitch(passages: Iterable[Passage]) -> _Stretches:
    """Stored passages of each document version, joined where they touch or overlap."""
    by_document: defaultdict[tuple[str, str], list[Passage]] = defaultdict(list)
    for passage in passages:
        by_document[passage.document_id, passage.version].append(passage)
    return {key: _join(found) for key, found in by_document.items()}


def _join(passages: Sequence[Passage]) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    for passage in sorted(passages, key=lambda passage: (passage.start, passage.end)):
        last = stretches[-1] if stretches else None
        if last is None or passage.start > last.end:
            stretches.append(_Stretch(passage.start, passage.text))
        elif passage.end > last.end:
            stretches[-1] = _Stretch(last.start, last.text + passage.text[last.end - passage.start :])
    return stretches


def _window(candidate: Candidate, passage: Passage, text_of: _Stretches, window_sentences: int) -> _Window:
    stretch = _holding(text_of, passage.document_id, passage.version, passage.start)
    start, end = passage.start, passage.end
    if window_sentences:
        spans = [(stretch.start + s, stretch.start + e) for s, e in sentence_spans(stretch.text)]
        before = [s for s, _ in spans if s < start][-window_sentences:]
        after = [e for _, e in spans if e > end][:window_sentences]
        start, end = min([start, *before]), max([end, *after])
    return _Window(passage, start, end, candidate.score, (passage.id,))


def _holding(text_of: _Stretches, document_id: str, version: str, offset: int) -> _Stretch:
    return next(s for s in text_of[document_id, version] if s.start <= offset <= s.end)


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
    stretch = _holding(text_of, passage.document_id, passage.version, window.start)
    return Source(
        number=number,
        document_id=passage.document_id,
        version=passage.version,
        title=passage.title,
        headings=passage.headings,
        page=passage.page,
        start=window.start,
        end=window.end,
        text=stretch.text[window.start - stretch.start : window.end - stretch.start],
        score=window.score,
        passage_ids=window.passage_ids,
    )
