from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from evals.cli import app
from evals.datasets import Dataset, JudgedQuery, load_dataset
from evals.gate import compare_to_baseline, ratchet
from evals.gate_baseline import baseline_of, read_baseline, write_baseline
from evals.gate_run import measure_gate
from evals.index import open_judged
from rag.errors import UsageError
from tests.evals.conftest import ANIMALS, NamingReranker

CRANFIELD = Path(__file__).resolve().parents[3] / "shared" / "data" / "cranfield"
CRANFIELD_BASELINE = Path(__file__).parent / "baselines" / "cranfield.json"

QUERIES = 60
IDS = [f"q{number}" for number in range(QUERIES)]
DATASET = Dataset(
    "zoo", "test", (), tuple(JudgedQuery(query, f"text of {query}", {}) for query in IDS), {q: {"d": 1} for q in IDS}
)
VALUES = np.random.default_rng(0).uniform(0.3, 0.9, size=QUERIES)


def measured(values=VALUES, *, dense=VALUES, dataset: Dataset = DATASET, corpus: str = "c"):
    ids = [query.id for query in dataset.queries]
    stages = {"bm25": values, "dense": dense}
    per_query = {
        stage: {query: {"ndcg@10": float(value)} for query, value in zip(ids, of, strict=False)}
        for stage, of in stages.items()
    }
    return baseline_of(dataset, corpus, per_query)


def noise(shift: float):
    return VALUES + shift + np.random.default_rng(1).normal(scale=0.05, size=QUERIES)


def test_a_baseline_comes_back_as_it_was_written_and_equals_itself(tmp_path):
    write_baseline(tmp_path / "sub" / "b.json", measured())
    assert read_baseline(tmp_path / "sub" / "b.json") == measured()
    result = compare_to_baseline(read_baseline(tmp_path / "sub" / "b.json"), measured())
    assert result.is_passed
    assert [(row.stage, row.difference.ties, row.p_loss) for row in result.rows] == [
        ("bm25", 60, 1.0),
        ("dense", 60, 1.0),
    ]
    assert not result.is_corpus_changed


def test_a_significant_loss_of_one_stage_fails_with_the_one_sided_p_of_scipy():
    result = compare_to_baseline(measured(), measured(noise(-0.02)))
    bm25, dense = result.rows
    assert result.losses == (bm25,)
    assert not result.is_passed
    assert dense.p_loss == 1
    expected = stats.permutation_test(
        (VALUES.round(6), noise(-0.02).round(6)),
        lambda x, y, axis: np.mean(y - x, axis=axis),
        permutation_type="samples",
        alternative="less",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).pvalue
    assert bm25.p_loss == pytest.approx(expected, abs=0.005)
    worst = bm25.lost[0]
    assert worst[2] - worst[1] == pytest.approx((noise(-0.02) - VALUES).min(), abs=1e-5)


@pytest.mark.parametrize("shift", [0.1, 0.0])
def test_a_gain_or_a_loss_that_may_be_chance_passes(shift):
    result = compare_to_baseline(measured(), measured(noise(shift)))
    assert result.is_passed
    assert result.rows[0].difference.mean == pytest.approx(np.mean(noise(shift) - VALUES), abs=1e-5)


def test_a_loss_within_the_tolerance_passes_however_sure_it_is():
    slightly = measured(VALUES - 0.004)
    assert compare_to_baseline(measured(), slightly).is_passed
    assert not compare_to_baseline(measured(), slightly, tolerance=0.003).is_passed
    assert compare_to_baseline(measured(), slightly).rows[0].p_loss < 0.001


def test_a_smaller_alpha_lets_more_pass():
    p_loss = compare_to_baseline(measured(), measured(noise(-0.02))).rows[0].p_loss
    assert compare_to_baseline(measured(), measured(noise(-0.02)), alpha=p_loss / 2).is_passed


def test_labels_that_no_longer_match_are_told_apart_from_a_loss():
    queries = list(DATASET.queries)
    queries[3] = replace(queries[3], text="reworded")
    relabelled = {**DATASET.qrels, "q5": {"d": 2}, "new": {"d": 1}}
    del relabelled["q7"]
    changed = replace(
        DATASET,
        queries=(*(query for query in queries if query.id != "q7"), JudgedQuery("new", "?", {})),
        qrels=relabelled,
    )
    values = np.append(np.delete(VALUES, 7), 0.0)
    now = replace(measured(values, dense=values, dataset=changed), missing=("gone",))
    result = compare_to_baseline(measured(), now)
    assert result.changed_queries == ("q3", "q5")
    assert result.gone_queries == ("q7",)
    assert result.new_queries == ("new",)
    assert result.missing_documents == ("gone",)
    assert result.losses == ()
    assert not result.do_labels_match
    assert not result.is_passed
    assert sum(row.difference.ties for row in result.rows[:1]) == QUERIES - 3


