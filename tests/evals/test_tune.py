from __future__ import annotations

import asyncio
import json
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from evals.cli import app
from evals.collection_passes import passes_of
from evals.datasets import Dataset, JudgedQuery, load_dataset
from evals.fusion_grid import RERANK_WEIGHTS, FusionChoice, fused, ranking_value
from evals.index import content_hash, open_judged, scratch_settings
from evals.passes import Pass, RerankPass
from evals.tune import DEFAULT_MEASURE, choose, fold_of, tune_fusion
from evals.tune_rerank import tune_rerank
from rag.bootstrap import read_profile
from rag.configuration import load_settings
from rag.errors import UsageError
from rag.request import SearchRequest
from rag.retrieval.fusion import order
from rag.types import Candidate
from tests.evals.conftest import ANIMALS, NamingReranker
from tests.fake_store import HashEmbedder

DEFAULT = FusionChoice("convex", 0.5)
QUERIES = 120


def judged_set(queries: int = QUERIES) -> Dataset:
    asked = tuple(JudgedQuery(f"q{number}", f"text {number}", {}) for number in range(queries))
    return Dataset("zoo", "test", (), asked, {query.id: {"d17": 1} for query in asked})


def passes_with(good: str, *, queries: int = QUERIES, seed: int = 0) -> list[Pass]:
    """The leg `good` ranks by relevance and noise, the other one, or both for `neither`, by noise alone."""
    random = np.random.default_rng(seed)

    def leg(signal: float):
        scores = random.normal(size=30)
        scores[17] += signal
        return order(Candidate(f"p{number}", f"d{number}", float(score)) for number, score in enumerate(scores))

    return [Pass({name: leg(2.5 if name == good else 0.0) for name in ("bm25", "dense")}, {}) for _ in range(queries)]


def test_folds_are_equal_in_size_seeded_and_do_not_depend_on_the_order():
    ids = [f"q{number}" for number in range(53)]
    folds = dict(zip(ids, fold_of(ids, 5), strict=True))
    assert sorted(Counter(folds.values()).values()) == [10, 10, 11, 11, 11]
    assert dict(zip(ids[::-1], fold_of(ids[::-1], 5), strict=True)) == folds
    assert list(fold_of(ids, 5, seed=1)) != list(folds.values())


def test_too_few_queries_for_the_folds_are_refused():
    with pytest.raises(UsageError, match=r"9 judged queries in 5 folds; .* take fewer --folds"):
        fold_of([str(number) for number in range(9)], 5)


def test_a_lone_peak_does_not_win_over_a_plateau():
    means = [0.5, 0.5, 0.9, 0.5, 0.5, 0.7, 0.72, 0.7, 0.5]
    values = np.array(means)[:, None] + np.random.default_rng(0).normal(scale=0.01, size=(9, 50))
    neighbours = [[near for near in (n - 1, n, n + 1) if 0 <= near < 9] for n in range(9)]
    assert choose(values, 0, neighbours, np.arange(9.0)) == 6
    assert choose(values, 0, [[n] for n in range(9)], np.arange(9.0)) == 2


def test_the_default_stays_unless_beaten_by_more_than_a_standard_error():
    noise = np.random.default_rng(0).normal(size=400)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    alone, distances = [[0], [1]], np.array([0.0, 1.0])
    for gain, expected in ((0.9, 0), (1.1, 1)):
        values = np.stack([np.zeros(400), noise + gain / 20])
        assert choose(values, 0, alone, distances) == expected


def test_equal_choices_go_to_the_one_nearest_to_the_default():
    values = np.stack([np.zeros(9), np.ones(9), np.ones(9)])
    assert choose(values, 0, [[0], [1], [2]], np.array([0.0, 2.0, 1.0])) == 2


