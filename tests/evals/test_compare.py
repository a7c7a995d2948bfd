from __future__ import annotations

import json

import ir_measures
import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from evals.cli import app
from evals.compare import compare_runs, find_runs
from evals.labels import Labels, read_labels, write_labels
from evals.measures import Measure
from evals.trec import write_run
from rag.errors import UsageError

DOCUMENTS = [f"d{number:02}" for number in range(40)]


def random_labels(queries: int = 40) -> Labels:
    random = np.random.default_rng(5)
    qrels = {
        f"q{number}": {
            str(document): int(random.integers(1, 3)) for document in random.choice(DOCUMENTS, 3, replace=False)
        }
        for number in range(queries)
    }
    return Labels("zoo", "test", {query: f"text of {query}" for query in qrels}, qrels, {"d01": "Whales [1]"})


def random_run(labels: Labels, *, skill: float, seed: int) -> dict[str, dict[str, float]]:
    random = np.random.default_rng(seed)
    return {
        query: {d: float(random.normal() + skill * judged.get(d, 0)) for d in DOCUMENTS}
        for query, judged in labels.qrels.items()
    }


def test_means_and_intervals_are_those_of_ir_measures_and_scipy():
    labels = random_labels()
    first, second = random_run(labels, skill=0.3, seed=1), random_run(labels, skill=0.6, seed=2)
    measures = [Measure("ndcg", 10), Measure("map")]
    compared = compare_runs("dense", first, second, labels, measures=measures)
    qrels = [ir_measures.Qrel(q, d, r) for q, judged in labels.qrels.items() for d, r in judged.items()]
    for row, peer in zip(compared.measures, (ir_measures.nDCG @ 10, ir_measures.AP), strict=True):
        values = []
        for run, mean in ((first, row.first), (second, row.second)):
            scored = [ir_measures.ScoredDoc(q, d, s) for q, found in run.items() for d, s in found.items()]
            values.append({each.query_id: each.value for each in ir_measures.iter_calc([peer], qrels, scored)})
            assert mean == pytest.approx(np.mean(list(values[-1].values())))
        gains = np.array([values[1][query] - values[0][query] for query in labels.qrels])
        assert row.difference.mean == pytest.approx(gains.mean())
        assert (row.difference.wins, row.difference.losses) == ((gains > 1e-9).sum(), (gains < -1e-9).sum())
        assert row.difference.wins + row.difference.losses + row.difference.ties == 40
        bootstrap = stats.bootstrap((gains,), np.mean, method="percentile", rng=np.random.default_rng(1))
        spread = gains.std() / len(gains) ** 0.5
        assert row.difference.interval.low == pytest.approx(bootstrap.confidence_interval.low, abs=spread / 10)
        assert row.difference.interval.high == pytest.approx(bootstrap.confidence_interval.high, abs=spread / 10)
    smaller, larger = sorted(row.difference.p_value for row in compared.measures)
    assert sorted(row.corrected_p for row in compared.measures) == [2 * smaller, max(2 * smaller, larger)]


def test_queries_are_listed_by_loss_with_the_ranks_of_their_relevant_documents():
    labels = Labels("zoo", "test", {"q0": "even?", "q1": "down?", "q2": "up?", "q3": "far down?"}, {}, {"a": "Apes"})
    labels = Labels("zoo", "test", labels.texts, {query: {"a": 1, "n": 0} for query in labels.texts}, labels.titles)
    first = {"q0": {"a": 1.0}, "q1": {"a": 2.0, "n": 1.0}, "q2": {"x": 3.0, "n": 2.0, "a": 1.0}, "q3": {"a": 1.0}}
    second = {"q0": {"a": 9.0}, "q1": {"n": 2.0, "a": 1.0}, "q2": {"a": 1.0}}
    compared = compare_runs("bm25", first, second, labels, measures=[Measure("mrr", 10)])
    assert [query.id for query in compared.losses] == ["q3", "q1"]
    assert [query.id for query in compared.wins] == ["q2"]
    assert compared.unrun == 1
    lost = compared.losses[0]
    assert (lost.text, lost.first, lost.second) == ("far down?", 1.0, 0.0)
    (document,) = lost.relevant
    assert (document.id, document.title, document.first_rank, document.second_rank) == ("a", "Apes", 1, None)
    assert (compared.wins[0].relevant[0].first_rank, compared.wins[0].relevant[0].second_rank) == (3, 1)


