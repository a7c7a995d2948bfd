from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from evals.cli import app
from evals.datasets import Dataset, JudgedQuery, load_dataset
from evals.labels import labels_of, read_labels
from evals.measures import Measure, documents_of
from evals.run import FusionWeights, evaluate_dataset, report_of
from rag.errors import UsageError
from rag.retrieval.fusion import convex_fusion, distribution_fusion, reciprocal_rank_fusion
from rag.types import Candidate, Ranking, SearchResult

QUERIES = ("whales", "trams", "nothing is found")
DATASET = Dataset(
    name="zoo",
    split="test",
    documents=(),
    queries=tuple(JudgedQuery(f"q{number}", text, {}) for number, text in enumerate(QUERIES)),
    qrels={"q0": {"w": 1}, "q1": {"t": 1}, "q2": {"x": 1}},
    unanswerable=(JudgedQuery("u", "must not be asked", {"answerable": False}),),
)


def ranking(*scored: tuple[str, float]) -> Ranking:
    return tuple(Candidate(passage, passage.split("#")[0], score) for passage, score in scored)


LEGS = {
    "whales": (ranking(("w#2", 9.0), ("t#1", 8.0), ("w#1", 1.0)), ranking(("t#1", 0.9), ("w#1", 0.8))),
    "trams": (
        ranking(("w#1", 3.0), ("t#1", 2.5), ("z#1", 1.0)),
        ranking(("z#1", 0.7), ("t#1", 0.6), ("w#1", 0.1)),
    ),
    "nothing is found": ((), ()),
}


