"""The documents of a collection, looked at and changed one by one: the manifest tells, the store is changed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby, islice
from pathlib import Path

from ingest.change import Batch, Change
from ingest.content import unpack
from ingest.context_estimate import announce_items
from ingest.items import FileItem
from ingest.load.extracted import Extracted
from ingest.manifest import Changes, DocumentRecord, ItemRecord, Manifest
from ingest.report import Failure, Report
from ingest.run import MANIFEST_FILE, Observer, logged_run, logged_run_of, open_manifest
from ingest.runs import Run, RunLog
from ingest.settle import settle, sweep
from rag.bootstrap import Collection, collection_dir, live_generation, nothing_ingested, open_collection_without_model
from rag.errors import UsageError
from rag.settings import Settings

_BATCH_DOCUMENTS = 512
_SUGGESTED = 3
_COMPARED = 5000
"""Among how many ids similar ones are looked for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A document as a list shows it.

    Attributes:
        also_in: Other documents of its source with the same content; they share its passages.
    """

    record: DocumentRecord
    also_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is kept of an id, which is that of a document, of an item, or of both.

    Attributes:
        record: None where the id is only an item's, such as a file of records.
        item: What holds it; None where that is not known any more.
        documents: Ids of all documents of the item, in order.
        also_in: Other documents of the source with the same content.
        content: None where it is not kept, or there is no record.
    """

    id: str
    record: DocumentRecord | None
    item: ItemRecord | None
    documents: tuple[str, ...]
    also_in: tuple[str, ...]
    content: Extracted | None


@dataclass(frozen=True, slots=True)
class Target:
    """What is deleted under one id: a document, with what is inside it.

    Attributes:
        documents: Ids of documents.
        with_item: Their item is forgotten too, since it is the item's own id.
    """

    source: str
    item_id: str
    documents: tuple[str, ...]
    with_item: bool


@contextmanager
def manifest_to_read(settings: Settings) -> Iterator[Manifest]:
    """The manifest as it is, also while another process writes.

    Raises:
        ConfigurationError: Nothing was ever ingested.
    """
    if not (collection_dir(settings) / MANIFEST_FILE).is_file():
        raise nothing_ingested(settings)
    with open_manifest(settings, write=False) as manifest:
        yield manifest


async def list_documents(settings: Settings, *, source: str | None, limit: int) -> tuple[list[Listed], bool]:
    """The first documents in order of id, and whether there are more.

    Raises:
        ConfigurationError: Nothing is ingested yet.
        UsageError: There is no such source.
    """
    with manifest_to_read(settings) as manifest:
        generation, tenant = await _generation(settings), settings.data.tenant
        found = list(islice(manifest.documents(generation, tenant, source), limit + 1))
        if source is not None and not found:
            known = [name for owner, name in manifest.sources(generation) if owner == tenant]
            raise UsageError(f"there is no source {source!r}; there are: {', '.join(known) or 'none'}")
        return [Listed(record, _sharing(manifest, record)) for record in found[:limit]], len(found) > limit


async def list_failed(settings: Settings, *, source: str | None, limit: int) -> tuple[list[ItemRecord], bool]:
    """The first items that could not be read the last time, in order of source and id, and whether there are more."""
    with manifest_to_read(settings) as manifest:
        failed = (item for item in manifest.items(settings.data.tenant, failed=True) if source in (None, item.source))
        found = list(islice(failed, limit + 1))
        return found[:limit], len(found) > limit


async def show_document(settings: Settings, document_id: str) -> Shown:
    """All that is known of an id.

    Raises:
        UsageError: It is neither a document's nor an item's.
    """
    with manifest_to_read(settings) as manifest:
        generation, tenant = await live_generation(settings) or "", settings.data.tenant
        record = manifest.document(generation, tenant, document_id)
        if record is not None:
            item = manifest.item(tenant, record.source, record.item_id)
            inside = manifest.documents_of_item(generation, tenant, record.source, record.item_id)
        else:
            item = _item(manifest, tenant, document_id)
            if item is None:
                raise _unknown(manifest, generation, tenant, document_id)
            inside = manifest.documents_of_item(generation, tenant, item.source, item.item_id)
        packed = manifest.content(record.content_hash) if record is not None else None
        return Shown(
            id=document_id,
            record=record,
            item=item,
            documents=tuple(sorted(each.document_id for each in inside)),
            also_in=_sharing(manifest, record) if record is not None else (),
            content=None if packed is None else unpack(packed),
        )