def test_new_queries_and_other_documents_alone_pass():
    more = replace(
        DATASET, queries=(*DATASET.queries, JudgedQuery("new", "?", {})), qrels={**DATASET.qrels, "new": {"d": 1}}
    )
    values = np.append(VALUES, 0.0)
    result = compare_to_baseline(measured(), measured(values, dense=values, dataset=more, corpus="other"))
    assert result.is_passed
    assert result.is_corpus_changed


def test_a_baseline_of_another_set_is_refused():
    with pytest.raises(UsageError, match="is of zoo, split test, not of ark, split test"):
        compare_to_baseline(measured(), measured(dataset=replace(DATASET, name="ark")))
    other = replace(DATASET, qrels={query: {"e": 1} for query in IDS})
    with pytest.raises(UsageError, match="no query is judged as in the baseline"):
        compare_to_baseline(measured(), measured(dataset=other))


def test_the_ratchet_takes_gains_and_keeps_what_became_slightly_worse():
    before, now = measured(), measured(VALUES + 0.1, dense=VALUES - 0.001)
    written = ratchet(before, now, compare_to_baseline(before, now), accept_loss=False)
    assert written.stages["bm25"] == now.stages["bm25"]
    assert written.stages["dense"] == before.stages["dense"]
    accepted = ratchet(before, now, compare_to_baseline(before, now), accept_loss=True)
    assert accepted == now


def test_the_ratchet_keeps_a_stage_that_did_not_run():
    now = measured(VALUES + 0.1)
    result = compare_to_baseline(measured(), replace(now, stages={"bm25": now.stages["bm25"]}))
    written = ratchet(measured(), replace(now, stages={"bm25": now.stages["bm25"]}), result, accept_loss=False)
    assert written.stages == {"bm25": now.stages["bm25"], "dense": measured().stages["dense"]}


def test_a_stage_that_was_not_measured_fails_unless_it_was_left_out():
    only = replace(measured(), stages={"bm25": measured().stages["bm25"], "dbsf": measured().stages["bm25"]})
    result = compare_to_baseline(measured(), only)
    assert (result.unmeasured, result.left_out, result.new_stages) == (("dense",), (), ("dbsf",))
    assert not result.is_passed
    result = compare_to_baseline(measured(), only, asked=["bm25"])
    assert (result.unmeasured, result.left_out) == ((), ("dense",))
    assert result.is_passed
    result = compare_to_baseline(measured(), replace(only, stages={"dbsf": only.stages["dbsf"]}), asked=["dbsf"])
    assert not result.is_passed, "nothing was compared"


def test_a_stage_without_a_query_in_common_counts_as_not_measured():
    only_first = {**measured().stages, "bm25": {"q0": {"ndcg@10": 1.0}}}
    changed = replace(measured(), labels={**measured().labels, "q0": "other"})
    result = compare_to_baseline(replace(measured(), stages=only_first), changed)
    assert [row.stage for row in result.rows] == ["dense"]
    assert result.unmeasured == ("bm25",)


def test_a_large_loss_on_few_queries_fails_though_it_may_be_chance():
    few = np.where(np.sort(VALUES)[-4] <= VALUES, 0.0, VALUES)
    result = compare_to_baseline(measured(), measured(few))
    assert result.rows[0].p_loss == pytest.approx(1 / 16)
    assert result.losses == (result.rows[0],)
    assert compare_to_baseline(measured(), measured(few), max_loss=0.1).is_passed


def test_documents_that_were_missing_before_fail_no_gate(tmp_path):
    before = replace(measured(), missing=("ghost",))
    write_baseline(tmp_path / "b.json", before)
    assert read_baseline(tmp_path / "b.json") == before
    assert compare_to_baseline(before, before).is_passed
    result = compare_to_baseline(before, replace(before, missing=("ghost", "gone")))
    assert (result.known_missing, result.missing_documents) == (("ghost",), ("gone",))
    assert not result.is_passed


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_file_that_is_no_baseline_is_refused_with_the_remedy(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UsageError, match=r"b\.json .*write it anew with --update"):
        read_baseline(tmp_path / "b.json")


def gate(zoo: Path, *arguments: str):
    return CliRunner().invoke(app, ["gate", str(zoo), "--baseline", "b.json", *arguments])


