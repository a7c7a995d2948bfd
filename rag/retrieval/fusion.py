"""From several rankings of the same query to one. Pure functions; ranks count from 1; ties are broken by id.

Fused scores order one ranking and mean nothing else: they are never compared across queries or with a threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from rag.types import Candidate, Ranking

FusionMethod = Literal["rrf", "convex"]


def reciprocal_rank_fusion(rankings: Sequence[Ranking], *, weights: Sequence[float], k: int = 60) -> Ranking:
    """Score(p) = sum over rankings of weight / (k + rank of p), nothing from a ranking without p.

    Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning
    methods", SIGIR 2009, who use k = 60.

    Args:
        rankings: Best first, no passage twice in one.
        weights: One per ranking, not negative.
        k: The larger, the less the top ranks stand out; at least 1.
    """
    scored = (
        (candidate, weight / (k + rank))
        for ranking, weight in zip(rankings, weights, strict=True)
        for rank, candidate in enumerate(ranking, start=1)
    )
    return _sum_by_passage(scored)


def convex_fusion(rankings: Sequence[Ranking], *, weights: Sequence[float]) -> Ranking:
    """Score(p) = sum over rankings of weight * min-max normalised score, 0 from a ranking without p.

    Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023. The minimum and the
    maximum are those of the retrieved candidates; when all scores of a ranking are equal, each counts as 1.

    Args:
        rankings: Best first, no passage twice in one.
        weights: One per ranking, not negative.
    """
    scored = (
        (candidate, weight * normalised)
        for ranking, weight in zip(rankings, weights, strict=True)
        for candidate, normalised in zip(ranking, _min_max([c.score for c in ranking]), strict=True)
    )
    return _sum_by_passage(scored)


def _min_max(scores: Sequence[float]) -> list[float]:
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if high == low:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]


def _sum_by_passage(scored: Iterable[tuple[Candidate, float]]) -> Ranking:
    sums: defaultdict[str, float] = defaultdict(float)
    document_of: dict[str, str] = {}
    for candidate, score in scored:
        sums[candidate.passage_id] += score
        document_of[candidate.passage_id] = candidate.document_id
    return order(Candidate(passage, document_of[passage], score) for passage, score in sums.items())


def order(candidates: Iterable[Candidate]) -> Ranking:
    """The candidates as a ranking: best first, equal scores by passage id."""
    return tuple(sorted(candidates, key=lambda candidate: (-candidate.score, candidate.passage_id)))
