from __future__ import annotations

import json
from pathlib import Path

import pytest

from evals.datasets import CorpusDocument, JudgedQuery, corpus_hash, load_dataset
from rag.errors import UsageError

COLLECTIONS = Path(__file__).resolve().parents[3] / "shared" / "data"

DOCUMENTS = [
    {"_id": "d1", "title": "Whales", "text": "Whales breathe air.\u2028They dive."},
    {"_id": "d2", "text": "Trams run on rails.", "metadata": {"year": 1901}},
]
QUERIES = [
    {"_id": "q1", "text": "what do whales breathe", "metadata": {"answer": "air"}},
    {"_id": "q2", "text": "only judged as not relevant"},
    {"_id": "q3", "text": "of another split"},
    {"_id": "q4", "text": "who laid the rails", "metadata": {"answerable": False}},
]
HEADER = "query-id\tcorpus-id\tscore"


def write_jsonl(path: Path, records: list) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "zoo"
    (folder / "qrels").mkdir(parents=True)
    write_jsonl(folder / "corpus.jsonl", DOCUMENTS)
    write_jsonl(folder / "queries.jsonl", QUERIES)
    (folder / "qrels" / "test.tsv").write_text(f"{HEADER}\nq1\td1\t2\nq1\td2\t0\nq2\td1\t0\n")
    return folder


def test_a_folder_in_beirs_layout_is_read(folder) -> None:
    dataset = load_dataset(folder, split=None)
    assert (dataset.name, dataset.split) == ("zoo", "test")
    assert dataset.documents == (
        CorpusDocument("d1", "Whales", "Whales breathe air.\u2028They dive.", {}),
        CorpusDocument("d2", "", "Trams run on rails.", {"year": 1901}),
    )
    assert dataset.queries == (JudgedQuery("q1", "what do whales breathe", {"answer": "air"}),)
    assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}}
    assert (dataset.unknown_documents, dataset.unknown_queries) == (0, 0)


def test_unanswerable_queries_are_kept_apart_from_those_that_are_ranked(folder) -> None:
    dataset = load_dataset(folder)
    assert [query.id for query in dataset.unanswerable] == ["q4"]


def test_the_split_test_is_the_default_among_several(folder) -> None:
    (folder / "qrels" / "dev.tsv").write_text(f"{HEADER}\nq3\td2\t1\n")
    assert load_dataset(folder).split == "test"
    assert [query.id for query in load_dataset(folder, split="dev").queries] == ["q3"]


def test_several_splits_without_test_ask_for_a_choice(folder) -> None:
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    (folder / "qrels" / "train.tsv").write_text(f"{HEADER}\nq3\td2\t1\n")
    with pytest.raises(UsageError, match="several splits; choose one of dev, train"):
        load_dataset(folder)


def test_a_split_that_does_not_exist_is_refused_with_those_that_do(folder) -> None:
    with pytest.raises(UsageError, match="no split final; choose one of test"):
        load_dataset(folder, split="final")


def test_judgements_of_unknown_documents_are_counted_and_kept(folder) -> None:
    (folder / "qrels" / "test.tsv").write_text(f"{HEADER}\nq1\td1\t1\nq1\tgone\t1\nq3\tgone\t1\nq3\tlost\t1\n")
    dataset = load_dataset(folder)
    assert dataset.unknown_documents == 2
    assert dataset.qrels["q1"] == {"d1": 1, "gone": 1}


def test_judgements_of_unknown_queries_are_counted_and_left_out(folder) -> None:
    (folder / "qrels" / "test.tsv").write_text(f"{HEADER}\nq1\td1\t1\nq8\td1\t1\nq9\td1\t1\nq9\td2\t1\n")
    dataset = load_dataset(folder)
    assert dataset.unknown_queries == 2
    assert list(dataset.qrels) == ["q1"]


def test_a_collection_of_files_has_no_corpus(folder) -> None:
    (folder / "corpus.jsonl").unlink()
    dataset = load_dataset(folder)
    assert dataset.documents == ()
    assert dataset.unknown_documents == 0
    with pytest.raises(UsageError, match=r"no corpus\.jsonl"):
        corpus_hash(dataset)


