"""Expanding hits: a retrieved passage becomes a span of its document, wider by whole sentences or to its section.

Neighbouring passages come from one batched read; spans of one document that touch or overlap become one, so no
sentence is shown twice. The token budget of the context decides how far windows reach.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Literal

from rag.retrieval.store import PassageReader, passage_id
from rag.sentences import sentence_spans
from rag.tokens import count_tokens
from rag.types import Candidate, Passage, Source

Expansion = Literal["window", "section", "none"]
_MAX_REACH = 16
"""Passages on each side that are read for a section."""


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
    expansion: Expansion = "window",
    window_sentences: int = 3,
    section_tokens: int = 600,
    max_tokens: int | None = None,
    max_sources: int | None = None,
) -> list[Source]:
    """The spans around the candidates, best first, numbered from 1.

    Args:
        passages: Of every candidate, by id.
        expansion: `window` adds sentences, `section` the neighbours under the same headings, `none` nothing.
        window_sentences: Sentences added on each side of a hit, as far as the neighbouring passages reach. Fewer, the
            same number around every hit, where the best `max_sources` would not fit into `max_tokens` otherwise.
        section_tokens: A hit and what is added of its section have at most so many; neighbours are added whole, the
            nearest first.
    """
    hits = [(candidate, passages[candidate.passage_id]) for candidate in candidates]
    known = {passage.id: passage for _, passage in hits}
    wanted = _neighbours([passage for _, passage in hits], expansion, window_sentences, section_tokens)
    if wanted - known.keys():
        known |= await store.fetch(hits[0][1].tenant, sorted(wanted - known.keys()))
    text_of = _stitch(known.values())
    if expansion == "section":
        merged = _best_first(
            _section(candidate, hit, known, _holding(text_of, hit), section_tokens) for candidate, hit in hits
        )
    else:
        for sentences in range(window_sentences if expansion == "window" else 0, -1, -1):
            merged = _best_first(_window(candidate, passage, text_of, sentences) for candidate, passage in hits)
            if sentences == 0 or max_tokens is None or _tokens(merged[:max_sources], text_of) <= max_tokens:
                break
    return [_source(number, window, text_of) for number, window in enumerate(merged, start=1)]


def _neighbours(hits: Iterable[Passage], expansion: Expansion, window_sentences: int, section_tokens: int) -> set[str]:
    """Ids of the passages that may be added to the hits."""
    found = set[str]()
    for hit in hits:
        reach = int(expansion == "window" and window_sentences > 0)
        if expansion == "section":
            # As if the neighbours were half as long as the hit.
            reach = min(_MAX_REACH, 2 * section_tokens // max(1, count_tokens(hit.text)))
        ordinals = range(max(0, hit.ordinal - reach), hit.ordinal + reach + 1)
        found |= {passage_id(hit.tenant, hit.document_id, hit.version, ordinal) for ordinal in ordinals}
    return found


def _section(
    candidate: Candidate, hit: Passage, known: Mapping[str, Passage], stretch: _Stretch, section_tokens: int
) -> _Window:
    """The hit with its neighbours under the same headings, nearest first, as far as the tokens and the stretch go."""
    first = last = hit
    left = section_tokens - count_tokens(hit.text)
    steps = [-1, 1]
    while steps:
        for step in tuple(steps):
            ordinal = (first if step < 0 else last).ordinal + step
            neighbour = known.get(passage_id(hit.tenant, hit.document_id, hit.version, ordinal))
            tokens = count_tokens(neighbour.text) if neighbour else 0
            is_near = neighbour is not None and stretch.start <= neighbour.start and neighbour.end <= stretch.end
            if neighbour is None or not is_near or neighbour.headings != hit.headings or tokens > left:
                steps.remove(step)
                continue
            left -= tokens
            first, last = (neighbour, last) if step < 0 else (first, neighbour)
    return _Window(hit, first.start, last.end, candidate.score, (hit.id,))


def _best_first(windows: Iterable[_Window]) -> list[_Window]:
    return sorted(_merge(windows), key=lambda window: (-window.score, window.passage.id))


def _tokens(windows: Iterable[_Window], text_of: _Stretches) -> int:
    return sum(count_tokens(_text(window, _holding(text_of, window.passage))) for window in windows)


def _text(window: _Window, stretch: _Stretch) -> str:
    return stretch.text[window.start - stretch.start : window.end - stretch.start]


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
        text=_text(window, stretch),
        score=window.score,
        passage_ids=window.passage_ids,
        row_spans=stretch.row_spans,
        also_in=passage.also_in,
    )
