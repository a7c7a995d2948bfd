"""`rag reindex`: building the collection anew from the kept text, beside the live one, and switching to it.

Searches are served from the live generation until the switch, which is one step; who has it open goes on with it.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

from ingest.arrivals import Arrival, lost_arrive
from ingest.change import NewDocument
from ingest.content import unpack
from ingest.context_estimate import announce
from ingest.contextual import open_context_writer
from ingest.embed import SAMPLE_PASSAGES, Contextualiser, Divided, divide, in_context
from ingest.manifest import DocumentRecord, Manifest
from ingest.prepare import Preparation, PreparedContent, prepare_content
from ingest.report import Report
from ingest.run import Observer, logged_run_of, open_ingestion, preparation_of
from ingest.settle import settle
from ingest.state import RunState
from rag.bootstrap import (
    collection_spec,
    create_collection,
    nothing_ingested,
    open_generations,
    with_language_of,
)
from rag.errors import CollectionMismatchError, StoreBusyError, StoreError
from rag.filters import Comparison
from rag.models import build_embedder
from rag.retrieval.embedding import Embedder
from rag.retrieval.passage_text import indexed_text
from rag.retrieval.store import CollectionSpec, Generations, PassageStore, check_same_spec
from rag.settings import Settings


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What came of it.

    Attributes:
        live: The generation that is served now.
        former: The one that was served before and is kept; None when nothing had to be built.
        report: Of the building.
    """

    live: str
    former: str | None
    report: Report


async def reindex(settings: Settings, command: str, observer: Observer, *, force: bool = False) -> Reindexed:
    """Build the collection as configured now and serve from it; the former one is kept.

    An interrupted run is continued by the next one with the same settings.

    Args:
        force: Also when the live one was built with the same settings.

    Raises:
        ConfigurationError: Nothing was ingested yet.
        StoreError: Not every document could be built; the live collection is as it was.
    """
    async with AsyncExitStack() as held:
        manifest, report = await held.enter_async_context(logged_run_of(settings, command))
        generations = open_generations(settings)
        held.push_async_callback(generations.close)
        live = await generations.live()
        if live is None:
            raise nothing_ingested(settings)
        embedder = build_embedder(settings, observer.notify)
        held.push_async_callback(embedder.close)
        built = await generations.spec(live)
        if not force and not _differs(built, _configured(with_language_of(built, settings), embedder, live)):
            observer.notify("the collection was built with the present settings; --force builds it anew all the same")
            return Reindexed(live, None, report)
        await _settle_all(generations, live, manifest, settings.data.tenant, observer)
        _refuse_unkept(manifest, live)
        contextualiser = await held.enter_async_context(
            open_context_writer(settings, manifest, embedder, observer.notify)
        )
        if contextualiser is not None:
            await announce(settings, manifest, _divided(settings, embedder, manifest, live), observer.notify)
        building = await _building(settings, embedder, generations, manifest, live, contextualiser)
        # One for all tenants, and for what comes between and after them.
        stopped = asyncio.Event()
        observer.on_start(stopped.set)
        await _build(settings, embedder, manifest, live, building, report, observer, contextualiser, stopped)
        if stopped.is_set():
            report.interrupted = True
            return Reindexed(live, None, report)
        _verify(manifest, live, building)
        # First noted, then done: a generation that is neither live nor noted was never finished.
        manifest.mark_generation(live, "former")
        await generations.make_live(building)
        manifest.mark_generation(building, None)
        return Reindexed(building, live, report)


async def drop_former(settings: Settings, command: str) -> list[str]:
    """Delete every generation but the live one; what was deleted.

    Raises:
        StoreBusyError: One is in use.
    """
    async with AsyncExitStack() as held:
        manifest, _ = await held.enter_async_context(logged_run_of(settings, command))
        generations = open_generations(settings)
        held.push_async_callback(generations.close)
        live = await generations.live()
        # What only the manifest names was dropped by a run that was killed before it was done.
        dropped = sorted({*await generations.all(), *manifest.generations()} - {live})
        for generation in dropped:
            await _drop(generation, generations, manifest)
        manifest.forget_unused_contents()
        return dropped


async def _drop(generation: str, generations: Generations, manifest: Manifest) -> None:
    try:
        await generations.drop(generation)
    except StoreBusyError as error:
        raise StoreBusyError(
            f"the former collection {generation} is still in use, by a server that was started before the reindex; "
            "restart it, then drop again"
        ) from error
    manifest.forget_generation(generation)


def _differs(built: CollectionSpec, configured: CollectionSpec) -> bool:
    try:
        check_same_spec(built, configured, collection="")
    except CollectionMismatchError:
        return True
    return False


def _configured(settings: Settings, embedder: Embedder, generation: str) -> CollectionSpec:
    return collection_spec(settings, embedder, collection_id=generation, average_length=1.0)


async def _settle_all(
    generations: Generations, live: str, manifest: Manifest, tenant_of_run: str, observer: Observer
) -> None:
    """The manifest says what is built, so it must say what is searchable."""
    try:
        store = await generations.open(live)
    except StoreBusyError:
        if not manifest.sources(live):
            raise
        observer.notify(
            "the live collection is in use, so the manifest is taken as it is; if a `rag ingest` was killed before, "
            "run it once more afterwards"
        )
        return
    try:
        for tenant, source in manifest.sources(live):
            await settle(store, manifest, tenant, source)
        await _refuse_unknown(store, manifest, tenant_of_run)
    finally:
        await store.close()