@pytest.mark.parametrize(("good", "side"), [("bm25", slice(0.0, 0.45)), ("dense", slice(0.55, 1.0))])
def test_the_weight_moves_to_the_leg_that_finds_more_and_gains_on_held_out_queries(good, side):
    passes, dataset = passes_with(good), judged_set()
    tuned = tune_fusion(passes, dataset, DEFAULT)
    assert tuned.kept == ""
    assert side.start <= tuned.chosen.weight_dense <= side.stop
    assert tuned.better_leg == good
    assert tuned.gain.interval.low > 0
    assert tuned.gain.p_value < 0.01
    # What is reported is exactly each query under the choice that was made without its fold.
    fold = fold_of([query.id for query in dataset.queries], 5)
    held_out = [
        ranking_value(fused(each, tuned.per_fold[number]), {"d17": 1}, DEFAULT_MEASURE)
        for each, number in zip(passes, fold, strict=True)
    ]
    assert tuned.means["tuned"] == pytest.approx(np.mean(held_out))
    assert tuned.gain.mean == pytest.approx(tuned.means["tuned"] - tuned.means["default"])


def test_a_choice_is_made_without_the_queries_that_measure_it():
    passes, dataset = passes_with("dense"), judged_set()
    before = tune_fusion(passes, dataset, DEFAULT)
    fold = fold_of([query.id for query in dataset.queries], 5)
    swapped = [
        Pass({"bm25": each.legs["dense"], "dense": each.legs["bm25"]}, {}) if number == 0 else each
        for each, number in zip(passes, fold, strict=True)
    ]
    after = tune_fusion(swapped, dataset, DEFAULT)
    assert after.per_fold[0] == before.per_fold[0]
    assert after.gain.mean < before.gain.mean


def test_small_noisy_sets_seldom_leave_the_default_and_never_for_a_held_out_loss():
    left = 0
    for seed in range(20):
        passes = passes_with("neither", queries=50, seed=seed)
        tuned = tune_fusion(passes, judged_set(50), DEFAULT)
        left += tuned.chosen != DEFAULT
        assert tuned.chosen == DEFAULT or (tuned.gain.mean > 0 and tuned.gain.interval.low >= 0)
        assert tuned.searched == tuned.held_out or tuned.kept
        assert bool(tuned.kept) == (tuned.chosen == DEFAULT)
    assert left <= 6


def test_with_few_queries_the_default_is_kept_however_clear_the_gain():
    tuned = tune_fusion(passes_with("dense", queries=49), judged_set(49), DEFAULT)
    assert tuned.gain.interval.low > 0
    assert tuned.chosen == DEFAULT
    assert tuned.kept == "49 judged queries are too few to leave it by; 50 are needed"
    assert np.mean(tuned.searched) == pytest.approx(tuned.means["default"])


@pytest.mark.parametrize(("sign", "is_on"), [(1.0, True), (-1.0, False), (0.0, False)])
async def test_reranking_is_on_only_where_it_gains_on_held_out_queries(sign, is_on):
    passes, dataset = passes_with("neither"), judged_set()
    fusion = tune_fusion(passes, dataset, DEFAULT)
    asked: dict[str, list[str]] = {}

    async def score(pools):
        asked.update(pools)
        # Good, bad or useless: the relevant passage is p17.
        return {query: RerankPass({p: sign * (p == "p17") for p in pool}, 5.0) for query, pool in pools.items()}

    tuned = await tune_rerank(passes, dataset, fusion, score, reranker="r", rerank_k=10)
    assert tuned.is_on is is_on
    assert tuned.weight in RERANK_WEIGHTS
    assert (tuned.gain.mean > 0) is is_on
    assert (tuned.reranker, tuned.rerank_k) == ("r", 10)
    # Of the time of the whole pool the share of the candidates of one search.
    assert list(tuned.milliseconds) == [pytest.approx(5.0 * 10 / len(asked[query.text])) for query in dataset.queries]
    assert set(tuned.is_on_per_fold) == {is_on}
    assert tuned.auto == (tuned.held_out if is_on else fusion.searched)
    assert tuned.gain.mean == pytest.approx(tuned.mean - np.mean(fusion.searched))
    assert list(asked) == [query.text for query in dataset.queries]
    assert {c.passage_id for c in fused(passes[0], fusion.chosen)[:10]} <= set(asked["text 0"])
    if is_on:
        found = [any(c.passage_id == "p17" for c in fused(each, fusion.chosen)[:10]) for each in passes]
        assert tuned.mean >= np.mean(found) - 1e-9


