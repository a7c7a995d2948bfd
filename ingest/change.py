"""One batch of changes on its way into the store, in the order that no death of the process can harm.

    hide the versions that are to come    a search sees nothing of them yet
    write them, count them                what is incomplete never shows
    show them and hide the former ones    one step: a search sees the one or the other
    delete the former ones
    record it in the manifest

Whatever dies in between leaves either the former state or the new one visible, and the rest hidden, where the next
run finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ingest.content import title_without_one, unpack
from ingest.manifest import Changes, DocumentRecord, ItemRecord, Manifest
from ingest.plan import Group, Plan, content_hash_of, plan
from ingest.prepare import PreparedContent
from rag.errors import StoreError
from rag.filters import Comparison
from rag.retrieval.lexical import LexicalEncoder
from rag.retrieval.passage_text import indexed_text
from rag.retrieval.store import CollectionSpec, IndexedPassage, PassageStore, passage_id
from rag.types import Passage, Vectors

SLICE_PASSAGES = 512
"""How many passages are embedded, and written, at once: a second or two of work, after which a run can be stopped."""


class OpenCollection(Protocol):
    """An open collection: where passages go, and the lexical encoder that fits it."""

    @property
    def store(self) -> PassageStore:
        """Where passages are written."""
        ...

    @property
    def spec(self) -> CollectionSpec:
        """What it was built with."""
        ...

    @property
    def lexical(self) -> LexicalEncoder:
        """Weighs terms with the collection's own average length."""
        ...


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document with the content that it has from now on, and the item that holds it."""

    item_id: str
    content: PreparedContent


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of one source that change together.

    Attributes:
        documents: That are new or have other content than before.
        gone: Ids of those that are to be deleted.
        items: To be recorded when it is done.
        gone_items: Ids of items to be forgotten.
    """

    source: str
    documents: tuple[NewDocument, ...] = ()
    gone: tuple[str, ...] = ()
    items: tuple[ItemRecord, ...] = ()
    gone_items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddedPassages:
    """Passages with their vectors: shape (n, d). Their versions say which content they belong to."""

    passages: Sequence[Passage]
    vectors: Vectors


