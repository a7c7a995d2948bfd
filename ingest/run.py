"""Composing ingestion from settings: one writer at a time, each run in the log."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from ingest.chunking.strategies import chunk_document, needs_embedder
from ingest.contextual import open_context_writer
from ingest.embed import Contextualiser
from ingest.items import Item
from ingest.load.json_records import FieldMapping
from ingest.manifest import Manifest
from ingest.pipeline import Ingestion
from ingest.prepare import Preparation, PreparedItem, prepare_item
from ingest.report import Progress, Report
from ingest.runs import RunLog, State
from ingest.workers import WorkerPool
from rag.bootstrap import collection_dir, create_collection, live_generation, open_collection
from rag.errors import StoreBusyError, StoreError
from rag.models import Notify, build_embedder
from rag.retrieval.embedding import Embedder
from rag.settings import Settings
from rag.types import Document

MANIFEST_FILE = "manifest.sqlite"


@dataclass(frozen=True, slots=True)
class Observer:
    """Who is told what a run does.

    Attributes:
        on_start: Given the run's way to stop it, before it begins.
    """

    on_progress: Callable[[Progress], None] = lambda _: None
    notify: Notify = lambda _: None
    on_start: Callable[[Callable[[], None]], None] = lambda _: None


@contextmanager
def open_manifest(settings: Settings, *, write: bool = True) -> Iterator[Manifest]:
    """The manifest of the configured collection; one process writes at a time.

    Raises:
        StoreBusyError: Another one does.
        StoreError: It is damaged, or the disk is full.
    """
    from filelock import FileLock, Timeout

    folder = collection_dir(settings)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "ingest.lock", timeout=0)
    try:
        if write:
            lock.acquire()
        manifest = Manifest(folder / MANIFEST_FILE)
        try:
            yield manifest
        finally:
            manifest.close()
    except Timeout as error:
        raise StoreBusyError(f"another process is writing to the collection in {folder}; wait for it to end") from error
    except sqlite3.Error as error:
        raise StoreError(f"the manifest in {folder} failed: {error}; {_remedy(error)}") from error
    finally:
        lock.release()


def _remedy(error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return "mend that (is the disk full?) and run it again; what was searchable still is"
    return f"delete {MANIFEST_FILE} there and run `rag ingest` over every source, which restores it from the store"


@asynccontextmanager
async def open_ingestion(
    settings: Settings,
    manifest: Manifest,
    embedder: Embedder,
    *,
    generation: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    notify: Notify = lambda _: None,
    contextualiser: Contextualiser | None = None,
) -> AsyncIterator[Ingestion]:
    """An ingestion into the live generation of the configured collection, which is made if there is none.

    The store is closed afterwards, the manifest and the embedder are not.

    Args:
        generation: Another one to write to.
        contextualiser: Where several ingestions share one; otherwise the configured one is opened.
    """
    preparation = preparation_of(settings)
    async with AsyncExitStack() as held:
        if contextualiser is None:
            contextualiser = await held.enter_async_context(open_context_writer(settings, manifest, embedder, notify))
        target = generation or await live_generation(settings)
        collection = None if target is None else await open_collection(settings, embedder, target)
        workers = settings.ingest.workers or max(1, (os.cpu_count() or 2) - 1)
        pool = await held.enter_async_context(
            WorkerPool[Item, PreparedItem](
                partial(prepare_item, preparation=preparation),
                workers=workers,
                timeout_s=settings.ingest.timeout_s,
                memory_bytes=settings.ingest.memory_bytes,
            )
        )
        ingestion = Ingestion(
            tenant=settings.data.tenant,
            embedder=embedder,
            preparation=preparation,
            prepare=pool.run,
            ahead=8 * workers,
            manifest=manifest,
            collection=collection,
            create=partial(create_collection, settings, embedder, live=True),
            on_progress=on_progress,
            contextualiser=contextualiser,
        )
        try:
            yield ingestion
        finally:
            if ingestion.state.collection is not None:
                await ingestion.state.collection.store.close()


def preparation_of(settings: Settings) -> Preparation:
    """How items are prepared as configured.

    Raises:
        ConfigurationError: The sizes of chunks do not fit together.
    """
    if not needs_embedder(settings.chunking):
        chunk_document(Document(id="", version="", source="", title="", text="."), settings.chunking)
    fields = settings.ingest.json_fields
    return Preparation(settings.chunking, FieldMapping(id=fields.id, title=fields.title, text=fields.text))


@asynccontextmanager
async def logged_run_of(settings: Settings, command: str) -> AsyncIterator[tuple[Manifest, Report]]:
    """The manifest to write to, and the report to fill; the run's end is in the log however it comes."""
    with open_manifest(settings) as manifest:
        log = RunLog(manifest.connection)
        number = log.begin(command)
        report = Report()
        try:
            yield manifest, report
        except BaseException as error:
            state: State = "failed" if isinstance(error, Exception) else "interrupted"
            with suppress(sqlite3.Error):  # which may be what went wrong
                log.end(number, state, report, str(error) or type(error).__name__)
            raise
        log.end(number, "interrupted" if report.interrupted else "done", report)


@asynccontextmanager
async def logged_run(settings: Settings, command: str, observer: Observer) -> AsyncIterator[tuple[Ingestion, Manifest]]:
    """An ingestion with everything it needs."""
    async with logged_run_of(settings, command) as (manifest, report):
        embedder = build_embedder(settings, observer.notify)
        try:
            async with open_ingestion(
                settings, manifest, embedder, on_progress=observer.on_progress, notify=observer.notify
            ) as ingestion:
                ingestion.state.report = report
                observer.on_start(ingestion.stop)
                yield ingestion, manifest
                await ingestion.finish()
        finally:
            await embedder.close()
