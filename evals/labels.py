"""The judgements of a run, kept beside its TREC files, so that two runs can be compared without their dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evals.datasets import Dataset, load_dataset
from evals.measures import Qrels
from rag.errors import UsageError

LABELS_FILE = "judged.json"


@dataclass(frozen=True, slots=True)
class Labels:
    """What a run is scored against.

    Attributes:
        texts: Of the judged queries, by id.
        titles: Of relevant documents, by id; a document without one is missing.
    """

    collection: str
    split: str
    texts: Mapping[str, str]
    qrels: Qrels
    titles: Mapping[str, str]


def labels_of(dataset: Dataset) -> Labels:
    """The judgements of a dataset, with the texts and titles that a person needs to read them."""
    relevant = {
        document for judged in dataset.qrels.values() for document, relevance in judged.items() if relevance > 0
    }
    return Labels(
        collection=dataset.name,
        split=dataset.split,
        texts={query.id: query.text for query in dataset.queries},
        qrels=dataset.qrels,
        titles={each.id: each.title for each in dataset.documents if each.title and each.id in relevant},
    )


def write_labels(folder: Path, labels: Labels) -> None:
    """Write the labels into the folder of a run."""
    record = {
        "collection": labels.collection,
        "split": labels.split,
        "texts": dict(labels.texts),
        "qrels": {query: dict(judged) for query, judged in labels.qrels.items()},
        "titles": dict(labels.titles),
    }
    (folder / LABELS_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def read_labels(run: Path, qrels: Path | None, split: str | None) -> Labels:
    """The labels of a run.

    Args:
        run: The folder of a run, or a TREC file in one.
        qrels: A dataset whose judgements are taken instead.
        split: Of that dataset.

    Raises:
        UsageError: There are none, or they cannot be read.
    """
    if qrels is not None:
        return labels_of(load_dataset(qrels, split=split))
    file = (run if run.is_dir() else run.parent) / LABELS_FILE
    try:
        return Labels(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UsageError(
            f"{file} is missing, so nothing says what {run} should have found; name the dataset with --qrels FOLDER"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file} cannot be read ({error}); name the dataset with --qrels FOLDER") from error
