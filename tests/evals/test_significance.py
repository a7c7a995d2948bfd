from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evals.significance import bootstrap_interval, difference, holm, randomisation_test
from rag.errors import UsageError


def two_runs(queries: int, *, gain: float) -> tuple[list[float], list[float]]:
    """Values of two runs over the same queries, in tenths, so that many differences are equal or 0."""
    random = np.random.default_rng(7)
    first = random.integers(0, 11, queries) / 10
    second = np.clip(first + random.integers(-3, 4, queries) / 10 + gain, 0, 1)
    return first.tolist(), second.tolist()


def scipy_p_value(first: list[float], second: list[float]) -> float:
    return stats.permutation_test(
        (np.array(first), np.array(second)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=10_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    ).pvalue


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.2, 0.4])
def test_few_queries_give_the_exact_p_value_of_scipy(gain) -> None:
    first, second = two_runs(12, gain=gain)
    assert randomisation_test(first, second) == pytest.approx(scipy_p_value(first, second), abs=1e-12)


def test_many_queries_give_the_p_value_of_scipy_within_the_error_of_sampling() -> None:
    first, second = two_runs(200, gain=0.015)
    p_value = randomisation_test(first, second)
    assert 0.02 < p_value < 0.5
    # Two estimates from 10,000 tosses each: four standard errors of their difference.
    tolerance = 4 * (2 * p_value * (1 - p_value) / 10_000) ** 0.5
    assert p_value == pytest.approx(scipy_p_value(first, second), abs=tolerance)


def test_a_p_value_by_hand() -> None:
    # All of three differences point one way: of 8 swaps, the two with one sign throughout are as extreme.
    assert randomisation_test([0.0, 0.0, 0.0], [0.1, 0.2, 0.3]) == 2 / 8


def test_equal_runs_do_not_differ() -> None:
    assert randomisation_test([0.5, 0.25], [0.5, 0.25]) == 1
    assert bootstrap_interval([0.5, 0.25], [0.5, 0.25]).low == 0


def test_queries_with_equal_values_change_no_p_value() -> None:
    first, second = two_runs(10, gain=0.1)
    assert randomisation_test(first + [0.5] * 500, second + [0.5] * 500) == randomisation_test(first, second)


def test_a_sampled_p_value_is_never_nought_and_does_not_depend_on_which_run_is_first() -> None:
    first, second = [0.0] * 100, [0.5] * 100
    assert randomisation_test(first, second, permutations=999) == 1 / 1000
    first, second = two_runs(100, gain=0.02)
    assert randomisation_test(first, second) == randomisation_test(second, first)


def test_the_seed_repeats_a_result_and_another_gives_another() -> None:
    first, second = two_runs(100, gain=0.02)
    assert randomisation_test(first, second, seed=3) == randomisation_test(first, second, seed=3)
    assert randomisation_test(first, second, seed=3) != randomisation_test(first, second, seed=4)
    assert bootstrap_interval(first, second, seed=3) == bootstrap_interval(first, second, seed=3)
    assert bootstrap_interval(first, second, seed=3) != bootstrap_interval(first, second, seed=4)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_bootstrap_interval_agrees_with_scipy(confidence) -> None:
    first, second = two_runs(80, gain=0.05)
    differences = np.array(second) - np.array(first)
    expected = stats.bootstrap(
        (differences,),
        np.mean,
        method="percentile",
        confidence_level=confidence,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    interval = bootstrap_interval(first, second, confidence=confidence, resamples=20_000)
    spread = differences.std() / len(differences) ** 0.5
    assert interval.low == pytest.approx(expected.low, abs=spread / 20)
    assert interval.high == pytest.approx(expected.high, abs=spread / 20)
    assert interval.low < differences.mean() < interval.high


def test_more_resamples_than_fit_one_block_are_all_drawn() -> None:
    first, second = two_runs(3000, gain=0.0)
    interval = bootstrap_interval(first, second, resamples=1500)
    spread = np.std(np.array(second) - np.array(first)) / 3000**0.5
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert randomisation_test([0.0] * 3000, [1.0] * 3000, permutations=1500) == 1 / 1501


@pytest.mark.parametrize("compare", [randomisation_test, bootstrap_interval])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0], [1.0, 2.0], "1 and 2 values"),
        ([], [], "0 and 0 values"),
        ([1.0], [float("nan")], "not a finite"),
    ],
)
def test_values_that_do_not_pair_are_refused(compare, first, second, message) -> None:
    with pytest.raises(UsageError, match=message):
        compare(first, second)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="permutations is 0"):
        randomisation_test([1.0], [0.0], permutations=0)
    with pytest.raises(UsageError, match="resamples is 0"):
        bootstrap_interval([1.0], [0.0], resamples=0)
    with pytest.raises(UsageError, match="confidence is 95"):
        bootstrap_interval([1.0], [0.0], confidence=95)


def test_a_one_sided_p_is_that_of_scipy_exact_and_sampled() -> None:
    for size, gain, tolerance in ((12, 0.1, 1e-12), (12, -0.1, 1e-12), (200, -0.01, 0.02)):
        first, second = two_runs(size, gain=gain)
        expected = stats.permutation_test(
            (np.array(first), np.array(second)),
            lambda x, y, axis: np.mean(y - x, axis=axis),
            permutation_type="samples",
            alternative="less",
            n_resamples=10_000,
            vectorized=True,
            rng=np.random.default_rng(1),
        ).pvalue
        assert randomisation_test(first, second, alternative="less") == pytest.approx(expected, abs=tolerance)


def test_a_difference_counts_wins_and_takes_rounding_for_a_tie() -> None:
    found = difference([0.1 + 0.2, 0.5, 0.5, 1.0], [0.3, 0.75, 0.25, 0.0])
    assert (found.wins, found.losses, found.ties) == (1, 2, 1)
    assert found.mean == pytest.approx(-0.25)
    assert found.p_value == randomisation_test([0.1 + 0.2, 0.5, 0.5, 1.0], [0.3, 0.75, 0.25, 0.0])


def test_holm_multiplies_by_what_is_left_never_falls_and_stays_below_one() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
