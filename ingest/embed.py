"""The second task of a run: batches of documents, and the vectors of their passages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from ingest.arrivals import Arrival, Arrivals
from ingest.change import SLICE_PASSAGES, Batch, EmbeddedPassages, NewDocument, OpenCollection
from ingest.chunking.passages import make_passages
from ingest.chunking.strategies import Embed, chunk_documents
from ingest.content import to_document
from ingest.plan import Group
from ingest.prepare import PreparedContent
from ingest.report import Failure
from ingest.state import RunState
from rag.errors import StoreError
from rag.retrieval.embedding import Embedder
from rag.retrieval.passage_text import indexed_text
from rag.settings import Chunking
from rag.types import Document, Passage, Vectors

SAMPLE_PASSAGES = 2048
"""How many passages are gathered before a collection is made: their mean length normalises its BM25."""

_EARLY_PASSAGES = 64
"""A batch this large is not kept waiting while the encoder has nothing to do."""

_BATCH_ARRIVALS = 1024


@dataclass(frozen=True, slots=True)
class Begin:
    """A batch follows."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class End:
    """The batch is complete."""


Steps: TypeAlias = "asyncio.Queue[Begin | EmbeddedPassages | End | None]"
CreateCollection: TypeAlias = Callable[[Sequence[str]], Awaitable[OpenCollection]]

Divided: TypeAlias = tuple[Document, list[Passage]]
"""A document with its passages, in order."""


@dataclass(frozen=True, slots=True)
class InContext:
    """Passages of one document as they are to be embedded, in order.

    Attributes:
        missing: How many of them should have a context and have none.
    """

    passages: list[Passage]
    missing: int = 0


class Contextualiser(Protocol):
    """Says of passages what they are about, for search."""

    async def contextualise(
        self, document: Document, passages: Sequence[Passage], stopping: Callable[[], bool]
    ) -> InContext | None:
        """All passages of a document with their contexts; the same ones get the same, also in another run.

        Args:
            stopping: Asked before every step that takes long.

        Returns:
            None when it was to stop; what was done until then is kept for the next run.

        Raises:
            UsageError: The run's limit is reached.
            ProviderError: They cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class EmbedStage:
    """Gathers arrivals into batches and embeds what neither the store holds nor another batch brings.

    Args:
        create: Makes the collection, from the first batch's passages as they are indexed.
    """

    state: RunState
    embedder: Embedder
    chunking: Chunking
    create: CreateCollection
    contextualiser: Contextualiser | None = None

    async def run(self, arrivals: Arrivals, steps: Steps) -> None:
        """Until the queue's None, which is passed on."""
        gathered: list[Arrival] = []
        passages = 0
        while (arrival := await arrivals.get()) is not None:
            if self.state.stopping:
                continue  # taken out of the queue all the same, so that the first task can end
            if gathered and gathered[0].source != arrival.source:
                await self._send_batch(gathered, steps)
                gathered, passages = [], 0
            gathered.append(arrival)
            passages += _passages_in(arrival)
            if self._is_enough(passages, len(gathered)) or (
                passages >= _EARLY_PASSAGES and self.state.collection and steps.empty() and arrivals.empty()
            ):
                await self._send_batch(gathered, steps)
                gathered, passages = [], 0
        if gathered and not self.state.stopping:
            await self._send_batch(gathered, steps)
        await steps.put(None)

    def _is_enough(self, passages: int, arrivals: int) -> bool:
        enough = SLICE_PASSAGES if self.state.collection else SAMPLE_PASSAGES
        return passages >= enough or arrivals >= _BATCH_ARRIVALS

    async def _send_batch(self, gathered: Sequence[Arrival], steps: Steps) -> None:
        batch = await self._batch(gathered)
        passages = await self._passages_to_embed(batch)
        if passages is None:
            return  # nothing of the batch has begun, so the next run finds all of it
        if self.state.collection is not None:
            await steps.put(Begin(batch))
        elif not passages:
            self.state.manifest.record_items(batch.items)
            self.state.batch_done(batch)
            return
        for start in range(0, len(passages), SLICE_PASSAGES):
            if self.state.stopping and start:
                return  # what is written of the batch stays hidden, and the next run finds it
            embedded = await self.embed(passages[start : start + SLICE_PASSAGES])
            if self.state.collection is None:
                # Not before the first vectors are there: a model that fails must not leave a collection made for it.
                self.state.collection = await self.create([indexed_text(passage) for passage in passages])
                await steps.put(Begin(batch))
            await steps.put(embedded)
        await steps.put(End())

    async def _batch(self, gathered: Sequence[Arrival]) -> Batch:
        documents: dict[str, NewDocument] = {}
        gone: dict[str, None] = {}
        for arrival in gathered:  # what comes last of an id counts
            if arrival.document is not None:
                documents[arrival.document.content.document_id] = arrival.document
                gone.pop(arrival.document.content.document_id, None)
            for document_id in arrival.gone:
                documents.pop(document_id, None)
                gone[document_id] = None
        undivided = [document for document in documents.values() if document.content.spans is None]
        spans = await chunk_documents(
            [to_document(d.content.content, _alone(d.content), gathered[0].source) for d in undivided],
            self.chunking,
            self._vectors,
        )
        for document, found in zip(undivided, spans, strict=True):
            content = replace(document.content, spans=found)
            documents[content.document_id] = NewDocument(document.item_id, content)
        if not self.state.counts_documents:  # else they come without their items, as they are already
            self.state.manifest.doubt_items(self.state.tenant, gathered[0].source, _items_of(gathered))
        self.state.manifest.keep_contents((d.content.content_hash, d.content.packed) for d in documents.values())
        return Batch(
            source=gathered[0].source,
            documents=tuple(documents.values()),
            gone=tuple(gone),
            items=tuple(arrival.closes for arrival in gathered if arrival.closes is not None),
        )

    async def _passages_to_embed(self, batch: Batch) -> list[Passage] | None:
        """Of every content that is neither stored nor on its way, as if no other document shared it; None to stop."""
        state = self.state
        sharing: dict[str, list[PreparedContent]] = {}
        for document in batch.documents:
            sharing.setdefault(document.content.content_hash, []).append(document.content)
        divided: list[Divided] = []
        for content_hash, contents in sharing.items():
            stored = state.manifest.documents_with_content(state.generation, state.tenant, batch.source, content_hash)
            if (batch.source, content_hash) in state.in_flight or any(record.version for record in stored):
                continue
            group = Group(content_hash, tuple(sorted(content.document_id for content in contents)))
            divided.append(passages_of(contents[0], group, batch.source, state.tenant))
            state.in_flight.add((batch.source, content_hash))
        return await self._contextualised(divided, lambda: state.stopping)

    async def passages_again(self, content: PreparedContent, source: str) -> list[Passage]:
        """Of a content that was not embedded when it came, since it was there.

        Raises:
            StoreError: The run is to end.
        """
        divided = passages_of(content, _alone(content), source, self.state.tenant)
        passages = await self._contextualised([divided], lambda: False)
        if passages is None:
            raise StoreError(f"{content.document_id} was not written again; run it again")
        return passages

    async def _contextualised(self, divided: Sequence[Divided], stopping: Callable[[], bool]) -> list[Passage] | None:
        found = await in_context(self.contextualiser, divided, stopping)
        if found is None:
            return None
        self.state.report.warnings += (
            Failure(
                document.id,
                f"the model wrote no context for {own.missing} of {len(own.passages)} passages; they are found by "
                "their own words alone",
            )
            for (document, _), own in zip(divided, found, strict=True)
            if own.missing
        )
        return [passage for own in found for passage in own.passages]

    async def embed(self, passages: Sequence[Passage]) -> EmbeddedPassages:
        """The passages with their vectors; those that an earlier run wrote are read from the store."""
        found = await self._left_behind(passages)
        missing = [passage for passage in passages if passage.id not in found]
        if missing:
            vectors = await self._vectors([indexed_text(passage) for passage in missing])
            found |= {passage.id: vector for passage, vector in zip(missing, vectors, strict=True)}
            self.state.report.embedded += len(missing)
        return EmbeddedPassages(passages, np.stack([found[passage.id] for passage in passages]))

    async def _left_behind(self, passages: Sequence[Passage]) -> dict[str, Vectors]:
        state = self.state
        leftover = state.leftover.get(passages[0].source, frozenset())
        ids = [passage.id for passage in passages if passage.version in leftover]
        if not ids or state.collection is None:
            return {}
        return {item.passage.id: item.dense for item in await state.collection.store.retrieve(state.tenant, ids)}

    async def _vectors(self, texts: Sequence[str]) -> Vectors:
        started = time.perf_counter()
        vectors = await self.embedder.embed_passages(texts)
        self.state.report.encoder_seconds += time.perf_counter() - started
        return vectors


