"""Compression by choice: the sentences that a question needs, word for word."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rag.adapters.sentence_scores import (
    Scores,
    TitledSentence,
    bm25_scores,
    content_words,
    min_max,
    question_cosines,
)
from rag.retrieval.embedding import Embedder
from rag.sentences import sentence_spans
from rag.tokens import count_tokens, token_spans
from rag.types import Source

GAP = " … "
"""Stands for what was left out; one token, since a context has dozens of them."""

_NEIGHBOURS = 0.5
"""Weight of a sentence's neighbours beside its own: one that says "it" is understood with the one before."""

_PRIOR = 0.3
"""Weight of each thing that speaks for a sentence whatever it says. Relevance itself is between 0 and 1."""

_WORD = re.compile(r"\w")
_HEADING = re.compile(r"#{1,6}\s")
_TABLE_RULE = re.compile(r"\|[\s:|+-]*-[\s:|+-]*\Z")
_FENCE = re.compile(r"(?:`{3,}|~{3,})(?P<language>.*)")
_DISAMBIGUATION = re.compile(r"\s*\([^()]*\)\s*\Z")

_Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is shown or left out as a whole, in order, source by source; an element of each field for each part.

    A part is a sentence with the headings above it, a row of a table, or a block of code.

    Attributes:
        span: Offsets in the text of its source.
        source: Index of its source.
        position: 0 for the first of its source.
        tokens: How many it shows.
        header: Index of the part without which it says little, the head of its table; -1 for none.
        has_next: Whether the next part is of the same source.
    """

    span: Sequence[_Span]
    source: NDArray[np.intp]
    position: NDArray[np.intp]
    tokens: NDArray[np.intp]
    header: NDArray[np.intp]
    has_next: NDArray[np.bool_]


class ExtractiveCompressor:
    """A `Compressor` that shows the best sentences of all sources, whole and in their order.

    A sentence's relevance is the mean of its BM25 score and its cosine to the question, each min-max normalised, and
    in part that of its neighbours. Four things more speak for it, with equal weight: the best relevance in its source;
    the rank of its source; that it is near the beginning of its document, which says what the rest is about; and that
    a relevant sentence of another document mentions the title of its own, which is how a question leads from one
    document to the next. The best that fit are kept.

    The weights are round numbers on a plateau, found on one half of the questions of three sets. `rag eval compression`
    measures what they keep.

    Args:
        embedder: Embeds question and sentences; its owner closes it.
    """

    name = "extractive"

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def compress(self, question: str, sources: Sequence[Source], *, target_tokens: int) -> Sequence[Source]:
        """See `Compressor`. What fits comes back as it is; the target is exceeded only where no part fits into it."""
        if sum(count_tokens(source.text) for source in sources) <= target_tokens:
            return tuple(sources)
        parts = _parts_of(sources)
        titled = [
            TitledSentence(sources[place].title, sources[place].text[start:end])
            for place, (start, end) in zip(parts.source, parts.span, strict=True)
        ]
        cosines = await question_cosines(self._embedder, question, titled)
        relevance = (min_max(cosines) + bm25_scores(question, [f"{each.title}\n{each.text}" for each in titled])) / 2
        kept = _chosen(_scores(relevance, parts, sources), parts, target_tokens)
        return tuple(_shown(sources, parts, kept))

    async def close(self) -> None:
        """See `Compressor`."""


def _parts_of(sources: Sequence[Source]) -> _Parts:
    span: list[_Span] = []
    source: list[int] = []
    position: list[int] = []
    tokens: list[int] = []
    header: list[int] = []
    for place, each in enumerate(sources):
        head = -1
        for number, (start, end) in enumerate(_spans(each.text)):
            # What the head of a table stands under may begin with a heading.
            head = head if each.text.startswith("|", start) else -1
            header.append(head)
            head = len(span) if _ends_with_table_rule(each.text, start, end) else head
            span.append((start, end))
            source.append(place)
            position.append(number)
            tokens.append(count_tokens(each.text[start:end]))
    return _Parts(
        span,
        np.array(source),
        np.array(position),
        np.array(tokens),
        np.array(header),
        np.append(np.diff(source) == 0, False),
    )


def _spans(text: str) -> Iterator[_Span]:
    """Of the parts of a text, in order; together they cover all that is not white space."""
    spans = [*_with_whole_code(text)]
    begun: int | None = None
    for place, (start, end) in enumerate(spans):
        begun = start if begun is None else begun
        if place + 1 == len(spans) or not _needs_next(text, (start, end), spans[place + 1]):
            yield begun, end
            begun = None


def _with_whole_code(text: str) -> Iterator[_Span]:
    """Sentences, and blocks of fenced code; lines of code singly where the fence on either side is missing."""
    code: list[_Span] = []
    for start, end in sentence_spans(text):
        fence = _FENCE.match(text, start, end)
        if code and fence and not fence["language"].strip():
            yield code[0][0], end
            code = []
        elif fence:
            yield from code
            code = [(start, end)]
        elif code:
            code.append((start, end))
        else:
            yield start, end
    yield from code


def _needs_next(text: str, span: _Span, following: _Span) -> bool:
    """Whether it is a heading, or what follows has no word, as the rule below the head of a table or a lone fence."""
    return _HEADING.match(text, *span) is not None or _WORD.search(text, *following) is None


def _ends_with_table_rule(text: str, start: int, end: int) -> bool:
    last_line = text.rfind("\n", start, end) + 1
    return _TABLE_RULE.match(text, max(start, last_line), end) is not None


def _scores(relevance: Scores, parts: _Parts, sources: Sequence[Source]) -> Scores:
    best = np.zeros(len(sources))
    np.maximum.at(best, parts.source, relevance)
    begins = np.array([source.start == 0 for source in sources])
    # A part without a neighbour on one side stands in for it.
    after = np.where(parts.has_next, np.roll(relevance, -1), relevance)
    before = np.where(np.roll(parts.has_next, 1), np.roll(relevance, 1), relevance)
    scores = (relevance + _NEIGHBOURS * (before + after) / 2) / (1 + _NEIGHBOURS)
    scores += _PRIOR * (best[parts.source] + 1 / (1 + parts.source) + begins[parts.source] / (1 + parts.position))
    return scores + _PRIOR * _mentions(scores, parts, sources)[parts.source]


def _mentions(scores: Scores, parts: _Parts, sources: Sequence[Source]) -> Scores:
    """For each source the score of the best part of another document that mentions its title.

    It is 1 for the best of all parts, and 0 for the median one and what is below.
    """
    middle, best = np.median(scores), scores.max()
    strength = np.clip((scores - middle) / (best - middle), 0, 1) if best > middle else np.zeros(len(scores))
    found = np.zeros(len(sources))
    edges = [_edges(source.text) for source in sources]
    for place, source in enumerate(sources):
        name = _DISAMBIGUATION.sub("", source.title).strip()
        if not content_words(name):
            continue
        for other, each in enumerate(sources):
            if each.title != source.title:
                offsets = [match.start() for match in re.finditer(re.escape(name), each.text)]
                whole = [start for start in offsets if {start, start + len(name)} <= edges[other]]
                found[place] = max([found[place], *(strength[_part_at(parts, other, start)] for start in whole)])
    return found


def _part_at(parts: _Parts, source: int, offset: int) -> int:
    first, after = np.searchsorted(parts.source, [source, source + 1])
    return bisect_right(parts.span, offset, int(first), int(after), key=lambda span: span[0]) - 1


def _edges(text: str) -> frozenset[int]:
    """Offsets at which a token begins or ends: where a name is one, and not a piece of a longer word."""
    return frozenset(edge for span in token_spans(text) for edge in span)


def _chosen(scores: Scores, parts: _Parts, target_tokens: int) -> NDArray[np.bool_]:
    """The best parts that fit, one after the other; the best alone where none does."""
    kept = np.zeros(len(scores), dtype=bool)
    shows: set[int] = set()
    left = target_tokens
    for place in np.argsort(-scores, kind="stable"):
        wanted = [place, parts.header[place]] if parts.header[place] >= 0 else [place]
        added = [each for each in wanted if not kept[each]]
        cost = 0
        for each in added:
            cost += _cost(int(each), kept, parts, is_first=parts.source[each] not in shows and cost == 0)
            kept[each] = True
        if cost <= left:
            left -= cost
            shows.add(int(parts.source[place]))
        else:
            kept[added] = False
    if not shows:
        kept[np.argmax(scores)] = True
    return kept


def _cost(place: int, kept: NDArray[np.bool_], parts: _Parts, *, is_first: bool) -> int:
    """Tokens that showing one part more adds, with the gaps it opens or closes."""
    touching = int(place > 0 and parts.has_next[place - 1] and kept[place - 1])
    touching += int(parts.has_next[place] and kept[place + 1])
    return int(parts.tokens[place]) + (0 if is_first else 1 - touching)


def _shown(sources: Sequence[Source], parts: _Parts, kept: NDArray[np.bool_]) -> Iterator[Source]:
    for place, source in enumerate(sources):
        mine = np.flatnonzero(parts.source == place)
        spans: list[_Span] = []
        for each in mine[kept[mine]]:
            start, end = (source.start + offset for offset in parts.span[each])
            if spans and kept[each - 1]:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        if spans:
            yield source if kept[mine].all() else replace(source, kept=tuple(spans), gap=GAP)