def test_the_command_writes_passes_fails_and_refuses_to_lower(in_zoo, zoo):
    missing = gate(zoo)
    assert isinstance(missing.exception, UsageError)
    assert "there is no baseline b.json; write it anew with --update" in str(missing.exception)
    first = gate(zoo, "--update")
    assert first.exit_code == 0
    assert "failed" not in first.stdout
    passed = gate(zoo, "--json")
    assert passed.exit_code == 0, passed.output
    said = json.loads(passed.stdout)
    assert said["passed"] is True
    assert {row["stage"] for row in said["stages"]} == {"bm25", "dense", "rrf", "convex"}
    written = (in_zoo / "b.json").read_text()
    assert "What does the" not in written, "numbers alone, no texts"

    baseline = read_baseline(in_zoo / "b.json")
    nameless = [json.dumps({"_id": animal, "text": f"Item {n}."}) for n, animal in enumerate(ANIMALS)]
    (zoo / "corpus.jsonl").write_text("\n".join(nameless))
    failed = gate(zoo, "--stages", "bm25")
    assert failed.exit_code == 1, failed.output
    assert "LOSS" in failed.stdout
    assert "What does the" in failed.stdout
    assert "the documents are not those of the baseline" in failed.stdout
    assert "not measured" not in failed.stdout, "nobody asked for the other stages"
    refused = gate(zoo, "--update")
    assert refused.exit_code == 1
    assert "the baseline is not lowered" in refused.stderr
    assert read_baseline(in_zoo / "b.json") == baseline
    assert gate(zoo, "--update", "--accept-loss").exit_code == 0
    assert gate(zoo).exit_code == 0


def test_a_judged_document_that_is_gone_fails_as_a_label_and_not_as_a_loss(in_zoo, zoo):
    (in_zoo / "files").mkdir()
    for line in (zoo / "corpus.jsonl").read_text().splitlines():
        document = json.loads(line)
        (in_zoo / "files" / f"{document['_id']}.md").write_text(document["text"])
    judged = (zoo / "qrels" / "test.tsv").read_text().splitlines()[1:]
    rows = [f"{query}\tfiles/{document}.md\t1" for query, document, _ in (line.split("\t") for line in judged)]
    (zoo / "qrels" / "test.tsv").write_text("\n".join(rows))
    assert gate(zoo, "--corpus", "files", "--update").exit_code == 0
    (in_zoo / "files" / "newt.md").unlink()
    failed = gate(zoo, "--corpus", "files", "--alpha", "0", "--max-loss", "1", "--json")
    assert failed.exit_code == 1
    said = json.loads(failed.stdout)
    assert said["missing_documents"] == ["files/newt.md"]
    assert said["labels_match"] is False
    assert not any(row["lost"] for row in said["stages"])


def test_reranking_is_gated_where_there_is_a_reranker_whatever_was_tuned(in_zoo, zoo, monkeypatch):
    monkeypatch.setattr("rag.bootstrap.build_reranker", lambda settings, notify: (NamingReranker(), ""))
    assert gate(zoo, "--update").exit_code == 0
    assert set(read_baseline(in_zoo / "b.json").stages) == {"bm25", "dense", "rrf", "convex", "reranked"}
    monkeypatch.setattr("rag.bootstrap.build_reranker", lambda settings, notify: (None, "there is none"))
    without = gate(zoo)
    assert without.exit_code == 1
    assert "in the baseline, but not measured now: reranked" in without.stdout
    assert gate(zoo, "--stages", "bm25, dense").exit_code == 0
    monkeypatch.setattr("rag.bootstrap.build_reranker", lambda settings, notify: (NamingReranker(sign=-1), ""))
    worse = gate(zoo, "--json")
    assert worse.exit_code == 1
    assert {row["stage"] for row in json.loads(worse.stdout)["stages"] if row["lost"]} == {"reranked"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", ","], "--stages names nothing"),
        (["--stages", "bm25,colbert"], "there is no colbert; choose from bm25, dense"),
        (["--stages", "dbsf"], "--stages leaves out all that the baseline holds: bm25, dense"),
        (["--accept-loss"], "add --update"),
        (["--split", "dev"], "the baseline is of zoo, split test, not of zoo, split dev"),
    ],
)
def test_what_cannot_be_gated_is_refused_before_the_work(in_zoo, zoo, monkeypatch, arguments, message):
    write_baseline(in_zoo / "b.json", measured())
    (zoo / "qrels" / "dev.tsv").write_bytes((zoo / "qrels" / "test.tsv").read_bytes())
    monkeypatch.setattr("evals.gate_run.evaluate_pipeline", None)
    arguments = arguments if "--split" in arguments else [*arguments, "--split", "test"]
    ran = gate(zoo, *arguments)
    assert isinstance(ran.exception, UsageError)
    assert message in str(ran.exception)
    assert not (in_zoo / ".rag").exists()


@pytest.mark.slow
async def test_no_stage_finds_less_on_cranfield_than_its_baseline(eval_settings):
    if not CRANFIELD.exists():
        pytest.skip("../shared/data/cranfield is absent")
    dataset = load_dataset(CRANFIELD)
    async with open_judged(eval_settings, dataset, corpus=None) as judged:
        now = await measure_gate(judged, eval_settings, dataset)
    result = compare_to_baseline(read_baseline(CRANFIELD_BASELINE), now)
    assert result.do_labels_match
    assert [(row.stage, row.measure, row.difference.mean) for row in result.losses] == []
