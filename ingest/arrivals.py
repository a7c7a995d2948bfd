"""The first task of a run: what there is to do. Items that changed are prepared, the others passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from ingest.change import NewDocument
from ingest.chunking.strategies import needs_embedder
from ingest.content import unpack
from ingest.items import Item, is_name
from ingest.load.extracted import Extracted
from ingest.manifest import DocumentRecord, ItemRecord
from ingest.plan import CONTENT_HASH_LENGTH, Group
from ingest.prepare import Preparation, PreparedItem, prepare_content
from ingest.report import Failure
from ingest.settle import settle
from ingest.state import RunState
from rag.errors import DocumentError
from rag.filters import Comparison
from rag.types import Document

Prepare: TypeAlias = Callable[[Item], Awaitable[PreparedItem]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A prepared document on its way to a batch, or the end of an item.

    Attributes:
        closes: The item, after its last document.
        gone: Documents that it no longer holds.
    """

    source: str
    document: NewDocument | None = None
    closes: ItemRecord | None = None
    gone: tuple[str, ...] = ()


Arrivals: TypeAlias = "asyncio.Queue[Arrival | None]"


async def items_arrive(
    state: RunState,
    items: Iterable[Item] | AsyncIterator[Item],
    preparation: Preparation,
    prepare: Prepare,
    arrivals: Arrivals,
    *,
    ahead: int,
) -> None:
    """Put the documents of changed items into the queue, and None at the end.

    Args:
        prepare: In another process, as a rule.
        ahead: How many items are prepared before the queue takes them.
    """
    turn = asyncio.Semaphore(ahead)
    if isinstance(items, Sequence):
        # Known before a source is settled: a document that only the store knows is then given to the item it is in.
        for item in items:
            if is_name(item.item_id):
                state.manifest.note_listed(item.source, item.item_id, item.location)
    async with asyncio.TaskGroup() as group:
        preparing = set[asyncio.Task[None]]()

        def done(task: asyncio.Task[None]) -> None:
            preparing.discard(task)
            turn.release()

        canceller = asyncio.create_task(_cancel_when_stopped(state, preparing))
        try:
            async for item in _each(items):
                async for lost in lost_arrive(state, item.source, preparation):
                    await arrivals.put(lost)
                await turn.acquire()
                is_changed = not state.stopping and await _is_changed(state, item, preparation)
                if is_changed and not state.stopping:
                    task = group.create_task(_arrive(state, item, prepare, arrivals))
                    preparing.add(task)
                    task.add_done_callback(done)
                else:
                    turn.release()
                if state.stopping:
                    break
            if preparing:
                await asyncio.wait(preparing)
        finally:
            canceller.cancel()
    await arrivals.put(None)


async def _cancel_when_stopped(state: RunState, preparing: set[asyncio.Task[None]]) -> None:
    """What is being prepared would be thrown away."""
    await state.stopped.wait()
    while preparing:
        for task in preparing:
            task.cancel()
        await asyncio.wait(preparing)