class Pipeline:
    """Answers from LEGS; its own fused ranking is useless, so that a test sees whether anyone looks at it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, query: str) -> SearchResult:
        self.asked.append(query)
        bm25, dense = LEGS[query]
        return SearchResult(
            query=query,
            candidates=(),
            passages={},
            stages={"bm25": bm25, "dense": dense, "convex": (), "rerank": dense[:1]},
            timings_ms={"embed": 1.0, "total": float(len(self.asked))},
            degraded=("the encoder was slow",) if query == "trams" else (),
        )


async def test_every_stage_is_scored_from_one_search_per_judged_query() -> None:
    pipeline = Pipeline()
    evaluation = await evaluate_dataset(pipeline, DATASET)
    assert pipeline.asked == list(QUERIES)
    assert list(evaluation.runs) == list(evaluation.per_query) == ["bm25", "dense", "rrf", "convex", "dbsf"]
    assert evaluation.runs["bm25"]["q0"] == {"w": 9.0, "t": 8.0}
    assert evaluation.per_query["bm25"]["q0"]["mrr@10"] == 1
    assert evaluation.per_query["dense"]["q0"]["mrr@10"] == 0.5


async def test_every_fusion_is_computed_from_the_legs_with_the_given_weights() -> None:
    evaluation = await evaluate_dataset(
        Pipeline(), DATASET, weights=FusionWeights({"rrf": 0.75, "convex": 0.6, "dbsf": 0.3}, rrf_k=2)
    )
    legs = LEGS["trams"]
    rrf = reciprocal_rank_fusion(legs, weights=(0.25, 0.75), k=2)
    convex = convex_fusion(legs, weights=(0.4, 0.6))
    assert evaluation.runs["rrf"]["q1"] == documents_of(rrf)
    assert evaluation.runs["convex"]["q1"] == documents_of(convex)
    assert evaluation.runs["dbsf"]["q1"] == documents_of(distribution_fusion(legs, weights=(0.7, 0.3)))
    assert len(rrf) == len(convex) == 3


async def test_a_query_for_which_nothing_is_found_scores_nought() -> None:
    evaluation = await evaluate_dataset(Pipeline(), DATASET, measures=[Measure("recall", 10)])
    assert [evaluation.per_query["convex"][query]["recall@10"] for query in ("q0", "q1", "q2")] == [1, 1, 0]


async def test_a_stage_that_the_pipeline_returns_can_be_scored_by_its_name() -> None:
    evaluation = await evaluate_dataset(Pipeline(), DATASET, stages=["rerank"])
    assert evaluation.runs == {"rerank": {"q0": {"t": 0.9}, "q1": {"z": 0.7}, "q2": {}}}


async def test_a_stage_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match="no stage colbert; choose from bm25, dense, rrf, convex, dbsf"):
        await evaluate_dataset(Pipeline(), DATASET, stages=["colbert"])


async def test_a_leg_that_could_not_run_for_a_query_found_nothing_there() -> None:
    async def search(query: str) -> SearchResult:
        _, dense = LEGS[query]
        return SearchResult(query, (), {}, {"dense": dense}, {"total": 1.0}, ("no indexable word",))

    evaluation = await evaluate_dataset(search, DATASET)
    assert evaluation.runs["bm25"] == {"q0": {}, "q1": {}, "q2": {}}
    assert list(evaluation.runs["convex"]["q1"]) == list(evaluation.runs["dense"]["q1"]) == ["z", "t", "w"]
    assert list(evaluation.degraded) == ["q0", "q1", "q2"]


async def test_a_leg_that_is_absent_without_a_reason_is_refused() -> None:
    async def search(query: str) -> SearchResult:
        return SearchResult(query, (), {}, {"dense": LEGS[query][1]}, {"total": 1.0})

    with pytest.raises(UsageError, match=r"no stage bm25 for the query 'whales' .* it returned dense"):
        await evaluate_dataset(search, DATASET)


async def test_progress_is_told_after_each_query() -> None:
    told: list[tuple[int, int]] = []
    await evaluate_dataset(Pipeline(), DATASET, on_query=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


async def test_what_the_pipeline_could_not_do_is_kept_by_query() -> None:
    evaluation = await evaluate_dataset(Pipeline(), DATASET)
    assert evaluation.degraded == {"q1": ("the encoder was slow",)}


async def test_the_report_holds_means_over_queries_and_percentiles_over_times() -> None:
    evaluation = await evaluate_dataset(Pipeline(), DATASET, measures=[Measure("mrr", 10)])
    report = report_of(evaluation, DATASET, default_fusion="convex")
    assert (report.collection, report.split, report.queries) == ("zoo", "test", 3)
    assert report.stages["bm25"] == {"mrr@10": pytest.approx((1 + 1 / 2 + 0) / 3)}
    assert evaluation.timings_ms["total"] == (1.0, 2.0, 3.0)
    assert (report.latency_ms["total"].p50, report.latency_ms["embed"].p95) == (2.0, 1.0)


async def test_what_the_pipeline_made_of_the_legs_is_scored_where_it_did() -> None:
    """Where nothing was reranked for a query, its users see the fused ranking."""

    async def search(query: str) -> SearchResult:
        bm25, dense = LEGS[query]
        stages = {"bm25": bm25, "dense": dense, "fused": dense}
        if query == "whales":
            stages["reranked"] = bm25
        return SearchResult(query, (), {}, stages, {"total": 1.0}, skipped={"compress": "nobody asked"})

    evaluation = await evaluate_dataset(search, DATASET)
    assert list(evaluation.runs)[-2:] == ["fused", "reranked"]
    assert list(evaluation.runs["reranked"]["q0"]) == ["w", "t"]
    assert evaluation.runs["reranked"]["q1"] == evaluation.runs["fused"]["q1"] == {"z": 0.7, "t": 0.6, "w": 0.1}
    assert evaluation.skipped == {"compress": "nobody asked"}


async def test_reranking_that_did_not_happen_cannot_be_scored() -> None:
    with pytest.raises(UsageError, match=r"no stage reranked; .*; nothing was reranked"):
        await evaluate_dataset(Pipeline(), DATASET, stages=["reranked"])


def test_the_command_scores_the_stages_that_are_asked_for_and_keeps_what_a_comparison_needs(in_zoo, zoo) -> None:
    ran = CliRunner().invoke(app, ["run", str(zoo), "--stages", "dense, dbsf", "--out", "out", "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert list(said["stages"]) == ["dense", "dbsf"]
    assert list(said["stages"]["dbsf"]) == ["ndcg@10", "recall@20", "recall@100", "mrr@10", "success@5", "map"]
    assert said["default_fusion"] == "convex"
    files = {"dense.trec", "dbsf.trec", "report.json", "judged.json"}
    assert {file.name for file in (in_zoo / "out").iterdir()} == files
    assert read_labels(in_zoo / "out", None, None) == labels_of(load_dataset(zoo))
    assert "rerank: skipped, since there is none" in ran.stderr
    assert "indexed 12 passages" in ran.stderr