def test_a_split_without_a_single_relevant_document_is_refused(folder) -> None:
    (folder / "qrels" / "test.tsv").write_text(f"{HEADER}\nq1\td1\t0\nq9\td1\t1\n")
    with pytest.raises(UsageError, match="no query of the split test"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "d3", "text": ', r"corpus\.jsonl, line 4: not JSON"),
        ('["d3"]', "line 4: not a JSON object"),
        ('{"text": "x"}', "line 4: _id must be a string and is missing"),
        ('{"_id": 3, "text": "x"}', "line 4: _id must be a string and is 3"),
        ('{"_id": "", "text": "x"}', "line 4: _id is empty"),
        ('{"_id": "d1", "text": "x"}', "line 4: the _id d1 stands a second time"),
        ('{"_id": "d3", "title": "x"}', "line 4: text must be a string and is missing"),
        ('{"_id": "d3", "text": "x", "title": 1}', "line 4: title must be a string and is 1"),
        ('{"_id": "d3", "text": "x", "metadata": []}', "line 4: metadata must be a JSON object"),
    ],
)
def test_a_document_that_cannot_be_read_is_named_by_its_line(folder, line, message) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(UsageError, match=message):
        load_dataset(folder)


def test_a_query_that_stands_twice_is_refused(folder) -> None:
    write_jsonl(folder / "queries.jsonl", [*QUERIES, QUERIES[0]])
    with pytest.raises(UsageError, match=r"queries\.jsonl, line 5: the _id q1 stands a second time"):
        load_dataset(folder)


def test_missing_parts_of_a_collection_are_named(folder) -> None:
    with pytest.raises(UsageError, match="elsewhere is not a folder"):
        load_dataset(folder / "elsewhere")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UsageError, match=r"queries\.jsonl is missing"):
        load_dataset(folder)
    (folder / "qrels" / "test.tsv").unlink()
    with pytest.raises(UsageError, match="no judgements"):
        load_dataset(folder)


def test_the_hash_of_a_corpus_ignores_the_order_and_sees_every_field(folder) -> None:
    original = corpus_hash(load_dataset(folder))
    write_jsonl(folder / "corpus.jsonl", DOCUMENTS[::-1])
    assert corpus_hash(load_dataset(folder)) == original
    hashes = {original}
    for change in ({"_id": "d3"}, {"title": "Tram"}, {"text": "Trams."}, {"metadata": {"year": 1902}}):
        write_jsonl(folder / "corpus.jsonl", [DOCUMENTS[0], DOCUMENTS[1] | change])
        hashes.add(corpus_hash(load_dataset(folder)))
    assert len(hashes) == 5


def test_the_hash_of_a_corpus_is_the_same_in_every_release(folder) -> None:
    pinned = "1329f8162af35741630214cf96210faf160eccf376ac2d2802fd1f7295ece629"
    assert corpus_hash(load_dataset(folder)) == pinned


def test_a_lone_surrogate_in_a_document_can_be_hashed(folder) -> None:
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "\\ud800"}\n')
    assert len(corpus_hash(load_dataset(folder))) == 64


@pytest.mark.parametrize(
    ("name", "split", "documents", "queries", "unanswerable"),
    [
        ("adi", None, 82, 35, 0),
        ("cranfield", None, 1400, 225, 0),
        ("scifact", "train", 5183, 809, 0),
        ("clapnq_dev", None, 597, 300, 300),
        ("wiki_mix", "test_hotpotqa_100", 7955, 100, 300),
        ("xquad/zh", None, 240, 1190, 0),
    ],
)
def test_a_public_collection_is_read_whole(name, split, documents, queries, unanswerable) -> None:
    folder = COLLECTIONS / name
    if not folder.is_dir():
        pytest.skip(f"the collection {name} is not in ../shared/data")
    dataset = load_dataset(folder, split=split)
    assert (len(dataset.documents), len(dataset.queries), len(dataset.unanswerable)) == (
        documents,
        queries,
        unanswerable,
    )
    assert dataset.qrels.keys() == {query.id for query in dataset.queries}
    assert (dataset.unknown_documents, dataset.unknown_queries) == (0, 0)
