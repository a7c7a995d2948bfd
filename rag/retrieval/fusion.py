"""From several rankings of the same query to one. Pure functions; ranks count from 1; ties are broken by id.

Fused scores order one ranking and mean nothing else: they are never compared across queries or with a threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, pstdev
from typing import Literal

from rag.types import Candidate, Ranking

FusionMethod = Literal["rrf", "convex", "dbsf"]

DEFAULT_FUSION: FusionMethod = "convex"
"""For a collection that nothing was tuned for."""

DEFAULT_WEIGHTS: Mapping[FusionMethod, float] = {"rrf": 0.5, "convex": 0.6, "dbsf": 0.6}
"""Of the dense leg, by method, where nothing was tuned. Scores favour the lexical leg a little more than ranks do: BM25
spreads further over the retrieved passages than cosines do. The ablation in docs/ablation.md shows what they give."""

DEFAULT_RRF_K = 60


def fuse(
    legs: Mapping[str, Ranking],
    method: FusionMethod,
    *,
    weight_dense: float,
    rrf_k: int,
    completed: Mapping[str, Ranking] | None = None,
) -> Ranking:
    """The legs `dense` and `bm25` as one ranking; where one is missing, the other has all the weight.

    Args:
        completed: The legs as `complete` makes them, for the methods that read scores. Without them a passage that a
            leg did not retrieve counts there like the worst that it did.
        weight_dense: Of the dense leg, 0 to 1; the lexical leg has the rest.
        rrf_k: The constant of reciprocal rank fusion.
    """
    weight_of = {"dense": weight_dense, "bm25": 1 - weight_dense}
    weights = [weight_of[leg] for leg in legs] if len(legs) > 1 else [1.0] * len(legs)
    if method == "rrf":
        return reciprocal_rank_fusion(list(legs.values()), weights=weights, k=rrf_k)
    rankings = [(completed or legs)[leg] for leg in legs]
    return {"convex": convex_fusion, "dbsf": distribution_fusion}[method](rankings, weights=weights)


def missing(legs: Mapping[str, Ranking]) -> dict[str, list[str]]:
    """By leg, the ids of the passages that another leg retrieved and this one did not, in order."""
    found = {leg: {candidate.passage_id for candidate in ranking} for leg, ranking in legs.items()}
    everywhere = set[str]().union(*found.values())
    return {leg: sorted(everywhere - own) for leg, own in found.items()}


def complete(legs: Mapping[str, Ranking], scored: Mapping[str, Ranking]) -> dict[str, Ranking]:
    """The legs with every passage that any of them retrieved, each with its true score.

    A leg that did not retrieve a passage still has a score for it, which says whether it just missed the cut or is
    far off. Where a leg has none, as BM25 without a shared term, it is 0.

    Args:
        scored: Of each leg, the scores of its `missing` passages.
    """
    document_of = {c.passage_id: c.document_id for ranking in legs.values() for c in ranking}
    completed = {}
    for leg, ranking in legs.items():
        scores = {c.passage_id: c.score for c in (*scored.get(leg, ()), *ranking)}
        completed[leg] = order(Candidate(key, own, scores.get(key, 0.0)) for key, own in document_of.items())
    return completed


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
    return _sum_normalised(rankings, weights, min_max)


def distribution_fusion(rankings: Sequence[Ranking], *, weights: Sequence[float]) -> Ranking:
    """Score(p) = sum over rankings of weight * score scaled by its distribution, 0 from a ranking without p.

    Three standard deviations below the mean become 0, three above it 1, and nothing lies outside; Mazzeschi,
    "Distribution-Based Score Fusion (DBSF), a new approach to vector search ranking", 2023. One outlier moves a
    minimum or maximum, but hardly this scale.

    Args:
        rankings: Best first, no passage twice in one.
        weights: One per ranking, not negative.
    """
    return _sum_normalised(rankings, weights, _within_three_deviations)


def _sum_normalised(
    rankings: Sequence[Ranking], weights: Sequence[float], normalise: Callable[[Sequence[float]], list[float]]
) -> Ranking:
    scored = (
        (candidate, weight * normalised)
        for ranking, weight in zip(rankings, weights, strict=True)
        for candidate, normalised in zip(ranking, normalise([c.score for c in ranking]), strict=True)
    )
    return _sum_by_passage(scored)


def min_max(scores: Sequence[float]) -> list[float]:
    """The scores scaled to 0 to 1; all 1 when they are equal."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if high == low:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]


def _within_three_deviations(scores: Sequence[float]) -> list[float]:
    if not scores:
        return []
    mean, deviation = fmean(scores), pstdev(scores)
    if deviation == 0:
        return [0.5] * len(scores)
    return [min(1.0, max(0.0, (score - mean) / (6 * deviation) + 0.5)) for score in scores]


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
