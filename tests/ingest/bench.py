"""A folder of files and everything that one collection of them keeps between runs, over the in-memory store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from ingest.discover import discover
from ingest.items import Item
from ingest.load.json_records import FieldMapping
from ingest.manifest import Manifest
from ingest.pipeline import Ingestion
from ingest.prepare import Preparation, PreparedItem, prepare_item
from ingest.report import Progress, Report
from rag.adapters.bm25 import Bm25Encoder
from rag.errors import ModelRuntimeError, StoreError
from rag.filters import Filter
from rag.retrieval.store import CollectionSpec, IndexedPassage
from rag.settings import Chunking
from rag.types import Document, Passage, Vectors
from tests.fake_store import HashEmbedder, InMemoryStore

T = TypeVar("T")
R = TypeVar("R")
TENANT = "default"
SOURCE = "docs"
SPEC = CollectionSpec("c0ffee", "hash", 64, "bm25", "sentences=2", 8)
PREPARATION = Preparation(Chunking(sentences=2, max_tokens=100), FieldMapping())


class FragileStore(InMemoryStore):
    """Fails when as many steps that change it have succeeded as `survives`.

    Attributes:
        calls: Names of those steps, in order.
        optimized: How often it was asked to be made fast.
    """

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.survives: int | None = None
        self.calls: list[str] = []
        self.optimized = 0

    async def upsert(self, passages: Sequence[IndexedPassage]) -> None:
        self._step("upsert")
        await super().upsert(passages)

    async def delete(self, tenant: str, filter: Filter) -> None:  # noqa: A002
        self._step("delete")
        await super().delete(tenant, filter)

    async def hide(self, tenant: str, source: str, versions: Collection[str]) -> int:
        self._step("hide")
        return await super().hide(tenant, source, versions)

    async def optimize(self) -> None:
        self.optimized += 1

    def _step(self, name: str) -> None:
        if self.survives == 0:
            raise StoreError("the disk is full")
        if self.survives is not None:
            self.survives -= 1
        self.calls.append(name)


class FragileEmbedder(HashEmbedder):
    """Fails from the call on whose number is `fails_at`, counted from 0; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.fails_at: int | None = None
        self.calls = 0
        self.texts: list[str] = []

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if self.fails_at is not None and self.calls >= self.fails_at:
            raise ModelRuntimeError("the model failed")
        self.calls += 1
        self.texts += texts
        return await super().embed_passages(texts)


@dataclass
class OpenedCollection:
    store: FragileStore = field(default_factory=FragileStore)
    lexical: Bm25Encoder = field(
        default_factory=lambda: Bm25Encoder(language="english", k1=1.2, b=0.75, average_length=8)
    )

    @property
    def spec(self) -> CollectionSpec:
        return self.store.spec


class InProcessPool(Generic[T, R]):
    """Stands in for a `WorkerPool` where a test is about something else: no process is started."""

    def __init__(self, function: Callable[[T], R], **limits: object) -> None:
        self._function = function

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def run(self, argument: T) -> R:
        return self._function(argument)


class Bench:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self.docs = folder / SOURCE
        self.docs.mkdir(parents=True)
        self.manifest_file = folder / "manifest.sqlite"
        self.collection = OpenedCollection()
        self.embedder = FragileEmbedder()
        self.created: list[Sequence[str]] = []
        self.progress: list[Progress] = []
        self.is_new = True

    def write(self, **files: str | bytes) -> None:
        """A name's first underscore is its dot."""
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (self.docs / name.replace("_", ".", 1)).write_bytes(data)

    async def ingest(self, *paths: Path, source: str | None = None) -> Report:
        found = discover(paths or [self.docs], source).files
        return await self.run(lambda ingestion: ingestion.run(found, total=len(found)))

    async def ingest_documents(self, *documents: Document) -> Report:
        return await self.run(lambda ingestion: ingestion.run_documents(documents))

    async def remove(self, *item_ids: str) -> Report:
        return await self.run(lambda ingestion: ingestion.remove(SOURCE, item_ids))

    async def run(self, use: Callable[[Ingestion], Awaitable[Report]], *, chunking: Chunking | None = None) -> Report:
        manifest = Manifest(self.manifest_file)
        preparation = PREPARATION if chunking is None else Preparation(chunking, FieldMapping())

        async def prepare(item: Item) -> PreparedItem:
            return prepare_item(item, preparation)

        ingestion = Ingestion(
            tenant=TENANT,
            embedder=self.embedder,
            preparation=preparation,
            prepare=prepare,
            ahead=4,
            manifest=manifest,
            collection=None if self.is_new else self.collection,
            create=self._create,
            on_progress=self.progress.append,
        )
        try:
            report = await use(ingestion)
            await ingestion.finish()
            return report
        finally:
            manifest.close()

    async def _create(self, sample: Sequence[str]) -> OpenedCollection:
        self.created.append(sample)
        self.is_new = False
        return self.collection

    @property
    def store(self) -> FragileStore:
        return self.collection.store

    @property
    def passages(self) -> list[Passage]:
        """What is stored, hidden or not, by document and in order."""
        passages = (point.passage for point in self.store.points.values())
        return sorted(passages, key=lambda passage: (passage.document_id, passage.version, passage.ordinal))

    @property
    def texts(self) -> dict[str, list[str]]:
        """The stored passages of each document; doubled where two versions of it are."""
        found: dict[str, list[str]] = {}
        for passage in self.passages:
            for document_id in (passage.document_id, *passage.also_in):
                found.setdefault(document_id, []).append(passage.text)
        return dict(sorted(found.items()))

    @property
    def hidden(self) -> frozenset[str]:
        hidden = self.store.hidden_versions.get((TENANT, SOURCE))
        return hidden.versions if hidden else frozenset()


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, len(report.failed)


def numbered(words: str, numbers: Iterable[int]) -> str:
    """A sentence for each number: `words 1. words 2.`"""
    return " ".join(f"{words.capitalize()} {number}." for number in numbers)