async def _refuse_unknown(store: PassageStore, manifest: Manifest, tenant_of_run: str) -> None:
    """A manifest that was lost does not even know which sources there are."""
    sources: dict[str, list[str]] = {tenant_of_run: []}
    for tenant, source in manifest.sources(store.spec.id):
        sources.setdefault(tenant, []).append(source)
    for tenant, known in sources.items():
        unknown = await store.count(tenant, Comparison("nin", "source", tuple(known)) if known else None)
        if unknown:
            raise StoreError(
                f"{unknown} passages of the live collection are of sources that the manifest does not know; run "
                "`rag ingest` over every source with the settings that the collection was built with, then reindex"
            )


def _refuse_unkept(manifest: Manifest, live: str) -> None:
    unkept = manifest.unkept(live)
    if unkept:
        raise StoreError(
            f"the text of {len(unkept)} documents is not kept here (the first: {unkept[0]}); run `rag ingest` over "
            "their sources with the settings that the collection was built with, then reindex. Where that "
            f"does not help, since its file is gone, delete the document: rag documents delete {shlex.quote(unkept[0])}"
        )


async def _building(
    settings: Settings,
    embedder: Embedder,
    generations: Generations,
    manifest: Manifest,
    live: str,
    contextualiser: Contextualiser | None,
) -> str:
    """The generation to build: one that an interrupted run with these settings began, else a new one."""
    states = manifest.generations()
    there = await generations.all()
    for generation in sorted({*there, *states} - {live}):
        state = states.get(generation) if generation in there else None
        if state == "former":
            continue
        if state == "building":
            spec = await generations.spec(generation)
            if not _differs(spec, _configured(with_language_of(spec, settings), embedder, generation)):
                return generation
        await _drop(generation, generations, manifest)
    sample = await _sample(_divided(settings, embedder, manifest, live), contextualiser)
    collection = await create_collection(settings, embedder, sample, live=False)
    await collection.store.close()
    manifest.mark_generation(collection.spec.id, "building")
    return collection.spec.id


async def _sample(divided: AsyncGenerator[Divided, None], contextualiser: Contextualiser | None) -> list[str]:
    some: list[Divided] = []
    count = 0
    async with aclosing(divided) as documents:
        async for document, passages in documents:
            some.append((document, passages))
            count += len(passages)
            if count >= SAMPLE_PASSAGES:
                break
    found = await in_context(contextualiser, some, stopping=lambda: False)
    return [indexed_text(passage) for own in found or () for passage in own.passages]


async def _divided(
    settings: Settings, embedder: Embedder, manifest: Manifest, live: str
) -> AsyncGenerator[Divided, None]:
    """Every document of the live generation, as it is chunked from now on."""
    preparation = preparation_of(settings)
    for tenant, source in manifest.sources(live):
        for record in manifest.documents(live, tenant, source):
            content = _prepared(record, manifest, preparation)
            yield await divide(content, source, tenant, settings.chunking, embedder.embed_passages)


async def _build(
    settings: Settings,
    embedder: Embedder,
    manifest: Manifest,
    live: str,
    building: str,
    report: Report,
    observer: Observer,
    contextualiser: Contextualiser | None,
    stopped: asyncio.Event,
) -> None:
    preparation = preparation_of(settings)
    for tenant in sorted({tenant for tenant, _ in manifest.sources(live)}):
        own = settings.model_copy(update={"data": settings.data.model_copy(update={"tenant": tenant})})
        opened = open_ingestion(
            own,
            manifest,
            embedder,
            generation=building,
            on_progress=observer.on_progress,
            contextualiser=contextualiser,
        )
        async with opened as ingestion:
            ingestion.state.report = report
            ingestion.state.stopped = stopped
            ingestion.state.total = sum(1 for _ in manifest.documents(live, tenant))
            await ingestion.run_arrivals(_arrivals(ingestion.state, live, preparation))
            await ingestion.finish()
        if stopped.is_set():
            return


async def _arrivals(state: RunState, live: str, preparation: Preparation) -> AsyncIterator[Arrival]:
    """What the live generation has and the one that is built has not, and the reverse, of the tenant."""
    manifest = state.manifest
    for tenant, source in sorted({*manifest.sources(live), *manifest.sources(state.generation)}):
        if tenant != state.tenant:
            continue
        async for lost in lost_arrive(state, source, preparation):
            yield lost
        wanted = list(manifest.documents(live, tenant, source))
        # Deleted since an interrupted run built them.
        gone = {record.document_id for record in manifest.documents(state.generation, tenant, source)}
        gone -= {record.document_id for record in wanted}
        if gone:
            yield Arrival(source, gone=tuple(sorted(gone)))
        for record in wanted:
            built = manifest.document(state.generation, tenant, record.document_id)
            if built is None or built.content_hash != record.content_hash:
                yield Arrival(source, NewDocument(record.item_id, _prepared(record, manifest, preparation)))
            else:
                state.item_done()


def _prepared(record: DocumentRecord, manifest: Manifest, preparation: Preparation) -> PreparedContent:
    packed = manifest.content(record.content_hash)
    if packed is None:
        raise StoreError(f"the text of {record.document_id} is not kept any more; ingest it again")
    content = prepare_content(record.document_id, unpack(packed), preparation.chunking)
    return replace(content, content_hash=record.content_hash)


def _verify(manifest: Manifest, live: str, building: str) -> None:
    """The passages were counted when they were written; here, that no document is missing."""
    for tenant, source in manifest.sources(live):
        wanted = {record.document_id for record in manifest.documents(live, tenant, source)}
        built = {record.document_id for record in manifest.documents(building, tenant, source) if record.version}
        if wanted - built:
            raise StoreError(f"{len(wanted - built)} documents of {source!r} were not built; run it again")
