"""What a gate compares with: numbers of an earlier time, in a file that is committed.

A baseline holds numbers only: every gate measure of every query, hashes of the queries with their judgements, and one
of the corpus.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.datasets import Dataset
from evals.measures import PerQuery
from rag.errors import UsageError

_FORMAT = 1
DIGITS = 6
"""After the point, in the file."""
REMEDY = "write it anew with --update"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was measured before.

    Attributes:
        corpus: Hash of the documents.
        labels: Query id -> hash of its text and judgements.
        stages: Stage -> query id -> measure -> value.
        missing: Judged documents that the corpus does not hold.
    """

    collection: str
    split: str
    corpus: str
    labels: Mapping[str, str]
    stages: Mapping[str, PerQuery]
    missing: tuple[str, ...] = ()


def baseline_of(
    dataset: Dataset, corpus: str, per_query: Mapping[str, PerQuery], *, missing: Sequence[str] = ()
) -> Baseline:
    """What was measured now, as a baseline.

    Args:
        corpus: From `evals.index.content_hash`.
        per_query: By stage.
        missing: Judged documents that the corpus does not hold.
    """
    stages = {
        stage: {query: {name: round(value, DIGITS) for name, value in of.items()} for query, of in values.items()}
        for stage, values in per_query.items()
    }
    labels = {query.id: _label_hash(query.text, dataset.qrels[query.id]) for query in dataset.queries}
    return Baseline(dataset.name, dataset.split, corpus, labels, stages, tuple(sorted(missing)))


def write_baseline(file: Path, baseline: Baseline) -> None:
    """Write a baseline; each query has a line of its own, so that changes can be read in a review."""
    header = {
        "format": _FORMAT,
        "collection": baseline.collection,
        "split": baseline.split,
        "corpus": baseline.corpus,
        **({"missing": baseline.missing} if baseline.missing else {}),
        "measures": {stage: measures_of(values) for stage, values in baseline.stages.items()},
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in header.items()]
    rows = []
    for query, label in baseline.labels.items():
        values = {stage: list(of[query].values()) for stage, of in baseline.stages.items() if query in of}
        rows.append(f"  {json.dumps(query)}: {json.dumps({'label': label, **values})}")
    text = "{\n" + ",\n".join(lines) + ',\n"queries": {\n' + ",\n".join(rows) + "\n}}\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error


def read_baseline(file: Path) -> Baseline:
    """What `write_baseline` wrote.

    Raises:
        UsageError: It is missing or not a baseline.
    """
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            raise UsageError(f"{file} has format {data['format']}, not {_FORMAT}; {REMEDY}")
        queries: dict[str, dict[str, Any]] = data["queries"]
        stages = {
            stage: {
                query: dict(zip(names, values[stage], strict=True))
                for query, values in queries.items()
                if stage in values
            }
            for stage, names in data["measures"].items()
        }
        labels = {query: values["label"] for query, values in queries.items()}
        missing = tuple(map(str, data.get("missing", ())))
        return Baseline(data["collection"], data["split"], data["corpus"], labels, stages, missing)
    except FileNotFoundError as error:
        raise UsageError(f"there is no baseline {file}; {REMEDY}") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{file} is not a baseline ({error!r}); {REMEDY}") from error


def refuse_other_set(baseline: Baseline, *, collection: str, split: str) -> None:
    """Check that a baseline is of this split of this collection.

    Raises:
        UsageError: It is not.
    """
    if (baseline.collection, baseline.split) != (collection, split):
        raise UsageError(
            f"the baseline is of {baseline.collection}, split {baseline.split}, not of {collection}, split {split}"
        )


def _label_hash(text: str, judged: Mapping[str, int]) -> str:
    described = json.dumps([text, sorted(judged.items())])
    return hashlib.sha256(described.encode("ascii")).hexdigest()[:8]


def measures_of(per_query: PerQuery) -> list[str]:
    """The names of the measures, which are the same for every query."""
    return list(next(iter(per_query.values()), {}))
