from __future__ import annotations

import numpy as np
import pytest

from evals.fusion_grid import FusionChoice, fused, fusion_grid, fusion_values, ranking_value, rerank_values
from evals.measures import Measure
from evals.passes import Pass
from rag.retrieval.fusion import complete, missing, order
from rag.retrieval.rerank import interpolate
from rag.types import Candidate

DEFAULT = FusionChoice("convex", 0.5)


def random_pass(seed: int) -> tuple[Pass, dict[str, int]]:
    """Two legs that share some passages, completed for odd seeds; three passages to a document."""
    random = np.random.default_rng(seed)

    def leg(size: int) -> tuple[Candidate, ...]:
        numbers = random.choice(90, size=size, replace=False)
        return order(
            Candidate(f"p{n:02}", f"d{n % 30:02}", float(s))
            for n, s in zip(numbers, random.gamma(2, size=size), strict=True)
        )

    legs = {"bm25": leg(40), "dense": leg(50)}
    scored = {leg: tuple(Candidate(p, "", float(random.gamma(1))) for p in ids) for leg, ids in missing(legs).items()}
    judged = {f"d{number:02}": int(relevance) for number, relevance in enumerate(random.integers(0, 3, size=30))}
    return Pass(legs, {}, completed=complete(legs, scored) if seed % 2 else {}), judged


@pytest.mark.parametrize("measure", [Measure("ndcg", 10), Measure("recall", 20), Measure("map")])
def test_every_choice_has_the_value_of_the_ranking_that_it_gives(measure):
    grid = fusion_grid(DEFAULT)
    passes, judged = zip(*(random_pass(seed) for seed in range(3)), strict=True)
    values = fusion_values(grid, passes, judged, measure)
    expected = [
        [ranking_value(fused(each, choice), j, measure) for each, j in zip(passes, judged, strict=True)]
        for choice in grid.choices
    ]
    assert values.shape == (7 * 21, 3)
    assert np.allclose(values, expected)
    assert len(np.unique(values.round(9), axis=0)) > 10


@pytest.mark.parametrize("method", ["rrf", "convex", "dbsf"])
def test_documents_of_equal_score_stand_as_they_are_served(method):
    """Their best passages tie, so that the id of the passage decides, whatever the ids of the documents."""
    best, other = Candidate("p0", "d9", 1.0), Candidate("p1", "d8", 1.0)
    tied = Pass({"bm25": (best, other), "dense": (other, best)}, {})
    grid, measure, judged = fusion_grid(DEFAULT), Measure("mrr", 10), {"d9": 1}
    values = dict(zip(grid.choices, fusion_values(grid, [tied], [judged], measure)[:, 0], strict=True))
    choice = FusionChoice(method, 0.5)
    assert [c.document_id for c in fused(tied, choice)] == ["d9", "d8"]
    assert values[choice] == ranking_value(fused(tied, choice), judged, measure) == 1


def test_a_missing_or_empty_leg_leaves_the_other():
    each, judged = random_pass(1)
    dense = {"dense": each.legs["dense"]}
    grid, measure = fusion_grid(DEFAULT), Measure("ndcg", 10)
    passes = [Pass(dense, {}), Pass({**dense, "bm25": ()}, {}), Pass({}, {})]
    values = fusion_values(grid, passes, [judged] * 3, measure)
    assert np.allclose(values[:, 0], ranking_value(each.legs["dense"], judged, measure))
    for choice, row in zip(grid.choices, values, strict=True):
        assert list(row) == [pytest.approx(ranking_value(fused(p, choice), judged, measure)) for p in passes]
    assert not values[:, 2].any()


def test_a_default_off_the_grid_is_added_to_it():
    grid = fusion_grid(FusionChoice("rrf", 0.33, 7))
    assert len(grid.choices) == 7 * 21 + 1
    assert grid.choices[grid.default] == FusionChoice("rrf", 0.33, 7)
    assert grid.neighbours()[grid.default] == [grid.default]
    each, judged = random_pass(1)
    values = fusion_values(grid, [each], [judged], Measure("ndcg", 10))
    expected = ranking_value(fused(each, grid.choices[grid.default]), judged, Measure("ndcg", 10))
    assert values[grid.default, 0] == pytest.approx(expected)


def test_neighbours_differ_by_one_step_of_weight_alone():
    grid = fusion_grid(DEFAULT)
    for own, near in enumerate(grid.neighbours()):
        choice = grid.choices[own]
        others = [grid.choices[number] for number in near if number != own]
        assert {(other.method, other.rrf_k) for other in others} == {(choice.method, choice.rrf_k)}
        assert [abs(other.weight_dense - choice.weight_dense) for other in others] == [pytest.approx(0.05)] * len(
            others
        )
        assert len(others) == (1 if choice.weight_dense in (0, 1) else 2)


def test_the_default_is_nearest_to_itself_and_another_method_farther_than_any_weight():
    grid = fusion_grid(DEFAULT)
    distance = dict(zip(grid.choices, grid.distances(), strict=True))
    assert distance[DEFAULT] == 0
    assert distance[FusionChoice("convex", 1.0)] < distance[FusionChoice("dbsf", 0.5)]


def test_interpolation_is_scored_under_each_weight():
    each, judged = random_pass(4)
    ranking, measure = fused(each, DEFAULT), Measure("ndcg", 10)
    scores = np.random.default_rng(0).normal(size=30).tolist()
    values = rerank_values(ranking, scores, judged, measure)
    assert len(values) == 10
    assert values[-1] == ranking_value(interpolate(ranking, scores, weight=1.0), judged, measure)
    assert values[2] == ranking_value(interpolate(ranking, scores, weight=0.3), judged, measure)
