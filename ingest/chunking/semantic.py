"""Semantic chunking: a passage ends where the meaning of the text turns.

Every sentence is embedded with its neighbours, and the document is divided where the distance between two neighbouring
embeddings is among its largest: the method of Kamradt's "5 Levels Of Text Splitting".

It costs one embedding per sentence in addition to that of each passage; with `buffer_sentences` sentences on both sides
that is about 1 + 2 * `buffer_sentences` times the document's tokens; `embedded_tokens` says how many. Nothing here
embeds: the caller embeds the texts of `groups`, of as many documents at once as it likes, and passes the vectors on.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ingest.chunking.rows import Rows, section_units
from ingest.chunking.sections import sections
from ingest.chunking.token_index import TokenIndex
from rag.types import Document, Vectors


@dataclass(frozen=True, slots=True)
class SentenceGroup:
    """A sentence, a row of a table or a part of one, and the text that is embedded for it.

    Attributes:
        start: Of the sentence itself, the headings above it included.
        context_start: Of what is embedded: the sentence with its neighbours.
        opens_section: It is the first below a heading.
    """

    start: int
    end: int
    context_start: int
    context_end: int
    opens_section: bool


def groups(document: Document, *, buffer_sentences: int, max_tokens: int) -> list[SentenceGroup]:
    """What has to be embedded: every sentence with up to `buffer_sentences` on each side, in order.

    A sentence of more than `max_tokens` tokens is cut, and each piece is a sentence. The sentences around it are taken
    from its own section, as many on either side as fit into `max_tokens` tokens.

    Args:
        document: Its headings in order of `start`.
        buffer_sentences: 0 or more; the more, the smoother the distances and the dearer the embeddings.
        max_tokens: At least 1; counted as `TokenIndex` does.
    """
    tokens = TokenIndex(document.text)
    rows = Rows(document, tokens, max_tokens)
    found: list[SentenceGroup] = []
    for section in sections(document):
        units = section_units(document.text, section, rows, tokens, max_tokens)
        for index, (start, end) in enumerate(units):
            buffer = buffer_sentences
            first, last = units[max(0, index - buffer)][0], units[min(len(units) - 1, index + buffer)][1]
            while buffer and tokens.count(first, last) > max_tokens:
                buffer -= 1
                first, last = units[max(0, index - buffer)][0], units[min(len(units) - 1, index + buffer)][1]
            found.append(SentenceGroup(start, end, first, last, opens_section=index == 0))
    return found


def embedded_text(document: Document, group: SentenceGroup) -> str:
    """The text whose vector `chunk` wants for a group."""
    return document.text[group.context_start : group.context_end]


def embedded_tokens(document: Document, groups: Sequence[SentenceGroup]) -> int:
    """How many tokens, counted as `TokenIndex` does, are embedded to chunk the document."""
    tokens = TokenIndex(document.text)
    return sum(tokens.count(group.context_start, group.context_end) for group in groups)


def chunk(
    document: Document,
    *,
    groups: Sequence[SentenceGroup],
    vectors: Vectors,
    percentile: float,
    max_tokens: int,
    min_tokens: int,
) -> list[tuple[int, int]]:
    """Chunks of at most `max_tokens` tokens as offsets into `document.text`, in order and without overlap.

    Together they cover every character that is not white space; none crosses a heading. A breakpoint is where the
    cosine distance of two neighbours in a section is above the `percentile` of all such distances of the document
    (linear interpolation), unless a chunk would then have fewer than `min_tokens` tokens; of two that are too close the
    one with the larger distance counts. A document with fewer than 100 / (100 - percentile) distances is too short to
    tell a large one, and has no breakpoints. What is still longer than `max_tokens` is divided at the largest distance
    in the second half of what fits. `max_tokens` is never exceeded, whereas a section, or the end of one, may be
    shorter than `min_tokens`.

    Args:
        document: Of which `groups` were made, with this or a smaller `max_tokens`.
        groups: Of `groups`, all and in order.
        vectors: Of their `embedded_text`, parallel, shape (len(groups), d), rows of length 1.
        percentile: 0 to 100; the higher, the fewer breakpoints.
        max_tokens: At least 1; counted as `TokenIndex` does.
        min_tokens: 0 or more.
    """
    distances = _distances(groups, vectors)
    stretches = _Stretches(TokenIndex(document.text), groups, distances, max_tokens=max_tokens, min_tokens=min_tokens)
    threshold = _threshold(groups, distances, percentile)
    section_starts = [index for index, group in enumerate(groups) if group.opens_section]
    return [
        (groups[start].start, groups[end - 1].end)
        for first, last in pairwise([*section_starts, len(groups)])
        for part_first, part_last in pairwise(stretches.at_breakpoints(first, last, threshold))
        for start, end in pairwise(stretches.by_size(part_first, part_last))
    ]


def _distances(groups: Sequence[SentenceGroup], vectors: Vectors) -> list[float]:
    """Of each group from the one before it; 0 for the first of a section."""
    cosines = np.einsum("ij,ij->i", vectors[1:], vectors[:-1])
    following = zip(groups[1:], cosines.tolist(), strict=True)
    return [0.0, *(0.0 if group.opens_section else 1.0 - cosine for group, cosine in following)][: len(groups)]


def _threshold(groups: Sequence[SentenceGroup], distances: Sequence[float], percentile: float) -> float:
    inside = [distance for group, distance in zip(groups, distances, strict=True) if not group.opens_section]
    if not inside or len(inside) * (100 - percentile) < 100:
        return float("inf")
    return float(np.percentile(inside, percentile))


class _Stretches:
    """Divides stretches of groups; a stretch and its bounds are indices into `groups`, the last one exclusive."""

    def __init__(
        self,
        tokens: TokenIndex,
        groups: Sequence[SentenceGroup],
        distances: Sequence[float],
        *,
        max_tokens: int,
        min_tokens: int,
    ) -> None:
        self._tokens = tokens
        self._groups = groups
        self._distances = distances
        self._max_tokens = max_tokens
        self._min_tokens = min_tokens

    def at_breakpoints(self, first: int, last: int, threshold: float) -> list[int]:
        """Bounds of the parts, both ends included."""
        above = [index for index in range(first + 1, last) if self._distances[index] > threshold]
        bounds = [first, last]
        for index in sorted(above, key=lambda index: (-self._distances[index], index)):
            place = bisect_left(bounds, index)
            smaller = min(self._count(bounds[place - 1], index), self._count(index, bounds[place]))
            if smaller >= self._min_tokens:
                insort(bounds, index)
        return bounds

    def by_size(self, first: int, last: int) -> list[int]:
        """As `at_breakpoints`, so that no part is too long."""
        bounds = [first]
        while (rest := self._count(bounds[-1], last)) > self._max_tokens:
            bounds.append(self._best_cut(bounds[-1], rest))
        return [*bounds, last]

    def _best_cut(self, first: int, rest: int) -> int:
        latest = first + 1
        while self._count(first, latest + 1) <= self._max_tokens:
            latest += 1
        # Where two parts are enough, the second should be neither too long nor too short.
        lowest = max(self._max_tokens // 2, rest - self._max_tokens)
        highest = max(lowest, rest - self._min_tokens)
        fitting = [index for index in range(first + 1, latest + 1) if lowest <= self._count(first, index) <= highest]
        even = rest / -(-rest // self._max_tokens)
        return max(
            fitting,
            key=lambda index: (self._distances[index], -abs(self._count(first, index) - even)),
            default=latest,
        )

    def _count(self, first: int, last: int) -> int:
        return self._tokens.count(self._groups[first].start, self._groups[last - 1].end)
