"""The write path: prepare (read, parse, divide) -> embed -> write, as three tasks with bounded queues between them.

Items are prepared in processes of their own while the encoder works on earlier ones and the store takes those before.
Each batch of documents is one `Change`; whatever ends the run between two of its steps, the next run continues.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ingest.arrivals import Arrival, Arrivals, Prepare, documents_arrive, items_arrive, settle_source
from ingest.change import SLICE_PASSAGES, Batch, Change, EmbeddedPassages, OpenCollection
from ingest.embed import Begin, Contextualiser, CreateCollection, EmbedStage, End, Steps
from ingest.items import Item
from ingest.manifest import Changes, Manifest
from ingest.prepare import Preparation
from ingest.report import Failure, Progress, Report
from ingest.settle import sweep
from ingest.state import RunState
from rag.errors import StoreError
from rag.retrieval.embedding import Embedder
from rag.types import Document

_BATCH_ITEMS = 512


@dataclass
class Ingestion:
    """One run of the write path into one generation of a collection.

    Args:
        prepare: Reads, parses and divides an item, in another process as a rule.
        ahead: How many items are prepared at once or wait for the encoder.
        collection: None when there is none yet; then `create` makes it.
        on_progress: Called often; must return at once.
        contextualiser: None leaves passages to their own words.
    """

    tenant: str
    embedder: Embedder
    preparation: Preparation
    prepare: Prepare
    ahead: int
    manifest: Manifest
    collection: OpenCollection | None
    create: CreateCollection
    on_progress: Callable[[Progress], None] = lambda _: None
    contextualiser: Contextualiser | None = None

    def __post_init__(self) -> None:
        self.state = RunState(self.tenant, self.manifest, self.collection, self.on_progress)
        self._stage = EmbedStage(self.state, self.embedder, self.preparation.chunking, self.create, self.contextualiser)

    @property
    def report(self) -> Report:
        """What was done so far."""
        return self.state.report

    def stop(self) -> None:
        """Finish what is being written and end; another run continues."""
        self.state.stopped.set()

    async def run(self, items: Iterable[Item] | AsyncIterator[Item], *, total: int | None = None) -> Report:
        """Add and update; an item that fails is named in the report and stops nothing.

        Args:
            total: How many items there are, where that is known.
        """
        self.state.total = total
        arrivals: Arrivals = asyncio.Queue(maxsize=self.ahead)
        first = items_arrive(self.state, items, self.preparation, self.prepare, arrivals, ahead=self.ahead)
        return await self._run(arrivals, first)

    async def run_documents(self, documents: Sequence[Document]) -> Report:
        """Add and update documents that are text already, each under its own id whatever others say."""
        self.state.total = len(documents)
        return await self.run_arrivals(documents_arrive(self.state, documents, self.preparation))

    async def run_arrivals(self, arriving: AsyncIterator[Arrival]) -> Report:
        """Add and update documents that are prepared already."""
        self.state.counts_documents = True
        arrivals: Arrivals = asyncio.Queue(maxsize=_BATCH_ITEMS)

        async def first() -> None:
            async for arrival in arriving:
                if self.state.stopping:
                    break
                await arrivals.put(arrival)
            await arrivals.put(None)

        return await self._run(arrivals, first())

    async def remove(self, source: str, item_ids: Sequence[str]) -> Report:
        """Delete items with their documents; one that is listed again is read anew."""
        async with self._measured():
            # What it finds lost is found again, and written, when the source is ingested the next time.
            await settle_source(self.state, source, self.preparation)
            for start in range(0, len(item_ids), _BATCH_ITEMS):
                if self.state.stopping:
                    break
                await self._remove(source, item_ids[start : start + _BATCH_ITEMS])
        return self.report

    async def _remove(self, source: str, item_ids: Sequence[str]) -> None:
        state = self.state
        if state.collection is None:
            state.manifest.record(state.generation, state.tenant, source, Changes(epoch=0, gone_items=item_ids))
            return
        gone = [
            record.document_id
            for item_id in item_ids
            for record in state.manifest.documents_of_item(state.generation, state.tenant, source, item_id)
        ]
        change = self._change(Batch(source, gone=tuple(gone), gone_items=tuple(item_ids)))
        await change.begin()
        await self._show(change)

    async def finish(self) -> None:
        """Delete what stayed hidden, verify every source that was touched, and make searches fast.

        Raises:
            StoreError: The store does not hold what it should.
        """
        state = self.state
        if state.collection is None:
            return
        if not state.stopping:
            for source, leftover in list(state.leftover.items()):
                await sweep(state.collection.store, state.manifest, state.tenant, source, leftover)
                state.leftover[source] = frozenset()
                self._report_lost(source)
            state.manifest.forget_unused_contents()
        await state.collection.store.optimize()

    def _report_lost(self, source: str) -> None:
        """What the store lost and nothing could bring back."""
        self.report.failed += (
            Failure(
                record.document_id,
                "the store lost it and its text is not kept; ingest its file again, or delete it: rag documents delete",
            )
            for record in self.manifest.lost(self.state.generation, self.tenant, source)
        )

    async def _run(self, arrivals: Arrivals, first: Coroutine[Any, Any, None]) -> Report:
        steps: Steps = asyncio.Queue(maxsize=2)
        async with self._measured():
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(first)
                    tasks.create_task(self._stage.run(arrivals, steps))
                    tasks.create_task(self._write_all(steps))
            except BaseExceptionGroup as errors:
                raise _first(errors) from None
        return self.report

    async def _write_all(self, steps: Steps) -> None:
        """The third task: one change after another, in order."""
        change: Change | None = None
        while (step := await steps.get()) is not None:
            match step:
                case Begin(batch):
                    change = self._change(batch)
                    await change.begin()
                case EmbeddedPassages() if change is not None:
                    self.state.report.passages += await change.write(step)
                    self.state.tell()
                case End() if change is not None:
                    await self._finish(change)
                    change = None

    async def _finish(self, change: Change) -> None:
        state, batch = self.state, change.batch
        for content_hash in sorted(change.unwritten):
            # It was stored, or on its way, when it was not embedded; a batch before this one removed it.
            content = next(d.content for d in batch.documents if d.content.content_hash == content_hash)
            passages = await self._stage.passages_again(content, batch.source)
            for start in range(0, len(passages), SLICE_PASSAGES):
                embedded = await self._stage.embed(passages[start : start + SLICE_PASSAGES])
                state.report.passages += await change.write(embedded)
        await self._show(change)
        state.in_flight -= {(batch.source, document.content.content_hash) for document in batch.documents}
        state.batch_done(batch)

    async def _show(self, change: Change) -> None:
        state, batch = self.state, change.batch
        await change.finish()
        state.leftover[batch.source] -= change.appearing
        state.report.added += change.added
        state.report.updated += change.updated
        state.report.deleted += len(batch.gone)

    def _change(self, batch: Batch) -> Change:
        return Change(self._collection, self.manifest, self.tenant, batch, self.state.leftover[batch.source])

    @property
    def _collection(self) -> OpenCollection:
        if self.state.collection is None:
            raise StoreError("there is no collection yet")
        return self.state.collection

    @asynccontextmanager
    async def _measured(self) -> AsyncIterator[None]:
        started = time.perf_counter()
        self.state.tell()
        try:
            yield
        finally:
            self.report.seconds += time.perf_counter() - started
            self.report.interrupted = self.state.stopping
        self.state.tell()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first; the tasks beside it were only cancelled."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
