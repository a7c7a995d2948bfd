"""The write path: load -> chunk -> embed (dense + lexical) -> write -> record.

Per document the order is: note that it is begun, write the new version's passages, delete those of any other version,
record the content hash last. What a run that dies in between began is repeated by the next one: ids depend on content
only, so nothing is doubled, and passages of a version that was never finished do not stay.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ingest.chunking.passages import embedding_text, make_passages
from ingest.discover import FoundFile
from ingest.load.detect import extract
from ingest.manifest import Manifest, ManifestEntry
from rag.errors import DocumentError
from rag.filters import Comparison, Compound
from rag.retrieval.embedding import Embedder
from rag.retrieval.lexical import LexicalEncoder
from rag.retrieval.store import CollectionSpec, IndexedPassage, PassageStore
from rag.types import Document, Passage

PIPELINE_VERSION = "1"
"""Part of every content hash: raised when loading changes, so that unchanged files are read anew."""

MAX_FILE_BYTES = 200_000_000
_BATCH_PASSAGES = 512
"""How many passages are embedded and written at once: a second or two of work, after which a run can be stopped."""

_SAMPLE_PASSAGES = 2048
"""How many passages are gathered before a collection is made: their mean length normalises its BM25."""

Chunk = Callable[[Document], Sequence[tuple[int, int]]]


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
class Failure:
    """A file that could not be ingested, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: documents dealt with, of how many, and passages written so far."""

    documents: int
    total: int
    passages: int


@dataclass
class Report:
    """What a run did; counts of documents, and of passages written."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed: list[Failure] = field(default_factory=list)
    passages: int = 0
    seconds: float = 0.0
    encoder_seconds: float = 0.0

    @property
    def documents(self) -> int:
        """How many documents are dealt with."""
        return self.added + self.updated + self.unchanged + len(self.failed)


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document as passages, with what the manifest will say of it.

    Attributes:
        replaces: An older version is in the collection.
        unfinished: A run that died may have left passages of another version.
    """

    entry: ManifestEntry
    passages: list[Passage]
    replaces: bool
    unfinished: bool


@dataclass
class Ingestion:
    """One run of the write path.

    Args:
        collection: None when there is none yet; then `create` makes it from the first batch of passages.
        chunk_identity: How `chunk` is configured; part of the content hash.
    """

    tenant: str
    embedder: Embedder
    chunk: Chunk
    chunk_identity: str
    manifest: Manifest
    collection: OpenCollection | None
    create: Callable[[Sequence[str]], Awaitable[OpenCollection]]
    on_progress: Callable[[Progress], None] = lambda _: None

    async def run(self, files: Sequence[FoundFile]) -> Report:
        """Ingest files; one that fails is named in the report and stops nothing."""
        report = Report()
        async with self._measured(report):
            await self._write_all(self._prepare_all(files, report), report, total=len(files))
        return report

    async def run_documents(self, documents: Sequence[Document]) -> Report:
        """Ingest documents that are text already."""
        report = Report()
        async with self._measured(report):
            prepared = (
                self._prepare_document(document, path="", content_hash=document.version) for document in documents
            )
            await self._write_all(prepared, report, total=len(documents))
        return report

    @asynccontextmanager
    async def _measured(self, report: Report) -> AsyncIterator[None]:
        started = time.perf_counter()
        yield
        if self.collection is not None:
            # Also when nothing was written: an earlier run may have been stopped before it came to this.
            await self.collection.store.optimize()
        report.seconds = time.perf_counter() - started

    def _prepare_all(self, files: Sequence[FoundFile], report: Report) -> Iterator[PreparedDocument]:
        taken: dict[str, Path] = {}
        for file in files:
            try:
                _refuse_taken(file, str(taken.setdefault(file.document_id, file.path)))
                prepared = self._prepare_file(file)
            except DocumentError as error:
                report.failed.append(Failure(_printable(file.path), str(error)))
                continue
            if prepared is None:
                report.unchanged += 1
            else:
                yield prepared

    def _prepare_file(self, file: FoundFile) -> PreparedDocument | None:
        """The file's document, ready to be embedded; None when its content is in the collection already."""
        _refuse_unreadable_name(file)
        known = self.manifest.find(self.tenant, file.document_id)
        if known and Path(known.path).exists():
            _refuse_taken(file, known.path)
        data = _read(file.path)
        content_hash = self._content_hash(data)
        is_whole = not self.manifest.is_unfinished(self.tenant, file.document_id)
        if known and known.content_hash == content_hash and is_whole:
            return None
        extracted = extract(data, file.path.name)
        document = Document(
            id=file.document_id,
            version=content_hash[:16],
            source=file.source,
            title=extracted.title or file.path.stem,
            text=extracted.text,
            headings=extracted.headings,
            page_starts=extracted.page_starts,
            metadata={**extracted.metadata, "media_type": extracted.media_type},
        )
        return self._prepare_document(document, path=str(file.path), content_hash=content_hash)

    def _prepare_document(self, document: Document, *, path: str, content_hash: str) -> PreparedDocument:
        passages = make_passages(document, tenant=self.tenant, spans=self.chunk(document))
        entry = ManifestEntry(self.tenant, document.id, document.source, path, content_hash, len(passages))
        return PreparedDocument(
            entry,
            passages,
            replaces=self.manifest.find(self.tenant, document.id) is not None,
            unfinished=self.manifest.is_unfinished(self.tenant, document.id),
        )

    def _content_hash(self, data: bytes) -> str:
        prefix = f"{PIPELINE_VERSION}\0{self.chunk_identity}\0".encode()
        return hashlib.sha256(prefix + data).hexdigest()

    async def _write_all(self, prepared: Iterable[PreparedDocument], report: Report, *, total: int) -> None:
        self.on_progress(Progress(0, total, 0))
        batch: list[PreparedDocument] = []
        waiting = 0
        for document in prepared:
            batch.append(document)
            waiting += len(document.passages)
            if waiting >= (_SAMPLE_PASSAGES if self.collection is None else _BATCH_PASSAGES):
                await self._write(batch, report, total=total)
                batch, waiting = [], 0
        if batch:
            await self._write(batch, report, total=total)
        self.on_progress(Progress(report.documents, total, report.passages))

    async def _write(self, batch: Sequence[PreparedDocument], report: Report, *, total: int) -> None:
        passages = [passage for document in batch for passage in document.passages]
        entries = [document.entry for document in batch]
        for start in range(0, len(passages), _BATCH_PASSAGES):
            await self._write_passages(passages[start : start + _BATCH_PASSAGES], entries, report, sample=passages)
            self.on_progress(Progress(report.documents, total, report.passages))
        if self.collection is not None:
            for document in batch:
                if document.replaces or document.unfinished or self.manifest.is_adopted:
                    await self.collection.store.delete(self.tenant, _other_versions(document))
        self.manifest.record(entries)
        report.updated += sum(document.replaces for document in batch)
        report.added += sum(not document.replaces for document in batch)

    async def _write_passages(
        self, passages: Sequence[Passage], entries: list[ManifestEntry], report: Report, *, sample: Sequence[Passage]
    ) -> None:
        texts = [embedding_text(passage) for passage in passages]
        started = time.perf_counter()
        vectors = await self.embedder.embed_passages(texts)
        report.encoder_seconds += time.perf_counter() - started
        if self.collection is None:
            # Not before the first vectors are there: a model that fails must not leave a collection made for it.
            self.collection = await self.create([embedding_text(passage) for passage in sample])
            self.manifest.begin_collection(self.collection.spec.id, adopted=False)
        self.manifest.begin(entries)
        weights = self.collection.lexical.encode_passages(texts)
        await self.collection.store.upsert(
            [IndexedPassage(*parts) for parts in zip(passages, vectors, weights, strict=True)]
        )
        report.passages += len(passages)


def _refuse_unreadable_name(file: FoundFile) -> None:
    try:
        file.document_id.encode()
    except UnicodeEncodeError as error:
        raise DocumentError("its name is not valid UTF-8; rename it") from error


def _printable(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _refuse_taken(file: FoundFile, owner: str) -> None:
    if owner != str(file.path):
        raise DocumentError(
            f"its document id {file.document_id!r} belongs to {owner}; pass --source NAME to tell them apart"
        )


def _other_versions(document: PreparedDocument) -> Compound:
    return Compound(
        "and",
        (
            Comparison("eq", "document_id", document.entry.document_id),
            Comparison("ne", "version", document.passages[0].version if document.passages else ""),
        ),
    )


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DocumentError(f"too large: {size:,} bytes, at most {MAX_FILE_BYTES:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror or error}") from error