async def find_targets(settings: Settings, ids: Sequence[str]) -> list[Target]:
    """What deleting these ids would delete.

    Raises:
        UsageError: One of them is unknown.
    """
    with manifest_to_read(settings) as manifest:
        return _targets(manifest, await live_generation(settings) or "", settings.data.tenant, ids)


async def delete_documents(settings: Settings, ids: Sequence[str], command: str) -> Report:
    """Delete documents, and items with the documents inside them; no model is loaded.

    Raises:
        UsageError: An id is unknown. Nothing was deleted.
        StoreError: The store is in use, unreachable or damaged.
    """
    started = time.perf_counter()
    if not (collection_dir(settings) / MANIFEST_FILE).is_file():
        raise nothing_ingested(settings)
    async with logged_run_of(settings, command) as (manifest, report):
        targets = _targets(manifest, await live_generation(settings) or "", settings.data.tenant, ids)
        async with _collection(settings) as collection:
            for source, found in groupby(sorted(targets, key=lambda target: target.source), lambda t: t.source):
                await _delete(collection, manifest, settings.data.tenant, source, list(found), report)
        manifest.forget_unused_contents()
        report.seconds = time.perf_counter() - started
    return report


async def retry(settings: Settings, number: int | None, command: str, observer: Observer) -> Report:
    """Read again what failed in a run, as ingesting it would: the same sources and ids.

    What was read since is passed over. What cannot be read by itself, such as a line of a stream, is reported as
    failed.

    Args:
        number: Of the run; None for the last one in which something failed.

    Raises:
        UsageError: There is no such run, or nothing failed in it.
    """
    with manifest_to_read(settings) as manifest:
        run = find_run(manifest, number)
        items, rest = _failed_in(manifest, settings.data.tenant, run)
    if not items:
        return Report(failed=rest)
    async with logged_run(settings, command, observer) as (ingestion, _):
        await announce_items(settings, ingestion, items, observer.notify)
        report = await ingestion.run(items, total=len(items))
        report.failed.extend(rest)
    return report


def find_run(manifest: Manifest, number: int | None) -> Run:
    """A run by its number; without one the last in which something failed.

    Raises:
        UsageError: There is none.
    """
    log = RunLog(manifest.connection)
    if number is not None:
        run = log.find(number)
        if run is None:
            raise UsageError(f"there is no run {number}; `rag jobs list` shows those that are remembered")
        return run
    failed = next((run for run in log.all(limit=1000) if run.report.get("failed")), None)
    if failed is None:
        raise UsageError("nothing failed in any run that is remembered; there is nothing to retry")
    return failed


async def _generation(settings: Settings) -> str:
    live = await live_generation(settings)
    if live is None:
        raise nothing_ingested(settings)
    return live


def _sharing(manifest: Manifest, record: DocumentRecord) -> tuple[str, ...]:
    same = manifest.documents_with_content(record.generation, record.tenant, record.source, record.content_hash)
    return tuple(sorted(each.document_id for each in same if each.document_id != record.document_id))


def _item(manifest: Manifest, tenant: str, item_id: str) -> ItemRecord | None:
    """The item of that id; its source is what the id begins with."""
    parts = item_id.split("/")
    sources = ("/".join(parts[:length]) for length in range(1, len(parts)))
    found = (manifest.item(tenant, source, item_id) for source in sources)
    return next((item for item in found if item is not None), None)


def _targets(manifest: Manifest, generation: str, tenant: str, ids: Sequence[str]) -> list[Target]:
    return [_target(manifest, generation, tenant, document_id) for document_id in dict.fromkeys(ids)]