async def in_context(
    contextualiser: Contextualiser | None, divided: Sequence[Divided], stopping: Callable[[], bool]
) -> list[InContext] | None:
    """The passages of each document as they are embedded; None when it was to stop.

    Where one fails, those under way come to an end first, so that nothing they were paid for is lost.
    """
    if contextualiser is None:
        return [InContext(passages) for _, passages in divided]
    found = await asyncio.gather(
        *(contextualiser.contextualise(document, passages, stopping) for document, passages in divided),
        return_exceptions=True,
    )
    done: list[InContext] = []
    for own in found:
        if isinstance(own, BaseException):
            raise own
        if own is not None:
            done.append(own)
    return done if len(done) == len(divided) else None


def _items_of(arrivals: Sequence[Arrival]) -> set[str]:
    """The items whose documents change."""
    changing = {arrival.document.item_id for arrival in arrivals if arrival.document is not None}
    return changing | {arrival.closes.item_id for arrival in arrivals if arrival.closes is not None and arrival.gone}


def passages_of(content: PreparedContent, group: Group, source: str, tenant: str) -> Divided:
    """A content that is divided already, as a group of documents shares it."""
    document = to_document(content.content, group, source)
    return document, make_passages(document, tenant=tenant, spans=content.spans or [])


async def divide(content: PreparedContent, source: str, tenant: str, chunking: Chunking, embed: Embed) -> Divided:
    """A content as if no other document shared it, divided now where that needs vectors."""
    if content.spans is None:
        (spans,) = await chunk_documents([to_document(content.content, _alone(content), source)], chunking, embed)
        content = replace(content, spans=spans)
    return passages_of(content, _alone(content), source, tenant)


def _alone(content: PreparedContent) -> Group:
    return Group(content.content_hash, (content.document_id,))


def _passages_in(arrival: Arrival) -> int:
    """How many passages a document becomes; where that is not known yet, a guess by its length."""
    if arrival.document is None:
        return 0
    content = arrival.document.content
    return len(content.content.text) // 600 + 1 if content.spans is None else len(content.spans)