class Change:
    """One batch: `begin`, `write` any number of times, `finish`.

    Args:
        leftover: Versions that an earlier run left hidden; they stay hidden.
    """

    def __init__(
        self, collection: OpenCollection, manifest: Manifest, tenant: str, batch: Batch, leftover: frozenset[str]
    ) -> None:
        self._collection = collection
        self._store = collection.store
        self._manifest = manifest
        self._tenant = tenant
        self.batch = batch
        self._leftover = leftover
        self._generation = collection.spec.id
        self._former = set[str]()
        self._before = {record.document_id: record for record in self._affected()}
        self._plan = self._planned()
        self._groups = {group.content_hash: group for group in self._plan.appearing}
        self._copied = {
            record.content_hash: record
            for record in self._before.values()
            if record.content_hash in self._groups and record.version
        }
        self._expected = dict.fromkeys(self._groups, 0)
        self._titles = {d.content.content_hash: d.content.content.title for d in batch.documents}

    async def begin(self) -> None:
        """Hide what is to come, and copy what the store holds already."""
        if self.appearing:
            await self._store.hide(self._tenant, self.batch.source, self._leftover | self.appearing)
        for content_hash, record in self._copied.items():
            await self._copy(record, self._groups[content_hash])

    @property
    def appearing(self) -> frozenset[str]:
        """The versions that are to come."""
        return frozenset(group.version for group in self._plan.appearing)

    @property
    def added(self) -> int:
        """How many documents are new."""
        return sum(document.content.document_id not in self._former for document in self.batch.documents)

    @property
    def updated(self) -> int:
        """How many documents have other content than before."""
        return len(self.batch.documents) - self.added

    @property
    def unwritten(self) -> set[str]:
        """Hashes of the contents that are still to be written."""
        return {content_hash for content_hash, count in self._expected.items() if not count}

    async def write(self, embedded: EmbeddedPassages) -> int:
        """Write passages, and say how many; those of a content that was copied are passed over."""
        stamped: list[Passage] = []
        rows: list[int] = []
        for row, passage in enumerate(embedded.passages):
            content_hash = content_hash_of(passage.version)
            if content_hash in self._groups and content_hash not in self._copied:
                stamped.append(self._stamped(passage, self._groups[content_hash]))
                rows.append(row)
                self._expected[content_hash] += 1
        if stamped:
            texts = [indexed_text(passage) for passage in stamped]
            weights = await asyncio.to_thread(self._collection.lexical.encode_passages, texts)
            vectors = embedded.vectors[rows]
            await self._store.upsert([IndexedPassage(*parts) for parts in zip(stamped, vectors, weights, strict=True)])
        return len(stamped)

    async def finish(self) -> None:
        """Verify, show, delete, record.

        Raises:
            StoreError: The store does not hold what was written. Nothing has changed for searches.
        """
        source, retiring = self.batch.source, self._plan.retiring
        appearing = self.appearing
        if appearing:
            written = Comparison("in", "version", tuple(sorted(appearing)))
            counted = await self._store.count(self._tenant, written)
            if counted != sum(self._expected.values()):
                # Not kept for the next run to continue, which would count the same.
                await self._store.delete(self._tenant, written)
                raise StoreError(
                    f"of {sum(self._expected.values())} passages written to {source!r} the store holds {counted}; "
                    "what was searchable before still is. Run it again."
                )
        if appearing or retiring:
            epoch = await self._store.hide(self._tenant, source, (self._leftover - appearing) | retiring)
        else:
            epoch = self._manifest.epoch(self._generation, self._tenant, source)
        if retiring:
            await self._store.delete(self._tenant, Comparison("in", "version", tuple(sorted(retiring))))
        self._manifest.record(
            self._generation,
            self._tenant,
            source,
            Changes(epoch, self._records(), self.batch.gone, self.batch.items, self.batch.gone_items),
        )

    def _affected(self) -> Iterator[DocumentRecord]:
        """The documents that change, and all that have or had a content that one of them has or gets."""
        changing = [document.content.document_id for document in self.batch.documents] + list(self.batch.gone)
        known = [self._manifest.document(self._generation, self._tenant, document_id) for document_id in changing]
        records = [record for record in known if record is not None]
        self._former = {record.document_id for record in records}
        contents = {record.content_hash for record in records}
        contents |= {document.content.content_hash for document in self.batch.documents}
        for record in records:
            if record.source != self.batch.source:
                raise StoreError(f"the document {record.document_id!r} belongs to the source {record.source!r}")
        yield from records
        for content_hash in sorted(contents):
            yield from self._manifest.documents_with_content(
                self._generation, self._tenant, self.batch.source, content_hash
            )

    def _planned(self) -> Plan:
        changes: dict[str, str | None] = dict.fromkeys(self.batch.gone)
        changes |= {document.content.document_id: document.content.content_hash for document in self.batch.documents}
        stored = ((record.document_id, record.content_hash, record.version) for record in self._before.values())
        return plan(changes, stored)

    async def _copy(self, record: DocumentRecord, group: Group) -> None:
        # The documents of a version are all here, and its passages are called by the first of them.
        owner = min(r.document_id for r in self._before.values() if r.version == record.version)
        for start in range(0, record.passages, SLICE_PASSAGES):
            ordinals = range(start, min(start + SLICE_PASSAGES, record.passages))
            ids = [passage_id(self._tenant, owner, record.version, ordinal) for ordinal in ordinals]
            found = await self._store.retrieve(self._tenant, ids)
            stamped = [self._stamped(item.passage, group) for item in found]
            # Words may be other ones, since a document without a title is called by its name.
            texts = [indexed_text(passage) for passage in stamped]
            lexical = await asyncio.to_thread(self._collection.lexical.encode_passages, texts)
            dense = [item.dense for item in found]
            await self._store.upsert([IndexedPassage(*parts) for parts in zip(stamped, dense, lexical, strict=True)])
        self._expected[group.content_hash] = record.passages

    def _records(self) -> list[DocumentRecord]:
        """Of every document whose version or item changed."""
        records = {}
        for document in self.batch.documents:
            content_hash = document.content.content_hash
            same = [r for r in self._before.values() if r.version and r.content_hash == content_hash]
            for record in same[:1]:
                records[document.content.document_id] = replace(
                    record, document_id=document.content.document_id, item_id=document.item_id
                )
        item_of = {document_id: record.item_id for document_id, record in self._before.items()}
        item_of |= {document.content.document_id: document.item_id for document in self.batch.documents}
        for group in self._plan.appearing:
            for document_id in group.document_ids:
                records[document_id] = DocumentRecord(
                    generation=self._generation,
                    tenant=self._tenant,
                    document_id=document_id,
                    source=self.batch.source,
                    item_id=item_of[document_id],
                    content_hash=group.content_hash,
                    version=group.version,
                    passages=self._expected[group.content_hash],
                )
        return list(records.values())

    def _stamped(self, passage: Passage, group: Group) -> Passage:
        """The passage as it is stored for a group."""
        if passage.version == group.version:
            return passage
        document_id, *also_in = group.document_ids
        title = self._title(group.content_hash)
        return replace(
            passage,
            id=passage_id(passage.tenant, document_id, group.version, passage.ordinal),
            document_id=document_id,
            version=group.version,
            also_in=tuple(also_in),
            title=title_without_one(document_id) if title is None else title,
        )

    def _title(self, content_hash: str) -> str | None:
        """What the content calls itself; None where the file's name has to do."""
        if content_hash not in self._titles:
            packed = self._manifest.content(content_hash)
            self._titles[content_hash] = None if packed is None else unpack(packed).title
        return self._titles[content_hash]
