"""Composing one ingestion from settings."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from ingest.chunking import recursive, sentence_window
from ingest.discover import discover
from ingest.manifest import Manifest
from ingest.pipeline import Chunk, Failure, Ingestion, Progress, Report
from rag.bootstrap import (
    Notify,
    build_embedder,
    chunker_identity,
    collection_dir,
    collection_exists,
    create_collection,
    open_collection,
)
from rag.errors import StoreError
from rag.retrieval.embedding import Embedder
from rag.settings import Chunking, Settings


async def ingest_paths(
    settings: Settings,
    paths: Sequence[Path],
    *,
    source: str | None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    notify: Notify = lambda _: None,
) -> tuple[Report, list[Path]]:
    """Add and update the documents under `paths`; also gives the files of unsupported kinds that were passed over.

    Raises:
        UsageError: A path does not exist.
        ConfigurationError, StoreError, ProviderError: Nothing, or not all, could be written.
    """
    found = discover(paths, source)
    embedder = build_embedder(settings, notify)
    try:
        async with open_ingestion(settings, embedder, on_progress=on_progress) as ingestion:
            report = await ingestion.run(found.files)
    finally:
        await embedder.close()
    report.failed.extend(Failure(str(folder), reason) for folder, reason in found.unreadable)
    return report, list(found.passed_over)


@asynccontextmanager
async def open_ingestion(
    settings: Settings,
    embedder: Embedder,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> AsyncIterator[Ingestion]:
    """An ingestion into the configured collection, which is made if it is not there.

    Store and manifest are closed afterwards, the embedder is not.
    """
    collection = await open_collection(settings, embedder) if await collection_exists(settings) else None
    try:
        manifest = Manifest(collection_dir(settings) / "manifest.sqlite")
        if collection is None:
            manifest.forget()
        elif manifest.collection_id != collection.spec.id:
            manifest.begin_collection(collection.spec.id, adopted=True)
    except sqlite3.Error as error:
        if collection is not None:
            await collection.store.close()
        raise _manifest_failed(settings, error) from error
    ingestion = Ingestion(
        tenant=settings.data.tenant,
        embedder=embedder,
        chunk=chunker(settings.chunking),
        chunk_identity=chunker_identity(settings),
        manifest=manifest,
        collection=collection,
        create=partial(create_collection, settings, embedder),
        on_progress=on_progress,
    )
    try:
        yield ingestion
    except sqlite3.Error as error:
        raise _manifest_failed(settings, error) from error
    finally:
        manifest.close()
        if ingestion.collection is not None:
            await ingestion.collection.store.close()


def _manifest_failed(settings: Settings, error: sqlite3.Error) -> StoreError:
    return StoreError(f"the manifest in {collection_dir(settings)} failed: {error}")


def chunker(chosen: Chunking) -> Chunk:
    """The configured chunking strategy."""
    if chosen.strategy == "recursive":
        return partial(recursive.chunk, max_tokens=chosen.max_tokens, overlap_tokens=chosen.overlap_tokens)
    return partial(sentence_window.chunk, sentences=chosen.sentences, max_tokens=chosen.max_tokens)
