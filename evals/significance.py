"""Is a difference between two runs more than chance? Paired over queries, and seeded to be repeatable.

The functions take the values of one measure, one per query, the same queries in the same order in both runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag.errors import UsageError

_BLOCK_ELEMENTS = 2_000_000  # bounds the memory of one block of resamples to some tens of megabytes

_Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, both ends inclusive, in the unit of the measure."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How much the second of two runs is better, over the same queries.

    Attributes:
        mean: Of second minus first.
        interval: Of the mean, 95 %, by bootstrap.
        p_value: Two-sided, of the randomisation test.
        wins: Queries on which the second is better; then those on which it is worse, and those without a difference.
    """

    mean: float
    interval: Interval
    p_value: float
    wins: int
    losses: int
    ties: int


def difference(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Difference:
    """Mean, interval, p-value and counts of second minus first.

    Raises:
        UsageError: The lengths differ, there are no values, or a value is not finite.
    """
    differences = _differences(first, second)
    # Sums in another order differ in their last bits; that is no win.
    wins, losses = int((differences > 1e-9).sum()), int((differences < -1e-9).sum())
    return Difference(
        mean=float(differences.mean()),
        interval=bootstrap_interval(first, second, seed=seed),
        p_value=randomisation_test(first, second, seed=seed),
        wins=wins,
        losses=losses,
        ties=len(differences) - wins - losses,
    )


def difference_to_json(of: Difference) -> dict[str, float | int]:
    """A difference with 4 digits after the point."""
    return {
        "mean": round(of.mean, 4),
        "low": round(of.interval.low, 4),
        "high": round(of.interval.high, 4),
        "p": round(of.p_value, 4),
        "wins": of.wins,
        "losses": of.losses,
        "ties": of.ties,
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for having been many, in the given order.

    Below 0.05 there, the chance that any of the claims is false is at most 0.05, however the tests depend on each
    other: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def randomisation_test(
    first: Sequence[float],
    second: Sequence[float],
    *,
    alternative: Literal["two-sided", "less"] = "two-sided",
    permutations: int = 10_000,
    seed: int = 0,
) -> float:
    """The p-value of the paired randomisation test on the mean difference.

    How often a mean difference at least as large, in either direction, arises when each query's two values
    are swapped by the toss of a coin: Fisher's test, recommended for retrieval by Smucker, Allan and
    Carterette (2007), https://doi.org/10.1145/1321440.1321528.

    Queries with equal values cannot change the outcome. When the others allow no more than `permutations`
    swaps, all are tried and the result is exact; else it is (1 + extreme) / (1 + permutations), which is
    never 0 (Phipson and Smyth 2010).

    Args:
        first: Values of one run.
        second: Values of the other; the order of the two matters for one side only.
        alternative: `less` counts only differences as low as the one observed: is the second run worse?
        permutations: At least 1; the smallest p-value that can be seen is about its inverse.
        seed: Of the coin.

    Raises:
        UsageError: The lengths differ, there are no values, a value is not finite, or `permutations` is
            below 1.
    """
    _refuse_below_one(permutations, "permutations")
    differences = _differences(first, second)
    differences = differences[differences != 0]
    observed, size = float(differences.sum()), float(np.abs(differences).sum())
    # Sums of the same numbers in another order differ in their last bits; such a sum is as large as the one
    # observed.
    slack = 1e-12 * size

    def extreme(sums: _Floats) -> NDArray[np.bool_]:
        return sums <= observed + slack if alternative == "less" else np.abs(sums) >= abs(observed) - slack

    if 2 ** len(differences) <= permutations:
        return float(np.mean(extreme(_all_signs(len(differences)) @ differences)))
    random = np.random.default_rng(seed)
    count = 0
    for rows in _blocks(permutations, len(differences)):
        signs = 2.0 * random.integers(0, 2, size=(rows, len(differences)), dtype=np.int8) - 1.0
        count += int(np.count_nonzero(extreme(signs @ differences)))
    return (1 + count) / (1 + permutations)


def bootstrap_interval(
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap interval of mean(second) - mean(first), queries drawn with replacement.

    Args:
        first: Values of the run that is compared against.
        second: Values of the run whose gain is asked for.
        confidence: Between 0 and 1, both exclusive.
        resamples: At least 1; the ends are quantiles of their means (linear interpolation).
        seed: Of the draw.

    Raises:
        UsageError: The lengths differ, there are no values, a value is not finite, or `confidence` or
            `resamples` is out of range.
    """
    _refuse_below_one(resamples, "resamples")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; write a number between 0 and 1, such as 0.95")
    differences = _differences(first, second)
    random = np.random.default_rng(seed)
    means = np.concatenate(
        [
            differences[random.integers(0, len(differences), size=(rows, len(differences)))].mean(axis=1)
            for rows in _blocks(resamples, len(differences))
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _differences(first: Sequence[float], second: Sequence[float]) -> _Floats:
    if len(first) != len(second) or not len(first):
        raise UsageError(
            f"{len(first)} and {len(second)} values; give both runs' values of the same queries, at least one"
        )
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise UsageError("a value is not a finite number; mend the measure that produced it")
    return differences


def _refuse_below_one(count: int, name: str) -> None:
    if count < 1:
        raise UsageError(f"{name} is {count}; at least 1 is needed")


def _all_signs(count: int) -> _Floats:
    """Every assignment of -1 and 1 to `count` places, shape (2^count, count)."""
    bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
    return np.asarray(2 * bits - 1, dtype=np.float64)


def _blocks(total: int, width: int) -> Iterator[int]:
    """Numbers of rows that add up to `total`, none so large that rows x width is too much at once."""
    rows = max(1, _BLOCK_ELEMENTS // width)
    for start in range(0, total, rows):
        yield min(rows, total - start)
