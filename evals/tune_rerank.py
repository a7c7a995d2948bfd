"""Chooses the weight of a reranker, and whether it pays, from judged queries; by the folds of the fusion's tuning."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.datasets import Dataset
from evals.fusion_grid import RERANK_WEIGHTS, Values, fused, ranking_value, rerank_values
from evals.measures import Measure
from evals.passes import Pass, RerankPass
from evals.significance import Difference, difference
from evals.tune import DEFAULT_MEASURE, FusionTuning, choose, fold_of, pays
from rag.types import Ranking


@dataclass(frozen=True, slots=True)
class RerankTuning:
    """Whether the reranker pays.

    Attributes:
        reranker: Its identity.
        weight: Of the reranker in the interpolation, chosen on all queries.
        per_fold: As in `FusionTuning`.
        gain: Held out, over what was reranked: `FusionTuning.searched`.
        mean: Held out, after reranking.
        is_on: Whether it is switched on: the gain is above 0, and the lower end of its interval is not below 0.
        is_on_per_fold: The same by the queries of the other folds alone.
        milliseconds: Of every query, of scoring `rerank_k` candidates without a limit of time: the share of them in the
            time of all that were scored.
        held_out: Of every query, reranked with the weight chosen without its fold.
        auto: Of every query, reranked or not as the other folds say.
    """

    reranker: str
    rerank_k: int
    weight: float
    per_fold: tuple[float, ...]
    gain: Difference
    mean: float
    is_on: bool
    is_on_per_fold: tuple[bool, ...]
    milliseconds: tuple[float, ...]
    held_out: tuple[float, ...]
    auto: tuple[float, ...]


ScorePools = Callable[[Mapping[str, Sequence[str]]], Awaitable[Mapping[str, RerankPass]]]
"""Given query text -> ids of passages, best first, scores them with a reranker."""


async def tune_rerank(
    passes: Sequence[Pass],
    dataset: Dataset,
    fusion: FusionTuning,
    score: ScorePools,
    *,
    reranker: str,
    rerank_k: int,
    default_weight: float = 0.5,
    measure: Measure = DEFAULT_MEASURE,
    seed: int = 0,
) -> RerankTuning:
    """Chooses the weight of a reranker, and whether it is worth having, by the same folds as the fusion.

    Args:
        fusion: Of the same passes. Each fold reranks what the fusion gives that was chosen without that fold, or the
            default where that is kept.
        score: Called once.
        reranker: Its identity.
        rerank_k: How many candidates of a query are reranked.
        default_weight: Rounded to the grid; kept unless another is clearly better.
    """
    folds = len(fusion.per_fold)
    fold = fold_of([query.id for query in dataset.queries], folds, seed=seed)
    per_fold = [fusion.chosen if fusion.kept else choice for choice in fusion.per_fold]
    rankings = {choice: [fused(each, choice) for each in passes] for choice in (fusion.chosen, *per_fold)}
    pools = {
        query.text: list(dict.fromkeys(c.passage_id for of in rankings.values() for c in of[place][:rerank_k]))
        for place, query in enumerate(dataset.queries)
    }
    scored = await score(pools)
    before, after = {}, {}
    for choice, of in rankings.items():
        pairs = [
            _values_of_query(ranking, scored[query.text].scores, dataset, query.id, measure, rerank_k)
            for query, ranking in zip(dataset.queries, of, strict=True)
        ]
        before[choice] = np.array([pair[0] for pair in pairs])
        after[choice] = np.array([pair[1] for pair in pairs]).T
    default = min(range(len(RERANK_WEIGHTS)), key=lambda number: abs(RERANK_WEIGHTS[number] - default_weight))
    without = np.array([before[per_fold[number]][place] for place, number in enumerate(fold)])
    of_folds = [after[choice] for choice in per_fold]
    with_it, weights = _reranked(of_folds, fold, np.ones(len(fold), dtype=bool), default)
    gain = difference(without.tolist(), with_it.tolist())
    is_on_per_fold = []
    for number in range(folds):
        rest = fold != number
        others, _ = _reranked(of_folds, fold, rest, default)
        is_on_per_fold.append(pays(difference(without[rest].tolist(), others[rest].tolist())))
    chosen = [ranking[:rerank_k] for ranking in rankings[fusion.chosen]]
    return RerankTuning(
        reranker=reranker,
        rerank_k=rerank_k,
        weight=RERANK_WEIGHTS[_choose_weight(after[fusion.chosen], default)],
        per_fold=tuple(RERANK_WEIGHTS[weight] for weight in weights),
        gain=gain,
        mean=float(with_it.mean()),
        is_on=pays(gain),
        is_on_per_fold=tuple(is_on_per_fold),
        milliseconds=tuple(
            _milliseconds(scored[query.text], len(first)) for query, first in zip(dataset.queries, chosen, strict=True)
        ),
        held_out=tuple(with_it.tolist()),
        auto=tuple(np.where(np.array(is_on_per_fold)[fold], with_it, without).tolist()),
    )


def _values_of_query(
    ranking: Ranking, scores: Mapping[str, float], dataset: Dataset, query: str, measure: Measure, rerank_k: int
) -> tuple[float, list[float]]:
    """The measure without the reranker, and under each of its weights."""
    judged = dataset.qrels[query]
    # As in a search, a passage that is no longer stored falls out.
    first = tuple(candidate for candidate in ranking[:rerank_k] if candidate.passage_id in scores)
    values = rerank_values(first + ranking[rerank_k:], [scores[c.passage_id] for c in first], judged, measure)
    return ranking_value(ranking, judged, measure), values


def _reranked(
    of_folds: Sequence[Values], fold: NDArray[np.int64], known: NDArray[np.bool_], default: int
) -> tuple[NDArray[np.float64], list[int]]:
    """The known queries reranked by the weight that the other known folds chose, and that weight by fold.

    Args:
        of_folds: Of each fold's fusion, the measure under each weight of every query.
        known: Of each query, whether it is looked at; the value of another one means nothing.
        default: Number of a weight.
    """
    reranked, weights = np.zeros(len(fold)), []
    for number, values in enumerate(of_folds):
        out = known & (fold == number)
        chosen_by = known & (fold != number)
        weight = _choose_weight(values[:, chosen_by], default) if chosen_by.any() else default
        reranked[out] = values[weight, out]
        weights.append(weight)
    return reranked, weights


def _milliseconds(scored: RerankPass, candidates: int) -> float:
    return scored.milliseconds * min(1.0, candidates / len(scored.scores)) if scored.scores else 0.0


def _choose_weight(values: Values, default: int) -> int:
    count = len(RERANK_WEIGHTS)
    neighbours = [[near for near in (n - 1, n, n + 1) if 0 <= near < count] for n in range(count)]
    return choose(values, default, neighbours, np.abs(np.arange(count, dtype=np.float64) - default))
