from __future__ import annotations

import math
import random

import ir_measures
import pytest

from evals.measures import (
    DEFAULT_MEASURES,
    Measure,
    Qrels,
    Run,
    average_precision,
    documents_of,
    evaluate,
    mean,
    mrr,
    ndcg,
    parse_measure,
    recall,
    success,
)
from rag.errors import UsageError
from rag.types import Candidate

JUDGEMENTS = {"a": 3, "b": 1, "c": 0, "d": 2}
RANKING = ["c", "b", "x", "a"]


def test_ndcg_is_the_linear_gain_discounted_by_the_logarithm_of_the_rank() -> None:
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(RANKING, JUDGEMENTS, 10) == pytest.approx((1 / math.log2(3) + 3 / math.log2(5)) / ideal)


def test_the_ideal_ranking_of_ndcg_is_cut_at_k_too() -> None:
    assert ndcg(["a"], JUDGEMENTS, 1) == 1
    assert ndcg(["a"], JUDGEMENTS, 2) == pytest.approx(3 / (3 + 2 / math.log2(3)))


def test_recall_counts_the_relevant_documents_above_the_cut() -> None:
    assert recall(RANKING, JUDGEMENTS, 2) == pytest.approx(1 / 3)
    assert recall(RANKING, JUDGEMENTS) == pytest.approx(2 / 3)


def test_the_reciprocal_rank_is_nought_when_the_first_relevant_document_is_below_the_cut() -> None:
    assert mrr(RANKING, JUDGEMENTS, 2) == 1 / 2
    assert mrr(RANKING, JUDGEMENTS, 1) == 0


def test_success_asks_whether_anything_relevant_is_above_the_cut() -> None:
    assert [success(RANKING, JUDGEMENTS, k) for k in (1, 2)] == [0, 1]


def test_average_precision_divides_by_all_relevant_documents() -> None:
    assert average_precision(RANKING, JUDGEMENTS) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert average_precision(RANKING, JUDGEMENTS, 3) == pytest.approx((1 / 2) / 3)


@pytest.mark.parametrize("measure", [ndcg, recall, mrr, success, average_precision])
def test_a_query_without_relevant_documents_scores_nought(measure) -> None:
    assert measure(["a"], {"a": 0, "b": -1}, 10) == 0
    assert measure([], {"a": 1}, 10) == 0


def random_run_and_qrels(*, queries: int = 60, documents: int = 150) -> tuple[Run, Qrels]:
    """Graded judgements, many tied scores, queries that one side lacks, one without relevant documents."""
    chance = random.Random(20240607)
    ids = [f"d{number:03}" for number in range(documents)]
    run, qrels = {}, {}
    for number in range(queries):
        judged = chance.sample(ids, chance.randint(1, 40))
        returned = chance.sample(ids, chance.randint(1, 120))
        qrels[f"q{number}"] = {document: chance.choice([-1, 0, 1, 2, 3]) for document in judged}
        qrels[f"q{number}"][judged[0]] = 1
        if number % 7:
            judgements = qrels[f"q{number}"]
            run[f"q{number}"] = {
                document: chance.randint(0, 30) / 4 + 2 * (judgements.get(document, 0) > 0)
                for document in sorted(returned)
            }
    qrels["nothing-relevant"] = {"d001": 0}
    run["nothing-relevant"] = run["not-judged"] = {"d001": 1.0}
    return run, qrels


def reference_values(run: Run, qrels: Qrels, measure: str) -> dict[str, float]:
    reference = ir_measures.parse_measure(measure)
    values = dict.fromkeys(qrels, 0.0)
    values |= {found.query_id: found.value for found in ir_measures.iter_calc([reference], qrels, run)}
    return values


def with_ids_in_reverse_order(table):
    """trec_eval breaks ties by falling id; the run names rising ones: under these names both mean the same order."""
    return {
        query: {f"d{999 - int(document[1:]):03}": value for document, value in documents.items()}
        for query, documents in table.items()
    }


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ndcg@1", "nDCG@1"),
        ("ndcg@10", "nDCG@10"),
        ("ndcg", "nDCG"),
        ("recall@20", "R@20"),
        ("recall@100", "R@100"),
        ("mrr", "RR"),
        ("success@1", "Success@1"),
        ("success@5", "Success@5"),
        ("ap", "AP"),
        ("ap@30", "AP@30"),
    ],
)
def test_measures_agree_with_trec_eval(ours, theirs) -> None:
    run, qrels = random_run_and_qrels()
    values = evaluate(run, qrels, [parse_measure(ours)])
    expected = reference_values(with_ids_in_reverse_order(run), with_ids_in_reverse_order(qrels), theirs)
    assert {query: value[ours] for query, value in values.items()} == pytest.approx(expected, abs=1e-12)
    assert 0.1 < mean(values)[ours] < 0.9


@pytest.mark.parametrize("k", [1, 3, 10])
def test_the_cut_reciprocal_rank_agrees_with_the_one_of_ms_marco(k) -> None:
    run, qrels = random_run_and_qrels()
    values = evaluate(run, qrels, [Measure("mrr", k)])
    expected = reference_values(run, qrels, f"RR@{k}")
    assert {query: value[f"mrr@{k}"] for query, value in values.items()} == pytest.approx(expected, abs=1e-12)


def test_a_judged_query_without_results_counts_as_nought_in_the_mean() -> None:
    values = evaluate({"q1": {"a": 1.0}, "not-judged": {"a": 1.0}}, {"q1": {"a": 1}, "q2": {"a": 1}})
    assert list(values) == ["q1", "q2"]
    assert mean(values)["mrr@10"] == 0.5


def test_equal_scores_keep_the_order_in_which_they_are_served() -> None:
    values = evaluate({"q": {"b": 1.0, "a": 1.0, "c": 2.0}}, {"q": {"b": 1}}, [Measure("mrr")])
    assert values["q"]["mrr"] == 0.5


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(UsageError, match="not a number"):
        evaluate({"q": {"a": math.nan}}, {"q": {"a": 1}})


def test_there_is_no_mean_over_no_queries() -> None:
    with pytest.raises(UsageError, match="no judged query"):
        mean({})


def test_the_default_measures_are_those_of_the_interface() -> None:
    names = ["ndcg@10", "recall@20", "recall@100", "mrr@10", "success@5", "map"]
    assert [str(measure) for measure in DEFAULT_MEASURES] == names
    assert tuple(parse_measure(name) for name in names) == DEFAULT_MEASURES


@pytest.mark.parametrize("text", ["", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@1.5", "NDCG@10", "precision@10", "ndcg@10 "])
def test_a_measure_that_does_not_exist_is_refused_with_the_ones_that_do(text) -> None:
    with pytest.raises(UsageError, match=r"ndcg, recall, mrr, success, ap"):
        parse_measure(text)


def test_a_document_scores_as_its_best_passage_and_keeps_its_place() -> None:
    ranking = (
        Candidate("b#1", "b", 0.9),
        Candidate("a#1", "a", 0.8),
        Candidate("b#2", "b", 0.7),
        Candidate("c#1", "c", 0.1),
    )
    assert list(documents_of(ranking).items()) == [("b", 0.9), ("a", 0.8), ("c", 0.1)]
