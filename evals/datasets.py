"""Test collections in BEIR's layout: documents, queries and the judgements that join them.

    corpus.jsonl        {"_id", "title", "text", "metadata"}     may be absent: then files are ingested instead
    queries.jsonl       {"_id", "text", "metadata"}
    qrels/<split>.tsv   query, document, relevance               TREC's four columns are read as well

`title` and `metadata` may be left out. A query that the documents cannot answer says so by
`"metadata": {"answerable": false}` and has no judgements.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.measures import Qrels
from evals.trec import numbered_lines, read_qrels
from rag.errors import UsageError

__all__ = ["CorpusDocument", "Dataset", "JudgedQuery", "Qrels", "corpus_hash", "load_dataset"]


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A question of the collection; `metadata` holds what its makers added, such as reference answers."""

    id: str
    text: str
    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A document of the collection; `title` is empty where it has none."""

    id: str
    title: str
    text: str
    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Dataset:
    """One split of a collection.

    Attributes:
        name: Of its folder.
        documents: In the order of the file; empty where the collection has no `corpus.jsonl`.
        queries: Those of the split with at least one relevant document, in the order of the file.
        qrels: The judgements of exactly these queries.
        unanswerable: Queries marked `answerable: false` that have no relevant document; they do not count in
            ranking measures.
        unknown_documents: How many different documents `qrels` names that `documents` does not hold. Their
            judgements stay, as in BEIR, and lower recall. 0 where there are no documents to compare with.
        unknown_queries: How many different queries the split judges that `queries.jsonl` does not hold; left
            out.
    """

    name: str
    split: str
    documents: tuple[CorpusDocument, ...]
    queries: tuple[JudgedQuery, ...]
    qrels: Qrels
    unanswerable: tuple[JudgedQuery, ...] = ()
    unknown_documents: int = 0
    unknown_queries: int = 0


def load_dataset(folder: Path, *, split: str | None = None) -> Dataset:
    """Reads a collection.

    Args:
        folder: In BEIR's layout.
        split: Name of a file in `qrels/` without its ending; None takes the only one, or `test` among
            several.

    Raises:
        UsageError: A file is missing or malformed (its line is named), an id stands twice, the split does not
            exist, or no query of the split has a relevant document.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name one that holds queries.jsonl and qrels/")
    split = _choose_split(folder, split)
    corpus_path = folder / "corpus.jsonl"
    documents = tuple(_read_documents(corpus_path)) if corpus_path.exists() else ()
    all_queries = tuple(_read_queries(folder / "queries.jsonl"))
    judged = read_qrels(folder / "qrels" / f"{split}.tsv")
    queries = tuple(query for query in all_queries if _is_answered(judged.get(query.id, {})))
    if not queries:
        raise UsageError(
            f"{folder}: no query of the split {split} has a relevant document in queries.jsonl; check the ids"
        )
    qrels = {query.id: judged[query.id] for query in queries}
    known = {document.id for document in documents}
    named = {document for judgements in qrels.values() for document in judgements}
    return Dataset(
        name=folder.resolve().name,
        split=split,
        documents=documents,
        queries=queries,
        qrels=qrels,
        unanswerable=tuple(
            query for query in all_queries if query.metadata.get("answerable") is False and query.id not in qrels
        ),
        unknown_documents=len(named - known) if known else 0,
        unknown_queries=len(judged.keys() - {query.id for query in all_queries}),
    )


def corpus_hash(dataset: Dataset) -> str:
    """SHA-256, in hexadecimal, of the documents with their metadata, whatever their order in the file.

    Raises:
        UsageError: There are no documents, so every such collection would have the same hash.
    """
    if not dataset.documents:
        raise UsageError(f"{dataset.name} has no corpus.jsonl to hash; hash the files that are ingested instead")
    digest = hashlib.sha256()
    for document in sorted(dataset.documents, key=lambda document: document.id):
        # JSON delimits the fields, and its escapes can express the lone surrogates that UTF-8 refuses.
        fields = [document.id, document.title, document.text, document.metadata]
        digest.update(json.dumps(fields, sort_keys=True, ensure_ascii=True).encode("ascii") + b"\n")
    return digest.hexdigest()


def _choose_split(folder: Path, split: str | None) -> str:
    splits = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    if not splits:
        raise UsageError(f"{folder} has no judgements; put them in qrels/<split>.tsv")
    if split is None:
        split = splits[0] if len(splits) == 1 else "test"
        if split not in splits:
            raise UsageError(f"{folder} has several splits; choose one of {', '.join(splits)}")
    if split not in splits:
        raise UsageError(f"{folder} has no split {split}; choose one of {', '.join(splits)}")
    return split


def _is_answered(judgements: Mapping[str, int]) -> bool:
    return any(relevance > 0 for relevance in judgements.values())


def _read_documents(path: Path) -> Iterator[CorpusDocument]:
    for where, record in _records(path):
        yield CorpusDocument(
            record["_id"],
            _string(record, "title", where, default=""),
            _string(record, "text", where),
            _metadata(record, where),
        )


def _read_queries(path: Path) -> Iterator[JudgedQuery]:
    for where, record in _records(path):
        yield JudgedQuery(record["_id"], _string(record, "text", where), _metadata(record, where))


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, each with its place in words; every one has an id of its own."""
    seen: set[str] = set()
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{where}: not JSON: {error.msg} at character {error.colno}") from error
        if not isinstance(record, dict):
            raise UsageError(f"{where}: not a JSON object")
        record["_id"] = identity = _string(record, "_id", where)
        if not identity:
            raise UsageError(f"{where}: _id is empty; give each record its own")
        if identity in seen:
            raise UsageError(f"{where}: the _id {identity} stands a second time; ids must be unique")
        seen.add(identity)
        yield where, record


def _string(record: Mapping[str, Any], key: str, where: str, *, default: str | None = None) -> str:
    value = record.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        found = json.dumps(value)[:40] if key in record else "missing"
        raise UsageError(f"{where}: {key} must be a string and is {found}")
    return value


def _metadata(record: Mapping[str, Any], where: str) -> Mapping[str, object]:
    value = record.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{where}: metadata must be a JSON object")
    return value
