"""Bringing manifest and store in line before a source is touched, whatever ended the run before.

The store decides: what it shows is what is searchable. The manifest is believed where both name the same epoch and
the number of passages agrees; else every version is compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ingest.manifest import Changes, DocumentRecord, Manifest
from ingest.plan import content_hash_of
from rag.errors import StoreError
from rag.filters import Comparison
from rag.retrieval.store import PassageStore


@dataclass(frozen=True, slots=True)
class Settled:
    """A source whose manifest says what the store holds.

    Attributes:
        leftover: Hidden versions: of an update that was not finished, or replaced and not deleted yet.
        lost: Documents whose passages the store no longer holds whole, to be written again.
    """

    leftover: frozenset[str]
    lost: tuple[DocumentRecord, ...] = ()


async def settle(store: PassageStore, manifest: Manifest, tenant: str, source: str) -> Settled:
    """Compare, and correct the manifest where they differ."""
    generation = store.spec.id
    hidden = await store.hidden(tenant, source)
    known = manifest.versions(generation, tenant, source)
    if hidden.epoch == manifest.epoch(generation, tenant, source) and not hidden.versions:
        lost = manifest.lost(generation, tenant, source)
        if not lost and await store.count(tenant, Comparison("eq", "source", source)) == sum(known.values()):
            return Settled(frozenset())
    recorded_epoch = manifest.epoch(generation, tenant, source)
    stored = await store.versions(tenant, source)
    visible = {version: count for version, count in stored.items() if version not in hidden.versions}
    records = list(manifest.documents(generation, tenant, source))
    damaged = {record for record in records if not record.version or visible.get(record.version, 0) != record.passages}
    broken = {record.version for record in damaged if record.version in visible}
    shown: dict[str, tuple[str, ...]] = {}
    for version in sorted(visible.keys() - known.keys()):
        first = await store.first_passage(tenant, version)
        if first is None:
            broken.add(version)
        else:
            shown[version] = (first.document_id, *first.also_in)
    items = {record.document_id: record.item_id for record in records}
    adopted = [
        DocumentRecord(
            generation=generation,
            tenant=tenant,
            document_id=document_id,
            source=source,
            item_id=items.get(document_id) or _item_of(document_id, tenant, source, manifest),
            content_hash=content_hash_of(version),
            version=version,
            passages=visible[version],
        )
        for version, document_ids in shown.items()
        for document_id in document_ids
    ]
    gone = {record.document_id for record in damaged} - {record.document_id for record in adopted}
    # What is hidden was replaced or deleted on purpose, by a run that did not come to recording it.
    lost_records = [
        replace(record, version="", passages=0)
        for record in damaged
        if record.document_id in gone and record.version not in hidden.versions
    ]
    # An item whose documents are not what was recorded of it is read anew, also where its bytes are those recorded.
    manifest.doubt_items(tenant, source, {record.item_id for record in (*adopted, *damaged)})
    # Before anything is hidden, and with the epoch that was recorded: whatever ends this, the next run does it again.
    manifest.record(
        generation,
        tenant,
        source,
        Changes(recorded_epoch, documents=[*adopted, *lost_records], gone=sorted(gone)),
    )
    epoch = hidden.epoch
    if broken:
        epoch = await store.hide(tenant, source, hidden.versions | broken)
    manifest.record_epoch(generation, tenant, source, epoch)
    leftover = (hidden.versions | broken) & stored.keys()
    return Settled(leftover, tuple(sorted(lost_records, key=lambda record: record.document_id)))


async def sweep(store: PassageStore, manifest: Manifest, tenant: str, source: str, leftover: frozenset[str]) -> None:
    """Delete what stayed hidden of a source that was settled, and verify what is left.

    Raises:
        StoreError: The store does not hold what it should.
    """
    generation = store.spec.id
    if leftover:
        await store.delete(tenant, Comparison("in", "version", tuple(sorted(leftover))))
    if (await store.hidden(tenant, source)).versions:
        epoch = await store.hide(tenant, source, ())
        manifest.record_epoch(generation, tenant, source, epoch)
    expected = sum(manifest.versions(generation, tenant, source).values())
    counted = await store.count(tenant, Comparison("eq", "source", source))
    if counted != expected:
        raise StoreError(
            f"the store holds {counted} passages of {source!r} and should hold {expected}; run it again, which "
            "compares every document"
        )


def _item_of(document_id: str, tenant: str, source: str, manifest: Manifest) -> str:
    """The item that holds the document: the first that is known, or listed now, of those that its id may mean."""
    ends = [place for place, character in enumerate(document_id) if character == "#"]
    for item_id in (document_id, *(document_id[:end] for end in ends)):
        if manifest.is_listed(source, item_id):
            return item_id
        if manifest.item(tenant, source, item_id) is not None:
            return item_id
    return document_id
