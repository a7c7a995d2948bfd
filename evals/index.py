"""A scratch collection for a dataset, made once per content and configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from evals.datasets import Dataset, corpus_hash
from ingest.discover import discover
from ingest.items import FileItem
from ingest.prepare import PIPELINE_VERSION
from ingest.report import Progress, Report
from ingest.run import open_ingestion, open_manifest
from rag.bootstrap import Notify, build_chat, build_embedder, build_pipeline, chunker_identity, open_collection
from rag.errors import UsageError
from rag.pipeline import Pipeline
from rag.settings import Settings, Store
from rag.types import Document

_REPORT = "ingest.json"


@asynccontextmanager
async def open_indexed(
    settings: Settings,
    dataset: Dataset,
    *,
    corpus: Path | None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    notify: Notify = lambda _: None,
) -> AsyncIterator[tuple[Pipeline, Report | None]]:
    """The query path over a dataset's documents, and the report of indexing them if that was done now.

    Args:
        corpus: A folder of files to take instead of the dataset's corpus.jsonl; document ids are then
            `<folder name>/<path>`.

    Raises:
        UsageError: There is neither corpus.jsonl nor `corpus`.
    """
    if corpus is None and not dataset.documents:
        raise UsageError(f"the dataset {dataset.name!r} has no corpus.jsonl; name its documents with --corpus FOLDER")
    found = discover([corpus], None) if corpus is not None else None
    files = found.files if found is not None else ()
    scratch = scratch_settings(settings, corpus_hash(dataset) if corpus is None else _files_hash(files))
    report = None
    embedder = build_embedder(settings, notify)
    if not _was_completed(scratch):
        with open_manifest(scratch) as manifest:
            async with open_ingestion(scratch, manifest, embedder, on_progress=on_progress) as ingestion:
                if corpus is None:
                    report = await ingestion.run_documents(documents_of_dataset(dataset))
                else:
                    report = await ingestion.run(files, total=len(files))
                    report.failed.extend(found.failures if found is not None else ())
                await ingestion.finish()
        # Written last, and not over failed files: what was interrupted or failed is done again by the next call.
        if not report.failed:
            _record_completion(scratch, report)
    chat = build_chat(settings, embedder)
    pipeline = build_pipeline(scratch, embedder, chat, await open_collection(scratch, embedder))
    try:
        yield pipeline, report
    finally:
        await pipeline.close()


def scratch_settings(settings: Settings, content: str) -> Settings:
    """Settings whose data lives in a folder of its own for this content and configuration; always embedded."""
    made_by = (content, PIPELINE_VERSION, chunker_identity(settings), settings.embedding, settings.lexical)
    key = hashlib.sha256(repr(made_by).encode()).hexdigest()[:16]
    data = settings.data.model_copy(update={"dir": settings.data.dir / "evals" / key})
    return settings.model_copy(update={"data": data, "store": Store()})


def _files_hash(files: Sequence[FileItem]) -> str:
    """Of names and contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.item_id}\0".encode("utf-8", "surrogateescape"))
        with suppress(OSError):  # ingestion names what cannot be read
            digest.update(hashlib.sha256(file.path.read_bytes()).digest())
    return digest.hexdigest()


def _was_completed(scratch: Settings) -> bool:
    return (scratch.data.dir / _REPORT).is_file()


def _record_completion(scratch: Settings, report: Report) -> None:
    record = {"passages": report.passages, "seconds": report.seconds, "encoder_seconds": report.encoder_seconds}
    (scratch.data.dir / _REPORT).write_text(json.dumps(record), encoding="utf-8")


def documents_of_dataset(dataset: Dataset) -> list[Document]:
    """The dataset's documents as ingestion takes them."""
    return [
        Document(
            id=document.id,
            version=hashlib.sha256(f"{document.title}\0{document.text}".encode()).hexdigest()[:16],
            source=dataset.name,
            title=document.title,
            text=document.text,
        )
        for document in dataset.documents
    ]
