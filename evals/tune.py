"""Chooses how a collection's legs are joined, from judged queries.

What is reported is always measured on queries that had no part in the choice: of every fold, by choices made on the
others. What is stored is chosen on all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.datasets import Dataset
from evals.fusion_grid import (
    FusionChoice,
    Grid,
    Values,
    fusion_grid,
    fusion_values,
    ranking_value,
)
from evals.measures import Measure
from evals.passes import Pass
from evals.significance import Difference, difference
from rag.errors import UsageError

DEFAULT_MEASURE = Measure("ndcg", 10)
DEFAULT_FOLDS = 5
MIN_QUERIES = 50
"""Fewer say too little to leave the default fusion by, whatever the interval of their gain."""


@dataclass(frozen=True, slots=True)
class FusionTuning:
    """Which fusion was chosen, and what choosing so gains on queries that had no part in it.

    Attributes:
        default: Untuned: as configured, or else as built in.
        chosen: On all queries; `default` where `kept` says why.
        kept: Why the default is kept, in words; empty where it is not.
        per_fold: Chosen without the queries of each fold, on which the gains are measured.
        means: `bm25`, `dense`, `default` and `tuned`, the last on held-out queries.
        gain: Held out, over the default.
        better_leg: Which single leg is the better one on all queries.
        gain_over_leg: Held out, over that leg.
        held_out: Of every query, by the choice made without its fold.
        searched: Of every query, by what is searched with: `held_out`, or the default where that is kept.
    """

    default: FusionChoice
    chosen: FusionChoice
    kept: str
    per_fold: tuple[FusionChoice, ...]
    means: Mapping[str, float]
    gain: Difference
    better_leg: str
    gain_over_leg: Difference
    held_out: tuple[float, ...]
    searched: tuple[float, ...]


def fold_of(query_ids: Sequence[str], folds: int, *, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each query: by order of a seeded hash of the id, so that folds differ in size by one at most.

    Raises:
        UsageError: There are fewer than two folds, or fewer than two queries for each.
    """
    if folds < 2 or len(query_ids) < 2 * folds:
        raise UsageError(
            f"{len(query_ids)} judged queries in {folds} folds; at least 2 folds of 2 queries are needed to measure on "
            "queries that had no part in the choice: judge more, or take fewer --folds"
        )
    hashes = [hashlib.sha256(f"{seed}\0{query}".encode("utf-8", "surrogatepass")).digest() for query in query_ids]
    folds_of = np.empty(len(query_ids), dtype=np.int64)
    for rank, place in enumerate(sorted(range(len(hashes)), key=hashes.__getitem__)):
        folds_of[place] = rank % folds
    return folds_of


def choose(values: Values, default: int, neighbours: Sequence[Sequence[int]], distances: Values) -> int:
    """The best of several choices, or the default unless another is clearly better.

    A choice is judged by the mean over it and its neighbours, so that a lone peak, which is likely to be luck, does not
    win; equal ones by their distance from the default. The winner must beat the default by more than the standard error
    of the paired difference: Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3.

    Args:
        values: Shape (choices, queries).
        default: Number of a choice.
        neighbours: Of each choice, the numbers whose means are averaged.
        distances: Of each choice from the default.
    """
    means = values.mean(axis=1)
    smooth = np.array([means[list(near)].mean() for near in neighbours]).round(9)
    best = min(range(len(values)), key=lambda number: (-smooth[number], distances[number]))
    gains = values[best] - values[default]
    standard_error = gains.std(ddof=1) / len(gains) ** 0.5
    return best if gains.mean() > standard_error else default


def tune_fusion(
    passes: Sequence[Pass],
    dataset: Dataset,
    default: FusionChoice,
    *,
    measure: Measure = DEFAULT_MEASURE,
    folds: int = DEFAULT_FOLDS,
    seed: int = 0,
) -> FusionTuning:
    """Chooses a fusion by cross-validation.

    Args:
        passes: Of the dataset's queries, in order.
        default: What another choice has to beat.
        folds: Each is left out once.
        seed: Of the folds.

    Raises:
        UsageError: There are too few queries for so many folds.
    """
    judged = [dataset.qrels[query.id] for query in dataset.queries]
    fold = fold_of([query.id for query in dataset.queries], folds, seed=seed)
    grid = fusion_grid(default)
    values = fusion_values(grid, passes, judged, measure)
    legs = {
        leg: [ranking_value(p.legs.get(leg, ()), j, measure) for p, j in zip(passes, judged, strict=True)]
        for leg in ("bm25", "dense")
    }
    per_fold = _choose_per_fold(values, fold, grid)
    tuned = _held_out(values, fold, per_fold)
    untuned = values[grid.default]
    gain = difference(untuned.tolist(), tuned.tolist())
    chosen = choose(values, grid.default, grid.neighbours(), grid.distances())
    kept = _reason_to_keep(gain, len(dataset.queries), chosen == grid.default)
    better_leg = max(legs, key=lambda leg: np.mean(legs[leg]))
    means = {**legs, "default": untuned, "tuned": tuned}
    return FusionTuning(
        default=grid.choices[grid.default],
        chosen=grid.choices[grid.default if kept else chosen],
        kept=kept,
        per_fold=tuple(grid.choices[number] for number in per_fold),
        means={name: float(np.mean(of)) for name, of in means.items()},
        gain=gain,
        better_leg=better_leg,
        gain_over_leg=difference(legs[better_leg], tuned.tolist()),
        held_out=tuple(tuned.tolist()),
        searched=tuple((untuned if kept else tuned).tolist()),
    )


def _choose_per_fold(values: Values, fold: NDArray[np.int64], grid: Grid) -> list[int]:
    neighbours, distances = grid.neighbours(), grid.distances()
    return [choose(values[:, fold != number], grid.default, neighbours, distances) for number in range(fold.max() + 1)]


def _held_out(values: Values, fold: NDArray[np.int64], per_fold: Sequence[int]) -> NDArray[np.float64]:
    """The value of each query under the choice that was made without its fold."""
    return np.array([values[per_fold[number], place] for place, number in enumerate(fold)])


def pays(gain: Difference) -> bool:
    """Whether a gain is clear enough to do something for it."""
    return gain.mean > 0 and gain.interval.low >= 0


def _reason_to_keep(gain: Difference, queries: int, is_default: bool) -> str:  # noqa: FBT001 - a fact, not a switch
    if queries < MIN_QUERIES:
        return f"{queries} judged queries are too few to leave it by; {MIN_QUERIES} are needed"
    if is_default:
        return "no other choice is better than the default by more than one standard error"
    if gain.interval.high < 0:
        return "choosing loses on held-out queries"
    if gain.mean <= 0:
        return "choosing gains nothing on held-out queries"
    if not pays(gain):
        return "the gain on held-out queries may be chance: its interval reaches below 0"
    return ""