async def _each(items: Iterable[Item] | AsyncIterator[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterator):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def documents_arrive(
    state: RunState, documents: Iterable[Document], preparation: Preparation
) -> AsyncIterator[Arrival]:
    """The documents that changed; none shares its content with another, since each is judged by its own id."""
    for document in documents:
        async for lost in lost_arrive(state, document.source, preparation):
            yield lost
        content = Extracted(
            text=document.text,
            title=document.title,
            headings=document.headings,
            page_starts=document.page_starts,
            metadata=dict(document.metadata),
            row_starts=document.row_starts,
        )
        prepared = prepare_content(document.id, content, preparation.chunking)
        own_hash = Group(prepared.content_hash, (document.id,)).version[-CONTENT_HASH_LENGTH:]
        known = state.manifest.document(state.generation, state.tenant, document.id)
        if known is not None and known.content_hash == own_hash:
            state.report.unchanged += 1
            state.item_done()
        else:
            yield Arrival(document.source, NewDocument(document.id, replace(prepared, content_hash=own_hash)))


async def settle_source(state: RunState, source: str, preparation: Preparation) -> Sequence[DocumentRecord]:
    """Once for each source: bring manifest and store in line, and say which documents must be written again."""
    if source in state.leftover:
        return ()
    if state.collection is None:
        state.leftover[source] = frozenset()
        return ()
    settled = await settle(state.collection.store, state.manifest, state.tenant, source)
    state.leftover[source] = settled.leftover
    if settled.leftover and needs_embedder(preparation.chunking):
        # Where vectors decide the spans, the same content need not be divided the same way again.
        await state.collection.store.delete(state.tenant, Comparison("in", "version", tuple(sorted(settled.leftover))))
    return settled.lost


async def lost_arrive(state: RunState, source: str, preparation: Preparation) -> AsyncIterator[Arrival]:
    """Settle a source, and give the documents that must be written again.

    Those whose text is not kept are left out; they come with their items, if these are there.
    """
    for record in await settle_source(state, source, preparation):
        packed = state.manifest.content(record.content_hash)
        if packed is not None:
            content = await asyncio.to_thread(prepare_content, record.document_id, unpack(packed), preparation.chunking)
            yield Arrival(source, NewDocument(record.item_id, replace(content, content_hash=record.content_hash)))


async def _is_changed(state: RunState, item: Item, preparation: Preparation) -> bool:
    """Whether it must be prepared; one that cannot be read is reported here."""
    try:
        refuse_taken(state, item)
    except DocumentError as error:
        state.item_refused(item, str(error))
        return False
    try:
        data = await asyncio.to_thread(item.read)
    except DocumentError as error:
        state.item_failed(item, str(error))
        return False
    unchanged = unchanged_documents(state, item, preparation.hash_of(data, item.name))
    if unchanged is None:
        return True
    known = state.manifest.item(state.tenant, item.source, item.item_id)
    if known is not None and known.location != item.location:
        state.manifest.record_items([replace(known, location=item.location)])
    state.report.unchanged += unchanged
    state.item_done()
    return False


def unchanged_documents(state: RunState, item: Item, bytes_hash: str) -> int | None:
    """How many documents an item holds that has these bytes already; None where it must be prepared."""
    known = state.manifest.item(state.tenant, item.source, item.item_id)
    if known is None or known.error or known.bytes_hash != bytes_hash:
        return None
    documents = state.manifest.documents_of_item(state.generation, state.tenant, item.source, item.item_id)
    if len(documents) != known.documents or not all(record.version for record in documents):
        return None
    return len(documents)


def refuse_taken(state: RunState, item: Item) -> None:
    """Refuse an item whose id cannot be its own.

    Raises:
        DocumentError: Saying what the id belongs to.
    """
    if not is_name(item.item_id):
        raise DocumentError("its name is not valid UTF-8; rename it")
    if not state.manifest.note_listed(item.source, item.item_id, item.location):
        raise DocumentError(
            f"another file of this run has its document id {item.item_id!r}; ingest them under two --source names"
        )
    known = state.manifest.item(state.tenant, item.source, item.item_id)
    if known is not None and known.location != item.location and _is_there(known.location):
        raise DocumentError(
            f"its document id {item.item_id!r} belongs to {known.location}; pass --source NAME to tell them apart"
        )
    _refuse_taken_document(state, item, item.item_id)


def _refuse_taken_document(state: RunState, item: Item, document_id: str) -> None:
    """A document's id belongs to one source; in a source a file goes before what is inside another one."""
    if document_id != item.item_id and state.manifest.is_listed(item.source, document_id):
        raise DocumentError(f"the document id {document_id!r} belongs to a file of that name; rename one of the two")
    taken = state.manifest.document(state.generation, state.tenant, document_id)
    if taken is not None and taken.source != item.source:
        raise DocumentError(
            f"the document id {document_id!r} belongs to the source {taken.source!r}; pass another --source NAME"
        )


def _is_there(location: str) -> bool:
    try:
        return Path(location).exists()
    except OSError:
        return True  # as far as anybody can tell


async def _arrive(state: RunState, item: Item, prepare: Prepare, arrivals: Arrivals) -> None:
    try:
        prepared = await prepare(item)
    except DocumentError as error:
        state.item_failed(item, str(error))
        return
    state.report.warnings += (Failure(item.location, warning) for warning in prepared.warnings)
    former = {
        record.document_id: record
        for record in state.manifest.documents_of_item(state.generation, state.tenant, item.source, item.item_id)
    }
    unchanged: list[tuple[str, bytes]] = []
    refused: str | None = None
    for content in prepared.contents:
        try:
            _refuse_taken_document(state, item, content.document_id)
        except DocumentError as error:
            refused = str(error)
            state.report.failed.append(Failure(item.location, refused))
            continue
        record = former.pop(content.document_id, None)
        if record is not None and record.version and record.content_hash == content.content_hash:
            unchanged.append((content.content_hash, content.packed))
        else:
            await arrivals.put(Arrival(item.source, NewDocument(item.item_id, content)))
    if unchanged:
        state.report.unchanged += len(unchanged)
        state.manifest.keep_contents(unchanged)  # a manifest that was lost has lost them too
    closes = ItemRecord(
        state.tenant, item.source, item.item_id, item.location, prepared.bytes_hash, len(prepared.contents), refused
    )
    await arrivals.put(Arrival(item.source, closes=closes, gone=tuple(former)))