async def test_what_auto_does_to_a_query_is_decided_by_other_folds():
    passes, dataset = passes_with("neither"), judged_set()
    fusion = tune_fusion(passes, dataset, DEFAULT)
    fold = fold_of([query.id for query in dataset.queries], 5)
    harmed = {query.text for query, number in zip(dataset.queries, fold, strict=True) if number == 0}

    async def score(pools):
        sign = {query: -1.0 if query in harmed else 1.0 for query in pools}
        return {q: RerankPass({p: sign[q] * (p == "p17") for p in pool}, 1.0) for q, pool in pools.items()}

    tuned = await tune_rerank(passes, dataset, fusion, score, reranker="r", rerank_k=10)
    assert tuned.is_on_per_fold[0], "the others say so, though the fold itself loses"
    own = fold == 0
    assert np.array(tuned.auto)[own].tolist() == np.array(tuned.held_out)[own].tolist()
    assert np.mean(np.array(tuned.auto)[own]) < np.mean(np.array(fusion.searched)[own])


async def test_a_reranker_that_is_right_only_in_part_gets_a_weight_between():
    passes, dataset = passes_with("dense"), judged_set()
    fusion = tune_fusion(passes, dataset, DEFAULT)
    random = np.random.default_rng(3)

    async def score(pools):
        return {
            query: RerankPass({p: 2.0 * (p == "p17") + random.normal() for p in pool}, 1.0)
            for query, pool in pools.items()
        }

    tuned = await tune_rerank(passes, dataset, fusion, score, reranker="r", rerank_k=20)
    assert 0.1 < tuned.weight < 1.0
    assert tuned.is_on
    assert len(tuned.per_fold) == 5


def invoke(*arguments: str):
    ran = CliRunner().invoke(app, ["tune", *arguments, "--json", "--folds", "2"])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout), ran.stderr


def test_what_was_tuned_is_used_by_the_next_run_of_the_same_dataset(in_zoo, zoo, monkeypatch):
    reranker = NamingReranker()
    monkeypatch.setattr("rag.bootstrap.build_reranker", lambda settings, notify: (reranker, ""))
    said, _ = invoke(str(zoo))
    assert said["stored"] is True
    assert said["queries"] == 12
    assert said["fusion"]["kept"] == "12 judged queries are too few to leave it by; 50 are needed"
    assert said["rerank"]["reranker"] == "naming:1"
    assert said["fusion"]["default"] == {"fusion": "convex", "weight_dense": 0.6, "rrf_k": 60}
    assert len(reranker.asked) == 12
    again, _ = invoke(str(zoo))
    assert again == said
    assert len(reranker.asked) == 12, "kept scores are used"
    ran = CliRunner().invoke(app, ["run", str(zoo), "--json"])
    stages = json.loads(ran.stdout)["stages"]
    assert ("reranked" in stages) is said["rerank"]["is_on"]
    chosen = said["fusion"]["chosen"]
    assert f"fused: {chosen['fusion']}, weight_dense {chosen['weight_dense']:g}" in ran.stderr


def test_a_reranker_that_gains_is_switched_on_for_the_collection(in_zoo, zoo, monkeypatch):
    # Neither words nor vectors tell which item is meant: the question names another one.
    documents = [json.dumps({"_id": f"d{n}", "text": f"Item {n} of the list."}) for n in range(12)]
    queries = [json.dumps({"_id": f"q{n}", "text": f"what is on {n} ?"}) for n in range(12)]
    (zoo / "corpus.jsonl").write_text("\n".join(documents))
    (zoo / "queries.jsonl").write_text("\n".join(queries))
    (zoo / "qrels" / "test.tsv").write_text("\n".join(f"q{n}\td{11 - n}\t1" for n in range(12)))

    class Knowing(NamingReranker):
        async def score(self, query, passages, *, timeout_s):
            number = query.split()[-2]
            wanted = 11 - int(number) if number.isdigit() else 0
            return [float(f"Item {wanted} " in passage) for passage in passages]

    monkeypatch.setattr("rag.bootstrap.build_reranker", lambda settings, notify: (Knowing(), ""))
    said, _ = invoke(str(zoo))
    assert said["rerank"]["is_on"] is True
    ran = CliRunner().invoke(app, ["run", str(zoo), "--json"])
    assert "warning: reranked: tuned on these very questions" in ran.stderr
    stages = json.loads(ran.stdout)["stages"]
    assert stages["reranked"]["mrr@10"] > stages["fused"]["mrr@10"]


