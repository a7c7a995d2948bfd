from __future__ import annotations

import ir_measures
import numpy as np
import pytest

from evals.trec import read_qrels, read_run, write_qrels, write_run
from rag.errors import UsageError

RUN = {"q2": {"a": 0.1, "b": 2.5, "c": 0.1}, "q1": {"dé": -1e-7}}
QRELS = {"q1": {"a": 1, "b": 0}, "q2": {"c": 3}}


def test_a_run_comes_back_as_it_was_written(tmp_path) -> None:
    write_run(tmp_path / "run.trec", RUN, tag="bm25")
    assert read_run(tmp_path / "run.trec") == RUN


def test_a_run_is_written_best_first_with_ties_by_id_and_ranks_from_one(tmp_path) -> None:
    write_run(tmp_path / "run.trec", RUN, tag="bm25")
    assert (tmp_path / "run.trec").read_text("utf-8").splitlines() == [
        "q2 Q0 b 1 2.5 bm25",
        "q2 Q0 a 2 0.1 bm25",
        "q2 Q0 c 3 0.1 bm25",
        "q1 Q0 dé 1 -1e-07 bm25",
    ]


def test_scores_that_numpy_computed_are_written_as_plain_numbers(tmp_path) -> None:
    write_run(tmp_path / "run.trec", {"q": {"a": np.float32(0.5)}}, tag="t")
    assert read_run(tmp_path / "run.trec") == {"q": {"a": 0.5}}


def test_ir_measures_reads_the_same_run_and_qrels(tmp_path) -> None:
    write_run(tmp_path / "run.trec", RUN, tag="bm25")
    write_qrels(tmp_path / "qrels.trec", QRELS)
    run = [(row.query_id, row.doc_id, row.score) for row in ir_measures.read_trec_run(str(tmp_path / "run.trec"))]
    assert sorted(run) == sorted((query, doc, score) for query in RUN for doc, score in RUN[query].items())
    qrels = [
        (row.query_id, row.doc_id, row.relevance) for row in ir_measures.read_trec_qrels(str(tmp_path / "qrels.trec"))
    ]
    assert qrels == [("q1", "a", 1), ("q1", "b", 0), ("q2", "c", 3)]


def test_the_score_and_not_the_rank_column_of_a_run_is_read(tmp_path) -> None:
    (tmp_path / "run.trec").write_text("q Q0 a 1 0.5 t\nq\tQ0\tb\t2\t0.75\tt\n\n")
    assert read_run(tmp_path / "run.trec") == {"q": {"a": 0.5, "b": 0.75}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 a 2 0.5", "line 2: 5 columns"),
        ("q Q0 b 2 high t", "line 2: the score 'high'"),
        ("q Q0 b 2 nan t", "line 2: the score 'nan'"),
        ("q Q0 a 2 0.25 t", "line 2: document a a second time for query q"),
    ],
)
def test_a_line_of_a_run_that_cannot_be_read_is_named(tmp_path, line, message) -> None:
    (tmp_path / "run.trec").write_text(f"q Q0 a 1 0.5 t\n{line}\n")
    with pytest.raises(UsageError, match=message):
        read_run(tmp_path / "run.trec")


@pytest.mark.parametrize(
    ("run", "tag"),
    [
        ({"a query": {"d": 1.0}}, "t"),
        ({"q": {"a\u00a0b": 1.0}}, "t"),
        ({"q": {"": 1.0}}, "t"),
        ({}, "my run"),
    ],
)
def test_names_that_would_break_the_columns_of_a_run_are_refused(tmp_path, run, tag) -> None:
    with pytest.raises(UsageError, match="white space"):
        write_run(tmp_path / "run.trec", run, tag=tag)
    assert not (tmp_path / "run.trec").exists()


def test_a_run_that_cannot_be_written_is_reported_by_path(tmp_path) -> None:
    with pytest.raises(UsageError, match=r"missing.run\.trec cannot be written"):
        write_run(tmp_path / "missing" / "run.trec", RUN, tag="t")


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\ta\t1\nq1\tb\t0\nq2\tc\t3\n",
        "\ufeffquery-id\tcorpus-id\tscore\r\nq1\ta\t1\r\nq1\tb\t0\r\nq2\tc\t3\r\n",
        "q1\ta\t1\nq1\tb\t0\nq2\tc\t3\n",
        "q1 0 a 1\nq1 0 b 0\n\nq2 0 c 3",
        "q1\t0\ta\t1\nq1\t0\tb\t0\nq2\t0\tc\t3\nq2\t0\tc\t3\n",
    ],
    ids=["beir", "beir-windows", "beir-without-header", "trec", "trec-tabs-and-a-repeated-line"],
)
def test_qrels_are_read_in_either_layout(tmp_path, text) -> None:
    (tmp_path / "qrels").write_bytes(text.encode())
    assert read_qrels(tmp_path / "qrels") == QRELS


def test_ids_with_spaces_are_read_between_tabs(tmp_path) -> None:
    (tmp_path / "qrels").write_text("query-id\tcorpus-id\tscore\nquery 1\ta document.pdf\t1\n")
    assert read_qrels(tmp_path / "qrels") == {"query 1": {"a document.pdf": 1}}


def test_qrels_come_back_as_they_were_written(tmp_path) -> None:
    write_qrels(tmp_path / "qrels", QRELS)
    assert read_qrels(tmp_path / "qrels") == QRELS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1\tb", "line 3: 2 columns"),
        ("q1\t0\tb\t1", "line 3: 4 columns"),
        ("q1\tb\tyes", "line 3: the relevance 'yes' is not a whole number"),
        ("q1\tb\t0.5", "line 3: the relevance '0.5' is not a whole number"),
        ("q1\ta\t2", "line 3: document a is judged in two ways for query q1"),
    ],
)
def test_a_judgement_that_cannot_be_read_is_named(tmp_path, line, message) -> None:
    (tmp_path / "qrels").write_text(f"query-id\tcorpus-id\tscore\nq1\ta\t1\n{line}\n")
    with pytest.raises(UsageError, match=message):
        read_qrels(tmp_path / "qrels")


def test_a_first_judgement_with_a_fraction_is_not_taken_for_a_header(tmp_path) -> None:
    (tmp_path / "qrels").write_text("q1\ta\t0.5\nq1\tb\t1\n")
    with pytest.raises(UsageError, match="line 1"):
        read_qrels(tmp_path / "qrels")


def test_qrels_that_are_not_utf_8_or_missing_are_reported_by_path(tmp_path) -> None:
    (tmp_path / "qrels").write_bytes(b"q\xff\ta\t1\n")
    with pytest.raises(UsageError, match="qrels is not UTF-8"):
        read_qrels(tmp_path / "qrels")
    with pytest.raises(UsageError, match="absent is missing"):
        read_qrels(tmp_path / "absent")
