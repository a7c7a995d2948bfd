import random
from fractions import Fraction

import numpy as np
import pytest

from rag.retrieval.fusion import (
    complete,
    convex_fusion,
    distribution_fusion,
    fuse,
    missing,
    order,
    reciprocal_rank_fusion,
)
from rag.types import Candidate, Ranking


def ranking(**scores: float) -> Ranking:
    return order(Candidate(name, f"document of {name}", score) for name, score in scores.items())


def scores(fused: Ranking) -> dict[str, float]:
    return {candidate.passage_id: candidate.score for candidate in fused}


def names(fused: Ranking) -> str:
    return "".join(candidate.passage_id for candidate in fused)


def random_rankings(generator: random.Random) -> list[Ranking]:
    """Two or three rankings of up to 30 of 40 passages, with scores on a coarse grid so that ties happen."""
    return [
        ranking(**{f"p{i:02}": generator.randint(-8, 8) / 4 for i in generator.sample(range(40), count)})
        for count in generator.choices(range(31), k=generator.choice([2, 3]))
    ]


def test_reciprocal_rank_fusion_is_the_formula_with_ranks_from_one():
    dense, bm25 = ranking(a=0.9, b=0.8, c=0.1), ranking(c=12.0, a=7.5)
    fused = reciprocal_rank_fusion([dense, bm25], weights=[1, 1])
    expected = {
        "a": Fraction(1, 61) + Fraction(1, 62),
        "c": Fraction(1, 63) + Fraction(1, 61),
        "b": Fraction(1, 62),
    }
    assert names(fused) == "acb"
    assert scores(fused) == pytest.approx({name: float(score) for name, score in expected.items()})


def test_weights_and_the_constant_enter_the_formula():
    fused = reciprocal_rank_fusion([ranking(a=2, b=1), ranking(b=2, a=1)], weights=[0.25, 0.75], k=1)
    assert names(fused) == "ba"
    assert scores(fused) == pytest.approx({"a": 0.25 / 2 + 0.75 / 3, "b": 0.25 / 3 + 0.75 / 2})


def test_convex_fusion_adds_weighted_scores_between_zero_and_one():
    dense, bm25 = ranking(a=0.9, b=0.5, c=0.1), ranking(b=20, d=15, c=10)
    fused = convex_fusion([dense, bm25], weights=[0.6, 0.4])
    assert scores(fused) == pytest.approx({"a": 0.6, "b": 0.3 + 0.4, "c": 0, "d": 0.2})
    assert names(fused) == "badc"


def test_equal_scores_of_a_ranking_each_count_as_one():
    fused = convex_fusion([ranking(a=3, b=3), ranking(c=-7)], weights=[0.5, 0.25])
    assert scores(fused) == {"a": 0.5, "b": 0.5, "c": 0.25}


def test_negative_scores_are_normalised_like_others():
    fused = convex_fusion([ranking(a=-1, b=-2, c=-3)], weights=[1])
    assert scores(fused) == {"a": 1, "b": 0.5, "c": 0}


@pytest.mark.parametrize("fuse", [reciprocal_rank_fusion, convex_fusion, distribution_fusion])
def test_ties_are_broken_by_id(fuse):
    mirrored = [ranking(b=2, a=1), ranking(a=2, b=1)]
    assert names(fuse(mirrored, weights=[1, 1])) == "ab"
    assert names(fuse([ranking(z=1), ranking(y=1)], weights=[1, 1])) == "yz"


@pytest.mark.parametrize("fuse", [reciprocal_rank_fusion, convex_fusion, distribution_fusion])
def test_a_passage_in_one_ranking_only_keeps_its_document(fuse):
    fused = fuse([ranking(a=2, b=1), ranking(c=1)], weights=[1, 1])
    assert {c.passage_id: c.document_id for c in fused} == {name: f"document of {name}" for name in "abc"}


@pytest.mark.parametrize("fuse", [reciprocal_rank_fusion, convex_fusion, distribution_fusion])
def test_empty_rankings_add_nothing(fuse):
    assert fuse([], weights=[]) == fuse([(), ()], weights=[1, 1]) == ()
    alone = fuse([ranking(a=2, b=1)], weights=[0.5])
    assert fuse([ranking(a=2, b=1), ()], weights=[0.5, 0.5]) == alone


@pytest.mark.parametrize("fuse", [reciprocal_rank_fusion, convex_fusion, distribution_fusion])
def test_a_weight_for_every_ranking_is_needed(fuse):
    with pytest.raises(ValueError, match="zip"):
        fuse([ranking(a=1), ranking(b=1)], weights=[1])


def test_a_leg_of_weight_zero_orders_nothing():
    fused = convex_fusion([ranking(a=3, b=2, c=1), ranking(c=9, d=8)], weights=[1, 0])
    assert names(fused)[:2] == "ab"
    assert scores(fused)["c"] == scores(fused)["d"] == 0