def test_without_a_reranker_the_reason_is_said(in_zoo, zoo):
    said, _ = invoke(str(zoo))
    assert said["rerank"] is None
    assert said["rerank_skipped"] == "there is none"
    shown = CliRunner().invoke(app, ["tune", str(zoo), "--folds", "2"])
    assert "rerank: none was measured, since there is none" in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())


async def test_a_dry_run_stores_nothing(in_zoo, zoo):
    scratch = scratch_settings(load_settings(), HashEmbedder(), content_hash(load_dataset(zoo), None))
    said = json.loads((await run_in_thread("tune", str(zoo), "--folds", "2", "--dry-run", "--json")).stdout)
    assert said["stored"] is False
    assert await read_profile(scratch) is None
    said = json.loads((await run_in_thread("tune", str(zoo), "--folds", "2", "--json")).stdout)
    profile = await read_profile(scratch)
    assert profile is not None
    assert (profile.fusion, profile.weight_dense) == tuple(said["fusion"]["chosen"].values())[:2]
    assert profile.judged == "zoo, split test, 12 queries"
    assert profile.embedding == "hash"
    assert (profile.reranker, profile.is_rerank_on) == (None, False)


def test_too_many_folds_are_refused_before_the_work(in_zoo, zoo):
    ran = CliRunner().invoke(app, ["tune", str(zoo), "--folds", "7"])
    assert isinstance(ran.exception, UsageError)
    assert "12 judged queries in 7 folds" in str(ran.exception)
    assert not (in_zoo / ".rag").exists()


async def run_in_thread(*arguments: str):
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


@pytest.fixture
def served(in_zoo, zoo, monkeypatch):
    """Ten of the twelve animals, ingested as files and judged by the ids that they have then."""
    from api.cli import app as rag

    monkeypatch.setattr("ingest.run.build_embedder", lambda *_: HashEmbedder())
    (in_zoo / "files").mkdir()
    for line in (zoo / "corpus.jsonl").read_text().splitlines()[:10]:
        document = json.loads(line)
        (in_zoo / "files" / f"{document['_id']}.txt").write_text(document["text"])
    assert CliRunner().invoke(rag, ["ingest", "files"]).exit_code == 0
    judged = "\n".join(f"q-{animal}\tfiles/{animal}.txt\t1" for animal in ANIMALS)
    (zoo / "qrels" / "test.tsv").write_text(judged)
    (zoo / "corpus.jsonl").unlink()
    return zoo


def test_the_served_collection_is_tuned_by_its_own_document_ids(served):
    said, told = invoke(str(served))
    assert said["missing_documents"] == 2
    assert "2 judged documents are not in the collection" in told
    assert said["stored"] is True


def test_judgements_of_another_collection_are_refused(served):
    judged = "\n".join(f"q-{name}\tother/{name}\t1" for name in ANIMALS[:4])
    (served / "qrels" / "test.tsv").write_text(judged)
    ran = CliRunner().invoke(app, ["tune", str(served), "--live", "--folds", "2"])
    assert isinstance(ran.exception, UsageError)
    assert "holds none of the 4 judged documents, such as 'other/falcon'" in str(ran.exception)


def test_settings_that_count_before_what_was_tuned_are_named(in_zoo, zoo, monkeypatch):
    monkeypatch.setenv("RAG_RETRIEVAL__WEIGHT_DENSE", "0.3")
    said, told = invoke(str(zoo))
    assert said["fusion"]["default"]["weight_dense"] == 0.3
    assert "count before what was tuned: retrieval.weight_dense = 0.3" in told


async def test_a_pass_gives_the_ranking_that_a_search_gives(in_zoo, zoo):
    settings, dataset = load_settings(), load_dataset(zoo)
    texts = [query.text for query in dataset.queries]
    async with open_judged(settings, dataset, corpus=None) as judged:
        await passes_of(judged, settings, texts)
        kept = await passes_of(judged, settings, texts)
        for text, each in zip(texts, kept, strict=True):
            for method in ("rrf", "convex", "dbsf"):
                request = SearchRequest(text, settings.data.tenant, k=1, fusion=method, weight_dense=0.3)
                found = await judged.pipeline.search(request)
                assert fused(each, FusionChoice(method, 0.3)) == found.stages["fused"]
