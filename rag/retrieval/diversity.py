"""Leaving out what says the same again: near-duplicates always, likeness in general if wanted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rag.retrieval.fusion import min_max
from rag.types import Candidate, Passage, Ranking, Vectors

_SHINGLE_WORDS = 3
_WORD = re.compile(r"\w+")


def without_duplicates(candidates: Ranking, passages: Mapping[str, Passage], *, similarity: float) -> Ranking:
    """The candidates without those that a better one makes superfluous; order kept.

    Passages that differ in a number are never duplicates: last year's price beside this year's is news.

    Two passages are alike as their sets of three-word shingles are, by Jaccard's coefficient: Broder, "On the
    resemblance and containment of documents", 1997. The sets of a few dozen passages are compared as they are, which
    is exact and takes less time than signing them would.

    Args:
        similarity: From which on the lesser candidate is left out, 0 to 1; at 1 only one that says exactly the same.
    """
    kept: list[tuple[Candidate, _Content]] = []
    for candidate in candidates:
        content = _content(passages[candidate.passage_id].text)
        if not any(_is_duplicate(content, other, similarity) for _, other in kept):
            kept.append((candidate, content))
    return tuple(candidate for candidate, _ in kept)


@dataclass(frozen=True, slots=True)
class _Content:
    shingles: frozenset[str]
    numbers: tuple[str, ...]


def _content(text: str) -> _Content:
    words = _WORD.findall(text.lower())
    last = max(1, len(words) - _SHINGLE_WORDS + 1)
    shingles = frozenset(" ".join(words[start : start + _SHINGLE_WORDS]) for start in range(last))
    return _Content(shingles, tuple(sorted(word for word in words if any(map(str.isdigit, word)))))


def _is_duplicate(one: _Content, other: _Content, similarity: float) -> bool:
    shared = len(one.shingles & other.shingles)
    resemblance = shared / (len(one.shingles) + len(other.shingles) - shared)
    return resemblance >= similarity and one.numbers == other.numbers


def maximal_marginal_relevance(candidates: Ranking, vectors: Vectors, *, diversity: float, k: int) -> Ranking:
    """The `k` candidates that are relevant and unlike each other; order kept.

    Each next one has the most (1 - diversity) * relevance - diversity * its largest cosine to one chosen before;
    relevance is the score, min-max normalised. Carbonell and Goldstein, "The use of MMR, diversity-based reranking
    for reordering documents and producing summaries", SIGIR 1998.

    Args:
        vectors: Of the candidates, in order.
        diversity: 0 to 1; with 0 these are the first.
    """
    relevance = np.asarray(min_max([candidate.score for candidate in candidates]))
    likeness = vectors @ vectors.T
    closest = np.zeros(len(candidates))  # cosine to what was chosen; nothing is like the first
    chosen: list[int] = []
    worth = (1 - diversity) * relevance
    for _ in range(min(k, len(candidates))):
        best = int(np.argmax(worth - diversity * closest))
        closest = np.maximum(closest, likeness[best]) if chosen else likeness[best].astype(np.float64)
        chosen.append(best)
        worth[best] = -np.inf
    return tuple(candidates[i] for i in sorted(chosen))