def _target(manifest: Manifest, generation: str, tenant: str, document_id: str) -> Target:
    record = manifest.document(generation, tenant, document_id)
    # Of what is inside a file and holds no text itself, such as an archive in an archive, only the insides are known.
    outer = [document_id[:place] for place, character in enumerate(document_id) if character == "#"]
    known = (_item(manifest, tenant, item_id) for item_id in (document_id, *reversed(outer)))
    item = next((item for item in known if item is not None), None)
    if record is not None:
        source, item_id = record.source, record.item_id
    elif item is not None:
        source, item_id = item.source, item.item_id
    else:
        raise _unknown(manifest, generation, tenant, document_id)
    inside = [each.document_id for each in manifest.documents_of_item(generation, tenant, source, item_id)]
    with_item = item_id == document_id
    gone = [each for each in inside if with_item or each == document_id or each.startswith(f"{document_id}#")]
    if not gone and not with_item:
        raise _unknown(manifest, generation, tenant, document_id)
    return Target(source, item_id, tuple(gone), with_item)


def _unknown(manifest: Manifest, generation: str, tenant: str, document_id: str) -> UsageError:
    near = _near(manifest, generation, tenant, document_id)
    hint = f"near it: {', '.join(near)}" if near else "`rag documents list` shows those that are there"
    return UsageError(f"there is no document {document_id!r}; {hint}")


def _near(manifest: Manifest, generation: str, tenant: str, wanted: str) -> list[str]:
    """Ids that hold the wanted file name, else similar ones."""
    name = wanted.rpartition("/")[2].casefold()
    ids = (record.document_id for record in manifest.documents(generation, tenant))
    holding = list(islice((known for known in ids if name and name in known.casefold()), _SUGGESTED))
    if holding:
        return holding
    first = [record.document_id for record in islice(manifest.documents(generation, tenant), _COMPARED)]
    return get_close_matches(wanted, first, n=_SUGGESTED)


@asynccontextmanager
async def _collection(settings: Settings) -> AsyncIterator[Collection | None]:
    """The live collection; None where all that was ingested failed, so that there is none."""
    if await live_generation(settings) is None:
        yield None
        return
    collection = await open_collection_without_model(settings)
    try:
        yield collection
    finally:
        await collection.store.close()


async def _delete(
    collection: Collection | None,
    manifest: Manifest,
    tenant: str,
    source: str,
    targets: Sequence[Target],
    report: Report,
) -> None:
    documents = sorted({document_id for target in targets for document_id in target.documents})
    items = tuple(sorted({target.item_id for target in targets if target.with_item}))
    if collection is None:
        manifest.record("", tenant, source, Changes(epoch=0, gone_items=items))
        return
    leftover = (await settle(collection.store, manifest, tenant, source)).leftover
    for start in range(0, max(1, len(documents)), _BATCH_DOCUMENTS):
        is_last = start + _BATCH_DOCUMENTS >= len(documents)
        gone = tuple(documents[start : start + _BATCH_DOCUMENTS])
        change = Change(
            collection, manifest, tenant, Batch(source, gone=gone, gone_items=items if is_last else ()), leftover
        )
        await change.begin()
        await change.finish()
        leftover -= change.appearing
        report.deleted += len(gone)
    await sweep(collection.store, manifest, tenant, source, leftover)


def _failed_in(manifest: Manifest, tenant: str, run: Run) -> tuple[list[FileItem], list[Failure]]:
    """The files that failed and have not been read since, and what is no file."""
    failures = RunLog(manifest.connection).failures(run.id)
    if not failures:
        raise UsageError(f"nothing failed in run {run.id}; there is nothing to retry")
    wanted = {failure.path for failure in failures}
    by_location = {item.location: item for item in manifest.items(tenant) if item.location in wanted}
    items: list[FileItem] = []
    rest: list[Failure] = []
    for failure in failures:
        item = by_location.get(failure.path)
        if item is None or not Path(item.location).is_absolute():
            rest.append(Failure(failure.path, f"cannot be retried by itself; run again: {run.command}"))
        elif item.error is not None:
            items.append(FileItem(Path(item.location), item.source, item.item_id))
    return items, rest