def test_every_fusion_equals_a_computation_over_a_matrix():
    generator = random.Random(7)
    for _ in range(200):
        rankings = random_rankings(generator)
        weights = np.array([generator.choice([0.0, 0.3, 0.5, 1.0]) for _ in rankings])
        passages = sorted({candidate.passage_id for r in rankings for candidate in r})
        table = np.full((len(rankings), len(passages)), np.nan)
        for row, found in enumerate(rankings):
            for candidate in found:
                table[row, passages.index(candidate.passage_id)] = candidate.score
        _assert_same(reciprocal_rank_fusion(rankings, weights=weights.tolist()), passages, weights @ _rrf(table))
        _assert_same(convex_fusion(rankings, weights=weights.tolist()), passages, weights @ _min_max(table))
        _assert_same(distribution_fusion(rankings, weights=weights.tolist()), passages, weights @ _deviations(table))


def _rrf(table: np.ndarray) -> np.ndarray:
    """1 / (60 + rank); columns are in order of id, so a stable sort breaks ties as it should."""
    ranks = np.argsort(np.argsort(-table, axis=1, kind="stable"), axis=1) + 1  # NaN sorts last
    return np.where(np.isnan(table), 0, 1 / (60 + ranks))


def _min_max(table: np.ndarray) -> np.ndarray:
    normalised = np.zeros_like(table)
    for row, scored in zip(normalised, table, strict=True):
        found = ~np.isnan(scored)
        if found.any():
            spread = np.ptp(scored[found])
            row[found] = (scored[found] - scored[found].min()) / spread if spread else 1
    return normalised


def _deviations(table: np.ndarray) -> np.ndarray:
    normalised = np.zeros_like(table)
    for row, scored in zip(normalised, table, strict=True):
        found = ~np.isnan(scored)
        if found.any():
            deviation = scored[found].std()
            standard = (scored[found] - scored[found].mean()) / deviation if deviation else np.zeros(found.sum())
            row[found] = np.clip(standard / 6 + 0.5, 0, 1)
    return normalised


def _assert_same(fused: Ranking, passages: list[str], totals: np.ndarray) -> None:
    assert scores(fused) == pytest.approx(dict(zip(passages, totals.tolist(), strict=True)), abs=1e-12)
    assert list(fused) == sorted(fused, key=lambda candidate: (-candidate.score, candidate.passage_id))


def test_an_outlier_moves_the_scale_of_distributions_less_than_that_of_extremes():
    steady = ranking(**{f"p{i:02}": 1 - i / 100 for i in range(30)})
    outlier = ranking(z=1000, **{f"p{i:02}": 1 - i / 100 for i in range(30)})
    extremes = scores(convex_fusion([steady, outlier], weights=[0.1, 0.9]))
    distributions = scores(distribution_fusion([steady, outlier], weights=[0.1, 0.9]))
    assert extremes["p00"] < 0.12 * extremes["z"]
    assert distributions["p00"] > 0.3 * distributions["z"]


@pytest.mark.parametrize("weight_dense", [0.0, 0.3, 1.0])
def test_legs_are_fused_by_the_method_that_is_named(weight_dense):
    legs = {"dense": ranking(a=0.9, b=0.5), "bm25": ranking(b=20, c=15)}
    rankings, weights = list(legs.values()), [weight_dense, 1 - weight_dense]
    expected = {
        "rrf": reciprocal_rank_fusion(rankings, weights=weights, k=20),
        "convex": convex_fusion(rankings, weights=weights),
        "dbsf": distribution_fusion(rankings, weights=weights),
    }
    assert {m: fuse(legs, m, weight_dense=weight_dense, rrf_k=20) for m in expected} == expected


def test_a_leg_alone_has_all_the_weight():
    alone = {"dense": ranking(a=0.9, b=0.5)}
    fused = fuse(alone, "convex", weight_dense=0.0, rrf_k=60)
    assert scores(fused) == {"a": 1.0, "b": 0.0}


LEGS = {"dense": ranking(a=0.9, b=0.5), "bm25": ranking(b=20, c=15)}


def test_missing_is_what_another_leg_retrieved():
    assert missing(LEGS) == {"dense": ["c"], "bm25": ["a"]}
    assert missing({"dense": ranking(a=1)}) == {"dense": []}
    assert missing({}) == {}


def test_a_completed_leg_has_every_passage_with_its_score():
    completed = complete(LEGS, {"dense": ranking(c=0.4)})
    assert scores(completed["dense"]) == {"a": 0.9, "b": 0.5, "c": 0.4}
    assert scores(completed["bm25"]) == {"b": 20, "c": 15, "a": 0}
    assert names(completed["dense"]) == "abc"
    assert names(completed["bm25"]) == "bca"


def test_a_rare_word_that_only_one_leg_knows_beats_what_the_other_leg_likes_best():
    # Without completion both would be tied at one half: each is the best of one leg and missed by the other.
    legs = {"dense": ranking(x=0.50, y=0.49, z=0.30), "bm25": ranking(rare=30, y=2)}
    completed = complete(legs, {"dense": ranking(rare=0.45), "bm25": ()})
    fused = scores(fuse(legs, "convex", weight_dense=0.5, rrf_k=60, completed=completed))
    assert fused["rare"] > fused["x"]
    plain = scores(fuse(legs, "convex", weight_dense=0.5, rrf_k=60))
    assert plain["rare"] == plain["x"]


def test_ranks_are_those_of_what_was_retrieved():
    completed = complete(LEGS, {"dense": ranking(c=0.95)})
    fused = fuse(LEGS, "rrf", weight_dense=0.5, rrf_k=60, completed=completed)
    assert fused == fuse(LEGS, "rrf", weight_dense=0.5, rrf_k=60)