@pytest.fixture
def runs(tmp_path):
    labels = random_labels()
    for name, skill in (("one", 0.3), ("two", 1.0)):
        folder = tmp_path / name
        folder.mkdir()
        for seed, stage in enumerate(("bm25", "convex")):
            write_run(folder / f"{stage}.trec", random_run(labels, skill=skill, seed=seed), tag=stage)
        write_labels(folder, labels)
    write_run(tmp_path / "two" / "dbsf.trec", random_run(labels, skill=1, seed=9), tag="dbsf")
    return tmp_path


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_two_folders_are_compared_stage_by_stage(runs):
    ran = invoke(runs / "one", runs / "two", "--queries", 3, "--json", "--out", runs / "new" / "diff.md")
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert (said["collection"], said["split"], said["queries"]) == ("zoo", "test", 40)
    assert list(said["stages"]) == ["bm25", "convex"]
    measured = said["stages"]["convex"]["measures"]
    assert list(measured) == ["ndcg@10", "recall@20", "recall@100", "mrr@10", "success@5", "map"]
    assert measured["ndcg@10"]["mean"] > 0
    assert measured["ndcg@10"]["p_holm"] < 0.05
    equal = {"first": 1, "second": 1, "mean": 0, "low": 0, "high": 0, "p": 1, "wins": 0, "losses": 0, "ties": 40}
    assert measured["recall@100"] == {**equal, "p_holm": 1}
    won = said["stages"]["convex"]["wins"]
    assert len(won) == 3
    assert won[0]["second"] - won[0]["first"] >= won[1]["second"] - won[1]["first"]
    assert len(won[0]["relevant"]) == 3
    markdown = (runs / "new" / "diff.md").read_text()
    assert markdown.count("| ndcg@10 | 0.") == 2
    assert f"`{won[0]['id']}` text of {won[0]['id']}" in markdown
    assert "Whales [1]" in invoke(runs / "one", runs / "two", "--queries", 40).stdout


def test_two_run_files_are_one_stage_and_find_the_judgements_beside_them(runs):
    ran = invoke(runs / "two" / "bm25.trec", runs / "two" / "convex.trec", "--measures", "recall@5", "--json")
    stages = json.loads(ran.stdout)["stages"]
    assert list(stages) == ["bm25 -> convex"]
    assert list(stages["bm25 -> convex"]["measures"]) == ["recall@5"]
    assert stages["bm25 -> convex"]["losses"] == []


def test_run_files_without_judgements_need_a_dataset(runs, zoo):
    (runs / "one" / "judged.json").unlink()
    ran = invoke(runs / "one" / "bm25.trec", runs / "two" / "bm25.trec")
    assert isinstance(ran.exception, UsageError)
    assert "name the dataset with --qrels FOLDER" in str(ran.exception)
    write_run(runs / "zoo.trec", {"q-whale": {"whale": 1.0}}, tag="zoo")
    ran = invoke(runs / "zoo.trec", runs / "zoo.trec", "--qrels", zoo, "--json")
    assert json.loads(ran.stdout)["stages"]["zoo"]["measures"]["mrr@10"]["second"] == pytest.approx(1 / 12, abs=1e-4)
    ran = invoke(runs / "one" / "bm25.trec", runs / "two" / "bm25.trec", "--qrels", zoo)
    assert "holds none of the judged queries of zoo" in str(ran.exception)


def test_runs_that_were_judged_differently_are_not_compared(runs):
    labels = read_labels(runs / "two", None, None)
    write_labels(runs / "two", Labels("zoo", "test", labels.texts, {**labels.qrels, "q1": {"d00": 1}}, {}))
    assert "judged differently" in str(invoke(runs / "one", runs / "two").exception)


def test_a_stage_that_only_one_folder_has_is_refused_by_name(runs):
    assert list(find_runs(runs / "one", runs / "two", ["convex"])) == ["convex"]
    with pytest.raises(UsageError, match="not in both folders: dbsf; in both are: bm25, convex"):
        find_runs(runs / "one", runs / "two", ["dbsf"])
    with pytest.raises(UsageError, match="is not a folder"):
        find_runs(runs / "one", runs / "two" / "dbsf.trec", None)
    with pytest.raises(UsageError, match="two run files are one stage"):
        find_runs(runs / "one" / "bm25.trec", runs / "two" / "dbsf.trec", ["bm25"])
